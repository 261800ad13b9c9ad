//! Tiles in a bucket of a store that somebody else wrote, on a network that breaks.

#[path = "../../../tests/object_store/mod.rs"]
mod object_store;

use super::super::bucket::Bucket;
use super::*;
use crate::config::BucketPlace;
use object_store::network::{Fault, Network};
use object_store::{ObjectStore, write_credentials};

/// What all objects of the tests lie under.
const PREFIX: &str = "prod/log";

/// A bucket, and where the credentials for it lie.
struct Ground {
    store: ObjectStore,
    place: BucketPlace,
    _directory: tempfile::TempDir,
}

impl Ground {
    fn lay() -> Option<Self> {
        let store = ObjectStore::start()?;
        let directory = tempfile::tempdir().unwrap();
        let credentials = directory.path().join("s3");
        store.write_credentials("keeper", &credentials);
        let place = BucketPlace {
            name: store.ready.bucket.clone(),
            prefix: PREFIX.into(),
            endpoint: Some(store.ready.endpoint.parse().unwrap()),
            region: Some(store.ready.region.clone()),
            credentials: Some(credentials),
            roots: "/nowhere".into(),
            plain_http: false,
        };
        Some(Self { store, place, _directory: directory })
    }

    /// The same behind a network.
    async fn lay_far() -> Option<(Self, Network)> {
        let mut ground = Self::lay()?;
        let network = Network::before(&ground.store.ready.endpoint).await;
        ground.place.endpoint = Some(network.endpoint.parse().unwrap());
        Some((ground, network))
    }

    /// Whose credentials are used from now on.
    fn becomes(&self, user: &str) {
        self.store.write_credentials(user, self.place.credentials.as_ref().unwrap());
    }

    fn bucket(&self) -> Bucket {
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        Bucket::new(&self.place, |_| None, clock, random).unwrap()
    }

    async fn keeper(&self, log: &TestLog) -> Result<TileKeeper, TileError> {
        keeper_at(log, &TilePlace::Bucket(Box::new(self.place.clone()))).await
    }

    /// A keeper that does not wait long.
    async fn hurried(&self, log: &TestLog) -> TileKeeper {
        let bucket = self.bucket().with_patience(2, Duration::from_secs(2));
        let ledger: Arc<dyn Ledger> = log.ledger.clone();
        let place = TilePlace::Bucket(Box::new(self.place.clone()));
        let store = TileStore::over(&place, Shelf::Bucket(Box::new(bucket)), ledger.as_ref()).await.unwrap();
        TileKeeper::new(ledger, Arc::new(store))
    }

    fn get(&mut self, name: &str) -> Option<Vec<u8>> {
        self.store.get(&format!("{PREFIX}/{name}"))
    }

    fn put(&mut self, name: &str, bytes: &[u8]) {
        self.store.put(&format!("{PREFIX}/{name}"), bytes);
    }
}

async fn of_ledger(log: &TestLog, path: &str) -> Vec<u8> {
    read_tile(log.ledger.as_ref(), None, tile(path)).await.unwrap()
}

async fn served(log: &TestLog, keeper: &TileKeeper, path: &str) -> Vec<u8> {
    read_tile(log.ledger.as_ref(), Some(&keeper.store), tile(path)).await.unwrap()
}

