//! Identities and templates.

use chancery_types::{Identity, IdentityState, Timestamp};
use serde::{Deserialize, Serialize};

use super::bytes::{behind, from_json};
use crate::model::ModelError;

/// A registered identity and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRecord {
    /// The document.
    pub identity: Identity,
    /// Whether it may be issued to.
    pub state: IdentityState,
    /// Index of the entry that registered or last changed the document.
    pub index: u64,
    /// When it was first registered.
    pub registered: Timestamp,
    /// When document or state last changed.
    pub changed: Timestamp,
    /// Who changed it last.
    pub changed_by: String,
}

/// A template for identities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRecord {
    /// Its name.
    pub name: String,
    /// The identity document with placeholders.
    pub document: serde_json::Value,
    /// Index of the entry that registered it.
    pub index: u64,
}

impl IdentityRecord {
    /// state | JSON. The state stands in front so that a precondition need not read the document.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let state = match self.state {
            IdentityState::Active => 0,
            IdentityState::Held => 1,
            IdentityState::Retired => 2,
        };
        behind(state, self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        from_json("identity", bytes.get(1..).unwrap_or_default())
    }

    pub(crate) fn state_of(bytes: &[u8]) -> Result<IdentityState, ModelError> {
        match bytes.first() {
            Some(0) => Ok(IdentityState::Active),
            Some(1) => Ok(IdentityState::Held),
            Some(2) => Ok(IdentityState::Retired),
            _ => Err(ModelError::Malformed { table: "identity" }),
        }
    }
}
