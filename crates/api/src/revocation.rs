//! Taking trust away: revoking for good, holding, and releasing what was held.

use chancery_types::{LineageId, RevocationReason, SerialNumber, SpiffeId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::enroll::is_false;
use crate::{Base64Bytes, KeySource, PublicKeyDer};

/// Asks to revoke every certificate that a selector matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Which certificates.
    pub selector: Selector,
    /// Why. A proof of a leaked key is always `key-compromise`.
    #[serde(default)]
    #[schema(value_type = String, example = "key-compromise")]
    pub reason: RevocationReason,
    /// Only count what would be revoked.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

/// Asks to hold every certificate that a selector matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// Which certificates.
    pub selector: Selector,
    /// Only count what would be held.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

/// Asks to release every held certificate that a selector matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Which certificates.
    pub selector: Selector,
    /// Only count what would be released.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

/// Which certificates: by exactly one property.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// The one with this serial number.
    #[schema(value_type = String)]
    Serial(SerialNumber),
    /// All of this identity.
    #[schema(value_type = String, example = "spiffe://example.org/web")]
    Identity(SpiffeId),
    /// All of this lineage.
    #[schema(value_type = String)]
    Lineage(LineageId),
    /// All with this key.
    Key(KeySource),
    /// All that the agent of this node asked for on behalf of processes; not the node's own.
    #[schema(value_type = String, example = "spiffe://example.org/node/a")]
    Node(SpiffeId),
    /// All with the key that made this proof. Needs no role: whoever holds the key may end it.
    KeyProof(KeyProof),
}

/// The kinds of [`Selector`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SelectorKind {
    /// By serial number.
    Serial,
    /// By identity.
    Identity,
    /// By lineage.
    Lineage,
    /// By key.
    Key,
    /// By the node that asked for it.
    Node,
    /// By proof of holding the key.
    KeyProof,
}

impl Selector {
    /// Which property it goes by.
    #[must_use]
    pub fn kind(&self) -> SelectorKind {
        match self {
            Self::Serial(_) => SelectorKind::Serial,
            Self::Identity(_) => SelectorKind::Identity,
            Self::Lineage(_) => SelectorKind::Lineage,
            Self::Key(_) => SelectorKind::Key,
            Self::Node(_) => SelectorKind::Node,
            Self::KeyProof(_) => SelectorKind::KeyProof,
        }
    }
}

/// Proves that the caller holds a key, which therefore is no longer its owner's alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyProof {
    /// The key.
    pub public_key: PublicKeyDer,
    /// The nonce, as `POST /v1/nonce` gave it.
    pub nonce: Base64Bytes,
    /// The signature over the key-compromise message (nonce and key), as X.509 encodes signatures.
    pub signature: Base64Bytes,
}

/// What a revocation, hold or release changed, or would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeResponse {
    /// How many certificates.
    pub count: u64,
    /// The first 1000 of them.
    #[schema(value_type = Vec<String>)]
    pub serials: Vec<SerialNumber>,
    /// The log index of the first entry of the change; absent when nothing was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<u64>,
    /// Whether it was only counted.
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_goes_by_exactly_one_property() {
        let parse = |text: &str| serde_json::from_str::<RevokeRequest>(text);
        let serial = r#"{"selector":{"serial":"0100070102030405060909090909090909"},"reason":"superseded"}"#;
        let request = parse(serial).unwrap();
        assert_eq!(request.selector.kind(), SelectorKind::Serial);
        assert_eq!(serde_json::to_string(&request).unwrap(), serial);
        assert!(parse(r#"{"selector":{"identity":"spiffe://e/x"}}"#).is_ok());
        assert!(parse(r#"{"selector":{"key":"AQID"}}"#).is_ok());
        for text in [
            r#"{"selector":{}}"#,
            r#"{"selector":{"identity":"spiffe://e/x","lineage":"00"}}"#,
            r#"{"selector":{"everything":true}}"#,
            r#"{"selector":{"identity":"spiffe://e/x"},"dryrun":true}"#,
            r#"{"selector":{"key_proof":{"public_key":"AQID","nonce":"AQID"}}}"#,
            "{}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn holds_and_releases_refuse_fields_they_would_not_honour() {
        let text = r#"{"selector":{"identity":"spiffe://e/x"},"reason":"superseded"}"#;
        assert!(serde_json::from_str::<HoldRequest>(text).is_err());
        assert!(serde_json::from_str::<ReleaseRequest>(text).is_err());
    }
}
