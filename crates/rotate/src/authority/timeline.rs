//! What will happen when, and why: plans carried out in mind.

use std::collections::HashSet;
use std::time::Duration;

use chancery_types::{Digest, IssuerEpoch, Timestamp};

use super::{
    Change, Issuer, Key, Life, Phase, Rules, Since, State, Subject, TaintStep, What, Wish, upcoming,
};

/// Changes until `until`, `limit` at the most, in the order in which they will happen if nobody does anything else.
#[must_use]
pub fn timeline(state: &State, rules: &Rules, now: Timestamp, until: Timestamp, limit: usize) -> Vec<Change> {
    let (mut state, mut at, mut told) = (state.clone(), now, HashSet::new());
    let mut changes = Vec::new();
    while changes.len() < limit {
        let next = upcoming(&state, rules, at).into_iter().find(|change| !told.contains(&change.what));
        let Some(change) = next.filter(|change| change.due <= until) else { break };
        let due = change.due.max(at);
        state.pass(due.since(at));
        at = due;
        state.apply(&change.what, rules, at);
        // A kind of key is made again and again; everything else happens once.
        if !matches!(change.what, What::PublishKey(_) | What::ActivateIssuer { .. }) {
            told.insert(change.what.clone());
        }
        changes.push(change);
    }
    changes
}

impl State {
    /// Time passes, and is seen to pass evenly.
    pub fn pass(&mut self, time: Duration) {
        self.steady_for = self.steady_for.saturating_add(time);
        let phases = self.issuers.iter_mut().map(|issuer| &mut issuer.phase);
        let phases = phases.chain(self.roots.iter_mut().map(|root| &mut root.phase));
        let keys = self.jwt_keys.iter_mut().chain(&mut self.log_keys);
        for phase in phases.chain(keys.map(|key| &mut key.phase)) {
            if let Some(since) = phase.since_mut() {
                since.seen_for = since.seen_for.saturating_add(time);
            }
        }
    }

    /// How things stand after a change. What only others can bring, such as a root or its signature, does not come about.
    pub fn apply(&mut self, what: &What, rules: &Rules, at: Timestamp) {
        let since = Since { at, seen_for: Duration::ZERO };
        match what {
            What::RequestIssuer => self.request(at),
            What::SignRequest(_) | What::MakeRoot => {}
            What::PublishIssuer(epoch) => self.set_issuer(*epoch, Phase::Published(since)),
            What::ActivateIssuer { epoch, supersedes } => {
                self.set_issuer(*supersedes, Phase::Superseded(since));
                self.set_issuer(*epoch, Phase::Active(since));
                self.fulfil(Subject::Issuer);
            }
            What::WithdrawIssuer(epoch) => self.set_issuer(*epoch, Phase::Withdrawn),
            What::AskRenewals(epoch) => {
                self.set_taint(*epoch, TaintStep::Renewing { until: at + rules.wave });
            }
            What::Distrust(epoch) => self.set_taint(*epoch, TaintStep::Distrusted),
            What::ActivateRoot(id) => self.set_root(*id, Phase::Active(since)),
            What::WithdrawRoot(id) => self.set_root(*id, Phase::Withdrawn),
            What::PublishKey(subject) => {
                let number = self.keys(*subject).len().to_be_bytes();
                let id = Digest::of(&[subject.name().as_bytes(), &number].concat());
                self.keys_mut(*subject).push(Key { id, phase: Phase::Published(since) });
            }
            What::ActivateKey { subject, id, supersedes } => {
                self.set_key(*subject, *supersedes, Phase::Superseded(since));
                self.set_key(*subject, *id, Phase::Active(since));
                self.fulfil(*subject);
            }
            What::WithdrawKey { subject, id } => self.set_key(*subject, *id, Phase::Withdrawn),
            What::RenewCredential(name) => self.credentials.retain(|one| one.name != *name),
            What::BuildList(name) => self.lists.retain(|one| one.name != *name),
        }
    }

    fn request(&mut self, at: Timestamp) {
        let last = self.issuers.iter().map(|issuer| issuer.epoch.0).max().unwrap_or(0);
        self.issuers.push(Issuer {
            epoch: IssuerEpoch(last.saturating_add(1)),
            root: Digest::of(b"not signed yet"),
            life: Life { from: at, until: at },
            phase: Phase::Requested,
            taint: None,
        });
    }

    fn fulfil(&mut self, subject: Subject) {
        if let Some(Wish::Now { .. }) = self.wishes.get(&subject) {
            self.wishes.remove(&subject);
        }
    }

    fn set_issuer(&mut self, epoch: IssuerEpoch, phase: Phase) {
        self.issuers
            .iter_mut()
            .filter(|issuer| issuer.epoch == epoch)
            .for_each(|issuer| issuer.phase = phase);
    }

    fn set_taint(&mut self, epoch: IssuerEpoch, step: TaintStep) {
        let tainted = self.issuers.iter_mut().filter(|issuer| issuer.epoch == epoch);
        tainted.filter_map(|issuer| issuer.taint.as_mut()).for_each(|taint| taint.step = step);
    }

    fn set_root(&mut self, id: Digest, phase: Phase) {
        self.roots.iter_mut().filter(|root| root.id == id).for_each(|root| root.phase = phase);
    }

    fn keys_mut(&mut self, subject: Subject) -> &mut Vec<Key> {
        if subject == Subject::Log { &mut self.log_keys } else { &mut self.jwt_keys }
    }

    fn set_key(&mut self, subject: Subject, id: Digest, phase: Phase) {
        self.keys_mut(subject).iter_mut().filter(|key| key.id == id).for_each(|key| key.phase = phase);
    }
}
