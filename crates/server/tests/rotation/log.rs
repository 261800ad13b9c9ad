//! Keys of the log: published, vouched for, side by side, alone.

use chancery_api::{
    AuditExportQuery, CaStatusResponse, LogKeyPhase, RollbackRequest, RotateRequest, RotationSubject,
};
use chancery_merkle::{LogKeys, VerifiedCheckpoint};
use chancery_status::SignedSet;
use chancery_verify::audit::{AuditOptions, AuditReport, JsonLines, audit};
use chancery_verify::log_keys::follow_log_keys;
use chancery_verify::receipt::LogTrust;
use data_encoding::BASE64;

use super::running::{Place, Running, plan};
use super::{quick, status, until};

async fn running() -> Running {
    let place = Place::with(plan(), |raw| {
        quick(raw);
        raw.rotation.log_overlap = "5s".parse().unwrap();
        raw.status.set_refresh = "1h".parse().unwrap();
    })
    .await;
    let server = place.serve().await.unwrap();
    Running { place, server }
}

fn rotate() -> RotateRequest {
    RotateRequest { subject: RotationSubject::Log, dry_run: false, note: "once a year".into() }
}

fn back() -> RollbackRequest {
    RollbackRequest { subject: RotationSubject::Log, dry_run: false, note: String::new() }
}

/// The phases of the keys that are published or sign.
fn phases(status: &CaStatusResponse) -> Vec<&str> {
    let mut phases: Vec<&str> = status.log_keys.iter().map(|key| key.phase.as_str()).collect();
    phases.sort_unstable();
    phases
}

/// The key that the server shows.
async fn shown(running: &Running) -> LogKeys {
    String::from_utf8(running.admin().log_key().await.unwrap().to_vec()).unwrap().parse().unwrap()
}

async fn checkpoint(running: &Running) -> String {
    String::from_utf8(running.admin().log_checkpoint().await.unwrap().to_vec()).unwrap()
}

fn is_believed(checkpoint: &str, keys: &LogKeys) -> bool {
    VerifiedCheckpoint::open_text(checkpoint, keys, &[]).is_ok()
}

async fn audited(running: &Running, known: &LogKeys, earlier: Option<String>) -> AuditReport {
    let mut export = running.admin().export_audit(&AuditExportQuery::default()).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(part) = export.next_chunk().await.unwrap() {
        bytes.extend_from_slice(&part);
    }
    let options = AuditOptions { log: Some(known.clone()), earlier, ..AuditOptions::default() };
    audit(&mut JsonLines::open(bytes.as_slice()).unwrap(), &options, &mut |_| {}).unwrap()
}

async fn believes_the_set(running: &Running, keys: &LogKeys) {
    for _ in 0..200 {
        let set = running.admin().status_set().await.unwrap();
        if SignedSet::open(set, &"example.org".parse().unwrap(), keys.as_slice()).is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("no set is signed by {keys}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_knows_the_first_key_of_the_log_is_led_to_the_last() {
    let running = running().await;
    let admin = running.admin();
    let known = shown(&running).await;
    let (early, serial) = (checkpoint(&running).await, running.enroll("early").await.response.serial);
    let old_receipt = admin.log_proof(serial).await.unwrap();

    admin.ca_rotate(&rotate()).await.unwrap();
    let keys = admin.log_keys().await.unwrap();
    let stated: Vec<LogKeyPhase> = keys.keys.iter().map(|key| key.phase).collect();
    assert_eq!(stated, [LogKeyPhase::Active, LogKeyPhase::Published]);
    assert_eq!(shown(&running).await, known, "it signs nothing yet");

    until(&running, "another key of the log", |status| phases(status) == ["active", "superseded"]).await;
    let next = shown(&running).await;
    assert_ne!(next, known);
    let both = checkpoint(&running).await;
    assert!(is_believed(&both, &known) && is_believed(&both, &next), "{both}");
    // Though nothing changes that it tells of, and the one in place is good for an hour.
    believes_the_set(&running, &next).await;

    until(&running, "the new key alone", |status| phases(status) == ["active"]).await;
    let alone = checkpoint(&running).await;
    assert!(!is_believed(&alone, &known) && is_believed(&alone, &next), "{alone}");
    let led = follow_log_keys(&known, &admin.log_keys().await.unwrap()).unwrap();
    assert_eq!(led, next);
    believes_the_set(&running, &next).await;

    let report = audited(&running, &known, Some(early)).await;
    assert_eq!(report.findings.list(), [], "by the first key alone: {:#?}", report.findings.list());
    let receipt = admin.log_proof(serial).await.unwrap();
    let entry = BASE64.decode(receipt.entry.as_bytes()).unwrap();
    assert!(LogTrust::new(next.clone()).verify_entry(&receipt.receipt, &entry).is_ok());
    assert!(LogTrust::new(known.clone()).verify_entry(&old_receipt.receipt, &entry).is_ok(), "as ever");

    // After a start, too; and when the old key is destroyed.
    let running = running.again(|_| {}).await;
    assert!(is_believed(&checkpoint(&running).await, &next));
    std::fs::remove_file(running.place.file("keys/ledger.key")).unwrap();
    let running = running.again(|raw| raw.keys.ledger = "keys/ledger-2.key".into()).await;
    running.enroll("web").await;
    assert!(is_believed(&checkpoint(&running).await, &next));
    running.admin().ca_rotate(&rotate()).await.unwrap();
    until(&running, "a third key", |status| phases(status) == ["active", "superseded"]).await;
    assert!(running.place.file("keys/ledger-3.key").exists());
    let report = audited(&running, &known, None).await;
    assert_eq!(report.findings.list(), [], "{:#?}", report.findings.list());
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_the_log_can_be_taken_back_before_it_signs_and_after() {
    let running = running().await;
    let admin = running.admin();
    let first = shown(&running).await;
    admin.ca_rotate(&rotate()).await.unwrap();
    let undone = admin.ca_rollback(&back()).await.unwrap();
    assert!(undone.done[0].ends_with("signs no more"), "{undone:?}");
    assert_eq!(
        (phases(&status(&running).await), status(&running).await.paused),
        (vec!["active"], vec!["log".into()])
    );

    let running = running.again(|raw| raw.rotation.log_overlap = "1h".parse().unwrap()).await;
    let admin = running.admin();
    admin.ca_rotate(&rotate()).await.unwrap();
    until(&running, "another key", |status| phases(status) == ["active", "superseded"]).await;
    let second = shown(&running).await;
    admin.ca_rollback(&back()).await.unwrap();
    assert_eq!(shown(&running).await, first, "whoever signed before leads again, at once");
    let both = checkpoint(&running).await;
    assert!(is_believed(&both, &first) && is_believed(&both, &second), "and the other signs beside it");
    let report = audited(&running, &first, None).await;
    assert_eq!(report.findings.list(), [], "{:#?}", report.findings.list());
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_key_that_signs_the_log_nothing_starts() {
    let running = running().await;
    running.admin().ca_rotate(&rotate()).await.unwrap();
    until(&running, "both keys", |status| phases(status) == ["active", "superseded"]).await;
    until(&running, "the new key alone", |status| phases(status) == ["active"]).await;
    let place = running.ended().await;
    std::fs::rename(place.file("keys/ledger-2.key"), place.beside("elsewhere.key")).unwrap();
    let refused = place.serve().await.unwrap_err().to_string();
    assert!(refused.contains("no key that this process has"), "{refused}");
    std::fs::rename(place.beside("elsewhere.key"), place.file("keys/ledger-2.key")).unwrap();
    place.serve().await.unwrap().stop().await;
}
