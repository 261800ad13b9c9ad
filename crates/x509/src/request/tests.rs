use chancery_types::KeyAlgorithm;
use proptest::prelude::*;

use super::*;
use crate::general_name::write_subject_name;
use crate::writer::Writer;
use crate::{DistinguishedName, SubjectKey};

/// A signed request with whatever these closures write: the attributes, or the list of extensions.
struct Forge {
    key: SubjectKey,
    subject: Vec<u8>,
    version: Vec<u8>,
}

impl Forge {
    fn new() -> Self {
        Self {
            key: SubjectKey::generate(KeyAlgorithm::P256).unwrap(),
            subject: DistinguishedName::common_name("web").unwrap().der().to_vec(),
            version: vec![0],
        }
    }

    fn with_subject(&self, name: impl FnOnce(&mut Writer)) -> Result<CertificateRequest, RequestError> {
        let mut writer = Writer::default();
        writer.sequence(name);
        let forge = Self { subject: writer.finish(), ..Self::new() };
        forge.with_attributes(|_| {})
    }

    fn with_attributes(&self, write: impl FnOnce(&mut Writer)) -> Result<CertificateRequest, RequestError> {
        CertificateRequest::from_der(&self.der(write))
    }

    fn der(&self, attributes: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut info = Writer::default();
        info.sequence(|info| {
            info.unsigned(&self.version);
            info.raw(&self.subject);
            info.raw(self.key.public_key().spki_der());
            info.nested(0xa0, attributes);
        });
        let info = info.finish();
        let signature = self.key.sign(&info).unwrap();
        let mut request = Writer::default();
        request.sequence(|request| {
            request.raw(&info);
            request.raw(self.key.signature_algorithm().algorithm_identifier());
            request.bit_string(&signature);
        });
        request.finish()
    }

    fn with_extensions(&self, write: impl FnOnce(&mut Writer)) -> Result<CertificateRequest, RequestError> {
        self.with_attributes(|attributes| {
            attribute(attributes, EXTENSION_REQUEST, |values| values.sequence(write));
        })
    }

    fn with_extension(&self, kind: &[u8], value: &[u8]) -> Result<CertificateRequest, RequestError> {
        self.with_extensions(|list| extension(list, kind, None, value))
    }

    /// A subjectAltName of these values.
    fn with_names(&self, write: impl FnOnce(&mut Writer)) -> Result<CertificateRequest, RequestError> {
        let mut names = Writer::default();
        names.sequence(write);
        self.with_extension(oid::SUBJECT_ALT_NAME, &names.finish())
    }
}

fn attribute(attributes: &mut Writer, kind: &[u8], values: impl FnOnce(&mut Writer)) {
    attributes.sequence(|attribute| {
        attribute.oid(kind);
        attribute.nested(tag::SET, values);
    });
}

fn extension(list: &mut Writer, kind: &[u8], critical: Option<bool>, value: &[u8]) {
    list.sequence(|extension| {
        extension.oid(kind);
        if let Some(critical) = critical {
            extension.boolean(critical);
        }
        extension.octet_string(value);
    });
}

fn common_name(name: &mut Writer, string: u8, text: &[u8]) {
    name.nested(tag::SET, |set| {
        set.sequence(|pair| {
            pair.oid(&[0x55, 4, 3]);
            pair.value(string, text);
        });
    });
}

#[test]
fn refuses_another_version() {
    for (version, shown) in [(vec![1], 1), (vec![2], 2), (vec![0xff, 0xff], 65535)] {
        let forge = Forge { version, ..Forge::new() };
        assert_eq!(forge.with_attributes(|_| {}).unwrap_err(), RequestError::Version(shown));
    }
}

