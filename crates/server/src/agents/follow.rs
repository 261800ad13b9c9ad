//! Following the ledger: from entries to what they mean for nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use chancery_attest::NODE_PROFILE;
use chancery_entry::{Body, Entry, HoldTarget};
use chancery_ledger::News;
use chancery_policy::IdentityTemplate;
use chancery_types::{EvidenceKind, Identity, IdentityState, SerialNumber, SpiffeId};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::history::{Change, History};
use super::renewals::Renewal;
use super::roster::names_nodes;
use super::streams::Ending;
use super::{Agents, Picture, State, for_processes, spread, view};
use crate::authority::{AuthorityError, Rules};

/// Entries that are worked on together: revocations in one go reach a node as one event.
const BATCH: usize = 1024;
/// How long to wait after the ledger could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// What an entry means.
enum Meaning {
    /// An identity stands differently.
    Identity { id: SpiffeId, now: Option<Arc<Identity>>, is_node: bool },
    /// A certificate is not good any more, and this node is to know.
    Revoked { node: SpiffeId, serial: SerialNumber },
    /// Streams end.
    End { node: SpiffeId, which: Ending },
    /// A template stands differently.
    Template { name: String, now: Option<Arc<IdentityTemplate>> },
    /// The bundle is another.
    Bundle,
    /// A profile is another: nobody knows what changed for whom.
    Profile,
    /// Certificates are to be renewed.
    Renewal(Renewal),
}

