//! A good certificate of each profile breaks nothing; and for every lint there is a certificate, good but for
//! one change, that breaks it. Where one change must break several rules, all of them are named.

use chancery_types::KeyAlgorithm;

use super::*;
use crate::authority::{
    Authority, Held, URLS, birth_of_issuer, names, now, profile, subject_named, trust_domain,
};
use crate::extension::ExtensionKind as Kind;
use crate::general_name::{GeneralName, URI};
use crate::reader::Reader;
use crate::writer::Writer;
use crate::{ExtendedKeyUsage, KeyUsage, KeyUsages, NameConstraints, Subtree, TbsView, extension, oid, tag};

/// A TBSCertificate in pieces that a test can bend.
pub(crate) struct Parts {
    pub(crate) version: Option<u8>,
    serial: Vec<u8>,
    pub(crate) algorithm: Vec<u8>,
    issuer: Vec<u8>,
    not_before: (u8, Vec<u8>),
    not_after: (u8, Vec<u8>),
    pub(crate) subject: Vec<u8>,
    spki: Vec<u8>,
    unique_id: bool,
    pub(crate) extensions: Vec<(Vec<u8>, Criticality, Vec<u8>)>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Criticality {
    No,
    NoWrittenOut,
    Yes,
}

impl Parts {
    pub(crate) fn of(tbs: &[u8]) -> Self {
        let view = TbsView::from_der(tbs).unwrap();
        let mut fields = Reader::single(tbs, tag::SEQUENCE).unwrap().reader();
        for _ in 0..4 {
            fields.value().unwrap();
        }
        let mut validity = fields.sequence().unwrap();
        let mut time = || {
            let value = validity.value().unwrap();
            (value.tag, value.content.to_vec())
        };
        let criticality = |critical| if critical { Criticality::Yes } else { Criticality::No };
        Self {
            version: Some(2),
            serial: view.serial().to_vec(),
            algorithm: view.signature_algorithm_der().to_vec(),
            issuer: view.issuer_der().to_vec(),
            not_before: time(),
            not_after: time(),
            subject: view.subject_der().to_vec(),
            spki: view.spki_der().to_vec(),
            unique_id: false,
            extensions: view
                .extensions()
                .map(|found| (found.oid.to_vec(), criticality(found.critical), found.value.to_vec()))
                .collect(),
        }
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.sequence(|tbs| {
            if let Some(version) = self.version {
                tbs.nested(tag::context_constructed(0), |field| field.unsigned(&[version]));
            }
            tbs.value(tag::INTEGER, &self.serial);
            tbs.raw(&self.algorithm);
            tbs.raw(&self.issuer);
            tbs.sequence(|validity| {
                validity.value(self.not_before.0, &self.not_before.1);
                validity.value(self.not_after.0, &self.not_after.1);
            });
            tbs.raw(&self.subject);
            tbs.raw(&self.spki);
            if self.unique_id {
                tbs.value(tag::context(1), &[0, 1]);
            }
            tbs.nested(tag::context_constructed(3), |explicit| {
                explicit.sequence(|list| {
                    for (oid, critical, value) in &self.extensions {
                        list.sequence(|fields| {
                            fields.oid(oid);
                            if *critical != Criticality::No {
                                fields.boolean(*critical == Criticality::Yes);
                            }
                            fields.octet_string(value);
                        });
                    }
                });
            });
        });
        writer.finish()
    }

    fn place(&mut self, kind: Kind) -> &mut (Vec<u8>, Criticality, Vec<u8>) {
        self.extensions.iter_mut().find(|(oid, ..)| oid == kind.oid()).expect("the extension is there")
    }

    pub(crate) fn set(&mut self, kind: Kind, write: impl FnOnce(&mut Writer)) {
        let value = written(write);
        self.place(kind).2 = value;
    }

    pub(crate) fn add(&mut self, kind: Kind, critical: Criticality, write: impl FnOnce(&mut Writer)) {
        self.extensions.push((kind.oid().to_vec(), critical, written(write)));
    }

    pub(crate) fn remove(&mut self, kind: Kind) {
        self.extensions.retain(|(oid, ..)| oid != kind.oid());
    }

