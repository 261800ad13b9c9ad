//! The roots of the trust domain: which count, who vouched for which, and the way from an issuer up to them.
//!
//! The first is the one that the configuration names; those that followed are in the ledger, each with the certificate by
//! which one before it vouches for it.

use std::path::Path;

use chancery_entry::{KeyPhase, KeyPurpose};
use chancery_ledger::KeyRecord;
use chancery_types::{Digest, Timestamp};
use chancery_x509::{CERTIFICATE, Certificate, ChainError, VouchedRoot, check_issued_by, write_pem};

use super::{Authority, AuthorityError};
use crate::bootstrap::{InitError, read_list, replace};

/// A root, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownRoot {
    pub(crate) root: VouchedRoot,
    pub(crate) phase: KeyPhase,
    pub(crate) since: Timestamp,
    /// The last entry about it; nothing for the first root as long as nothing was said of it.
    pub(crate) index: Option<u64>,
}

impl KnownRoot {
    /// Its own certificate.
    pub(crate) fn certificate(&self) -> &Certificate {
        self.root.certificate()
    }

    /// SHA-256 of its certificate.
    pub(crate) fn id(&self) -> Digest {
        self.certificate().fingerprint()
    }

    /// Whether relying parties are told to trust it.
    pub(crate) fn is_in_bundle(&self) -> bool {
        self.phase != KeyPhase::Withdrawn
    }
}

/// Every root that there is or was, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roots {
    known: Vec<KnownRoot>,
    /// Between the first root and its issuers, the root's child first.
    intermediates: Vec<Certificate>,
}

impl Roots {
    /// From the configuration's root, what lies between it and its issuers, and the ledger's records.
    pub(super) fn new(first: &Certificate, intermediates: Vec<Certificate>, records: Vec<KeyRecord>) -> Self {
        let mut known: Vec<KnownRoot> = records.into_iter().filter_map(known_root).collect();
        if !known.iter().any(|root| root.certificate() == first) {
            let root = VouchedRoot::first(first.clone());
            let since = first.tbs().not_before();
            known.push(KnownRoot { root, phase: KeyPhase::Active, since, index: None });
        }
        known.sort_by_key(|root| (root.certificate().tbs().not_before(), root.id()));
        Self { known, intermediates }
    }

    /// All of them, also those that were withdrawn.
    pub(crate) fn known(&self) -> &[KnownRoot] {
        &self.known
    }

    /// Those that relying parties are told to trust.
    pub(crate) fn bundle(&self) -> impl Iterator<Item = &Certificate> {
        self.known.iter().filter(|root| root.is_in_bundle()).map(KnownRoot::certificate)
    }

    /// The root that an issuer of ours stands under.
    pub(crate) fn of_issuer(&self, issuer: &Certificate) -> Option<&KnownRoot> {
        let top = self.between(issuer).last().unwrap_or(issuer);
        self.known.iter().find(|root| top.is_issued_in_the_name_of(root.certificate()))
    }

    /// The same of a certificate that nobody has looked at: its signature is verified.
    ///
    /// # Errors
    /// [`ChainError`] when it stands under none of ours.
    pub(crate) fn verified_root_of(&self, issuer: &Certificate) -> Result<&KnownRoot, ChainError> {
        let parent = self.between(issuer).next();
        let root = self.of_issuer(issuer).or(self.known.last());
        let parent = parent.or(root.map(KnownRoot::certificate)).ok_or(ChainError::Empty)?;
        check_issued_by(issuer, parent)?;
        root.ok_or(ChainError::Empty)
    }

    /// What is shown above an issuer, without the root: whoever knows any root of the bundle finds a way to it.
    pub(crate) fn above<'a>(&'a self, issuer: &'a Certificate) -> Vec<&'a Certificate> {
        if self.known.len() == 1 && self.intermediates.is_empty() {
            return Vec::new();
        }
        let mut above: Vec<&Certificate> = self.between(issuer).collect();
        let mut root = self.of_issuer(issuer);
        while let Some((elder, voucher)) = root.and_then(|root| self.voucher(root)) {
            above.push(voucher);
            root = Some(elder);
        }
        above
    }

