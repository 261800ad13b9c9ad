//! `chancery verify`: whether a certificate stands in the log, offline.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chancery_api::LogProofResponse;
use chancery_merkle::{LogKeys, MAX_RECEIPT_BYTES, Receipt};
use chancery_verify::log_keys::stated_log_keys;
use chancery_verify::receipt::LogTrust;
use chancery_x509::read_certificates;
use clap::Args;
use data_encoding::BASE64;
use serde_json::json;

use crate::connection::Reach;
use crate::failure::{usage, verification};
use crate::files;
use crate::flags::Globals;
use crate::place::Place;
use crate::terminal::{Terminal, Tone};

/// Verifies offline that a certificate stands in the log.
///
/// The receipt proves it to whoever has the log's key. That the signature is the issuer's and that the
/// certificate is not revoked are questions of their own.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The receipt, as `enroll --receipt` or `audit prove` wrote it.
    #[arg(long, value_name = "FILE")]
    receipt: PathBuf,
    /// The certificate, PEM.
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// The entry's bytes, for a receipt that does not carry them.
    #[arg(long, value_name = "FILE")]
    entry: Option<PathBuf>,
    /// The log's key, or a file with its keys, one a line; beside a configuration the server is asked.
    #[arg(long, value_name = "VKEY", env = "CHANCERY_LOG_KEY")]
    log_key: Option<String>,
}

/// A receipt that carries the entry that it is about, so that one file is enough.
#[derive(Debug)]
pub(crate) struct ReceiptFile(String);

impl ReceiptFile {
    /// From what the server sends: the entry goes into the receipt's extra data, which the proof authenticates
    /// because it is the entry itself.
    pub(crate) fn of(proof: &LogProofResponse) -> Result<Self> {
        let mut receipt: Receipt = proof.receipt.parse().context("the server sent a damaged receipt")?;
        let entry = BASE64.decode(proof.entry.as_bytes()).context("the server sent a damaged entry")?;
        receipt.extra = Some(entry);
        Ok(Self(receipt.to_string()))
    }

    /// Its text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl Verify {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let log = match &self.log_key {
            Some(key) => log_key(key)?,
            None => self.ask_for_key(globals, terminal).await?,
        };
        let text = files::read_text(&self.receipt, MAX_RECEIPT_BYTES as u64)?;
        let entry = self.entry_of(&text)?;
        let pem = files::read(&self.certificate, files::MAX_PEM)?;
        let certificates =
            read_certificates(&pem, 16).with_context(|| self.certificate.display().to_string())?;
        let proven = LogTrust::new(log)
            .verify_certificate(&text, &entry, certificates.first().map(Vec::as_slice).unwrap_or_default())
            .map_err(|refusal| verification(format!("not proved: {refusal}")))?;
        let (issuance, checkpoint) = (proven.issuance(), proven.entry().checkpoint().checkpoint());
        let data = json!({
            "proved": true, "serial": issuance.serial, "identity": issuance.identity,
            "log_index": proven.entry().index(), "origin": checkpoint.origin(), "size": checkpoint.size(),
            "root": checkpoint.root(),
        });
        terminal.data(&data, || {
            let mut text = format!("{}\n", terminal.paint(Tone::Good, "The certificate stands in the log."));
            text.push_str(&terminal.fields([
                ("serial", issuance.serial.to_string()),
                ("identity", issuance.identity.to_string()),
                ("log", checkpoint.origin().to_owned()),
                ("entry", format!("{} of {}", proven.entry().index(), checkpoint.size())),
            ]));
            text
        })
    }

    fn entry_of(&self, receipt: &str) -> Result<Vec<u8>> {
        if let Some(path) = &self.entry {
            return files::read(path, files::MAX_PEM);
        }
        let receipt: Receipt =
            receipt.parse().map_err(|error| verification(format!("{}: {error}", self.receipt.display())))?;
        receipt.extra.ok_or_else(|| {
            usage("the receipt does not carry its entry; give it with --entry, or fetch one with `chancery audit prove`")
        })
    }

    async fn ask_for_key(&self, globals: &Globals, terminal: &Terminal) -> Result<LogKeys> {
        let Some(place) = Place::find(globals.config.as_deref())? else {
            return Err(usage("say whose log it is with --log-key; `chancery log key` prints the key"));
        };
        let client = Reach::default().open(Some(&place), None).await?;
        let keys = client.log_keys().await.context("give the log's key with --log-key to verify offline")?;
        terminal.note("the log's key was taken from the server; pin it with --log-key");
        Ok(stated_log_keys(&keys)?)
    }
}

/// The log's key, or several of them: the text itself, or a file that holds one a line.
pub(crate) fn log_key(text: &str) -> Result<LogKeys> {
    let key = if Path::new(text).is_file() {
        files::read_text(Path::new(text), MAX_KEYS)?
    } else {
        text.to_owned()
    };
    key.parse().with_context(|| {
        format!(
            "{:?} is neither a log's key nor a file that holds one",
            text.chars().take(60).collect::<String>()
        )
    })
}

/// The most bytes of keys that are read: a hundred keys with long names.
const MAX_KEYS: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use chancery_merkle::NoteVerifier;

    use super::*;

    #[test]
    fn a_log_key_is_a_text_or_a_file() {
        let refused = log_key("nonsense").unwrap_err().to_string();
        assert!(refused.contains("neither a log's key nor a file"), "{refused}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.vkey");
        let verifier =
            NoteVerifier::new("example.org/log", chancery_merkle::NoteKeyKind::Ed25519, KEY).unwrap();
        std::fs::write(&path, format!("{}\n", verifier.vkey())).unwrap();
        assert_eq!(log_key(path.to_str().unwrap()).unwrap().newest(), &verifier);
        assert_eq!(log_key(&verifier.vkey()).unwrap().name(), "example.org/log");
    }

    /// The public key of RFC 8032 section 7.1, test 1.
    const KEY: [u8; 32] = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e,
        0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ];
}
