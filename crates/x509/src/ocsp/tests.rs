use chancery_types::{KeyAlgorithm, RevocationReason, SignatureAlgorithm, Timestamp};

use super::*;
use crate::authority::{Authority, Held, names, now, profile, serial};
use crate::extension;
use crate::reader::Reader;
use crate::writer::Writer;
use crate::{oid, tag};

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

struct Bench {
    authority: Authority,
    responder: Held,
    hashes: IssuerHashes,
}

impl Bench {
    fn new() -> Self {
        let authority = Authority::new(KeyAlgorithm::P256);
        let responder = authority.leaf(&profile("ocsp"), KeyAlgorithm::P256, &[]);
        let hashes = IssuerHashes::of(&authority.issuer.certificate);
        Self { authority, responder, hashes }
    }

    fn request(&self, hash: CertIdHash, nonce: Option<&[u8]>) -> Vec<u8> {
        OcspRequest::to_der(&self.hashes, hash, &[serial(7).as_bytes(), serial(8).as_bytes()], nonce)
    }

    /// Answers a request: the first certificate is revoked, the second good.
    fn answer(&self, request: &OcspRequest<'_>, signer: &Held, with_certificate: bool) -> Vec<u8> {
        let revoked =
            CertificateStatus::Revoked { at: now() - HOUR, reason: RevocationReason::KeyCompromise };
        let statuses: Vec<SingleStatus<'_>> = request
            .ids()
            .iter()
            .zip([revoked, CertificateStatus::Good])
            .map(|(id, status)| SingleStatus {
                cert_id: id.der(),
                status,
                this_update: now(),
                next_update: Some(now() + HOUR),
            })
            .collect();
        let spec = OcspSpec {
            responder: signer.key.public_key(),
            produced_at: now(),
            statuses: &statuses,
            nonce: request.nonce(),
        };
        let tbs = spec.to_tbs_der();
        let signature = signer.key.sign(&tbs).unwrap();
        let certificate = with_certificate.then(|| signer.certificate.der());
        assemble_response(&tbs, SignatureAlgorithm::EcdsaSha256, &signature, certificate)
    }
}

fn basic(der: &[u8]) -> BasicResponse<'_> {
    match OcspResponse::from_der(der).unwrap() {
        OcspResponse::Basic(basic) => basic,
        OcspResponse::Error(error) => panic!("{error}"),
    }
}

#[test]
fn requests_name_certificates_by_either_digest() {
    let bench = Bench::new();
    let other = IssuerHashes::of(&bench.authority.root.certificate);
    for hash in [CertIdHash::Sha1, CertIdHash::Sha256] {
        for nonce in [None, Some(&[9_u8; 1][..]), Some(&[9; 128])] {
            let der = bench.request(hash, nonce);
            let request = OcspRequest::from_der(&der).unwrap();
            assert_eq!(request.nonce(), nonce);
            assert_eq!(request.ids().len(), 2);
            assert_eq!(request.ids()[0].hash(), hash);
            assert_eq!(request.ids()[0].serial(), serial(7).as_bytes());
            assert!(request.ids().iter().all(|id| bench.hashes.matches(id) && !other.matches(id)));
        }
    }
}

#[test]
fn a_delegated_answer_is_believed_for_the_certificates_asked_about() {
    let bench = Bench::new();
    let issuer = &bench.authority.issuer.certificate;
    for hash in [CertIdHash::Sha1, CertIdHash::Sha256] {
        let nonce = [3; 32];
        let der = bench.request(hash, Some(&nonce));
        let response = bench.answer(&OcspRequest::from_der(&der).unwrap(), &bench.responder, true);
        let basic = basic(&response);
        let status = |serial: &[u8]| basic.verified_status(issuer, serial, Some(&nonce), now());
        assert_eq!(
            status(serial(7).as_bytes()),
            Ok(CertificateStatus::Revoked { at: now() - HOUR, reason: RevocationReason::KeyCompromise })
        );
        assert_eq!(status(serial(8).as_bytes()), Ok(CertificateStatus::Good));
        assert_eq!(status(serial(9).as_bytes()), Err(OcspVerifyError::NoAnswer));
        assert_eq!(basic.produced_at(), now());
        assert_eq!(basic.statuses().count(), 2);
        assert_eq!(basic.certificates(), [bench.responder.certificate.der()]);
        let key_hash = responder_key_hash(bench.responder.key.public_key());
        assert_eq!(basic.responder(), ResponderId::KeyHash(&key_hash));
    }
}

