//! How a certificate stands, and what a relying party does when that is not known.

use std::fmt;
use std::time::Duration;

use chancery_types::{IssuerEpoch, RevocationReason};

pub use chancery_api::WhenUnknown;

/// How a certificate stands, as far as is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is not among those that are not good, and what is known is fresh enough to say so.
    Good,
    /// It is revoked or held.
    NotGood(NotGood),
    /// Nobody here can say.
    Unknown(Unknown),
}

/// Why a certificate is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotGood {
    /// Revoked, for good.
    Revoked(RevocationReason),
    /// Held, and may come back.
    Held,
    /// Revoked or held: the signed set says no more.
    Listed,
}

/// Why it is not known how a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// No signed set was ever received.
    Nothing,
    /// Nobody follows the status of this trust domain here.
    NotFollowed,
    /// The serial number is none of this authority's.
    Foreign,
    /// The signed set says nothing about this issuer.
    Issuer(IssuerEpoch),
    /// What is known is older than is allowed.
    TooOld {
        /// How old it is.
        age: Duration,
        /// How old it may be.
        maximum: Duration,
    },
}

/// What to do with what is known, and when it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether peers get in of whom nothing is known.
    pub when_unknown: WhenUnknown,
    /// How old knowledge may be before nothing is known.
    pub maximum_age: Duration,
    /// Whether open connections end, too, when nothing is known any more of their peer. Counts only with
    /// [`WhenUnknown::Closed`].
    pub end_when_unknown: bool,
    /// How long any connection may live (NIST SP 800-207A: sessions are authenticated anew); nothing for as long
    /// as the peer's certificate.
    pub maximum_connection_age: Option<Duration>,
}

impl Default for Rules {
    /// Closed after five minutes without word; open connections stay.
    fn default() -> Self {
        Self {
            when_unknown: WhenUnknown::Closed,
            maximum_age: Duration::from_secs(300),
            end_when_unknown: false,
            maximum_connection_age: None,
        }
    }
}

impl Rules {
    /// Whether a peer with this standing gets in.
    #[must_use]
    pub fn admit(&self, standing: Standing) -> bool {
        match standing {
            Standing::Good => true,
            Standing::NotGood(_) => false,
            Standing::Unknown(_) => self.when_unknown == WhenUnknown::Open,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => formatter.write_str("good"),
            Self::NotGood(why) => why.fmt(formatter),
            Self::Unknown(why) => write!(formatter, "not known: {why}"),
        }
    }
}

impl fmt::Display for NotGood {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked(reason) => write!(formatter, "revoked ({reason})"),
            Self::Held => formatter.write_str("held"),
            Self::Listed => formatter.write_str("revoked or held"),
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => formatter.write_str("no signed set has been received yet"),
            Self::NotFollowed => formatter.write_str("the status of this trust domain is not followed"),
            Self::Foreign => formatter.write_str("the serial number is none of the authority's"),
            Self::Issuer(epoch) => write!(formatter, "the signed set does not cover issuer {epoch}"),
            Self::TooOld { age, maximum } => {
                write!(
                    formatter,
                    "the last word of the authority is {} s old, {} s are allowed",
                    age.as_secs(),
                    maximum.as_secs()
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_decided_by_the_rules_and_nothing_else_is() {
        let closed = Rules::default();
        let open = Rules { when_unknown: WhenUnknown::Open, ..closed };
        for rules in [open, closed] {
            assert!(rules.admit(Standing::Good));
            assert!(!rules.admit(Standing::NotGood(NotGood::Listed)));
        }
        for unknown in [Unknown::Nothing, Unknown::Foreign, Unknown::Issuer(IssuerEpoch(7))] {
            assert!(open.admit(Standing::Unknown(unknown)));
            assert!(!closed.admit(Standing::Unknown(unknown)));
        }
    }
}
