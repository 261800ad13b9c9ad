//! Several replicas on one PostgreSQL, and everything that can break between them.
//!
//! Under load on all replicas the database is killed, a replica is killed, the network is cut or swallows what is sent.
//! Afterwards everything acknowledged is there, nothing was given twice, and there is one log.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "tests and what they share"
)]

mod replicas {
    pub(crate) mod load;
    pub(crate) mod proxy;
}
mod authority;
mod server;
mod workload;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authority::Authority;
use chancery_entry::HoldTarget;
use chancery_ledger::{
    CertificateState, CommitError, Fence, Ledger, OpenError, Outcome, PostgresError, PostgresLedger,
    PostgresOptions, Proposal, ReadModel, Standing,
};
use chancery_types::{RevocationReason, SystemRandom};
use replicas::load::{self, Load, Told};
use replicas::proxy::{Fault, Proxy};
use server::Server;
use tempfile::TempDir;

/// A schema with a ledger in it, and the directories of its replicas.
struct Place {
    schema: String,
    directories: TempDir,
}

impl Place {
    /// A new ledger, with its first replica.
    async fn create(address: &str) -> (Self, PostgresLedger) {
        let place = Self { schema: server::schema(), directories: tempfile::tempdir().unwrap() };
        let options = place.options(address, 0);
        let ledger = PostgresLedger::create(options, workload::signer(), &SystemRandom).await.unwrap();
        load::set_up(&ledger).await;
        (place, ledger)
    }

    fn options(&self, address: &str, replica: usize) -> PostgresOptions {
        let directory = self.directories.path().join(format!("replica-{replica}"));
        let mut options = PostgresOptions::new(address, directory);
        options.schema.clone_from(&self.schema);
        options.replica = format!("replica {replica}");
        options.partition = 3000;
        options
    }

    async fn open(&self, address: &str, replica: usize) -> Result<PostgresLedger, PostgresError> {
        PostgresLedger::open(self.options(address, replica), workload::signer(), &SystemRandom).await
    }

    async fn check(&self, address: &str) -> u64 {
        let signer = workload::signer();
        let options = self.options(address, 0);
        PostgresLedger::check_everything(&options, signer.as_ref(), |_, _| {}).await.unwrap().entries
    }
}

