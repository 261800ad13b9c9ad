use std::convert::Infallible;

use chancery_types::KeyAlgorithm;

use super::*;
use crate::{CertificateRequest, SubjectKey};

fn spec<'a>(
    key: &'a SubjectKey,
    subject: &'a DistinguishedName,
    names: &'a [SubjectName],
    purpose: RequestPurpose,
) -> RequestSpec<'a> {
    let signature_algorithm = key.signature_algorithm();
    RequestSpec { public_key: key.public_key(), signature_algorithm, subject, names, purpose }
}

#[test]
fn says_what_it_was_told_and_no_more() {
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let subject: DistinguishedName = "CN=web".parse().unwrap();
    let names = ["spiffe://example.org/web".parse().unwrap(), "ip:::1".parse().unwrap()];
    let der = key.request(&subject, &names).unwrap();
    let request = CertificateRequest::from_der(&der).unwrap();
    assert_eq!(request.subject().name(), &subject);
    assert_eq!(request.names(), names);
    assert_eq!(request.public_key(), key.public_key());
    assert_eq!(request.extensions().len(), 1);
    assert!(
        request.ignored().is_empty() && request.key_usage().is_none() && !request.extensions()[0].critical
    );

    let bare = key.request(&subject, &[]).unwrap();
    assert!(CertificateRequest::from_der(&bare).unwrap().extensions().is_empty());
}

#[test]
fn names_without_a_subject_are_critical() {
    let key = SubjectKey::generate(KeyAlgorithm::P384).unwrap();
    let der = key.request(&DistinguishedName::empty(), &["dns:a.example".parse().unwrap()]).unwrap();
    assert!(CertificateRequest::from_der(&der).unwrap().extensions()[0].critical);
}

#[test]
fn an_issuer_asks_for_the_powers_of_a_ca() {
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let subject: DistinguishedName = "CN=Issuer 1,O=Example".parse().unwrap();
    let spec = spec(&key, &subject, &[], RequestPurpose::Issuer);
    let request = CertificateRequest::from_der(&spec.build(|info| key.sign(info)).unwrap()).unwrap();
    assert!(request.asks_for_ca());
    assert_eq!(request.key_usage(), Some(KeyUsages::AUTHORITY));
    assert_eq!(request.basic_constraints().unwrap().path_length, Some(0));
}

#[test]
fn refuses_more_names_than_a_request_may_have() {
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let names: Vec<SubjectName> = (0..129).map(|n| format!("ip:10.0.0.{n}").parse().unwrap()).collect();
    let error = key.request(&DistinguishedName::empty(), &names).unwrap_err();
    assert_eq!(error.to_string(), "129 names, a request has at most 128; ask for several certificates");
    let accepted = key.request(&DistinguishedName::empty(), &names[..128]).unwrap();
    assert_eq!(CertificateRequest::from_der(&accepted).unwrap().names().len(), 128);
}

#[test]
fn hands_on_what_the_signer_says() {
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let empty = DistinguishedName::empty();
    let spec = spec(&key, &empty, &[], RequestPurpose::Subject);
    assert_eq!(spec.build(|_| Err("no token")), Err(RequestBuildError::Sign("no token")));
    let garbage = spec.build::<Infallible>(|_| Ok(vec![1, 2, 3])).unwrap();
    assert!(CertificateRequest::from_der(&garbage).unwrap().verify().is_err());
}
