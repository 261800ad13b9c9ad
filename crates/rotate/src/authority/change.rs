//! What is to be done, and why.

use std::fmt;

use chancery_types::{Digest, HumanDuration, IssuerEpoch, Timestamp};

use super::Subject;

/// A change, when it is due, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is done.
    pub what: What,
    /// When; it may lie in the past.
    pub due: Timestamp,
    /// Why.
    pub reason: Reason,
}

/// Who carries a change out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The scheduler.
    Scheduler,
    /// A task that looks after its own thing, whatever is planned.
    OwnTask,
    /// A person.
    Operator,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum What {
    /// A key and a request for the next issuer are made.
    RequestIssuer,
    /// The root signs the request of this issuer.
    SignRequest(IssuerEpoch),
    /// A spare issuer is published, with lists and OCSP answers of its own.
    PublishIssuer(IssuerEpoch),
    /// An issuer signs from here on, in place of another.
    ActivateIssuer {
        /// Which.
        epoch: IssuerEpoch,
        /// The one that signed before.
        supersedes: IssuerEpoch,
    },
    /// Nothing of this issuer is published any more.
    WithdrawIssuer(IssuerEpoch),
    /// Agents are asked to replace what this issuer signed.
    AskRenewals(IssuerEpoch),
    /// What is left of this issuer's certificates is revoked.
    Distrust(IssuerEpoch),
    /// Another root is made, and brought.
    MakeRoot,
    /// Issuers under this root may sign from here on.
    ActivateRoot(Digest),
    /// This root is taken out of the bundle.
    WithdrawRoot(Digest),
    /// A key is made and published.
    PublishKey(Subject),
    /// A key signs from here on, in place of another.
    ActivateKey {
        /// Of which kind.
        subject: Subject,
        /// Which.
        id: Digest,
        /// The one that signed before.
        supersedes: Digest,
    },
    /// A key is taken out of the bundle; one of the log signs no more.
    WithdrawKey {
        /// Of which kind.
        subject: Subject,
        /// Which.
        id: Digest,
    },
    /// A certificate of the authority's own is replaced.
    RenewCredential(String),
    /// Lists are made anew.
    BuildList(String),
}

impl What {
    /// Who carries it out.
    #[must_use]
    pub fn actor(&self) -> Actor {
        match self {
            Self::SignRequest(_) | Self::MakeRoot => Actor::Operator,
            Self::RenewCredential(_) | Self::BuildList(_) => Actor::OwnTask,
            _ => Actor::Scheduler,
        }
    }

    /// Of which kind it is: `issuer`, `root`, `jwt`, `log`, `credential` or `lists`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RequestIssuer
            | Self::SignRequest(_)
            | Self::PublishIssuer(_)
            | Self::ActivateIssuer { .. }
            | Self::WithdrawIssuer(_)
            | Self::AskRenewals(_)
            | Self::Distrust(_) => Subject::Issuer.name(),
            Self::MakeRoot | Self::ActivateRoot(_) | Self::WithdrawRoot(_) => Subject::Root.name(),
            Self::PublishKey(subject)
            | Self::ActivateKey { subject, .. }
            | Self::WithdrawKey { subject, .. } => subject.name(),
            Self::RenewCredential(_) => "credential",
            Self::BuildList(_) => "lists",
        }
    }
}

/// The first characters of a fingerprint: enough to tell a handful apart.
fn short(id: &Digest) -> String {
    id.to_string().chars().take(12).collect()
}

impl fmt::Display for What {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestIssuer => formatter.write_str("make a key and a request for the next issuer"),
            Self::SignRequest(epoch) => write!(formatter, "sign the request of issuer {epoch} with the root"),
            Self::PublishIssuer(epoch) => write!(formatter, "publish issuer {epoch}"),
            Self::ActivateIssuer { epoch, supersedes } => {
                write!(formatter, "issuer {epoch} signs in place of issuer {supersedes}")
            }
            Self::WithdrawIssuer(epoch) => write!(formatter, "stop publishing for issuer {epoch}"),
            Self::AskRenewals(epoch) => {
                write!(formatter, "ask agents to replace what issuer {epoch} signed")
            }
            Self::Distrust(epoch) => write!(formatter, "revoke what is left of issuer {epoch}"),
            Self::MakeRoot => formatter.write_str("make the next root"),
            Self::ActivateRoot(id) => write!(formatter, "issuers under root {} may sign", short(id)),
            Self::WithdrawRoot(id) => write!(formatter, "take root {} out of the bundle", short(id)),
            Self::PublishKey(subject) => {
                write!(formatter, "make the next {} key and publish it", subject.name())
            }
            Self::ActivateKey { subject, id, supersedes } => write!(
                formatter,
                "{} key {} signs in place of {}",
                subject.name(),
                short(id),
                short(supersedes)
            ),
            Self::WithdrawKey { subject: Subject::Log, id } => {
                write!(formatter, "log key {} signs no more", short(id))
            }
            Self::WithdrawKey { subject, id } => {
                write!(formatter, "take {} key {} out of the bundle", subject.name(), short(id))
            }
            Self::RenewCredential(name) => write!(formatter, "renew the certificate of {name}"),
            Self::BuildList(name) => write!(formatter, "make the {name} anew"),
        }
    }
}

