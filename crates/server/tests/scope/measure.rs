//! How long it takes to revoke a million certificates as an operator does: by a property, over HTTP; and what others
//! notice of it.
//!
//! `cargo test --release -p chancery-server --test scope measure -- --ignored --nocapture`; `CHANCERY_MEASURE` says
//! how many, a million by default.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chancery_api::{ChangeStatus, RevokeRequest};
use chancery_entry::{Blob, Document, Entry, Issuance};
use chancery_ledger::Proposal;
use chancery_types::{
    AssuranceLevel, Clock as _, Digest, EvidenceKind, Generation, IssuerEpoch, LineageId, SerialNumber,
    SystemClock, Timestamp,
};

use crate::running::{Held, Running, id};
use crate::{enrol_in, environment, local, revocation};

/// Certificates recorded at once while the ledger is filled.
const CHUNK: u64 = 4096;
/// Identities that the certificates name.
const IDENTITIES: u64 = 1000;
/// Workloads that renew without end.
const WORKLOADS: usize = 16;
/// How long renewals are measured alone.
const ALONE: Duration = Duration::from_secs(10);

fn issuance(serial: SerialNumber, now: Timestamp) -> Issuance {
    let counter = serial.counter();
    Issuance {
        serial,
        identity: id(&format!("many/{}", counter % IDENTITIES)),
        lineage: LineageId::from_array(u128::from(counter + 1).to_be_bytes()),
        generation: Generation(0),
        not_before: now,
        not_after: now + Duration::from_secs(4 * 3600),
        key: Digest::of(&counter.to_be_bytes()),
        profile: "workload".into(),
        profile_hash: Digest::of(b"profile"),
        requester: "measure".into(),
        evidence: EvidenceKind::JoinToken,
        assurance: AssuranceLevel::SharedSecret,
        evidence_hash: Digest::of(b"evidence"),
        decision: Document("{}".into()),
        idempotency: None,
        tbs: Blob(vec![0x30; 600]),
    }
}

/// Puts so many certificates of an environment on record, past the doors.
async fn fill(running: &Running, count: u64) {
    for number in 0..IDENTITIES {
        enrol_in(running, &format!("many/{number}"), "prod", "ada", 0).await;
    }
    let ledger = running.server.site().authority.ledger();
    let first = ledger.reserve_counters(IssuerEpoch(1), count).await.unwrap();
    let mut start = first;
    while start < first + count {
        let end = (first + count).min(start + CHUNK);
        let propose = |counter| {
            let serial = SerialNumber::compose(IssuerEpoch(1), counter, [7; 8]).unwrap();
            let now = SystemClock.now();
            Proposal::new(vec![], vec![Entry::new(now, issuance(serial, now))]).unwrap()
        };
        ledger.commit((start..end).map(propose).collect()).await.unwrap();
        start = end;
    }
}

/// Workloads of another environment that renew for as long as this is there.
struct Renewing {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Renewing {
    fn start(running: &Arc<Running>, held: Vec<Held>) -> Self {
        let (done, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        for mut one in held {
            let (running, done, stop) = (Arc::clone(running), Arc::clone(&done), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    one = running.renew(&one).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { done, stop }
    }

    async fn rate(&self, during: impl Future<Output = ()>) -> f64 {
        let (before, begun) = (self.done.load(Ordering::Relaxed), Instant::now());
        during.await;
        let done = u32::try_from(self.done.load(Ordering::Relaxed) - before).unwrap();
        f64::from(done) / begun.elapsed().as_secs_f64()
    }
}

/// Asks the server something small without end; what it took.
async fn questions(running: Arc<Running>, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let admin = running.admin();
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        admin.read_identity(&id("live/0")).await.unwrap();
        times.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times
}

/// Waits until every form of published status says so many.
async fn published(running: &Running, count: u64) {
    let site = running.server.site();
    let on_lists = |is_full: bool| {
        let places = site.crl.places().filter(move |place| place.shard().is_none() == is_full);
        places.map(|place| place.current().map_or(0, |list| list.entries)).sum::<u64>()
    };
    let in_set = || site.set.current().map_or(0, |set| set.set().len() as u64);
    while on_lists(true) < count || on_lists(false) < count || in_set() < count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: minutes, gigabytes"]
async fn a_million_certificates_are_revoked_by_a_property_over_http() {
    let count = std::env::var("CHANCERY_MEASURE").map_or(1_000_000, |text| text.parse::<u64>().unwrap());
    let running = Running::with(|raw| {
        raw.limits.requests_per_second = 1_000_000;
        raw.limits.burst = 1_000_000;
    })
    .await;
    let mut held = Vec::new();
    for number in 0..WORKLOADS {
        held.extend(enrol_in(&running, &format!("live/{number}"), "live", "bob", 1).await);
    }
    let begun = Instant::now();
    fill(&running, count).await;
    println!("{count} certificates recorded in {:.1} s", begun.elapsed().as_secs_f64());
    let running = Arc::new(running);
    let renewing = Renewing::start(&running, held);
    let asking = tokio::spawn(questions(Arc::clone(&running), Arc::clone(&renewing.stop)));
    let alone = renewing.rate(tokio::time::sleep(ALONE)).await;

    let client = local(&running);
    let begun = Instant::now();
    let dry = RevokeRequest { dry_run: true, ..revocation(environment("prod")) };
    let counted = client.revoke(&dry).await.unwrap();
    assert_eq!(counted.count, count);
    println!("what it would hit is known after {:.1} s", begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let mut marked = Duration::ZERO;
    let everything = async {
        let request = RevokeRequest { dangerous_without_approval: true, ..revocation(environment("prod")) };
        let change = client.revoke(&request).await.unwrap().change.unwrap().change;
        while client.read_change(change).await.unwrap().status != ChangeStatus::Ended {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        marked = begun.elapsed();
        published(&running, count).await;
    };
    let beside = renewing.rate(everything).await;
    println!(
        "all: marked after {:.1} s, published and verified after {:.1} s",
        marked.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    println!("renewals beside it: {beside:.0}/s of {alone:.0}/s alone, {:.0} %", beside / alone * 100.0);
    renewing.stop.store(true, Ordering::Relaxed);
    let mut times = asking.await.unwrap();
    times.sort_unstable();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1000].as_secs_f64() * 1e3;
    println!(
        "small questions all the while: p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        at(500),
        at(990),
        at(1000)
    );
}
