//! Roots: brought by an operator, in the bundle, followed by issuers below them, taken out of the bundle.
//!
//! What authorizes a new root is the signature of one that is trusted, and nothing else: no operator, no clock and no
//! configuration can bring one for which no active root vouches.

use chancery_entry::{Blob, Body, KeyChange, KeyPhase, KeyPurpose};
use chancery_ledger::Precondition;
use chancery_rotate::authority::Violation;
use chancery_types::{Digest, Timestamp};
use chancery_x509::{Certificate, SuccessionError, VouchedRoot};

use super::change::{Hands, issuer_at};
use super::{Rotation, RotationError};
use crate::authority::{KnownRoot, Roots};

/// Why a root cannot follow those that are trusted.
#[derive(Debug, thiserror::Error)]
pub enum RootRefusal {
    /// By its certificates.
    #[error(transparent)]
    Certificates(#[from] SuccessionError),
    /// It is, or was, one of ours.
    #[error("this root is {0} already: look at `chancery ca status`")]
    Known(&'static str),
    /// Its key is that of another root.
    #[error("the key of this root is that of root {0}; a root that follows has a key of its own")]
    SameKey(Digest),
    /// A certificate is not valid now.
    #[error("{what} is valid from {from} to {until}, and it is {now}")]
    NotValid {
        /// Which.
        what: &'static str,
        /// notBefore.
        from: Timestamp,
        /// notAfter.
        until: Timestamp,
        /// The server's time.
        now: Timestamp,
    },
    /// It ends before what stands below it could.
    #[error("{what} ends at {until}, before the issuer that signs now ({least}): it would bring nothing")]
    TooShort {
        /// Which.
        what: &'static str,
        /// notAfter.
        until: Timestamp,
        /// What it has to outlive.
        least: Timestamp,
    },
    /// It begins before the root that vouches for it.
    #[error(
        "it begins at {from}, before the root that vouches for it ({elder}): was the clock of the ceremony right?"
    )]
    Older {
        /// notBefore.
        from: Timestamp,
        /// That of the other.
        elder: Timestamp,
    },
}

/// A root that may be published.
#[derive(Debug)]
pub(crate) struct AdmittedRoot {
    root: VouchedRoot,
    requires: Vec<Precondition>,
}

impl AdmittedRoot {
    /// SHA-256 of its certificate.
    pub(crate) fn id(&self) -> Digest {
        self.root.certificate().fingerprint()
    }
}

impl Rotation {
    /// Judges a root that somebody brings.
    ///
    /// # Errors
    /// [`RotationError::Root`] with what is wrong with it.
    pub(crate) async fn admit_root(&self, root: VouchedRoot) -> Result<AdmittedRoot, RotationError> {
        let roots = self.authority.read_roots().await?;
        root.check(&self.authority.config().trust_domain).map_err(RootRefusal::from)?;
        let before = self.not_known(&root, &roots)?;
        let (elder, voucher) = vouched(&root, &roots)?;
        let active = self.authority.workflow().issuer();
        let least = active.certificate().tbs().not_after();
        self.lives(root.certificate(), "the root", least)?;
        self.lives(voucher, "the certificate by which another root vouches for it", self.now())?;
        let (from, older) = (root.certificate().tbs().not_before(), elder.certificate().tbs().not_before());
        if from <= older {
            return Err(RootRefusal::Older { from, elder: older }.into());
        }
        let requires =
            vec![root_at(root.certificate().fingerprint(), before), root_at(elder.id(), elder.index)];
        // What nobody has verified is not put on record.
        let certificates = vec![root.certificate().clone(), voucher.clone()];
        let root = VouchedRoot::from_certificates(certificates).map_err(RootRefusal::from)?;
        Ok(AdmittedRoot { root, requires })
    }

    /// Publishes a root that was admitted, if nothing was said meanwhile of it or of the one that vouches for it.
    ///
    /// # Errors
    /// [`RotationError`]; nothing was changed.
    pub(crate) async fn publish_root(
        &self,
        admitted: AdmittedRoot,
        by: &str,
        note: &str,
    ) -> Result<(), RotationError> {
        let _changing = self.changing.lock().await;
        let id = admitted.id();
        let body = change(&admitted.root, KeyPhase::Published, by, note);
        self.commit(admitted.requires, vec![body], Vec::new()).await?;
        tracing::info!(root = %id, by, why = note, "a root was brought");
        self.adopt().await
    }

