//! What a follower believes, of an authority that lies, goes back, or is away.

use std::path::{Path, PathBuf};

use chancery_api::{FeedChange, LogKeyPhase};
use chancery_status::{ExactSet, SignedSet};
use chancery_types::{RevocationReason, Timestamp};

use super::liar::{Liar, LogSigner, eventually};
use super::*;
use crate::test_support::{Authority as Log, log_keys, stated};

fn serial(counter: u64) -> SerialNumber {
    SerialNumber::compose(IssuerEpoch(1), counter, [7; 8]).unwrap()
}

fn set(sequence: u64, counters: &[u64]) -> ExactSet {
    let mut builder = SetBuilder::new(sequence, SystemClock.now());
    builder.issuer(IssuerEpoch(1), counters.iter().copied()).unwrap();
    builder.build().unwrap()
}

fn signed(sequence: u64, counters: &[u64]) -> Vec<u8> {
    LogSigner::new(1).sign(set(sequence, counters))
}

fn revoke(counter: u64) -> FeedChange {
    let (serials, at) = (vec![serial(counter)], Timestamp::from_seconds(1));
    FeedChange::Revoke { serials, reason: RevocationReason::KeyCompromise, at }
}

fn following(liar: &Liar, rules: Rules, keep: Option<PathBuf>) -> Following {
    Following {
        authority: liar.authority.clone(),
        key: LogKey::Pinned(LogSigner::new(1).verifier().into()),
        rules,
        keep,
        instance: "test".into(),
        kind: RelyingPartyKind::Library,
    }
}

async fn started(liar: &Liar, rules: Rules) -> Follower {
    let follower = Follower::start(following(liar, rules, None));
    tokio::time::timeout(Duration::from_secs(20), follower.ready()).await.unwrap();
    liar.has_follower().await;
    follower
}

fn is_not_good(status: &Status, counter: u64) -> bool {
    matches!(status.standing(serial(counter)), Standing::NotGood(_))
}

#[tokio::test]
async fn an_event_takes_away_at_once_and_a_signed_set_alone_gives_back() {
    let liar = Liar::new(signed(5, &[1])).await;
    let follower = started(&liar, Rules::default()).await;
    let status = follower.status();
    assert!(is_not_good(&status, 1));
    assert_eq!(status.standing(serial(2)), Standing::Good);
    liar.say(5, 6, revoke(2));
    eventually("the second is revoked", || is_not_good(&status, 2)).await;
    assert_eq!(status.view().sequence, 6);

    // A set of another key, a set from before, and one of nobody: the feed says release, and nothing comes of it.
    let asked = liar.sets_asked();
    let mut altered = signed(7, &[]);
    altered[30] ^= 1;
    for (offered, sequence) in [
        (LogSigner::new(2).sign(set(7, &[])), 7),
        (altered, 8),
        (signed(4, &[]), 9),
        (b"nonsense".to_vec(), 10),
    ] {
        let asked = liar.sets_asked();
        liar.offer(offered);
        liar.say(sequence - 1, sequence, FeedChange::Release { serials: vec![serial(1), serial(2)] });
        eventually("the set is asked for", || liar.sets_asked() > asked + 1).await;
        assert!(is_not_good(&status, 1) && is_not_good(&status, 2), "{sequence}");
    }
    assert!(liar.sets_asked() > asked);
    liar.offer(signed(10, &[2]));
    eventually("the first is good", || status.standing(serial(1)) == Standing::Good).await;
    assert!(is_not_good(&status, 2));
    assert_eq!(status.view().set_sequence, 10);
}

#[tokio::test]
async fn what_was_missed_is_fetched_and_nothing_is_vouched_for_until_it_is_there() {
    let rules = Rules { maximum_age: Duration::from_millis(400), ..Rules::default() };
    let liar = Liar::new(signed(5, &[])).await;
    let follower = started(&liar, rules).await;
    let status = follower.status();
    liar.say(5, 6, FeedChange::Heartbeat);
    eventually("all is good", || status.standing(serial(2)) == Standing::Good).await;
    // Ten positions are missing, and the set is not there yet: heartbeats vouch for nothing.
    liar.say(16, 17, revoke(1));
    eventually("what is told is believed", || is_not_good(&status, 1)).await;
    let too_old =
        |status: &Status| matches!(status.standing(serial(2)), Standing::Unknown(Unknown::TooOld { .. }));
    eventually("the rest is too old", || {
        liar.say(17, 17, FeedChange::Heartbeat);
        too_old(&status)
    })
    .await;
    liar.offer(signed(16, &[3]));
    eventually("the set is there", || status.view().set_sequence == 16).await;
    liar.say(17, 18, FeedChange::Heartbeat);
    eventually("all is known", || status.standing(serial(2)) == Standing::Good).await;
    assert!(is_not_good(&status, 1) && is_not_good(&status, 3));
    liar.offer(signed(40, &[4]));
    liar.say(18, 40, FeedChange::Bulk { count: None });
    eventually("what was told in bulk is known", || is_not_good(&status, 4)).await;
}

