//! Certificates, the enrolments that they belong to, and the lines of revocation lists.

use chancery_entry::Issuance;
use chancery_types::{
    AssuranceLevel, Digest, EvidenceKind, Generation, LineageId, RevocationReason, SerialNumber, SpiffeId,
    Timestamp,
};
use serde::Serialize;

use super::bytes::Fields;
use crate::model::ModelError;

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
