//! A certificate authority that is not ours, and whose certificates we take as evidence.

use std::str::FromStr;
use std::time::Duration;

use chancery_types::Timestamp;
use der::Decode;
use der::asn1::ObjectIdentifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    OwnedCertRevocationList, RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;

use crate::PopError;
use crate::foreign_chain::ForeignChain;

/// anyExtendedKeyUsage (RFC 5280 section 4.2.1.12): lets an intermediate issue for any purpose.
const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
/// Roots that one authority may have.
const MAX_ROOTS: usize = 64;

/// Which extended key usages (RFC 5280 section 4.2.1.12) the leaf must have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PurposeRule {
    /// Any, or none: device certificates often have none.
    #[default]
    Any,
    /// At least one of these, named explicitly.
    OneOf(Vec<ObjectIdentifier>),
}

impl PurposeRule {
    /// A rule from texts: `client-auth`, `server-auth` or an OID in dotted form; no texts give [`Self::Any`].
    ///
    /// # Errors
    /// [`UnknownPurpose`] for anything else.
    pub fn from_texts<T: AsRef<str>>(texts: &[T]) -> Result<Self, UnknownPurpose> {
        if texts.is_empty() {
            return Ok(Self::Any);
        }
        texts.iter().map(|text| purpose(text.as_ref())).collect::<Result<_, _>>().map(Self::OneOf)
    }
}

/// A text names no extended key usage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an extended key usage; use client-auth, server-auth or an OID like 1.3.6.1.5.5.7.3.2")]
pub struct UnknownPurpose(String);

fn purpose(text: &str) -> Result<ObjectIdentifier, UnknownPurpose> {
    let dotted = match text {
        "server-auth" => "1.3.6.1.5.5.7.3.1",
        "client-auth" => "1.3.6.1.5.5.7.3.2",
        other => other,
    };
    ObjectIdentifier::from_str(dotted).map_err(|_| UnknownPurpose(text.chars().take(80).collect()))
}

/// How certificates of a foreign authority are judged, beyond their chain.
#[derive(Debug, Clone, Default)]
pub struct ForeignAuthorityOptions {
    /// The extended key usages that a leaf needs.
    pub purposes: PurposeRule,
    /// Its revocation lists, each as PEM or DER. `None`: revocation is not checked. `Some`: every certificate
    /// of every chain must be covered by a list that has not run out; otherwise it is refused.
    pub revocation_lists: Option<Vec<Vec<u8>>>,
}

/// Why an authority cannot be used as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignAuthorityError {
    /// The name is empty or not plain.
    #[error(
        "{0:?} is not a name for an authority; use 1 to 64 characters of a-z, A-Z, 0-9, dot, dash and underscore"
    )]
    Name(String),
    /// Two authorities have the same name.
    #[error("two authorities are named {0}; policies could not tell them apart")]
    Duplicate(String),
    /// The PEM text has no certificate, too many, or one that does not parse.
    #[error("the roots of authority {name} are not usable: {why}")]
    Roots {
        /// The authority.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A revocation list does not parse, or there is none although they are asked for.
    #[error("the revocation lists of authority {name} are not usable: {why}")]
    RevocationLists {
        /// The authority.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// A configured foreign authority. Immutable: fresh revocation lists make a new one.
#[derive(Debug)]
pub struct ForeignAuthority {
    name: String,
    roots: Vec<Root>,
    purposes: PurposeRule,
    revocation_lists: Option<Vec<CertRevocationList<'static>>>,
}

#[derive(Debug)]
struct Root {
    anchor: TrustAnchor<'static>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl ForeignAuthority {
    /// An authority with these roots (PEM, one or more certificates).
    ///
    /// # Errors
    /// [`ForeignAuthorityError`], the first mistake found.
    pub fn new(
        name: &str,
        roots_pem: &[u8],
        options: ForeignAuthorityOptions,
    ) -> Result<Self, ForeignAuthorityError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(ForeignAuthorityError::Name(name.chars().take(80).collect()));
        }
        let roots = read_roots(roots_pem)
            .map_err(|why| ForeignAuthorityError::Roots { name: name.to_owned(), why })?;
        let revocation_lists = options
            .revocation_lists
            .map(|lists| read_revocation_lists(&lists))
            .transpose()
            .map_err(|why| ForeignAuthorityError::RevocationLists { name: name.to_owned(), why })?;
        Ok(Self { name: name.to_owned(), roots, purposes: options.purposes, revocation_lists })
    }

    /// The name that claims carry as `x509.ca`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this authority vouches for the chain at this moment.
    ///
    /// # Errors
    /// [`PopError`] saying why not.
    pub(crate) fn judge(&self, chain: &ForeignChain<'_>, now: Timestamp) -> Result<(), PopError> {
        let leaf = EndEntityCert::try_from(&chain.leaf).map_err(|error| self.refusal(&error))?;
        let anchors = self.anchors_at(now);
        let lists: Option<Vec<&CertRevocationList<'_>>> =
            self.revocation_lists.as_ref().map(|lists| lists.iter().collect());
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &chain.intermediates,
            unix_time(now),
            PurposeValidator(&self.purposes),
            lists.as_deref().map(revocation_options),
            None,
        )
        .map_err(|error| self.refusal(&error))?;
        self.judge_leaf_purpose(chain)
    }

    /// webpki asks its validator about every certificate of the chain and lets an absent extension pass; the
    /// leaf, however, must name the purpose.
    fn judge_leaf_purpose(&self, chain: &ForeignChain<'_>) -> Result<(), PopError> {
        let PurposeRule::OneOf(wanted) = &self.purposes else { return Ok(()) };
        if chain.purposes()?.iter().any(|purpose| wanted.contains(purpose)) {
            return Ok(());
        }
        Err(PopError::Purpose { authority: self.name.clone() })
    }

    /// webpki does not look at the validity of a trust anchor; an authority whose root ran out vouches for
    /// nobody.
    fn anchors_at(&self, now: Timestamp) -> Vec<TrustAnchor<'_>> {
        let valid = |root: &&Root| root.not_before <= now && now.whole_second() <= root.not_after;
        self.roots.iter().filter(valid).map(|root| root.anchor.clone()).collect()
    }

    fn refusal(&self, error: &Error) -> PopError {
        let authority = self.name.clone();
        let why = error.to_string();
        match error {
            Error::CertExpired { .. } | Error::CertNotValidYet { .. } => PopError::NotValidNow { why },
            Error::CertRevoked => PopError::Revoked { authority },
            Error::UnknownRevocationStatus
            | Error::CrlExpired { .. }
            | Error::InvalidCrlSignatureForPublicKey
            | Error::IssuerNotCrlSigner
            | Error::UnsupportedCrlSignatureAlgorithmContext(_)
            | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
                PopError::RevocationUnknown { authority, why }
            }
            Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
                PopError::Purpose { authority }
            }
            _ => PopError::Untrusted { why },
        }
    }
}

