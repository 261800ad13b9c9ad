//! Another key of the log among replicas: made by one, in force at all.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chancery_api::{LogKeyPhase, LogKeysResponse, RotationSubject};
use chancery_merkle::{LogKeys, VerifiedCheckpoint};
use chancery_verify::log_keys::follow_log_keys;

use super::cluster::Cluster;
use super::load::Load;
use super::rotation::{PATIENCE, ask, rotator, steps};
use crate::process::run;

use LogKeyPhase::{Active, Superseded, Withdrawn};

/// The replica that rotates dies when the next key is published, and again when both sign; load goes on. In the end every
/// replica signs with the next key alone, to which whoever knew the first one is led.
pub(crate) async fn another_key_signs_at_all(cluster: &mut Cluster) {
    let load = Load::start(cluster, 2).await;
    let known = shown(cluster).await;
    let died = rotator(cluster, None).await;
    ask(cluster, died, RotationSubject::Log).await;
    cluster.kill(died);
    let both = until_all(cluster, Some(died), &[Superseded, Active]).await;
    let next: LogKeys = both.keys[1].vkey.parse().unwrap();
    signed_by(cluster, Some(died), &known, &next, true).await;
    cluster.spawn(died);
    cluster.each_serves().await;

    let died = rotator(cluster, None).await;
    cluster.kill(died);
    let alone = until_all(cluster, Some(died), &[Withdrawn, Active]).await;
    assert_eq!(follow_log_keys(&known, &alone).unwrap(), next);
    cluster.spawn(died);
    cluster.each_serves().await;
    until_all(cluster, None, &[Withdrawn, Active]).await;
    signed_by(cluster, None, &known, &next, false).await;
    let tally = load.stop().await;
    assert!(tally.violations.is_empty() && !tally.enrolled.is_empty(), "{tally}: {:?}", tally.violations);

    let told = tokio::task::block_in_place(|| {
        let told = steps(cluster);
        // The same export by the first key alone.
        run(cluster.beside(), &["audit", "verify", "log.jsonl", "--log-key", &known.to_string()]).success();
        told
    });
    let told: Vec<&String> = told.iter().filter(|step| step.starts_with("log")).collect();
    assert_eq!(told, ["log published", "log active", "log retired", "log withdrawn"], "each once");
}

/// The key that all replicas show.
async fn shown(cluster: &Cluster) -> LogKeys {
    let mut shown = BTreeSet::new();
    for address in &cluster.addresses {
        let key = cluster.client(*address, None).log_key().await.unwrap();
        shown.insert(String::from_utf8(key.to_vec()).unwrap());
    }
    assert_eq!(shown.len(), 1, "{shown:?}");
    shown.pop_first().unwrap().parse().unwrap()
}

/// Waits until every replica but one says that the keys are in these phases; what they say.
async fn until_all(cluster: &Cluster, but: Option<usize>, phases: &[LogKeyPhase]) -> LogKeysResponse {
    let until = Instant::now() + PATIENCE;
    let mut last = None;
    for (which, address) in cluster.addresses.iter().enumerate().filter(|(which, _)| Some(*which) != but) {
        loop {
            let keys = cluster.client(*address, None).log_keys().await;
            if let Ok(keys) = &keys
                && keys.keys.iter().map(|key| key.phase).eq(phases.iter().copied())
            {
                last = Some(keys.clone());
                break;
            }
            assert!(Instant::now() < until, "replica {which}: {keys:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    last.unwrap()
}

/// Waits until what every replica but one signs is signed by the next key, and by the first one or not.
async fn signed_by(cluster: &Cluster, but: Option<usize>, first: &LogKeys, next: &LogKeys, by_first: bool) {
    let until = Instant::now() + PATIENCE;
    for (which, address) in cluster.addresses.iter().enumerate().filter(|(which, _)| Some(*which) != but) {
        loop {
            let note = cluster.client(*address, None).log_checkpoint().await.unwrap();
            let note = String::from_utf8(note.to_vec()).unwrap();
            let is_by = |keys| VerifiedCheckpoint::open_text(&note, keys, &[]).is_ok();
            if is_by(next) && is_by(first) == by_first {
                break;
            }
            assert!(Instant::now() < until, "replica {which}: {note}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
