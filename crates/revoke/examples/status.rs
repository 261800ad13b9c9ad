//! Measures status on this machine: how soon a revocation is acknowledged, answered by OCSP and on a verified list
//! on disk; how many OCSP answers a processor gives; and how long it takes until a million certificates are revoked and
//! published while others are issued.
//!
//! `cargo run --release -p chancery-revoke --example status [LIVE] [REVOKED]`, by default 1000000 and 100000.

#![expect(clippy::unwrap_used, reason = "a measurement stops at what fails")]
#![expect(clippy::print_stdout, reason = "it is what it is for")]

#[path = "../src/testing.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod testing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chancery_entry::{Body, Entry, Revocation};
use chancery_ledger::{Ledger as _, Options, Precondition, Proposal};
use chancery_revoke::{CrlPublisher, OcspResponder, ResponderCredential};
use chancery_types::{Clock as _, CrlShard, RevocationReason, SerialNumber};
use chancery_x509::crl::CrlView;
use chancery_x509::ocsp::{CertIdHash, CertificateStatus, IssuerHashes, OcspRequest, OcspResponse};
use chancery_x509::{FrequentKey, VerificationAlgorithm, verify_signature};

use testing::{EPOCH, SHARDS, World};

/// Certificates recorded at once while the ledger is filled.
const CHUNK: u64 = 4096;
/// Revocations in one commit.
const REVOKED_AT_ONCE: usize = 1024;
/// Revocations measured one by one.
const ONE_BY_ONE: u64 = 300;
/// Issuances at once.
const ISSUERS: usize = 128;

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>().unwrap());
    let live = numbers.next().unwrap_or(1_000_000);
    let revoked = numbers.next().unwrap_or(live / 10).max(1);
    let place = tempfile::TempDir::with_prefix_in("chancery-status-", ".").unwrap();
    let world = Arc::new(World::inside(place, Options::default()).await);
    fill(&world, live).await;
    let publisher = world.publisher_by(testing::rules()).await;
    let running = Arc::clone(&publisher);
    tokio::spawn(async move { running.run().await });
    let step = (live / revoked).max(4);
    let serials: Vec<SerialNumber> = (0..revoked).map(|number| serial(number * step)).collect();
    let begun = Instant::now();
    revoke(&world, &serials).await;
    all_say(&publisher, revoked).await;
    println!("{revoked} of them revoked and published in {:.1} s", begun.elapsed().as_secs_f64());

    one_by_one(&world, &publisher, step).await;
    ocsp(&world, step).await;
    mass(&world, &publisher, live).await;
}

fn serial(counter: u64) -> SerialNumber {
    SerialNumber::compose(EPOCH, counter, [7; 8]).unwrap()
}

async fn fill(world: &World, live: u64) {
    let begun = Instant::now();
    let mut start = 0;
    while start < live {
        let end = live.min(start + CHUNK);
        let propose = |counter| {
            let entry = Entry::new(world.clock.now(), world.issuance(counter));
            Proposal::new(vec![], vec![entry]).unwrap()
        };
        world.ledger.commit((start..end).map(propose).collect()).await.unwrap();
        start = end;
    }
    println!("{live} live certificates, recorded in {:.1} s", begun.elapsed().as_secs_f64());
}

async fn revoke(world: &World, serials: &[SerialNumber]) {
    let reason = RevocationReason::Superseded;
    let propose = |serial: &SerialNumber| {
        let revocation = Revocation { serial: *serial, reason, by: "bench".into(), note: String::new() };
        let requires = vec![Precondition::Revocable { serial: *serial, reason }];
        let entry = Entry::new(world.clock.now(), Body::Revocation(revocation));
        Proposal::new(requires, vec![entry]).unwrap()
    };
    for serials in serials.chunks(REVOKED_AT_ONCE) {
        world.ledger.commit(serials.iter().map(propose).collect()).await.unwrap();
    }
}

