use chancery_types::KeyAlgorithm;

use super::*;
use crate::authority::{Authority, now, serial};
use crate::lint::{CRL_LINTS, CrlLintContext, check_crl};
use crate::reader::Reader;
use crate::spec::assemble;
use crate::{Certificate, SubjectKey};

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

fn spec(issuer: &Certificate) -> CrlSpec<'_> {
    CrlSpec {
        issuer,
        signature_algorithm: SignatureAlgorithm::EcdsaSha256,
        number: 0x8000_0000_0000_0001,
        this_update: now(),
        next_update: now() + DAY,
        distribution_points: &[],
    }
}

fn entries(serials: &[[u8; 17]]) -> Vec<RevokedCertificate<'_>> {
    let reasons = [
        RevocationReason::Unspecified,
        RevocationReason::KeyCompromise,
        RevocationReason::CertificateHold,
        RevocationReason::PrivilegeWithdrawn,
    ];
    serials
        .iter()
        .zip(reasons.into_iter().cycle())
        .map(|(serial, reason)| RevokedCertificate { serial, revoked_at: now() - DAY, reason })
        .collect()
}

fn serials(count: u64) -> Vec<[u8; 17]> {
    (0..count).rev().map(|counter| *serial(counter).as_bytes()).collect()
}

fn signed(key: &SubjectKey, tbs: &[u8]) -> Vec<u8> {
    assemble(tbs, key.signature_algorithm(), &key.sign(tbs).unwrap())
}

#[test]
fn what_is_written_is_read_back_sorted() {
    let authority = Authority::new(KeyAlgorithm::P256);
    let issuer = &authority.issuer.certificate;
    let serials = serials(20);
    let tbs = spec(issuer).to_tbs_der(entries(&serials)).unwrap();
    let der = signed(&authority.issuer.key, &tbs);
    let crl = CrlView::from_der(&der).unwrap();
    assert_eq!(crl.tbs_der(), tbs);
    assert_eq!(crl.issuer_der(), issuer.tbs().subject_der());
    assert_eq!(crl.authority_key_id(), issuer.tbs().subject_key_id());
    assert_eq!((crl.this_update(), crl.next_update()), (now(), Some(now() + DAY)));
    assert_eq!(crl.number_u64(), Some(0x8000_0000_0000_0001));
    assert_eq!(crl.distribution_points().count(), 0);
    let mut sorted = entries(&serials);
    sorted.reverse();
    assert_eq!(crl.entries().collect::<Vec<_>>(), sorted);
    assert_eq!(crl.entry(&serials[3]).unwrap().reason, RevocationReason::PrivilegeWithdrawn);
    assert_eq!(crl.entry(&[7]), None);
    crl.verify(issuer.tbs().spki_der()).unwrap();
    assert!(crl.verify(authority.root.certificate.tbs().spki_der()).is_err());
}

#[test]
fn an_empty_list_has_no_list_of_entries() {
    let authority = Authority::new(KeyAlgorithm::P256);
    let tbs = spec(&authority.issuer.certificate).to_tbs_der(Vec::new()).unwrap();
    let der = signed(&authority.issuer.key, &tbs);
    assert_eq!(CrlView::from_der(&der).unwrap().entries().count(), 0);
    assert!(TbsCrlView::from_der(&tbs).unwrap().entries.is_none());
}

#[test]
fn a_list_for_one_url_says_which() {
    let authority = Authority::new(KeyAlgorithm::P256);
    let urls = ["http://ca.example.org/crl/7", "http://old.example.org/crl/7"].map(str::to_owned);
    let spec = CrlSpec { distribution_points: &urls, ..spec(&authority.issuer.certificate) };
    let der = signed(&authority.issuer.key, &spec.to_tbs_der(Vec::new()).unwrap());
    assert_eq!(CrlView::from_der(&der).unwrap().distribution_points().collect::<Vec<_>>(), urls);
}

#[test]
fn refuses_serials_that_are_none_and_repetitions() {
    let authority = Authority::new(KeyAlgorithm::P256);
    let spec = spec(&authority.issuer.certificate);
    let entry =
        |serial| RevokedCertificate { serial, revoked_at: now(), reason: RevocationReason::Superseded };
    for serial in [&[][..], &[0], &[0, 1], &[0x80], &[1; 21]] {
        let error = spec.to_tbs_der(vec![entry(&[5]), entry(serial)]).unwrap_err();
        assert_eq!(error, CrlSpecError::Serial { index: 1, serial: serial.to_vec() });
    }
    let error = spec.to_tbs_der(vec![entry(&[5]), entry(&[6]), entry(&[5])]).unwrap_err();
    assert_eq!(error, CrlSpecError::Twice { serial: vec![5] });
    spec.to_tbs_der(vec![entry(&[0, 0x80]), entry(&[0x7f])]).unwrap();
}

#[test]
fn a_hundred_thousand_entries_take_no_time_worth_mentioning() {
    let authority = Authority::new(KeyAlgorithm::P256);
    let serials = serials(100_000);
    let tbs = spec(&authority.issuer.certificate).to_tbs_der(entries(&serials)).unwrap();
    assert!(tbs.len() < 100_000 * ENTRY_BYTES, "{}", tbs.len());
    assert_eq!(run(&authority, &tbs), [""; 0]);
}