#[tokio::test]
async fn when_the_authority_is_away_the_rules_decide_after_the_greatest_age() {
    let closed = Rules { maximum_age: Duration::from_millis(300), ..Rules::default() };
    for (when_unknown, is_let_in) in [(WhenUnknown::Open, true), (WhenUnknown::Closed, false)] {
        let liar = Liar::new(signed(5, &[1])).await;
        let follower = started(&liar, Rules { when_unknown, ..closed }).await;
        let status = follower.status();
        drop(liar);
        eventually("it is too old", || matches!(status.standing(serial(2)), Standing::Unknown(_))).await;
        assert_eq!(status.check(Some(serial(2))).is_ok(), is_let_in);
        // What is known to be bad stays bad.
        assert!(status.check(Some(serial(1))).is_err());
    }
}

async fn kept_by(liar: &Liar, path: &Path) {
    let follower = Follower::start(following(liar, Rules::default(), Some(path.to_owned())));
    follower.ready().await;
    liar.has_follower().await;
    let status = follower.status();
    liar.say(5, 6, revoke(2));
    eventually("the event is taken in", || is_not_good(&status, 2)).await;
    let beside = beside(path);
    eventually("it is kept", || {
        std::fs::read_to_string(&beside).is_ok_and(|text| text.contains(&serial(2).to_string()))
    })
    .await;
}

fn beside(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.told", path.display()))
}

#[tokio::test]
async fn a_program_that_starts_while_the_authority_is_away_knows_what_it_knew() {
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("status");
    let liar = Liar::new(signed(5, &[1])).await;
    kept_by(&liar, &path).await;
    let begin = |key| {
        let gone = Following { key, ..following(&liar, Rules::default(), Some(path.clone())) };
        Follower::start(gone)
    };
    liar.stop();
    for key in [LogKey::Pinned(LogSigner::new(1).verifier().into()), LogKey::Fetched] {
        let status = begin(key).status();
        assert!(is_not_good(&status, 1) && is_not_good(&status, 2));
        assert_eq!(status.standing(serial(3)), Standing::Good);
        assert_eq!(status.view().sequence, 6);
    }
    // Another key is pinned now.
    let status = begin(LogKey::Pinned(LogSigner::new(2).verifier().into())).status();
    assert_eq!(status.standing(serial(3)), Standing::Unknown(Unknown::Nothing));

    // The clock was set back: nobody can say how old it is.
    let text = std::fs::read_to_string(beside(&path)).unwrap();
    let year = format!("\"fresh\":\"{}", &SystemClock.now().to_string()[..4]);
    assert!(text.contains(&year), "{text}");
    std::fs::write(beside(&path), text.replace(&year, "\"fresh\":\"2999")).unwrap();
    let status = begin(LogKey::Fetched).status();
    assert!(matches!(status.standing(serial(3)), Standing::Unknown(Unknown::TooOld { .. })));
    assert!(is_not_good(&status, 2));

    // One byte of the set was changed.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let status = begin(LogKey::Fetched).status();
    assert_eq!(status.standing(serial(3)), Standing::Unknown(Unknown::Nothing));
}

#[tokio::test]
async fn another_key_of_the_log_is_believed_when_the_one_that_is_known_leads_to_it() {
    let mut log = Log::new();
    log.enroll("web");
    let published = log.rotate_log_key(1, 2);
    log.sign_log_with(&[1]);
    let voucher = log.voucher(published, log.checkpoint(published + 1));
    let by = |log: &Log, seed, sequence, counters: &[u64]| {
        log.sign_log_with(&[seed]);
        let signed =
            SignedSet::sign(set(sequence, counters), &"example.org".parse().unwrap(), &log.log_signers);
        signed.unwrap().to_bytes().to_vec()
    };
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("status");
    let liar = Liar::new(by(&log, 1, 5, &[1])).await;
    let pinned = || LogKey::Pinned(log_keys(&[1]));
    let begin = || Following { key: pinned(), ..following(&liar, Rules::default(), Some(path.clone())) };
    let follower = Follower::start(begin());
    follower.ready().await;
    liar.has_follower().await;
    let status = follower.status();

    // The key is another, and nothing leads to it.
    let states = |vouched| stated(vec![(1, LogKeyPhase::Withdrawn, None), (2, LogKeyPhase::Active, vouched)]);
    liar.state_keys(states(None));
    liar.offer(by(&log, 2, 6, &[1, 2]));
    let asked = liar.sets_asked();
    liar.say(5, 6, FeedChange::Bulk { count: None });
    eventually("a set was asked for", || liar.sets_asked() > asked + 1).await;
    assert_eq!(status.standing(serial(2)), Standing::Good, "it is not believed");

    liar.state_keys(states(Some(voucher)));
    eventually("the set of the next key is believed", || is_not_good(&status, 2)).await;

    // What was kept is believed on the same ground after a restart without the authority.
    eventually("it is kept", || {
        let kept = std::fs::read_to_string(beside(&path)).unwrap_or_default();
        kept.contains(&log_keys(&[2]).to_string())
    })
    .await;
    drop(follower);
    liar.stop();
    assert!(is_not_good(&Follower::start(begin()).status(), 2));
    let other = Following { key: LogKey::Pinned(log_keys(&[3])), ..begin() };
    assert_eq!(Follower::start(other).status().standing(serial(3)), Standing::Unknown(Unknown::Nothing));
}
