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
    KeyUsage, Profile, PublicKey, StatusUrls, Validity, assemble, read_certificates, write_pem,
};

use super::InitError;
use super::layout::{clipped, write_new};

/// A root lives for fifteen years: rotations of it are planned, and issuers below it live for months.
const ROOT_LIFETIME: Duration = Duration::from_secs(15 * 365 * 24 * 3600);
/// Below a root stand issuers, and above them a root that follows it, for verifiers that know only this one.
pub(super) const ROOT_PATH_LENGTH: u8 = 2;
/// For clocks that are late.
pub(super) const BACKDATE: Duration = Duration::from_secs(300);

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

/// What the key of every root is called, in the directory of its root.
pub(crate) const ROOT_KEY: &str = "root.key";

pub(super) fn key_location(directory: &Path) -> KeyLocation {
    KeyLocation::File(directory.join(ROOT_KEY))
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
    let subject = DistinguishedName::common_name(&clipped(&format!("{trust_domain} Root")))
        .map_err(|error| InitError::certificate("the root's name", error))?;
    let made = new_root(directory, trust_domain, &subject, algorithm, passphrase, random, now)?;
    let path = directory.join("root.crt");
    write_new(&path, write_pem("CERTIFICATE", made.der()).as_bytes(), 0o644)?;
    Ok(RootMade { fingerprint: made.fingerprint(), certificate: made.der().to_vec(), path })
}

/// Makes a root's key in an empty directory and signs its certificate, which is not written yet.
pub(super) fn new_root(
    directory: &Path,
    trust_domain: &TrustDomain,
    subject: &DistinguishedName,
    algorithm: KeyAlgorithm,
    passphrase: &SecretString,
    random: &dyn Random,
    now: Timestamp,
) -> Result<Certificate, InitError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| InitError::file(directory, error))?;
    let protection = Protection::Passphrase(passphrase.clone());
    let signer = store::generate(&key_location(directory), algorithm, &protection)
        .map_err(|error| InitError::Key { purpose: "root", error })?;
    let start = now.whole_second();
    let signed = AuthoritySpec {
        subject,
        public_key: signer.public_key(),
        trust_domain,
        validity: Validity { not_before: start - BACKDATE, not_after: start + ROOT_LIFETIME },
        path_length: ROOT_PATH_LENGTH,
        issuer: None,
    }
    .sign(signer.as_ref(), random, now)?;
    let findings = check_root(signed.tbs_der(), trust_domain, now);
    match findings.iter().find(|finding| finding.is_error()) {
        Some(finding) => Err(InitError::certificate("the root certificate", finding)),
        None => Ok(signed),
    }
}

/// A root's certificate, or one by which a root vouches for another.
pub(super) struct AuthoritySpec<'a> {
    pub(super) subject: &'a DistinguishedName,
    pub(super) public_key: &'a PublicKey,
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) validity: Validity,
    pub(super) path_length: u8,
    /// Who signs; `None`: the key itself.
    pub(super) issuer: Option<&'a Certificate>,
}

impl AuthoritySpec<'_> {
    /// Signs it, without any constraint on names: issuers carry those.
    pub(super) fn sign(
        &self,
        signer: &dyn Signer,
        random: &dyn Random,
        now: Timestamp,
    ) -> Result<Certificate, InitError> {
        let names = [self.trust_domain.id().into()];
        let serial = root_serial(random, now)?;
        let issuer = self.issuer.map(Certificate::tbs);
        let spec = CertificateSpec {
            serial: serial.as_bytes(),
            signature_algorithm: signer.algorithm(),
            issuer: issuer.map_or(self.subject.der(), |issuer| issuer.subject_der()),
            validity: self.validity,
            subject: self.subject.clone(),
            public_key: self.public_key,
            authority_key_id: issuer.and_then(|issuer| issuer.subject_key_id()),
            names: &names,
            key_usages: [KeyUsage::KeyCertSign, KeyUsage::CrlSign].into_iter().collect(),
            extended_key_usages: &[],
            authority: Some(BasicConstraints { is_authority: true, path_length: Some(self.path_length) }),
            name_constraints: None,
            crl_url: None,
            ocsp_url: None,
            ca_issuers_url: None,
            no_rev_avail: false,
            ocsp_nocheck: false,
        };
        let der = sign(&spec.to_tbs_der(), signer)?;
        Certificate::from_der(&der).map_err(|error| InitError::certificate("the root certificate", error))
    }
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
