//! What this program shows of itself, and by which roots it believes others: from files, or from the Workload API.
//!
//! Both change while it runs. New handshakes use what is newest; connections that are open stay.

mod files;
mod workload;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use chancery_client::TlsIdentity;
use chancery_types::{SpiffeId, TrustDomain};
use chancery_x509::Certificate;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, crypto::ring::default_provider};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use files::CredentialFiles;

/// Roots by trust domain.
pub type Bundles = HashMap<TrustDomain, Vec<CertificateDer<'static>>>;

/// Why credentials cannot be used; those before stay.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// What was read is not what it should be.
    #[error("the {what} cannot be used: {detail}")]
    Form {
        /// What.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// The key is not that of the certificate, or cannot sign.
    #[error("the certificate and its key cannot be used together: {0}")]
    Key(#[from] rustls::Error),
    /// The certificate is nobody's.
    #[error("the certificate carries no SPIFFE ID")]
    Identity,
    /// The agent is not there, or ends the stream.
    #[error("the Workload API at {path}: {detail}")]
    WorkloadApi {
        /// Its socket.
        path: String,
        /// What is wrong.
        detail: String,
    },
}

/// The credentials of this program. Clones are one and the same.
#[derive(Clone)]
pub struct Credentials(Arc<Slot>);

struct Slot {
    shown: ArcSwapOption<Shown>,
    bundles: ArcSwap<Bundles>,
    changes: watch::Sender<u64>,
    /// Keeps them up to date; ends with them.
    keeper: OnceLock<AbortHandle>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.abort();
        }
    }
}

struct Shown {
    id: SpiffeId,
    certified: Arc<CertifiedKey>,
    identity: TlsIdentity,
}

impl Credentials {
    /// These, until [`Self::show`] and [`Self::believe`] bring others.
    ///
    /// # Errors
    /// [`CredentialError::Key`], [`CredentialError::Identity`].
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundles: Bundles,
    ) -> Result<Self, CredentialError> {
        let credentials = Self::empty();
        credentials.show(chain, key)?;
        credentials.believe(bundles);
        Ok(credentials)
    }

    fn empty() -> Self {
        Self(Arc::new(Slot {
            shown: ArcSwapOption::empty(),
            bundles: ArcSwap::default(),
            changes: watch::Sender::new(0),
            keeper: OnceLock::new(),
        }))
    }

    /// Has a task bring what is newer, which must not hold the credentials itself.
    fn keep_with(&self, keeper: impl Future<Output = ()> + Send + 'static) {
        let _ = self.0.keeper.set(tokio::spawn(keeper).abort_handle());
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// [`CredentialError::Key`], [`CredentialError::Identity`]; the one before stays.
    pub fn show(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), CredentialError> {
        let own = chain.first().ok_or(CredentialError::Identity)?;
        let own = Certificate::from_der(own)
            .map_err(|error| CredentialError::Form { what: "certificate", detail: error.to_string() })?;
        let id = own.tbs().spiffe_id().ok_or(CredentialError::Identity)?;
        let identity = TlsIdentity::from_der(chain.clone(), key.clone_key());
        let certified = Arc::new(CertifiedKey::from_der(chain, key, &default_provider())?);
        self.0.shown.store(Some(Arc::new(Shown { id, certified, identity })));
        self.tell();
        Ok(())
    }

    /// Believes by other roots from now on.
    pub fn believe(&self, bundles: Bundles) {
        self.0.bundles.store(Arc::new(bundles));
        self.tell();
    }

    /// Who this program is.
    #[must_use]
    pub fn id(&self) -> Option<SpiffeId> {
        self.0.shown.load().as_ref().map(|shown| shown.id.clone())
    }

    /// The roots.
    #[must_use]
    pub fn bundles(&self) -> Arc<Bundles> {
        self.0.bundles.load_full()
    }

    /// Asks for the roots for as long as somebody holds the credentials, without holding them.
    pub(crate) fn watch_bundles(&self) -> impl Fn() -> Option<Arc<Bundles>> + Send + use<> {
        let slot = Arc::downgrade(&self.0);
        move || slot.upgrade().map(|slot| slot.bundles.load_full())
    }

    /// Tells when something of them has changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Rises with every change.
    pub(crate) fn version(&self) -> u64 {
        *self.0.changes.borrow()
    }

    /// What a client of the authority shows.
    #[must_use]
    pub fn identity(&self) -> Option<TlsIdentity> {
        self.0.shown.load().as_ref().map(|shown| shown.identity.clone())
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.0.shown.load().as_ref().map(|shown| Arc::clone(&shown.certified))
    }

    fn tell(&self) {
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        self.0.shown.load().is_some()
    }
}
