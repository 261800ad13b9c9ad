//! The authority's own certificates: server and responder. They walk the same road as everybody's.

use std::sync::Arc;

use chancery_attest::{AttestContext, Evidence, OperatorChannel, OperatorEvidence};
use chancery_issue::{IssueRequest, Issued};
use chancery_keys::{EphemeralSigner, Signer};
use chancery_policy::{Decision, IssueContext, Requested, RequestedKey};
use chancery_revoke::ResponderCredential;
use chancery_types::{IssuerEpoch, KeyAlgorithm, SpiffeId, Timestamp};
use chancery_x509::{DistinguishedName, ProvenRequest, SubjectKey};

use super::open::{responder_identity, server_identity};
use super::{Authority, AuthorityError};

/// The certificate of the authority's own server, with its key, which exists in this process alone.
#[derive(Debug)]
pub struct ServerCredential {
    /// The certificate and the issuer's, DER.
    pub chain: Vec<Vec<u8>>,
    /// Who signed it.
    pub issuer: IssuerEpoch,
    /// The key.
    pub key: SubjectKey,
    /// notBefore.
    pub not_before: Timestamp,
    /// notAfter.
    pub not_after: Timestamp,
}

impl ServerCredential {
    /// Whether half of its life is over.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        now >= self.not_before + self.not_after.since(self.not_before) / 2
    }
}

impl Authority {
    /// A new certificate for the authority's own server, with a new key.
    ///
    /// # Errors
    /// [`AuthorityError`], as for anybody.
    pub async fn server_credential(&self) -> Result<ServerCredential, AuthorityError> {
        let key = SubjectKey::generate(KeyAlgorithm::P256)
            .map_err(|error| AuthorityError::invalid("key", error))?;
        let id = server_identity(&self.config).spiffe_id;
        let issued = self.issue_own(&id, "server", None, key.public_key()).await?;
        let chain = vec![issued.der().to_vec(), issued.issuer_der().to_vec()];
        let issuer = issued.serial().epoch();
        Ok(ServerCredential {
            chain,
            issuer,
            key,
            not_before: issued.not_before(),
            not_after: issued.not_after(),
        })
    }

    /// A new certificate for the delegated OCSP responder, with a new key.
    ///
    /// # Errors
    /// [`AuthorityError`], as for anybody.
    pub async fn responder_credential(&self) -> Result<ResponderCredential, AuthorityError> {
        let epoch = self.workflow.issuer().epoch();
        let identity = responder_identity(&self.config.trust_domain, epoch);
        let subject = format!("{} OCSP {epoch}", self.config.trust_domain);
        let subject = DistinguishedName::common_name(&subject.chars().take(64).collect::<String>())
            .map_err(|error| AuthorityError::invalid("trust_domain", error))?;
        let signer = EphemeralSigner::generate(KeyAlgorithm::P256)
            .map_err(|error| AuthorityError::invalid("key", error))?;
        let issued = self.issue_own(&identity.spiffe_id, "ocsp", Some(subject), signer.public_key()).await?;
        Ok(ResponderCredential {
            certificate: Some(issued.der().to_vec()),
            not_before: issued.not_before(),
            not_after: issued.not_after(),
            signer,
        })
    }

    async fn issue_own(
        &self,
        id: &SpiffeId,
        profile: &str,
        subject: Option<DistinguishedName>,
        key: &chancery_x509::PublicKey,
    ) -> Result<Issued, AuthorityError> {
        let now = self.clock.now();
        let channel = OperatorChannel::Authority { key: key.fingerprint() };
        let evidence = Evidence::Operator(OperatorEvidence { channel, identity: id.clone(), approval: None });
        let context = AttestContext {
            now,
            request_key: key.fingerprint(),
            server_name: self.config.trust_domain.as_str(),
        };
        let attested = self.verifiers.verify(evidence, &context).await?;
        let record = self.ledger.identity(id).await?;
        let record = record.ok_or_else(|| AuthorityError::not_found("identity", id))?;
        let rules = self.rules.load_full();
        let request = ProvenRequest::dangerous_key_vouched_by_attested_agent(
            key.clone(),
            Vec::new(),
            attested.evidence_hash(),
        );
        let decision = rules.engine().decide_issue(chancery_policy::IssueRequest {
            attested,
            identity: Arc::new(record.identity),
            identity_state: record.state,
            template: None,
            profile: Arc::clone(rules.profile(profile)?),
            requested: Requested {
                names: Vec::new(),
                lifetime: None,
                key: RequestedKey { algorithm: key.algorithm(), fingerprint: key.fingerprint() },
                audiences: Vec::new(),
            },
            context: IssueContext::at(now),
            alternatives: &[],
        });
        let approved = match decision {
            Decision::Approved(approved) => *approved,
            Decision::Refused(refused) => return Err(AuthorityError::Refused(refused)),
        };
        let requester = "chancery".to_owned();
        Ok(self
            .workflow
            .issue(IssueRequest { approved, request, requester, idempotency: None, subject, registers: None })
            .await?)
    }
}
