//! Certificates as operators search them, and their status as anybody may ask for it.

use chancery_types::{
    AssuranceLevel, Digest, EvidenceKind, Generation, IssuerEpoch, KeyAlgorithm, LineageId, RevocationReason,
    SerialNumber, SpiffeId, SubjectName, Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::page::paged;

/// What a certificate is worth now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateStatus {
    /// In force.
    Good,
    /// On hold: not valid now, may come back.
    Held,
    /// Revoked, for good.
    Revoked,
    /// Past its end, and was never revoked.
    Expired,
}

/// A certificate, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateView {
    /// Its serial number, hexadecimal.
    #[schema(value_type = String)]
    pub serial: SerialNumber,
    /// The identity in it.
    #[schema(value_type = String, example = "spiffe://example.org/web")]
    pub spiffe_id: SpiffeId,
    /// Every name in it, such as `dns:web.example.org`.
    #[schema(value_type = Vec<String>)]
    pub names: Vec<SubjectName>,
    /// The identity's owner when it was issued.
    pub owner: String,
    /// The profile it was issued under.
    pub profile: String,
    /// The issuer that signed it.
    #[schema(value_type = u16)]
    pub issuer: IssuerEpoch,
    /// The kind of its key.
    #[schema(value_type = String, example = "p256")]
    pub key_algorithm: KeyAlgorithm,
    /// SHA-256 of its SubjectPublicKeyInfo.
    #[schema(value_type = String)]
    pub key_fingerprint: Digest,
    /// Start of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_before: Timestamp,
    /// End of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// When it was recorded and signed.
    #[schema(value_type = String, format = DateTime)]
    pub issued: Timestamp,
    /// The enrolment that it descends from.
    #[schema(value_type = String)]
    pub lineage: LineageId,
    /// How many renewals lie between.
    #[schema(value_type = u32)]
    pub generation: Generation,
    /// What proved the identity.
    #[schema(value_type = String, example = "join-token")]
    pub evidence: EvidenceKind,
    /// How strongly.
    #[schema(value_type = String, example = "AL2")]
    pub assurance: AssuranceLevel,
    /// What it is worth now.
    pub status: CertificateStatus,
    /// Why it is revoked or held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<RevocationView>,
    /// The position of the issuance in the log.
    pub log_index: u64,
    /// Whether it ended so long ago that no search finds it any more: what is told of it comes from the log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tidied: bool,
}

/// Why and when a certificate was revoked or held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevocationView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why.
    #[schema(value_type = String, example = "key-compromise")]
    pub reason: RevocationReason,
}

/// A certificate with its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateDetail {
    /// What is known of it.
    pub certificate: CertificateView,
    /// The certificate, as PEM. Absent when it was recorded and the server stopped before it was signed: it
    /// counts as issued and can be revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pem: Option<String>,
    /// The issuers up to, and without, the root, as PEM.
    pub chain: String,
}

/// What a certificate is worth, for anybody who has its serial number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusResponse {
    /// Which.
    #[schema(value_type = String)]
    pub serial: SerialNumber,
    /// What it is worth now.
    pub status: CertificateStatus,
    /// Why it is revoked or held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<RevocationView>,
    /// The moment that the answer describes.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
}

/// Asks which of these certificates are not good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusQuestion {
    /// At most 1000.
    #[schema(value_type = Vec<String>, max_items = 1000)]
    pub serials: Vec<SerialNumber>,
    /// A size of the log that the answer has to have reached; absent for what is known at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// Which of the certificates that were asked about are revoked or held. The others are good, have expired, or were
/// never issued here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusAnswer {
    /// The size of the log that the answer describes.
    pub sequence: u64,
    /// Those that are not good, in the order of the question.
    pub not_good: Vec<StatusResponse>,
}

/// Which certificates to list. Conditions add up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CertificateQuery {
    /// Members of a page; 100 if absent, 1000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where to go on: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only of this identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub identity: Option<SpiffeId>,
    /// Only this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub serial: Option<SerialNumber>,
    /// Only of this lineage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub lineage: Option<LineageId>,
    /// Only with this key: SHA-256 of the SubjectPublicKeyInfo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub key: Option<Digest>,
    /// Only of this owner's identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Only those worth this now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub status: Option<CertificateStatus>,
    /// Only those that end before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub expires_before: Option<Timestamp>,
    /// Only those that end after this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub expires_after: Option<Timestamp>,
}

paged!(CertificateQuery);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_reads_every_condition_and_refuses_others() {
        let query: CertificateQuery = serde_json::from_value(serde_json::json!({
            "identity": "spiffe://example.org/web", "status": "held", "limit": 5,
            "expires_before": "2026-12-01T00:00:00Z", "key": "00".repeat(32),
        }))
        .unwrap();
        assert_eq!(query.status, Some(CertificateStatus::Held));
        assert_eq!(query.page().size(), 5);
        assert!(serde_json::from_str::<CertificateQuery>(r#"{"subject":"x"}"#).is_err());
    }
}
