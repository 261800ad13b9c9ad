//! An operator's word, or the authority's own, as evidence.
//!
//! It says who asks and that their standing is good. Whether that operator may have a certificate made for
//! this identity is for policy to say, from the claims `operator.*`. An operator vouches once: AL1. The
//! authority asking for its own server certificate can be asked again at every renewal: AL2.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use chancery_types::{AssuranceLevel, ClaimValue, Claims, EvidenceKind, IdentityState};

use crate::renewal::Presented;
use crate::transcript::Transcript;
use crate::{
    AttestContext, AttestError, Attested, CertificateRecords, CertificateState, Evidence, OperatorChannel,
    OperatorError, OperatorEvidence, Subject, Verifier,
};

/// Longest approval text, in characters.
const MAX_APPROVAL: usize = 256;

/// Verifies that an operator's certificate is in good standing, or that a local user may administer.
#[derive(Clone)]
pub struct OperatorVerifier {
    records: Arc<dyn CertificateRecords>,
    local_users: BTreeSet<u32>,
}

impl OperatorVerifier {
    /// A verifier over these records; `local_users` may ask through the local socket.
    #[must_use]
    pub fn new(records: Arc<dyn CertificateRecords>, local_users: BTreeSet<u32>) -> Self {
        Self { records, local_users }
    }

    async fn judge_channel(
        &self,
        evidence: &OperatorEvidence,
        context: &AttestContext<'_>,
    ) -> Result<Claims, AttestError> {
        match &evidence.channel {
            OperatorChannel::Mtls { certificate, peer } => {
                let mut claims = self.judge_certificate(certificate, context).await?;
                if let Some(peer) = peer {
                    claims.insert("operator.peer", peer.to_string());
                }
                Ok(claims)
            }
            OperatorChannel::LocalSocket { uid } => Ok(self.judge_user(*uid)?),
            OperatorChannel::Authority { key } if *key == context.request_key => {
                let mut claims = Claims::new();
                claims.insert("operator.channel", "authority");
                Ok(claims)
            }
            OperatorChannel::Authority { .. } => Err(OperatorError::OtherKey.into()),
        }
    }

    async fn judge_certificate(
        &self,
        certificate: &[u8],
        context: &AttestContext<'_>,
    ) -> Result<Claims, AttestError> {
        let presented = Presented::read(certificate).map_err(|why| OperatorError::Foreign { why })?;
        let serial = presented.serial;
        let standing = self
            .records
            .certificate(serial)
            .await?
            .filter(|standing| standing.key == presented.key)
            .ok_or_else(|| OperatorError::Foreign { why: format!("{serial} was never issued here") })?;
        let not_good = |why: &str| OperatorError::NotGood { serial, why: why.to_owned() };
        match standing.state {
            CertificateState::Good => {}
            CertificateState::Held => return Err(not_good("held").into()),
            CertificateState::Revoked { .. } => return Err(not_good("revoked").into()),
        }
        if context.now.whole_second() > standing.not_after {
            return Err(not_good("expired").into());
        }
        if standing.identity_state != IdentityState::Active {
            return Err(not_good("its identity is held or retired").into());
        }
        let Some(role) = standing.role else {
            return Err(OperatorError::NotAnOperator { identity: standing.identity }.into());
        };
        let mut claims = Claims::new();
        claims.insert("operator.channel", "mtls");
        claims.insert("operator.id", standing.identity.to_string());
        claims.insert("operator.role", role.as_str());
        claims.insert("operator.serial", serial.to_string());
        Ok(claims)
    }

    /// Whoever may use the socket can read the server's keys as well: an admin.
    fn judge_user(&self, uid: u32) -> Result<Claims, OperatorError> {
        if !self.local_users.contains(&uid) {
            return Err(OperatorError::Uid { uid });
        }
        let mut claims = Claims::new();
        claims.insert("operator.channel", "local-socket");
        claims.insert("operator.role", "admin");
        claims.insert("operator.uid", ClaimValue::Number(i64::from(uid)));
        Ok(claims)
    }
}

#[async_trait]
impl Verifier for OperatorVerifier {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Operator
    }

    async fn verify(&self, evidence: Evidence, context: &AttestContext<'_>) -> Result<Attested, AttestError> {
        let Evidence::Operator(evidence) = evidence else {
            return Err(AttestError::WrongKind { expected: self.kind(), got: evidence.kind() });
        };
        check_approval(evidence.approval.as_deref())?;
        let mut claims = self.judge_channel(&evidence, context).await?;
        if let Some(approval) = &evidence.approval {
            claims.insert("operator.approval", approval.as_str());
        }
        Ok(accept(evidence, claims, context))
    }
}

fn check_approval(approval: Option<&str>) -> Result<(), OperatorError> {
    let Some(text) = approval else { return Ok(()) };
    if text.chars().count() > MAX_APPROVAL || text.chars().any(char::is_control) {
        return Err(OperatorError::Approval { limit: MAX_APPROVAL });
    }
    Ok(())
}

fn accept(evidence: OperatorEvidence, claims: Claims, context: &AttestContext<'_>) -> Attested {
    let by_authority = matches!(evidence.channel, OperatorChannel::Authority { .. });
    let assurance = if by_authority { AssuranceLevel::Repeatable } else { AssuranceLevel::FirstUse };
    let channel = match &evidence.channel {
        OperatorChannel::Mtls { certificate, .. } => certificate.clone(),
        OperatorChannel::LocalSocket { uid } => uid.to_be_bytes().to_vec(),
        OperatorChannel::Authority { .. } => Vec::new(),
    };
    let kind = match &evidence.channel {
        OperatorChannel::Mtls { .. } => "mtls",
        OperatorChannel::LocalSocket { .. } => "local-socket",
        OperatorChannel::Authority { .. } => "authority",
    };
    let hash = Transcript::new("chancery evidence operator v1")
        .field(kind.as_bytes())
        .field(&channel)
        .field(evidence.identity.as_str().as_bytes())
        .field(evidence.approval.as_deref().unwrap_or_default().as_bytes())
        .field(context.request_key.as_bytes())
        .digest();
    Attested::new(EvidenceKind::Operator, Subject::Named(evidence.identity), claims, assurance, hash)
        .repeatable(by_authority)
        .bound_to(Some(context.request_key))
}

#[cfg(test)]
mod tests;
