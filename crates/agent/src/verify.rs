//! Whether an answer of the authority may replace what is in use.
//!
//! Judged as a peer would judge it, by rustls-webpki against the trust bundle, and against what was asked for: the
//! key, the identity and its names. What does not pass is not served, whoever sent it; the old one stays.

use chancery_api::EnrollResponse;
use chancery_types::{SerialNumber, SpiffeId, Timestamp};
use chancery_x509::{
    Certificate, CertificateError, ExtendedKeyUsage, GeneralName, PemError, PublicKey, read_certificates,
};
use rustls_pki_types::{CertificateDer, UnixTime};

/// Certificates of an answer that are read.
const MAX_CHAIN: usize = 8;

/// Why a certificate is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Not PEM.
    #[error("the certificate cannot be read: {0}")]
    Pem(#[from] PemError),
    /// Not a certificate.
    #[error("the certificate cannot be read: {0}")]
    Certificate(#[from] CertificateError),
    /// There is none, or its number is none of ours.
    #[error("the answer holds no certificate of this authority")]
    Missing,
    /// It is for a key that was not sent.
    #[error("the certificate is for another key")]
    Key,
    /// It names somebody else.
    #[error("the certificate names {found}, not {expected}")]
    Identity {
        /// Who was asked for.
        expected: SpiffeId,
        /// Who is in it.
        found: String,
    },
    /// It carries a name that the identity does not have.
    #[error("the certificate carries the name {0}, which the identity does not have")]
    Name(String),
    /// A peer would refuse it.
    #[error("a peer would not accept the certificate: {0}; is the trust bundle the right one?")]
    Path(webpki::Error),
}

/// What a certificate must be.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    /// The key that was sent.
    pub(crate) key: &'a PublicKey,
    /// Who it is for; absent when the authority tells us who we are.
    pub(crate) spiffe_id: Option<&'a SpiffeId>,
    /// DNS names that it may carry; absent when we cannot know.
    pub(crate) dns_names: Option<&'a [String]>,
}

/// A certificate that passed.
#[derive(Debug)]
pub(crate) struct Fit {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) serial: SerialNumber,
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

/// Judges an answer.
pub(crate) fn judge(
    answer: &EnrollResponse,
    expected: &Expected<'_>,
    roots: &[Vec<u8>],
    now: Timestamp,
) -> Result<Fit, Unfit> {
    let mut chain = read_certificates(answer.certificate.as_bytes(), 1)?;
    // Empty when a root signs by itself.
    if !answer.chain.is_empty() {
        chain.extend(read_certificates(answer.chain.as_bytes(), MAX_CHAIN)?);
    }
    judge_chain(chain, expected, roots, now)
}

/// Judges a chain, the leaf first.
pub(crate) fn judge_chain(
    chain: Vec<Vec<u8>>,
    expected: &Expected<'_>,
    roots: &[Vec<u8>],
    now: Timestamp,
) -> Result<Fit, Unfit> {
    let leaf = Certificate::from_der(chain.first().ok_or(Unfit::Missing)?)?;
    let tbs = leaf.tbs();
    if tbs.spki_der() != expected.key.spki_der() {
        return Err(Unfit::Key);
    }
    let spiffe_id = the_only_identity(&leaf)?;
    if let Some(wanted) = expected.spiffe_id
        && *wanted != spiffe_id
    {
        return Err(Unfit::Identity { expected: wanted.clone(), found: spiffe_id.to_string() });
    }
    if let Some(dns_names) = expected.dns_names {
        check_dns_names(&leaf, dns_names)?;
    }
    check_path(&chain, &leaf, roots, now).map_err(Unfit::Path)?;
    let serial = leaf.serial_number().ok_or(Unfit::Missing)?;
    let (not_before, not_after) = (tbs.not_before(), tbs.not_after());
    Ok(Fit { spiffe_id, serial, chain, not_before, not_after })
}

/// X509-SVID section 2: exactly one URI, which is the SPIFFE ID.
fn the_only_identity(leaf: &Certificate) -> Result<SpiffeId, Unfit> {
    let uris = leaf.tbs().names().filter(|name| matches!(name, GeneralName::Uri(_))).count();
    match (leaf.tbs().spiffe_id(), uris) {
        (Some(id), 1) => Ok(id),
        _ => Err(Unfit::Missing),
    }
}

fn check_dns_names(leaf: &Certificate, allowed: &[String]) -> Result<(), Unfit> {
    for name in leaf.tbs().names() {
        if let GeneralName::Dns(name) = name
            && !allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
        {
            return Err(Unfit::Name(name.to_owned()));
        }
    }
    Ok(())
}

fn check_path(
    chain: &[Vec<u8>],
    leaf: &Certificate,
    roots: &[Vec<u8>],
    now: Timestamp,
) -> Result<(), webpki::Error> {
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| der.as_slice().into()).collect();
    let roots: Vec<CertificateDer<'_>> = roots.iter().map(|der| der.as_slice().into()).collect();
    let anchors = roots.iter().map(webpki::anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>()?;
    let (end_entity, intermediates) = chain.split_first().ok_or(webpki::Error::BadDer)?;
    let usage = if leaf.tbs().has_purpose(ExtendedKeyUsage::ClientAuth) {
        webpki::KeyUsage::client_auth()
    } else {
        webpki::KeyUsage::server_auth()
    };
    let seconds = u64::try_from(now.seconds()).unwrap_or(0);
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    webpki::EndEntityCert::try_from(end_entity)?
        .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, intermediates, now, usage, None, None)
        .map(|_| ())
}