#[test]
fn the_issuer_may_answer_itself() {
    let bench = Bench::new();
    let der = bench.request(CertIdHash::Sha1, None);
    let response = bench.answer(&OcspRequest::from_der(&der).unwrap(), &bench.authority.issuer, false);
    basic(&response).verify(&bench.authority.issuer.certificate, now()).unwrap();
}

#[test]
fn refuses_answers_that_prove_nothing() {
    let bench = Bench::new();
    let issuer = &bench.authority.issuer.certificate;
    let der = bench.request(CertIdHash::Sha1, Some(&[1; 16]));
    let request = OcspRequest::from_der(&der).unwrap();
    let good = bench.answer(&request, &bench.responder, true);
    let verify = |response: &[u8], nonce: Option<&[u8]>, at: Timestamp| {
        basic(response).verified_status(issuer, serial(8).as_bytes(), nonce, at).unwrap_err()
    };
    assert_eq!(verify(&good, Some(&[2; 16]), now()), OcspVerifyError::Nonce);
    assert!(matches!(verify(&good, None, now() - HOUR), OcspVerifyError::Expired { .. }));
    let later = now() + HOUR + std::time::Duration::from_secs(1);
    assert!(matches!(verify(&good, None, later), OcspVerifyError::Expired { .. }));
    let alone = bench.answer(&request, &bench.responder, false);
    assert_eq!(verify(&alone, None, now()), OcspVerifyError::NoResponder);

    let by_issuer = bench.answer(&request, &bench.authority.issuer, false);
    assert!(matches!(verify(&by_issuer, None, later), OcspVerifyError::Stale { .. }));

    let server = bench.authority.leaf(&profile("server"), KeyAlgorithm::P256, &names(&["dns:a.example.org"]));
    let by_server = bench.answer(&request, &server, true);
    assert_eq!(verify(&by_server, None, now()), OcspVerifyError::NotAResponder("OCSPSigning"));

    let stranger = Bench::new();
    let by_stranger = bench.answer(&request, &stranger.responder, true);
    assert!(matches!(verify(&by_stranger, None, now()), OcspVerifyError::Chain(_)));

    let mut forged = good.clone();
    let tbs = basic(&good).tbs_der();
    let place = good.windows(tbs.len()).position(|window| window == tbs).unwrap();
    // A digit of producedAt.
    forged[place + 40] ^= 1;
    assert!(matches!(verify(&forged, None, now()), OcspVerifyError::Signature(_)));
}

#[test]
fn errors_are_five_bytes_and_are_read_back() {
    for error in
        [OcspError::MalformedRequest, OcspError::InternalError, OcspError::TryLater, OcspError::Unauthorized]
    {
        let der = error.to_der();
        assert!(matches!(OcspResponse::from_der(&der), Ok(OcspResponse::Error(found)) if found == error));
    }
    assert_eq!(OcspError::Unauthorized.to_der(), [0x30, 3, 0x0a, 1, 6]);
    assert_eq!(OcspResponse::from_der(&[0x30, 3, 0x0a, 1, 4]).unwrap_err(), OcspResponseError::Status(4));
}

/// A request with bent pieces: how many certificates, request extensions, single extensions.
fn bent(count: usize, extensions: &[(&[u8], bool, &[u8])], single: &[(&[u8], bool, &[u8])]) -> Vec<u8> {
    let hashes = IssuerHashes { sha1: ([1; 20], [2; 20]), sha256: ([1; 32], [2; 32]) };
    let one = OcspRequest::to_der(&hashes, CertIdHash::Sha1, &[&[5]], None);
    let id = OcspRequest::from_der(&one).unwrap().ids()[0].der().to_vec();
    let write = |writer: &mut Writer, number: u8, list: &[(&[u8], bool, &[u8])]| {
        if !list.is_empty() {
            writer.nested(tag::context_constructed(number), |explicit| {
                explicit.sequence(|inner| {
                    for (oid, critical, value) in list {
                        extension::write(inner, oid, *critical, |content| content.raw(value));
                    }
                });
            });
        }
    };
    let mut writer = Writer::default();
    writer.sequence(|request| {
        request.sequence(|tbs| {
            tbs.sequence(|list| {
                for _ in 0..count {
                    list.sequence(|fields| {
                        fields.raw(&id);
                        write(fields, 0, single);
                    });
                }
            });
            write(tbs, 2, extensions);
        });
    });
    writer.finish()
}