#[test]
fn refuses_repeated_attributes_and_extensions() {
    let forge = Forge::new();
    let error = forge
        .with_attributes(|attributes| {
            for _ in 0..2 {
                attribute(attributes, EXTENSION_REQUEST, |values| values.sequence(|_| {}));
            }
        })
        .unwrap_err();
    assert_eq!(error, RequestError::AttributeRepeated("1.2.840.113549.1.9.14".to_owned()));
    for kind in [oid::KEY_USAGE, oid::SUBJECT_KEY_ID] {
        let error = forge
            .with_extensions(|list| {
                for _ in 0..2 {
                    extension(list, kind, None, &[3, 2, 7, 0x80]);
                }
            })
            .unwrap_err();
        assert_eq!(error, RequestError::ExtensionRepeated(oid::dotted(kind)));
    }
}

#[test]
fn refuses_an_extension_request_without_exactly_one_value() {
    let forge = Forge::new();
    for count in [0, 2] {
        let error = forge
            .with_attributes(|attributes| {
                attribute(attributes, EXTENSION_REQUEST, |values| {
                    for _ in 0..count {
                        values.sequence(|_| {});
                    }
                });
            })
            .unwrap_err();
        assert_eq!(error, RequestError::ExtensionRequestValues);
    }
}

#[test]
fn refuses_critical_extensions_that_it_does_not_know() {
    let forge = Forge::new();
    for kind in [oid::SUBJECT_KEY_ID, oid::NAME_CONSTRAINTS, &[0x2b, 6, 1]] {
        let error = forge.with_extensions(|list| extension(list, kind, Some(true), &[5, 0])).unwrap_err();
        assert_eq!(error, RequestError::ExtensionCritical(oid::dotted(kind)));
        let request = forge.with_extension(kind, &[5, 0]).unwrap();
        assert_eq!(request.ignored(), [Ignored::Extension(oid::dotted(kind))]);
    }
    let request =
        forge.with_extensions(|list| extension(list, oid::KEY_USAGE, Some(true), &[3, 2, 7, 0x80])).unwrap();
    assert!(request.extensions()[0].critical);
}

#[test]
fn refuses_a_default_value_that_is_written_out() {
    let forge = Forge::new();
    let error = forge
        .with_extensions(|list| extension(list, oid::KEY_USAGE, Some(false), &[3, 2, 7, 0x80]))
        .unwrap_err();
    assert!(matches!(error, RequestError::Der(DerError::Value { .. })), "{error}");
    let error = forge.with_extension(oid::BASIC_CONSTRAINTS, &[0x30, 3, 1, 1, 0]).unwrap_err();
    assert!(matches!(error, RequestError::Extension { .. }), "{error}");
}

#[test]
fn refuses_malformed_extensions_that_it_knows() {
    let forge = Forge::new();
    for (kind, values) in [
        (
            oid::BASIC_CONSTRAINTS,
            &[&[][..], &[5, 0], &[0x30, 0, 0], &[0x30, 3, 2, 1, 0x80], &[0x30, 3, 1, 1, 1]][..],
        ),
        (
            oid::KEY_USAGE,
            &[&[][..], &[3, 0], &[3, 2, 8, 0], &[3, 2, 1, 0xff], &[3, 2, 0, 1, 0], &[3, 5, 0, 0, 0, 0, 1]],
        ),
        (
            oid::EXTENDED_KEY_USAGE,
            &[&[][..], &[0x30, 0], &[0x30, 2, 5, 0], &[0x30, 2, 6, 0], &[0x30, 3, 6, 1, 0x80]],
        ),
        (
            oid::SUBJECT_ALT_NAME,
            &[&[][..], &[0x30, 0], &[5, 0], &[0x30, 2, 0x82], &[0x30, 2, 0x89, 0], &[0x30, 4, 0x30, 2, 5, 0]],
        ),
    ] {
        for value in values {
            let error = forge.with_extension(kind, value).unwrap_err();
            assert!(
                matches!(&error, RequestError::Extension { extension, .. } if *extension == oid::dotted(kind)),
                "{kind:02x?} {value:02x?} {error}"
            );
        }
    }
}