/// Lets a store that failed be asked again.
async fn rest() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn full_tiles_are_objects_that_other_programs_read() {
    let Some(mut ground) = Ground::lay() else { return };
    let log = TestLog::new();
    log.add_tokens(600).await;
    let keeper = ground.keeper(&log).await.unwrap();
    assert_eq!(keeper.round().await.unwrap(), 512);
    let expected = [NAME, "tile/0/000", "tile/0/001", "tile/entries/000", "tile/entries/001"];
    assert_eq!(ground.store.names(), expected.map(|name| format!("{PREFIX}/{name}")));
    for path in &expected[1..] {
        assert!(ground.get(path).unwrap() == of_ledger(&log, path).await, "{path}");
        assert!(keeper.store.read(tile(path)).await.unwrap() == of_ledger(&log, path).await, "{path}");
    }
    let part = keeper.store.read(tile("tile/entries/001.p/7")).await.unwrap();
    assert!(part == of_ledger(&log, "tile/entries/001.p/7").await);
    assert_eq!(keeper.store.read(tile("tile/0/002.p/9")).await, None);
    let tallies = keeper.store.tallies();
    assert_eq!((tallies.kept.load(Ordering::Relaxed), tallies.made.load(Ordering::Relaxed)), (5, 1));
    assert_eq!(tallies.entries.load(Ordering::Relaxed), 512);

    // What is gone is made again; with credentials that are lent, whose session is signed too.
    ground.store.delete(&format!("{PREFIX}/{NAME}"));
    ground.store.delete(&format!("{PREFIX}/tile/0/001"));
    ground.becomes("lent");
    assert_eq!(keeper.round().await.unwrap(), 512);
    assert!(ground.get("tile/0/001").unwrap() == of_ledger(&log, "tile/0/001").await);
}

#[tokio::test]
async fn nothing_in_a_bucket_is_written_over_and_what_is_damaged_is_not_served() {
    let Some(mut ground) = Ground::lay() else { return };
    let bucket = ground.bucket();
    let write = async |text: &'static str| bucket.create("some/object", text.into()).await.unwrap();
    assert_eq!(write("first").await, Creation::Made);
    assert_eq!(write("second").await, Creation::WasThere);
    assert_eq!(ground.get("some/object").unwrap(), b"first");

    let log = TestLog::new();
    log.add_tokens(300).await;
    let keeper = ground.keeper(&log).await.unwrap();
    for forged in [vec![9; 700], vec![9; 20_000_000]] {
        ground.put("tile/entries/000", &forged);
        let refused = keeper.round().await.unwrap_err();
        assert!(
            matches!(&refused, TileError::Differs { path } if path.ends_with("tile/entries/000")),
            "{refused}"
        );
        assert!(ground.get("tile/entries/000").unwrap() == forged);
        assert!(served(&log, &keeper, "tile/entries/000").await == of_ledger(&log, "tile/entries/000").await);
    }
    ground.store.delete(&format!("{PREFIX}/tile/entries/000"));
    keeper.round().await.unwrap();

    let truth = ground.get("tile/0/000").unwrap();
    let mut marked = truth.clone();
    marked[0] ^= 1;
    ground.put("tile/0/000", &marked);
    assert!(served(&log, &keeper, "tile/0/000").await == marked, "it does not come from the ledger");
    for damaged in [&truth[..8191], &[], &[truth.clone(), truth.clone()].concat()] {
        ground.put("tile/0/000", damaged);
        assert!(served(&log, &keeper, "tile/0/000").await == truth);
    }

    let other = TestLog::new();
    let refused = ground.keeper(&other).await.err().unwrap();
    assert!(matches!(refused, TileError::OtherLog { .. }), "{refused}");
}