impl Agents {
    /// Follows the ledger until it closes.
    pub(crate) async fn follow(&self, mut news: Receiver<News>) {
        let _end = End(self);
        loop {
            let mut has_missed = false;
            let mut batch = Vec::new();
            match news.recv().await {
                Ok(first) => batch.push(first),
                Err(RecvError::Lagged(_)) => has_missed = true,
                Err(RecvError::Closed) => return,
            }
            while !has_missed && batch.len() < BATCH {
                match news.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(TryRecvError::Lagged(_)) => has_missed = true,
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            let done = if has_missed { Ok(()) } else { self.apply(&batch).await };
            if let Err(error) = &done {
                tracing::error!(%error, "agents could not be told what changed; they are told everything anew");
            }
            if has_missed || done.is_err() {
                // No heartbeat may vouch for what is not known. From here on it is looked at whole.
                self.state().streams.clear();
            }
            while has_missed || done.is_err() {
                news = self.authority.ledger().news();
                match self.reload().await {
                    Ok(()) => break,
                    Err(error) => tracing::error!(%error, "agents cannot be told anything"),
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Looks at everything again. All streams end: what they have missed is not known.
    async fn reload(&self) -> Result<(), AuthorityError> {
        let mut picture = Picture::load(&self.authority).await?;
        let revision = picture.revision;
        let mut state = self.state();
        picture.federated = std::mem::take(&mut state.picture.federated);
        state.streams.clear();
        (state.picture, state.history) = (picture, History::from(revision));
        self.revision.store(revision, Ordering::Release);
        Ok(())
    }

    /// Finds out what entries mean, and then tells it without waiting for anything.
    async fn apply(&self, batch: &[News]) -> Result<(), AuthorityError> {
        let mut meanings = Vec::new();
        for news in batch {
            let position = news.index + 1;
            // Before the rest: whoever is then told everything anew is told this with it.
            meanings.extend(Renewal::of(&news.entry, position).map(|one| (position, Meaning::Renewal(one))));
            for meaning in self.meanings(&news.entry).await? {
                meanings.push((position, meaning));
            }
        }
        let has_new_bundle = meanings.iter().any(|(_, meaning)| matches!(meaning, Meaning::Bundle));
        let bundle = if has_new_bundle { Some(view::bundle(&self.authority).await?) } else { None };
        let rules = self.authority.settled_rules().await;
        let reached = batch.last().map_or(0, |last| last.index + 1);
        let mut state = self.state();
        if let Some(bundle) = bundle {
            state.picture.bundle = Arc::new(bundle);
        }
        state.tell(meanings, &rules);
        state.picture.revision = state.picture.revision.max(reached);
        self.revision.store(state.picture.revision, Ordering::Release);
        Ok(())
    }

    async fn meanings(&self, entry: &Entry) -> Result<Vec<Meaning>, AuthorityError> {
        match &entry.body {
            Body::IdentityRegistered(one) | Body::IdentityChanged(one) => {
                Ok(vec![self.identity(&one.identity).await?])
            }
            Body::IdentityHeld(one) | Body::IdentityReleased(one) | Body::IdentityRetired(one) => {
                Ok(vec![self.identity(&one.identity).await?])
            }
            Body::Revocation(revocation) => self.revoked(revocation.serial).await,
            Body::Hold(hold) => match &hold.target {
                HoldTarget::Certificate(serial) => self.revoked(*serial).await,
                HoldTarget::Lineage(lineage) => {
                    let mut meanings = Vec::new();
                    for serial in self.authority.ledger().living(*lineage).await? {
                        meanings.extend(self.revoked(serial).await?);
                    }
                    for meaning in &mut meanings {
                        if let Meaning::End { which, .. } = meaning {
                            *which = Ending::Lineage(*lineage);
                        }
                    }
                    Ok(meanings)
                }
            },
            Body::TemplateRegistered(one) => Ok(vec![self.template(&one.name).await?]),
            Body::TemplateRemoved(one) => Ok(vec![self.template(&one.name).await?]),
            Body::ProfileChanged(_) => Ok(vec![Meaning::Profile]),
            Body::IssuerActivated(_)
            | Body::IssuerRetired(_)
            | Body::IssuerPrepared(_)
            | Body::IssuerWithdrawn(_)
            | Body::KeyChanged(_) => Ok(vec![Meaning::Bundle]),
            // What is good again is asked for again by whoever needs it.
            _ => Ok(Vec::new()),
        }
    }

    /// How an identity stands now. When a later entry has changed it again, that one finds nothing new.
    async fn identity(&self, id: &SpiffeId) -> Result<Meaning, AuthorityError> {
        let record = self.authority.ledger().identity(id).await?;
        let active = record.filter(|record| record.state == IdentityState::Active);
        let is_node =
            active.as_ref().is_some_and(|record| record.identity.allowed_profiles().contains(&NODE_PROFILE));
        let now = active.map(|record| record.identity).filter(names_nodes).map(Arc::new);
        Ok(Meaning::Identity { id: id.clone(), now, is_node })
    }

    async fn template(&self, name: &str) -> Result<Meaning, AuthorityError> {
        let record = self.authority.ledger().template(name).await?;
        let now = record.and_then(|record| for_processes(record.document));
        Ok(Meaning::Template { name: name.to_owned(), now })
    }

    /// Who is to know of a certificate that is not good any more: the node whose it is, or through which a workload
    /// got it.
    async fn revoked(&self, serial: SerialNumber) -> Result<Vec<Meaning>, AuthorityError> {
        let ledger = self.authority.ledger();
        let Some(record) = ledger.certificate(serial).await? else { return Ok(Vec::new()) };
        let mut meanings = Vec::new();
        if record.profile == NODE_PROFILE {
            let node = record.identity.clone();
            meanings.push(Meaning::Revoked { node: node.clone(), serial });
            meanings.push(Meaning::End { node, which: Ending::Certificate(serial) });
        }
        if record.evidence == EvidenceKind::Workload {
            let bytes = ledger.entry(record.index).await?.unwrap_or_default();
            if let Ok(Entry { body: Body::Issuance(issuance), .. }) = Entry::decode(&bytes)
                && let Ok(node) = SpiffeId::parse(&issuance.requester)
            {
                meanings.push(Meaning::Revoked { node, serial });
            }
        }
        Ok(meanings)
    }
}

/// However following ends, no stream goes on without it, and none begins.
struct End<'a>(&'a Agents);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::Release);
        self.0.state().streams.clear();
    }
}

impl State {
    fn tell(&mut self, meanings: Vec<(u64, Meaning)>, rules: &Rules) {
        let mut revoked = Revoked::default();
        for (revision, meaning) in meanings {
            if !matches!(meaning, Meaning::Revoked { .. }) {
                self.tell_revoked(std::mem::take(&mut revoked), rules);
            }
            match meaning {
                Meaning::Revoked { node, serial } => revoked.add(revision, node, serial),
                Meaning::Identity { id, now, is_node } => {
                    let before = self.picture.roster.put(&id, now.clone());
                    if before != now {
                        let spread = self.spread(before.iter().chain(&now));
                        self.publish(revision, Change::Identity { before, after: now, spread }, rules);
                    }
                    if !is_node {
                        self.streams.end(&id, Ending::All);
                    }
                }
                Meaning::Template { name, now } => {
                    let before = match &now {
                        Some(now) => self.picture.templates.insert(name, Arc::clone(now)),
                        None => self.picture.templates.remove(&name),
                    };
                    if before != now {
                        self.publish(revision, Change::Template { before, after: now }, rules);
                    }
                }
                Meaning::End { node, which } => self.streams.end(&node, which),
                Meaning::Bundle => self.publish(revision, Change::Bundle, rules),
                Meaning::Profile => self.tell_everything(revision, rules),
                Meaning::Renewal(renewal) => {
                    let identity = self.picture.meant(&renewal).cloned().map(Arc::new);
                    self.picture.renewals.add(renewal.clone());
                    self.publish(revision, Change::Renewal { renewal, identity }, rules);
                }
            }
        }
        self.tell_revoked(revoked, rules);
    }

