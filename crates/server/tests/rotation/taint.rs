//! An issuer that is not to be trusted, to the end: listeners hear of it, agents are asked, what is left is revoked.

use std::sync::Arc;
use std::time::Duration;

use chancery_api::{CertificateStatus, FeedChange, IssuerEvent, TaintRequest};
use chancery_server::Server;
use chancery_server::authority::OnlineRoot;
use chancery_server::bootstrap::add_spares;
use chancery_types::{Clock as _, IssuerEpoch, ManualClock, RevocationReason, SystemClock, SystemRandom};

use super::ceremony::passphrase;
use super::listener::Listener;
use super::running::{Place, Running, plan};
use super::{active, quick, until};

/// Agents have ten minutes.
const WAVE: Duration = Duration::from_mins(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_agents_did_not_replace_is_revoked_and_listeners_hear_of_both() {
    let place = Place::with(plan(), quick).await;
    let root = place.beside("root");
    add_spares(&place.config(), &root, &passphrase(), 1, &SystemRandom, SystemClock.now()).unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let (manual, random) = (Arc::clone(&clock), Arc::new(SystemRandom));
    let server = Server::start(place.config(), OnlineRoot::Refuse, manual, random).await.unwrap();
    let running = Running { place, server };
    let (web, watcher) = (running.enroll("web").await, running.enroll("watcher").await);
    let client = running.client(Some(watcher.identity()));
    let mut listener = Listener::start(&client, None).await;
    let taint = TaintRequest { issuer: IssuerEpoch(1), dry_run: false, note: "its key was stolen".into() };
    running.admin().ca_taint(&taint).await.unwrap();
    let heard = loop {
        if let FeedChange::Issuer { epoch, change } = listener.next().await.change {
            break (epoch, change);
        }
    };
    assert_eq!(heard, (IssuerEpoch(1), IssuerEvent::Tainted));
    until(&running, "issuer 2", |status| active(status) == 2).await;
    let replaced = running.enroll_again("web").await;
    until(&running, "agents are asked", |status| {
        let is_planned = |what: &str| status.timeline.iter().any(|change| change.what.starts_with(what));
        is_planned("revoke what is left") && !is_planned("ask agents")
    })
    .await;
    let status = async |serial| running.client(None).status(serial).await.unwrap();
    assert_eq!(status(web.response.serial).await.status, CertificateStatus::Good, "agents have time");

    // Whoever listens on a certificate of the old issuer is put out with it.
    drop(listener);
    let client = running.client(Some(replaced.identity()));
    let mut listener = Listener::start(&client, None).await;
    clock.advance(WAVE + Duration::from_secs(5));
    let mut revoked = Vec::new();
    while !revoked.contains(&web.response.serial) {
        if let FeedChange::Revoke { serials, reason, .. } = listener.next().await.change {
            assert_eq!(reason, RevocationReason::CaCompromise);
            revoked.extend(serials);
        }
    }
    let found = status(web.response.serial).await;
    assert_eq!(found.revocation.map(|revocation| revocation.reason), Some(RevocationReason::CaCompromise));
    assert_eq!(status(replaced.response.serial).await.status, CertificateStatus::Good);
}