    /// An older root of the bundle that vouches for this one, and how.
    fn voucher<'a>(&'a self, root: &'a KnownRoot) -> Option<(&'a KnownRoot, &'a Certificate)> {
        let elders = self.known.iter().take_while(|elder| elder.id() != root.id());
        elders.filter(|elder| elder.is_in_bundle()).find_map(|elder| {
            let is_named = |voucher: &&Certificate| voucher.is_issued_in_the_name_of(elder.certificate());
            Some((elder, root.root.vouchers().iter().find(is_named)?))
        })
    }

    /// The configuration's certificates between an issuer and the first root, the issuer's parent first.
    fn between<'a>(&'a self, issuer: &'a Certificate) -> impl Iterator<Item = &'a Certificate> {
        let mut below = issuer;
        self.intermediates.iter().rev().filter(move |one| {
            let is_above = below.is_issued_in_the_name_of(one);
            if is_above {
                below = one;
            }
            is_above
        })
    }

    /// The revocation list in a file, DER, if there is one that a root of the bundle signed.
    ///
    /// # Errors
    /// [`InitError`] when what is there is none of any root that there ever was.
    pub(crate) fn list_in(&self, path: &Path) -> Result<Option<Vec<u8>>, InitError> {
        let mut fault = None;
        for root in self.known.iter().rev() {
            match read_list(path, root.certificate()) {
                Ok(list) => return Ok(list.filter(|_| root.is_in_bundle())),
                Err(error) => fault = Some(error),
            }
        }
        fault.map_or(Ok(None), Err)
    }

    /// The bundle, PEM.
    pub(crate) fn to_pem(&self) -> String {
        self.bundle().map(|root| write_pem(CERTIFICATE, root.der())).collect()
    }
}

impl Authority {
    /// The roots, as this process knows them.
    pub(crate) fn roots(&self) -> std::sync::Arc<Roots> {
        self.roots.load_full()
    }

    /// The fingerprint of the root that the issuer that signs stands under: whoever knows it alone believes the server,
    /// now and as long as it is in the bundle.
    pub(super) fn shown_root(&self) -> Digest {
        let (roots, issuer) = (self.roots(), self.workflow.issuer());
        roots.of_issuer(issuer.certificate()).map_or_else(|| self.root.fingerprint(), KnownRoot::id)
    }

    /// The roots, as the ledger says at this moment.
    ///
    /// # Errors
    /// [`AuthorityError`] when the ledger cannot be read.
    pub(crate) async fn read_roots(&self) -> Result<Roots, AuthorityError> {
        let mut records = self.ledger.keys().await?;
        records.retain(|record| record.purpose == KeyPurpose::Root);
        Ok(Roots::new(&self.root, self.roots.load().intermediates.clone(), records))
    }

    /// Takes over what the ledger says of roots. Whether anything is another than before.
    ///
    /// # Errors
    /// [`AuthorityError`] when the ledger cannot be read; those in use stay.
    pub(super) async fn follow_roots(&self) -> Result<bool, AuthorityError> {
        let roots = self.read_roots().await?;
        if *self.roots() == roots {
            return Ok(false);
        }
        for root in &roots.known {
            self.workflow.forbid(Digest::of(root.certificate().tbs().spki_der()));
        }
        // For programs on this machine, which know the first root from the configuration.
        let (file, pem) = (self.keyring.certificates().join(BUNDLE), roots.to_pem());
        let written = tokio::task::spawn_blocking(move || replace(&file, pem.as_bytes(), 0o644)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the bundle was not written beside the root's certificate");
        }
        self.roots.store(std::sync::Arc::new(roots));
        Ok(true)
    }
}

fn known_root(record: KeyRecord) -> Option<KnownRoot> {
    match VouchedRoot::from_der(&record.content) {
        Ok(root) => {
            let (phase, since, index) = (record.phase, record.since, Some(record.index));
            Some(KnownRoot { root, phase, since, index })
        }
        Err(error) => {
            tracing::error!(root = %record.key, %error, "A ROOT IN THE LEDGER CANNOT BE READ");
            None
        }
    }
}

/// The bundle's file beside the root's certificate, once there is more than one root.
const BUNDLE: &str = "bundle.pem";
