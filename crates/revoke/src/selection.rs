//! Which certificates an operation is about.

use chancery_entry::{Body, Entry};
use chancery_ledger::{
    CertificateQuery, CertificateRecord, CertificateState, Ledger, ModelError, PageRequest,
};
use chancery_types::{Digest, EvidenceKind, LineageId, SerialNumber, SpiffeId, Timestamp};

/// What an operator names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// One certificate.
    Serial(SerialNumber),
    /// Every certificate of an identity.
    Identity(SpiffeId),
    /// Every certificate of an enrolment.
    Lineage(LineageId),
    /// Every certificate with this public key (SHA-256 of the SPKI).
    Key(Digest),
    /// Every certificate that the agent of this node asked for on behalf of a process.
    Node(SpiffeId),
}

impl std::fmt::Display for Selector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Serial(serial) => write!(formatter, "serial:{serial}"),
            Self::Identity(identity) => write!(formatter, "identity:{identity}"),
            Self::Lineage(lineage) => write!(formatter, "lineage:{lineage}"),
            Self::Key(key) => write!(formatter, "key:{key}"),
            Self::Node(node) => write!(formatter, "node:{node}"),
        }
    }
}

/// What a selector finds: certificates that have not expired.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The certificates.
    pub certificates: Vec<CertificateRecord>,
}

impl Selection {
    /// Those that are not revoked yet.
    pub fn revocable(&self) -> impl Iterator<Item = &CertificateRecord> {
        self.certificates.iter().filter(|record| !matches!(record.state, CertificateState::Revoked { .. }))
    }

    /// The identities that they name, each once.
    #[must_use]
    pub fn identities(&self) -> Vec<&SpiffeId> {
        let mut identities: Vec<&SpiffeId> =
            self.certificates.iter().map(|record| &record.identity).collect();
        identities.sort_unstable();
        identities.dedup();
        identities
    }
}

/// Finds what a selector names. A serial is found even when it has expired: its owner asked for it by name.
pub(crate) async fn select(
    ledger: &dyn Ledger,
    selector: &Selector,
    now: Timestamp,
) -> Result<Selection, ModelError> {
    let mut query = CertificateQuery { expires_after: Some(now), ..CertificateQuery::default() };
    match selector {
        Selector::Serial(serial) => {
            let certificates = ledger.certificate(*serial).await?.into_iter().collect();
            return Ok(Selection { certificates });
        }
        Selector::Identity(identity) => query.identity = Some(identity.clone()),
        Selector::Lineage(lineage) => query.lineage = Some(*lineage),
        Selector::Key(key) => query.key = Some(*key),
        // No index leads from a node to these: an identity may have had other parents when it was issued to.
        Selector::Node(_) => {}
    }
    let page = ledger.certificates(&query, &PageRequest::first(usize::MAX)).await?;
    let mut certificates = page.items;
    if let Selector::Node(node) = selector {
        certificates.retain(|record| record.evidence == EvidenceKind::Workload);
        let mut of_node = Vec::with_capacity(certificates.len());
        for record in certificates {
            if asked_for_by(ledger, &record, node).await? {
                of_node.push(record);
            }
        }
        certificates = of_node;
    }
    Ok(Selection { certificates })
}

/// Whether it was this node that asked for a certificate; the log has it, not the read model.
async fn asked_for_by(
    ledger: &dyn Ledger,
    record: &CertificateRecord,
    node: &SpiffeId,
) -> Result<bool, ModelError> {
    let unreadable = |why: String| ModelError::Engine(format!("entry {}: {why}", record.index));
    let bytes = ledger.entry(record.index).await.map_err(|error| unreadable(error.to_string()))?;
    let entry = Entry::decode(&bytes.unwrap_or_default()).map_err(|error| unreadable(error.to_string()))?;
    Ok(matches!(entry.body, Body::Issuance(issuance) if issuance.requester == node.as_str()))
}
