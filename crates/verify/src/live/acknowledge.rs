//! Telling the authority how far everything is enforced here.

use std::time::Duration;

use chancery_api::{FeedAcknowledgement, RelyingPartyKind};
use tokio::sync::watch;

use super::Status;
use super::authority::Authority;
use super::patience::Patience;

/// How long confirmations wait for each other.
const TOGETHER: Duration = Duration::from_millis(25);
/// How often one is sent though nothing changed.
const ANYWAY: Duration = Duration::from_secs(30);

/// Sends confirmations in a task of its own.
#[derive(Debug)]
pub(crate) struct Acknowledger(watch::Sender<u64>);

impl Acknowledger {
    pub(crate) fn start(
        authority: Authority,
        status: Status,
        instance: String,
        kind: RelyingPartyKind,
    ) -> Self {
        let (sender, receiver) = watch::channel(0);
        tokio::spawn(send(authority, status, instance, kind, receiver));
        Self(sender)
    }

    /// Everything up to this position is enforced: to be told soon.
    pub(crate) fn enforced(&self, position: u64) {
        self.0.send_replace(position);
    }
}

async fn send(
    authority: Authority,
    status: Status,
    instance: String,
    kind: RelyingPartyKind,
    mut positions: watch::Receiver<u64>,
) {
    let mut patience = Patience::new(Duration::from_millis(500), ANYWAY);
    loop {
        match tokio::time::timeout(ANYWAY, positions.changed()).await {
            Ok(Ok(())) => tokio::time::sleep(TOGETHER).await,
            Ok(Err(_)) => return,
            Err(_) => {}
        }
        loop {
            positions.borrow_and_update();
            let acknowledgement = word_of(&status, instance.clone(), kind);
            let sent = match authority.client() {
                Ok((_, client)) => client.acknowledge(&acknowledgement).await,
                Err(error) => Err(error),
            };
            let Err(error) = sent else {
                patience.succeed();
                break;
            };
            tracing::debug!(%error, "what is enforced was not confirmed");
            tokio::time::sleep(patience.fail()).await;
            if positions.has_changed().is_err() {
                return;
            }
        }
    }
}

fn word_of(status: &Status, instance: String, kind: RelyingPartyKind) -> FeedAcknowledgement {
    let (view, rules) = (status.view(), status.rules());
    FeedAcknowledgement {
        instance,
        kind,
        when_unknown: rules.when_unknown,
        maximum_age_seconds: rules.maximum_age.as_secs(),
        sequence: view.sequence,
        connections_closed: view.connections_ended,
        connections_open: view.connections_open,
    }
}