/// Why something is due when it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Its turn is over: it has signed since then.
    TurnOver {
        /// Since when.
        since: Timestamp,
    },
    /// The one that signs comes to its end.
    Ending {
        /// When.
        until: Timestamp,
    },
    /// An operator asked for it.
    Asked {
        /// Who.
        by: String,
    },
    /// The one that signs is not to be trusted.
    Tainted {
        /// Since when.
        at: Timestamp,
    },
    /// There is a newer root.
    NewRoot,
    /// It is wanted then, and relying parties need time to fetch it.
    WantedAt {
        /// When.
        at: Timestamp,
    },
    /// No spare is left, and somebody with the root has to sign in time.
    NoSpare {
        /// When the one that signs comes to its end.
        until: Timestamp,
    },
    /// It was published, and everybody had time to fetch it.
    Noticed {
        /// Since when.
        since: Timestamp,
    },
    /// It has ended, and everything under it with it.
    Ended {
        /// When.
        until: Timestamp,
    },
    /// No issuer under it may be met any more.
    Unused,
    /// The last token that it signed has ended.
    TokensEnded {
        /// How long tokens live.
        life: std::time::Duration,
    },
    /// The next one signs, and this one has signed beside it for long enough.
    BothSigned {
        /// How long.
        overlap: std::time::Duration,
    },
    /// It is not to be trusted, and was never used.
    NeverUsed,
    /// Agents had until then to replace what it signed.
    Replaced {
        /// By when.
        until: Timestamp,
    },
    /// Half of its life is over.
    HalfOfItsLife {
        /// When it ends.
        until: Timestamp,
    },
    /// The one in place runs out.
    RunsOut {
        /// When.
        until: Timestamp,
    },
}

impl Reason {
    /// A word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TurnOver { .. } => "turn-over",
            Self::Ending { .. } => "ending",
            Self::Asked { .. } => "asked",
            Self::Tainted { .. } => "tainted",
            Self::NewRoot => "new-root",
            Self::WantedAt { .. } => "wanted",
            Self::NoSpare { .. } => "no-spare",
            Self::Noticed { .. } => "noticed",
            Self::Ended { .. } => "ended",
            Self::Unused => "unused",
            Self::TokensEnded { .. } => "tokens-ended",
            Self::BothSigned { .. } => "both-signed",
            Self::NeverUsed => "never-used",
            Self::Replaced { .. } => "replaced",
            Self::HalfOfItsLife { .. } => "half-life",
            Self::RunsOut { .. } => "runs-out",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TurnOver { since } => {
                write!(formatter, "the one before has signed since {}", since.whole_second())
            }
            Self::Ending { until } => write!(formatter, "the one before ends at {}", until.whole_second()),
            Self::Asked { by } => write!(formatter, "{by} asked for it"),
            Self::Tainted { at } => {
                write!(formatter, "it is not to be trusted, as was said at {}", at.whole_second())
            }
            Self::NewRoot => formatter.write_str("there is a newer root"),
            Self::WantedAt { at } => {
                write!(formatter, "wanted at {}, and everybody needs time to fetch it", at.whole_second())
            }
            Self::NoSpare { until } => write!(
                formatter,
                "no spare is left, and the issuer that signs ends at {}",
                until.whole_second()
            ),
            Self::Noticed { since } => {
                write!(formatter, "published since {}: everybody had time to fetch it", since.whole_second())
            }
            Self::Ended { until } => {
                write!(formatter, "everything under it has ended at {}", until.whole_second())
            }
            Self::Unused => formatter.write_str("no issuer under it may be met any more"),
            Self::TokensEnded { life } => {
                write!(
                    formatter,
                    "the last token that it signed has ended: they live {}",
                    HumanDuration(*life)
                )
            }
            Self::BothSigned { overlap } => {
                write!(formatter, "it has signed beside the next one for {}", HumanDuration(*overlap))
            }
            Self::NeverUsed => formatter.write_str("it is not to be trusted, and was never used"),
            Self::Replaced { until } => {
                write!(formatter, "agents had until {} to replace it", until.whole_second())
            }
            Self::HalfOfItsLife { until } => {
                write!(formatter, "half of its life is over; it ends at {}", until.whole_second())
            }
            Self::RunsOut { until } => {
                write!(formatter, "the one in place runs out at {}", until.whole_second())
            }
        }
    }
}
