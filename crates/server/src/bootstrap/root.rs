//! The root: made once, in a directory of its own, used to sign issuers and nothing else.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chancery_keys::{KeyLocation, Protection, Signer, store};
use chancery_types::{
    Digest, IssuerEpoch, KeyAlgorithm, Random, SecretString, SerialNumber, Timestamp, TrustDomain,
};
use chancery_x509::lint::{LintContext, check, check_root};
use chancery_x509::{
    BasicConstraints, Certificate, CertificateRequest, CertificateSpec, DistinguishedName, Issuance,
    KeyUsage, Profile, StatusUrls, Validity, assemble, read_certificates, write_pem,
};

use super::InitError;
use super::layout::{clipped, write_new};

/// A root lives for fifteen years: rotations of it are planned, and issuers below it live for months.
const ROOT_LIFETIME: Duration = Duration::from_secs(15 * 365 * 24 * 3600);
/// For clocks that are late.
const BACKDATE: Duration = Duration::from_secs(300);

/// A root that was just made.
#[derive(Debug)]
pub struct RootMade {
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// SHA-256 of that.
    pub fingerprint: Digest,
    /// Its certificate's file.
    pub path: PathBuf,
}

pub(super) fn key_location(directory: &Path) -> KeyLocation {
    KeyLocation::File(directory.join("root.key"))
}

/// Makes a root in an empty directory: `root.key`, encrypted, and `root.crt`.
///
/// # Errors
/// [`InitError`]; an existing root is never touched.
pub fn make_root(
    directory: &Path,
    trust_domain: &TrustDomain,
    algorithm: KeyAlgorithm,
    passphrase: &SecretString,
    random: &dyn Random,
    now: Timestamp,
) -> Result<RootMade, InitError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| InitError::file(directory, error))?;
    let protection = Protection::Passphrase(passphrase.clone());
    let signer = store::generate(&key_location(directory), algorithm, &protection)
        .map_err(|error| InitError::Key { purpose: "root", error })?;
    let subject = DistinguishedName::common_name(&clipped(&format!("{trust_domain} Root")))
        .map_err(|error| InitError::certificate("the root's name", error))?;
    let names = [trust_domain.id().into()];
    let start = now.whole_second();
    let serial = root_serial(random, now)?;
    let spec = CertificateSpec {
        serial: serial.as_bytes(),
        signature_algorithm: signer.algorithm(),
        issuer: subject.der(),
        validity: Validity { not_before: start - BACKDATE, not_after: start + ROOT_LIFETIME },
        subject: subject.clone(),
        public_key: signer.public_key(),
        authority_key_id: None,
        names: &names,
        key_usages: [KeyUsage::KeyCertSign, KeyUsage::CrlSign].into_iter().collect(),
        extended_key_usages: &[],
        authority: Some(BasicConstraints { is_authority: true, path_length: Some(1) }),
        name_constraints: None,
        crl_url: None,
        ocsp_url: None,
        ca_issuers_url: None,
        no_rev_avail: false,
        ocsp_nocheck: false,
    };
    let tbs = spec.to_tbs_der();
    if let Some(finding) = check_root(&tbs, trust_domain, now).iter().find(|finding| finding.is_error()) {
        return Err(InitError::certificate("the root certificate", finding));
    }
    let certificate = sign(&tbs, signer.as_ref())?;
    let path = directory.join("root.crt");
    write_new(&path, write_pem("CERTIFICATE", &certificate).as_bytes(), 0o644)?;
    Ok(RootMade { fingerprint: Digest::of(&certificate), certificate, path })
}

/// Signs an issuer's request with the root in this directory; returns the certificate, DER.
///
/// What the request asks for is not looked at beyond its key and its name: the issuer profile decides.
///
/// # Errors
/// [`InitError`].
pub fn sign_issuer(
    directory: &Path,
    passphrase: &SecretString,
    csr: &[u8],
    profile: &Profile,
    lifetime: Option<Duration>,
    random: &dyn Random,
    now: Timestamp,
) -> Result<Vec<u8>, InitError> {
    let request = CertificateRequest::from_pem_or_der(csr)
        .and_then(CertificateRequest::verify)
        .map_err(|error| InitError::certificate("the issuer's request", error))?;
    let root = read_root(directory)?;
    let trust_domain = root
        .tbs()
        .spiffe_id()
        .ok_or_else(|| InitError::certificate("the root certificate", "it names no trust domain"))?
        .trust_domain();
    let signer = store::open(&key_location(directory), &Protection::Passphrase(passphrase.clone()))
        .map_err(|error| InitError::Key { purpose: "root", error })?;
    let subject =
        request.request().and_then(|request| request.subject().common_name()).unwrap_or("Issuer").to_owned();
    let subject = DistinguishedName::common_name(&clipped(&subject))
        .map_err(|error| InitError::certificate("the issuer's name", error))?;
    let names = [trust_domain.id().into()];
    let tbs = root.tbs();
    let lifetime = profile.clamp_lifetime(lifetime);
    let serial = root_serial(random, now)?;
    let issuance = Issuance {
        serial: serial.as_bytes(),
        issuer: &root,
        signature_algorithm: signer.algorithm(),
        validity: profile.validity(now, lifetime, tbs.not_before(), tbs.not_after()),
        public_key: request.public_key(),
        names: &names,
        subject: Some(&subject),
        urls: StatusUrls::default(),
    };
    let issuer_tbs = profile
        .specify(&issuance)
        .map_err(|error| InitError::certificate("the issuer profile", error))?
        .to_tbs_der();
    let context = LintContext {
        profile,
        issuer: &root,
        trust_domain: &trust_domain,
        now,
        urls: StatusUrls::default(),
        subject: Some(&subject),
    };
    if let Some(finding) = check(&issuer_tbs, &context).iter().find(|finding| finding.is_error()) {
        return Err(InitError::certificate("the issuer certificate", finding));
    }
    sign(&issuer_tbs, signer.as_ref())
}

/// The certificate of the root in this directory.
pub(super) fn read_root(directory: &Path) -> Result<Certificate, InitError> {
    let path = directory.join("root.crt");
    let pem = std::fs::read(&path).map_err(|error| InitError::file(&path, error))?;
    let root = read_certificates(&pem, 1)
        .map_err(|error| InitError::file(&path, error))?
        .pop()
        .ok_or_else(|| InitError::file(&path, "there is no certificate in it"))?;
    Certificate::from_der(&root).map_err(|error| InitError::certificate("the root certificate", error))
}

/// Signs and verifies what came back.
pub(super) fn sign(tbs: &[u8], signer: &dyn Signer) -> Result<Vec<u8>, InitError> {
    let signature = signer.sign(tbs)?;
    signer
        .public_key()
        .verify(signer.algorithm(), tbs, &signature)
        .map_err(|error| InitError::certificate("the root's signature", error))?;
    Ok(assemble(tbs, signer.algorithm(), &signature))
}

/// The root keeps no ledger, so the moment stands in for the counter: epoch 0 and milliseconds since 1970.
fn root_serial(random: &dyn Random, now: Timestamp) -> Result<SerialNumber, InitError> {
    let counter = u64::try_from(now.millis()).unwrap_or(0);
    SerialNumber::generate(IssuerEpoch(0), counter, random)?
        .map_err(|error| InitError::certificate("the serial number", error))
}
