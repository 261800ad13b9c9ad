use chancery_api::{FeedEnd, RelyingPartyKind, WhenUnknown};
use chancery_entry::{Body, Entry, IdentityChange};
use chancery_ledger::{CertificateState, Ledger as _};
use chancery_revoke::StatusChange;
use chancery_types::{IssuerEpoch, SystemClock};
use tokio::time::{Instant, timeout};

use super::*;
use crate::testing::TestLog;

const LIMITS: FeedLimits = FeedLimits {
    total: 8,
    per_identity: 4,
    behind: 2,
    heartbeat: Duration::from_secs(5),
    at_once: 8,
    at_once_to_all: 8,
    remembered: 4096,
};

/// A feed whose news are made up here.
struct Told {
    feed: Arc<Feed>,
    news: broadcast::Sender<StatusNews>,
    entries: broadcast::Sender<News>,
    log: TestLog,
    position: u64,
}

impl Told {
    async fn with(limits: FeedLimits) -> Self {
        let log = TestLog::new();
        log.add_tokens(10).await;
        let (ledger, clock): (Arc<dyn Ledger>, Arc<dyn Clock>) = (log.ledger.clone(), Arc::new(SystemClock));
        let (board, _) =
            StatusBoard::open(Arc::clone(&ledger), Arc::clone(&clock), Duration::ZERO).await.unwrap();
        let (feed, _) = Feed::load(board, ledger, clock, limits).await.unwrap();
        let (news, entries) = (broadcast::channel(64).0, broadcast::channel(64).0);
        let sources = Sources { news: news.subscribe(), entries: entries.subscribe() };
        let following = Arc::clone(&feed);
        tokio::spawn(async move { following.follow(sources).await });
        Self { feed, news, entries, position: log.ledger.head().size, log }
    }

    fn subscribe(&self, name: &str, after: Option<u64>) -> Reader {
        Reader(self.feed.subscribe(holder(name), None, after).unwrap())
    }

    /// Certificates come to stand so, as one entry.
    fn change(&mut self, counters: std::ops::Range<u64>, state: CertificateState) {
        let change = |counter| StatusChange { serial: serial(counter), not_after: Timestamp::MAX, state };
        let (after, sequence) = (self.position, self.position + 1);
        self.position = sequence;
        let certificates = counters.map(change).collect();
        self.news.send(StatusNews::Changes { after, sequence, certificates, issuers: [].into() }).unwrap();
    }

    fn hold(&mut self, counter: u64) {
        self.change(counter..counter + 1, CertificateState::Held { since: Timestamp::from_seconds(1) });
    }
}

struct Reader(Subscription);

impl Reader {
    async fn next(&mut self) -> Option<FeedEvent> {
        let encoded = timeout(Duration::from_secs(10), self.0.next()).await.expect("something is told");
        encoded.map(|encoded| serde_json::from_slice(&encoded.json).unwrap())
    }

    /// The next event that is no heartbeat.
    async fn change(&mut self) -> FeedEvent {
        loop {
            match self.next().await.expect("the feed goes on") {
                FeedEvent { change: FeedChange::Heartbeat, .. } => {}
                event => return event,
            }
        }
    }
}

fn serial(counter: u64) -> SerialNumber {
    SerialNumber::compose(IssuerEpoch(1), counter, [7; 8]).unwrap()
}

/// Whoever is called `7` holds the certificate with that counter.
fn holder(name: &str) -> Holder {
    let id = format!("spiffe://example.org/{name}").parse().unwrap();
    Holder { id, serial: serial(name.parse().unwrap_or(1000)), not_after: Timestamp::MAX }
}

