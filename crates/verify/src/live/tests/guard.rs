//! Connections that end, and why.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn peer(held: &Held) -> Peer {
    let not_after = SystemClock.now() + Duration::from_secs(3600);
    Peer { id: "spiffe://example.org/web".parse().unwrap(), serial: Some(held.serial), not_after }
}

fn why(error: &std::io::Error) -> Ended {
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    error.get_ref().and_then(|inner| inner.downcast_ref::<ConnectionEnded>()).expect("it says why").why
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

#[tokio::test]
async fn a_blocked_read_and_a_blocked_write_end_and_the_peer_is_reset() {
    let held = Domain::new("example.org").issue("/web");
    let status = all_good(Rules::default());
    let (near, mut far) = pair().await;
    let guarded = Guarded::new(near, status.admit(peer(&held)).unwrap());
    let (mut reader, mut writer) = tokio::io::split(guarded);
    let reading = tokio::spawn(async move { reader.read_u8().await });
    let writing = tokio::spawn(async move {
        // Until nobody takes any more, and then until it ends.
        loop {
            if let Err(error) = writer.write_all(&[0; 64 << 10]).await {
                return (error, writer.write_u8(1).await.unwrap_err());
            }
        }
    });
    assert_eq!(far.read_u8().await.unwrap(), 0);
    assert_eq!(know(&status, 2, &[held.serial]), 1);
    let (first, second) = tokio::time::timeout(PATIENCE, writing).await.unwrap().unwrap();
    let read = tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap().unwrap_err();
    for error in [first, second, read] {
        assert_eq!(why(&error), Ended::NotGood(NotGood::Listed));
    }
    let mut rest = Vec::new();
    let reset = tokio::time::timeout(PATIENCE, far.read_to_end(&mut rest)).await.unwrap().unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(status.view().connections_ended, 1);
    assert_eq!(status.view().connections_open, 0);
}

#[tokio::test]
async fn whoever_is_not_good_when_it_registers_does_not_get_in() {
    let held = Domain::new("example.org").issue("/web");
    let status = all_good(Rules::default());
    know(&status, 2, &[held.serial]);
    assert_eq!(status.admit(peer(&held)).unwrap_err(), Refusal::NotGood(NotGood::Listed));
    assert_eq!(status.view().connections_open, 0);
}

#[tokio::test]
async fn connections_end_with_the_certificate_and_at_their_greatest_age() {
    let held = Domain::new("example.org").issue("/web");
    let status = all_good(Rules::default());
    let ending = Peer { not_after: SystemClock.now() + Duration::from_millis(200), ..peer(&held) };
    let admission = status.admit(ending).unwrap();
    let ended = tokio::time::timeout(PATIENCE, admission.ending()).await.unwrap();
    assert_eq!(ended.why, Ended::Expired);

    let allowed = Duration::from_millis(300);
    let rules = Rules { maximum_connection_age: Some(allowed), ..Rules::default() };
    for status in [all_good(rules), Status::not_followed(Rules { when_unknown: WhenUnknown::Open, ..rules })]
    {
        let begun = Instant::now();
        let admission = status.admit(peer(&held)).unwrap();
        let ended = tokio::time::timeout(PATIENCE, admission.ending()).await.unwrap();
        assert_eq!(ended.why, Ended::TooLong(allowed));
        assert!(begun.elapsed() >= allowed);
        assert_eq!(status.view().connections_ended, 0, "not for how the certificate stands");
    }
}

#[tokio::test]
async fn when_nothing_is_known_any_more_connections_end_if_the_rules_say_so() {
    let held = Domain::new("example.org").issue("/web");
    let strict =
        Rules { maximum_age: Duration::from_millis(300), end_when_unknown: true, ..Rules::default() };
    let status = all_good(strict);
    let admission = status.admit(peer(&held)).unwrap();
    let ended = tokio::time::timeout(PATIENCE, admission.ending()).await.unwrap();
    assert!(matches!(ended.why, Ended::Unknown(Unknown::TooOld { .. })));
    // Nobody new gets in either, until something is heard again.
    assert!(matches!(status.check(Some(held.serial)), Err(Refusal::Unknown(_))));
    status.confirm(Duration::ZERO);
    assert_eq!(status.check(Some(held.serial)), Ok(()));

    for rules in
        [Rules { end_when_unknown: false, ..strict }, Rules { when_unknown: WhenUnknown::Open, ..strict }]
    {
        let status = all_good(rules);
        let admission = status.admit(peer(&held)).unwrap();
        let standing = async {
            while status.standing(held.serial) == Standing::Good {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, standing).await.unwrap();
        know(&status, 2, &[]);
        assert_eq!(admission.ended(), None);
    }
}

#[tokio::test]
async fn ten_thousand_connections_are_ended_within_a_second() {
    const COUNT: usize = 10_000;
    let held = Domain::new("example.org").issue("/web");
    let status = all_good(Rules::default());
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..COUNT {
        let (near, _far) = tokio::io::duplex(64);
        let mut guarded = Guarded::new(near, status.admit(peer(&held)).unwrap());
        waiting.spawn(async move {
            let _far = _far;
            guarded.read_u8().await.unwrap_err()
        });
    }
    // Every one of them waits in its read.
    tokio::task::yield_now().await;
    let begun = Instant::now();
    assert_eq!(know(&status, 2, &[held.serial]), COUNT as u64);
    while let Some(error) = waiting.join_next().await {
        why(&error.unwrap());
    }
    let taken = begun.elapsed();
    println!("{COUNT} connections ended in {taken:?}");
    assert!(taken < Duration::from_secs(1), "{taken:?}");
    assert_eq!(status.view().connections_open, 0);
}
