//! Streams of peers that stop being good.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::*;
use crate::running::Running;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_peer_is_gone_and_does_not_come_back() {
    let running = Running::start().await;
    let (db, web, other) =
        (running.enroll("db").await, running.enroll("web").await, running.enroll("other").await);
    let follower = follow(&running.place, running.server.api_address(), &db, Rules::default()).await;
    let status = follower.status();
    let place = &running.place;
    let acceptor = Acceptor::new(judge(place, &db, status.clone()), &credentials(place, &db), &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (connector, bystander) = (caller(place, &web, &[]), caller(place, &other, &[]));
    let (server, client) = meet(&listener, &acceptor, &connector).await;
    let (mut server, mut client) = (server.unwrap(), client.unwrap());
    let (kept, _kept) = meet(&listener, &acceptor, &bystander).await;
    let kept = kept.unwrap();
    assert_eq!(server.peer().id, web.response.spiffe_id);

    // Both sides wait in a read when it happens.
    let reading = tokio::spawn(async move { server.read_u8().await.unwrap_err() });
    revoke(&running.admin(), serial(&web)).await;
    let acknowledged = Instant::now();
    let theirs = tokio::time::timeout(PATIENCE, client.read_u8()).await.unwrap().unwrap_err();
    println!("the peer lost its stream {:?} after the revocation was acknowledged", acknowledged.elapsed());
    assert_eq!(theirs.kind(), std::io::ErrorKind::ConnectionReset);
    let ours = tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
    assert_eq!(why(&ours), Ended::NotGood(NotGood::Revoked(RevocationReason::KeyCompromise)));

    let (again, _client) = meet(&listener, &acceptor, &connector).await;
    assert!(matches!(again.unwrap_err(), HandshakeError::Refused(Refusal::NotGood(_))));
    assert_eq!(kept.ended(), None);

    // The authority hears of it.
    let position = status.view().sequence;
    let admin = running.admin();
    let confirmed = async {
        loop {
            let parties = admin.relying_parties().await.unwrap().relying_parties;
            let ours =
                parties.iter().map(|party| &party.acknowledgement).find(|word| word.instance == "test");
            if ours.is_some_and(|word| word.sequence >= position && word.connections_closed == 1) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, confirmed).await.expect("the authority is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_peer_is_gone_and_comes_back_when_it_is_released() {
    let running = Running::start().await;
    let (db, web) = (running.enroll("db").await, running.enroll("web").await);
    let follower = follow(&running.place, running.server.api_address(), &db, Rules::default()).await;
    let (status, place) = (follower.status(), &running.place);
    let acceptor = Acceptor::new(judge(place, &db, status.clone()), &credentials(place, &db), &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = caller(place, &web, &[]);
    let (server, _client) = meet(&listener, &acceptor, &connector).await;
    let mut server = server.unwrap();
    hold(&running.admin(), serial(&web)).await;
    let error = tokio::time::timeout(PATIENCE, server.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(why(&error), Ended::NotGood(NotGood::Held));
    let (refused, _client) = meet(&listener, &acceptor, &connector).await;
    assert!(matches!(refused.unwrap_err(), HandshakeError::Refused(Refusal::NotGood(_))));

    release(&running.admin(), serial(&web)).await;
    eventually("it is good again", || status.standing(serial(&web)) == Standing::Good).await;
    let (server, client) = meet(&listener, &acceptor, &connector).await;
    let (mut server, mut client) = (server.unwrap(), client.unwrap());
    client.write_u8(7).await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_leaves_a_server_that_is_revoked() {
    let running = Running::start().await;
    let (db, web) = (running.enroll("db").await, running.enroll("web").await);
    let place = &running.place;
    let follower = follow(place, running.server.api_address(), &web, Rules::default()).await;
    let only_db =
        judge(place, &web, follower.status()).allowing(Allowed::ids([db.response.spiffe_id.clone()]));
    let connector = Connector::new(only_db.clone(), &credentials(place, &web), &[]);
    let open = Rules { when_unknown: WhenUnknown::Open, ..Rules::default() };
    let serving = |held: &Held| {
        let judge = judge(place, held, Status::not_followed(open));
        Acceptor::new(judge, &credentials(place, held), &[])
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_server, wrong) = meet(&listener, &serving(&web), &connector).await;
    assert!(matches!(wrong.unwrap_err(), HandshakeError::Refused(Refusal::NotAllowed(_))));
    let (_server, client) = meet(&listener, &serving(&db), &connector).await;
    let mut client = client.unwrap();
    revoke(&running.admin(), serial(&db)).await;
    let error = tokio::time::timeout(PATIENCE, client.read_u8()).await.unwrap().unwrap_err();
    assert!(matches!(why(&error), Ended::NotGood(NotGood::Revoked(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_of_a_revoked_peer_are_torn_down() {
    const COUNT: usize = 1000;
    let running = Running::start().await;
    let (db, web) = (running.enroll("db").await, running.enroll("web").await);
    let place = &running.place;
    let follower = follow(place, running.server.api_address(), &db, Rules::default()).await;
    let status = follower.status();
    let acceptor = Acceptor::new(judge(place, &db, status.clone()), &credentials(place, &db), &[]);
    let connector = caller(place, &web, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut servers, mut clients) = (JoinSet::new(), JoinSet::new());
    for _ in 0..COUNT {
        let (server, client) = meet(&listener, &acceptor, &connector).await;
        let (mut server, mut client) = (server.unwrap(), client.unwrap());
        servers.spawn(async move { server.read_u8().await.unwrap_err() });
        clients.spawn(async move { client.read_u8().await.unwrap_err() });
    }
    assert_eq!(status.view().connections_open, COUNT as u64);
    revoke(&running.admin(), serial(&web)).await;
    let acknowledged = Instant::now();
    while let Some(error) = tokio::time::timeout(PATIENCE, clients.join_next()).await.unwrap() {
        error.unwrap();
    }
    println!("{COUNT} connections were reset {:?} after the acknowledgement", acknowledged.elapsed());
    while let Some(error) = tokio::time::timeout(PATIENCE, servers.join_next()).await.unwrap() {
        assert!(matches!(why(&error.unwrap()), Ended::NotGood(_)));
    }
    assert_eq!(status.view().connections_open, 0);
    assert_eq!(status.view().connections_ended, COUNT as u64);
}