fn held(event: &FeedEvent) -> Vec<u64> {
    match &event.change {
        FeedChange::Hold { serials, .. } => serials.iter().map(SerialNumber::counter).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_does_not_read_is_dropped_and_resumes_while_the_others_go_on() {
    let mut told = Told::with(LIMITS).await;
    let start = told.position;
    let (mut slow, mut quick) = (told.subscribe("slow", None), told.subscribe("quick", None));
    for counter in 0..5 {
        told.hold(counter);
        assert_eq!(held(&quick.change().await), [counter]);
    }
    assert!(matches!(slow.next().await.unwrap().change, FeedChange::Heartbeat));
    let last = slow.next().await.unwrap();
    let end = FeedChange::End { reason: FeedEnd::TooSlow };
    assert_eq!(last, FeedEvent { after: start, sequence: start, change: end });
    assert_eq!(slow.next().await, None);
    drop(slow);
    assert_eq!(told.feed.counts(), (1, 1));

    let mut again = told.subscribe("slow", Some(last.sequence));
    for counter in 0..5 {
        let event = again.change().await;
        assert_eq!(held(&event), [counter]);
        assert_eq!((event.leaves_gap(start + counter), event.sequence), (false, start + counter + 1));
    }
    told.hold(9);
    assert_eq!(held(&again.change().await), held(&quick.change().await));
}

#[tokio::test]
async fn what_cannot_be_resumed_begins_with_bulk() {
    let mut told = Told::with(LIMITS).await;
    let start = told.position;
    let mut reader = told.subscribe("a", None);
    for counter in 0..40 {
        told.hold(counter);
        reader.change().await;
    }
    let lost = told.subscribe("b", Some(start)).next().await.unwrap();
    assert_eq!((lost.after, lost.sequence), (start, told.position), "what is remembered is bounded");
    assert_eq!(lost.change, FeedChange::Bulk { count: None });
    let ahead = told.subscribe("b", Some(told.position + 1)).next().await.unwrap();
    assert_eq!((ahead.after, ahead.sequence), (told.position, told.position));
    assert_eq!(ahead.change, FeedChange::Bulk { count: None });
    let current = told.subscribe("b", Some(told.position)).next().await.unwrap();
    assert_eq!((current.sequence, current.change), (told.position, FeedChange::Heartbeat));
    assert_eq!(held(&told.subscribe("b", Some(told.position - 1)).next().await.unwrap()), [39]);
}

#[tokio::test]
async fn the_more_listen_the_sooner_many_changes_are_bulk() {
    let mut told = Told::with(LIMITS).await;
    let mut alone = told.subscribe("a", None);
    let state = CertificateState::Held { since: Timestamp::from_seconds(1) };
    told.change(0..8, state);
    assert_eq!(held(&alone.change().await).len(), 8);
    let _others = (told.subscribe("b", None), told.subscribe("c", None), told.subscribe("d", None));
    told.change(10..13, state);
    assert_eq!(alone.change().await.change, FeedChange::Bulk { count: Some(3) });
    told.change(20..22, state);
    assert_eq!(held(&alone.change().await), [20, 21]);
}

#[tokio::test]
async fn a_subscription_ends_with_its_certificate_and_hears_why() {
    let mut told = Told::with(LIMITS).await;
    let (mut one, mut other) = (told.subscribe("1", None), told.subscribe("2", None));
    told.hold(1);
    assert_eq!(held(&one.change().await), [1]);
    assert_eq!(one.change().await.change, FeedChange::End { reason: FeedEnd::Certificate });
    assert_eq!(one.next().await, None);
    told.change(2..3, CertificateState::Good);
    assert_eq!(held(&other.change().await), [1]);
    assert!(matches!(other.change().await.change, FeedChange::Release { .. }), "who is released stays");

    // An identity that is held or retired has no certificate that counts, whatever becomes of each.
    let identity = holder("2").id;
    let change = IdentityChange { identity, by: "ada".into(), note: String::new() };
    let entry = Arc::new(Entry::new(Timestamp::from_seconds(1), Body::IdentityRetired(change)));
    told.entries.send(News { index: told.position, entry }).unwrap();
    assert_eq!(other.change().await.change, FeedChange::End { reason: FeedEnd::Certificate });
}

#[tokio::test]
async fn an_expired_certificate_ends_its_subscription_at_a_heartbeat() {
    let told = Told::with(FeedLimits { heartbeat: Duration::from_millis(20), ..LIMITS }).await;
    let expired = Holder { not_after: Timestamp::from_seconds(1), ..holder("a") };
    let mut reader = Reader(told.feed.subscribe(expired, None, None).unwrap());
    assert_eq!(reader.change().await.change, FeedChange::End { reason: FeedEnd::Certificate });
}

#[tokio::test]
async fn what_was_missed_is_said_and_an_end_of_the_board_ends_everything() {
    let mut told = Told::with(LIMITS).await;
    let mut reader = told.subscribe("a", None);
    told.news.send(StatusNews::Anew { sequence: 100 }).unwrap();
    let event = reader.change().await;
    assert_eq!((event.sequence, event.change), (100, FeedChange::Bulk { count: None }));
    // A gap in what the board tells is one in what is known.
    told.position = 200;
    told.hold(1);
    let event = reader.change().await;
    assert_eq!((event.after, event.sequence), (100, 201));
    assert_eq!(event.change, FeedChange::Bulk { count: None });
    let Told { feed, news, .. } = told;
    drop(news);
    assert_eq!(reader.change().await.change, FeedChange::End { reason: FeedEnd::Stopping });
    let refused = feed.subscribe(holder("b"), None, None).err();
    assert_eq!(refused, Some(SubscribeError::Ended));
}

#[tokio::test]
async fn heartbeats_vouch_for_a_log_that_grows_without_a_change() {
    let mut told = Told::with(FeedLimits { heartbeat: Duration::from_millis(20), ..LIMITS }).await;
    let mut reader = told.subscribe("a", None);
    let told_at = told.position;
    told.log.add_tokens(5).await;
    let begun = Instant::now();
    loop {
        let event = reader.next().await.unwrap();
        assert_eq!((event.leaves_gap(told_at), event.change), (false, FeedChange::Heartbeat));
        if event.sequence == told_at + 5 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    // Who reached that position has missed nothing when the next event speaks from before it.
    told.position += 5;
    told.hold(3);
    let event = reader.change().await;
    assert_eq!((event.leaves_gap(told_at), event.sequence), (false, told_at + 6));

    // A change that the board has not told yet is not vouched for.
    let change = IdentityChange { identity: holder("x").id, by: "ada".into(), note: String::new() };
    let entry = Arc::new(Entry::new(Timestamp::from_seconds(1), Body::IdentityReleased(change)));
    told.entries.send(News { index: told.position + 1, entry }).unwrap();
    told.log.add_tokens(5).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(reader.next().await.unwrap().sequence, told_at + 6);
}

#[tokio::test]
async fn a_poll_answers_with_what_is_there_or_waits() {
    let mut told = Told::with(LIMITS).await;
    let start = told.position;
    let gather = |after, wait| {
        let mut reader = told.feed.subscribe(holder("a"), None, after).unwrap();
        async move { reader.gather(wait).await }
    };
    let position = |events: &[Encoded]| events.iter().map(|event| event.sequence).collect::<Vec<_>>();
    assert_eq!(position(&gather(None, Duration::ZERO).await), [start]);
    let waiting = gather(Some(start), Duration::from_secs(10));
    told.hold(1);
    assert_eq!(position(&waiting.await), [start + 1]);
}

#[tokio::test]
async fn an_instance_is_connected_while_it_listens() {
    let told = Told::with(LIMITS).await;
    let word = FeedAcknowledgement {
        instance: "host-7".into(),
        kind: RelyingPartyKind::Proxy,
        when_unknown: WhenUnknown::Open,
        maximum_age_seconds: 60,
        sequence: told.position,
        connections_closed: 0,
        connections_open: 0,
    };
    let id = holder("a").id;
    assert!(!told.feed.acknowledge(&id, word).unwrap().connected);
    let connected = || told.feed.relying_parties().relying_parties[0].connected;
    let other = told.feed.subscribe(holder("a"), Some("host-8".into()), None).unwrap();
    assert!(!connected());
    let itself = told.feed.subscribe(holder("a"), Some("host-7".into()), None).unwrap();
    assert!(connected());
    drop((other, itself));
    assert!(!connected());
}
