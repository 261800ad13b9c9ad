//! How long it takes until a revoked peer has lost its stream: figures for docs/PERFORMANCE.md.

use std::time::Instant;

use tokio::io::AsyncReadExt as _;

use super::*;
use crate::running::Running;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: cargo nextest run --release -p chancery-verify --run-ignored only measure --no-capture"]
async fn revocations_to_the_end_of_the_stream() {
    const COUNT: usize = 200;
    let running = Running::start().await;
    let place = &running.place;
    let db = running.enroll("db").await;
    let follower = follow(place, running.server.api_address(), &db, Rules::default()).await;
    let acceptor = Acceptor::new(judge(place, &db, follower.status()), &credentials(place, &db), &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = running.admin();
    let (mut whole, mut after) = (Vec::new(), Vec::new());
    for number in 0..COUNT {
        let web = running.enroll(&format!("web-{number}")).await;
        let (server, client) = meet(&listener, &acceptor, &caller(place, &web, &[])).await;
        let (mut server, mut client) = (server.unwrap(), client.unwrap());
        let serving = tokio::spawn(async move { server.read_u8().await.unwrap_err() });
        let reading = tokio::spawn(async move {
            client.read_u8().await.unwrap_err();
            Instant::now()
        });
        let begun = Instant::now();
        revoke(&admin, serial(&web)).await;
        let acknowledged = Instant::now();
        let gone = tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
        why(&serving.await.unwrap());
        whole.push(gone.duration_since(begun));
        after.push(gone.saturating_duration_since(acknowledged));
    }
    for (what, mut times) in [("from the request", whole), ("from the acknowledgement", after)] {
        times.sort();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        println!(
            "{COUNT} revocations to the reset at the peer, {what}: p50 {:?}, p99 {:?}, slowest {:?}",
            at(50),
            at(99),
            at(100)
        );
        assert!(at(99) < Duration::from_secs(1));
    }
}
