//! The whole server with full tiles in an object store: what is published there, who audits it, and what happens when the
//! store is away.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, reason = "tests and what they share")]

mod object_store;
mod running;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chancery_api::{AuditExportQuery, RevokeRequest, Selector};
use chancery_entry::{Body, Entry};
use chancery_ledger::Proposal;
use chancery_server::tiles::{Examination, Writing, examine};
use chancery_types::RevocationReason;
use chancery_verify::audit::{AuditOptions, AuditReport, Directory, JsonLines, audit, unpack};
use object_store::network::{Fault, Network};
use object_store::{ObjectStore, write_credentials};
use running::{Place, Running, id, plan, published};

/// An authority whose tiles are to lie in a store.
async fn with_tiles(store: &ObjectStore, endpoint: &str) -> Place {
    let place = Place::with(plan(), |raw| {
        raw.storage.tiles = Some(format!("s3://{}/log", store.ready.bucket));
        raw.storage.tiles_endpoint = Some(endpoint.to_owned());
        raw.storage.tiles_region = Some(store.ready.region.clone());
        raw.storage.tiles_credentials = Some("keys/tiles".into());
    })
    .await;
    store.write_credentials("keeper", &place.file("keys/tiles"));
    place
}

async fn record(running: &Running, count: usize) {
    let authority = &running.server.site().authority;
    let entries = (0..count).map(|_| Entry::new(authority.clock().now(), Body::Null)).collect();
    authority.ledger().commit(vec![Proposal::new(vec![], entries).unwrap()]).await.unwrap();
}

async fn until_kept(store: &mut ObjectStore, name: &str) -> Vec<u8> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = store.get(name) {
            return found;
        }
        assert!(Instant::now() < until, "{name} was not written");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An export as a directory whose tiles are those that the server serves.
async fn mirror(running: &Running, root: &Path) {
    let mut export = Vec::new();
    let mut stream = running.admin().export_audit(&AuditExportQuery::default()).await.unwrap();
    while let Some(part) = stream.next_chunk().await.unwrap() {
        export.extend_from_slice(&part);
    }
    unpack(&mut JsonLines::open(export.as_slice()).unwrap(), root).unwrap();
    let tiles = files(&root.join("tile"));
    assert!(tiles.len() > 6, "{tiles:?}");
    for file in tiles {
        let name = file.strip_prefix(root.join("tile")).unwrap().to_str().unwrap().to_owned();
        std::fs::write(&file, running.admin().log_tile(&name).await.unwrap()).unwrap();
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

async fn verdict(running: &Running) -> AuditReport {
    let key = String::from_utf8(running.admin().log_key().await.unwrap().to_vec()).unwrap();
    let options = AuditOptions { log: Some(key.trim_end().parse().unwrap()), ..AuditOptions::default() };
    let around = tempfile::tempdir().unwrap();
    let root = around.path().join("log");
    mirror(running, &root).await;
    audit(&mut Directory::open(&root).unwrap(), &options, &mut |_| {}).unwrap()
}

/// What the doctor sees.
async fn look(running: &Running) -> (Result<Option<u64>, String>, Result<Writing, String>) {
    match examine(&running.place.config()).await.unwrap() {
        Examination::Seen { place, reach, writing } if place == "s3://rolls/log" => (reach, writing),
        other => panic!("{other:?}"),
    }
}

async fn metric(running: &Running, line: &str) -> f64 {
    let page = String::from_utf8(running.admin().metrics().await.unwrap().to_vec()).unwrap();
    let value = page.lines().find_map(|found| found.strip_prefix(line)).unwrap_or_else(|| panic!("{page}"));
    value.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_is_audited_through_the_tiles_in_an_object_store() {
    let Some(mut store) = ObjectStore::start() else { return };
    let place = with_tiles(&store, &store.ready.endpoint).await;
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    let held = running.enroll("web").await;
    running.renew(&held).await.unwrap();
    let revocation = RevokeRequest::new(Selector::Identity(id("web")), RevocationReason::KeyCompromise);
    running.admin().revoke(&revocation).await.unwrap();
    record(&running, 600).await;
    published(&running.server).await;
    let kept = until_kept(&mut store, "log/tile/0/001").await;
    until_kept(&mut store, "log/tile/entries/001").await;
    assert_eq!(running.admin().log_tile("0/001").await.unwrap(), kept);

    let report = verdict(&running).await;
    assert!(report.findings.are_clean(), "{:?}", report.findings.list());
    assert!(report.entries > 600 && report.certificates >= 2, "{report:?}");
    assert!(metric(&running, "chancery_tile_answers_total{from=\"store\"}").await >= 5.0);
    assert!(metric(&running, "chancery_tiles_entries").await >= 512.0);
    assert!(metric(&running, "chancery_tiles_trouble").await < 1.0);

    // What is audited is what the store has: somebody who alters it is found out.
    let truth = store.get("log/tile/entries/000").unwrap();
    let mut altered = truth.clone();
    *altered.last_mut().unwrap() ^= 1;
    store.put("log/tile/entries/000", &altered);
    let report = verdict(&running).await;
    assert!(!report.findings.are_clean());
    store.put("log/tile/entries/000", &truth);
    assert!(verdict(&running).await.findings.are_clean());

    // Whoever looks after it sees that it can be read and written, and why not.
    let (reach, writing) = look(&running).await;
    assert!(reach.unwrap().unwrap() >= 512);
    assert_eq!(writing, Ok(Writing::Once));
    assert_eq!(store.get("log/chancery-doctor").unwrap(), b"chancery doctor was here\n");
    store.write_credentials("reader", &running.place.file("keys/tiles"));
    let (reach, writing) = look(&running).await;
    assert!(reach.is_ok() && writing.unwrap_err().contains("AccessDenied"));
    write_credentials(&running.place.file("keys/tiles"), &store.ready.keys["keeper"].id, "hidden", None);
    let refused = look(&running).await.0.unwrap_err();
    assert!(refused.contains("SignatureDoesNotMatch") && !refused.contains("hidden"), "{refused}");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_goes_on_and_starts_while_its_object_store_is_away() {
    let Some(mut store) = ObjectStore::start() else { return };
    let network = Network::before(&store.ready.endpoint).await;
    let place = with_tiles(&store, &network.endpoint).await;
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    record(&running, 300).await;
    let kept = until_kept(&mut store, "log/tile/0/000").await;

    network.set(Fault::Cut);
    assert_eq!(running.admin().log_tile("0/000").await.unwrap(), kept, "from the ledger");
    running.enroll("web").await;
    record(&running, 300).await;
    let until = Instant::now() + Duration::from_secs(60);
    while metric(&running, "chancery_tiles_trouble").await < 1.0 {
        assert!(Instant::now() < until, "nobody notices");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let Running { place, server } = running;
    server.stop().await;
    drop(server);
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    assert_eq!(running.admin().log_tile("0/000").await.unwrap(), kept, "from the ledger");
    let second = running.admin().log_tile("0/001").await.unwrap();

    network.set(Fault::None);
    assert_eq!(until_kept(&mut store, "log/tile/0/001").await, second);
    while metric(&running, "chancery_tiles_trouble").await > 0.0 {
        assert!(Instant::now() < until, "it is not over");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    running.server.stop().await;
}
