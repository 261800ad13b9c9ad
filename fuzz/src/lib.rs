//! What is done with hostile bytes, one function per fuzz target.
//!
//! A function panics when a promise of the parser is broken: it must neither panic itself nor take much longer
//! than its input is long, and what it accepts must come out again as it went in. `fuzz_targets/` hands each
//! function to libFuzzer; `tests/replay.rs` runs it over the committed corpus without any tool.

use bytes::Bytes;
use chancery_api::{BatchEnrollRequest, EnrollRequest, Evidence, KeyMaterial};
use chancery_entry::Entry;
use chancery_merkle::{
    Checkpoint, LogKeys, NoteVerifier, Receipt, RecordedKey, SignedNote, Tile, read_bundle,
};
use chancery_status::{Delta, ExactSet, SetBuilder};
use chancery_types::{Timestamp, TrustDomain};
use chancery_x509::crl::CrlView;
use chancery_x509::ocsp::{MAX_SINGLE_REQUESTS, OcspRequest, OcspResponse};
use chancery_x509::{Certificate, CertificateRequest, PublicKey, read_pem, write_pem};

/// A target's name and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("csr", csr),
    ("public_key", public_key),
    ("certificate", certificate),
    ("crl", crl),
    ("ocsp_request", ocsp_request),
    ("ocsp_response", ocsp_response),
    ("pem", pem),
    ("note", note),
    ("receipt", receipt),
    ("entry", entry),
    ("enroll_request", enroll_request),
    ("status_set", status_set),
    ("status_delta", status_delta),
];

/// A certificate request, as PEM or DER.
pub fn csr(data: &[u8]) {
    let Ok(request) = CertificateRequest::from_pem_or_der(data) else { return };
    let again = CertificateRequest::from_der(request.der()).expect("its DER was read a moment ago");
    assert_eq!(again, request);
    let shown = format!("{request:?} {:?}", request.ignored());
    assert!(!shown.chars().any(|character| character.is_control()), "{shown}");
    if let Some(name) = request.subject().common_name() {
        assert!(!name.is_empty() && !name.chars().any(char::is_control));
    }
    assert!(request.names().len() <= 128 && request.extensions().len() <= 32);
    let key = request.public_key().clone();
    if let Ok(proven) = request.verify() {
        assert_eq!(proven.public_key(), &key);
    }
}

/// A DER subjectPublicKeyInfo.
pub fn public_key(data: &[u8]) {
    let Ok(key) = PublicKey::from_spki_der(data) else { return };
    assert_eq!(key.spki_der(), data);
    assert!(data.ends_with(key.key_bytes()));
    let algorithm = key.algorithm().signature_algorithm();
    assert!(key.verify(algorithm, b"message", &data[..data.len().min(72)]).is_err());
}

/// A DER certificate, and the lints over it.
pub fn certificate(data: &[u8]) {
    let Ok(certificate) = Certificate::from_der(data) else { return };
    assert_eq!(certificate.der(), data);
    let tbs = certificate.tbs();
    assert_eq!(tbs.der(), certificate.tbs_der());
    let _ = (tbs.issuer_text(), tbs.subject_text(), tbs.subject_names(), tbs.spiffe_id(), tbs.is_authority());
    let _ = (tbs.crl_urls().count(), tbs.ocsp_urls().count(), tbs.ca_issuers_urls().count());
    let _ = (tbs.names().map(|name| name.to_string().len()).sum::<usize>(), tbs.name_constraints());
    let _ = (tbs.extensions().count(), tbs.purposes().count(), tbs.key_usages(), tbs.basic_constraints());
    assert!(!(tbs.not_after() < tbs.not_before() && tbs.is_valid_at(tbs.not_before())));
    let domain = TrustDomain::parse("example.org").expect("a trust domain");
    for finding in chancery_x509::lint::check_root(tbs.der(), &domain, Timestamp::from_millis(0)) {
        assert!(!finding.to_string().is_empty());
    }
}

/// A DER revocation list.
pub fn crl(data: &[u8]) {
    let Ok(list) = CrlView::from_der(data) else { return };
    let _ =
        (list.issuer_text(), list.number_u64(), list.authority_key_id(), list.distribution_points().count());
    let _ = (list.this_update(), list.next_update(), list.signature_algorithm(), list.signature());
    for revoked in list.entries() {
        assert!(list.entry(revoked.serial).is_some());
    }
}

/// A DER OCSP request.
pub fn ocsp_request(data: &[u8]) {
    let Ok(request) = OcspRequest::from_der(data) else { return };
    assert!((1..=MAX_SINGLE_REQUESTS).contains(&request.ids().len()));
    assert!(request.nonce().is_none_or(|nonce| (1..=128).contains(&nonce.len())));
    for id in request.ids() {
        assert!(!id.serial().is_empty() && data.len() > id.der().len());
    }
}

