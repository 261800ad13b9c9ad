//! Chunks as the wire has them, and as a client that we did not write reads them.

use futures_util::stream;
use http_body_util::BodyExt;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;

const STALLED: Duration = Duration::from_secs(60);

fn parts(texts: &'static [&'static str]) -> Parts {
    stream::iter(texts).map(|text| Bytes::from_static(text.as_bytes())).fuse().boxed()
}

/// Parts that come one after the other; dropping the sender ends them.
fn channel() -> (mpsc::UnboundedSender<&'static str>, Parts) {
    let (sender, receiver) = mpsc::unbounded_channel::<&'static str>();
    let parts = stream::unfold(receiver, |mut receiver| async move {
        Some((Bytes::from_static(receiver.recv().await?.as_bytes()), receiver))
    });
    (sender, parts.fuse().boxed())
}

fn carried(parts: Parts, room: usize) -> (DuplexStream, JoinHandle<Result<(), &'static str>>) {
    let (near, far) = duplex(room);
    (far, tokio::spawn(carry(near, parts, STALLED)))
}

#[tokio::test]
async fn what_is_ready_goes_out_as_chunks_and_the_last_one_is_empty() {
    let (mut far, carrying) = carried(parts(&["one", "seventeen letters"]), 1024);
    let mut wire = String::new();
    far.read_to_string(&mut wire).await.unwrap();
    assert_eq!(wire, "3\r\none\r\n11\r\nseventeen letters\r\n0\r\n\r\n");
    assert_eq!(carrying.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_client_that_speaks_out_of_turn_is_not_read_and_still_served() {
    let (sender, parts) = channel();
    let (mut far, carrying) = carried(parts, 1024);
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    sender.send("served").unwrap();
    let mut wire = [0; 11];
    far.read_exact(&mut wire).await.unwrap();
    assert_eq!(&wire, b"6\r\nserved\r\n");
    drop(sender);
    carrying.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_answer_at_once() {
    let (sender, parts) = channel();
    let (far, carrying) = carried(parts, 1024);
    drop(far);
    assert_eq!(carrying.await.unwrap(), Ok(()));
    assert!(sender.send("nobody is there").is_err(), "the parts are dropped");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut() {
    let (sender, parts) = channel();
    let (_far, carrying) = carried(parts, 16);
    sender.send("more than sixteen bytes of text").unwrap();
    assert_eq!(carrying.await.unwrap(), Err("stalled"));
}

#[test]
fn a_stream_is_handed_over_only_after_the_head_has_left() {
    let handover = Handover::default();
    handover.flushed();
    assert!(!handover.is_ready(), "nothing was laid");
    handover.lay(parts(&["x"]));
    handover.flushed();
    assert!(!handover.is_ready(), "that was something else's");
    handover.asked();
    assert!(!handover.is_ready(), "the head may still be waiting");
    handover.flushed();
    assert!(handover.is_ready());
    assert!(handover.take().is_some() && handover.take().is_none());
}

#[tokio::test]
async fn without_a_handover_it_is_a_body_like_any_other() {
    let response = lasting(None, parts(&["one", "two"]));
    assert!(response.headers().get(CONNECTION).is_none());
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "onetwo");
}
