//! The stream from the authority: what this node may serve, from the moment it is true.
//!
//! Resumed by revision after every break. A stream that is silent for three heartbeats is dead, whatever TCP believes;
//! an event that cannot be read is a reason to begin anew with everything, because what was in it may have been a
//! withdrawal.

use std::sync::Arc;
use std::time::Duration;

use chancery_api::{AgentEvent, StatusQuestion, limits};
use chancery_client::{Client, ClientError};
use chancery_types::{Random, SerialNumber, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::link::{Link, advised, is_refusal};
use crate::node::Node;
use crate::store::{Store, Wish};
use crate::timing::{Backoff, Pace};
use crate::tokens::Tokens;

/// Three heartbeats of five seconds.
const SILENCE: Duration = Duration::from_secs(15);
/// A server that restarts ends the streams of a whole fleet at one moment: a thousand handshakes are a second's work for
/// one core.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(20) };

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the authority has been silent for {SILENCE:?}")]
    Silent,
    #[error("the authority has ended the stream")]
    Ended,
}

impl StreamError {
    /// Whether the authority refuses us, rather than being in trouble itself.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Client(error) if is_refusal(error))
    }
}

/// How the authority is reached: for `chancery agent status`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    /// Since when the stream lives; nothing while it does not.
    pub(crate) since: Option<Timestamp>,
    /// When the authority was last heard of.
    pub(crate) heard: Option<Timestamp>,
    /// Why the last stream ended.
    pub(crate) trouble: Option<String>,
}

/// Follows the stream.
pub(crate) struct Follower {
    pub(crate) link: Arc<Link>,
    pub(crate) node: Arc<Node>,
    pub(crate) store: Arc<Store>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) reach: watch::Sender<Reach>,
    pub(crate) pace: Pace,
    pub(crate) random: Arc<dyn Random>,
}

impl Follower {
    /// Follows for ever. The node must have a credential.
    pub(crate) async fn run(&self) {
        let mut after = None;
        let mut failures = 0;
        // They go on when the stream ends: one that is resumed does not begin them anew.
        let mut looks = JoinSet::new();
        let mut standing = self.node.standing();
        loop {
            standing.mark_unchanged();
            let serial = standing.borrow().credential.as_ref().map(|credential| credential.serial);
            let renewed = async {
                // A new credential gets a stream of its own: the authority ends those of certificates that end.
                let changed = standing.wait_for(|standing| {
                    standing.credential.as_ref().map(|credential| credential.serial) != serial
                });
                let _ = changed.await;
            };
            let error = tokio::select! {
                error = self.follow(&mut after, &mut failures, &mut looks) => error,
                () = renewed => continue,
            };
            if matches!(error, StreamError::Client(ClientError::Decode { .. } | ClientError::TooLarge { .. }))
            {
                after = None;
            }
            failures += 1;
            self.reach.send_modify(|reach| {
                reach.since = None;
                reach.trouble = Some(error.to_string());
            });
            let told = match &error {
                StreamError::Client(error) => advised(error),
                _ => None,
            };
            if error.is_refusal() {
                self.node.prove_again();
                // Whoever is shut out is told nothing any more, and may have been shut out with all that it serves.
                let (link, store) = (Arc::clone(&self.link), Arc::clone(&self.store));
                let look =
                    look_after(store.held(), after, Asker::Anybody, link, store, Arc::clone(&self.random));
                let _ = tokio::time::timeout(SILENCE, look).await;
            }
            let wait = BACKOFF.delay(failures, told, &*self.random);
            tracing::warn!(%error, failures, ?wait, "no stream from the authority; what is held stays in use");
            // A connection that broke silently would be used for the next requests too.
            if let Err(error) = self.link.reconnect() {
                tracing::error!(%error, "no new connection can be made");
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn follow(
        &self,
        after: &mut Option<u64>,
        failures: &mut u32,
        looks: &mut JoinSet<()>,
    ) -> StreamError {
        let opened = tokio::time::timeout(SILENCE, self.link.stream(*after));
        let mut stream = match opened.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return error.into(),
            Err(_) => return StreamError::Silent,
        };
        loop {
            let event = match tokio::time::timeout(SILENCE, stream.next()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return StreamError::Ended,
                Ok(Err(error)) => return error.into(),
                Err(_) => return StreamError::Silent,
            };
            let now = self.pace.now();
            if self.reach.borrow().since.is_none() {
                self.store.authority_is_back();
            }
            *failures = 0;
            *after = Some(event.revision());
            self.reach.send_modify(|reach| {
                reach.since = reach.since.or(Some(now));
                reach.heard = Some(now);
                reach.trouble = None;
            });
            let is_anew = matches!(event, AgentEvent::Sync { .. });
            let held = if is_anew { self.store.held() } else { Vec::new() };
            self.take_in(event);
            if !held.is_empty() {
                // What an earlier look has not come to yet is among them.
                looks.abort_all();
                while looks.try_join_next().is_some() {}
                let (link, store) = (Arc::clone(&self.link), Arc::clone(&self.store));
                let random = Arc::clone(&self.random);
                looks.spawn(look_after(held, *after, Asker::Node, link, store, random));
            }
        }
    }

    fn take_in(&self, event: AgentEvent) {
        match &event {
            AgentEvent::Revoked { serials, .. } => self.node.withdraw(serials),
            AgentEvent::Renew { scope, recorded_before, until, .. } => {
                let (recorded_before, until) = (*recorded_before, *until);
                self.node.renew_early(&Wish { scope: scope.clone(), recorded_before, until });
            }
            _ => {}
        }
        let may_take_away = !matches!(event, AgentEvent::Heartbeat { .. } | AgentEvent::Renew { .. });
        self.store.take_in(event);
        if may_take_away {
            self.tokens.retain(|id| self.store.is_ours(id));
        }
    }
}

/// As whom it is asked what was revoked. Anybody may; but whoever shows no certificate shares one budget with all who
/// come from the same address, and needs a connection of his own.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Node,
    Anybody,
}

impl Asker {
    fn client(self, link: &Link) -> Result<Arc<Client>, ClientError> {
        match self {
            Self::Node => Ok(link.client()),
            Self::Anybody => link.anonymous().map(Arc::new),
        }
    }
}

/// Asks which of the certificates that are held are not good, until it is answered, and withdraws those: after
/// something may have been missed, for revocations are not told twice. The answer has to have reached the revision that
/// we have.
async fn look_after(
    held: Vec<SerialNumber>,
    after: Option<u64>,
    mut asker: Asker,
    link: Arc<Link>,
    store: Arc<Store>,
    random: Arc<dyn Random>,
) {
    for serials in held.chunks(limits::STATUS_SERIALS) {
        let question = StatusQuestion { serials: serials.to_vec(), after };
        let mut failures = 0;
        let answer = loop {
            let client = match asker.client(&link) {
                Ok(client) => client,
                Err(error) => return tracing::error!(%error, "what was revoked meanwhile is not known"),
            };
            match client.status_of_many(&question).await {
                Ok(answer) => break answer,
                Err(error) => {
                    tracing::warn!(%error, "what was revoked meanwhile is not known");
                    // Whoever is only to wait waits; any other trouble may be that of the node's own certificate.
                    if advised(&error).is_none() {
                        asker = Asker::Anybody;
                    }
                    failures += 1;
                    tokio::time::sleep(BACKOFF.delay(failures, advised(&error), &*random)).await;
                }
            }
        };
        let not_good: Vec<SerialNumber> = answer.not_good.iter().map(|one| one.serial).collect();
        if !not_good.is_empty() {
            store.withdraw(&not_good);
        }
    }
}