#[test]
fn refuses_malformed_names_and_says_which() {
    let forge = Forge::new();
    for (tag, content, shown) in [
        (0x82, &b""[..], "requested name number 2 is malformed: \"\" is not a DNS name: empty"),
        (0x82, b"a b", "requested name number 2 is malformed: \"a b\" is not a DNS name"),
        (0x82, b"10.0.0.1", "requested name number 2 is malformed: \"10.0.0.1\" is not a DNS name"),
        (0x82, b"a.example\0.evil.example", "requested name number 2 is malformed: \"a.example\\0.evil"),
        (0x81, b"nobody", "requested name number 2 is malformed: \"nobody\" is not an email address"),
        (0x86, b"spiffe://e/../x", "requested name number 2 is malformed: \"spiffe://e/../x\" is not"),
        (0x86, b"/relative", "requested name number 2 is malformed: \"/relative\" is not an absolute URI"),
        (
            0x87,
            &[10, 0, 0],
            "requested name number 2 is malformed: an iPAddress has 4 or 16 bytes, this has 3",
        ),
        (0x87, &[10, 0, 0, 0, 255, 0, 0, 0], "requested name number 2 is malformed: an iPAddress has"),
        (0x82, "b\u{fc}cher.example".as_bytes(), "requested extension 2.5.29.17 is malformed"),
    ] {
        let error = forge
            .with_names(|names| {
                write_subject_name(names, &"dns:good.example".parse().unwrap());
                names.value(tag, content);
            })
            .unwrap_err();
        assert!(error.to_string().starts_with(shown), "{error}");
    }
}

#[test]
fn reports_name_kinds_that_are_not_certified_once() {
    let request = Forge::new()
        .with_names(|names| {
            for tag in [0xa0, 0xa3, 0xa5, 0x88, 0xa0] {
                names.value(tag, &[]);
            }
            names.value(0xa4, &[0x30, 0]);
        })
        .unwrap();
    let kinds: Vec<_> = request.ignored().iter().map(ToString::to_string).collect();
    let expected = ["otherName", "x400Address", "ediPartyName", "registeredID", "directoryName"];
    assert_eq!(kinds, expected.map(|kind| format!("subjectAltName of kind {kind}")));
    assert!(request.names().is_empty());
}

#[test]
fn refuses_common_names_that_cannot_be_shown() {
    let forge = Forge::new();
    for (string, text) in [
        (tag::UTF8_STRING, &b"a\nb"[..]),
        (tag::UTF8_STRING, b"a\0b"),
        (tag::UTF8_STRING, b"\xff"),
        (tag::UTF8_STRING, b""),
        (tag::PRINTABLE_STRING, b"a@b"),
        (tag::IA5_STRING, "\u{e4}".as_bytes()),
        (0x14, b"teletex"),
        (0x1e, b"\0b"),
    ] {
        let error = forge.with_subject(|name| common_name(name, string, text)).unwrap_err();
        assert_eq!(error, RequestError::CommonNameText, "{string} {text:?}");
    }
    let error = forge
        .with_subject(|name| {
            name.nested(tag::SET, |set| {
                for text in [b"a", b"b"] {
                    set.sequence(|pair| {
                        pair.oid(&[0x55, 4, 3]);
                        pair.value(tag::UTF8_STRING, text);
                    });
                }
            });
        })
        .unwrap_err();
    assert_eq!(error, RequestError::CommonNameRepeated);
    let error = forge.with_subject(|name| name.nested(tag::SET, |_| {})).unwrap_err();
    assert!(matches!(error, RequestError::Subject(_)), "{error}");
    for (string, text) in
        [(tag::PRINTABLE_STRING, "a b"), (tag::IA5_STRING, "a@b"), (tag::UTF8_STRING, "\u{e4}")]
    {
        let request = forge.with_subject(|name| common_name(name, string, text.as_bytes())).unwrap();
        assert_eq!(request.subject().common_name(), Some(text));
    }
}