/// Waits until this holds; how long it took.
async fn until<F: Future<Output = bool>>(limit: Duration, mut holds: impl FnMut() -> F) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < limit, "not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_one_replica_acknowledged_every_replica_knows_and_tells() {
    let Some(server) = Server::find() else { return };
    let (place, first) = Place::create(server.address()).await;
    let second = place.open(server.address(), 1).await.unwrap();
    let mut news = second.news();
    let issuance = workload::issuance(1, workload::identity(1));
    let index = load::accept(&first, workload::enrolment(issuance.clone())).await;
    // At once, without waiting for a notification.
    assert_eq!(second.certificate(issuance.serial).await.unwrap().unwrap().index, index);
    assert!(second.entry(index).await.unwrap().is_some());
    assert!(second.inclusion_proof(index, index + 1).await.is_ok());
    let epoch = second.standing_epoch();
    let revocation = workload::revoke(issuance.serial, RevocationReason::KeyCompromise, workload::now());
    let revoked_at = load::accept(&first, revocation).await;
    let state = second.certificate(issuance.serial).await.unwrap().unwrap().state;
    assert!(matches!(state, CertificateState::Revoked { .. }));
    let told = tokio::time::timeout(Duration::from_secs(5), news.recv()).await.unwrap().unwrap();
    assert_eq!((told.index, told.entry.body.kind()), (revoked_at, "revocation"));
    assert_ne!(second.standing_epoch(), epoch, "by the time that it is told");
    until(Duration::from_secs(5), || async { second.head() == first.head() }).await;
    // What was decided elsewhere is seen where the order is decided, whatever was read before.
    let again = workload::revoke(issuance.serial, RevocationReason::Superseded, workload::now());
    assert_eq!(load::one(&second, again).await.unwrap_err(), Standing::Revoked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn news_comes_once_and_in_the_logs_order_at_every_replica() {
    let Some(server) = Server::find() else { return };
    let (place, first) = Place::create(server.address()).await;
    let replicas: Vec<Arc<PostgresLedger>> = vec![
        Arc::new(first),
        Arc::new(place.open(server.address(), 1).await.unwrap()),
        Arc::new(place.open(server.address(), 2).await.unwrap()),
    ];
    let mut listeners: Vec<_> = replicas.iter().map(|replica| replica.news()).collect();
    let mut tasks = Vec::new();
    for (number, replica) in (0_u64..).zip(&replicas) {
        let replica = Arc::clone(replica);
        tasks.push(tokio::spawn(async move {
            for step in 0..40 {
                let issuance = workload::issuance(number * 1000 + step, workload::identity(number));
                let lineage = HoldTarget::Lineage(issuance.lineage);
                load::accept(&*replica, workload::enrolment(issuance)).await;
                load::accept(&*replica, workload::hold(lineage, workload::now())).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let size = replicas[0].entries(0, usize::MAX).await.unwrap().len() as u64;
    let mut heard = Vec::new();
    for (listener, replica) in listeners.iter_mut().zip(&replicas) {
        until(Duration::from_secs(5), || async { replica.head().size == size }).await;
        let mut indexes = Vec::new();
        while let Ok(news) = listener.try_recv() {
            indexes.push(news.index);
        }
        assert!(indexes.is_sorted_by(|a, b| a < b), "{indexes:?}");
        heard.push(indexes);
    }
    assert_eq!(heard[0].len(), 3 * 40);
    assert!(heard.iter().all(|indexes| *indexes == heard[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_replicas_record_one_log() {
    let Some(server) = Server::find() else { return };
    let (place, first) = Place::create(server.address()).await;
    let replicas = [
        Arc::new(first),
        Arc::new(place.open(server.address(), 1).await.unwrap()),
        Arc::new(place.open(server.address(), 2).await.unwrap()),
    ];
    let load = Load::start(&replicas, 8);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let told = load.stop().await;
    println!("{} entries acknowledged by three replicas in 3 s", told.entries.len());
    told.verify(&*replicas[0]).await;
    assert_eq!(
        place.check(server.address()).await,
        replicas[0].entries(0, usize::MAX).await.unwrap().len() as u64
    );
}

/// Work at two replicas while faults come and go; what happened, and how long it took to work again each time.
async fn under_faults(
    place: &Place,
    replicas: &[Arc<PostgresLedger>],
    faults: impl AsyncFnOnce(&Load) -> Vec<Duration>,
    address: &str,
) -> Told {
    let load = Load::start(replicas, 4);
    load.works(Duration::from_secs(20)).await;
    let back = faults(&load).await;
    println!("back after {back:?}");
    load.works(Duration::from_secs(20)).await;
    let told = load.stop().await;
    println!("{} acknowledged, {} tries had no answer", told.entries.len(), told.unanswered);
    told.verify(&*replicas[0]).await;
    place.check(address).await;
    for back in back {
        assert!(back < Duration::from_secs(5), "it took {back:?} until commits worked again");
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_database_loses_nothing_that_was_acknowledged() {
    let Some(mut server) = Server::start() else { return };
    let address = server.address().to_owned();
    let (place, first) = Place::create(&address).await;
    let replicas = [Arc::new(first), Arc::new(place.open(&address, 1).await.unwrap())];
    let faults = async |load: &Load| {
        let mut back = Vec::new();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            server.kill();
            tokio::time::sleep(Duration::from_millis(200)).await;
            server.restart();
            back.push(load.works(Duration::from_secs(20)).await);
        }
        back
    };
    under_faults(&place, &replicas, faults, &address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_network_that_is_cut_or_swallows_what_is_sent_loses_nothing() {
    let Some(server) = Server::find() else { return };
    let (place, first) = Place::create(server.address()).await;
    let proxy = Proxy::start(server.address()).await;
    // One replica behind the proxy, the other beside it.
    let replicas = [Arc::new(first), Arc::new(place.open(&proxy.address, 1).await.unwrap())];
    let behind = Arc::clone(&replicas[1]);
    let faults = async |load: &Load| {
        let mut back = Vec::new();
        for fault in [Fault::Cut, Fault::SwallowAnswers, Fault::SwallowAll, Fault::Cut, Fault::SwallowAnswers]
        {
            proxy.set(fault);
            tokio::time::sleep(Duration::from_millis(700)).await;
            // The other is held up for as long as the silent one may keep the lock, and not for ever.
            load.works_at(0, Duration::from_secs(10)).await;
            proxy.set(Fault::None);
            back.push(load.works_at(1, Duration::from_secs(20)).await);
        }
        back
    };
    under_faults(&place, &replicas, faults, server.address()).await;
    assert_eq!(behind.halted(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_whose_answer_is_lost_is_recorded_once_and_acknowledged() {
    let Some(server) = Server::find() else { return };
    let (place, _first) = Place::create(server.address()).await;
    let proxy = Proxy::start(server.address()).await;
    let replica = place.open(&proxy.address, 1).await.unwrap();
    for (fault, number) in [(Fault::LoseAnswerToCommit, 1), (Fault::LoseCommit, 2)] {
        let before = replica.head().size;
        proxy.set(fault);
        // Nothing in these entries tells one from the other: only the database knows whether it was this one.
        let nulls = || workload::propose(vec![], workload::now(), vec![chancery_entry::Body::Null; 3]);
        let began = Instant::now();
        assert_eq!(load::accept(&replica, nulls()).await, before, "{fault:?}");
        println!("{fault:?}: acknowledged after {:?}", began.elapsed());
        assert_eq!(replica.head().size, before + 3);
        assert_eq!(load::accept(&replica, workload::registration(3000 + number)).await, before + 3);
    }
    let size = replica.head().size;
    drop(replica);
    assert_eq!(place.check(server.address()).await, size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn standing_is_not_vouched_for_while_the_database_is_away() {
    let Some(server) = Server::find() else { return };
    let (place, _first) = Place::create(server.address()).await;
    let proxy = Proxy::start(server.address()).await;
    let replica = place.open(&proxy.address, 1).await.unwrap();
    until(Duration::from_secs(5), || async { replica.standing_epoch() == replica.standing_epoch() }).await;
    proxy.set(Fault::SwallowAll);
    let gone = || async { replica.standing_epoch() != replica.standing_epoch() };
    let took = until(Duration::from_secs(3), gone).await;
    assert!(took < Duration::from_millis(1600), "vouched for {took:?} longer");
    proxy.set(Fault::None);
    let back = || async { replica.standing_epoch() == replica.standing_epoch() };
    until(Duration::from_secs(15), back).await;
}

/// The directory as it is now.
fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_from_an_old_backup_is_refused_by_every_replica() {
    let Some(mut server) = Server::start() else { return };
    let address = server.address().to_owned();
    let (place, first) = Place::create(&address).await;
    let second = place.open(&address, 1).await.unwrap();
    for number in 0..20 {
        load::accept(&first, workload::registration(1000 + number)).await;
    }
    let backed_up = first.head().size;
    server.kill();
    let backup = server.data().with_extension("backup");
    copy(&server.data(), &backup);
    server.restart();
    let issuance = workload::issuance(7, workload::identity(1));
    load::accept(&first, workload::enrolment(issuance.clone())).await;
    load::accept(&first, workload::revoke(issuance.serial, RevocationReason::KeyCompromise, workload::now()))
        .await;
    let published = first.head().size;
    until(Duration::from_secs(5), || async { second.head().size == published }).await;
    drop(first); // A clean stop: its checkpoint is on its disk.

    server.kill();
    std::fs::remove_dir_all(server.data()).unwrap();
    std::fs::rename(&backup, server.data()).unwrap();
    server.restart();

    // The one that runs refuses to write, and to tell that a revoked certificate is good.
    let refused = second.commit(vec![workload::registration(5000)]).await.unwrap_err();
    let CommitError::Halted { reason } = &refused else { panic!("{refused:?}") };
    println!("{reason}");
    assert!(reason.contains("two ways out"), "{reason}");
    assert!(reason.contains(&format!("has {backed_up} entries, but {published} were published")), "{reason}");
    assert!(second.certificate(issuance.serial).await.is_err());
    assert!(second.entry(0).await.is_err());
    // The one that starts refuses to start.
    let refused = place.open(&address, 0).await.unwrap_err();
    let fence = Fence::Behind { found: backed_up, published };
    assert!(matches!(&refused, PostgresError::Fenced(found) if *found == fence), "{refused}");
    drop(second);
    assert!(place.open(&address, 1).await.is_err());

    // Nobody else can make it grow into another log that looks long enough.
    let forker = place.open(&address, 7).await.unwrap();
    for number in 0..10 {
        load::accept(&forker, workload::registration(6000 + number)).await;
    }
    drop(forker);
    let refused = place.open(&address, 0).await.unwrap_err();
    assert!(matches!(&refused, PostgresError::Fenced(Fence::NotPublished { .. })), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_was_passed_over_or_points_elsewhere_is_refused() {
    let Some(server) = Server::find() else { return };
    let (place, ledger) = Place::create(server.address()).await;
    let (client, connection) =
        tokio_postgres::connect(server.address(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let statement = |text: &str| text.replace('@', &place.schema);
    // Somebody takes the log over.
    client.batch_execute(&statement("UPDATE @.head SET epoch = epoch + 1")).await.unwrap();
    let refused = ledger.commit(vec![workload::registration(5000)]).await.unwrap_err();
    assert!(refused.to_string().contains("taken over"), "{refused}");
    assert!(ledger.entry(0).await.is_ok(), "what is there is still the log");
    drop(ledger);
    let ledger = place.open(server.address(), 0).await.unwrap();
    load::accept(&ledger, workload::registration(5000)).await;
    // The log moves elsewhere.
    client.batch_execute(&statement("UPDATE @.head SET closed = 'moved to the attic'")).await.unwrap();
    let refused = ledger.commit(vec![workload::registration(5001)]).await.unwrap_err();
    assert!(refused.to_string().contains("moved to the attic"), "{refused}");
    drop(ledger);
    assert!(matches!(place.open(server.address(), 0).await, Err(PostgresError::Fenced(Fence::Closed(_)))));
    // Another log altogether, under this replica's directory.
    let (other, _) = Place::create(server.address()).await;
    let mut options = other.options(server.address(), 0);
    options.directory = place.directories.path().join("replica-0");
    let refused = PostgresLedger::open(options, workload::signer(), &SystemRandom).await.unwrap_err();
    assert!(
        matches!(&refused, PostgresError::Fenced(Fence::Behind { .. } | Fence::NotPublished { .. })),
        "{refused}"
    );
    let stranger = workload::signer_of("example.org/other", 7);
    let refused =
        PostgresLedger::open(other.options(server.address(), 5), stranger, &SystemRandom).await.unwrap_err();
    assert!(matches!(&refused, PostgresError::Fenced(Fence::OtherLog { .. })), "{refused}");
    let stranger = workload::signer_of(workload::ORIGIN, 8);
    let refused =
        PostgresLedger::open(other.options(server.address(), 0), stranger, &SystemRandom).await.unwrap_err();
    assert!(matches!(&refused, PostgresError::Checkpoint(OpenError::Checkpoint { .. })), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_not_there_or_not_durable_is_said() {
    let Some(server) = Server::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut options = PostgresOptions::new(server.address(), directory.path().to_owned());
    options.schema = server::schema();
    let open = async |options: PostgresOptions| {
        PostgresLedger::open(options, workload::signer(), &SystemRandom).await.unwrap_err()
    };
    assert!(matches!(open(options.clone()).await, PostgresError::Missing { .. }));
    let schema = |schema: &str| PostgresOptions { schema: schema.into(), ..options.clone() };
    for name in ["", "Log", "1log", "log;drop", "l\"og"] {
        assert!(matches!(open(schema(name)).await, PostgresError::Settings(_)), "{name}");
    }
    let url = |url: &str| PostgresOptions { url: url.into(), ..options.clone() };
    let refused = open(url("postgres://somebody:secret@127.0.0.1:port/")).await;
    assert!(!refused.to_string().contains("secret"), "{refused}");
    assert!(!format!("{options:?}").contains("postgres://"), "{options:?}");
    let lossy = format!("{}?options=-c%20synchronous_commit%3Doff", server.address());
    let made = PostgresLedger::create(url(&lossy), workload::signer(), &SystemRandom).await;
    assert!(matches!(made, Err(PostgresError::NotDurable { .. })), "{made:?}");
    let made = PostgresLedger::create(options.clone(), workload::signer(), &SystemRandom).await.unwrap_err();
    assert!(matches!(made, PostgresError::Exists { .. }), "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_altered_database_does_not_pass_the_check() {
    let Some(server) = Server::find() else { return };
    let (client, connection) =
        tokio_postgres::connect(server.address(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let alterations = [
        "UPDATE @.entries SET bytes = bytes || '\\x00' WHERE index = 3",
        "UPDATE @.entries SET leaf = sha256('another') WHERE index = 3",
        "DELETE FROM @.entries WHERE index = 3",
        "UPDATE @.hashes SET hash = sha256('another') WHERE index = 0",
        "UPDATE @.model SET value = value || '\\x00' WHERE key = (SELECT key FROM @.model ORDER BY key DESC LIMIT 1)",
        "DELETE FROM @.model WHERE key = (SELECT key FROM @.model ORDER BY key LIMIT 1)",
        "INSERT INTO @.model VALUES ('\\x7a7a', '')",
        "UPDATE @.head SET root = sha256('another')",
    ];
    for alteration in alterations {
        let (place, ledger) = Place::create(server.address()).await;
        let proposals: Vec<Proposal> = (0..300).map(|n| workload::registration(1000 + n)).collect();
        let outcomes = ledger.commit(proposals).await.unwrap();
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })));
        drop(ledger);
        assert!(place.check(server.address()).await > 300);
        client.batch_execute(&alteration.replace('@', &place.schema)).await.unwrap();
        let options = place.options(server.address(), 0);
        let checked = PostgresLedger::check_everything(&options, &workload::signer(), |_, _| {}).await;
        println!("{alteration}: {}", checked.unwrap_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pooler_that_gives_each_transaction_another_session_does_no_harm() {
    let Some(server) = Server::find() else { return };
    let Some(pooler) = server::Pooler::start(&server) else { return };
    let (place, first) = Place::create(&pooler.address).await;
    // This one hears nothing, for it listens through the pooler; the other has the server's own address.
    let mut options = place.options(&pooler.address, 1);
    options.listen_url = Some(server.address().to_owned());
    let second = PostgresLedger::open(options, workload::signer(), &SystemRandom).await.unwrap();
    let replicas = [Arc::new(first), Arc::new(second)];
    let load = Load::start(&replicas, 6);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = load.stop().await;
    println!("{} acknowledged through the pooler", told.entries.len());
    assert_eq!(told.unanswered, 0);
    told.verify(&*replicas[0]).await;
    for replica in &replicas {
        let size = replica.entries(0, usize::MAX).await.unwrap().len() as u64;
        until(Duration::from_secs(3), || async { replica.head().size == size }).await;
    }
    place.check(&pooler.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_database_is_known_by_its_certificate_and_asks_for_ours() {
    let authority = Authority::new();
    let Some(server) = Server::start_with(|directory| authority.settings(directory)) else { return };
    let plain = server.address().to_owned();
    let address = plain.replace("127.0.0.1", "localhost") + "?sslmode=require";
    let place = Place { schema: server::schema(), directories: tempfile::tempdir().unwrap() };
    let with = |url: &str, tls: Option<rustls::ClientConfig>| {
        let mut options = place.options(url, 0);
        options.tls = tls.map(Arc::new);
        options
    };
    let create = |options| PostgresLedger::create(options, workload::signer(), &SystemRandom);
    let refused = create(with(&address, None)).await.unwrap_err();
    println!("without TLS: {refused}");
    let stranger = Authority::new().client("chancery", &authority);
    let refused = create(with(&address, Some(stranger))).await.unwrap_err();
    println!("with a certificate of nobody: {refused}");
    let of_stranger = authority.client("chancery", &Authority::new());
    let refused = create(with(&address, Some(of_stranger))).await.unwrap_err();
    println!("trusting another authority: {refused}");
    assert!(refused.to_string().contains("certificate"), "{refused}");
    let somebody = authority.client("somebody", &authority);
    let refused = create(with(&address, Some(somebody))).await.unwrap_err();
    println!("as somebody else: {refused}");
    let ours = authority.client("chancery", &authority);
    let ledger = create(with(&address, Some(ours))).await.unwrap();
    load::set_up(&ledger).await;
    assert!(ledger.entry(0).await.unwrap().is_some());
}

impl Authority {
    /// Somebody with a certificate of this authority, who trusts that one.
    fn client(&self, name: &str, trusted: &Authority) -> rustls::ClientConfig {
        let (certificate, key) = self.issue(name);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.certificate.der().clone()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }
}

/// Where the children find their ledger: address, schema, directory and a number, with spaces between.
const CHILD: &str = "CHANCERY_REPLICA_TEST_CHILD";

/// A replica in a process of its own, at work.
struct Child {
    process: std::process::Child,
    lines: std::thread::JoinHandle<Vec<(u64, chancery_types::SerialNumber)>>,
    heard: Arc<std::sync::atomic::AtomicU64>,
}

impl Child {
    fn start(place: &Place, address: &str, number: usize) -> Self {
        use std::io::{BufRead, BufReader};
        use std::sync::atomic::Ordering;
        let directory = place.directories.path().join(format!("child-{number}"));
        let words = format!("{address} {} {} {number}", place.schema, directory.display());
        let mut process = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_of_the_replica_test", "--nocapture"])
            .env(CHILD, words)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let heard = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counter = Arc::clone(&heard);
        let lines = std::thread::spawn(move || {
            let mut told = Vec::new();
            for line in lines.map_while(Result::ok) {
                // The last line may be torn: what was not said whole was not said.
                if let ["ack", index, serial, "."] = line.split(' ').collect::<Vec<_>>()[..] {
                    told.push((index.parse().unwrap(), serial.parse().unwrap()));
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
            told
        });
        Self { process, lines, heard }
    }

    /// Waits until it has acknowledged so many more.
    async fn works(&self, more: u64) -> Duration {
        use std::sync::atomic::Ordering;
        let wanted = self.heard.load(Ordering::SeqCst) + more;
        until(Duration::from_secs(30), || async { self.heard.load(Ordering::SeqCst) >= wanted }).await
    }

    fn kill(mut self, told: &mut Told) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        told.entries.extend(self.lines.join().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_loses_nothing_and_holds_nobody_up() {
    let Some(server) = Server::find() else { return };
    let (place, ledger) = Place::create(server.address()).await;
    let mut told = Told::default();
    let survivor = Child::start(&place, server.address(), 0);
    survivor.works(5).await;
    for round in 1..=6 {
        let child = Child::start(&place, server.address(), round);
        child.works(1 + 3 * round as u64).await;
        child.kill(&mut told);
        let took = survivor.works(5).await;
        assert!(took < Duration::from_secs(5), "the other was held up for {took:?}");
    }
    survivor.kill(&mut told);
    println!("{} acknowledged by seven processes, all killed", told.entries.len());
    told.verify(&ledger).await;
    drop(ledger);
    place.check(server.address()).await;
}

/// Not a test: what the children run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_of_the_replica_test() {
    let Ok(words) = std::env::var(CHILD) else { return };
    let [address, schema, directory, number] = words.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{words}")
    };
    let mut options = PostgresOptions::new(address, directory.into());
    options.schema = schema.into();
    let ledger = PostgresLedger::open(options, workload::signer(), &SystemRandom).await.unwrap();
    let number: u64 = number.parse().unwrap();
    // Counters of its own: those of others are refused, and refusals say nothing here.
    load::work_aloud(Arc::new(ledger), 1 + number * 100_000).await;
}