#[test]
fn refuses_requests_beyond_the_limits() {
    let read = |der: &[u8]| OcspRequest::from_der(der).map(|request| request.ids().len());
    assert_eq!(read(&bent(20, &[], &[])), Ok(20));
    assert_eq!(read(&bent(0, &[], &[])), Err(OcspRequestError::Count { count: 0, limit: 20 }));
    assert_eq!(read(&bent(21, &[], &[])), Err(OcspRequestError::Count { count: 21, limit: 20 }));
    let long = [&[4, 0x81, 129][..], &[0; 129]].concat();
    assert_eq!(read(&bent(1, &[(oid::OCSP_NONCE, false, &long)], &[])), Err(OcspRequestError::Nonce(129)));
    assert_eq!(read(&bent(1, &[(oid::OCSP_NONCE, false, &[4, 0])], &[])), Err(OcspRequestError::Nonce(0)));
    assert!(matches!(read(&bent(1, &[(oid::OCSP_NONCE, false, &[1])], &[])), Err(OcspRequestError::Der(_))));
    let unknown: (&[u8], bool, &[u8]) = (oid::CERTIFICATE_POLICIES, true, &[0x30, 0]);
    let ignored = (unknown.0, false, unknown.2);
    assert!(matches!(read(&bent(1, &[unknown], &[])), Err(OcspRequestError::UnknownCritical(_))));
    assert!(matches!(read(&bent(1, &[], &[unknown])), Err(OcspRequestError::UnknownCritical(_))));
    assert_eq!(read(&bent(1, &[ignored], &[ignored])), Ok(1));
    let nonce: (&[u8], bool, &[u8]) = (oid::OCSP_NONCE, true, &[4, 1, 7]);
    assert_eq!(read(&bent(1, &[nonce], &[])), Ok(1));
    assert_eq!(read(&bent(1, &[nonce, nonce], &[])), Err(OcspRequestError::Extensions));
    assert!(matches!(read(&[0x30; MAX_OCSP_REQUEST + 1]), Err(OcspRequestError::Der(_))));
}

#[test]
fn reads_past_a_signature_and_the_name_of_who_asks() {
    let plain = bent(1, &[], &[]);
    let inner = Reader::new(&plain).sequence().unwrap().sequence().unwrap().rest().to_vec();
    let mut writer = Writer::default();
    writer.sequence(|request| {
        request.sequence(|tbs| {
            tbs.nested(tag::context_constructed(0), |version| version.unsigned(&[0]));
            tbs.nested(tag::context_constructed(1), |name| name.value(0x82, b"who"));
            tbs.raw(&inner);
        });
        request.nested(tag::context_constructed(0), |signature| signature.sequence(|_| ()));
    });
    assert_eq!(OcspRequest::from_der(&writer.finish()).unwrap().ids().len(), 1);

    let mut writer = Writer::default();
    writer.sequence(|request| {
        request.sequence(|tbs| {
            tbs.nested(tag::context_constructed(0), |version| version.unsigned(&[1]));
            tbs.raw(&inner);
        });
    });
    assert_eq!(OcspRequest::from_der(&writer.finish()), Err(OcspRequestError::Version(2)));
}

#[test]
fn an_unknown_digest_matches_no_issuer() {
    let der = bent(1, &[], &[]);
    let sha1 = der.windows(5).position(|window| window == oid::SHA1).unwrap();
    let mut other = der;
    other[sha1 + 4] = 27;
    let request = OcspRequest::from_der(&other).unwrap();
    assert_eq!(request.ids()[0].hash(), CertIdHash::Other);
    assert!(!Bench::new().hashes.matches(&request.ids()[0]));
}

proptest::proptest! {
    #[test]
    fn changed_and_random_bytes_never_panic(place in 0_usize..1200, value: u8, junk in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
        thread_local!(static GOOD: (Bench, Vec<u8>, Vec<u8>) = {
            let bench = Bench::new();
            let request = bench.request(CertIdHash::Sha1, Some(&[5; 32]));
            let response = bench.answer(&OcspRequest::from_der(&request).unwrap(), &bench.responder, true);
            (bench, request, response)
        });
        GOOD.with(|(bench, request, response)| {
            for good in [request, response] {
                let mut bytes = good.clone();
                let length = bytes.len();
                bytes[place % length] = value;
                for input in [bytes.as_slice(), &junk] {
                    let _ = OcspRequest::from_der(input);
                    if let Ok(OcspResponse::Basic(basic)) = OcspResponse::from_der(input) {
                        let _ = basic.verified_status(&bench.authority.issuer.certificate, &[1], None, now());
                    }
                }
            }
        });
    }
}
