//! Private keys in PEM (RFC 7468), as we write them and as other tools do.

use std::fmt;

use der::pem::{self, LineEnding};
use zeroize::Zeroizing;

/// A text holds no private key in PEM, or not one that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// No block whose label says private key.
    #[error("this is not a private key{}", found(.0))]
    NotAKey(Vec<String>),
    /// More than one private key.
    #[error("the file holds {0} private keys; keep one key in one file")]
    Several(usize),
    /// A private key in an encoding that we do not read.
    #[error(
        "a {0:?} block is not supported; rewrite the key with `openssl pkcs8 -topk8 -in KEY -out NEW` \
         (for an OpenSSH key: `ssh-keygen -p -m PKCS8 -f KEY`)"
    )]
    UnsupportedLabel(String),
    /// The passphrase protection of OpenSSL before PKCS#8 (RFC 1421 headers), whose derivation is one MD5.
    #[error("the key uses the old PEM encryption; rewrite it with `openssl pkcs8 -topk8 -in KEY -out NEW`")]
    LegacyEncryption,
    /// Begins like a private key and does not decode.
    #[error("the file is damaged or was cut short: {0}")]
    Damaged(String),
}

/// What a private key block promises to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PemLabel {
    /// `PRIVATE KEY`: PKCS#8 `PrivateKeyInfo`.
    Pkcs8,
    /// `ENCRYPTED PRIVATE KEY`: PKCS#8 `EncryptedPrivateKeyInfo`.
    EncryptedPkcs8,
    /// `EC PRIVATE KEY`: SEC 1 `ECPrivateKey`.
    Sec1,
    /// `RSA PRIVATE KEY`: PKCS#1 `RSAPrivateKey`.
    Pkcs1,
}

impl PemLabel {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pkcs8 => "PRIVATE KEY",
            Self::EncryptedPkcs8 => "ENCRYPTED PRIVATE KEY",
            Self::Sec1 => "EC PRIVATE KEY",
            Self::Pkcs1 => "RSA PRIVATE KEY",
        }
    }
}

impl fmt::Display for PemLabel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The one private key of a text, with what stands before it.
pub(crate) struct PrivateKeyPem<'a> {
    pub(crate) preamble: &'a str,
    pub(crate) label: PemLabel,
    pub(crate) der: Zeroizing<Vec<u8>>,
}

impl<'a> PrivateKeyPem<'a> {
    /// Finds the private key among the blocks of this text; other blocks (EC parameters, certificates) and
    /// text between blocks are passed over.
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, PemError> {
        let text = std::str::from_utf8(text).map_err(|_| PemError::NotAKey(Vec::new()))?;
        let blocks = blocks(text);
        let keys: Vec<&Block<'_>> =
            blocks.iter().filter(|block| block.label.ends_with("PRIVATE KEY")).collect();
        match keys.as_slice() {
            [] => Err(PemError::NotAKey(blocks.iter().map(|block| shorten(block.label)).collect())),
            [block] => block.decode(text),
            several => Err(PemError::Several(several.len())),
        }
    }
}

/// Writes one block. The text is as secret as the key.
pub(crate) fn encode(label: PemLabel, der: &[u8]) -> Zeroizing<String> {
    let text = pem::encode_string(label.as_str(), LineEnding::LF, der)
        .expect("a constant label and a key of a few kilobytes always encode");
    Zeroizing::new(text)
}

/// One `-----BEGIN label-----` with all that follows it up to its end, or up to the next beginning.
struct Block<'a> {
    start: usize,
    label: &'a str,
    text: &'a str,
}

