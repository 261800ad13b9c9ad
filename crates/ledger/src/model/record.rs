//! The read model's records, and their bytes.
//!
//! Certificates, lineages and tokens are many and small: a fixed binary layout. The rest is JSON.

use chancery_entry::{Body, Entry, Issuance, KeyPhase, KeyPurpose, Wanted};
use chancery_types::{
    AssuranceLevel, Digest, EvidenceKind, Generation, Identity, IdentityState, IssuerEpoch, LineageId,
    RevocationReason, SerialNumber, SpiffeId, Timestamp, TokenId,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ModelError;

/// How a certificate stands, expiry aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum CertificateState {
    /// Neither held nor revoked.
    Good,
    /// Held since this time.
    Held {
        /// Since when.
        since: Timestamp,
    },
    /// Revoked at this time.
    Revoked {
        /// When.
        at: Timestamp,
        /// Why.
        reason: RevocationReason,
    },
}

/// A certificate that was promised; the TBS itself is in the entry at `index`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateRecord {
    /// The serial.
    pub serial: SerialNumber,
    /// Index of the issuance entry.
    pub index: u64,
    /// Whom it names.
    pub identity: SpiffeId,
    /// Its enrolment.
    pub lineage: LineageId,
    /// Its place in the lineage.
    pub generation: Generation,
    /// notBefore.
    pub not_before: Timestamp,
    /// notAfter.
    pub not_after: Timestamp,
    /// SHA-256 of the SPKI.
    pub key: Digest,
    /// The profile's name.
    pub profile: String,
    /// The evidence behind it.
    pub evidence: EvidenceKind,
    /// What that evidence was worth.
    pub assurance: AssuranceLevel,
    /// The node whose agent asked for it on behalf of a process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<SpiffeId>,
    /// How it stands.
    pub state: CertificateState,
    /// Whether it ended so long ago that no search finds it any more: only its serial does.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_tidied: bool,
}

const FIXED: usize = 8 + 16 + 4 + 8 + 8 + 32 + 1 + 1 + 1 + 1 + 8;

impl CertificateRecord {
    /// What the issuance entry at this index says.
    pub(crate) fn of(index: u64, issuance: &Issuance) -> Self {
        let vouched = issuance.evidence == EvidenceKind::Workload;
        Self {
            serial: issuance.serial,
            index,
            identity: issuance.identity.clone(),
            lineage: issuance.lineage,
            generation: issuance.generation,
            not_before: issuance.not_before,
            not_after: issuance.not_after,
            key: issuance.key,
            profile: issuance.profile.clone(),
            evidence: issuance.evidence,
            assurance: issuance.assurance,
            node: vouched.then(|| SpiffeId::parse(&issuance.requester).ok()).flatten(),
            state: CertificateState::Good,
            is_tidied: false,
        }
    }

