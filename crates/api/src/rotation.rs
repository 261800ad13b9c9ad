//! How the authority's own issuers and keys follow each other.

use chancery_types::{Digest, IssuerEpoch, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::IssuerState;

/// What follows another of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RotationSubject {
    /// Issuers of certificates.
    Issuer,
    /// Roots.
    Root,
    /// Keys of JWT-SVIDs.
    Jwt,
    /// Keys of the log's checkpoints.
    Log,
}

impl RotationSubject {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Root => "root",
            Self::Jwt => "jwt",
            Self::Log => "log",
        }
    }
}

impl std::fmt::Display for RotationSubject {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Something that will be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedChange {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub due: Timestamp,
    /// To what: `issuer`, `root`, `jwt`, `log`, `credential` or `lists`.
    pub kind: String,
    /// What, in a few words.
    pub what: String,
    /// Why, in a few words.
    pub reason: String,
    /// Why, for programs.
    pub code: String,
    /// Who does it: `scheduler`, `own-task` or `operator`.
    pub actor: String,
}

/// An issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CaIssuer {
    /// Its number.
    #[schema(value_type = u16)]
    pub epoch: IssuerEpoch,
    /// What it does now; nothing for one in reserve, or one whose request waits for the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<IssuerState>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Start of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_before: Timestamp,
    /// End of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// Since when it is not to be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub tainted: Option<Timestamp>,
}

/// A root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CaRoot {
    /// SHA-256 of its certificate.
    #[schema(value_type = String)]
    pub fingerprint: Digest,
    /// `published`, `active` or `withdrawn`.
    pub phase: String,
    /// Since when; nothing for one that was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Start of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_before: Timestamp,
    /// End of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// The issuers below it, those in reserve too, by number.
    #[schema(value_type = Vec<u16>)]
    pub issuers: Vec<IssuerEpoch>,
}

/// A key of JWT-SVIDs, or of the log's checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CaKey {
    /// SHA-256 of its SubjectPublicKeyInfo.
    #[schema(value_type = String)]
    pub fingerprint: Digest,
    /// `published`, `active`, `superseded` or `withdrawn`.
    pub phase: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

/// How the authority's own issuers and keys stand, and what will become of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CaStatusResponse {
    /// Whether issuers and keys follow each other by themselves.
    pub enabled: bool,
    /// How long something is published before it signs, seconds.
    pub notice_seconds: u64,
    /// Every root that there is or was, the oldest first.
    #[serde(default)]
    pub roots: Vec<CaRoot>,
    /// Every issuer, those in reserve too, by number.
    pub issuers: Vec<CaIssuer>,
    /// Keys of JWT-SVIDs.
    pub jwt_keys: Vec<CaKey>,
    /// Keys of the log's checkpoints.
    #[serde(default)]
    pub log_keys: Vec<CaKey>,
    /// What no operator wants to go on by itself.
    pub paused: Vec<String>,
    /// What will happen, the first first, if nobody does anything else.
    pub timeline: Vec<PlannedChange>,
    /// What is not as it must be, or could not be done.
    pub troubles: Vec<String>,
}

/// Asks for the next issuer or key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// Which kind.
    pub subject: RotationSubject,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

/// Undoes the last step, and lets the kind rest until somebody asks for the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Which kind.
    pub subject: RotationSubject,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

/// Brings a root that is to follow those that are trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddRootRequest {
    /// The root's certificate, and those by which other roots vouch for it, PEM; nine at the most.
    #[schema(max_length = 65536)]
    pub certificates: String,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

/// Says that an issuer is not to be trusted: another takes its place, agents replace what it signed, and what is left is
/// revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaintRequest {
    /// Its number.
    #[schema(value_type = u16)]
    pub issuer: IssuerEpoch,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

/// What was done at once, and what follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RotationResponse {
    /// What was done.
    pub done: Vec<String>,
    /// What follows.
    pub planned: Vec<PlannedChange>,
}
