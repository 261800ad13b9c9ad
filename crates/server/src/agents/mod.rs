//! What the agents of nodes are told, at the moment that it changes.
//!
//! One task follows the ledger: it keeps in memory which identities belong to which nodes, and passes what changes
//! to the streams that it concerns. Everything that is told is in the ledger already, in the ledger's order; a
//! stream that falls behind or breaks off is resumed by the revision that it has reached, from a history of bounded
//! length, or begun anew with everything.
//!
//! It decides nothing: what a node may have is decided when it asks for it. It trusts the ledger.

mod follow;
mod history;
mod renewals;
mod roster;
mod streams;
mod view;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chancery_api::{AgentEvent, BundleView, RenewalScope};
use chancery_ledger::{IdentityQuery, News, PageRequest};
use chancery_policy::IdentityTemplate;
use chancery_types::{
    Claims, Identity, IdentityState, LineageId, SerialNumber, SpiffeId, Timestamp, TrustDomain,
};
use tokio::sync::{broadcast, mpsc};

use crate::authority::{Authority, AuthorityError, Rules};
use history::History;
use renewals::{Renewal, Standing};
use roster::Roster;
use streams::{Full, Stream, Streams};

pub(crate) use renewals::asked as renewal_asked;
pub(crate) use streams::StreamLimits;

/// The streams to agents, and what they are fed from.
pub(crate) struct Agents {
    authority: Arc<Authority>,
    limits: StreamLimits,
    state: Mutex<State>,
    /// What the state has reached; moves only after its events were handed to the streams.
    revision: AtomicU64,
    /// Whether nobody follows the ledger any more.
    has_ended: AtomicBool,
}

struct State {
    picture: Picture,
    history: History,
    streams: Streams,
}

/// How things stand.
struct Picture {
    revision: u64,
    roster: Roster,
    /// Those for processes, by name.
    templates: BTreeMap<String, Arc<IdentityTemplate>>,
    bundle: Arc<BundleView>,
    /// Those of other trust domains. They are in no log: whoever opens a stream is told them.
    federated: BTreeMap<TrustDomain, BundleView>,
    renewals: Standing,
}

/// A node whose certificate is good, as it opens a stream.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Who it is.
    pub(crate) id: SpiffeId,
    /// The certificate on the connection.
    pub(crate) serial: SerialNumber,
    /// Its enrolment.
    pub(crate) lineage: LineageId,
    /// When that certificate ends, and the stream with it.
    pub(crate) not_after: Timestamp,
}

/// An open stream. Dropping it closes it.
pub(crate) struct Subscription {
    agents: Arc<Agents>,
    node: Node,
    number: u64,
    /// What comes first.
    pub(crate) first: Vec<Bytes>,
    lines: mpsc::Receiver<Bytes>,
}