#[tokio::test]
async fn a_store_that_refuses_is_said_with_what_to_do_and_mended_without_a_restart() {
    let Some(mut ground) = Ground::lay() else { return };
    let log = TestLog::new();
    log.add_tokens(300).await;
    let credentials = ground.place.credentials.clone().unwrap();
    let known = &ground.store.ready.keys["keeper"].id.clone();
    let wrong = |id: &str| write_credentials(&credentials, id, "hidden", None);

    wrong(known);
    let keeper = ground.keeper(&log).await.unwrap();
    assert!(keeper.store.tallies().is_in_trouble.load(Ordering::Relaxed));
    let said = async || keeper.round().await.unwrap_err().to_string();
    let refused = said().await;
    assert!(
        refused.contains("SignatureDoesNotMatch") && refused.contains("mend the credentials"),
        "{refused}"
    );
    assert!(refused.contains("s3://rolls/prod/log/") && !refused.contains("hidden"), "{refused}");
    wrong("AKIANOBODY");
    let refused = said().await;
    assert!(refused.contains("InvalidAccessKeyId") && !refused.contains("hidden"), "{refused}");
    ground.becomes("reader");
    let refused = said().await;
    assert!(refused.contains("AccessDenied") && refused.contains("s3:PutObject"), "{refused}");
    std::fs::remove_file(&credentials).unwrap();
    assert!(said().await.contains(&*credentials.to_string_lossy()));
    ground.becomes("keeper");
    assert_eq!(keeper.round().await.unwrap(), 256);
    assert!(keeper.store.read(tile("tile/0/000")).await.is_some());

    // What is wrong on this side is said at the start.
    std::fs::remove_file(&credentials).unwrap();
    let refused = ground.keeper(&log).await.err().unwrap().to_string();
    assert!(refused.contains("there is no file"), "{refused}");
    ground.becomes("admin");
    ground.place.name = "other-rolls".into();
    let elsewhere = ground.keeper(&log).await.unwrap();
    let refused = elsewhere.round().await.unwrap_err().to_string();
    assert!(refused.contains("NoSuchBucket") && refused.contains("make the bucket"), "{refused}");
}

#[tokio::test]
async fn the_ledger_serves_while_the_store_is_away() {
    let Some((ground, network)) = Ground::lay_far().await else { return };
    let log = TestLog::new();
    log.add_tokens(300).await;
    let keeper = ground.hurried(&log).await;
    keeper.round().await.unwrap();
    let truth = of_ledger(&log, "tile/0/000").await;
    for fault in [Fault::Cut, Fault::Busy, Fault::Silent, Fault::Short] {
        network.set(fault);
        assert_eq!(keeper.store.read(tile("tile/0/000")).await, None, "{fault:?}");
        assert!(served(&log, &keeper, "tile/0/000").await == truth);
        network.set(Fault::None);
        let asked = network.connections();
        assert_eq!(keeper.store.read(tile("tile/0/000")).await, None, "{fault:?}: it is left alone");
        assert_eq!(network.connections(), asked);
        rest().await;
        assert!(keeper.store.read(tile("tile/0/000")).await.unwrap() == truth, "{fault:?}: it is back");
    }

    log.add_tokens(300).await;
    for fault in [Fault::Cut, Fault::Busy, Fault::Silent] {
        network.set(fault);
        let error = keeper.round().await.unwrap_err();
        assert!(matches!(error, TileError::Shelf { .. }), "{fault:?}: {error}");
    }
    // A fault that passes while it is tried again does no harm.
    let heals = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        network.set(Fault::None);
    };
    network.set(Fault::Busy);
    let patient = ground.bucket();
    let (fetched, ()) = tokio::join!(patient.fetch("tile/0/000", longest(TileKind::Hashes(0))), heals);
    assert!(fetched.unwrap().unwrap() == truth);
    assert_eq!(keeper.round().await.unwrap(), 512);
}

#[tokio::test]
async fn a_store_that_was_away_at_the_start_is_used_once_it_is_known_whose_it_is() {
    let Some((ground, network)) = Ground::lay_far().await else { return };
    let log = TestLog::new();
    log.add_tokens(300).await;
    ground.hurried(&log).await.round().await.unwrap();
    network.set(Fault::Cut);
    let keeper = ground.hurried(&log).await;
    network.set(Fault::None);
    assert_eq!(keeper.store.read(tile("tile/0/000")).await, None, "nobody knows yet whose it is");
    keeper.look(&mut 1).await.unwrap();
    assert!(keeper.store.read(tile("tile/0/000")).await.is_some());

    let other = TestLog::new();
    network.set(Fault::Cut);
    let stranger = ground.hurried(&other).await;
    network.set(Fault::None);
    let refused = stranger.look(&mut 1).await.unwrap_err();
    assert!(matches!(refused, TileError::OtherLog { .. }), "{refused}");
    assert_eq!(stranger.store.read(tile("tile/0/000")).await, None);
}