    /// index | lineage | generation | not before | not after | key | evidence | assurance | state | reason |
    /// state's time | length of profile | profile | length of identity | identity | node
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let node = self.node.as_ref().map_or("", |node| node.as_str());
        let texts = self.profile.len() + self.identity.as_str().len() + node.len();
        let mut bytes = Vec::with_capacity(FIXED + 4 + texts);
        bytes.extend_from_slice(&self.index.to_be_bytes());
        bytes.extend_from_slice(self.lineage.as_bytes());
        bytes.extend_from_slice(&self.generation.0.to_be_bytes());
        bytes.extend_from_slice(&self.not_before.millis().to_be_bytes());
        bytes.extend_from_slice(&self.not_after.millis().to_be_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.push(evidence_number(self.evidence));
        bytes.push(self.assurance.number());
        bytes.extend_from_slice(&state_bytes(self.state));
        for text in [self.profile.as_str(), self.identity.as_str()] {
            let length = u16::try_from(text.len()).expect("a text in an entry has at most 65,535 bytes");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(node.as_bytes());
        bytes
    }

    pub(crate) fn from_bytes(serial: SerialNumber, bytes: &[u8]) -> Result<Self, ModelError> {
        Self::parse(serial, bytes).ok_or(ModelError::Malformed { table: "certificate" })
    }

    fn parse(serial: SerialNumber, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let index = fields.u64()?;
        let lineage = LineageId::from_array(fields.array()?);
        let generation = Generation(u32::from_be_bytes(fields.array()?));
        let not_before = fields.time()?;
        let not_after = fields.time()?;
        let key = Digest::from_array(fields.array()?);
        let [evidence, assurance] = fields.array()?;
        let state = fields.state()?;
        let profile = fields.text()?.to_owned();
        let identity = SpiffeId::parse(fields.text()?).ok()?;
        let node = match fields.0 {
            [] => None,
            node => Some(SpiffeId::parse(std::str::from_utf8(node).ok()?).ok()?),
        };
        Some(Self {
            serial,
            index,
            identity,
            lineage,
            generation,
            not_before,
            not_after,
            key,
            profile,
            evidence: EVIDENCE.get(usize::from(evidence)).copied()?,
            assurance: AssuranceLevel::from_number(assurance)?,
            node,
            state,
            is_tidied: false,
        })
    }
}

/// state | reason | time
pub(crate) fn state_bytes(state: CertificateState) -> [u8; 10] {
    let (state, reason, time) = match state {
        CertificateState::Good => (0, 0, 0),
        CertificateState::Held { since } => (1, 0, since.millis()),
        CertificateState::Revoked { at, reason } => (2, reason.code(), at.millis()),
    };
    let mut bytes = [state, reason, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[2..].copy_from_slice(&time.to_be_bytes());
    bytes
}

/// By the number that stands in records; new kinds go to the end.
const EVIDENCE: [EvidenceKind; 5] = [
    EvidenceKind::JoinToken,
    EvidenceKind::X509Pop,
    EvidenceKind::Renewal,
    EvidenceKind::Operator,
    EvidenceKind::Workload,
];

fn evidence_number(kind: EvidenceKind) -> u8 {
    match kind {
        EvidenceKind::JoinToken => 0,
        EvidenceKind::X509Pop => 1,
        EvidenceKind::Renewal => 2,
        EvidenceKind::Operator => 3,
        EvidenceKind::Workload => 4,
    }
}

/// One enrolment and where its renewals have got to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineageRecord {
    /// Its id.
    pub lineage: LineageId,
    /// The latest generation.
    pub generation: Generation,
    /// Since when it is held, if it is.
    pub held_since: Option<Timestamp>,
    /// The evidence at enrolment.
    pub enrolled_by: EvidenceKind,
    /// What that evidence was worth.
    pub enrolled_with: AssuranceLevel,
    /// When the enrolment was recorded.
    pub enrolled_at: Timestamp,
    /// Its latest certificate.
    pub latest: SerialNumber,
}

/// Where a lineage has got to: what a precondition needs to know, of fixed size however often it was renewed.
///
/// The certificates before the latest stand under keys of their own, lineage and serial, with their notAfter,
/// until some later renewal finds them expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineageHead {
    pub(crate) generation: Generation,
    pub(crate) enrolled_by: EvidenceKind,
    pub(crate) enrolled_with: AssuranceLevel,
    pub(crate) enrolled_at: Timestamp,
    pub(crate) held_since: Option<Timestamp>,
    /// The time of the latest issuance.
    pub(crate) issued: Timestamp,
    pub(crate) latest: SerialNumber,
    pub(crate) latest_not_after: Timestamp,
}

impl LineageHead {
    /// generation | evidence | assurance | held (0, 1) | enrolled at | held since | issued | latest's notAfter |
    /// latest
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + 3 + 4 * 8 + SerialNumber::LENGTH);
        bytes.extend_from_slice(&self.generation.0.to_be_bytes());
        bytes.extend_from_slice(&[evidence_number(self.enrolled_by), self.enrolled_with.number()]);
        bytes.push(u8::from(self.held_since.is_some()));
        let held_since = self.held_since.unwrap_or_default();
        for time in [self.enrolled_at, held_since, self.issued, self.latest_not_after] {
            bytes.extend_from_slice(&time.millis().to_be_bytes());
        }
        bytes.extend_from_slice(self.latest.as_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        let parse = || {
            let mut fields = Fields(bytes);
            let generation = Generation(u32::from_be_bytes(fields.array()?));
            let [evidence, assurance, held] = fields.array()?;
            let (enrolled_at, since) = (fields.time()?, fields.time()?);
            let (issued, latest_not_after) = (fields.time()?, fields.time()?);
            let held_since = match held {
                0 => None,
                1 => Some(since),
                _ => return None,
            };
            Some(Self {
                generation,
                enrolled_by: EVIDENCE.get(usize::from(evidence)).copied()?,
                enrolled_with: AssuranceLevel::from_number(assurance)?,
                enrolled_at,
                held_since,
                issued,
                latest: SerialNumber::from_bytes(fields.0).ok()?,
                latest_not_after,
            })
        };
        parse().ok_or(ModelError::Malformed { table: "lineage" })
    }
}