/// Why a stream is not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenStreamError {
    /// There are too many.
    #[error(transparent)]
    Full(#[from] Full),
    /// The ledger is not followed any more.
    #[error("the server does not follow its ledger any more; it is stopping, or has to be started again")]
    Ended,
    /// The node's records cannot be read.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl std::fmt::Debug for Agents {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Agents").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Agents {
    /// Reads how things stand; what has changed from then on waits in the second value for [`Self::follow`].
    ///
    /// # Errors
    /// [`AuthorityError`] when the ledger cannot be read.
    pub(crate) async fn load(
        authority: Arc<Authority>,
        limits: StreamLimits,
    ) -> Result<(Arc<Self>, broadcast::Receiver<News>), AuthorityError> {
        // In this order: what is committed in between is seen twice, which changes nothing.
        let news = authority.ledger().news();
        let picture = Picture::load(&authority).await?;
        let revision = AtomicU64::new(picture.revision);
        let (history, streams) = (History::from(picture.revision), Streams::default());
        let state = Mutex::new(State { picture, history, streams });
        let has_ended = AtomicBool::new(false);
        Ok((Arc::new(Self { authority, limits, state, revision, has_ended }), news))
    }

    /// Opens the stream of a node: what it has missed since `after`, or everything, and then what changes.
    ///
    /// # Errors
    /// [`OpenStreamError`].
    pub(crate) async fn open(
        self: &Arc<Self>,
        node: Node,
        after: Option<u64>,
    ) -> Result<Subscription, OpenStreamError> {
        let claims = self.authority.enrolment_claims(node.lineage).await?;
        self.authority.has_heard_of(after.unwrap_or_default()).await;
        let rules = self.authority.rules();
        let (sender, lines) = mpsc::channel(self.limits.buffer);
        let mut state = self.state();
        if self.has_ended.load(Ordering::Acquire) {
            return Err(OpenStreamError::Ended);
        }
        // Who has enrolled anew may have proved other things, and other identities are its own.
        let is_known = state.streams.last_lineage(&node.id) == Some(node.lineage);
        let events = match after.filter(|after| is_known && state.can_resume(*after)) {
            Some(after) => state.missed(&node, &claims, after, &rules),
            None => state.picture.everything(&node.id, &claims, &rules, spread(state.streams.len())),
        };
        let stream = Stream { serial: node.serial, lineage: node.lineage, claims, sender };
        let number = state.streams.add(&node.id, stream, self.limits)?;
        drop(state);
        let first = events.iter().map(view::line).collect();
        Ok(Subscription { agents: Arc::clone(self), node, number, first, lines })
    }

    /// Passes on the bundle of another trust domain.
    pub(crate) fn use_federated(&self, bundle: BundleView) {
        let mut state = self.state();
        let State { picture, streams, .. } = &mut *state;
        let event = AgentEvent::Bundle { revision: picture.revision, bundle: bundle.clone() };
        let line = view::line(&event);
        streams.send_to_all(|_, _| Some(line.clone()));
        picture.federated.insert(bundle.trust_domain.clone(), bundle);
    }

    /// How many streams are open.
    pub(crate) fn open_streams(&self) -> usize {
        self.state().streams.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether everything that happened after this revision is known.
    fn can_resume(&self, after: u64) -> bool {
        self.history.covers(after) && after <= self.picture.revision
    }

    fn missed(&self, node: &Node, claims: &Claims, after: u64, rules: &Rules) -> Vec<AgentEvent> {
        let changes = self.history.after(after);
        let events = changes.filter_map(|(revision, change)| {
            view::event(*revision, change, &node.id, claims, &self.picture.bundle, rules)
        });
        let revision = self.picture.revision;
        let federated = self.picture.federated.values().cloned();
        let federated = federated.map(|bundle| AgentEvent::Bundle { revision, bundle });
        // At least one, so that the agent knows at once that it has missed nothing else.
        events.chain(federated).chain([AgentEvent::Heartbeat { revision }]).collect()
    }
}

impl Picture {
    async fn load(authority: &Authority) -> Result<Self, AuthorityError> {
        let revision = authority.ledger().head().size;
        Ok(Self {
            revision,
            roster: load_roster(authority).await?,
            templates: load_templates(authority).await?,
            bundle: Arc::new(view::bundle(authority).await?),
            federated: BTreeMap::new(),
            renewals: Standing::load(authority.ledger().as_ref(), revision).await?,
        })
    }

    /// All that a node is to know: what it may serve, and what of it is to be renewed.
    fn everything(
        &self,
        node: &SpiffeId,
        claims: &Claims,
        rules: &Rules,
        spread_milliseconds: u64,
    ) -> Vec<AgentEvent> {
        let identities = self.roster.of(node, claims);
        let sync = AgentEvent::Sync {
            revision: self.revision,
            identities: identities.iter().map(|identity| view::identity(identity, rules)).collect(),
            templates: self
                .templates
                .values()
                .filter(|template| template.is_served_by(node, claims))
                .map(|template| view::template(template, rules))
                .collect(),
            bundle: self.bundle.as_ref().clone(),
            federated: self.federated.values().cloned().collect(),
            spread_milliseconds,
        };
        let concerns = |renewal: &&Renewal| renewal.concerns(node, claims, self.meant(renewal));
        let renewals = self.renewals.iter().filter(concerns).map(|renewal| renewal.event(self.revision));
        std::iter::once(sync).chain(renewals).collect()
    }

    /// The identity that a renewal is about, if it is about one.
    fn meant(&self, renewal: &Renewal) -> Option<&Identity> {
        match &renewal.scope {
            RenewalScope::Identity(id) => self.roster.find(id),
            _ => None,
        }
    }
}

/// Milliseconds over which agents that are told the same are to spread what follows: two hundred a second.
fn spread(agents: usize) -> u64 {
    agents as u64 * 5
}

impl Subscription {
    /// The next line; nothing once the stream is over. After a while without news it is a heartbeat.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        // Who holds an expired certificate connects anew with the next one, and goes on from there.
        if self.agents.authority.clock().now() > self.node.not_after {
            return None;
        }
        match tokio::time::timeout(self.agents.limits.heartbeat, self.lines.recv()).await {
            Ok(line) => line,
            Err(_) => self.heartbeat(),
        }
    }

    fn heartbeat(&mut self) -> Option<Bytes> {
        let revision = self.agents.revision.load(Ordering::Acquire);
        // Events up to that revision are in the channel already, and go first.
        match self.lines.try_recv() {
            Ok(line) => Some(line),
            Err(mpsc::error::TryRecvError::Disconnected) => None,
            Err(mpsc::error::TryRecvError::Empty) => Some(view::line(&AgentEvent::Heartbeat { revision })),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.agents.state().streams.remove(&self.node.id, self.number);
    }
}

async fn load_roster(authority: &Authority) -> Result<Roster, AuthorityError> {
    let query =
        IdentityQuery { state: Some(IdentityState::Active), for_nodes: true, ..IdentityQuery::default() };
    let page = authority.ledger().identities(&query, &PageRequest::first(usize::MAX)).await?;
    let mut roster = Roster::default();
    for record in page.items {
        let id = record.identity.spiffe_id.clone();
        roster.put(&id, Some(Arc::new(record.identity)));
    }
    Ok(roster)
}

async fn load_templates(
    authority: &Authority,
) -> Result<BTreeMap<String, Arc<IdentityTemplate>>, AuthorityError> {
    let records = authority.ledger().templates().await?;
    Ok(records
        .into_iter()
        .filter_map(|record| Some((record.name, for_processes(record.document)?)))
        .collect())
}

/// A registered template, if it is one for processes.
fn for_processes(document: serde_json::Value) -> Option<Arc<IdentityTemplate>> {
    let template = serde_json::from_value::<IdentityTemplate>(document).ok()?;
    template.is_for_processes().then(|| Arc::new(template))
}
