//! Relying parties: what they confirm, and what nobody believes.

use chancery_api::{FeedAcknowledgement, FeedQuery, ProblemCode, RelyingPartyKind, WhenUnknown};

use crate::listener::{Listener, hold};
use crate::running::{Running, id, problem};

fn word(instance: &str, sequence: u64) -> FeedAcknowledgement {
    FeedAcknowledgement {
        instance: instance.into(),
        kind: RelyingPartyKind::Library,
        when_unknown: WhenUnknown::Closed,
        maximum_age_seconds: 60,
        sequence,
        connections_closed: 2,
        connections_open: 5,
    }
}

#[tokio::test]
async fn operators_see_who_has_confirmed_what_and_who_is_connected() {
    let running = Running::start().await;
    let web = running.enroll("web").await;
    let client = running.client(Some(web.identity()));
    let admin = running.admin();
    let query = FeedQuery { instance: Some("host-1".into()), ..FeedQuery::default() };
    let mut listener = Listener(client.status_feed(query));
    let position = listener.any().await.sequence;
    client.acknowledge(&word("host-2", position)).await.unwrap();
    let said = client.acknowledge(&word("host-1", position)).await.unwrap();
    assert_eq!((said.spiffe_id, said.connected), (id("web"), true));

    hold(&running, running.enroll("bad").await.response.serial).await;
    let event = listener.next().await;
    client.acknowledge(&word("host-1", event.sequence)).await.unwrap();
    let known = admin.relying_parties().await.unwrap();
    assert_eq!(known.sequence, running.server.site().authority.ledger().head().size);
    let shown: Vec<_> = known
        .relying_parties
        .iter()
        .map(|one| (one.acknowledgement.instance.as_str(), one.acknowledgement.sequence, one.connected))
        .collect();
    assert_eq!(shown, [("host-1", event.sequence, true), ("host-2", position, false)]);
    let refused = client.relying_parties().await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted));
    running.server.stop().await;
}

#[tokio::test]
async fn a_relying_party_that_lies_is_refused_or_shown() {
    let running = Running::start().await;
    let web = running.enroll("web").await;
    let client = running.client(Some(web.identity()));
    let head = running.server.site().authority.ledger().head().size;
    let ahead = client.acknowledge(&word("x", head + 1)).await.unwrap_err();
    assert_eq!(problem(&ahead), Some(ProblemCode::NotInThisState));
    client.acknowledge(&word("x", head)).await.unwrap();
    client.acknowledge(&word("x", 1)).await.unwrap();
    let nameless = client.acknowledge(&word("", 1)).await.unwrap_err();
    assert_eq!(problem(&nameless), Some(ProblemCode::MalformedRequest));
    let [shown] = running.admin().relying_parties().await.unwrap().relying_parties.try_into().unwrap();
    assert_eq!((shown.acknowledgement.sequence, shown.went_back_from), (1, Some(head)));
    running.server.stop().await;
}
