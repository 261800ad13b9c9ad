//! A root that follows another: its own certificate, and those by which roots before it vouch for it.
//!
//! Whoever knows only the root before believes the new one by such a certificate (RFC 4210 section 4.4 calls it
//! `NewWithOld`): it names the new root and its key, and the key of the old one signed it.

use chancery_types::TrustDomain;

use crate::chain::check_self_signed;
use crate::usage::KeyUsage;
use crate::{
    Certificate, CertificateError, ChainError, DerError, PublicKey, PublicKeyError, check_issued_by,
    split_certificates,
};

/// Certificates beside a root's own that are read.
const MOST_VOUCHERS: usize = 8;

/// Why a root does not follow another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuccessionError {
    /// Not DER, or too many certificates.
    #[error("the certificates cannot be told apart: {0}")]
    Der(#[from] DerError),
    /// One cannot be read.
    #[error("a certificate cannot be read: {0}")]
    Certificate(#[from] CertificateError),
    /// Not exactly one signs itself.
    #[error(
        "{0} certificates sign themselves where one root has to; give the file that `chancery root rotate` wrote"
    )]
    NotOneRoot(usize),
    /// One beside the root names another key or another subject.
    #[error("{0:?} is neither the root nor a certificate for the root's key and name")]
    OtherKey(String),
    /// The root is of another trust domain, or of none.
    #[error("{what} names {found}, and this trust domain is {expected}")]
    TrustDomain {
        /// Which certificate.
        what: &'static str,
        /// What it names.
        found: String,
        /// What it has to name.
        expected: String,
    },
    /// Its path length leaves no room for issuers.
    #[error("{what} allows no authority below it, and issuers stand there")]
    NoRoom {
        /// Which certificate.
        what: &'static str,
    },
    /// It is held to names or purposes, which is for issuers.
    #[error(
        "{what} carries {constraint}: chains below it would be refused that relying parties accept now; issuers carry \
         constraints, roots do not"
    )]
    Constrained {
        /// Which certificate.
        what: &'static str,
        /// The extension.
        constraint: &'static str,
    },
    /// It may not sign revocation lists.
    #[error("{what} may not sign revocation lists (cRLSign), so no issuer below it could ever be revoked")]
    NoLists {
        /// Which certificate.
        what: &'static str,
    },
    /// Its key is none that we take.
    #[error("the root's key cannot be used: {0}")]
    Key(#[from] PublicKeyError),
    /// Signatures, names or key identifiers do not fit.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No certificate by this elder is there.
    #[error("no certificate is there by which {elder:?} vouches for the root")]
    NotVouched {
        /// The elder's subject.
        elder: String,
    },
}

/// A root, and the certificates by which others vouch for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VouchedRoot {
    certificate: Certificate,
    vouchers: Vec<Certificate>,
}

impl VouchedRoot {
    /// A root for which nobody has to vouch: the first one.
    #[must_use]
    pub fn first(certificate: Certificate) -> Self {
        Self { certificate, vouchers: Vec::new() }
    }

    /// From certificates in any order: the one that signs itself is the root.
    ///
    /// # Errors
    /// [`SuccessionError`] when there is not one root, or one beside it is not for its key and name.
    pub fn from_certificates(certificates: Vec<Certificate>) -> Result<Self, SuccessionError> {
        let (mut roots, vouchers): (Vec<_>, Vec<_>) =
            certificates.into_iter().partition(|one| check_self_signed(one).is_ok());
        let count = roots.len();
        let certificate = roots.pop().filter(|_| count == 1).ok_or(SuccessionError::NotOneRoot(count))?;
        let root = certificate.tbs();
        for voucher in &vouchers {
            let tbs = voucher.tbs();
            let is_for_it = tbs.subject_der() == root.subject_der()
                && tbs.spki_der() == root.spki_der()
                && tbs.subject_key_id() == root.subject_key_id();
            if !is_for_it {
                return Err(SuccessionError::OtherKey(tbs.subject_text()));
            }
        }
        Ok(Self { certificate, vouchers })
    }