impl Block<'_> {
    fn decode<'t>(&self, text: &'t str) -> Result<PrivateKeyPem<'t>, PemError> {
        let label = match self.label {
            "PRIVATE KEY" => PemLabel::Pkcs8,
            "ENCRYPTED PRIVATE KEY" => PemLabel::EncryptedPkcs8,
            "EC PRIVATE KEY" => PemLabel::Sec1,
            "RSA PRIVATE KEY" => PemLabel::Pkcs1,
            other => return Err(PemError::UnsupportedLabel(shorten(other))),
        };
        if self.text.lines().any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED")) {
            return Err(PemError::LegacyEncryption);
        }
        let mut buffer = Zeroizing::new(vec![0; self.text.len()]);
        let length = {
            let (_, der) = pem::decode(self.text.as_bytes(), &mut buffer)
                .map_err(|error| PemError::Damaged(error.to_string()))?;
            der.len()
        };
        buffer.truncate(length);
        Ok(PrivateKeyPem { preamble: &text[..self.start], label, der: buffer })
    }
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let starts: Vec<usize> = text
        .match_indices(BEGIN)
        .map(|(at, _)| at)
        .filter(|&at| at == 0 || text.as_bytes()[at - 1] == b'\n')
        .take(MAX_BLOCKS)
        .collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).filter_map(|(&start, limit)| block(text, start, limit)).collect()
}

fn block(text: &str, start: usize, limit: usize) -> Option<Block<'_>> {
    let whole = &text[start..limit];
    let label = whole[BEGIN.len()..].lines().next()?.trim_end().strip_suffix("-----")?;
    let end = whole.find("\n-----END ").and_then(|at| {
        let line = whole[at + 1..].find('\n').map_or(whole.len(), |length| at + 1 + length + 1);
        Some(line).filter(|&line| line <= whole.len())
    });
    Some(Block { start, label, text: &whole[..end.unwrap_or(whole.len())] })
}

fn found(labels: &[String]) -> String {
    if labels.is_empty() {
        "; a PEM block that begins with -----BEGIN PRIVATE KEY----- or the like is expected".to_owned()
    } else {
        format!("; it holds {}", labels.join(", "))
    }
}

fn shorten(label: &str) -> String {
    label.chars().filter(|c| !c.is_control()).take(40).collect()
}

const BEGIN: &str = "-----BEGIN ";
/// More blocks than any key file has; a bound on the work for a strange file.
const MAX_BLOCKS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(label: &str) -> String {
        pem::encode_string(label, LineEnding::LF, &[7; 60]).unwrap()
    }

    fn error(text: &str) -> PemError {
        PrivateKeyPem::parse(text.as_bytes()).err().unwrap()
    }

    #[test]
    fn finds_the_key_among_other_blocks_and_text() {
        let text = format!(
            "Bag Attributes\n{}between\n{}{}",
            pem("EC PARAMETERS"),
            pem("EC PRIVATE KEY"),
            pem("CERTIFICATE")
        );
        let key = PrivateKeyPem::parse(text.as_bytes()).unwrap();
        assert_eq!((key.label, key.der.as_slice()), (PemLabel::Sec1, [7; 60].as_slice()));
        assert!(key.preamble.starts_with("Bag Attributes"));
    }

    #[test]
    fn reads_windows_line_ends() {
        let text = pem("PRIVATE KEY").replace('\n', "\r\n");
        assert_eq!(PrivateKeyPem::parse(text.as_bytes()).unwrap().label, PemLabel::Pkcs8);
    }

    #[test]
    fn refuses_what_is_no_key_and_says_what_it_is() {
        assert_eq!(error("hello"), PemError::NotAKey(Vec::new()));
        assert_eq!(error(&pem("CERTIFICATE")), PemError::NotAKey(vec!["CERTIFICATE".to_owned()]));
        assert!(error(&pem("CERTIFICATE")).to_string().contains("it holds CERTIFICATE"));
        assert_eq!(PrivateKeyPem::parse(&[0xff, 0xfe]).err(), Some(PemError::NotAKey(Vec::new())));
    }

    #[test]
    fn refuses_two_keys_unknown_encodings_and_old_encryption() {
        assert_eq!(error(&pem("PRIVATE KEY").repeat(2)), PemError::Several(2));
        assert!(matches!(error(&pem("OPENSSH PRIVATE KEY")), PemError::UnsupportedLabel(_)));
        let old = pem("RSA PRIVATE KEY")
            .replace("KEY-----\nB", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nB");
        assert_eq!(error(&old), PemError::LegacyEncryption);
    }

    #[test]
    fn refuses_every_truncation() {
        let text = pem("PRIVATE KEY");
        for length in 0..text.len() - 6 {
            assert!(PrivateKeyPem::parse(&text.as_bytes()[..length]).is_err(), "cut at {length}");
        }
    }
}