/// The notAfter of a certificate that a lineage had before its latest.
pub(crate) fn time_from_bytes(table: &'static str, bytes: &[u8]) -> Result<Timestamp, ModelError> {
    let time = bytes.try_into().map(i64::from_be_bytes).map(Timestamp::from_millis);
    time.map_err(|_| ModelError::Malformed { table })
}

/// A line of a revocation list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RevokedCertificate {
    /// Which.
    pub serial: SerialNumber,
    /// Why; `certificate-hold` for a held one.
    pub reason: RevocationReason,
    /// When.
    pub at: Timestamp,
    /// Until when the list must name it.
    pub not_after: Timestamp,
}

impl RevokedCertificate {
    /// reason | at | not after
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![self.reason.code()];
        bytes.extend_from_slice(&self.at.millis().to_be_bytes());
        bytes.extend_from_slice(&self.not_after.millis().to_be_bytes());
        bytes
    }

    pub(crate) fn from_bytes(serial: SerialNumber, bytes: &[u8]) -> Result<Self, ModelError> {
        let parse = || {
            let mut fields = Fields(bytes);
            let [reason] = fields.array()?;
            let reason = RevocationReason::from_code(reason).ok()?;
            Some(Self { serial, reason, at: fields.time()?, not_after: fields.time()? })
        };
        parse().ok_or(ModelError::Malformed { table: "revoked" })
    }
}

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

/// The last list published for an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrlRecord {
    /// Its number.
    pub number: u64,
    /// thisUpdate.
    pub this_update: Timestamp,
    /// nextUpdate.
    pub next_update: Timestamp,
    /// Lines in it.
    pub entries: u64,
    /// SHA-256 of the list.
    pub hash: Digest,
    /// Index of the entry that records it.
    #[serde(default)]
    pub index: u64,
}

/// How the certificates of an issuer are, or once were, divided among lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlDivisionRecord {
    /// How many lists there are.
    pub shards: u16,
    /// What their URLs begin with.
    pub base: String,
    /// Index of the entry since which certificates may name them.
    pub index: u64,
}

/// The version of the exact set that was recorded last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusSetRecord {
    /// Where in the log it is right.
    pub sequence: u64,
    /// When it was made.
    pub made: Timestamp,
    /// Certificates in it.
    pub entries: u64,
    /// SHA-256 of it.
    pub hash: Digest,
}

/// Bytes in JSON, which would otherwise be an array of numbers.
mod base64 {
    use data_encoding::BASE64;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map_err(serde::de::Error::custom)
    }
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

/// index | entry: what the last entry says is all that is known.
pub(crate) fn last_entry(index: u64, time: Timestamp, body: &Body) -> Option<Vec<u8>> {
    let entry = Entry::new(time, body.clone()).encode().ok()?;
    Some([index.to_be_bytes().as_slice(), &entry].concat())
}

fn read_last_entry(table: &'static str, bytes: &[u8]) -> Result<(u64, Entry), ModelError> {
    let malformed = ModelError::Malformed { table };
    let (index, entry) = bytes.split_first_chunk().ok_or(malformed.clone())?;
    let entry = Entry::decode(entry).map_err(|_| malformed)?;
    Ok((u64::from_be_bytes(*index), entry))
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

/// A record as JSON behind one byte.
fn behind<T: Serialize>(first: u8, record: &T) -> Vec<u8> {
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
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A text behind its length.
    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        std::str::from_utf8(self.take(length)?).ok()
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn time(&mut self) -> Option<Timestamp> {
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

#[cfg(test)]
mod tests {
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
