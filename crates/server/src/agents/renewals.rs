//! Renewals before their time: asked for by an operator, or due because a profile is another.
//!
//! Whoever asks leaves an entry in the log, and its position says which certificates are meant: those that the log has
//! before it. So an agent can be told twice, late, or after a restart of the server, and does nothing twice. What is
//! told is held in memory and found again in the end of the log; see [`REMEMBERED`] and [`LOOKED_BACK`] for how much.

use std::collections::VecDeque;
use std::time::Duration;

use chancery_api::{AgentEvent, RenewalScope};
use chancery_entry::{Body, Document, Entry, OperatorAction};
use chancery_ledger::Ledger;
use chancery_policy::Action;
use chancery_types::{Claims, Identity, SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::authority::AuthorityError;

/// The latest of them that are told to agents that connect.
const REMEMBERED: usize = 256;
/// Entries at the end of the log that are looked through when the server starts.
const LOOKED_BACK: u64 = 65_536;
/// Entries that are read at once.
const READ: usize = 1024;
/// The time over which renewals are spread that a changed profile brings about.
const AFTER_PROFILE: Duration = Duration::from_mins(10);

/// Certificates that are to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Renewal {
    /// Whose.
    pub(super) scope: RenewalScope,
    /// Those that the log has before this position.
    pub(super) recorded_before: u64,
    /// By when.
    pub(super) until: Timestamp,
}

/// What the log keeps of an operator's wish.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    scope: RenewalScope,
    until: Timestamp,
    note: String,
}

/// The entry of an operator's wish.
pub(crate) fn asked(by: String, scope: RenewalScope, until: Timestamp, note: &str) -> Body {
    let resource = scope.to_string();
    let record = Record { scope, until, note: note.to_owned() };
    Body::OperatorAction(OperatorAction {
        by,
        action: Action::CertificateAskRenewal.as_str().to_owned(),
        resource,
        decision: Document(serde_json::json!({ "renewal": record }).to_string()),
    })
}

impl Renewal {
    /// What an entry brings about.
    pub(super) fn of(entry: &Entry, position: u64) -> Option<Self> {
        match &entry.body {
            Body::OperatorAction(action) if action.action == Action::CertificateAskRenewal.as_str() => {
                /// A refusal has a receipt in its place.
                #[derive(Deserialize)]
                struct Decision {
                    renewal: Record,
                }
                let Decision { renewal } = serde_json::from_str(&action.decision.0).ok()?;
                Some(Self { scope: renewal.scope, recorded_before: position, until: renewal.until })
            }
            Body::ProfileChanged(profile) => Some(Self {
                scope: RenewalScope::Profile(profile.name.clone()),
                recorded_before: position,
                until: entry.time + AFTER_PROFILE,
            }),
            _ => None,
        }
    }

    /// Whether a node that has proved these claims can hold such certificates; of an identity that means: this one.
    pub(super) fn concerns(&self, node: &SpiffeId, claims: &Claims, identity: Option<&Identity>) -> bool {
        match &self.scope {
            RenewalScope::All | RenewalScope::Issuer(_) | RenewalScope::Profile(_) => true,
            RenewalScope::Node(one) => one == node,
            RenewalScope::Identity(id) => {
                id == node || identity.is_some_and(|identity| identity.is_served_by(node, claims))
            }
        }
    }

    pub(super) fn event(&self, revision: u64) -> AgentEvent {
        AgentEvent::Renew {
            revision,
            scope: self.scope.clone(),
            recorded_before: self.recorded_before,
            until: self.until,
        }
    }
}

/// The latest wishes, for those who were not there.
#[derive(Debug, Default)]
pub(super) struct Standing(VecDeque<Renewal>);

impl Standing {
    /// Those at the end of the log.
    pub(super) async fn load(ledger: &dyn Ledger, size: u64) -> Result<Self, AuthorityError> {
        let mut standing = Self::default();
        let mut position = size.saturating_sub(LOOKED_BACK);
        // The first profiles change nothing.
        let mut is_issuing = position > 0;
        while position < size {
            let entries = ledger.entries(position, READ).await?;
            if entries.is_empty() {
                break;
            }
            for bytes in entries {
                position += 1;
                let Ok(entry) = Entry::decode(&bytes) else { continue };
                is_issuing |= matches!(entry.body, Body::Issuance(_));
                if let Some(renewal) = Renewal::of(&entry, position).filter(|_| is_issuing) {
                    standing.add(renewal);
                }
            }
        }
        Ok(standing)
    }

    pub(super) fn add(&mut self, renewal: Renewal) {
        // A later wish for the same, or for everything, is a wish for whatever this one meant.
        self.0.retain(|one| one.scope != renewal.scope && renewal.scope != RenewalScope::All);
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(renewal);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Renewal> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use chancery_types::IssuerEpoch;

    use super::*;

    fn renewal(scope: RenewalScope, recorded_before: u64) -> Renewal {
        Renewal { scope, recorded_before, until: Timestamp::from_seconds(100) }
    }

    #[test]
    fn what_was_asked_for_reads_back_from_the_log_and_a_refusal_asks_for_nothing() {
        let scope = RenewalScope::Issuer(IssuerEpoch(2));
        let body = asked("ada".into(), scope.clone(), Timestamp::from_seconds(100), "new chain");
        let entry = Entry::new(Timestamp::from_seconds(1), body.clone());
        assert_eq!(Renewal::of(&entry, 7), Some(renewal(scope, 7)));
        let Body::OperatorAction(mut refused) = body else { panic!("another body") };
        refused.decision = Document(r#"{"request":{},"decision":"deny"}"#.into());
        let entry = Entry::new(Timestamp::from_seconds(1), Body::OperatorAction(refused));
        assert_eq!(Renewal::of(&entry, 7), None);
    }

    #[test]
    fn the_latest_wish_of_a_kind_stands_and_one_for_all_covers_those_before() {
        let mut standing = Standing::default();
        let web = RenewalScope::Profile("web".into());
        standing.add(renewal(web.clone(), 1));
        standing.add(renewal(RenewalScope::Issuer(IssuerEpoch(1)), 2));
        standing.add(renewal(web.clone(), 3));
        let positions = |standing: &Standing| -> Vec<u64> {
            standing.iter().map(|renewal| renewal.recorded_before).collect()
        };
        assert_eq!(positions(&standing), [2, 3]);
        standing.add(renewal(RenewalScope::All, 4));
        standing.add(renewal(web, 5));
        assert_eq!(positions(&standing), [4, 5]);
        for epoch in 0..300 {
            standing.add(renewal(RenewalScope::Issuer(IssuerEpoch(epoch)), 6));
        }
        assert_eq!(standing.iter().count(), REMEMBERED);
    }
}
