//! Which certificates an operation is about.

use chancery_ledger::{
    CertificateQuery, CertificateRecord, CertificateState, Ledger, ModelError, PageRequest,
};
use chancery_types::{Digest, LineageId, SerialNumber, SpiffeId, Timestamp};

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
}

impl std::fmt::Display for Selector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Serial(serial) => write!(formatter, "serial:{serial}"),
            Self::Identity(identity) => write!(formatter, "identity:{identity}"),
            Self::Lineage(lineage) => write!(formatter, "lineage:{lineage}"),
            Self::Key(key) => write!(formatter, "key:{key}"),
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
    }
    let page = ledger.certificates(&query, &PageRequest::first(usize::MAX)).await?;
    Ok(Selection { certificates: page.items })
}