/// A TBSCertList in pieces that a test can bend.
#[derive(Default)]
struct Parts {
    version: Option<u8>,
    algorithm: Vec<u8>,
    issuer: Vec<u8>,
    times: Vec<(u8, Vec<u8>)>,
    entries: Option<Vec<Vec<u8>>>,
    extensions: Vec<(&'static [u8], bool, Vec<u8>)>,
}

impl Parts {
    fn good(authority: &Authority) -> Self {
        let issuer = authority.issuer.certificate.tbs();
        let key_id = issuer.subject_key_id().unwrap();
        Self {
            version: Some(1),
            algorithm: SignatureAlgorithm::EcdsaSha256.algorithm_identifier().to_vec(),
            issuer: issuer.subject_der().to_vec(),
            times: vec![
                (tag::UTC_TIME, b"261121120000Z".to_vec()),
                (tag::UTC_TIME, b"261122120000Z".to_vec()),
            ],
            entries: Some(vec![entry_of(&[5], 1), entry_of(&[6], 4)]),
            extensions: vec![
                (oid::AUTHORITY_KEY_ID, false, written(|value| AuthorityKeyId::write(value, key_id))),
                (oid::CRL_NUMBER, false, written(|value| value.unsigned(&[9]))),
            ],
        }
    }

    fn der(&self) -> Vec<u8> {
        written(|writer| {
            writer.sequence(|list| {
                if let Some(version) = self.version {
                    list.unsigned(&[version]);
                }
                list.raw(&self.algorithm);
                list.raw(&self.issuer);
                self.times.iter().for_each(|(tag, content)| list.value(*tag, content));
                if let Some(entries) = &self.entries {
                    list.sequence(|revoked| entries.iter().for_each(|entry| revoked.raw(entry)));
                }
                list.nested(tag::context_constructed(0), |explicit| {
                    explicit.sequence(|extensions| {
                        for (oid, critical, content) in &self.extensions {
                            extension::write(extensions, oid, *critical, |value| value.raw(content));
                        }
                    });
                });
            });
        })
    }
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer);
    writer.finish()
}

fn entry_of(serial: &[u8], reason: u8) -> Vec<u8> {
    entry_at(serial, b"261120120000Z", reason)
}

fn entry_at(serial: &[u8], utc_time: &[u8], reason: u8) -> Vec<u8> {
    written(|writer| {
        writer.sequence(|fields| {
            fields.value(tag::INTEGER, serial);
            fields.value(tag::UTC_TIME, utc_time);
            fields.sequence(|extensions| {
                extension::write(extensions, oid::CRL_REASON, false, |value| {
                    value.value(tag::ENUMERATED, &[reason]);
                });
            });
        });
    })
}

fn run(authority: &Authority, tbs: &[u8]) -> Vec<&'static str> {
    run_below(&authority.issuer.certificate, tbs, Some(8))
}

fn run_below(issuer: &Certificate, tbs: &[u8], previous_number: Option<u64>) -> Vec<&'static str> {
    let context = CrlLintContext { issuer, now: now(), previous_number, distribution_points: &[] };
    check_crl(tbs, &context).into_iter().map(|finding| finding.id).collect()
}

