//! How things stand, as plain values.

use std::collections::BTreeMap;
use std::time::Duration;

use chancery_types::{Digest, IssuerEpoch, Timestamp};

pub use crate::client::Life;

use super::{Change, Reason, What};

/// What follows another of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Issuers of certificates.
    Issuer,
    /// Roots.
    Root,
    /// Keys of JWT-SVIDs.
    Jwt,
    /// Keys of the log's checkpoints.
    Log,
}

impl Subject {
    /// Every subject.
    pub const ALL: [Self; 4] = [Self::Issuer, Self::Root, Self::Jwt, Self::Log];

    /// Its name: `issuer`, `root`, `jwt` or `log`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Root => "root",
            Self::Jwt => "jwt",
            Self::Log => "log",
        }
    }
}

/// Since when something stands as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// As the log says; clocks may have been set since.
    pub at: Timestamp,
    /// For how long this process has seen it so, by a clock that nobody sets. Less than the truth, never more.
    pub seen_for: Duration,
}

/// Where in its life an issuer, a root or a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Key and request are here; the root has not signed. Issuers only.
    Requested,
    /// Key and certificate are here, and nobody was told. Issuers only.
    Spare,
    /// Whoever fetches the bundle, the issuers or the lists gets it. It signs nothing yet.
    Published(Since),
    /// It signs. Of roots: issuers under it may.
    Active(Since),
    /// It signs the status of what it issued, and nothing new; a key of the log signs beside the one after it.
    Superseded(Since),
    /// Nothing of it is published any more; a key of the log signs no more.
    Withdrawn,
}

impl Phase {
    /// Whether it is published and does not sign yet.
    #[must_use]
    pub fn published(self) -> Option<Since> {
        if let Self::Published(since) = self { Some(since) } else { None }
    }

    /// Whether it signs.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Active(_))
    }

    pub(super) fn since_mut(&mut self) -> Option<&mut Since> {
        match self {
            Self::Published(since) | Self::Active(since) | Self::Superseded(since) => Some(since),
            Self::Requested | Self::Spare | Self::Withdrawn => None,
        }
    }
}

/// What becomes of an issuer that is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaintStep {
    /// Somebody said so.
    Marked,
    /// Agents replace what it signed until then.
    Renewing {
        /// By when they are to be done.
        until: Timestamp,
    },
    /// What was left was revoked.
    Distrusted,
}

/// That an issuer is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taint {
    /// Since when.
    pub at: Timestamp,
    /// What has been done about it.
    pub step: TaintStep,
}

/// An issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issuer {
    /// Its number.
    pub epoch: IssuerEpoch,
    /// The root that signed it.
    pub root: Digest,
    /// Its validity. Nothing that it signed outlives it.
    pub life: Life,
    /// Where it is.
    pub phase: Phase,
    /// Whether it is not to be trusted.
    pub taint: Option<Taint>,
}

/// A root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// SHA-256 of its certificate.
    pub id: Digest,
    /// Its validity.
    pub life: Life,
    /// Where it is.
    pub phase: Phase,
}

impl Root {
    /// The newer of two is the one that begins later.
    #[must_use]
    pub fn age(&self) -> (Timestamp, Digest) {
        (self.life.from, self.id)
    }
}

/// A key without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub id: Digest,
    /// Where it is.
    pub phase: Phase,
}

/// A certificate of the authority's own that is renewed at half of its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Whose: `server TLS`, `OCSP responder of issuer 3`.
    pub name: String,
    /// Its validity.
    pub life: Life,
}

impl Credential {
    pub(super) fn renewal(&self) -> Change {
        Change {
            what: What::RenewCredential(self.name.clone()),
            due: self.life.from + self.life.length() / 2,
            reason: Reason::HalfOfItsLife { until: self.life.until },
        }
    }
}

/// Revocation lists that are made together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Whose: `lists of issuer 3`.
    pub name: String,
    /// When the next one is made, though nothing changes.
    pub next: Timestamp,
    /// When the one in place runs out.
    pub until: Timestamp,
}

impl List {
    pub(super) fn next(&self) -> Change {
        Change {
            what: What::BuildList(self.name.clone()),
            due: self.next,
            reason: Reason::RunsOut { until: self.until },
        }
    }
}

/// What an operator wants of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The next one, as soon as everybody could know it.
    Now {
        /// Who wants it.
        by: String,
        /// Since when.
        at: Timestamp,
    },
    /// No new one until somebody asks for it.
    Pause {
        /// Who wants it.
        by: String,
        /// Since when.
        at: Timestamp,
    },
}

