//! A log read beside its ledger, and laid into another directory.

use super::*;
use crate::embedded::{KeptSignatures, LogWriter, published_checkpoint, read_log};

#[tokio::test]
async fn a_log_is_read_while_it_is_in_use_and_goes_on_where_it_is_laid() {
    let home = directory();
    let ledger = create(home.path(), hasty());
    let (mut mix, mut client) = (Mix::new(7), Client::default());
    client.commit(&ledger, vec![workload::genesis()]).await.unwrap();
    for _ in 0..40 {
        client.commit(&ledger, vec![mix.proposal(), mix.proposal()]).await.unwrap();
        let last = *client.acknowledged.keys().next_back().unwrap();
        client.sign(&ledger, last).await.unwrap();
    }
    let (note, size) = (ledger.checkpoint().unwrap(), ledger.head().size);
    let mut entries = Vec::new();
    for part in [1, size / 2, size] {
        entries.clear();
        let mut take = |entry: &[u8]| {
            entries.push(entry.to_vec());
            Ok::<_, OpenError>(())
        };
        read_log(home.path(), part, &mut take).unwrap();
        assert_eq!(entries.len() as u64, part);
    }
    assert!(entries.iter().eq(client.acknowledged.values()));
    let ahead = read_log(home.path(), size + 1, &mut |_| Ok::<_, OpenError>(())).unwrap_err();
    assert!(matches!(ahead, OpenError::BehindCheckpoint { found, published } if found + 1 == published));

    let elsewhere = directory();
    let mut laid = LogWriter::create(elsewhere.path(), &SystemRandom).unwrap();
    for part in entries.chunks(9) {
        laid.append(&part.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    }
    let kept = KeptSignatures::find(home.path(), size).unwrap();
    let mut signatures = Vec::new();
    let take = &mut |index, signature: &[u8]| {
        signatures.push((index, signature.to_vec()));
        Ok::<_, OpenError>(())
    };
    kept.each(take).unwrap();
    assert!(signatures.iter().map(|(index, signature)| (index, signature)).eq(&client.signed));
    assert_eq!(kept.bytes(), 71 * kept.count());
    laid.sign(&signatures).unwrap();
    laid.finish(&note).unwrap();

    assert!(LogWriter::create(elsewhere.path(), &SystemRandom).is_err(), "there is one already");
    let again = open(elsewhere.path()).unwrap();
    assert_eq!(
        (again.head(), again.model_digest().unwrap()),
        (ledger.head(), ledger.model_digest().unwrap())
    );
    client.verify(&again).await;
    client.verify_signatures(&again).await;
    drop(again);
    assert_eq!(published_checkpoint(elsewhere.path()).unwrap().unwrap().text(), note.text());
    check(elsewhere.path());
}
