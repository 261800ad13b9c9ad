//! The status feed: what stops being good, told to relying parties in the order of the log, and what they confirm.
//!
//! Positions are sizes of the log. An event says from which position to which it speaks, so that a reader knows
//! whether it has missed something: one that stands before `after` has, and fetches the exact set.
//!
//! What happened at one position may be too much for one event. All but the last of such events stay at `after`:
//! their `sequence` is no higher, and who breaks off between them is told all of them again. So no event is passed
//! over for its `sequence`; doing what it says a second time changes nothing.

use chancery_types::{IssuerEpoch, RevocationReason, SerialNumber, SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Where to go on with the feed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FeedQuery {
    /// The position that was reached; absent for only what happens from now on. `Last-Event-ID` says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// For the long poll: seconds to wait for something to happen, at most 45.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<u64>,
    /// Which program of the identity listens, as in its acknowledgements: one that connects anew takes the place of
    /// its older connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(max_length = 128)]
    pub instance: Option<String>,
}

/// One event of the feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FeedEvent {
    /// The position from which it speaks. Who stands before it has missed something.
    pub after: u64,
    /// The position that is reached with it; `after` again when there is more to come of the same.
    pub sequence: u64,
    /// What happened.
    #[serde(flatten)]
    pub change: FeedChange,
}

impl FeedEvent {
    /// Whether a reader that stands at this position has missed something before the event.
    #[must_use]
    pub fn leaves_gap(&self, position: u64) -> bool {
        position < self.after
    }
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum FeedChange {
    /// Certificates are revoked, for good.
    Revoke {
        /// Which.
        #[schema(value_type = Vec<String>)]
        serials: Vec<SerialNumber>,
        /// Why.
        #[schema(value_type = String, example = "key-compromise")]
        reason: RevocationReason,
        /// When.
        #[schema(value_type = String)]
        at: Timestamp,
    },
    /// Certificates are held.
    Hold {
        /// Which.
        #[schema(value_type = Vec<String>)]
        serials: Vec<SerialNumber>,
        /// When.
        #[schema(value_type = String)]
        at: Timestamp,
    },
    /// Certificates are good again.
    Release {
        /// Which.
        #[schema(value_type = Vec<String>)]
        serials: Vec<SerialNumber>,
    },
    /// Something became of an issuer: the bundle and the list of issuers are to be fetched again.
    Issuer {
        /// Which.
        #[schema(value_type = u16)]
        epoch: IssuerEpoch,
        /// What.
        change: IssuerEvent,
    },
    /// Too much happened to be told singly: fetch the exact set of `sequence` or later.
    Bulk {
        /// Certificates that changed, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
    },
    /// Nothing happened, and the feed lives.
    Heartbeat,
    /// The server ends the stream; connecting again after `sequence` goes on with it.
    End {
        /// Why.
        reason: FeedEnd,
    },
}

/// Why the server ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FeedEnd {
    /// The reader was too far behind.
    TooSlow,
    /// The certificate that the stream was opened with is revoked, held or expired.
    Certificate,
    /// The same instance has connected anew.
    Replaced,
    /// The server stops.
    Stopping,
}

/// What became of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IssuerEvent {
    /// It signs certificates.
    Activated,
    /// It signs status only.
    Retired,
    /// It is not to be trusted much longer.
    Tainted,
}

impl FeedChange {
    /// What `event` can be.
    pub const NAMES: [&str; 7] = ["revoke", "hold", "release", "issuer", "bulk", "heartbeat", "end"];

    /// The name of the event.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Revoke { .. } => "revoke",
            Self::Hold { .. } => "hold",
            Self::Release { .. } => "release",
            Self::Issuer { .. } => "issuer",
            Self::Bulk { .. } => "bulk",
            Self::Heartbeat => "heartbeat",
            Self::End { .. } => "end",
        }
    }
}

/// What sort of program enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RelyingPartyKind {
    /// A program with the verifying library.
    Library,
    /// The proxy.
    Proxy,
    /// An authorization service beside another proxy.
    Authorization,
    /// What keeps list files fresh for programs that read them.
    CrlSync,
    /// The agent of a node.
    Agent,
}

/// What a relying party does when it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenUnknown {
    /// It lets peers in.
    Open,
    /// It keeps them out.
    Closed,
}

/// A relying party registers, or confirms how far it has enforced: the latest word of an instance counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeedAcknowledgement {
    /// Tells the programs of one identity apart: host and process, say. At most 128 visible ASCII characters.
    #[schema(max_length = 128)]
    pub instance: String,
    /// What sort of program it is.
    pub kind: RelyingPartyKind,
    /// What it does when it does not know.
    pub when_unknown: WhenUnknown,
    /// Seconds after which what it knows is too old.
    pub maximum_age_seconds: u64,
    /// The position up to which everything is enforced.
    pub sequence: u64,
    /// Connections of revoked or held peers that it has closed since it started.
    #[serde(default)]
    pub connections_closed: u64,
    /// Connections that are open now.
    #[serde(default)]
    pub connections_open: u64,
}

/// A relying party, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RelyingPartyView {
    /// Whose certificate it showed.
    #[schema(value_type = String, example = "spiffe://example.org/web")]
    pub spiffe_id: SpiffeId,
    /// Its last word.
    #[serde(flatten)]
    pub acknowledgement: FeedAcknowledgement,
    /// When that was.
    #[schema(value_type = String)]
    pub acknowledged_at: Timestamp,
    /// Whether it follows the feed at this moment: this instance, or a program of the identity that does not say
    /// which it is.
    pub connected: bool,
    /// The higher position that it had confirmed before it confirmed a lower one: it has begun anew, or lied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub went_back_from: Option<u64>,
}

/// Every relying party that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RelyingPartiesResponse {
    /// The position of the authority.
    pub sequence: u64,
    /// Them, by name and instance.
    pub relying_parties: Vec<RelyingPartyView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_flat_and_named() {
        let event = FeedEvent {
            after: 7,
            sequence: 9,
            change: FeedChange::Release {
                serials: vec![SerialNumber::compose(IssuerEpoch(1), 5, [7; 8]).unwrap()],
            },
        };
        let text =
            r#"{"after":7,"sequence":9,"event":"release","serials":["0100010000000000050707070707070707"]}"#;
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
        assert_eq!(serde_json::from_str::<FeedEvent>(text).unwrap(), event);
        for (name, change) in [
            ("heartbeat", FeedChange::Heartbeat),
            ("bulk", FeedChange::Bulk { count: None }),
            ("end", FeedChange::End { reason: FeedEnd::TooSlow }),
        ] {
            assert_eq!(change.name(), name);
            assert_eq!(serde_json::to_value(&change).unwrap()["event"], name);
            assert!(FeedChange::NAMES.contains(&name));
        }
    }
}