/// How everything stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Every issuer, spares and requests too.
    pub issuers: Vec<Issuer>,
    /// Every root.
    pub roots: Vec<Root>,
    /// Keys of JWT-SVIDs.
    pub jwt_keys: Vec<Key>,
    /// Keys of the log's checkpoints.
    pub log_keys: Vec<Key>,
    /// Certificates of the authority's own.
    pub credentials: Vec<Credential>,
    /// Revocation lists.
    pub lists: Vec<List>,
    /// What operators want and have not got.
    pub wishes: BTreeMap<Subject, Wish>,
    /// For how long this process has seen its clock go evenly.
    pub steady_for: Duration,
}

impl State {
    /// The issuer that signs.
    #[must_use]
    pub fn active_issuer(&self) -> Option<&Issuer> {
        self.issuers.iter().find(|issuer| issuer.phase.is_active())
    }

    /// An issuer by its number.
    #[must_use]
    pub fn issuer(&self, epoch: IssuerEpoch) -> Option<&Issuer> {
        self.issuers.iter().find(|issuer| issuer.epoch == epoch)
    }

    /// A root by the hash of its certificate.
    #[must_use]
    pub fn root(&self, id: Digest) -> Option<&Root> {
        self.roots.iter().find(|root| root.id == id)
    }

    /// The root under which new issuers are to stand: the youngest that is active.
    #[must_use]
    pub fn newest_root(&self) -> Option<&Root> {
        self.roots.iter().filter(|root| root.phase.is_active()).max_by_key(|root| root.age())
    }

    /// Keys of this kind; none for subjects that are no keys.
    #[must_use]
    pub fn keys(&self, subject: Subject) -> &[Key] {
        match subject {
            Subject::Jwt => &self.jwt_keys,
            Subject::Log => &self.log_keys,
            Subject::Issuer | Subject::Root => &[],
        }
    }

    /// When a change may be made that waits for the clock to have settled.
    pub(super) fn settled(&self, rules: &Rules, now: Timestamp) -> Timestamp {
        now + rules.settle.saturating_sub(self.steady_for)
    }

    /// When everybody had time to fetch what was published, and the clock has settled.
    pub(super) fn noticed(&self, since: Since, rules: &Rules, now: Timestamp) -> Timestamp {
        let noticed = now + rules.notice().saturating_sub(since.seen_for);
        noticed.max(self.settled(rules, now))
    }
}

/// How often things follow each other, and how long they wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How often relying parties fetch the bundle: `spiffe_refresh_hint`.
    pub refresh_hint: Duration,
    /// What is added for those that were late.
    pub margin: Duration,
    /// How long a clock has to go evenly before it decides about activation and withdrawal. Longer than it takes to
    /// set a wrong clock right.
    pub settle: Duration,
    /// How long what has ended stays published: for verifiers whose clocks are late.
    pub keep: Duration,
    /// How long a JWT key signs; `None`: until somebody asks for another.
    pub jwt_period: Option<Duration>,
    /// The longest life of a token.
    pub token_life: Duration,
    /// How long a key of the log signs; `None`: until somebody asks for another.
    pub log_period: Option<Duration>,
    /// How long the key before it goes on signing beside it: for whoever has its key in a file, and has to be told.
    pub log_overlap: Duration,
    /// The time over which agents replace what a tainted issuer signed.
    pub wave: Duration,
    /// How long what they could not replace is left alone after it.
    pub grace: Duration,
}

impl Rules {
    /// How long something is published before it signs. New keys are to be published three to five times the refresh
    /// hint before their use (SPIFFE Federation, section 5).
    #[must_use]
    pub fn notice(&self) -> Duration {
        self.refresh_hint * 4 + self.margin
    }

    /// How long an issuer of this life signs: a third. Before it, a third in reserve; after it, a third for what it
    /// signed last.
    #[must_use]
    pub fn turn(&self, life: Life) -> Duration {
        life.length() / 3
    }

    /// How long before its turn an issuer is published.
    #[must_use]
    pub fn lead(&self, life: Life) -> Duration {
        (life.length() / 12).max(self.notice() * 2)
    }
}

/// 365.25 days, which is what people write as `1y`.
const YEAR: Duration = Duration::from_secs(31_557_600);

impl Default for Rules {
    /// Bundles are fetched every five minutes; JWT keys sign for thirty days, those of the log for a year and a month
    /// beside the next one.
    fn default() -> Self {
        Self {
            refresh_hint: Duration::from_mins(5),
            margin: Duration::from_mins(5),
            settle: Duration::from_hours(1),
            keep: Duration::from_hours(24),
            jwt_period: Some(Duration::from_hours(30 * 24)),
            token_life: Duration::from_hours(1),
            log_period: Some(YEAR),
            log_overlap: Duration::from_hours(30 * 24),
            wave: Duration::from_mins(10),
            grace: Duration::from_hours(24),
        }
    }
}