/// A DER OCSP response.
pub fn ocsp_response(data: &[u8]) {
    let Ok(OcspResponse::Basic(response)) = OcspResponse::from_der(data) else { return };
    let _ = (response.responder(), response.produced_at(), response.nonce(), response.tbs_der());
    let _ = response.statuses().count();
    response.certificates().iter().for_each(|link| certificate(link));
}

/// A PEM text with up to eight blocks.
pub fn pem(data: &[u8]) {
    let Ok(blocks) = read_pem(data, 8) else { return };
    for block in blocks {
        let text = write_pem("X", &block.der);
        let again = read_pem(text.as_bytes(), 1).expect("it was written a moment ago");
        assert_eq!(again[0].der, block.der);
    }
}

/// The line formats of the transparency log: signed note, checkpoint, verifier keys, tile path; a bundle, and the record
/// of a key.
pub fn note(data: &[u8]) {
    let _ = read_bundle(data, 256);
    if let Ok(recorded) = RecordedKey::parse("example.org/log", data) {
        assert_eq!(recorded.content(), data);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(note) = text.parse::<SignedNote>() {
        assert_eq!(note.to_string(), text);
    }
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(Checkpoint::parse(&checkpoint.text()).as_ref(), Ok(&checkpoint));
    }
    if let Ok(key) = text.parse::<NoteVerifier>() {
        assert_eq!(key.vkey(), text);
    }
    if let Ok(keys) = text.parse::<LogKeys>() {
        assert_eq!(keys.to_string().parse::<LogKeys>().as_ref(), Ok(&keys));
    }
    if let Ok(tile) = text.parse::<Tile>() {
        assert_eq!(tile.to_string(), text);
    }
}

/// A receipt.
pub fn receipt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(receipt) = text.parse::<Receipt>() {
        assert_eq!(receipt.to_string(), text);
    }
}

/// A ledger entry.
pub fn entry(data: &[u8]) {
    let Ok(entry) = Entry::decode(data) else { return };
    assert_eq!(entry.encode().as_deref(), Ok(data));
    serde_json::to_string(&entry).expect("every entry has a JSON view");
}

/// The body of an enrolment, or of a batch of them, and the request inside.
pub fn enroll_request(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<EnrollRequest>(data) {
        csr(request.csr.as_der());
        if let Evidence::X509Pop { chain, .. } = &request.evidence {
            chain.iter().for_each(|link| certificate(link.as_der()));
        }
        let text = serde_json::to_vec(&request).expect("it came from JSON");
        let again: EnrollRequest = serde_json::from_slice(&text).expect("it was written a moment ago");
        assert_eq!(serde_json::to_vec(&again).expect("it came from JSON"), text);
    }
    if let Ok(batch) = serde_json::from_slice::<BatchEnrollRequest>(data) {
        for item in batch.items {
            match item.key {
                KeyMaterial::Csr(request) => csr(request.as_der()),
                KeyMaterial::PublicKey(key) => public_key(key.as_der()),
            }
        }
    }
}

/// An exact set without its note: what is accepted is the one way to write it. Its length is made right first, so that
/// the rest is reached.
pub fn status_set(data: &[u8]) {
    let Ok(set) = ExactSet::parse(with_length(data)) else { return };
    let mut again = SetBuilder::new(set.sequence(), set.made());
    for epoch in set.issuers() {
        let counters: Vec<u64> = set.counters(epoch).expect("it is one of them").iter().collect();
        assert!(counters.iter().all(|counter| set.counters(epoch).expect("as before").contains(*counter)));
        again.issuer(epoch, counters).expect("they rise");
    }
    assert_eq!(again.build().expect("it was built before").bytes(), set.bytes());
}

/// A delta without its note, applied to a set that it is hardly for.
pub fn status_delta(data: &[u8]) {
    let Ok(delta) = Delta::parse(with_length(data)) else { return };
    assert!(delta.from() < delta.sequence());
    let old = SetBuilder::new(delta.from(), Timestamp::from_millis(0)).build().expect("an empty set");
    if let Ok(new) = delta.apply(&old) {
        assert_eq!((new.hash(), new.sequence()), (delta.hash(), delta.sequence()));
    }
}

/// Both begin with eight bytes of magic and eight that say how long they are.
fn with_length(data: &[u8]) -> Bytes {
    let mut bytes = data.to_vec();
    let length = (bytes.len() as u64).to_le_bytes();
    if let Some(field) = bytes.get_mut(8..16) {
        field.copy_from_slice(&length);
    }
    bytes.into()
}