    fn critical(&mut self, kind: Kind, critical: Criticality) {
        self.place(kind).1 = critical;
    }

    fn usages(&mut self, usages: &[KeyUsage]) {
        let usages: KeyUsages = usages.iter().copied().collect();
        self.set(Kind::KeyUsage, |value| value.named_bits(usages.bits()));
    }

    fn purposes(&mut self, purposes: &[ExtendedKeyUsage]) {
        self.set(Kind::ExtendedKeyUsage, |value| extension::write_purposes(value, purposes));
    }

    fn names(&mut self, names: &[GeneralName<'_>]) {
        self.set(Kind::SubjectAltName, |value| {
            value.sequence(|list| names.iter().for_each(|name| name.write(list)));
        });
    }

    fn name_constraints(&mut self, subtrees: &[Subtree]) {
        let constraints = NameConstraints { permitted: subtrees.to_vec(), excluded: Vec::new() };
        self.remove(Kind::NameConstraints);
        self.add(Kind::NameConstraints, Criticality::Yes, |value| constraints.write(value));
    }
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer);
    writer.finish()
}

/// The issuer's certificate without the right to sign CRLs.
pub(crate) fn bent_issuer(authority: &Authority) -> Certificate {
    let mut parts = Parts::of(authority.issuer.certificate.tbs_der());
    parts.usages(&[KeyUsage::KeyCertSign]);
    crate::authority::sign(&authority.root.key, &parts.der())
}

struct Bench {
    authority: Authority,
    good: Vec<(&'static str, Held)>,
}

impl Bench {
    fn new() -> Self {
        let authority = Authority::new(KeyAlgorithm::P256);
        let leaf = |name: &'static str, algorithm, texts: &[&str]| {
            (name, authority.leaf(&profile(name), algorithm, &names(texts)))
        };
        let good = vec![
            leaf("workload", KeyAlgorithm::P256, WORKLOAD_NAMES),
            leaf("server", KeyAlgorithm::Ed25519, &["dns:a.example.org", "dns:localhost", "ip:127.0.0.1"]),
            leaf("client", KeyAlgorithm::P384, &["spiffe://example.org/job", "email:a@example.org"]),
            leaf("device", KeyAlgorithm::P256, &["spiffe://example.org/device/7", "dns:d.example.org"]),
            leaf("node", KeyAlgorithm::P256, &["spiffe://example.org/node/a"]),
            leaf("operator", KeyAlgorithm::P256, &["spiffe://example.org/operator/ada"]),
            leaf("ocsp", KeyAlgorithm::P256, &[]),
        ];
        Self { authority, good }
    }

    fn tbs(&self, name: &str) -> Vec<u8> {
        match name {
            "root" => self.authority.root.certificate.tbs_der().to_vec(),
            "issuer" => self.authority.issuer.certificate.tbs_der().to_vec(),
            leaf => {
                let (_, held) = self.good.iter().find(|(found, _)| *found == leaf).expect("a known leaf");
                held.certificate.tbs_der().to_vec()
            }
        }
    }

    fn run(&self, name: &str, tbs: &[u8]) -> Vec<&'static str> {
        let issuer = match name {
            "issuer" => &self.authority.root.certificate,
            _ => &self.authority.issuer.certificate,
        };
        self.run_below(name, tbs, issuer)
    }

    fn run_below(&self, name: &str, tbs: &[u8], issuer: &Certificate) -> Vec<&'static str> {
        let domain = trust_domain();
        let ids = |findings: Vec<Finding>| findings.into_iter().map(|finding| finding.id).collect();
        if name == "root" {
            return ids(check_root(tbs, &domain, now()));
        }
        let profile = profile(name);
        let subject = match name {
            "issuer" => subject_named("CN=Example Issuer 1,O=Example"),
            _ => subject_named("CN=Example responder,O=Example"),
        };
        // The issuer's certificate is three weeks older than everything else.
        let now = if name == "issuer" { birth_of_issuer(now()) } else { now() };
        ids(check(
            tbs,
            &LintContext {
                profile: &profile,
                issuer,
                trust_domain: &domain,
                now,
                urls: URLS,
                subject: Some(&subject),
            },
        ))
    }
}

