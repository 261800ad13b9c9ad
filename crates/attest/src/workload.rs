//! A node's word about a process on it.
//!
//! The node has proved itself and its certificate is on the connection; its agent says what it found out about a
//! process. That is worth what the node's own evidence was, and never more than AL2: whoever owns the node's kernel
//! can make its agent say anything. What bounds the harm is that a node speaks only for identities that name it.

use std::sync::Arc;

use async_trait::async_trait;
use chancery_types::{AssuranceLevel, Claims, EvidenceKind, IdentityState};

use crate::error::{identity_text, state_text};
use crate::renewal::Presented;
use crate::transcript::Transcript;
use crate::{
    AttestContext, AttestError, Attested, CertificateStanding, CertificateState, Evidence, NodeRecords,
    Subject, Verifier, WorkloadError, WorkloadEvidence,
};

/// The profile whose certificates make a node.
pub const NODE_PROFILE: &str = "node";

/// First words of the names of claims that this authority's own verifiers make: no agent may.
const RESERVED: [&str; 5] = ["x509", "token", "renewal", "operator", "node"];

/// Whether agents may claim something of this name: it is of the form `kind.name`, and not one of the claims that
/// this authority's own verifiers make.
#[must_use]
pub fn is_workload_claim(name: &str) -> bool {
    let (kind, rest) = name.split_once('.').unwrap_or((name, ""));
    !rest.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) && !RESERVED.contains(&kind)
}

/// Verifies what nodes say about processes.
#[derive(Clone)]
pub struct WorkloadVerifier {
    records: Arc<dyn NodeRecords>,
}

impl WorkloadVerifier {
    /// A verifier over these records.
    #[must_use]
    pub fn new(records: Arc<dyn NodeRecords>) -> Self {
        Self { records }
    }
}

#[async_trait]
impl Verifier for WorkloadVerifier {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Workload
    }

    async fn verify(&self, evidence: Evidence, context: &AttestContext<'_>) -> Result<Attested, AttestError> {
        let Evidence::Workload(evidence) = evidence else {
            return Err(AttestError::WrongKind { expected: self.kind(), got: evidence.kind() });
        };
        check_claims(&evidence.claims)?;
        let node = Presented::read(&evidence.node).map_err(|why| WorkloadError::Foreign { why })?;
        let standing = self.records.certificate(node.serial).await?;
        let standing = standing.filter(|standing| standing.key == node.key).ok_or_else(|| {
            let why = format!("certificate {} was never issued here with this key", node.serial);
            WorkloadError::Foreign { why }
        })?;
        check_node(&node, &standing, context)?;
        self.check_identity(&evidence, &standing, context).await?;
        Ok(accept(evidence, &node, standing, context))
    }
}

impl WorkloadVerifier {
    /// The identity must be this node's, and the process must be what it asks for. How the identity stands, and
    /// whether it may have a certificate, is for policy.
    async fn check_identity(
        &self,
        evidence: &WorkloadEvidence,
        standing: &CertificateStanding,
        context: &AttestContext<'_>,
    ) -> Result<(), AttestError> {
        let (id, node) = (&evidence.identity, &standing.identity);
        let not_served = || WorkloadError::NotServed { identity: id.clone(), node: node.clone() };
        let identity = match self.records.identity(id).await? {
            Some(identity) => identity,
            // What is not registered may be what a template makes of such a process; the same is asked of it.
            None => {
                let made = self.records.made_by_template(id, &evidence.claims, context.now).await?;
                Arc::new(made.ok_or_else(not_served)?)
            }
        };
        let is_served = identity.parents.contains(node)
            || (!identity.node_selectors.is_empty()
                && identity
                    .node_selectors
                    .fulfilled_by(&self.records.enrolment_claims(standing.lineage.lineage).await?));
        if !is_served {
            return Err(not_served().into());
        }
        if !identity.matches(&evidence.claims) {
            return Err(WorkloadError::Selectors { identity: id.clone(), node: node.clone() }.into());
        }
        Ok(())
    }
}

fn check_claims(claims: &Claims) -> Result<(), WorkloadError> {
    let mut bytes = 0;
    for (name, value) in claims.iter() {
        bytes += name.len() + value.texts().iter().map(String::len).sum::<usize>();
        if !is_workload_claim(name) {
            return Err(WorkloadError::Claim(name.chars().take(80).collect()));
        }
    }
    if claims.len() > WorkloadError::CLAIMS || bytes > WorkloadError::BYTES {
        return Err(WorkloadError::TooMuch { count: claims.len(), bytes });
    }
    Ok(())
}

fn check_node(
    node: &Presented,
    standing: &CertificateStanding,
    context: &AttestContext<'_>,
) -> Result<(), WorkloadError> {
    let not_good = |why: String| Err(WorkloadError::NotGood { serial: node.serial, why });
    if standing.profile != NODE_PROFILE {
        let (identity, profile) = (standing.identity.clone(), standing.profile.clone());
        return Err(WorkloadError::NotANode { identity, profile });
    }
    if standing.state != CertificateState::Good {
        return not_good(format!("it is {}", state_text(&standing.state)));
    }
    if context.now.whole_second() > standing.not_after {
        return not_good(format!("it expired at {}", standing.not_after));
    }
    if standing.identity_state != IdentityState::Active {
        return not_good(format!("{} is {}", standing.identity, identity_text(standing.identity_state)));
    }
    Ok(())
}

fn accept(
    evidence: WorkloadEvidence,
    node: &Presented,
    standing: CertificateStanding,
    context: &AttestContext<'_>,
) -> Attested {
    let WorkloadEvidence { node: certificate, identity, mut claims } = evidence;
    let mut transcript = Transcript::new("chancery evidence workload v1")
        .field(&certificate)
        .field(identity.as_str().as_bytes())
        .field(context.request_key.as_bytes());
    for (name, value) in claims.iter() {
        let texts = value.texts();
        // The count keeps a claim's texts apart from the next claim's name.
        transcript = transcript.field(name.as_bytes()).field(&texts.len().to_be_bytes());
        transcript = texts.iter().fold(transcript, |transcript, text| transcript.field(text.as_bytes()));
    }
    let hash = transcript.digest();
    claims.insert("node.id", standing.identity.to_string());
    claims.insert("node.serial", node.serial.to_string());
    claims.insert("node.enrolled_by", standing.lineage.enrolled_by.as_str());
    claims.insert("node.assurance", standing.lineage.assurance.to_string());
    let assurance = standing.lineage.assurance.min(AssuranceLevel::Repeatable);
    Attested::new(
        EvidenceKind::Workload,
        Subject::ByClaims { wanted: Some(identity) },
        claims,
        assurance,
        hash,
    )
    .repeatable(true)
    .bound_to(Some(context.request_key))
    .vouched_by_node(node.serial)
}

#[cfg(test)]
mod tests;
