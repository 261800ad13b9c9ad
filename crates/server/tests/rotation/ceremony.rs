//! A root and the certificate by which the one before vouches for it, as anybody could make them who has these keys.

use std::sync::Arc;
use std::time::Duration;

use chancery_api::AddRootRequest;
use chancery_keys::{KeyLocation, Protection, Signer, store};
use chancery_server::bootstrap::{RootRotated, rotate_root};
use chancery_types::{
    Clock as _, KeyAlgorithm, SecretString, SubjectName, SystemClock, SystemRandom, Timestamp,
};
use chancery_x509::{
    BasicConstraints, Certificate, CertificateSpec, DistinguishedName, KeyUsages, SubjectKey, Validity,
    assemble, read_certificates, write_pem,
};

use super::running::{Place, new_key};

pub(super) fn passphrase() -> SecretString {
    SecretString::new("a long passphrase".into())
}

/// The ceremony as operators hold it: the new root is in `root-2` beside the old one.
pub(super) fn rotate(place: &Place, from: &str, to: &str) -> RootRotated {
    let (from, to, passphrase) = (place.beside(from), place.beside(to), passphrase());
    let (old, new) = ((from.as_path(), &passphrase), (to.as_path(), &passphrase));
    rotate_root(old, new, KeyAlgorithm::P256, &SystemRandom, SystemClock.now()).unwrap()
}

/// What brings it to the server.
pub(super) fn request(made: &RootRotated) -> AddRootRequest {
    let certificates = std::iter::once(made.root.certificate()).chain(made.root.vouchers());
    asking(certificates.map(pem).collect())
}

pub(super) fn asking(certificates: String) -> AddRootRequest {
    AddRootRequest { certificates, dry_run: false, note: "a test".into() }
}

pub(super) fn pem(certificate: &Certificate) -> String {
    write_pem("CERTIFICATE", certificate.der())
}

/// The keys of an old root and of one that is to follow it.
pub(super) struct Hand {
    old_key: Arc<dyn Signer>,
    old: Certificate,
    pub(super) new_key: SubjectKey,
}

/// What a certificate of the new root says; a test changes it.
pub(super) struct Says {
    pub(super) names: Vec<SubjectName>,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    pub(super) edit: fn(&mut CertificateSpec<'_>),
}

impl Says {
    /// What a good one says.
    pub(super) fn good() -> Self {
        let now = SystemClock.now().whole_second();
        Self {
            names: vec!["spiffe://example.org".parse().unwrap()],
            from: now - Duration::from_mins(1),
            until: now + Duration::from_hours(24 * 3650),
            edit: |_| {},
        }
    }
}

impl Hand {
    pub(super) fn of(place: &Place) -> Self {
        let directory = place.beside("root");
        let location = KeyLocation::File(directory.join("root.key"));
        let old_key = store::open(&location, &Protection::Passphrase(passphrase())).unwrap();
        let old =
            read_certificates(&std::fs::read(directory.join("root.crt")).unwrap(), 1).unwrap().remove(0);
        Self { old_key, old: Certificate::from_der(&old).unwrap(), new_key: new_key() }
    }

    /// The root's own certificate.
    pub(super) fn root(&self, says: &Says) -> Certificate {
        self.signed(says, None, |tbs| self.new_key.sign(tbs).unwrap())
    }

    /// The one by which the old root vouches for it.
    pub(super) fn voucher(&self, says: &Says) -> Certificate {
        self.signed(says, Some(&self.old), |tbs| self.old_key.sign(tbs).unwrap())
    }

    /// The same, with the old root's name and key identifier, by a key that is not the old root's.
    pub(super) fn forged(&self, says: &Says) -> Certificate {
        let other = new_key();
        self.signed(says, Some(&self.old), |tbs| other.sign(tbs).unwrap())
    }

    fn signed(
        &self,
        says: &Says,
        issuer: Option<&Certificate>,
        sign: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Certificate {
        let subject = DistinguishedName::common_name("example.org Root 2").unwrap();
        let algorithm = self.new_key.signature_algorithm();
        let above = issuer.map(Certificate::tbs);
        let mut spec = CertificateSpec {
            serial: &[1, 2, 3, 4, 5, 6, 7, 8],
            signature_algorithm: algorithm,
            issuer: above.map_or(subject.der(), |issuer| issuer.subject_der()),
            validity: Validity { not_before: says.from, not_after: says.until },
            subject: subject.clone(),
            public_key: self.new_key.public_key(),
            authority_key_id: above.and_then(|issuer| issuer.subject_key_id()),
            names: &says.names,
            key_usages: KeyUsages::AUTHORITY,
            extended_key_usages: &[],
            authority: Some(BasicConstraints { is_authority: true, path_length: Some(1) }),
            name_constraints: None,
            crl_url: None,
            ocsp_url: None,
            ca_issuers_url: None,
            no_rev_avail: false,
            ocsp_nocheck: false,
        };
        (says.edit)(&mut spec);
        let tbs = spec.to_tbs_der();
        Certificate::from_der(&assemble(&tbs, algorithm, &sign(&tbs))).unwrap()
    }
}