/// Waits until the full list and the parts together have so many lines each.
async fn all_say(publisher: &CrlPublisher, lines: u64) {
    let entries = |is_full: bool| {
        let places = publisher.places().filter(move |place| place.shard().is_none() == is_full);
        places.map(|place| place.current().map_or(0, |list| list.entries)).sum::<u64>()
    };
    while entries(true) < lines || entries(false) < lines {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn percentiles(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("{name}: p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms", at(50), at(99), at(100));
}

async fn one_by_one(world: &World, publisher: &CrlPublisher, step: u64) {
    let responder = responder(world);
    let (mut acknowledged, mut listed) = (Vec::new(), Vec::new());
    for number in 0..ONE_BY_ONE {
        let serial = serial(number * step + 1);
        let begun = Instant::now();
        revoke(world, &[serial]).await;
        let acknowledgement = Instant::now();
        acknowledged.push(acknowledgement - begun);
        let answer = responder.answer(&question(world, serial, None)).await;
        assert!(is_revoked(world, &answer.der, serial), "OCSP is right at the acknowledgement");
        let place = publisher.part(EPOCH, CrlShard::containing(serial, SHARDS)).unwrap();
        let mut seen = None;
        loop {
            let number = place.current().map(|list| list.number);
            if number != seen {
                seen = number;
                let der = std::fs::read(place.file()).unwrap();
                if CrlView::from_der(&der).unwrap().entry(serial.as_bytes()).is_some() {
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        listed.push(acknowledgement.elapsed());
    }
    percentiles("revoke to acknowledgement", acknowledged);
    percentiles("acknowledgement to the verified list of its part on disk", listed);
}

fn responder(world: &World) -> OcspResponder {
    let responder = OcspResponder::new(world.ledger.clone(), world.clock.clone(), Duration::from_secs(3600));
    responder.add_issuer(EPOCH, &world.issuer);
    let credential = ResponderCredential::of_issuer(&world.issuer, Arc::clone(&world.signer));
    responder.use_credential(EPOCH, credential);
    responder
}

fn question(world: &World, serial: SerialNumber, nonce: Option<&[u8]>) -> Vec<u8> {
    OcspRequest::to_der(&IssuerHashes::of(&world.issuer), CertIdHash::Sha1, &[serial.as_bytes()], nonce)
}

fn is_revoked(world: &World, der: &[u8], serial: SerialNumber) -> bool {
    let OcspResponse::Basic(basic) = OcspResponse::from_der(der).unwrap() else { return false };
    let status = basic.verified_status(&world.issuer, serial.as_bytes(), None, world.clock.now());
    matches!(status.unwrap(), CertificateStatus::Revoked { .. })
}

/// By one task, so on one processor.
async fn ocsp(world: &World, step: u64) {
    let responder = responder(world);
    let hot: Vec<_> = (0..1000).map(|number| question(world, serial(number * step + 2), None)).collect();
    for question in &hot {
        responder.answer(question).await;
    }
    let begun = Instant::now();
    for question in hot.iter().cycle().take(300_000) {
        responder.answer(question).await;
    }
    let kept = 300_000.0 / begun.elapsed().as_secs_f64();
    let nonces = (0..30_000_u64).map(u64::to_be_bytes);
    let live: Vec<_> =
        nonces.map(|nonce| question(world, serial(u64::from(nonce[7]) * step + 2), Some(&nonce))).collect();
    let begun = Instant::now();
    for question in &live {
        responder.answer(question).await;
    }
    let signed = 30_000.0 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    for question in &live {
        world.signer.sign(question).unwrap();
    }
    let floor = 30_000.0 / begun.elapsed().as_secs_f64();
    println!(
        "OCSP on one processor: kept answers {kept:.0}/s; signed on demand {signed:.0}/s, {:.0} % of {floor:.0} \
         signatures/s",
        signed / floor * 100.0
    );
}

/// What an enrolment costs besides: a request verified, an entry recorded, a signature made and verified.
struct Issuance {
    world: Arc<World>,
    key: FrequentKey,
    message: Vec<u8>,
    signature: Vec<u8>,
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

impl Issuance {
    async fn run(self: Arc<Self>) {
        let signer = &self.world.signer;
        let algorithm = VerificationAlgorithm::from(signer.algorithm());
        while !self.stop.load(Ordering::Relaxed) {
            let spki = signer.public_key().spki_der();
            verify_signature(spki, algorithm, &self.message, &self.signature).unwrap();
            let issuance = self.world.issuance(self.next.fetch_add(1, Ordering::Relaxed));
            let entry = Entry::new(self.world.clock.now(), issuance);
            self.world.ledger.commit(vec![Proposal::new(vec![], vec![entry]).unwrap()]).await.unwrap();
            let signature = signer.sign(&self.message).unwrap();
            self.key.verify(algorithm, &self.message, &signature).unwrap();
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn rate(&self, during: impl Future<Output = ()>) -> (f64, Duration) {
        let (before, begun) = (self.done.load(Ordering::Relaxed), Instant::now());
        during.await;
        let (done, took) = (self.done.load(Ordering::Relaxed) - before, begun.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let rate = done as f64 / took.as_secs_f64();
        (rate, took)
    }
}

async fn mass(world: &Arc<World>, publisher: &CrlPublisher, live: u64) {
    let message = vec![7; 600];
    let issuance = Arc::new(Issuance {
        world: Arc::clone(world),
        key: FrequentKey::new(world.signer.public_key().clone()),
        signature: world.signer.sign(&message).unwrap(),
        message,
        next: AtomicU64::new(1 << 32),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let tasks: Vec<_> = (0..ISSUERS).map(|_| tokio::spawn(Arc::clone(&issuance).run())).collect();
    let (alone, _) = issuance.rate(tokio::time::sleep(Duration::from_secs(5))).await;
    let mut marked = Duration::ZERO;
    let begun = Instant::now();
    let everything = async {
        revoke(world, &(0..live).map(serial).collect::<Vec<_>>()).await;
        marked = begun.elapsed();
        all_say(publisher, live).await;
    };
    let (beside, took) = issuance.rate(everything).await;
    issuance.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    println!(
        "all {live} certificates: marked after {:.1} s, published and verified after {:.1} s",
        marked.as_secs_f64(),
        took.as_secs_f64()
    );
    println!(
        "issuance beside it (cryptography and ledger, {ISSUERS} at once): {beside:.0}/s of {alone:.0}/s alone, {:.0} %",
        beside / alone * 100.0
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    println!("memory of this process: {}", resident.trim());
}
