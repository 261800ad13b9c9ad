//! What is done with the root: where it is, which is elsewhere than the authority.

use std::path::Path;

use anyhow::Result;
use chancery_server::bootstrap::{self, RevokedIssuer};
use chancery_server::config::Config;
use chancery_types::{
    Clock as _, Digest, IssuerEpoch, KeyAlgorithm, RevocationReason, SecretString, SystemClock, SystemRandom,
    Timestamp, TrustDomain,
};
use chancery_x509::{Certificate, Profile, write_pem};

/// Makes a root in a directory of its own; returns its fingerprint.
pub(crate) fn make_root(
    directory: &Path,
    trust_domain: &TrustDomain,
    algorithm: KeyAlgorithm,
    passphrase: &SecretString,
) -> Result<Digest> {
    let now: Timestamp = SystemClock.now();
    let made = bootstrap::make_root(directory, trust_domain, algorithm, passphrase, &SystemRandom, now)?;
    Ok(made.fingerprint)
}

/// A root that was made to follow another.
#[derive(Debug)]
pub(crate) struct RotatedRoot {
    /// Its subject.
    pub(crate) subject: String,
    /// SHA-256 of its certificate.
    pub(crate) fingerprint: Digest,
    /// notAfter.
    pub(crate) not_after: Timestamp,
    /// Until when the root before vouches for it.
    pub(crate) vouched_until: Timestamp,
    /// Its certificate, and the one by which the root before vouches for it.
    pub(crate) pem: String,
}

/// Makes a root in an empty directory, for which the one in another vouches.
pub(crate) fn rotate_root(
    old: (&Path, &SecretString),
    new: (&Path, &SecretString),
    algorithm: KeyAlgorithm,
) -> Result<RotatedRoot> {
    let made = bootstrap::rotate_root(old, new, algorithm, &SystemRandom, SystemClock.now())?;
    let root = made.root.certificate();
    let certificates = std::iter::once(root).chain(made.root.vouchers());
    Ok(RotatedRoot {
        subject: root.tbs().subject_text(),
        fingerprint: root.fingerprint(),
        not_after: root.tbs().not_after(),
        vouched_until: made.vouched_until,
        pem: certificates.map(|one| write_pem("CERTIFICATE", one.der())).collect(),
    })
}

/// An issuer in reserve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpareIssuer {
    /// Its number.
    pub(crate) epoch: IssuerEpoch,
    /// From when it may sign.
    pub(crate) not_before: Timestamp,
    /// When it ends.
    pub(crate) not_after: Timestamp,
}

/// Makes issuers in reserve for the authority of this configuration, with the root in this directory.
pub(crate) fn add_spares(
    config: &Path,
    root_directory: &Path,
    passphrase: &SecretString,
    count: u16,
) -> Result<Vec<SpareIssuer>> {
    let (config, now) = (Config::load(config)?, SystemClock.now());
    let made = bootstrap::add_spares(&config, root_directory, passphrase, count, &SystemRandom, now)?;
    let spare = |made: bootstrap::SpareMade| SpareIssuer {
        epoch: made.epoch,
        not_before: made.not_before,
        not_after: made.not_after,
    };
    Ok(made.into_iter().map(spare).collect())
}

/// Signs an issuer's request with the root in this directory; returns the certificate, DER.
pub(crate) fn sign_issuer(
    directory: &Path,
    passphrase: &SecretString,
    csr: &[u8],
    profile: &Profile,
    lifetime: Option<std::time::Duration>,
) -> Result<Vec<u8>> {
    let now = SystemClock.now();
    Ok(bootstrap::sign_issuer(directory, passphrase, csr, profile, lifetime, &SystemRandom, now)?)
}

/// A list of the root's that was just made.
#[derive(Debug)]
pub(crate) struct RootList {
    /// DER.
    pub(crate) der: Vec<u8>,
    /// Its number.
    pub(crate) number: u64,
    /// Certificates on it.
    pub(crate) entries: usize,
    /// nextUpdate.
    pub(crate) next_update: Timestamp,
}

/// Signs a revocation list with the root in this directory: what stood on the one before, and these issuers.
pub(crate) fn make_root_crl(
    directory: &Path,
    passphrase: &SecretString,
    issuers: Vec<Certificate>,
    reason: RevocationReason,
    validity: std::time::Duration,
) -> Result<RootList> {
    let revoked = |certificate| RevokedIssuer { certificate, reason };
    let issuers: Vec<RevokedIssuer> = issuers.into_iter().map(revoked).collect();
    let list = bootstrap::make_root_crl(directory, passphrase, &issuers, validity, SystemClock.now())?;
    let (number, entries, next_update) = (list.number, list.entries, list.next_update);
    Ok(RootList { der: list.der, number, entries, next_update })
}