    fn tell_revoked(&mut self, revoked: Revoked, rules: &Rules) {
        for (node, serials) in revoked.by_node {
            self.publish(revoked.revision, Change::Revoked { node, serials }, rules);
        }
    }

    /// How long what follows from a change of this identity takes, for all who serve it.
    fn spread<'a>(&self, identity: impl Iterator<Item = &'a Arc<Identity>>) -> u64 {
        let identity: Vec<_> = identity.collect();
        let is_by_parent = identity.iter().all(|one| one.node_selectors.is_empty());
        spread(if is_by_parent {
            self.streams.of(identity.iter().flat_map(|one| &one.parents))
        } else {
            self.streams.len()
        })
    }

    /// Tells every node everything anew. Whoever is away is told everything, too.
    fn tell_everything(&mut self, revision: u64, rules: &Rules) {
        self.picture.revision = self.picture.revision.max(revision);
        self.history = History::from(revision);
        let spread = spread(self.streams.len());
        let Self { picture, streams, .. } = self;
        streams.send_to_all(|node, stream| {
            let events = picture.everything(node, &stream.claims, rules, spread);
            Some(events.iter().flat_map(view::line).collect())
        });
    }

    /// Remembers a change, and sends it to those whom it concerns.
    fn publish(&mut self, revision: u64, change: Change, rules: &Rules) {
        let bundle = Arc::clone(&self.picture.bundle);
        let line = |node: &SpiffeId, claims: &_| -> Option<Bytes> {
            view::event(revision, &change, node, claims, &bundle, rules).map(|event| view::line(&event))
        };
        match &change {
            Change::Revoked { node, .. } => {
                self.streams.send_to(node, |stream| line(node, &stream.claims));
            }
            Change::Identity { before, after, .. } => {
                let both = || before.iter().chain(after);
                if both().all(|identity| identity.node_selectors.is_empty()) {
                    let mut parents: Vec<&SpiffeId> = both().flat_map(|one| &one.parents).collect();
                    parents.sort_unstable();
                    parents.dedup();
                    for parent in parents {
                        self.streams.send_to(parent, |stream| line(parent, &stream.claims));
                    }
                } else {
                    self.streams.send_to_all(|node, stream| line(node, &stream.claims));
                }
            }
            Change::Template { .. } | Change::Bundle | Change::Renewal { .. } => {
                self.streams.send_to_all(|node, stream| line(node, &stream.claims))
            }
        }
        self.history.add(revision, change);
    }
}

/// Revocations that follow each other, gathered.
#[derive(Default)]
struct Revoked {
    revision: u64,
    by_node: BTreeMap<SpiffeId, Vec<SerialNumber>>,
}

impl Revoked {
    fn add(&mut self, revision: u64, node: SpiffeId, serial: SerialNumber) {
        self.revision = revision;
        self.by_node.entry(node).or_default().push(serial);
    }
}