#[test]
fn refuses_more_than_any_certificate_needs() {
    let forge = Forge::new();
    let too_many = |error: RequestError, expected: &str| assert_eq!(error.to_string(), expected);
    let error = forge
        .with_names(|names| (0..=128_u8).for_each(|number| names.value(0x87, &[10, 0, 0, number])))
        .unwrap_err();
    too_many(error, "the request has more than 128 requested names");
    let error = forge
        .with_extensions(|list| (0..=32).for_each(|number| extension(list, &[0x2b, number], None, &[])))
        .unwrap_err();
    too_many(error, "the request has more than 32 requested extensions");
    let error = forge
        .with_attributes(|list| (0..=16).for_each(|number| attribute(list, &[0x2b, number], |_| {})))
        .unwrap_err();
    too_many(error, "the request has more than 16 attributes");
    let mut purposes = Writer::default();
    purposes.sequence(|list| (0..=32).for_each(|number| list.oid(&[0x2b, number])));
    let error = forge.with_extension(oid::EXTENDED_KEY_USAGE, &purposes.finish()).unwrap_err();
    assert!(matches!(error, RequestError::Extension { .. }), "{error}");

    let length = MAX_REQUEST + 1;
    for bytes in [vec![0x30; length], vec![b'-'; length]] {
        let expected = RequestError::TooLong { length, limit: MAX_REQUEST };
        assert_eq!(CertificateRequest::from_der(&bytes).unwrap_err(), expected);
        assert_eq!(CertificateRequest::from_pem_or_der(&bytes).unwrap_err(), expected);
    }
}

#[test]
fn refuses_text_that_is_not_a_request() {
    for (text, shown) in [
        (&b""[..], "the request is not PEM: no -----BEGIN CERTIFICATE REQUEST----- line was found"),
        (b"0 hello", "the request is not PEM: no -----BEGIN"),
        (b"\x30\x82\xff", "the request is not DER PKCS #10 (byte 0: the value ends after the input does)"),
        (
            b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
            "the request is not PEM: line 1: a CERTIFICATE REQUEST was expected here, this is a CERTIFICATE",
        ),
    ] {
        let error = CertificateRequest::from_pem_or_der(text).unwrap_err();
        assert!(error.to_string().starts_with(shown), "{error}");
    }
}

#[test]
fn refuses_a_signature_by_another_key() {
    let (mine, other) = (Forge::new(), Forge::new());
    let mut der = mine.der(|_| {});
    let theirs = other.key.public_key().spki_der();
    let place =
        der.windows(theirs.len()).position(|window| window == mine.key.public_key().spki_der()).unwrap();
    der[place..place + theirs.len()].copy_from_slice(theirs);
    let request = CertificateRequest::from_der(&der).unwrap();
    assert_eq!(request.public_key(), other.key.public_key());
    assert_eq!(request.verify().unwrap_err(), RequestError::Possession(SignatureError::Invalid));
}

#[test]
fn a_batch_vouched_for_by_an_agent_says_so() {
    use crate::Possession;
    use chancery_types::Digest;
    let evidence = Digest::of(b"evidence");
    let forge = Forge::new();
    let key = forge.key.public_key();
    let request = forge.with_names(|names| names.value(0x82, b"a.example")).unwrap();
    let names = request.names().to_vec();
    let whole = ProvenRequest::dangerous_request_vouched_by_attested_agent(request.clone(), evidence);
    let bare = ProvenRequest::dangerous_key_vouched_by_attested_agent(key.clone(), names.clone(), evidence);
    for proven in [&whole, &bare] {
        assert_eq!(proven.possession(), Possession::VouchedByAgent { evidence });
        assert_eq!((proven.public_key(), proven.names()), (key, &names[..]));
        assert!(proven.ignored().is_empty() && !proven.asks_for_ca());
    }
    assert_eq!((whole.request(), bare.request()), (Some(&request), None));
}