const WORKLOAD_NAMES: &[&str] = &["spiffe://example.org/web", "dns:web.example.org", "ip:10.0.0.1"];

#[test]
fn good_certificates_break_nothing() {
    let bench = Bench::new();
    for name in ["root", "issuer", "workload", "server", "client", "device", "node", "operator", "ocsp"] {
        assert_eq!(bench.run(name, &bench.tbs(name)), [""; 0], "{name}");
    }
}

#[test]
fn the_catalogue_is_large_and_its_ids_are_unique() {
    assert!(ALL.len() >= 45, "{}", ALL.len());
    for (index, lint) in ALL.iter().enumerate() {
        assert!(ALL[..index].iter().all(|other| other.id != lint.id), "{} stands twice", lint.id);
        assert!(!lint.source.is_empty());
        assert!(
            lint.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        );
    }
}

#[test]
fn every_lint_fires_on_its_own_fault() {
    let bench = Bench::new();
    let mut failures = Vec::new();
    for (name, bend, expected) in CASES {
        let mut parts = Parts::of(&bench.tbs(name));
        bend(&mut parts);
        let fired = bench.run(name, &parts.der());
        let mut sorted = (fired.clone(), expected.to_vec());
        sorted.0.sort_unstable();
        sorted.1.sort_unstable();
        if sorted.0 != sorted.1 {
            failures.push(format!("{name}: expected {expected:?}, found {fired:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_lint_has_a_case() {
    let covered: Vec<&str> = CASES.iter().map(|(_, _, expected)| expected[0]).chain(ELSEWHERE).collect();
    let missing: Vec<&str> = ALL.iter().map(|lint| lint.id).filter(|id| !covered.contains(id)).collect();
    assert_eq!(missing, [""; 0]);
}

/// Lints that look at the issuer, whose cases need another issuer: the test below.
const ELSEWHERE: [&str; 4] = [
    "x690_structure",
    "rfc5280_issuer_may_sign",
    "rfc5280_path_length_of_issuer",
    "rfc5280_names_permitted_by_issuer",
];

#[test]
fn faults_of_the_issuer_are_found() {
    let bench = Bench::new();
    let issuer = &bench.authority.issuer;
    let bent = |bend: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::of(issuer.certificate.tbs_der());
        bend(&mut parts);
        crate::authority::sign(&bench.authority.root.key, &parts.der())
    };
    let workload = bench.tbs("workload");
    let run = |issuer: &Certificate| bench.run_below("workload", &workload, issuer);

    assert_eq!(run(&bent(&|parts| parts.usages(&[KeyUsage::CrlSign]))), ["rfc5280_issuer_may_sign"]);
    assert_eq!(run(&bent(&|parts| parts.remove(Kind::BasicConstraints))), ["rfc5280_issuer_may_sign"]);
    for subtree in [
        Subtree::Dns("example.com".into()),
        Subtree::Ip("11.0.0.0/8".parse().unwrap()),
        Subtree::Uri("example.com".into()),
    ] {
        let narrow = bent(&|parts| parts.name_constraints(std::slice::from_ref(&subtree)));
        assert_eq!(run(&narrow), ["rfc5280_names_permitted_by_issuer"], "{subtree:?}");
    }

    let with_path = |length: Option<u8>| {
        bent(&|parts| {
            parts.set(Kind::BasicConstraints, |value| {
                crate::BasicConstraints { is_authority: true, path_length: length }.write(value);
            });
        })
    };
    let below = |length| bench.run_below("issuer", &bench.tbs("issuer"), &with_path(length));
    assert!(!below(Some(1)).contains(&"rfc5280_path_length_of_issuer"));
    assert!(!below(None).contains(&"rfc5280_path_length_of_issuer"));
    assert!(below(Some(0)).contains(&"rfc5280_path_length_of_issuer"));
}

#[test]
fn bytes_that_cannot_be_read_are_one_finding() {
    let bench = Bench::new();
    let good = bench.tbs("workload");
    let mut trailing = good.clone();
    trailing.push(0);
    let mut broken_extension = Parts::of(&good);
    broken_extension.set(Kind::KeyUsage, |value| value.null());
    for tbs in [&[][..], &good[..good.len() - 1], &trailing, &broken_extension.der()] {
        assert_eq!(bench.run("workload", tbs), ["x690_structure"]);
    }
}

#[test]
fn a_finding_says_what_where_and_why() {
    let bench = Bench::new();
    let mut parts = Parts::of(&bench.tbs("workload"));
    parts.version = Some(0);
    let domain = trust_domain();
    let findings = check_root(&parts.der(), &domain, now());
    let version = findings.iter().find(|finding| finding.id == "rfc5280_version_3").unwrap();
    assert!(version.is_error());
    assert_eq!(version.to_string(), "rfc5280_version_3 (RFC 5280 4.1.2.1): version 1");
}

proptest::proptest! {
    #[test]
    fn one_changed_byte_never_panics(place in 0_usize..900, value: u8) {
        thread_local!(static BENCH: Bench = Bench::new());
        BENCH.with(|bench| {
            for name in ["workload", "issuer", "root"] {
                let mut tbs = bench.tbs(name);
                if let Some(byte) = tbs.get_mut(place) {
                    *byte = value;
                }
                let _ = bench.run(name, &tbs);
            }
        });
    }
}

type Case = (&'static str, fn(&mut Parts), &'static [&'static str]);

/// Profile, change, and the lints that then fire; the first is the one that the case is about.
const CASES: &[Case] = &[
    ("workload", |p| p.critical(Kind::SubjectKeyId, Criticality::NoWrittenOut), &["x690_canonical"]),
    (
        "workload",
        |p| p.set(Kind::KeyUsage, |value| value.value(tag::BIT_STRING, &[0, 0x80])),
        &["x690_canonical"],
    ),
    ("workload", |p| p.version = None, &["rfc5280_version_3"]),
    ("workload", |p| p.version = Some(0), &["rfc5280_version_3", "x690_canonical"]),
    ("workload", |p| p.serial = vec![0x81; 17], &["rfc5280_serial_positive", "cabf_serial_entropy"]),
    ("root", |p| p.serial = vec![0], &["rfc5280_serial_positive"]),
    ("workload", |p| p.serial.extend([1; 4]), &["rfc5280_serial_at_most_20_octets", "cabf_serial_entropy"]),
    (
        "workload",
        |p| p.algorithm = chancery_types::SignatureAlgorithm::Ed25519.algorithm_identifier().to_vec(),
        &["rfc5280_signature_fits_issuer_key"],
    ),
    (
        "workload",
        |p| p.algorithm = vec![0x30, 5, 6, 3, 0x2b, 0x65, 0x71],
        &["rfc5280_signature_fits_issuer_key"],
    ),
    (
        "workload",
        |p| p.issuer = vec![tag::SEQUENCE, 0],
        &["rfc5280_issuer_not_empty", "rfc5280_issuer_is_subject_of_issuer"],
    ),
    (
        "workload",
        |p| p.issuer = subject_named("CN=Somebody else").der().to_vec(),
        &["rfc5280_issuer_is_subject_of_issuer"],
    ),
    ("workload", |p| p.not_after.1 = b"261121110000Z".to_vec(), &["rfc5280_validity_order"]),
    (
        "workload",
        |p| p.not_after = (tag::GENERALIZED_TIME, b"20261121130000Z".to_vec()),
        &["rfc5280_time_form"],
    ),
    ("root", |p| p.not_before = (tag::GENERALIZED_TIME, b"20260101000000Z".to_vec()), &["rfc5280_time_form"]),
    (
        "workload",
        |p| p.not_after.1 = b"270601000000Z".to_vec(),
        &["rfc5280_within_life_of_issuer", "own_lifetime"],
    ),
    (
        "issuer",
        |p| p.not_before.1 = b"250101000000Z".to_vec(),
        &["rfc5280_within_life_of_issuer", "cabf_not_backdated", "own_lifetime"],
    ),
    ("workload", |p| p.unique_id = true, &["rfc5280_no_unique_ids"]),
    ("workload", |p| p.extensions.push(p.extensions[0].clone()), &["rfc5280_no_repeated_extension"]),
    ("workload", |p| p.remove(Kind::AuthorityKeyId), &["rfc5280_aki_present", "own_extension_set"]),
    ("workload", |p| p.set(Kind::AuthorityKeyId, |value| value.sequence(|_| ())), &["rfc5280_aki_present"]),
    (
        "workload",
        |p| p.set(Kind::AuthorityKeyId, |value| extension::AuthorityKeyId::write(value, &[7; 20])),
        &["rfc5280_aki_is_ski_of_issuer"],
    ),
    ("workload", |p| p.critical(Kind::AuthorityKeyId, Criticality::Yes), &["rfc5280_aki_not_critical"]),
    ("workload", |p| p.remove(Kind::SubjectKeyId), &["rfc5280_ski_present", "own_extension_set"]),
    ("workload", |p| p.critical(Kind::SubjectKeyId, Criticality::Yes), &["rfc5280_ski_not_critical"]),
    (
        "workload",
        |p| p.set(Kind::SubjectKeyId, |value| value.octet_string(&[7; 20])),
        &["rfc7093_ski_of_key"],
    ),
    (
        "workload",
        |p| p.remove(Kind::KeyUsage),
        &["rfc5280_key_usage_present", "own_key_usage", "own_extension_set"],
    ),
    ("workload", |p| p.critical(Kind::KeyUsage, Criticality::No), &["rfc5280_key_usage_critical"]),
    (
        "workload",
        |p| p.usages(&[]),
        &[
            "rfc5280_key_usage_not_empty",
            "rfc5280_eku_fits_key_usage",
            "spiffe_leaf_digital_signature",
            "own_key_usage",
        ],
    ),
    (
        "workload",
        |p| p.usages(&[KeyUsage::DigitalSignature, KeyUsage::KeyEncipherment]),
        &["rfc5280_key_usage_fits_key", "own_key_usage"],
    ),
    (
        "server",
        |p| p.usages(&[KeyUsage::DigitalSignature, KeyUsage::KeyAgreement]),
        &["rfc5280_key_usage_fits_key", "own_key_usage"],
    ),
    (
        "workload",
        |p| p.usages(&[KeyUsage::DigitalSignature, KeyUsage::DecipherOnly]),
        &["rfc5280_only_bits_need_key_agreement", "own_key_usage"],
    ),
    (
        "workload",
        |p| p.usages(&[KeyUsage::DigitalSignature, KeyUsage::KeyCertSign]),
        &["rfc5280_cert_sign_needs_ca", "own_key_usage"],
    ),
    ("issuer", |p| p.usages(&[KeyUsage::CrlSign]), &["rfc5280_ca_needs_cert_sign", "own_key_usage"]),
    (
        "issuer",
        |p| p.critical(Kind::BasicConstraints, Criticality::No),
        &["rfc5280_basic_constraints_critical"],
    ),
    (
        "workload",
        |p| {
            p.add(Kind::BasicConstraints, Criticality::Yes, |value| {
                value.sequence(|fields| fields.unsigned(&[0]));
            });
        },
        &["rfc5280_path_length_needs_ca", "own_basic_constraints", "own_extension_set"],
    ),
    ("workload", |p| p.purposes(&[]), &["rfc5280_eku_not_empty", "own_extended_key_usage"]),
    (
        "client",
        |p| p.usages(&[KeyUsage::ContentCommitment]),
        &["rfc5280_eku_fits_key_usage", "spiffe_leaf_digital_signature", "own_key_usage"],
    ),
    (
        "workload",
        |p| p.remove(Kind::SubjectAltName),
        &["rfc5280_name_somewhere", "own_names", "own_extension_set"],
    ),
    (
        "issuer",
        |p| {
            p.subject = vec![tag::SEQUENCE, 0];
            p.critical(Kind::SubjectAltName, Criticality::Yes);
        },
        &["rfc5280_ca_subject_not_empty", "own_subject"],
    ),
    (
        "workload",
        |p| p.critical(Kind::SubjectAltName, Criticality::No),
        &["rfc5280_san_critical_if_subject_empty"],
    ),
    (
        "server",
        |p| p.critical(Kind::SubjectAltName, Criticality::Yes),
        &["rfc5280_san_not_critical_beside_subject"],
    ),
    ("workload", |p| p.names(&[]), &["rfc5280_san_not_empty", "own_names"]),
    (
        "workload",
        |p| p.names(&[GeneralName::Uri("spiffe://example.org/web"), GeneralName::Dns("")]),
        &["rfc5280_san_not_empty", "rfc5280_names_permitted_by_issuer", "own_names"],
    ),
    (
        "workload",
        |p| p.names(&[GeneralName::Uri("spiffe://example.org/web"), GeneralName::Dns("a_b.example.org")]),
        &["rfc5280_san_dns_syntax", "own_names"],
    ),
    (
        "workload",
        |p| p.names(&[GeneralName::Uri("spiffe://example.org/web"), GeneralName::Dns("Web.example.org")]),
        &["rfc5280_san_dns_syntax"],
    ),
    (
        "workload",
        |p| p.names(&[GeneralName::Uri("spiffe://example.org/web"), GeneralName::Ip(&[10, 0, 0])]),
        &["rfc5280_san_ip_length", "own_names", "rfc5280_names_permitted_by_issuer"],
    ),
    ("workload", |p| p.names(&[GeneralName::Uri("web")]), &["rfc5280_san_uri_absolute", "own_names"]),
    (
        "client",
        |p| p.names(&[GeneralName::Uri("spiffe://example.org/job"), GeneralName::Email("a@b@example.org")]),
        &["rfc5280_san_email_syntax", "own_names"],
    ),
    (
        "client",
        |p| p.names(&[GeneralName::Uri("spiffe://example.org/job"), GeneralName::Email("a@Example.org")]),
        &["rfc5280_san_email_syntax"],
    ),
    (
        "workload",
        |p| p.name_constraints(&[Subtree::Dns("example.org".into())]),
        &["rfc5280_name_constraints_need_ca", "own_name_constraints", "own_extension_set"],
    ),
    (
        "issuer",
        |p| p.critical(Kind::NameConstraints, Criticality::No),
        &["rfc5280_name_constraints_critical"],
    ),
    (
        "issuer",
        |p| p.set(Kind::NameConstraints, |value| value.sequence(|_| ())),
        &["rfc5280_name_constraints_not_empty", "own_name_constraints"],
    ),
    (
        "workload",
        |p| p.critical(Kind::CrlDistributionPoints, Criticality::Yes),
        &["rfc5280_crldp_not_critical"],
    ),
    (
        "workload",
        |p| {
            p.set(Kind::CrlDistributionPoints, |value| {
                value.sequence(|points| {
                    points.sequence(|point| {
                        extension::write_full_name(point, URLS.crl.into_iter());
                        point.value(tag::context(1), &[1, 2]);
                    });
                });
            });
        },
        &["rfc5280_crldp_full_name"],
    ),
    (
        "workload",
        |p| p.set(Kind::CrlDistributionPoints, |value| value.sequence(|_| ())),
        &["rfc5280_crldp_full_name", "own_crl_url"],
    ),
    (
        "workload",
        |p| {
            p.set(Kind::CrlDistributionPoints, |value| {
                extension::write_distribution_points(value, ["ldap://x/y"].into_iter());
            });
        },
        &["rfc5280_crldp_http", "own_crl_url"],
    ),
    ("workload", |p| p.critical(Kind::AuthorityInfoAccess, Criticality::Yes), &["rfc5280_aia_not_critical"]),
    (
        "workload",
        |p| {
            p.set(Kind::AuthorityInfoAccess, |value| {
                let access = [
                    (oid::ACCESS_OCSP, URLS.ocsp.unwrap()),
                    (oid::ACCESS_CA_ISSUERS, URLS.ca_issuers.unwrap()),
                    (oid::OCSP_BASIC, "http:///nowhere"),
                ];
                extension::write_access(value, access.into_iter());
            });
        },
        &["rfc5280_aia_http"],
    ),
    (
        "workload",
        |p| p.names(&[GeneralName::Uri("spiffe://example.org/a//b")]),
        &["spiffe_id_valid", "own_names"],
    ),
    ("workload", |p| p.names(&[GeneralName::Uri("spiffe://Example.org/web")]), &["spiffe_id_valid"]),
    (
        "workload",
        |p| {
            p.names(&[
                GeneralName::Uri("spiffe://example.org/web"),
                GeneralName::Uri("spiffe://example.org/db"),
            ]);
        },
        &["spiffe_one_uri", "own_names"],
    ),
    (
        "workload",
        |p| p.names(&[GeneralName::Uri("spiffe://other.org/web")]),
        &["spiffe_trust_domain", "own_names"],
    ),
    (
        "workload",
        |p| p.names(&[GeneralName::Uri("spiffe://example.org")]),
        &["spiffe_leaf_has_path", "own_names"],
    ),
    (
        "issuer",
        |p| p.names(&[GeneralName::Uri("spiffe://example.org/issuer")]),
        &["spiffe_issuer_has_no_path"],
    ),
    (
        "workload",
        |p| p.usages(&[KeyUsage::KeyAgreement]),
        &["spiffe_leaf_digital_signature", "own_key_usage"],
    ),
    (
        "workload",
        |p| p.usages(&[KeyUsage::DigitalSignature, KeyUsage::CrlSign]),
        &["spiffe_leaf_no_crl_sign", "own_key_usage"],
    ),
    (
        "workload",
        |p| p.purposes(&[ExtendedKeyUsage::ClientAuth]),
        &["spiffe_both_tls_purposes", "own_extended_key_usage"],
    ),
    ("workload", |p| p.serial = vec![0x02; 17], &["cabf_serial_entropy"]),
    ("workload", |p| p.serial[9..].fill(0), &["cabf_serial_entropy"]),
    ("workload", |p| p.not_before.1 = b"261121115859Z".to_vec(), &["cabf_not_backdated"]),
    ("workload", |p| p.not_before.1 = b"261121120001Z".to_vec(), &["cabf_not_in_the_future"]),
    (
        "server",
        |p| p.subject = subject_named("CN=b.example.org").der().to_vec(),
        &["cabf_common_name_among_names"],
    ),
    (
        "workload",
        |p| {
            let dns = GeneralName::Dns("web.example.org");
            p.names(&[GeneralName::Uri("spiffe://example.org/web"), dns, dns]);
        },
        &["cabf_no_repeated_name", "own_names"],
    ),
    (
        "workload",
        |p| {
            let key_id =
                Reader::single(&p.place(Kind::AuthorityKeyId).2, tag::SEQUENCE).unwrap().content.to_vec();
            p.set(Kind::AuthorityKeyId, |value| {
                value.sequence(|fields| {
                    fields.raw(&key_id);
                    fields.value(tag::context(2), &[5]);
                });
            });
        },
        &["cabf_aki_key_id_only"],
    ),
    (
        "workload",
        |p| {
            p.set(Kind::ExtendedKeyUsage, |value| {
                value.sequence(|list| {
                    list.oid(ExtendedKeyUsage::ServerAuth.oid());
                    list.oid(ExtendedKeyUsage::ClientAuth.oid());
                    list.oid(&[0x55, 0x1d, 37, 0]);
                });
            });
        },
        &["cabf_no_any_purpose", "own_extended_key_usage"],
    ),
    (
        "issuer",
        |p| p.add(Kind::NoRevAvail, Criticality::No, |value| value.null()),
        &["rfc9608_not_on_ca", "own_extension_set"],
    ),
    (
        "workload",
        |p| {
            p.remove(Kind::AuthorityInfoAccess);
            p.add(Kind::NoRevAvail, Criticality::No, |value| value.null());
        },
        &["rfc9608_no_crldp_beside", "own_extension_set", "own_ocsp_url", "own_ca_issuers_url"],
    ),
    (
        "workload",
        |p| {
            p.remove(Kind::CrlDistributionPoints);
            p.add(Kind::NoRevAvail, Criticality::No, |value| value.null());
        },
        &["rfc9608_no_ocsp_beside", "own_extension_set", "own_crl_url"],
    ),
    (
        "ocsp",
        |p| p.add(Kind::NoRevAvail, Criticality::Yes, |value| value.null()),
        &["rfc9608_not_critical", "own_extension_set"],
    ),
    (
        "workload",
        |p| p.add(Kind::OcspNoCheck, Criticality::No, |value| value.null()),
        &["rfc6960_nocheck_on_responders_only", "own_extension_set"],
    ),
    ("ocsp", |p| p.critical(Kind::OcspNoCheck, Criticality::Yes), &["rfc6960_nocheck_not_critical"]),
    (
        "ocsp",
        |p| p.purposes(&[ExtendedKeyUsage::OcspSigning, ExtendedKeyUsage::ClientAuth]),
        &["rfc6960_ocsp_signing_alone", "own_extended_key_usage"],
    ),
    (
        "operator",
        |p| {
            let rsa = include_bytes!("../../tests/fixtures/keys/rsa2048.pem");
            let rsa = crate::SubjectKey::from_pkcs8_pem(rsa).unwrap();
            p.spki = rsa.public_key().spki_der().to_vec();
            let key_id = rsa.public_key().key_identifier();
            p.set(Kind::SubjectKeyId, |value| value.octet_string(&key_id));
        },
        &["own_key_algorithm"],
    ),
    (
        "workload",
        |p| p.usages(&[KeyUsage::DigitalSignature, KeyUsage::ContentCommitment]),
        &["own_key_usage"],
    ),
    (
        "workload",
        |p| p.purposes(&[ExtendedKeyUsage::ClientAuth, ExtendedKeyUsage::ServerAuth]),
        &["own_extended_key_usage"],
    ),
    ("workload", |p| p.critical(Kind::ExtendedKeyUsage, Criticality::Yes), &["own_extended_key_usage"]),
    ("workload", |p| p.not_after.1 = b"261122120001Z".to_vec(), &["own_lifetime"]),
    ("server", |p| p.subject = subject_named("CN=a.example.org,O=Example").der().to_vec(), &["own_subject"]),
    ("ocsp", |p| p.subject = subject_named("CN=Somebody").der().to_vec(), &["own_subject"]),
    (
        "workload",
        |p| p.names(&[GeneralName::Uri("spiffe://example.org/web"), GeneralName::Dns("*.example.org")]),
        &["own_names"],
    ),
    (
        "ocsp",
        |p| {
            p.add(Kind::SubjectAltName, Criticality::No, |value| {
                value.sequence(|list| list.value(URI, b"spiffe://example.org/x"));
            });
        },
        &["own_names", "own_extension_set"],
    ),
    (
        "issuer",
        |p| p.set(Kind::BasicConstraints, |value| value.sequence(|fields| fields.boolean(true))),
        &["own_basic_constraints"],
    ),
    ("issuer", |p| p.name_constraints(&[Subtree::Dns("example.com".into())]), &["own_name_constraints"]),
    (
        "workload",
        |p| p.extensions.push((oid::CERTIFICATE_POLICIES.to_vec(), Criticality::No, vec![0x30, 0])),
        &["own_extension_set"],
    ),
    (
        "workload",
        |p| {
            p.set(Kind::CrlDistributionPoints, |value| {
                extension::write_distribution_points(value, ["http://elsewhere.example/crl"].into_iter());
            });
        },
        &["own_crl_url"],
    ),
    (
        "workload",
        |p| {
            p.set(Kind::AuthorityInfoAccess, |value| {
                extension::write_access(
                    value,
                    [(oid::ACCESS_CA_ISSUERS, URLS.ca_issuers.unwrap())].into_iter(),
                );
            });
        },
        &["own_ocsp_url"],
    ),
    (
        "workload",
        |p| {
            p.set(Kind::AuthorityInfoAccess, |value| {
                extension::write_access(value, [(oid::ACCESS_OCSP, URLS.ocsp.unwrap())].into_iter());
            });
        },
        &["own_ca_issuers_url"],
    ),
    ("root", |p| p.issuer = subject_named("CN=Somebody else").der().to_vec(), &["own_root_self_issued"]),
];