    /// Issuers below it may sign.
    pub(super) async fn activate_root(&self, id: Digest, hands: Hands<'_>) -> Result<(), RotationError> {
        let root = self.known_root(id).await?;
        let body = change(&root.root, KeyPhase::Active, hands.by, hands.note);
        self.commit(vec![root_at(id, root.index)], vec![body], hands.also).await
    }

    /// It is taken out of the bundle, if nothing was said meanwhile of any issuer below it.
    pub(super) async fn withdraw_root(&self, id: Digest, hands: Hands<'_>) -> Result<(), RotationError> {
        let root = self.known_root(id).await?;
        let roots = self.authority.read_roots().await?;
        let mut requires = vec![root_at(id, root.index)];
        for record in self.authority.ledger().issuers().await? {
            let issuer = Certificate::from_der(&record.certificate).ok();
            if issuer.is_some_and(|issuer| roots.of_issuer(&issuer).is_some_and(|root| root.id() == id)) {
                requires.push(issuer_at(&record));
            }
        }
        let body = change(&root.root, KeyPhase::Withdrawn, hands.by, hands.note);
        self.commit(requires, vec![body], hands.also).await
    }

    /// Whether a root is in the bundle that no issuer may use yet.
    ///
    /// # Errors
    /// [`RotationError`] when the ledger cannot be read.
    pub(crate) async fn has_waiting_root(&self) -> Result<bool, RotationError> {
        let roots = self.authority.read_roots().await?;
        Ok(roots.known().iter().any(|root| root.phase == KeyPhase::Published))
    }

    async fn known_root(&self, id: Digest) -> Result<KnownRoot, RotationError> {
        let roots = self.authority.read_roots().await?;
        let found = roots.known().iter().find(|root| root.id() == id).cloned();
        Ok(found.ok_or_else(|| Violation::Unknown("the root".into()))?)
    }

    /// The last entry about this root: one that was withdrawn before anything used it may be brought again.
    fn not_known(&self, root: &VouchedRoot, roots: &Roots) -> Result<Option<u64>, RootRefusal> {
        let certificate = root.certificate();
        let same_key =
            |known: &&KnownRoot| known.certificate().tbs().spki_der() == certificate.tbs().spki_der();
        match roots.known().iter().find(same_key) {
            None => Ok(None),
            Some(known) if known.certificate() != certificate => Err(RootRefusal::SameKey(known.id())),
            Some(known) => match known.phase {
                KeyPhase::Withdrawn => Ok(known.index),
                KeyPhase::Published => Err(RootRefusal::Known("published")),
                KeyPhase::Active | KeyPhase::Retired => Err(RootRefusal::Known("active")),
            },
        }
    }

    fn lives(
        &self,
        certificate: &Certificate,
        what: &'static str,
        least: Timestamp,
    ) -> Result<(), RootRefusal> {
        let (tbs, now) = (certificate.tbs(), self.now());
        let (from, until) = (tbs.not_before(), tbs.not_after());
        if !tbs.is_valid_at(now) {
            return Err(RootRefusal::NotValid { what, from, until, now });
        }
        if until < least {
            return Err(RootRefusal::TooShort { what, until, least });
        }
        Ok(())
    }
}

/// The root that vouches for another, and how: it has to be active, so that everybody knows it.
fn vouched<'a>(
    root: &'a VouchedRoot,
    roots: &'a Roots,
) -> Result<(&'a KnownRoot, &'a Certificate), RootRefusal> {
    let mut fault = None;
    for elder in roots.known().iter().filter(|elder| elder.phase == KeyPhase::Active) {
        match root.vouched_for_by(elder.certificate()) {
            Ok(voucher) => return Ok((elder, voucher)),
            // What is wrong with the certificate that is there says more than that another is not there.
            Err(error @ SuccessionError::NotVouched { .. }) => {
                fault.get_or_insert(error);
            }
            Err(error) => fault = Some(error),
        }
    }
    Err(fault.unwrap_or_else(|| SuccessionError::NotVouched { elder: "no active root".into() }).into())
}

fn root_at(key: Digest, index: Option<u64>) -> Precondition {
    Precondition::KeyAt { purpose: KeyPurpose::Root, key, index }
}

fn change(root: &VouchedRoot, phase: KeyPhase, by: &str, note: &str) -> Body {
    Body::KeyChanged(KeyChange {
        purpose: KeyPurpose::Root,
        key: root.certificate().fingerprint(),
        content: Blob(root.to_der()),
        phase,
        by: by.to_owned(),
        note: note.to_owned(),
    })
}
