//! A small authority for tests: a root, an issuer below it, and certificates under the reference profiles.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test that called it")]
#![allow(dead_code, reason = "compiled into several tests, none of which uses all of it")]

use std::path::Path;
use std::time::Duration;

use chancery_types::{IssuerEpoch, KeyAlgorithm, SerialNumber, SubjectName, Timestamp, TrustDomain};
use chancery_x509::{
    Certificate, CertificateSpec, DistinguishedName, Issuance, Profile, StatusUrls, SubjectKey, Validity,
    assemble,
};

/// The URLs that the certificates carry.
pub(crate) const URLS: StatusUrls<'static> = StatusUrls {
    crl: Some("http://ca.example.org/crl/full"),
    ocsp: Some("http://ca.example.org/ocsp"),
    ca_issuers: Some("http://ca.example.org/issuer.crt"),
};

/// The moment at which everything happens whose judges can be told the time.
pub(crate) fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

/// When the issuers of an authority of this moment were made.
pub(crate) fn birth_of_issuer(now: Timestamp) -> Timestamp {
    now - 20 * DAY
}

const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

/// One of the profiles in ca-config.
pub(crate) fn profile(name: &str) -> Profile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../ca-config/profiles/{name}.toml"));
    Profile::from_toml(&std::fs::read_to_string(path).unwrap(), &trust_domain()).unwrap()
}

pub(crate) fn serial(counter: u64) -> SerialNumber {
    SerialNumber::compose(IssuerEpoch(1), counter, *b"\x9e\x37\x79\xb9\x7f\x4a\x7c\x15").unwrap()
}

pub(crate) fn names(texts: &[&str]) -> Vec<SubjectName> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn subject_named(text: &str) -> DistinguishedName {
    text.parse().unwrap()
}

/// A certificate and its key.
pub(crate) struct Held {
    pub(crate) key: SubjectKey,
    pub(crate) certificate: Certificate,
}

pub(crate) struct Authority {
    pub(crate) root: Held,
    pub(crate) issuer: Held,
    pub(crate) now: Timestamp,
}

impl Authority {
    pub(crate) fn new(algorithm: KeyAlgorithm) -> Self {
        Self::at(algorithm, now())
    }

    /// An authority that issues at this moment.
    pub(crate) fn at(algorithm: KeyAlgorithm, now: Timestamp) -> Self {
        Self::with_issuer_profile(algorithm, now, profile("issuer").text())
    }

    /// An authority whose issuer is made under this profile.
    pub(crate) fn with_issuer_profile(algorithm: KeyAlgorithm, now: Timestamp, issuer_profile: &str) -> Self {
        let root = make_root(algorithm, now);
        let issuer_profile = Profile::from_toml(issuer_profile, &trust_domain()).unwrap();
        let key = SubjectKey::generate(algorithm).unwrap();
        let subject = subject_named("CN=Example Issuer 1,O=Example");
        let names = names(&["spiffe://example.org"]);
        let birth = birth_of_issuer(now);
        let validity = Validity { not_before: birth, not_after: birth + 90 * DAY };
        let certificate = issue(&root, &issuer_profile, &key, &names, Some(&subject), validity, 2);
        Self { root, issuer: Held { key, certificate }, now }
    }

    /// A certificate of an hour under this profile.
    pub(crate) fn leaf(&self, profile: &Profile, algorithm: KeyAlgorithm, names: &[SubjectName]) -> Held {
        let key = SubjectKey::generate(algorithm).unwrap();
        let subject = subject_named("CN=Example responder,O=Example");
        let certificate =
            issue(&self.issuer, profile, &key, names, Some(&subject), an_hour(profile, self.now), 7);
        Held { key, certificate }
    }
}

fn an_hour(profile: &Profile, now: Timestamp) -> Validity {
    profile.validity(now, Duration::from_secs(3600), Timestamp::default(), Timestamp::MAX)
}

fn make_root(algorithm: KeyAlgorithm, now: Timestamp) -> Held {
    let key = SubjectKey::generate(algorithm).unwrap();
    let subject = subject_named("CN=Example Root,O=Example");
    // Beyond 2049, so that both forms of time are in it.
    let validity = Validity { not_before: now - 300 * DAY, not_after: now + 30 * 365 * DAY };
    let names = names(&["spiffe://example.org"]);
    let spec = CertificateSpec::root(&[0x5a; 16], &subject, validity, key.public_key(), &names);
    let certificate = sign(&key, &spec.to_tbs_der());
    Held { key, certificate }
}

fn issue(
    issuer: &Held,
    profile: &Profile,
    key: &SubjectKey,
    names: &[SubjectName],
    subject: Option<&DistinguishedName>,
    validity: Validity,
    counter: u64,
) -> Certificate {
    let serial = serial(counter);
    let spec = profile
        .specify(&Issuance {
            serial: serial.as_bytes(),
            issuer: &issuer.certificate,
            signature_algorithm: issuer.key.signature_algorithm(),
            validity,
            public_key: key.public_key(),
            names,
            subject,
            urls: URLS,
        })
        .unwrap();
    sign(&issuer.key, &spec.to_tbs_der())
}

/// Signs a TBSCertificate.
pub(crate) fn sign(key: &SubjectKey, tbs: &[u8]) -> Certificate {
    let signature = key.sign(tbs).unwrap();
    Certificate::from_der(&assemble(tbs, key.signature_algorithm(), &signature)).unwrap()
}