    /// From DER, one certificate after the other, as the log has it.
    ///
    /// # Errors
    /// [`SuccessionError`], also for more than eight certificates beside the root.
    pub fn from_der(der: &[u8]) -> Result<Self, SuccessionError> {
        let certificates = split_certificates(der, 1 + MOST_VOUCHERS)?;
        let certificates: Result<_, _> = certificates.iter().map(|der| Certificate::from_der(der)).collect();
        Self::from_certificates(certificates?)
    }

    /// The root's certificate, then those by which others vouch for it, DER.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        std::iter::once(&self.certificate).chain(&self.vouchers).flat_map(|one| one.der().to_vec()).collect()
    }

    /// The root's own certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Those by which others vouch for it.
    #[must_use]
    pub fn vouchers(&self) -> &[Certificate] {
        &self.vouchers
    }

    /// Checks everything that follows from the certificates alone: of this trust domain, room for issuers, no
    /// constraints, a key that we take. Not the validity: that is the caller's, who knows the time.
    ///
    /// # Errors
    /// [`SuccessionError`], the first fault found.
    pub fn check(&self, trust_domain: &TrustDomain) -> Result<(), SuccessionError> {
        PublicKey::from_spki_der(self.certificate.tbs().spki_der())?;
        check_authority(&self.certificate, ROOT, trust_domain)?;
        self.vouchers.iter().try_for_each(|voucher| check_authority(voucher, VOUCHER, trust_domain))
    }

    /// The certificate by which `elder` vouches for this root; its signature, its names and path lengths are verified.
    ///
    /// # Errors
    /// [`SuccessionError::NotVouched`] when it has none; [`SuccessionError::Chain`] when the elder did not sign it, or
    /// could not have an issuer below it.
    pub fn vouched_for_by(&self, elder: &Certificate) -> Result<&Certificate, SuccessionError> {
        let above = elder.tbs();
        let is_named = |voucher: &&Certificate| voucher.is_issued_in_the_name_of(elder);
        let voucher = self.vouchers.iter().find(is_named);
        let voucher = voucher.ok_or_else(|| SuccessionError::NotVouched { elder: above.subject_text() })?;
        check_issued_by(voucher, elder)?;
        // Self-issued certificates do not count (RFC 5280 section 4.2.1.9).
        let counts = voucher.tbs().issuer_der() != voucher.tbs().subject_der();
        let allowed = above.basic_constraints().and_then(|constraints| constraints.path_length);
        match allowed {
            Some(allowed) if counts && allowed < 2 => {
                Err(ChainError::PathLength { issuer: above.subject_text(), below: 2, allowed }.into())
            }
            _ => Ok(voucher),
        }
    }
}

fn check_authority(
    authority: &Certificate,
    what: &'static str,
    trust_domain: &TrustDomain,
) -> Result<(), SuccessionError> {
    let tbs = authority.tbs();
    let (found, expected) = (tbs.spiffe_id(), trust_domain.id());
    if found.as_ref() != Some(&expected) {
        let found = found.map_or_else(|| "no trust domain".to_owned(), |id| id.to_string());
        return Err(SuccessionError::TrustDomain { what, found, expected: expected.to_string() });
    }
    let constraints = tbs.basic_constraints().filter(|constraints| constraints.is_authority);
    let constraints = constraints.ok_or_else(|| ChainError::NotAnAuthority { issuer: tbs.subject_text() })?;
    if constraints.path_length == Some(0) {
        return Err(SuccessionError::NoRoom { what });
    }
    let usages = tbs.key_usages().unwrap_or_default();
    if !usages.contains(KeyUsage::KeyCertSign) {
        return Err(ChainError::NotAnAuthority { issuer: tbs.subject_text() }.into());
    }
    if !usages.contains(KeyUsage::CrlSign) {
        return Err(SuccessionError::NoLists { what });
    }
    if tbs.name_constraints().is_some() {
        return Err(SuccessionError::Constrained { what, constraint: "nameConstraints" });
    }
    if tbs.purposes().next().is_some() {
        return Err(SuccessionError::Constrained { what, constraint: "extKeyUsage" });
    }
    Ok(())
}

const ROOT: &str = "the root";
const VOUCHER: &str = "the certificate by which another root vouches for it";

#[cfg(test)]
mod tests;
