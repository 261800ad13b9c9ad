//! PEM (RFC 7468), read strictly and within limits.
//!
//! Text outside the blocks is skipped, because `openssl x509 -text` and people put it there. Inside a block
//! there is base64 and nothing else: no headers (RFC 1421), no stray characters, no missing end.

use data_encoding::BASE64;
use zeroize::Zeroizing;

/// Longest PEM text that is read, in bytes.
pub const MAX_PEM: usize = 1 << 20;

/// Why a text is not PEM as expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// The text is larger than what we read.
    #[error("the PEM text has {length} bytes, at most {limit} are read")]
    TooLong {
        /// Bytes given.
        length: usize,
        /// Bytes read at most.
        limit: usize,
    },
    /// There is no BEGIN line at all.
    #[error("no -----BEGIN {expected}----- line was found")]
    Missing {
        /// What was looked for.
        expected: String,
    },
    /// A block of another kind stands where none is expected.
    #[error("line {line}: a {expected} was expected here, this is a {found}")]
    Label {
        /// Line of the BEGIN, from 1.
        line: usize,
        /// What was looked for.
        expected: String,
        /// The label that is there.
        found: String,
    },
    /// More blocks than expected.
    #[error("more than {limit} PEM blocks; split the file")]
    TooMany {
        /// Blocks read at most.
        limit: usize,
    },
    /// A BEGIN without its END.
    #[error("line {line}: the block that begins here has no matching END line; was the file cut short?")]
    Unfinished {
        /// Line of the BEGIN, from 1.
        line: usize,
    },
    /// Something that is not base64 inside a block.
    #[error("line {line}: the block that begins here is not plain base64; headers and comments are not read")]
    Base64 {
        /// Line of the BEGIN, from 1.
        line: usize,
    },
}

/// One block: what it says it is, and its bytes. The bytes are wiped on drop, since they may be a key.
#[derive(Clone, PartialEq, Eq)]
pub struct PemBlock {
    /// The text between `-----BEGIN ` and `-----`.
    pub label: String,
    /// The decoded content.
    pub der: Zeroizing<Vec<u8>>,
    /// Line of the BEGIN, from 1.
    pub line: usize,
}

impl std::fmt::Debug for PemBlock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PemBlock({} in line {}, {} bytes)", self.label, self.line, self.der.len())
    }
}

/// Reads every block of a text, at most `limit` of them; a text without blocks gives an empty list.
///
/// # Errors
/// [`PemError`] naming the line.
pub fn read_pem(text: &[u8], limit: usize) -> Result<Vec<PemBlock>, PemError> {
    if text.len() > MAX_PEM {
        return Err(PemError::TooLong { length: text.len(), limit: MAX_PEM });
    }
    let mut blocks = Vec::new();
    let mut lines = text.split(|byte| *byte == b'\n').enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(label) = boundary(line, b"-----BEGIN ") else { continue };
        if blocks.len() == limit {
            return Err(PemError::TooMany { limit });
        }
        let line = index + 1;
        let mut base64 = Zeroizing::new(Vec::with_capacity(text.len()));
        loop {
            let Some((_, inner)) = lines.next() else { return Err(PemError::Unfinished { line }) };
            match boundary(inner, b"-----END ") {
                Some(end) if end == label => break,
                Some(_) => return Err(PemError::Unfinished { line }),
                None if inner.starts_with(b"-----BEGIN ") => return Err(PemError::Unfinished { line }),
                None => base64.extend(inner.iter().filter(|byte| !b" \t\r".contains(byte))),
            }
        }
        let der = decode(&base64).ok_or(PemError::Base64 { line })?;
        let label = String::from_utf8_lossy(label).into_owned();
        blocks.push(PemBlock { label, der: Zeroizing::new(der), line });
    }
    Ok(blocks)
}

/// Reads a text that holds exactly one block, under one of these labels; the first is named in errors.
///
/// # Errors
/// [`PemError`]: none, another, more than one, or malformed.
pub fn read_pem_one(text: &[u8], labels: &[&str]) -> Result<PemBlock, PemError> {
    let mut blocks = read_pem(text, 1)?;
    let block = blocks.pop().ok_or_else(|| PemError::Missing { expected: first(labels) })?;
    accept(block, labels)
}

/// Reads a chain of certificates, leaf first as TLS has it: one block at least and `limit` at most.
///
/// # Errors
/// [`PemError`], also when a block is something else than a certificate.
pub fn read_certificates(text: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, PemError> {
    let blocks = read_pem(text, limit)?;
    if blocks.is_empty() {
        return Err(PemError::Missing { expected: CERTIFICATE.to_owned() });
    }
    blocks
        .into_iter()
        .map(|block| accept(block, &[CERTIFICATE]).map(|mut block| std::mem::take(&mut *block.der)))
        .collect()
}

/// The PEM text of one block, with lines of 64 characters and a newline at the end.
#[must_use]
pub fn write_pem(label: &str, der: &[u8]) -> String {
    std::mem::take(&mut *write_secret_pem(label, der))
}

/// The same for a private key: the text is wiped on drop.
#[must_use]
pub fn write_secret_pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let length = 2 * (label.len() + 17) + BASE64.encode_len(der.len()) * 65 / 64 + 2;
    let mut text = Zeroizing::new(String::with_capacity(length));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in der.chunks(48) {
        BASE64.encode_append(line, &mut text);
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// The label of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// The label of a certificate request.
pub const CERTIFICATE_REQUEST: &str = "CERTIFICATE REQUEST";
/// The label of a subjectPublicKeyInfo.
pub const PUBLIC_KEY: &str = "PUBLIC KEY";
/// The label of an unencrypted PKCS #8 private key.
pub const PRIVATE_KEY: &str = "PRIVATE KEY";

fn accept(block: PemBlock, labels: &[&str]) -> Result<PemBlock, PemError> {
    if labels.contains(&block.label.as_str()) {
        return Ok(block);
    }
    Err(PemError::Label {
        line: block.line,
        expected: first(labels),
        found: block.label.chars().take(40).collect(),
    })
}

fn first(labels: &[&str]) -> String {
    labels.first().copied().unwrap_or_default().to_owned()
}

fn boundary<'a>(line: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    line.trim_ascii_end().strip_prefix(prefix)?.strip_suffix(b"-----")
}

/// Base64 with its padding at the end; the decoder alone would also take several padded texts in a row.
fn decode(base64: &[u8]) -> Option<Vec<u8>> {
    let padding = base64.iter().position(|byte| *byte == b'=').unwrap_or(base64.len());
    if base64.len() - padding > 2 {
        return None;
    }
    BASE64.decode(base64).ok()
}

#[cfg(test)]
mod tests;