fn revocation_options<'a>(lists: &'a [&'a CertRevocationList<'a>]) -> RevocationOptions<'a> {
    RevocationOptionsBuilder::new(lists)
        .expect("an authority with revocation lists has at least one, see read_revocation_lists")
        .with_depth(RevocationCheckDepth::Chain)
        .with_status_policy(UnknownStatusPolicy::Deny)
        .with_expiration_policy(ExpirationPolicy::Enforce)
        .build()
}

struct PurposeValidator<'a>(&'a PurposeRule);

impl ExtendedKeyUsageValidator for PurposeValidator<'_> {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let PurposeRule::OneOf(wanted) = self.0 else { return Ok(()) };
        let mut extension_is_present = false;
        for purpose in purposes {
            extension_is_present = true;
            let arcs = purpose?.to_decoded_oid();
            let is = |oid: &ObjectIdentifier| oid.arcs().map(|arc| arc as usize).eq(arcs.iter().copied());
            if is(&ANY_PURPOSE) || wanted.iter().any(is) {
                return Ok(());
            }
        }
        if extension_is_present { Err(Error::EmptyEkuExtension) } else { Ok(()) }
    }
}

fn read_roots(pem: &[u8]) -> Result<Vec<Root>, String> {
    let mut roots = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let der = certificate.map_err(|error| error.to_string())?;
        let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|error| error.to_string())?.to_owned();
        let parsed = Certificate::from_der(&der).map_err(|error| error.to_string())?;
        let validity = parsed.tbs_certificate().validity();
        let moment = |time: &x509_cert::time::Time| Timestamp::default() + time.to_unix_duration();
        roots.push(Root {
            anchor,
            not_before: moment(&validity.not_before),
            not_after: moment(&validity.not_after),
        });
    }
    match roots.len() {
        0 => Err("there is no certificate in the PEM text".to_owned()),
        count if count > MAX_ROOTS => Err(format!("there are {count} certificates, at most {MAX_ROOTS}")),
        _ => Ok(roots),
    }
}

/// The lists, the newest first: webpki takes the first one that speaks for a certificate.
fn read_revocation_lists(lists: &[Vec<u8>]) -> Result<Vec<CertRevocationList<'static>>, String> {
    let mut read = Vec::new();
    for list in lists {
        let der = match CertificateRevocationListDer::from_pem_slice(list) {
            Ok(der) => der.as_ref().to_vec(),
            Err(_) => list.clone(),
        };
        let parsed = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(&der);
        let this_update =
            parsed.map_err(|error| error.to_string())?.tbs_cert_list.this_update.to_unix_duration();
        let list = OwnedCertRevocationList::from_der(&der).map_err(|error| error.to_string())?;
        read.push((this_update, CertRevocationList::from(list)));
    }
    if read.is_empty() {
        return Err("revocation is to be checked, but there is no list".to_owned());
    }
    read.sort_by_key(|(this_update, _)| std::cmp::Reverse(*this_update));
    Ok(read.into_iter().map(|(_, list)| list).collect())
}

fn unix_time(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.seconds()).unwrap_or(0)))
}
