//! From the configuration to the ledger that it names.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use chancery_keys::read_secret;
use chancery_ledger::{EmbeddedLedger, Ledger, Options, PostgresLedger, PostgresOptions};
use chancery_merkle::LogSigners;
use chancery_types::Random;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::authority::OpenError;
use crate::config::{DatabaseTls, LedgerPlace, PostgresPlace};

/// Opens the ledger at a place.
pub(crate) async fn open_ledger(
    place: &LedgerPlace,
    signers: Arc<LogSigners>,
    random: &dyn Random,
) -> Result<Arc<dyn Ledger>, OpenError> {
    open(place, signers, random, false).await
}

/// Opens the ledger at a place though it may have ended there.
pub(crate) async fn open_to_read(
    place: &LedgerPlace,
    signers: Arc<LogSigners>,
    random: &dyn Random,
) -> Result<Arc<dyn Ledger>, OpenError> {
    open(place, signers, random, true).await
}

async fn open(
    place: &LedgerPlace,
    signers: Arc<LogSigners>,
    random: &dyn Random,
    may_have_ended: bool,
) -> Result<Arc<dyn Ledger>, OpenError> {
    Ok(match place {
        LedgerPlace::Directory(directory) => {
            let options = Options { may_have_ended, ..Options::default() };
            Arc::new(EmbeddedLedger::open(directory, signers, options)?)
        }
        LedgerPlace::Postgres(place) => {
            let options = PostgresOptions { may_have_ended, ..postgres_options(place)? };
            Arc::new(PostgresLedger::open(options, signers, random).await?)
        }
    })
}

/// Makes an empty ledger at a place.
pub(crate) async fn create_ledger(
    place: &LedgerPlace,
    signers: Arc<LogSigners>,
    random: &dyn Random,
) -> Result<Arc<dyn Ledger>, OpenError> {
    Ok(match place {
        LedgerPlace::Directory(directory) => {
            Arc::new(EmbeddedLedger::create(directory, signers, Options::default(), random)?)
        }
        LedgerPlace::Postgres(place) => {
            Arc::new(PostgresLedger::create(postgres_options(place)?, signers, random).await?)
        }
    })
}

/// What this process is called among the replicas.
pub(crate) fn replica_name(place: &PostgresPlace) -> String {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    place.replica.clone().unwrap_or_else(|| format!("{} process {}", host(), std::process::id()))
}

/// How a database is reached.
pub(crate) fn postgres_options(place: &PostgresPlace) -> Result<PostgresOptions, OpenError> {
    let mut options = PostgresOptions::new(&place.url, place.checkpoints.clone());
    options.listen_url.clone_from(&place.listen);
    options.schema.clone_from(&place.schema);
    options.readers = place.connections;
    options.standby_urls.clone_from(&place.read);
    options.standby_lag = place.read_lag;
    if let Some(file) = &place.password_file {
        let password = read_secret(file);
        options.password =
            Some(password.map_err(|error| OpenError::Key { purpose: "database", error: error.into() })?);
    }
    options.tls = place.tls.as_ref().map(client_config).transpose()?;
    options.replica = replica_name(place);
    Ok(options)
}

fn file_error(path: &Path, error: impl std::fmt::Display) -> OpenError {
    OpenError::File { path: path.display().to_string(), why: error.to_string() }
}

/// TLS 1.3 or 1.2 with full verification of the database's certificate and its name.
fn client_config(tls: &DatabaseTls) -> Result<Arc<ClientConfig>, OpenError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.roots)? {
        roots.add(certificate).map_err(|error| file_error(&tls.roots, error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| file_error(&tls.roots, error))?
        .with_root_certificates(roots);
    let config = match &tls.credential {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let files = ClientFiles {
                last: Mutex::new(Arc::new(read_credential(certificate, key)?)),
                certificate: certificate.clone(),
                key: key.clone(),
            };
            config.with_client_cert_resolver(Arc::new(files))
        }
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| file_error(path, error))?;
    match certificates.is_empty() {
        true => Err(file_error(path, "there is no certificate in it")),
        false => Ok(certificates),
    }
}

fn read_credential(certificate: &Path, key: &Path) -> Result<CertifiedKey, OpenError> {
    let chain = certificates(certificate)?;
    let der = PrivateKeyDer::from_pem_file(key).map_err(|error| file_error(key, error))?;
    let signer = rustls::crypto::ring::sign::any_supported_type(&der);
    let credential = CertifiedKey::new(chain, signer.map_err(|error| file_error(key, error))?);
    credential.keys_match().map_err(|error| file_error(key, error))?;
    Ok(credential)
}

/// A client certificate in files that somebody else renews.
#[derive(Debug)]
struct ClientFiles {
    last: Mutex<Arc<CertifiedKey>>,
    certificate: std::path::PathBuf,
    key: std::path::PathBuf,
}

impl ResolvesClientCert for ClientFiles {
    /// What the files hold now; what they held before when they cannot be used, as while they are being replaced.
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read_credential(&self.certificate, &self.key) {
            Ok(credential) => *last = Arc::new(credential),
            Err(error) => tracing::warn!(%error, "the client certificate for the database is the one before"),
        }
        Some(Arc::clone(&last))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
