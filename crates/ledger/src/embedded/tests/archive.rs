//! Segments in an archive are read as before, while the ledger is in use and after.

use super::*;
use crate::embedded::archive;

#[tokio::test]
async fn segments_move_away_under_a_running_ledger_and_everything_is_still_checked() {
    let (home, away) = (directory(), directory());
    let options = || Options { segment_bytes: 1 << 10, ..hasty() };
    let ledger = create(home.path(), options());
    let (mut mix, mut client) = (Mix::new(11), Client::default());
    client.commit(&ledger, vec![workload::genesis()]).await.unwrap();
    for _ in 0..150 {
        client.commit(&ledger, vec![mix.proposal()]).await.unwrap();
    }
    let journal = |name: &str| home.path().join("journal").join(name);
    let segments = std::fs::read_dir(journal("")).unwrap().count();
    assert!(segments > 5, "{segments} segments");
    ledger.close();
    drop(ledger);
    let ledger = open(home.path()).unwrap();
    let done = archive(home.path(), &away.path().join("old"), 0, &mut |_, _| {}).unwrap();
    assert_eq!((done.moved, done.live), (segments as u64 - 2, 2));
    assert!(journal("00000000.journal").is_symlink() && away.path().join("old/00000000.journal").is_file());
    client.verify(&ledger).await;
    for _ in 0..20 {
        client.commit(&ledger, vec![mix.proposal()]).await.unwrap();
    }
    let digest = ledger.model_digest().unwrap();
    drop(ledger);
    check(home.path());
    let again = archive(home.path(), &away.path().join("old"), 3, &mut |_, _| {}).unwrap();
    assert!(again.archived >= done.archived && again.live >= 2, "{again:?}");
    let rebuilt = EmbeddedLedger::rebuild(home.path(), workload::signer(), hasty(), &mut |_, _| {}).unwrap();
    assert_eq!(rebuilt.model_digest().unwrap(), digest);
    client.verify(&rebuilt).await;
    drop(rebuilt);

    // A bit that flips in the archive is found, and the log of somebody else is not written over.
    let old = away.path().join("old/00000001.journal");
    let mut bytes = std::fs::read(&old).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&old, bytes).unwrap();
    let found = EmbeddedLedger::check_everything(home.path(), &mut |_, _| {}).unwrap_err().to_string();
    assert!(found.contains("00000001.journal"), "{found}");
    let other = directory();
    let ledger = create(other.path(), options());
    for _ in 0..60 {
        client.commit(&ledger, vec![mix.proposal()]).await.ok();
    }
    drop(ledger);
    let refused = archive(other.path(), &away.path().join("old"), 0, &mut |_, _| {}).unwrap_err().to_string();
    assert!(refused.contains("another log"), "{refused}");
}
