//! How records become bytes: fixed fields, JSON, or the last entry about a thing.

use chancery_entry::{Body, Entry};
use chancery_types::{RevocationReason, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::certificate::CertificateState;
use crate::model::ModelError;

/// A record as JSON behind one byte.
pub(super) fn behind<T: Serialize>(first: u8, record: &T) -> Vec<u8> {
    let mut bytes = vec![first];
    serde_json::to_writer(&mut bytes, record).expect("records have text keys only, and memory takes all");
    bytes
}

/// A record as JSON.
pub(crate) fn to_json<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have text keys only")
}

/// A record from JSON.
pub(crate) fn from_json<T: DeserializeOwned>(table: &'static str, bytes: &[u8]) -> Result<T, ModelError> {
    serde_json::from_slice(bytes).map_err(|_| ModelError::Malformed { table })
}

/// Takes fixed fields off the front.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A text behind its length.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        std::str::from_utf8(self.take(length)?).ok()
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn time(&mut self) -> Option<Timestamp> {
        self.array().map(i64::from_be_bytes).map(Timestamp::from_millis)
    }

    /// How a certificate stands.
    pub(crate) fn state(&mut self) -> Option<CertificateState> {
        let ([state, reason], time) = (self.array()?, self.time()?);
        match state {
            0 => Some(CertificateState::Good),
            1 => Some(CertificateState::Held { since: time }),
            2 => {
                let reason = RevocationReason::from_code(reason).ok()?;
                Some(CertificateState::Revoked { at: time, reason })
            }
            _ => None,
        }
    }
}

/// The notAfter of a certificate that a lineage had before its latest.
pub(crate) fn time_from_bytes(table: &'static str, bytes: &[u8]) -> Result<Timestamp, ModelError> {
    let time = bytes.try_into().map(i64::from_be_bytes).map(Timestamp::from_millis);
    time.map_err(|_| ModelError::Malformed { table })
}

/// index | entry: what the last entry says is all that is known.
pub(crate) fn last_entry(index: u64, time: Timestamp, body: &Body) -> Option<Vec<u8>> {
    let entry = Entry::new(time, body.clone()).encode().ok()?;
    Some([index.to_be_bytes().as_slice(), &entry].concat())
}

pub(super) fn read_last_entry(table: &'static str, bytes: &[u8]) -> Result<(u64, Entry), ModelError> {
    let malformed = ModelError::Malformed { table };
    let (index, entry) = bytes.split_first_chunk().ok_or(malformed.clone())?;
    let entry = Entry::decode(entry).map_err(|_| malformed)?;
    Ok((u64::from_be_bytes(*index), entry))
}

/// Bytes in JSON, which would otherwise be an array of numbers.
pub(super) mod base64 {
    use data_encoding::BASE64;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}
