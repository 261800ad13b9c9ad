//! The ledger's read model as the verifiers of evidence see it.

use std::sync::Arc;

use async_trait::async_trait;
use chancery_attest::{
    CertificateRecords, CertificateStanding, CertificateState, LineageStanding, NodeRecords, RecordsError,
    TokenBinding, TokenRecord, TokenRecords, TokenState,
};
use chancery_ledger::{self as ledger, Ledger, ModelError};
use chancery_policy::IdentityTemplate;
use chancery_types::{
    Claims, EvidenceKind, Identity, IdentityState, LineageId, SerialNumber, SpiffeId, Timestamp, TokenId,
    TrustDomain,
};

use super::enrolments::Enrolments;
use super::kept::Kept;

/// Adapts a ledger to the records that attestation needs.
#[derive(Clone)]
pub(crate) struct LedgerRecords {
    ledger: Arc<dyn Ledger>,
    identities: Arc<Kept<SpiffeId, KnownIdentity>>,
}

/// A registered identity and how it stands.
pub(crate) type KnownIdentity = (Arc<Identity>, IdentityState);

impl LedgerRecords {
    pub(crate) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, identities: Arc::default() }
    }

    /// A registered identity as it stands now; `None` if there never was one.
    ///
    /// # Errors
    /// [`ModelError`].
    pub(crate) async fn identity(&self, id: &SpiffeId) -> Result<Option<KnownIdentity>, ModelError> {
        let epoch = self.ledger.standing_epoch();
        if let Some(known) = self.identities.answer(epoch, id) {
            return Ok(Some(known));
        }
        let Some(record) = self.ledger.identity(id).await? else { return Ok(None) };
        let known = (Arc::new(record.identity), record.state);
        self.identities.keep(epoch, id.clone(), known.clone());
        Ok(Some(known))
    }
}

fn records_error(error: impl std::fmt::Display) -> RecordsError {
    RecordsError(error.to_string())
}

#[async_trait]
impl TokenRecords for LedgerRecords {
    async fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, RecordsError> {
        let Some(record) = self.ledger.token(id).await.map_err(records_error)? else { return Ok(None) };
        let binding = match (record.identity, record.template) {
            (Some(identity), _) => TokenBinding::Identity(identity),
            (None, Some((name, parameters))) => {
                let parameters = serde_json::from_value(parameters).map_err(records_error)?;
                TokenBinding::Template { name, parameters }
            }
            (None, None) => return Err(RecordsError(format!("token {id} is bound to nothing"))),
        };
        let state = match record.state {
            ledger::TokenState::Open => TokenState::Unspent,
            ledger::TokenState::Spent { .. } => TokenState::Spent,
            ledger::TokenState::Revoked => TokenState::Revoked,
        };
        let (hash, key, expires) = (record.secret_hash, record.key, record.expires);
        Ok(Some(TokenRecord { id, hash, binding, key, expires, state }))
    }
}

#[async_trait]
impl CertificateRecords for LedgerRecords {
    async fn certificate(&self, serial: SerialNumber) -> Result<Option<CertificateStanding>, RecordsError> {
        let record = self.ledger.certificate(serial).await.map_err(records_error)?;
        let Some(record) = record else { return Ok(None) };
        let lineage = self.ledger.lineage(record.lineage).await.map_err(records_error)?;
        let identity = self.identity(&record.identity).await.map_err(records_error)?;
        let (Some(lineage), Some((identity, identity_state))) = (lineage, identity) else {
            return Err(RecordsError(format!(
                "certificate {serial} has no lineage or no identity on record"
            )));
        };
        let current_serial = lineage.latest;
        let current_key = if current_serial == serial {
            record.key
        } else {
            let current = self.ledger.certificate(current_serial).await.map_err(records_error)?;
            current.map_or(record.key, |current| current.key)
        };
        let state = match record.state {
            ledger::CertificateState::Good if lineage.held_since.is_some() => CertificateState::Held,
            ledger::CertificateState::Good => CertificateState::Good,
            ledger::CertificateState::Held { .. } => CertificateState::Held,
            ledger::CertificateState::Revoked { reason, .. } => CertificateState::Revoked { reason },
        };
        Ok(Some(CertificateStanding {
            state,
            identity: record.identity,
            identity_state,
            role: identity.role.filter(|_| identity_state == IdentityState::Active),
            key: record.key,
            profile: record.profile,
            not_after: record.not_after,
            lineage: LineageStanding {
                lineage: record.lineage,
                generation: record.generation,
                current: lineage.generation,
                current_serial,
                current_key,
                enrolled_by: lineage.enrolled_by,
                assurance: lineage.enrolled_with,
                repeatable: lineage.enrolled_by == EvidenceKind::X509Pop,
                enrolled_at: lineage.enrolled_at,
            },
        }))
    }
}

/// The one template that makes an identity of this name of a process with these claims, and what it makes.
pub(super) async fn made_by_template(
    ledger: &dyn Ledger,
    trust_domain: &TrustDomain,
    id: &SpiffeId,
    claims: &Claims,
    now: Timestamp,
) -> Result<Option<(String, Identity)>, ModelError> {
    let mut found: Option<(String, Identity)> = None;
    for record in ledger.templates().await? {
        let Ok(template) = serde_json::from_value::<IdentityTemplate>(record.document) else { continue };
        let Ok(Some(identity)) = template.expand_claims(trust_domain, claims, now) else { continue };
        if identity.spiffe_id != *id {
            continue;
        }
        if let Some((other, _)) = &found {
            tracing::warn!(identity = %id, template = template.name, other, "two templates make one identity");
            return Ok(None);
        }
        found = Some((template.name, identity));
    }
    Ok(found)
}

/// What it takes to believe a node, over a ledger.
#[derive(Clone)]
pub(crate) struct NodeLedgerRecords {
    pub(crate) records: LedgerRecords,
    pub(crate) enrolments: Arc<Enrolments>,
    pub(crate) trust_domain: TrustDomain,
}

#[async_trait]
impl CertificateRecords for NodeLedgerRecords {
    async fn certificate(&self, serial: SerialNumber) -> Result<Option<CertificateStanding>, RecordsError> {
        self.records.certificate(serial).await
    }
}

#[async_trait]
impl NodeRecords for NodeLedgerRecords {
    async fn identity(&self, id: &SpiffeId) -> Result<Option<Arc<Identity>>, RecordsError> {
        let known = self.records.identity(id).await.map_err(records_error)?;
        Ok(known.map(|(identity, _)| identity))
    }

    async fn made_by_template(
        &self,
        id: &SpiffeId,
        claims: &Claims,
        now: Timestamp,
    ) -> Result<Option<Identity>, RecordsError> {
        let made = made_by_template(self.records.ledger.as_ref(), &self.trust_domain, id, claims, now).await;
        Ok(made.map_err(records_error)?.map(|(_, identity)| identity))
    }

    async fn enrolment_claims(&self, lineage: LineageId) -> Result<Claims, RecordsError> {
        self.enrolments.of(lineage).await.map(|claims| claims.as_ref().clone()).map_err(records_error)
    }
}
