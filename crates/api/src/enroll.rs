//! Enrolment and renewal: evidence and a key go in, a certificate comes out.

use chancery_types::{
    AssuranceLevel, Generation, HumanDuration, LineageId, SecretString, SerialNumber, SpiffeId, Timestamp,
};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use crate::{Base64Bytes, CertificateDer, CsrDer, Problem, PublicKeyDer};

/// Asks for the first certificate of a lineage.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// Proves possession of the key. Its names can only narrow what the identity may have.
    pub csr: CsrDer,
    /// What proves who asks.
    pub evidence: Evidence,
    /// The profile to issue under; the identity's first one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The identity that is meant, when the evidence matches several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "spiffe://example.org/web")]
    pub identity: Option<SpiffeId>,
    /// A lifetime shorter than the profile's, such as `15m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "15m")]
    pub lifetime: Option<HumanDuration>,
    /// Whether to wait for the proof that the certificate is in the log, and send it along.
    #[serde(default, skip_serializing_if = "is_false")]
    pub receipt: bool,
}

/// What proves who asks.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Evidence {
    /// A single-use secret that an operator made for this identity.
    JoinToken {
        /// The token's text.
        #[serde(serialize_with = "expose_on_the_wire")]
        #[schema(value_type = String, format = Password)]
        token: SecretString,
    },
    /// A certificate of a foreign authority that this one is configured to trust, and a signature with its key.
    X509Pop {
        /// The foreign certificate and its intermediates, the leaf first.
        chain: Vec<CertificateDer>,
        /// The nonce, as `POST /v1/nonce` gave it.
        nonce: Base64Bytes,
        /// The signature over the enrolment message (nonce and request), as X.509 encodes signatures.
        signature: Base64Bytes,
    },
}

/// A certificate, and when to come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrollResponse {
    /// The certificate's serial number, hexadecimal.
    #[schema(value_type = String)]
    pub serial: SerialNumber,
    /// The identity in it.
    #[schema(value_type = String, example = "spiffe://example.org/web")]
    pub spiffe_id: SpiffeId,
    /// The profile it was issued under.
    pub profile: String,
    /// The certificate, as PEM.
    pub certificate: String,
    /// The issuers up to, and without, the root, as PEM.
    pub chain: String,
    /// Start of validity; a little in the past, for clocks that are late.
    #[schema(value_type = String, format = DateTime)]
    pub not_before: Timestamp,
    /// End of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// Renew at a random moment within this window (as RFC 9773 asks of ACME clients).
    pub renew_after: TimeWindow,
    /// The enrolment that this certificate descends from.
    #[schema(value_type = String)]
    pub lineage: LineageId,
    /// How many renewals lie between.
    #[schema(value_type = u32)]
    pub generation: Generation,
    /// How strongly the identity was proved.
    #[schema(value_type = String, example = "AL2")]
    pub assurance: AssuranceLevel,
    /// What was asked for and granted in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reduced: Vec<Reduction>,
    /// What the certificate request asked for and did not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<Ignored>,
    /// The position of the issuance in the log.
    pub log_index: u64,
    /// The proof that it is there (C2SP tlog-proof), if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
}

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimeWindow {
    /// The first moment in it.
    #[schema(value_type = String, format = DateTime)]
    pub start: Timestamp,
    /// The last moment in it.
    #[schema(value_type = String, format = DateTime)]
    pub end: Timestamp,
}

/// One thing that came out smaller than it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reduction {
    /// What: `lifetime`, `names`, ...
    pub what: String,
    /// What was asked for.
    pub asked: String,
    /// What was granted.
    pub granted: String,
    /// Who decided: a profile, an identity, or a policy, by name.
    pub because: String,
}

/// One thing in the certificate request that was left out of the certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ignored {
    /// What: a name, an extension's object identifier, the subject.
    pub what: String,
    /// Why it is not there.
    pub because: String,
}