type Case = (&'static str, fn(&mut Parts));

const CASES: &[Case] = &[
    ("crl_structure", |p| p.issuer = vec![4, 0]),
    ("crl_version_2", |p| p.version = None),
    ("crl_signature_fits_issuer_key", |p| {
        p.algorithm = SignatureAlgorithm::Ed25519.algorithm_identifier().to_vec();
    }),
    ("crl_issuer_is_subject_of_issuer", |p| p.issuer = vec![tag::SEQUENCE, 0]),
    ("crl_time_form", |p| p.times[1] = (tag::GENERALIZED_TIME, b"20261122120000Z".to_vec())),
    ("crl_this_update_not_in_the_future", |p| p.times[0].1 = b"261121120001Z".to_vec()),
    ("crl_next_update", |p| drop(p.times.pop())),
    ("crl_next_update", |p| p.times[1].1 = b"261121120000Z".to_vec()),
    ("crl_no_empty_list", |p| p.entries = Some(Vec::new())),
    ("crl_sorted_without_repetition", |p| p.entries.as_mut().unwrap().reverse()),
    ("crl_sorted_without_repetition", |p| p.entries = Some(vec![entry_of(&[5], 1), entry_of(&[5], 1)])),
    ("crl_serials_positive", |p| p.entries = Some(vec![entry_of(&[0x85], 1)])),
    ("crl_serials_positive", |p| p.entries = Some(vec![entry_of(&[1; 21], 1)])),
    ("crl_reason_omitted_or_known", |p| p.entries = Some(vec![entry_of(&[5], 0)])),
    ("crl_reason_omitted_or_known", |p| p.entries = Some(vec![entry_of(&[5], 8)])),
    ("crl_not_revoked_in_the_future", |p| {
        p.entries = Some(vec![entry_at(&[5], b"261121120001Z", 1)]);
    }),
    ("crl_aki_is_ski_of_issuer", |p| {
        p.extensions[0].2 = written(|value| AuthorityKeyId::write(value, &[7; 20]));
    }),
    ("crl_aki_is_ski_of_issuer", |p| drop(p.extensions.remove(0))),
    ("crl_number", |p| drop(p.extensions.remove(1))),
    ("crl_number_increases", |p| p.extensions[1].2 = written(|value| value.unsigned(&[8]))),
    ("crl_distribution_point", |p| {
        let point = written(|value| {
            value.sequence(|point| {
                extension::write_full_name(point, ["http://ca.example.org/crl/1"].into_iter())
            });
        });
        p.extensions.push((oid::ISSUING_DISTRIBUTION_POINT, true, point));
    }),
    ("crl_extension_set", |p| p.extensions.push((oid::CERTIFICATE_POLICIES, false, vec![0x30, 0]))),
    ("crl_extension_set", |p| p.extensions[1].1 = true),
];

#[test]
fn every_lint_fires_on_its_own_fault_and_on_nothing_else() {
    let authority = Authority::new(KeyAlgorithm::P256);
    assert_eq!(run(&authority, &Parts::good(&authority).der()), [""; 0]);
    for (expected, bend) in CASES {
        let mut parts = Parts::good(&authority);
        bend(&mut parts);
        assert_eq!(run(&authority, &parts.der()), [*expected]);
    }
    let issuer = crate::lint::tests::bent_issuer(&authority);
    assert_eq!(run_below(&issuer, &Parts::good(&authority).der(), None), ["crl_issuer_may_sign"]);
    let findings = run_below(&authority.root.certificate, &Parts::good(&authority).der(), None);
    assert_eq!(findings, ["crl_issuer_is_subject_of_issuer", "crl_aki_is_ski_of_issuer"]);
    let covered = |id: &str| id == "crl_issuer_may_sign" || CASES.iter().any(|(expected, _)| *expected == id);
    assert!(CRL_LINTS.iter().all(|lint| covered(lint.id)));
}

#[test]
fn the_authority_key_identifier_of_the_issuer_itself_is_caught() {
    // What CrlBuilder of a well-known library writes: the issuer's AKI where its SKI belongs.
    let authority = Authority::new(KeyAlgorithm::P256);
    let wrong = authority.issuer.certificate.tbs().authority_key_id().unwrap().to_vec();
    let mut parts = Parts::good(&authority);
    parts.extensions[0].2 = written(|value| AuthorityKeyId::write(value, &wrong));
    assert_eq!(run(&authority, &parts.der()), ["crl_aki_is_ski_of_issuer"]);
}

#[test]
fn refuses_lists_that_mean_something_else_than_they_seem() {
    let authority = Authority::new(KeyAlgorithm::P256);
    let read = |parts: &Parts| {
        CrlView::from_der(&signed(&authority.issuer.key, &parts.der())).map(drop).unwrap_err()
    };
    let with = |oid: &'static [u8], value: Vec<u8>| {
        let mut parts = Parts::good(&authority);
        parts.extensions.push((oid, true, value));
        read(&parts)
    };
    assert!(matches!(with(oid::DELTA_CRL_INDICATOR, vec![2, 1, 1]), CrlError::Partial(_)));
    assert!(matches!(
        with(oid::ISSUING_DISTRIBUTION_POINT, vec![0x30, 3, 0x81, 1, 0xff]),
        CrlError::Partial("users' certificates only")
    ));
    assert!(matches!(
        with(oid::ISSUING_DISTRIBUTION_POINT, vec![0x30, 3, 0x84, 1, 0xff]),
        CrlError::Partial("it is indirect")
    ));
    assert!(matches!(with(oid::CERTIFICATE_POLICIES, vec![0x30, 0]), CrlError::UnknownCritical(_)));
    let mut old = Parts::good(&authority);
    old.version = None;
    assert_eq!(read(&old), CrlError::Version);
    let tbs = Parts::good(&authority).der();
    let mixed = assemble(&tbs, SignatureAlgorithm::Ed25519, &[0; 64]);
    assert_eq!(CrlView::from_der(&mixed).unwrap_err(), CrlError::AlgorithmMismatch);
}

proptest::proptest! {
    #[test]
    fn changed_and_random_bytes_never_panic(place in 0_usize..400, value: u8, junk in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
        thread_local!(static GOOD: (Authority, Vec<u8>) = {
            let authority = Authority::new(KeyAlgorithm::P256);
            let der = signed(&authority.issuer.key, &Parts::good(&authority).der());
            (authority, der)
        });
        GOOD.with(|(authority, der)| {
            let mut der = der.clone();
            if let Some(byte) = der.get_mut(place) {
                *byte = value;
            }
            for input in [der.as_slice(), &junk] {
                if let Ok(crl) = CrlView::from_der(input) {
                    let _ = (crl.entries().count(), crl.number_u64(), crl.distribution_points().count());
                    let _ = format!("{crl:?}");
                }
                let _ = run(authority, input);
                let _ = Reader::new(input).value().map(|whole| run(authority, whole.content));
            }
        });
    }
}
