//! The whole server on a database that it knows by its certificate, and that asks for the server's.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    dead_code,
    reason = "tests and what they share"
)]

#[path = "../../ledger/tests/authority/mod.rs"]
mod authority;
mod running;
#[path = "../../ledger/tests/server/mod.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use authority::Authority;
use chancery_api::{CertificateQuery, CertificateStatus, RevokeRequest, Selector};
use chancery_entry::{Body, Entry};
use chancery_ledger::Proposal;
use chancery_server::bootstrap::InitPlan;
use chancery_server::config::RawPostgres;
use chancery_types::RevocationReason;
use running::{Place, Running, plan, token_for};
use server::Server;

/// Where the server's certificate for the database lies.
struct Files(PathBuf);

impl Files {
    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// A new certificate and key for this user.
    fn renew(&self, authority: &Authority, user: &str) {
        let (certificate, key) = authority.issue(user);
        std::fs::write(self.path("client.key"), key.serialize_pem()).unwrap();
        std::fs::write(self.path("client.crt"), certificate.pem()).unwrap();
    }

    fn settings(&self) -> RawPostgres {
        RawPostgres {
            roots: Some(self.path("roots.pem")),
            certificate: Some(self.path("client.crt")),
            key: Some(self.path("client.key")),
            schema: server::schema(),
            ..RawPostgres::default()
        }
    }
}

/// Records something, or says why not.
async fn records(running: &Running) -> Result<(), String> {
    let created = running.admin().create_token(&token_for("web")).await;
    created.map(|_| ()).map_err(|error| error.to_string())
}

async fn until_it_records(running: &Running) {
    let until = Instant::now() + Duration::from_secs(60);
    while let Err(error) = records(running).await {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn set_roots(files: &Files, authority: &Authority) {
    std::fs::write(Path::new(&files.path("roots.pem")), authority.certificate.pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_follows_its_certificate_for_the_database_and_trusts_no_other_database() {
    let authority = Authority::new();
    let Some(mut database) = Server::start_with(|directory| authority.settings(directory)) else { return };
    let around = tempfile::tempdir().unwrap();
    let files = Files(around.path().to_owned());
    set_roots(&files, &authority);
    files.renew(&authority, "chancery");
    let url = database.address().replace("127.0.0.1", "localhost");
    let with_database = InitPlan { database: Some((url, files.settings())), ..plan() };
    let place = Place::with(with_database, |_| {}).await;
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    let held = running.enroll("web").await;
    let status = async || running.admin().status(held.response.serial).await;
    assert_eq!(status().await.unwrap().status, CertificateStatus::Good);

    // The certificate is renewed in place; connections that are made from then on show the new one.
    files.renew(&authority, "chancery");
    database.kill();
    tokio::task::block_in_place(|| database.restart());
    until_it_records(&running).await;
    running.renew(&held).await.unwrap();

    // One of somebody else is refused, and nothing is recorded meanwhile. Files that are no pair change nothing.
    files.renew(&authority, "somebody");
    database.kill();
    tokio::task::block_in_place(|| database.restart());
    let refused = records(&running).await.unwrap_err();
    assert!(refused.contains("certificate authentication failed"), "{refused}");
    files.renew(&authority, "chancery");
    until_it_records(&running).await;
    std::fs::write(files.path("client.key"), "half of a file").unwrap();
    database.kill();
    tokio::task::block_in_place(|| database.restart());
    until_it_records(&running).await;
    files.renew(&authority, "chancery");

    // A database under another authority is not spoken to.
    set_roots(&files, &Authority::new());
    let Running { place, server } = running;
    server.stop().await;
    drop(server);
    let refused = place.serve().await.unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
    set_roots(&files, &authority);
    place.serve().await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn full_tiles_of_a_log_in_a_database_come_from_the_directory() {
    let Some(database) = Server::find() else { return };
    let settings = RawPostgres { schema: server::schema(), ..RawPostgres::default() };
    let with_database = InitPlan { database: Some((database.address().to_owned(), settings)), ..plan() };
    let place = Place::with(with_database, |raw| raw.storage.tiles = Some("tiles".into())).await;
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    let authority = &running.server.site().authority;
    let entries = (0..300).map(|_| Entry::new(authority.clock().now(), Body::Null)).collect();
    authority.ledger().commit(vec![Proposal::new(vec![], entries).unwrap()]).await.unwrap();
    let file = running.place.file("tiles/tile/0/000");
    let until = Instant::now() + Duration::from_secs(60);
    while !file.exists() {
        assert!(Instant::now() < until, "no tile was written");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut kept = std::fs::read(&file).unwrap();
    assert_eq!(running.admin().log_tile("0/000").await.unwrap(), kept);
    kept[5] ^= 1;
    std::fs::write(&file, &kept).unwrap();
    assert_eq!(running.admin().log_tile("0/000").await.unwrap(), kept, "it is the directory's");
    assert_eq!(running.admin().log_tile("0/000.p/2").await.unwrap(), kept[..64]);
    let ledgers = authority.ledger().hashes(0, 256, 1).await.unwrap();
    assert_eq!(running.admin().log_tile("0/001.p/1").await.unwrap(), ledgers[0].as_bytes()[..]);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_decides_is_never_asked_of_a_standby() {
    let Some(database) = Server::start() else { return };
    let settings = RawPostgres { schema: server::schema(), ..RawPostgres::default() };
    let with_database = InitPlan { database: Some((database.address().to_owned(), settings)), ..plan() };
    let place = Place::with(with_database, |_| {}).await;
    let standby = tokio::task::block_in_place(|| database.standby());
    let address = standby.address().to_owned();
    place.edit(|raw| {
        let postgres = raw.storage.postgres.as_mut().unwrap();
        postgres.read = vec![address];
    });
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    // From here on it has nothing new, though it answers.
    tokio::task::block_in_place(|| standby.tell("SELECT pg_wal_replay_pause()"));
    let first = running.enroll("web").await;
    let second = running.renew(&first).await.unwrap();
    let request = RevokeRequest::new(Selector::Identity(running::id("web")), RevocationReason::KeyCompromise);
    running.admin().revoke(&request).await.unwrap();
    for held in [&first, &second] {
        let status = running.admin().status(held.response.serial).await.unwrap().status;
        assert_eq!(status, CertificateStatus::Revoked);
        let detail = running.admin().read_certificate(held.response.serial).await.unwrap();
        assert_eq!(detail.certificate.status, CertificateStatus::Revoked);
    }
    running.renew(&second).await.map(|_| ()).unwrap_err();
    // Lists may be old for a moment, while it is taken to be right behind.
    let query = CertificateQuery { identity: Some(running::id("web")), ..Default::default() };
    let until = Instant::now() + Duration::from_secs(60);
    while running.admin().list_certificates(&query).await.unwrap().items.len() < 2 {
        assert!(Instant::now() < until, "a standby that does not follow is read for ever");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    running.server.stop().await;
}