/// Asks for certificates for many keys, vouched for by the caller whose own certificate is on the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchEnrollRequest {
    /// At most 1000; each succeeds or fails by itself.
    #[schema(max_items = 1000)]
    pub items: Vec<BatchItem>,
}

/// One certificate of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchItem {
    /// Who it is for; the caller must be permitted to speak for this identity.
    #[schema(value_type = String, example = "spiffe://example.org/web")]
    pub identity: SpiffeId,
    /// The key.
    pub key: KeyMaterial,
    /// The profile to issue under; the identity's first one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// A lifetime shorter than the profile's, such as `15m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "15m")]
    pub lifetime: Option<HumanDuration>,
    /// Whether to send the proof that the certificate is in the log.
    #[serde(default, skip_serializing_if = "is_false")]
    pub receipt: bool,
}

/// A key, with or without proof of its possession.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyMaterial {
    /// A certificate request, which proves possession.
    Csr(CsrDer),
    /// A bare key: the caller vouches that the identity holds it.
    PublicKey(PublicKeyDer),
}

/// The results of a batch, in the order of its items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchEnrollResponse {
    /// One for each item.
    pub results: Vec<BatchResult>,
}

/// What became of one item of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchResult {
    /// A certificate.
    Issued(Box<EnrollResponse>),
    /// A refusal, for this item alone.
    Refused(Box<Problem>),
}

/// Asks for the next certificate of a lineage, over a connection that the current one authenticates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// The new key. A new key for each certificate is good practice and not required.
    pub csr: CsrDer,
    /// A lifetime shorter than the profile's, such as `15m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "15m")]
    pub lifetime: Option<HumanDuration>,
    /// Whether to wait for the proof that the certificate is in the log, and send it along.
    #[serde(default, skip_serializing_if = "is_false")]
    pub receipt: bool,
}

/// A value to be signed once, soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NonceResponse {
    /// The nonce. Send it back as it is.
    pub nonce: Base64Bytes,
    /// When it stops being accepted.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
}

/// The wire is the one place where a secret is meant to be written.
pub(crate) fn expose_on_the_wire<S: Serializer>(
    secret: &SecretString,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_enrolment_with_a_join_token() {
        let text = r#"{"csr":"AQID","evidence":{"kind":"join-token","token":"t"},"lifetime":"15m"}"#;
        let request: EnrollRequest = serde_json::from_str(text).unwrap();
        let Evidence::JoinToken { token } = &request.evidence else { panic!("wrong kind") };
        assert_eq!(token.expose_secret(), "t");
        assert!(!request.receipt && request.profile.is_none());
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert!(!format!("{request:?}").contains("\"t\""), "a token must not reach a log");
    }

    #[test]
    fn refuses_unknown_fields_everywhere() {
        for text in [
            r#"{"csr":"AQID","evidence":{"kind":"join-token","token":"t"},"ttl":"15m"}"#,
            r#"{"csr":"AQID","evidence":{"kind":"join-token","token":"t","extra":1}}"#,
            r#"{"csr":"AQID","evidence":{"kind":"password","token":"t"}}"#,
            r#"{"csr":"AQID"}"#,
            r#"{"evidence":{"kind":"join-token","token":"t"}}"#,
        ] {
            assert!(serde_json::from_str::<EnrollRequest>(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<RenewRequest>(r#"{"csr":"AQID","profile":"x"}"#).is_err());
    }

    #[test]
    fn a_batch_item_has_exactly_one_key() {
        let item = |key: &str| {
            serde_json::from_str::<BatchItem>(&format!(
                r#"{{"identity":"spiffe://example.org/web","key":{key}}}"#
            ))
        };
        assert!(item(r#"{"csr":"AQID"}"#).is_ok());
        assert!(item(r#"{"public_key":"AQID"}"#).is_ok());
        assert!(item(r#"{"csr":"AQID","public_key":"AQID"}"#).is_err());
        assert!(item("{}").is_err());
    }
}
