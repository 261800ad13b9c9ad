//! What is told, and how a listener goes on.

use chancery_api::{
    FeedChange, FeedEnd, FeedQuery, IdentityStateRequest, ProblemCode, RevokeRequest, Selector,
};
use chancery_client::ClientError;
use chancery_types::RevocationReason;

use crate::listener::{Listener, hold, release, revoke, told};
use crate::running::{Running, id, problem};

#[tokio::test]
async fn every_change_is_told_in_the_order_of_the_log() {
    let running = Running::start().await;
    let watcher = running.enroll("watcher").await;
    let client = running.client(Some(watcher.identity()));
    let mut listener = Listener::start(&client, None).await;
    let web = running.enroll("web").await.response.serial;
    let db = running.enroll("db").await;

    hold(&running, web).await;
    let event = listener.next().await;
    assert_eq!(told(&event), ("hold", vec![web]));
    assert_eq!(event.sequence, running.server.site().authority.ledger().head().size);
    release(&running, web).await;
    assert_eq!(told(&listener.next().await), ("release", vec![web]));
    revoke(&running.admin(), Selector::Serial(web)).await;
    let event = listener.next().await;
    assert_eq!(told(&event), ("revoke", vec![web]));
    let status = running.admin().status(web).await.unwrap();
    let FeedChange::Revoke { reason, at, .. } = event.change else { panic!("a revocation") };
    assert_eq!(reason, RevocationReason::KeyCompromise);
    assert_eq!(Some(at), status.revocation.map(|revocation| revocation.at.whole_second()));

    // A lineage with two living certificates, through its identity.
    let renewed = running.renew(&db).await.unwrap();
    let both = vec![db.response.serial, renewed.response.serial];
    let quiet = IdentityStateRequest::default();
    running.admin().hold_identity(&id("db"), &quiet).await.unwrap();
    assert_eq!(told(&listener.next().await), ("hold", both.clone()));
    running.admin().release_identity(&id("db"), &quiet).await.unwrap();
    assert_eq!(told(&listener.next().await), ("release", both.clone()));
    running.admin().retire_identity(&id("db"), &quiet).await.unwrap();
    let mut revoked = Vec::new();
    while revoked.len() < both.len() {
        // One event or two: as they were committed.
        let event = listener.next().await;
        let (name, serials) = told(&event);
        assert_eq!(name, "revoke");
        revoked.extend(serials);
    }
    assert_eq!(revoked, both);
    running.server.stop().await;
}

#[tokio::test]
async fn what_was_missed_is_told_once_and_in_order_also_after_a_restart() {
    let running = Running::start().await;
    let watcher = running.enroll("watcher").await;
    let serials = [running.enroll("a").await, running.enroll("b").await, running.enroll("c").await]
        .map(|held| held.response.serial);
    let client = running.client(Some(watcher.identity()));
    let mut listener = Listener::start(&client, None).await;
    hold(&running, serials[0]).await;
    assert_eq!(told(&listener.next().await), ("hold", vec![serials[0]]));
    let reached = listener.position();
    drop(listener);

    hold(&running, serials[1]).await;
    revoke(&running.admin(), Selector::Serial(serials[0])).await;
    let mut resumed = Listener::start(&client, Some(reached)).await;
    assert_eq!(told(&resumed.next().await), ("hold", vec![serials[1]]));
    assert_eq!(told(&resumed.next().await), ("revoke", vec![serials[0]]));
    let reached = resumed.position();
    drop(resumed);

    hold(&running, serials[2]).await;
    let Running { place, server } = running;
    server.stop().await;
    drop(server);
    let running = Running { server: place.serve().await.unwrap(), place };
    let client = running.client(Some(watcher.identity()));
    let mut resumed = Listener::start(&client, Some(reached)).await;
    assert_eq!(told(&resumed.next().await), ("hold", vec![serials[2]]));
    release(&running, serials[2]).await;
    assert_eq!(told(&resumed.next().await), ("release", vec![serials[2]]));
    // A position that this log has not reached is none.
    let beyond = Listener::start(&client, Some(resumed.position() + 1000)).await.any().await;
    assert_eq!(beyond.change, FeedChange::Bulk { count: None });
    assert!(beyond.sequence < resumed.position() + 1000);
    running.server.stop().await;
}

