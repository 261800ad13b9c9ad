//! Credentials from files that somebody renews: an agent's file sink, or another program.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chancery_types::{Digest, TrustDomain};
use chancery_x509::{Certificate, PRIVATE_KEY, read_certificates};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::{Bundles, CredentialError, Credentials};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Certificates of a file that are read.
const MOST_CERTIFICATES: usize = 64;
/// The largest file that is read.
const LARGEST_FILE: u64 = 1 << 20;

/// Where the files lie: PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The certificate, then its issuers.
    pub chain: PathBuf,
    /// Its key, unencrypted.
    pub key: PathBuf,
    /// The roots of its trust domain.
    pub bundle: PathBuf,
}

impl Credentials {
    /// Credentials of these files, and of what they hold later: they are looked at every two seconds for as long as
    /// the credentials are held.
    ///
    /// # Errors
    /// [`CredentialError`] when they cannot be used now. Later the last good ones stay, and a warning says why.
    pub async fn from_files(files: CredentialFiles) -> Result<Self, CredentialError> {
        let credentials = Self::empty();
        let seen = load(&credentials, &files, None).await?;
        let slot = Arc::downgrade(&credentials.0);
        credentials.keep_with(async move {
            let mut seen = seen;
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(slot) = slot.upgrade() else { return };
                match load(&Self(slot), &files, Some(seen)).await {
                    Ok(now) => seen = now,
                    Err(error) => tracing::warn!(%error, "the new credentials are not used"),
                }
            }
        });
        Ok(credentials)
    }
}

/// Takes in what the files hold, unless it is what was `seen` there; returns what was seen now.
async fn load(
    credentials: &Credentials,
    files: &CredentialFiles,
    seen: Option<Digest>,
) -> Result<Digest, CredentialError> {
    let (chain, key, bundle) =
        (read(&files.chain).await?, read(&files.key).await?, read(&files.bundle).await?);
    let parts = [&chain, &key, &bundle].map(|part| *Digest::of(part).as_bytes());
    let now = Digest::of(&parts.concat());
    if seen == Some(now) {
        return Ok(now);
    }
    let chain = certificates("certificate chain", &chain)?;
    let roots = certificates("trust bundle", &bundle)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| CredentialError::Form { what: PRIVATE_KEY, detail: error.to_string() })?;
    credentials.show(chain, key)?;
    let id = credentials.id().ok_or(CredentialError::Identity)?;
    credentials.believe(by_domain(roots, &id.trust_domain()));
    Ok(now)
}

/// A bundle file may hold the roots of friendly trust domains too: each root vouches for the domain that it names, and
/// for our own when it names none.
fn by_domain(roots: Vec<CertificateDer<'static>>, own: &TrustDomain) -> Bundles {
    let mut bundles = Bundles::new();
    for root in roots {
        let named = Certificate::from_der(&root).ok().and_then(|root| root.tbs().spiffe_id());
        let domain = named.map_or_else(|| own.clone(), |id| id.trust_domain());
        bundles.entry(domain).or_default().push(root);
    }
    bundles
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let read = read_certificates(pem, MOST_CERTIFICATES);
    let read = read.map_err(|error| CredentialError::Form { what, detail: error.to_string() })?;
    Ok(read.into_iter().map(CertificateDer::from).collect())
}

async fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let failed = |source| CredentialError::File { path: path.display().to_string(), source };
    let length = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if length > LARGEST_FILE {
        return Err(failed(std::io::Error::other(format!(
            "it has {length} bytes, at most {LARGEST_FILE} are read"
        ))));
    }
    tokio::fs::read(path).await.map(Zeroizing::new).map_err(failed)
}
