//! What stands in the files: made from one SVID and the bundles that belong to it, in memory.

use std::fs;
use std::sync::Arc;

use chancery_types::{Clock, Random, RandomError, SecretString, Timestamp};
use der::pem::{LineEnding, encode_string};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::config::{Content, FileConfig, SinkConfig};
use super::{jks, pkcs12};
use crate::identities::{X509State, X509Svid};

/// A file, before it is one.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    pub(super) file: FileConfig,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

/// Why the files could not be made; what is on disk stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// No SVID of that name.
    #[error("there is no identity {0} among what was issued")]
    NoIdentity(String),
    /// It ended before it could be written.
    #[error("the certificate ended at {0}; it is not written")]
    Ended(Timestamp),
    /// The key is not that of the certificate.
    #[error("the key does not belong to the certificate, or one of them cannot be read: {0}")]
    Mismatch(String),
    /// The password of a key store.
    #[error("cannot read the password in {path}: {why}")]
    Password {
        /// Where it should be.
        path: String,
        /// Why it is not.
        why: String,
    },
    /// The key could not be encrypted.
    #[error("the key cannot be encrypted for the key store")]
    Encryption,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The SVID that a sink is for.
pub(super) fn choose(config: &SinkConfig, state: &X509State) -> Result<Arc<X509Svid>, RenderError> {
    let chosen = match &config.spiffe_id {
        None => state.svids.first(),
        Some(id) => state.svids.iter().find(|svid| svid.spiffe_id == *id),
    };
    chosen.cloned().ok_or_else(|| {
        RenderError::NoIdentity(
            config.spiffe_id.as_ref().map_or_else(|| "at all".to_owned(), ToString::to_string),
        )
    })
}

/// All files of a sink.
pub(super) fn render(
    config: &SinkConfig,
    svid: &X509Svid,
    state: &X509State,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Vec<Rendered>, RenderError> {
    let now = clock.now();
    if svid.not_after <= now {
        return Err(RenderError::Ended(svid.not_after));
    }
    check_pair(svid)?;
    let authorities = authorities(svid, state);
    let contents = |content: &Content| -> Result<Zeroizing<Vec<u8>>, RenderError> {
        let certificates = |chain: &[Vec<u8>]| Zeroizing::new(pem("CERTIFICATE", chain).into_bytes());
        Ok(match content {
            Content::Chain => certificates(&svid.chain),
            Content::Leaf => certificates(&svid.chain[..1]),
            Content::Issuers => certificates(&svid.chain[1..]),
            Content::Key => key_pem(svid),
            Content::Combined => {
                let mut both = key_pem(svid);
                both.extend_from_slice(&certificates(&svid.chain));
                both
            }
            Content::Bundle => certificates(&authorities),
            Content::Crl => Zeroizing::new(pem("X509 CRL", &state.crls).into_bytes()),
            Content::Pkcs12 { password, alias } => {
                let entry = Some((svid.key.expose_secret(), svid.chain.as_slice()));
                let contents = pkcs12::Contents { alias, entry, authorities: &authorities };
                Zeroizing::new(pkcs12::encode(&contents, &read_password(password)?, random)?)
            }
            Content::Jks { password, alias } => {
                let entry = Some((svid.key.expose_secret(), svid.chain.as_slice()));
                let contents = pkcs12::Contents { alias, entry, authorities: &authorities };
                Zeroizing::new(jks::encode(&contents, &read_password(password)?, now, random)?)
            }
        })
    };
    config
        .files
        .iter()
        .map(|file| Ok(Rendered { file: file.clone(), bytes: contents(&file.content)? }))
        .collect()
}

/// Authorities of its own trust domain first, then those it federates with, each once.
pub(super) fn authorities(svid: &X509Svid, state: &X509State) -> Vec<Vec<u8>> {
    let own = std::iter::once(svid.spiffe_id.trust_domain());
    let mut all: Vec<Vec<u8>> = Vec::new();
    for bundle in own.chain(svid.federates_with.iter().cloned()).filter_map(|name| state.bundles.get(&name)) {
        for authority in &bundle.x509_authorities {
            if !all.contains(authority) {
                all.push(authority.clone());
            }
        }
    }
    all
}

/// A torn pair must not reach the disk, wherever it was torn.
fn check_pair(svid: &X509Svid) -> Result<(), RenderError> {
    let chain: Vec<CertificateDer<'static>> = svid.chain.iter().cloned().map(CertificateDer::from).collect();
    if chain.is_empty() {
        return Err(RenderError::Mismatch("the chain is empty".to_owned()));
    }
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.key.expose_secret())).clone_key();
    rustls::sign::CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
        .map(drop)
        .map_err(|error| RenderError::Mismatch(error.to_string()))
}

fn key_pem(svid: &X509Svid) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(pem("PRIVATE KEY", &[svid.key.expose_secret()]).into_bytes())
}

fn pem<T: AsRef<[u8]>>(label: &str, documents: &[T]) -> String {
    documents
        .iter()
        .map(|document| {
            encode_string(label, LineEnding::LF, document.as_ref()).expect("the label is one of ours")
        })
        .collect()
}

/// Its first line, as all programs that take passwords from files read them.
fn read_password(path: &std::path::Path) -> Result<SecretString, RenderError> {
    let error = |why: String| RenderError::Password { path: path.display().to_string(), why };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|cause| error(cause.to_string()))?);
    let line = text.lines().next().unwrap_or_default();
    // keytool refuses shorter ones, and RFC 7292 passwords end where a file of this size has long ended.
    if !(6..=1024).contains(&line.len()) {
        return Err(error(format!("its first line has {} bytes, give it 6 to 1024", line.len())));
    }
    Ok(SecretString::new(line.to_owned()))
}