#[test]
fn deep_nesting_and_huge_lengths_are_refused() {
    let mut nested = Vec::new();
    for _ in 0..MAX_REQUEST / 2 {
        nested.extend([0x30, 0x80]);
    }
    assert!(matches!(
        CertificateRequest::from_der(&nested),
        Err(RequestError::Der(DerError::Length { at: 0 }))
    ));
    let mut proper = Vec::new();
    for _ in 0..8000 {
        let mut writer = Writer::default();
        writer.nested(0x30, |inner| inner.raw(&proper));
        proper = writer.finish();
    }
    assert!(matches!(CertificateRequest::from_der(&proper), Err(RequestError::Der(_))));
    for huge in [
        &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff][..],
        &[0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert!(matches!(CertificateRequest::from_der(huge), Err(RequestError::Der(_))));
    }
}

fn samples() -> Vec<Vec<u8>> {
    let fixtures: [&[u8]; 4] = [
        include_bytes!("../../tests/fixtures/requests/p256.pem"),
        include_bytes!("../../tests/fixtures/requests/usages.pem"),
        include_bytes!("../../tests/fixtures/requests/attributes.pem"),
        include_bytes!("../../tests/fixtures/requests/rsa2048.pem"),
    ];
    fixtures
        .into_iter()
        .map(|pem| crate::pem::read_pem_one(pem, &[pem::CERTIFICATE_REQUEST]).unwrap().der.to_vec())
        .collect()
}

#[test]
fn every_truncation_is_refused() {
    for sample in samples() {
        for length in 0..sample.len() {
            assert!(matches!(CertificateRequest::from_der(&sample[..length]), Err(RequestError::Der(_))));
        }
        let longer = [&sample[..], &[0]].concat();
        assert!(matches!(
            CertificateRequest::from_der(&longer),
            Err(RequestError::Der(DerError::Trailing { .. }))
        ));
    }
}

#[test]
fn no_altered_bit_leaves_the_request_proven() {
    // The P-256 sample: verification of all alterations of the larger ones would take seconds.
    let sample = samples().swap_remove(0);
    for place in 0..sample.len() {
        for bit in 0..8 {
            let mut altered = sample.clone();
            altered[place] ^= 1 << bit;
            let proven = CertificateRequest::from_der(&altered).and_then(CertificateRequest::verify);
            assert!(proven.is_err(), "byte {place} bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = CertificateRequest::from_der(&bytes);
        let _ = CertificateRequest::from_pem_or_der(&bytes);
    }

    #[test]
    fn altered_requests_are_read_without_panic(
        which in 0..4_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        filling in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = samples().swap_remove(which);
        for (place, value) in changes {
            *place.get_mut(&mut bytes) = value;
        }
        let _ = CertificateRequest::from_der(&bytes);
        let place = cut.index(bytes.len());
        bytes.splice(place..place, filling);
        let _ = CertificateRequest::from_der(&bytes);
    }

    #[test]
    fn names_come_back_as_they_were_asked_for(
        label in "[a-z][a-z0-9]{0,20}",
        address in any::<std::net::IpAddr>(),
        path in "(/[a-zA-Z0-9._-]{1,10}x){0,3}",
    ) {
        let names: Vec<SubjectName> = [
            format!("dns:{label}.example"),
            format!("ip:{address}"),
            format!("spiffe://{label}{path}"),
            format!("email:{label}@example.org"),
        ]
        .iter()
        .map(|name| name.parse().unwrap())
        .collect();
        let key = SubjectKey::generate(KeyAlgorithm::Ed25519).unwrap();
        let der = key.request(&DistinguishedName::empty(), &names).unwrap();
        let proven = CertificateRequest::from_der(&der).unwrap().verify().unwrap();
        prop_assert_eq!(proven.names(), names);
    }
}
