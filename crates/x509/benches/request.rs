//! What a request costs before anything is decided about it. The floor of an enrolment is the verification of
//! its signature (some 60 us for P-256); reading must stay small beside it.

use std::hint::black_box;

use chancery_types::{KeyAlgorithm, SubjectName};
use chancery_x509::{CertificateRequest, DistinguishedName, PublicKey, SubjectKey};
use criterion::{Criterion, criterion_group, criterion_main};

fn requests(criterion: &mut Criterion) {
    let names: [SubjectName; 2] = ["spiffe://example.org/ns/prod/sa/web", "dns:web.example.org"]
        .map(|name| name.parse().expect("a name"));
    let rsa =
        SubjectKey::from_pkcs8_pem(include_bytes!("../tests/fixtures/keys/rsa2048.pem")).expect("a key");
    let made = [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519]
        .map(|algorithm| SubjectKey::generate(algorithm).expect("a key"));
    for key in made.iter().chain([&rsa]) {
        let algorithm = key.public_key().algorithm();
        let spki = key.public_key().spki_der();
        let der = key.request(&DistinguishedName::empty(), &names).expect("a request");
        criterion.bench_function(&format!("{algorithm} key"), |bencher| {
            bencher.iter(|| PublicKey::from_spki_der(black_box(spki)));
        });
        criterion.bench_function(&format!("{algorithm} request, read"), |bencher| {
            bencher.iter(|| CertificateRequest::from_der(black_box(&der)));
        });
        criterion.bench_function(&format!("{algorithm} request, read and verified"), |bencher| {
            bencher
                .iter(|| CertificateRequest::from_der(black_box(&der)).and_then(CertificateRequest::verify));
        });
    }
}

criterion_group!(benches, requests);
criterion_main!(benches);
