//! Join tokens.

use chancery_types::{Digest, SerialNumber, SpiffeId, Timestamp, TokenId};
use serde::{Deserialize, Serialize};

use super::bytes::{Fields, from_json, to_json};
use crate::model::ModelError;

/// How a join token stands, expiry aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum TokenState {
    /// It may be used.
    Open,
    /// It bought this certificate.
    Spent {
        /// The certificate.
        serial: SerialNumber,
    },
    /// It was withdrawn.
    Revoked,
}

/// A join token; its secret is known to nobody here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its public half.
    pub token: TokenId,
    /// Domain-separated SHA-256 of its secret half.
    pub secret_hash: Digest,
    /// The identity it is for; absent for a template.
    pub identity: Option<SpiffeId>,
    /// The template it is for, with the values of its placeholders.
    pub template: Option<(String, serde_json::Value)>,
    /// The only key that may use it.
    pub key: Option<Digest>,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it ends.
    pub expires: Timestamp,
    /// How it stands.
    pub state: TokenState,
}

const TOKEN_OPEN: u8 = 0;
const TOKEN_SPENT: u8 = 1;
const TOKEN_REVOKED: u8 = 2;
/// Of a token that is bound to an identity; the other is bound to a template.
const TO_IDENTITY: u8 = 0;
const TO_TEMPLATE: u8 = 1;

impl TokenRecord {
    /// state | serial | expires | created | secret hash | bound to a key (0, 1) | key | length of maker | maker |
    /// kind of binding | identity, or template and parameters as JSON
    ///
    /// What a precondition asks about stands in front, in fixed places.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&token_state_bytes(self.state));
        bytes.extend_from_slice(&self.expires.millis().to_be_bytes());
        bytes.extend_from_slice(&self.created.millis().to_be_bytes());
        bytes.extend_from_slice(self.secret_hash.as_bytes());
        bytes.push(u8::from(self.key.is_some()));
        bytes.extend_from_slice(self.key.unwrap_or_default().as_bytes());
        let maker =
            u16::try_from(self.created_by.len()).expect("a text in an entry has at most 65,535 bytes");
        bytes.extend_from_slice(&maker.to_be_bytes());
        bytes.extend_from_slice(self.created_by.as_bytes());
        match &self.identity {
            Some(identity) => {
                bytes.push(TO_IDENTITY);
                bytes.extend_from_slice(identity.as_str().as_bytes());
            }
            None => {
                bytes.push(TO_TEMPLATE);
                bytes.extend_from_slice(&to_json(&self.template));
            }
        }
        bytes
    }

    pub(crate) fn from_bytes(token: TokenId, bytes: &[u8]) -> Result<Self, ModelError> {
        Self::parse(token, bytes).ok_or(ModelError::Malformed { table: "token" })
    }

    fn parse(token: TokenId, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let state = token_state(&mut fields)?;
        let (expires, created) = (fields.time()?, fields.time()?);
        let secret_hash = Digest::from_array(fields.array()?);
        let [is_bound] = fields.array()?;
        let key = Digest::from_array(fields.array()?);
        let maker_length = usize::from(u16::from_be_bytes(fields.array()?));
        let created_by = std::str::from_utf8(fields.take(maker_length)?).ok()?.to_owned();
        let [kind] = fields.array()?;
        let (identity, template) = match kind {
            TO_IDENTITY => (Some(SpiffeId::parse(std::str::from_utf8(fields.0).ok()?).ok()?), None),
            TO_TEMPLATE => (None, from_json("token", fields.0).ok()?),
            _ => return None,
        };
        let key = (is_bound == 1).then_some(key);
        Some(Self { token, secret_hash, identity, template, key, created, created_by, expires, state })
    }

    /// State and expiry, without reading the rest.
    pub(crate) fn standing(bytes: &[u8]) -> Result<(TokenState, Timestamp), ModelError> {
        let mut fields = Fields(bytes);
        let standing = token_state(&mut fields).zip(fields.time());
        standing.ok_or(ModelError::Malformed { table: "token" })
    }

    /// The same record in another state.
    pub(crate) fn in_state(mut bytes: Vec<u8>, state: TokenState) -> Result<Vec<u8>, ModelError> {
        let front = bytes.first_chunk_mut().ok_or(ModelError::Malformed { table: "token" })?;
        *front = token_state_bytes(state);
        Ok(bytes)
    }
}

fn token_state_bytes(state: TokenState) -> [u8; 1 + SerialNumber::LENGTH] {
    let mut bytes = [0; 1 + SerialNumber::LENGTH];
    bytes[0] = match state {
        TokenState::Open => TOKEN_OPEN,
        TokenState::Spent { serial } => {
            bytes[1..].copy_from_slice(serial.as_bytes());
            TOKEN_SPENT
        }
        TokenState::Revoked => TOKEN_REVOKED,
    };
    bytes
}

fn token_state(fields: &mut Fields<'_>) -> Option<TokenState> {
    let [state] = fields.array()?;
    let serial = fields.take(SerialNumber::LENGTH)?;
    match state {
        TOKEN_OPEN => Some(TokenState::Open),
        TOKEN_SPENT => Some(TokenState::Spent { serial: SerialNumber::from_bytes(serial).ok()? }),
        TOKEN_REVOKED => Some(TokenState::Revoked),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chancery_types::IssuerEpoch;

    use super::*;

    fn token(identity: Option<SpiffeId>, key: Option<Digest>) -> TokenRecord {
        let template = identity.is_none().then(|| ("web".to_owned(), serde_json::json!({"zone": "a"})));
        TokenRecord {
            token: TokenId::from_array([7; 16]),
            secret_hash: Digest::of(b"secret"),
            identity,
            template,
            key,
            created: Timestamp::from_seconds(5),
            created_by: "spiffe://example.org/alice".to_owned(),
            expires: Timestamp::from_seconds(605),
            state: TokenState::Open,
        }
    }

    #[test]
    fn a_token_gives_its_parts_back_and_changes_its_state_in_place() {
        let identity = SpiffeId::parse("spiffe://example.org/web").unwrap();
        let serial = SerialNumber::compose(IssuerEpoch(3), 9, [1; 8]).unwrap();
        for (identity, key) in [(Some(identity), None), (None, None), (None, Some(Digest::of(b"key")))] {
            let record = token(identity, key);
            let bytes = record.to_bytes();
            assert_eq!(TokenRecord::from_bytes(record.token, &bytes).unwrap(), record);
            for state in [TokenState::Spent { serial }, TokenState::Revoked, TokenState::Open] {
                let changed = TokenRecord::in_state(bytes.clone(), state).unwrap();
                assert_eq!(changed, TokenRecord { state, ..record.clone() }.to_bytes());
                assert_eq!(TokenRecord::standing(&changed).unwrap(), (state, record.expires));
            }
        }
    }

    #[test]
    fn refuses_token_bytes_that_are_none() {
        let bytes = token(None, None).to_bytes();
        for length in 0..bytes.len() {
            assert!(TokenRecord::from_bytes(TokenId::from_array([7; 16]), &bytes[..length]).is_err());
        }
        let unknown = [&[9], &bytes[1..]].concat();
        assert!(TokenRecord::standing(&unknown).is_err());
    }
}
