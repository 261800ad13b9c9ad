//! What judging a peer costs over what rustls' own verifier does, and what asking for its standing costs.

#![expect(clippy::unwrap_used, reason = "what fails here fails the measurement")]

use std::hint::black_box;
use std::sync::Arc;

use chancery_status::{SetBuilder, SignedSet};
use chancery_types::{Clock as _, IssuerEpoch, SerialNumber, SystemClock, TrustDomain};
use chancery_verify::live::*;
use criterion::{Criterion, criterion_group, criterion_main};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// Certificates that are not good, of ten million.
const NOT_GOOD: u64 = 100_000;

struct Member {
    root: CertificateDer<'static>,
    own: CertificateDer<'static>,
    issuer: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    serial: SerialNumber,
}

/// A root, an issuer under it, and a member under that, as an authority makes them.
fn member() -> Member {
    let authority = || {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params, KeyPair::generate().unwrap())
    };
    let (params, key) = authority();
    let root = params.self_signed(&key).unwrap().der().clone();
    let root_issuer = Issuer::new(params, key);
    let (mut params, key) = authority();
    params.distinguished_name.push(rcgen::DnType::CommonName, "issuer");
    let issuer = params.signed_by(&key, &root_issuer).unwrap().der().clone();
    let signer = Issuer::new(params, key);
    let serial = SerialNumber::compose(IssuerEpoch(1), 777, [7; 8]).unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.serial_number = Some(rcgen::SerialNumber::from_slice(serial.as_bytes()));
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from("spiffe://example.org/web").unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let own = params.signed_by(&key, &signer).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Member { root, own, issuer, key, serial }
}

/// Files as a follower keeps them, with a large set.
fn keep(path: &std::path::Path, domain: &TrustDomain) {
    let key = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    let public = key.public_key().as_ref().try_into().unwrap();
    let sign = move |text: &[u8]| Ok::<_, std::io::Error>(key.sign(text).as_ref().to_vec());
    let signer = chancery_merkle::Ed25519NoteSigner::new("example.org/log", public, sign).unwrap();
    let mut builder = SetBuilder::new(10, SystemClock.now());
    builder.issuer(IssuerEpoch(1), (0..NOT_GOOD).map(|number| number * 100)).unwrap();
    let signers = chancery_merkle::LogSigners::of(signer);
    let signed = SignedSet::sign(builder.build().unwrap(), domain, &signers).unwrap();
    std::fs::write(path, signed.to_bytes()).unwrap();
    let beside = format!(
        r#"{{"version":1,"trust_domain":"example.org","key":"{}","position":10,"fresh":"{}","told":{{}}}}"#,
        signers.verifiers()[0],
        SystemClock.now()
    );
    std::fs::write(format!("{}.told", path.display()), beside).unwrap();
}

fn verifiers(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let (member, around) = (member(), tempfile::tempdir().unwrap());
    let domain: TrustDomain = "example.org".parse().unwrap();
    let path = around.path().join("status");
    keep(&path, &domain);
    let bundles = Bundles::from([(domain.clone(), vec![member.root.clone()])]);
    let credentials = Credentials::new(vec![member.own.clone()], member.key.clone_key(), bundles).unwrap();
    let follower = Follower::start(Following {
        authority: Authority::new("https://localhost:1".parse().unwrap(), domain.clone(), &credentials),
        key: LogKey::Fetched,
        rules: Rules::default(),
        keep: Some(path),
        instance: "bench".into(),
        kind: RelyingPartyKind::Library,
    });
    let status = follower.status();
    assert_eq!(status.standing(member.serial), Standing::Good);
    let trust = Trust::default();
    trust.follow(&domain, &credentials, status.clone()).unwrap();
    let ours = PeerVerifier::new(Judge::new(trust, Allowed::members_of(domain)));
    let mut roots = RootCertStore::empty();
    roots.add(member.root.clone()).unwrap();
    let theirs = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .build()
        .unwrap();

    let seconds = u64::try_from(SystemClock.now().seconds()).unwrap();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let intermediates = [member.issuer.clone()];
    let mut group = criterion.benchmark_group("verify_client_cert");
    group.bench_function("rustls", |bencher| {
        bencher.iter(|| theirs.verify_client_cert(black_box(&member.own), &intermediates, now).unwrap());
    });
    group.bench_function("live", |bencher| {
        bencher.iter(|| {
            ClientCertVerifier::verify_client_cert(&*ours, black_box(&member.own), &intermediates, now)
                .unwrap()
        });
    });
    group.finish();
    let not_good = SerialNumber::compose(IssuerEpoch(1), 900, [7; 8]).unwrap();
    let mut group = criterion.benchmark_group("standing");
    group.bench_function("good", |bencher| bencher.iter(|| status.standing(black_box(member.serial))));
    group.bench_function("not good", |bencher| bencher.iter(|| status.standing(black_box(not_good))));
    group.finish();
}

/// Connections that are open at once.
const CONNECTIONS: usize = 100_000;

/// What a registry with very many connections costs whoever comes, and whoever asks.
fn registry(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let rules = Rules { when_unknown: WhenUnknown::Open, ..Rules::default() };
    let not_after = SystemClock.now() + std::time::Duration::from_secs(3600);
    let peer = |number: usize| Peer {
        id: format!("spiffe://example.org/peer/{}", number % 1000).parse().unwrap(),
        serial: Some(SerialNumber::compose(IssuerEpoch(1), number as u64, [7; 8]).unwrap()),
        not_after,
    };
    let mut group = criterion.benchmark_group("registry");
    for open in [0, CONNECTIONS] {
        let status = Status::not_followed(rules);
        let held: Vec<Admission> = (0..open).map(|number| status.admit(peer(number)).unwrap()).collect();
        let next = peer(CONNECTIONS + 1);
        group.bench_function(format!("admit and leave, {open} open"), |bencher| {
            bencher.iter(|| drop(black_box(status.admit(next.clone()).unwrap())));
        });
        group.bench_function(format!("standing, {open} open"), |bencher| {
            bencher.iter(|| status.standing(black_box(next.serial.unwrap())));
        });
        drop(held);
    }
    group.finish();
}

criterion_group!(benches, verifiers, registry);
criterion_main!(benches);
