//! kill -9 at random moments under load. After each the authority starts again by itself, everything that it had
//! acknowledged is there, and what it had not answered can be asked again.
//!
//! A few rounds here; `scripts/crash` runs as many as it is told.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod running;
mod witness;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chancery_server::Server;
use chancery_server::authority::OnlineRoot;
use chancery_server::config::Config;
use chancery_types::{Random as _, SystemClock, SystemRandom};
use chancery_x509::crl::CrlView;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use running::Place;
use witness::{Found, Note, look_for, send_again, work};

/// Tells a process of this program which authority to serve.
const SERVES: &str = "CHANCERY_TEST_SERVES";
/// How many rounds.
const ROUNDS: &str = "CHANCERY_CRASH_ROUNDS";
const WORKERS: usize = 4;

/// The highest number seen in each file.
type Lists = Arc<Mutex<BTreeMap<PathBuf, u64>>>;

/// Every file of a list is a whole one, and none is older than what was there before.
fn look_at_lists(directory: &Path, lists: &Lists) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            look_at_lists(&path, lists);
        } else if path.extension().is_some_and(|extension| extension == "crl") {
            let der = std::fs::read(&path).unwrap();
            let list = CrlView::from_der(&der).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let number = list.number_u64().unwrap();
            let mut lists = lists.lock().unwrap();
            let before = lists.entry(path.clone()).or_insert(number);
            assert!(*before <= number, "{}: {number} after {before}", path.display());
            *before = number;
        }
    }
}

/// Reads the lists all the time, as a program that is given files does.
struct Reader(Arc<AtomicBool>, std::thread::JoinHandle<()>);

impl Reader {
    fn start(place: &Place, lists: Lists) -> Self {
        let (stop, directory) = (Arc::new(AtomicBool::new(false)), place.file("crl"));
        let stopped = Arc::clone(&stop);
        let reading = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                look_at_lists(&directory, &lists);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self(stop, reading)
    }

    fn stop(self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kill_nine() {
    let rounds: u32 = std::env::var(ROUNDS).map_or(3, |text| text.parse().unwrap());
    let place = Place::new().await;
    // The load revokes more than one operator may by himself.
    place.edit(|raw| raw.revocation.limit_share = 100);
    let address = place.config().api;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let note: Note = {
        let lines = Arc::clone(&lines);
        Arc::new(move |line| lines.lock().unwrap().push(line))
    };
    let lists = Lists::default();
    let (mut again, mut slowest, mut last) = (0, Duration::ZERO, Found::default());
    for round in 1..=rounds {
        let began = Instant::now();
        let mut child = serve(&place, address).await;
        slowest = slowest.max(began.elapsed());
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader::start(&place, Arc::clone(&lists));
        let delay = Duration::from_millis(150 + random_below(1_000));
        let kill = async {
            tokio::time::sleep(delay).await;
            // SIGKILL: no handler, no destructor, nothing is flushed.
            child.start_kill().unwrap();
            child.wait().await.unwrap()
        };
        let (unanswered, _) = tokio::join!(work(&place, address, WORKERS, Arc::clone(&note), stop), kill);
        reader.stop();
        look_at_lists(&place.file("crl"), &lists);
        let mut child = serve(&place, address).await;
        again += send_again(&place, address, unanswered, &note).await;
        child.start_kill().unwrap();
        child.wait().await.unwrap();
        let acknowledged = lines.lock().unwrap().clone();
        let whole = rounds <= 5 || round % 10 == 0 || round == rounds;
        last =
            look_for(&place, &acknowledged, whole).await.unwrap_or_else(|why| panic!("round {round}: {why}"));
        println!(
            "round {round}/{rounds}: killed after {delay:?}, {} acknowledged, all there",
            acknowledged.len()
        );
    }
    println!(
        "tally: {rounds} kills ({} of the server in all), nothing lost: {} certificates, {} revocations, {} tokens, \
         {} spends, {} checkpoints consistent; {again} requests sent again; {} entries audited; slowest start {slowest:?}",
        2 * rounds,
        last.certificates,
        last.revocations,
        last.tokens,
        last.spent,
        last.checkpoints,
        last.audited
    );
    assert!(last.certificates > 0 && last.revocations > 0 && last.checkpoints > 0, "{last:?}");
}

async fn serve(place: &Place, address: SocketAddr) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["serves_until_it_is_killed", "--exact", "--nocapture", "--ignored"])
        .env(SERVES, place.file("chancery.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = said.next_line().await.unwrap() {
        if line.ends_with("serving") {
            // It has nothing more to say, and nobody reads it.
            return child;
        }
    }
    panic!("no server at {address}: {:?}", child.wait().await);
}

/// Not a test: the process that the test above starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that the test above starts"]
async fn serves_until_it_is_killed() {
    let Ok(path) = std::env::var(SERVES) else { return };
    let config = Config::load(&PathBuf::from(path)).unwrap();
    let server = Server::start(config, OnlineRoot::Refuse, Arc::new(SystemClock), Arc::new(SystemRandom));
    let _server = server.await.unwrap();
    println!("serving");
    std::future::pending::<()>().await;
}

fn random_below(limit: u64) -> u64 {
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) % limit
}
