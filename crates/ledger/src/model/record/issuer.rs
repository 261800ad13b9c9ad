//! Issuers, roots and keys of the authority, and what operators want of them.

use chancery_entry::{Body, Entry, KeyPhase, KeyPurpose, Wanted};
use chancery_types::{Digest, IssuerEpoch, Timestamp};
use serde::{Deserialize, Serialize};

use super::bytes::{base64, behind, from_json, read_last_entry};
use crate::model::ModelError;

/// Whether an issuer signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IssuerState {
    /// It signs certificates.
    Active,
    /// It signs status only.
    Retired,
    /// It is published and signs nothing yet.
    Prepared,
    /// Nothing of it is published any more.
    Withdrawn,
}

/// An issuer of this authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerRecord {
    /// Its epoch.
    pub epoch: IssuerEpoch,
    /// Its certificate, DER.
    #[serde(with = "base64")]
    pub certificate: Vec<u8>,
    /// Whether it signs.
    pub state: IssuerState,
    /// Index of the last entry about it.
    pub index: u64,
    /// When it came to stand as it does; the beginning of time where an earlier version has not kept it.
    #[serde(default = "long_ago")]
    pub since: Timestamp,
    /// That it is not to be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taint: Option<IssuerTaintRecord>,
}

/// That an issuer is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerTaintRecord {
    /// Since when.
    pub at: Timestamp,
    /// By when agents replace what it signed, where they were asked to.
    pub until: Option<Timestamp>,
    /// Whether what was left of it was revoked.
    pub is_distrusted: bool,
}

fn long_ago() -> Timestamp {
    Timestamp::from_millis(0)
}

/// A root, or a key of the authority that has no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// What it is for.
    pub purpose: KeyPurpose,
    /// SHA-256 of a root's certificate, or of a key's SubjectPublicKeyInfo.
    pub key: Digest,
    /// Of a root its certificate, and after it those by which other roots vouch for it; of a key its
    /// SubjectPublicKeyInfo. DER. Of a key of the log that has signed, its predecessor's checkpoint follows.
    pub content: Vec<u8>,
    /// Where in its life it is.
    pub phase: KeyPhase,
    /// Since when.
    pub since: Timestamp,
    /// Index of the last entry about it.
    pub index: u64,
}

/// What an operator wants of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WishRecord {
    /// Of what.
    pub subject: String,
    /// What.
    pub wish: Wanted,
    /// Who wants it.
    pub by: String,
    /// Since when.
    pub at: Timestamp,
    /// Index of the entry.
    pub index: u64,
}

impl IssuerRecord {
    /// state | JSON
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let state = match self.state {
            IssuerState::Active => 0,
            IssuerState::Retired => 1,
            IssuerState::Prepared => 2,
            IssuerState::Withdrawn => 3,
        };
        behind(state, self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        from_json("issuer", bytes.get(1..).unwrap_or_default())
    }

    pub(crate) fn state_of(bytes: &[u8]) -> Result<IssuerState, ModelError> {
        match bytes.first() {
            Some(0) => Ok(IssuerState::Active),
            Some(1) => Ok(IssuerState::Retired),
            Some(2) => Ok(IssuerState::Prepared),
            Some(3) => Ok(IssuerState::Withdrawn),
            _ => Err(ModelError::Malformed { table: "issuer" }),
        }
    }
}

impl KeyRecord {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        match read_last_entry("key", bytes)? {
            (index, Entry { time, body: Body::KeyChanged(change) }) => Ok(Self {
                purpose: change.purpose,
                key: change.key,
                content: change.content.0,
                phase: change.phase,
                since: time,
                index,
            }),
            _ => Err(ModelError::Malformed { table: "key" }),
        }
    }
}

impl WishRecord {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        match read_last_entry("wish", bytes)? {
            (index, Entry { time, body: Body::RotationWished(wish) }) => {
                Ok(Self { subject: wish.subject, wish: wish.wish, by: wish.by, at: time, index })
            }
            _ => Err(ModelError::Malformed { table: "wish" }),
        }
    }
}