#[tokio::test]
async fn a_feed_goes_on_by_itself_when_the_server_comes_back() {
    let running = Running::start().await;
    let watcher = running.enroll("watcher").await;
    let web = running.enroll("web").await.response.serial;
    let mut listener = Listener::start(&running.client(Some(watcher.identity())), None).await;
    let Running { place, server } = running;
    let address = server.api_address();
    let stopping = async {
        server.stop().await;
        drop(server);
    };
    let ((), last) = tokio::join!(stopping, listener.next());
    assert_eq!(last.change, FeedChange::End { reason: FeedEnd::Stopping });
    place.edit(|raw| raw.listen.api = address.to_string());
    let running = Running { server: place.serve().await.unwrap(), place };
    hold(&running, web).await;
    let event = loop {
        match listener.0.next().await {
            Ok(event) if event.change == FeedChange::Heartbeat => {}
            Ok(event) => break event,
            Err(ClientError::Connect { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(told(&event), ("hold", vec![web]));
    running.server.stop().await;
}

#[tokio::test]
async fn a_subscription_ends_when_its_certificate_is_revoked_or_its_identity_retired() {
    let running = Running::start().await;
    let quiet = IdentityStateRequest::default();
    let (one, two) = (running.enroll("one").await, running.enroll("two").await);
    let clients = [&one, &two].map(|held| running.client(Some(held.identity())));
    let mut first = Listener::start(&clients[0], None).await;
    let mut second = Listener::start(&clients[1], None).await;
    // Whoever holds a leaked key may revoke it, and the one who has it is cut off.
    revoke(&running.admin(), Selector::Serial(one.response.serial)).await;
    assert_eq!(told(&first.next().await), ("revoke", vec![one.response.serial]));
    assert_eq!(first.next().await.change, FeedChange::End { reason: FeedEnd::Certificate });
    let refused = first.0.next().await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::CertificateNotAccepted));

    assert_eq!(told(&second.next().await), ("revoke", vec![one.response.serial]));
    running.admin().retire_identity(&id("two"), &quiet).await.unwrap();
    assert_eq!(told(&second.next().await), ("revoke", vec![two.response.serial]));
    assert_eq!(second.next().await.change, FeedChange::End { reason: FeedEnd::Certificate });
    running.server.stop().await;
}

#[tokio::test]
async fn a_poll_waits_for_what_happens() {
    let running = Running::start().await;
    let watcher = running.enroll("watcher").await;
    let web = running.enroll("web").await.response.serial;
    let client = running.client(Some(watcher.identity()));
    let [here] = client.poll_status_feed(&FeedQuery::default()).await.unwrap().try_into().unwrap();
    assert_eq!(here.change, FeedChange::Heartbeat);
    let query = FeedQuery { after: Some(here.sequence), wait: Some(20), instance: Some("x".into()) };
    let (events, ()) = tokio::join!(client.poll_status_feed(&query), hold(&running, web));
    let events = events.unwrap();
    assert_eq!(told(&events[0]), ("hold", vec![web]));
    let missed = client.poll_status_feed(&FeedQuery { wait: None, ..query }).await.unwrap();
    assert_eq!(missed, events);
    let refused = FeedQuery { instance: Some("two words".into()), ..FeedQuery::default() };
    let refused = client.poll_status_feed(&refused).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::MalformedRequest));
    running.server.stop().await;
}

#[tokio::test]
async fn an_instance_that_connects_anew_takes_its_own_place() {
    let running = Running::start().await;
    let watcher = running.enroll("watcher").await;
    let client = running.client(Some(watcher.identity()));
    let query = || FeedQuery { instance: Some("host-1".into()), ..FeedQuery::default() };
    let (mut old, mut new) = (Listener(client.status_feed(query())), Listener(client.status_feed(query())));
    old.any().await;
    new.any().await;
    assert_eq!(old.next().await.change, FeedChange::End { reason: FeedEnd::Replaced });
    let request = RevokeRequest::new(
        Selector::Serial(running.enroll("web").await.response.serial),
        RevocationReason::Superseded,
    );
    running.admin().revoke(&request).await.unwrap();
    assert_eq!(told(&new.next().await).0, "revoke");
    running.server.stop().await;
}
