//! The trust domains whose members can be verified: their roots, and their status.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use chancery_types::TrustDomain;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::{Bundles, Credentials, Status};

/// Roots that one trust domain may have.
const MOST_ROOTS: usize = 64;

/// Why a bundle cannot be used; the one before stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// There is no root in it, so nobody could ever be verified.
    #[error("the trust bundle of {0} is empty")]
    Empty(TrustDomain),
    /// There are more than are read.
    #[error("the trust bundle of {domain} has {count} roots, at most {MOST_ROOTS} are used")]
    TooMany {
        /// Whose.
        domain: TrustDomain,
        /// How many.
        count: usize,
    },
    /// One is not a certificate that can be an anchor.
    #[error("a root in the trust bundle of {domain} cannot be used: {error}")]
    Root {
        /// Whose.
        domain: TrustDomain,
        /// Why.
        error: webpki::Error,
    },
    /// The domain was never added.
    #[error("{0} is not a trust domain of this program; add it first")]
    NoDomain(TrustDomain),
}

/// Trust domains with their roots and their status. Clones are one and the same; a change counts from the next
/// handshake on.
#[derive(Debug, Clone, Default)]
pub struct Trust(Arc<ArcSwap<HashMap<TrustDomain, Domain>>>);

#[derive(Debug, Clone)]
pub(crate) struct Domain {
    pub(crate) anchors: Arc<[TrustAnchor<'static>]>,
    pub(crate) status: Status,
}

impl Trust {
    /// Trusts a domain's roots for its members, and for nobody else.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn add(
        &self,
        domain: &TrustDomain,
        roots: &[CertificateDer<'_>],
        status: Status,
    ) -> Result<(), BundleError> {
        let anchors = anchors(domain, roots)?;
        self.change(|domains| {
            domains.insert(domain.clone(), Domain { anchors: Arc::clone(&anchors), status: status.clone() });
        });
        Ok(())
    }

    /// Trusts a domain by the roots that these credentials have for it, now and whenever they change.
    ///
    /// # Errors
    /// [`BundleError`] when they have none that can be used now; later ones that cannot be used leave the last good ones
    /// in place.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn follow(
        &self,
        domain: &TrustDomain,
        credentials: &Credentials,
        status: Status,
    ) -> Result<(), BundleError> {
        let mut changes = credentials.changes();
        changes.mark_unchanged();
        let roots_of = |bundles: &Bundles| bundles.get(domain).cloned().unwrap_or_default();
        self.add(domain, &roots_of(&credentials.bundles()), status)?;
        let (domain, bundles) = (domain.clone(), credentials.watch_bundles());
        let trust = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let (Some(trust), Some(bundles)) = (trust.upgrade(), bundles()) else { return };
                let roots = bundles.get(&domain).cloned().unwrap_or_default();
                if let Err(error) = Self(trust).replace_roots(&domain, &roots) {
                    tracing::warn!(%error, "the trust bundle stays as it was");
                }
            }
        });
        Ok(())
    }

    /// Puts other roots in place, as after the authority's have changed.
    ///
    /// # Errors
    /// [`BundleError`]; the roots before stay.
    pub fn replace_roots(
        &self,
        domain: &TrustDomain,
        roots: &[CertificateDer<'_>],
    ) -> Result<(), BundleError> {
        let anchors = anchors(domain, roots)?;
        let mut is_known = false;
        self.change(|domains| match domains.get_mut(domain) {
            Some(known) => {
                known.anchors = Arc::clone(&anchors);
                is_known = true;
            }
            None => is_known = false,
        });
        if is_known { Ok(()) } else { Err(BundleError::NoDomain(domain.clone())) }
    }

    /// Trusts a domain no more. Its open connections stay: end them by their [`Status`].
    pub fn remove(&self, domain: &TrustDomain) {
        self.change(|domains| {
            domains.remove(domain);
        });
    }

    pub(crate) fn domain(&self, name: &str) -> Option<Domain> {
        let domains = self.0.load();
        // Looked up by name: a lookup by key would have to copy it.
        domains.iter().find(|(domain, _)| domain.as_str() == name).map(|(_, found)| found.clone())
    }

    fn change(&self, mut edit: impl FnMut(&mut HashMap<TrustDomain, Domain>)) {
        self.0.rcu(|domains| {
            let mut changed = HashMap::clone(domains);
            edit(&mut changed);
            changed
        });
    }
}

fn anchors(
    domain: &TrustDomain,
    roots: &[CertificateDer<'_>],
) -> Result<Arc<[TrustAnchor<'static>]>, BundleError> {
    match roots.len() {
        0 => return Err(BundleError::Empty(domain.clone())),
        count if count > MOST_ROOTS => return Err(BundleError::TooMany { domain: domain.clone(), count }),
        _ => {}
    }
    let anchor = |root| webpki::anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned());
    let anchors: Result<Vec<_>, _> = roots.iter().map(anchor).collect();
    anchors.map(Into::into).map_err(|error| BundleError::Root { domain: domain.clone(), error })
}
