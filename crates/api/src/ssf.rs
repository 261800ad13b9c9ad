//! The status feed for those who speak OpenID: the Shared Signals Framework 1.0 with events of CAEP 1.0.
//!
//! Streams are made, read, changed and removed as SSF section 8 says; events are security event tokens (RFC 8417)
//! that are polled for (RFC 8936) or pushed (RFC 8935). Members that we do not know are passed over, as these
//! specifications want it.

use std::collections::BTreeMap;

use chancery_types::{SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The version of SSF that is spoken.
pub const SPEC_VERSION: &str = "1_0";
/// Delivery by push.
pub const PUSH: &str = "urn:ietf:rfc:8935";
/// Delivery by poll.
pub const POLL: &str = "urn:ietf:rfc:8936";
/// A certificate was revoked, held or released (CAEP 1.0 section 3.3).
pub const CREDENTIAL_CHANGE: &str = "https://schemas.openid.net/secevent/caep/event-type/credential-change";
/// A receiver asked whether the stream works (SSF section 8.1.4).
pub const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
/// The transmitter has changed the status of a stream (SSF section 8.1.5).
pub const STREAM_UPDATED: &str = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated";
/// Characters of a description, a reason, a state of verification or an `authorization_header`.
pub const SSF_TEXT_CHARACTERS: usize = 1024;
/// Characters of an address that is pushed to.
pub const SSF_URL_CHARACTERS: usize = 2048;
/// Events that one answer to a poll has at most.
pub const POLL_EVENTS: usize = 100;
/// Seconds that a poll waits for an event.
pub const POLL_SECONDS: u64 = 45;

/// What a receiver has to know of the transmitter (SSF section 7.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransmitterConfiguration {
    /// The version of SSF.
    pub spec_version: String,
    /// `iss` of every token.
    pub issuer: String,
    /// Where the keys are that verify them.
    pub jwks_uri: String,
    /// The ways of delivery.
    pub delivery_methods_supported: Vec<String>,
    /// Where streams are managed.
    pub configuration_endpoint: String,
    /// Where they are paused and enabled.
    pub status_endpoint: String,
    /// Where a receiver asks whether its stream works.
    pub verification_endpoint: String,
    /// How callers prove who they are: client certificates (RFC 8705).
    pub authorization_schemes: Vec<AuthorizationScheme>,
    /// Events of every subject are sent.
    pub default_subjects: String,
}

/// A way to prove who one is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthorizationScheme {
    /// Its specification.
    pub spec_urn: String,
}

/// Which stream is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// Its name; without one all streams of the caller are listed, where that makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
}

/// How events get to a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamDelivery {
    /// [`PUSH`] or [`POLL`].
    pub method: String,
    /// Where events are pushed to, or polled from: the latter is ours to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// For push: the value of the `Authorization` header, at most 1024 visible ASCII characters and spaces. It is never
    /// shown again; a change that does not name it leaves it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_header: Option<String>,
}

/// A stream to be made, changed (what is absent stays) or replaced (what is absent goes).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct StreamRequest {
    /// Which; absent for one that is to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// If present: our issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Whom tokens are for. The caller's SPIFFE ID if absent; a stream that is pushed may name an https address of the host
    /// that it is pushed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// How events get to the receiver; by poll if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<StreamDelivery>,
    /// Event types that are wanted; all that there are if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_requested: Option<Vec<String>>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A stream, as its owner sees it (SSF section 8.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamConfiguration {
    /// Its name.
    pub stream_id: String,
    /// `iss` of its tokens.
    pub iss: String,
    /// `aud` of its tokens.
    pub aud: String,
    /// How events get to the receiver.
    pub delivery: StreamDelivery,
    /// Event types that there are.
    pub events_supported: Vec<String>,
    /// Those that were asked for.
    pub events_requested: Vec<String>,
    /// Those that are sent.
    pub events_delivered: Vec<String>,
    /// Seconds between two verifications at the least.
    pub min_verification_interval: u64,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Whether a stream runs (SSF section 8.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StreamState {
    /// Events are sent.
    Enabled,
    /// Events are kept, as many as there is room for.
    Paused,
    /// Events are neither sent nor kept.
    Disabled,
}

/// The status of a stream, told or wished for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamStatus {
    /// Which stream.
    pub stream_id: String,
    /// Whether it runs.
    pub status: StreamState,
    /// Why; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Asks for an event that shows that a stream works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerificationRequest {
    /// Which stream.
    pub stream_id: String,
    /// Comes back in the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// Asks for events, and says what became of earlier ones (RFC 8936 section 2.2).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PollRequest {
    /// How many the answer may have; 0 to say something only. At most 100 are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_events: Option<u64>,
    /// Whether to answer at once even if there is nothing.
    #[serde(default)]
    pub return_immediately: bool,
    /// `jti` of tokens that have arrived and are not sent again.
    #[serde(default)]
    pub ack: Vec<String>,
    /// Tokens, by `jti`, that cannot be read. They are not sent again either.
    #[serde(default)]
    pub set_errs: BTreeMap<String, SetError>,
}

/// What is wrong with a token (RFC 8935 section 2.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetError {
    /// A code.
    pub err: String,
    /// For people.
    #[serde(default)]
    pub description: String,
}

/// Events (RFC 8936 section 2.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PollResponse {
    /// Tokens by their `jti`.
    pub sets: BTreeMap<String, String>,
    /// Whether more are waiting.
    #[serde(default)]
    pub more_available: bool,
}

/// A stream, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventStreamView {
    /// Its name.
    pub stream_id: String,
    /// Who made it.
    #[schema(value_type = String, example = "spiffe://example.org/siem")]
    pub owner: SpiffeId,
    /// Whom its tokens are for.
    pub aud: String,
    /// [`PUSH`] or [`POLL`].
    pub method: String,
    /// Where events are pushed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// Whether it runs.
    pub status: StreamState,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The position in the log up to which everything has arrived.
    pub position: u64,
    /// Events that have not.
    pub waiting: u64,
    /// When the receiver last took something or asked.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_contact: Option<Timestamp>,
    /// What went wrong at the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Every stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventStreamsResponse {
    /// The position of the authority.
    pub sequence: u64,
    /// Them, by owner.
    pub streams: Vec<EventStreamView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_is_as_the_rfc_writes_it_and_may_have_more() {
        let text = r#"{"ack":["a"],"setErrs":{"b":{"err":"jwtAud","description":"?"}},"maxEvents":3,"x":1}"#;
        let poll: PollRequest = serde_json::from_str(text).unwrap();
        assert_eq!((poll.max_events, poll.return_immediately, poll.ack.len()), (Some(3), false, 1));
        assert_eq!(poll.set_errs["b"].err, "jwtAud");
        let answer = PollResponse { sets: BTreeMap::new(), more_available: false };
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"sets":{},"moreAvailable":false}"#);
    }
}
