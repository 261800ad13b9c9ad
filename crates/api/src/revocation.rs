//! Taking trust away: revoking for good, holding, and releasing what was held.

use chancery_types::{
    HumanDuration, IssuerEpoch, LineageId, RevocationReason, Selector as ClaimSelector, SerialNumber,
    SpiffeId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::enroll::is_false;
use crate::{Base64Bytes, BlastRadius, ChangeView, KeySource, PublicKeyDer};

/// Asks to revoke every certificate that a selector matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Which certificates.
    pub selector: Selector,
    /// Of those, only what all of these match too; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub within: Vec<Selector>,
    /// Why. A proof of a leaked key is always `key-compromise`.
    #[serde(default)]
    #[schema(value_type = String, example = "key-compromise")]
    pub reason: RevocationReason,
    /// Also hold the identities that the certificates name, first: none of them enrols or renews until it is
    /// released.
    #[serde(default, skip_serializing_if = "is_false")]
    pub block: bool,
    /// Only count what would be revoked.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Meant, however much it is: asks for a second operator's approval where one is needed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub yes_really: bool,
    /// Dispenses with the approval. Only over the administration socket, and recorded loudly.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dangerous_without_approval: bool,
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

impl RevokeRequest {
    /// Everything that one selector matches, for this reason, if that needs no approval.
    #[must_use]
    pub fn new(selector: Selector, reason: RevocationReason) -> Self {
        Self {
            selector,
            within: Vec::new(),
            reason,
            block: false,
            dry_run: false,
            yes_really: false,
            dangerous_without_approval: false,
            note: String::new(),
        }
    }
}

/// Asks to hold every certificate that a selector matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// Which certificates.
    pub selector: Selector,
    /// Of those, only what all of these match too; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub within: Vec<Selector>,
    /// In waves; at once if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// Also hold the identities that the certificates name, first: none of them enrols or renews until it is
    /// released.
    #[serde(default, skip_serializing_if = "is_false")]
    pub block: bool,
    /// Only count what would be held.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Meant, however much it is: asks for a second operator's approval where one is needed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub yes_really: bool,
    /// Dispenses with the approval. Only over the administration socket, and recorded loudly.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dangerous_without_approval: bool,
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

impl HoldRequest {
    /// Everything that one selector matches, at once, if that needs no approval.
    #[must_use]
    pub fn new(selector: Selector) -> Self {
        Self {
            selector,
            within: Vec::new(),
            waves: None,
            block: false,
            dry_run: false,
            yes_really: false,
            dangerous_without_approval: false,
            note: String::new(),
        }
    }
}

/// Asks to release every held certificate that a selector matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Which certificates.
    pub selector: Selector,
    /// Of those, only what all of these match too; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub within: Vec<Selector>,
    /// Only count what would be released.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

impl ReleaseRequest {
    /// Everything that one selector matches.
    #[must_use]
    pub fn new(selector: Selector) -> Self {
        Self { selector, within: Vec::new(), dry_run: false, note: String::new() }
    }
}

/// A change that is made to a growing part of the certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Waves {
    /// The part in percent that is reached with each wave: rising, at most 10, the last is 100.
    #[schema(max_items = 10, example = json!([1, 10, 100]))]
    pub shares: Vec<u8>,
    /// How long to wait after each: at most a day.
    #[schema(value_type = String, example = "5m")]
    pub pause: HumanDuration,
}

/// Which certificates: by one property. All but a serial find what has not expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// The one with this serial number.
    #[schema(value_type = String)]
    Serial(SerialNumber),
    /// All of this identity.
    #[schema(value_type = String, example = "spiffe://example.org/web")]
    Identity(SpiffeId),
    /// All of this identity and of those below it in the path.
    #[schema(value_type = String, example = "spiffe://example.org/shop")]
    Under(SpiffeId),
    /// All of this lineage.
    #[schema(value_type = String)]
    Lineage(LineageId),
    /// All with this key.
    Key(KeySource),
    /// All that the agent of this node asked for on behalf of processes; not the node's own.
    #[schema(value_type = String, example = "spiffe://example.org/node/a")]
    Node(SpiffeId),
    /// All whose evidence, or that of their enrolment, had this claim. Where neither says anything of the claim, all
    /// whose identity asks for it.
    #[schema(value_type = String, example = "unix:sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    Claim(ClaimSelector),
    /// All of this owner's identities.
    Owner(String),
    /// All of this team's identities.
    Team(String),
    /// All of this environment's identities.
    Environment(String),
    /// All of the issuer with this number.
    #[schema(value_type = u16)]
    Issuer(IssuerEpoch),
    /// All with the key that made this proof. Needs no role: whoever holds the key may end it.
    KeyProof(KeyProof),
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
    /// The position of the log after the change: whoever acknowledges it enforces the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Whether it was only counted.
    pub dry_run: bool,
    /// What is, or would be, hit; with a dry run, and with what is recorded as a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius: Option<BlastRadius>,
    /// The change that was recorded because it is large or goes in waves: it may wait for approval, or still run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_goes_by_exactly_one_property() {
        let parse = |text: &str| serde_json::from_str::<RevokeRequest>(text);
        let serial = r#"{"selector":{"serial":"0100070102030405060909090909090909"},"reason":"superseded"}"#;
        let request = parse(serial).unwrap();
        assert!(matches!(request.selector, Selector::Serial(_)));
        assert_eq!(serde_json::to_string(&request).unwrap(), serial);
        assert!(parse(r#"{"selector":{"identity":"spiffe://e/x"}}"#).is_ok());
        assert!(parse(r#"{"selector":{"key":"AQID"}}"#).is_ok());
        assert!(parse(r#"{"selector":{"claim":"unix:uid:1000"},"within":[{"environment":"prod"}]}"#).is_ok());
        assert!(parse(r#"{"selector":{"claim":"uid"}}"#).is_err());
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
