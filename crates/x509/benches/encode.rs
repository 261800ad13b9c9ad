//! What it costs to write a certificate, to lint it, to read it back, and to write a large revocation list.
//!
//! Beside these, P-256 signing takes about 18 microseconds and verifying about 58 on the same machine: writing
//! and linting together should stay well below either.

#![expect(clippy::unwrap_used, reason = "the input is fixed")]

#[path = "../tests/authority/mod.rs"]
mod authority;

use std::hint::black_box;
use std::time::Duration;

use authority::{Authority, URLS, names, now, profile, serial, trust_domain};
use chancery_types::{KeyAlgorithm, RevocationReason, SignatureAlgorithm, Timestamp};
use chancery_x509::crl::{CrlSpec, RevokedCertificate};
use chancery_x509::lint::{self, CrlLintContext, LintContext};
use chancery_x509::{Certificate, Issuance, TbsView, assemble};
use criterion::{Criterion, criterion_group, criterion_main};

fn certificates(criterion: &mut Criterion) {
    let authority = Authority::new(KeyAlgorithm::P256);
    let workload = profile("workload");
    let names = names(&["spiffe://example.org/ns/prod/sa/web", "dns:web.example.org", "ip:10.0.0.1"]);
    let leaf = authority.leaf(&workload, KeyAlgorithm::P256, &names);
    let serial = serial(7);
    let issuance = Issuance {
        serial: serial.as_bytes(),
        issuer: &authority.issuer.certificate,
        signature_algorithm: SignatureAlgorithm::EcdsaSha256,
        validity: workload.validity(now(), Duration::from_secs(3600), Timestamp::default(), Timestamp::MAX),
        public_key: leaf.key.public_key(),
        names: &names,
        subject: None,
        urls: URLS,
    };
    criterion.bench_function("write TBS of a workload", |bencher| {
        bencher.iter(|| workload.specify(black_box(&issuance)).unwrap().to_tbs_der());
    });
    let domain = trust_domain();
    let context = LintContext {
        profile: &workload,
        issuer: &authority.issuer.certificate,
        trust_domain: &domain,
        now: now(),
        urls: URLS,
        subject: None,
    };
    let tbs = leaf.certificate.tbs_der();
    assert!(lint::check(tbs, &context).is_empty());
    criterion.bench_function("all lints on a workload", |bencher| {
        bencher.iter(|| lint::check(black_box(tbs), &context));
    });
    criterion
        .bench_function("read TBS", |bencher| bencher.iter(|| TbsView::from_der(black_box(tbs)).unwrap()));
    let der = assemble(tbs, SignatureAlgorithm::EcdsaSha256, leaf.certificate.signature());
    criterion.bench_function("assemble", |bencher| {
        bencher
            .iter(|| assemble(black_box(tbs), SignatureAlgorithm::EcdsaSha256, leaf.certificate.signature()));
    });
    criterion.bench_function("read certificate", |bencher| {
        bencher.iter(|| Certificate::from_der(black_box(&der)).unwrap());
    });
}

fn lists(criterion: &mut Criterion) {
    let authority = Authority::new(KeyAlgorithm::P256);
    let issuer = &authority.issuer.certificate;
    let serials: Vec<_> = (0..100_000).map(serial).collect();
    let entries: Vec<_> = serials
        .iter()
        .map(|serial| RevokedCertificate {
            serial: serial.as_bytes(),
            revoked_at: now(),
            reason: RevocationReason::KeyCompromise,
        })
        .collect();
    let spec = CrlSpec {
        issuer,
        signature_algorithm: SignatureAlgorithm::EcdsaSha256,
        number: 7,
        this_update: now(),
        next_update: now() + Duration::from_secs(86_400),
        distribution_points: &[],
    };
    let mut group = criterion.benchmark_group("100,000 revoked");
    group.sample_size(20);
    group.bench_function("write", |bencher| bencher.iter(|| spec.to_tbs_der(entries.clone()).unwrap()));
    let tbs = spec.to_tbs_der(entries.clone()).unwrap();
    let context = CrlLintContext { issuer, now: now(), previous_number: Some(6), distribution_points: &[] };
    group.bench_function("lint", |bencher| bencher.iter(|| lint::check_crl(black_box(&tbs), &context)));
}

criterion_group!(benches, certificates, lists);
criterion_main!(benches);
