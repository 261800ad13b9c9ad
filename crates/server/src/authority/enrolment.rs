//! The road as one function: prove, attest, find, decide, issue.

use std::net::IpAddr;
use std::sync::Arc;

use chancery_attest::{AttestContext, AttestError, Attested, Evidence, RenewalError, Subject};
use chancery_entry::{Body, Document, Entry, IdentityRegistration, Refusal};
use chancery_issue::{IssueError, IssueRequest, Issued, RecordError};
use chancery_ledger::{Precondition, Proposal, Standing};
use chancery_policy::{
    Decision, IdentityTemplate, IssueContext, NetworkFacts, Reduction, Refused, Requested, RequestedKey,
};
use chancery_telemetry::step;
use chancery_types::{
    AssuranceLevel, Claims, Digest, EvidenceKind, HumanDuration, Identity, IdentityState, SerialNumber,
    SpiffeId, Timestamp,
};
use chancery_x509::{CertificateRequest, Ignored, Profile, ProvenRequest};
use tracing::Instrument as _;
use tracing::field::Empty;

use super::records::made_by_template;
use super::rules::Rules;
use super::{Authority, AuthorityError};

/// Who asks, as the door saw it.
#[derive(Debug, Clone)]
pub struct Requester {
    /// For the record: an address, a SPIFFE ID, `uid:0`.
    pub name: String,
    /// Where it came from, over a network.
    pub address: Option<IpAddr>,
}

/// What a requester wishes for besides a key.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The profile; the identity's first one if absent.
    pub profile: Option<String>,
    /// A lifetime.
    pub lifetime: Option<HumanDuration>,
    /// The identity that is meant; evidence of another's does not serve.
    pub identity: Option<SpiffeId>,
}

/// A request for a certificate.
#[derive(Debug)]
pub struct Enrolment {
    /// The key, with proof that the requester has it.
    pub request: ProvenRequest,
    /// What proves who it is.
    pub evidence: Evidence,
    /// What else it wishes for.
    pub wish: Wish,
    /// Who asks.
    pub requester: Requester,
    /// Hash over the caller, its idempotency key and the whole request.
    pub idempotency: Option<Digest>,
}

/// A certificate, and what was left out of it.
#[derive(Debug)]
pub struct Enrolled {
    /// The certificate.
    pub issued: Issued,
    /// What the evidence was worth.
    pub assurance: AssuranceLevel,
    /// What was granted in part.
    pub reductions: Vec<Reduction>,
    /// What the request asked for and did not get.
    pub ignored: Vec<Ignored>,
}

/// An identity that evidence speaks for.
pub(super) struct Found {
    pub(super) identity: Arc<Identity>,
    pub(super) state: IdentityState,
    template: Option<Arc<IdentityTemplate>>,
    /// To be registered together with the certificate.
    pub(super) registers: Option<IdentityRegistration>,
}

/// A decided request on its way to the workflow.
struct Decided {
    request: IssueRequest,
    assurance: AssuranceLevel,
    reductions: Vec<Reduction>,
    ignored: Vec<Ignored>,
}

impl Authority {
    /// Reads a certificate request and verifies that its sender has the key.
    ///
    /// # Errors
    /// [`AuthorityError::Request`] or [`AuthorityError::WeakKey`].
    pub fn prove(&self, csr: &[u8]) -> Result<ProvenRequest, AuthorityError> {
        let request = CertificateRequest::from_der(csr)?;
        self.weak_keys.check(request.public_key())?;
        Ok(request.verify()?)
    }

    /// Enrols or renews: evidence in, certificate out. A retry with the same idempotency hash gives the
    /// certificate that the first try gave.
    ///
    /// # Errors
    /// [`AuthorityError`] by the step that failed. A refusal by policy is recorded before it is returned.
    pub async fn enroll(&self, enrolment: Enrolment) -> Result<Enrolled, AuthorityError> {
        if let Some(before) = self.enrolled_before(enrolment.idempotency).await? {
            return Ok(before);
        }
        let rules = self.rules.load_full();
        let idempotency = enrolment.idempotency;
        let decided = match self.decide(&rules, enrolment).await {
            Ok(decided) => decided,
            // The reply to the first try was lost: the certificate exists, for this very key.
            Err(AuthorityError::Attest(AttestError::Renewal(RenewalError::AlreadyRenewed { serial }))) => {
                return self.enrolled(serial).await;
            }
            // The first try may have spent the token since it was looked for above.
            Err(error) => return self.enrolled_before(idempotency).await?.ok_or(error),
        };
        match self.workflow.issue(decided.request).await {
            Ok(issued) => Ok(Enrolled {
                issued,
                assurance: decided.assurance,
                reductions: decided.reductions,
                ignored: decided.ignored,
            }),
            Err(error) => self.after_conflict(error, idempotency).await,
        }
    }

    /// Enrols several with one commit; each succeeds or fails for itself.
    pub async fn enroll_batch(&self, enrolments: Vec<Enrolment>) -> Vec<Result<Enrolled, AuthorityError>> {
        let rules = self.rules.load_full();
        let mut failures = Vec::with_capacity(enrolments.len());
        let mut replies = Vec::with_capacity(enrolments.len());
        let mut requests = Vec::with_capacity(enrolments.len());
        for enrolment in enrolments {
            match self.decide(&rules, enrolment).await {
                Ok(decided) => {
                    requests.push(decided.request);
                    replies.push((decided.assurance, decided.reductions, decided.ignored));
                    failures.push(None);
                }
                Err(error) => failures.push(Some(error)),
            }
        }
        let mut issued = self.workflow.issue_batch(requests).await.into_iter().zip(replies);
        let finish = |failure| match failure {
            Some(error) => Err(error),
            None => {
                let (issued, (assurance, reductions, ignored)) =
                    issued.next().expect("one result for each request");
                Ok(Enrolled { issued: issued.map_err(AuthorityError::from)?, assurance, reductions, ignored })
            }
        };
        failures.into_iter().map(finish).collect()
    }

    /// From evidence to an approved request.
    async fn decide(&self, rules: &Rules, enrolment: Enrolment) -> Result<Decided, AuthorityError> {
        let now = self.clock.now();
        let Enrolment { request, evidence, wish, requester, idempotency } = enrolment;
        let step = step!("attest", chancery.evidence = Empty, chancery.assurance = Empty);
        let attest = self.attest(evidence, &request, &requester, now);
        let attested = attest.instrument(step.clone()).await?;
        let assurance = attested.assurance();
        step.record("chancery.evidence", attested.kind().as_str());
        step.record("chancery.assurance", tracing::field::display(assurance));
        drop(step);
        let found = self.find(&attested, now).instrument(step!("find")).await?;
        if wish.identity.as_ref().is_some_and(|meant| *meant != found.identity.spiffe_id) {
            return Err(AuthorityError::NoIdentity);
        }
        let ignored = request.ignored().to_vec();
        let step = step!("policy", chancery.identity = found.identity.spiffe_id.as_str());
        let decision =
            step.in_scope(|| self.ask_policy(rules, attested, &found, &request, &wish, &requester, now))?;
        drop(step);
        let approved = match decision {
            Decision::Approved(approved) => *approved,
            Decision::Refused(refused) => return Err(self.refuse(refused, &found, &requester, now).await),
        };
        let reductions = approved.reductions().to_vec();
        let registers = found.registers;
        let request = IssueRequest {
            approved,
            request,
            requester: requester.name,
            idempotency,
            subject: None,
            registers,
        };
        Ok(Decided { request, assurance, reductions, ignored })
    }

    /// Has the evidence verified; a fork of a lineage holds both sides of it.
    async fn attest(
        &self,
        evidence: Evidence,
        request: &ProvenRequest,
        requester: &Requester,
        now: Timestamp,
    ) -> Result<Attested, AuthorityError> {
        let context = AttestContext {
            now,
            request_key: request.public_key().fingerprint(),
            server_name: self.config.trust_domain.as_str(),
        };
        let error = match self.verifiers.verify(evidence, &context).await {
            Ok(attested) => return Ok(attested),
            Err(error) => error,
        };
        if let AttestError::Renewal(RenewalError::LineageFork { lineage, .. }) = &error {
            tracing::error!(%lineage, requester = %requester.name, "LINEAGE FORK: two holders of one enrolment");
            self.revoker.hold_fork(*lineage, "chancery", &error.to_string()).await?;
            return Err(AuthorityError::Fork(error));
        }
        Err(error.into())
    }

    /// The identity that the evidence speaks for.
    pub(super) async fn find(&self, attested: &Attested, now: Timestamp) -> Result<Found, AuthorityError> {
        match attested.subject() {
            Subject::Named(id) => self.registered(id).await,
            Subject::Template { name, parameters } => {
                let template = self.template(name).await?;
                let identity = template
                    .expand(&self.config.trust_domain, parameters, now)
                    .map_err(|error| AuthorityError::invalid("template", error))?;
                let template = Some(Arc::new(template));
                if let Some((identity, state)) = self.records.identity(&identity.spiffe_id).await? {
                    return Ok(Found { identity, state, template, registers: None });
                }
                to_register(identity, name, template)
            }
            Subject::ByClaims { wanted: Some(id) } => match self.registered(id).await {
                Err(AuthorityError::NotFound { .. }) if attested.kind() == EvidenceKind::Workload => {
                    let (ledger, domain) = (self.ledger.as_ref(), &self.config.trust_domain);
                    let made = made_by_template(ledger, domain, id, attested.claims(), now).await?;
                    let (name, identity) = made.ok_or(AuthorityError::NoIdentity)?;
                    to_register(identity, &name, None)
                }
                known => known,
            },
            Subject::ByClaims { wanted: None } => self.matching(attested.claims()).await,
        }
    }

    pub(super) async fn registered(&self, id: &SpiffeId) -> Result<Found, AuthorityError> {
        let known = self.identity(id).await?;
        let (identity, state) = known.ok_or_else(|| AuthorityError::not_found("identity", id))?;
        Ok(Found { identity, state, template: None, registers: None })
    }

    /// The one identity whose selectors these claims fulfil.
    async fn matching(&self, claims: &Claims) -> Result<Found, AuthorityError> {
        let mut matching = Vec::new();
        for id in self.selectors.candidates(self.ledger.as_ref(), claims).await? {
            let known = self.records.identity(&id).await?;
            matching.extend(
                known.filter(|(identity, state)| *state == IdentityState::Active && identity.matches(claims)),
            );
        }
        if matching.len() > 1 {
            let ids = matching.iter().map(|(identity, _)| identity.spiffe_id.clone()).take(8).collect();
            return Err(AuthorityError::Ambiguous(ids));
        }
        let (identity, state) = matching.pop().ok_or(AuthorityError::NoIdentity)?;
        Ok(Found { identity, state, template: None, registers: None })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is an input of the decision, and there is one caller"
    )]
    fn ask_policy(
        &self,
        rules: &Rules,
        attested: Attested,
        found: &Found,
        request: &ProvenRequest,
        wish: &Wish,
        requester: &Requester,
        now: Timestamp,
    ) -> Result<Decision, AuthorityError> {
        let allowed = found.identity.allowed_profiles();
        let name = wish.profile.as_deref().or(allowed.first().copied()).unwrap_or("workload");
        let profile = Arc::clone(rules.profile(name)?);
        let alternatives: Vec<Arc<Profile>> = allowed
            .iter()
            .filter(|other| **other != name)
            .filter_map(|name| rules.profile(name).ok().cloned())
            .collect();
        let key = request.public_key();
        let network = requester.address.map(|address| NetworkFacts { address, zone: None });
        Ok(rules.engine().decide_issue(chancery_policy::IssueRequest {
            attested,
            identity: Arc::clone(&found.identity),
            identity_state: found.state,
            template: found.template.clone(),
            profile,
            requested: Requested {
                names: request.names().to_vec(),
                lifetime: wish.lifetime,
                key: RequestedKey { algorithm: key.algorithm(), fingerprint: key.fingerprint() },
                audiences: Vec::new(),
            },
            context: IssueContext { now, network, history: None },
            alternatives: &alternatives,
        }))
    }

    /// Records a refusal. Whoever is refused has shown valid evidence, so strangers cannot fill the log with it.
    pub(super) async fn refuse(
        &self,
        refused: Box<Refused>,
        found: &Found,
        requester: &Requester,
        now: Timestamp,
    ) -> AuthorityError {
        if refused.refusal.alarm {
            tracing::error!(reason = %refused.refusal.reason, "POLICY COULD NOT BE EVALUATED; the request was denied");
        }
        let evidence = &refused.receipt.inputs.evidence;
        let refusal = Refusal {
            identity: Some(found.identity.spiffe_id.clone()),
            requester: requester.name.clone(),
            evidence: evidence.kind,
            evidence_hash: evidence.hash,
            code: refused.refusal.code.as_str().to_owned(),
            decision: Document(serde_json::to_string(&refused.receipt).unwrap_or_default()),
        };
        let recorded = match Proposal::new(Vec::new(), vec![Entry::new(now, Body::Refusal(refusal))]) {
            Ok(proposal) => {
                let commit = self.ledger.commit(vec![proposal]).instrument(step!("commit"));
                commit.await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = recorded {
            tracing::warn!(error, "a refusal could not be recorded");
        }
        AuthorityError::Refused(refused)
    }

    /// The certificate that an earlier try of the same request gave.
    async fn enrolled_before(&self, hash: Option<Digest>) -> Result<Option<Enrolled>, AuthorityError> {
        let Some(hash) = hash else { return Ok(None) };
        match self.ledger.idempotent(hash).await? {
            Some(serial) => self.enrolled(serial).await.map(Some),
            None => Ok(None),
        }
    }

    async fn enrolled(&self, serial: SerialNumber) -> Result<Enrolled, AuthorityError> {
        let record = self.ledger.certificate(serial).await?;
        let record = record.ok_or_else(|| AuthorityError::not_found("certificate", serial))?;
        let issued = self.workflow.retrieve(&record).await?;
        let assurance = record.assurance;
        Ok(Enrolled { issued, assurance, reductions: Vec::new(), ignored: Vec::new() })
    }

    /// Two tries of one request at the same time: the one that came second gets what the first got.
    async fn after_conflict(
        &self,
        error: IssueError,
        idempotency: Option<Digest>,
    ) -> Result<Enrolled, AuthorityError> {
        if let IssueError::Record(RecordError::Conflict { conflict, .. }) = &error {
            match (&conflict.precondition, conflict.standing) {
                (Precondition::IdempotencyUnused(hash), Standing::Issued(serial))
                    if Some(*hash) == idempotency =>
                {
                    return self.enrolled(serial).await;
                }
                (Precondition::LineageAt { lineage, .. }, Standing::Generation(_)) => {
                    // Two renewals of one generation raced, with different keys: the lineage has two holders.
                    self.revoker.hold_fork(*lineage, "chancery", &conflict.to_string()).await?;
                }
                _ => {}
            }
        }
        Err(error.into())
    }
}

/// What a template has made, and is to be registered.
fn to_register(
    identity: Identity,
    by: &str,
    template: Option<Arc<IdentityTemplate>>,
) -> Result<Found, AuthorityError> {
    let document =
        serde_json::to_string(&identity).map_err(|error| AuthorityError::invalid("template", error))?;
    let registers = IdentityRegistration {
        identity: identity.spiffe_id.clone(),
        document: Document(document),
        by: format!("template:{by}"),
    };
    let (identity, state) = (Arc::new(identity), IdentityState::Active);
    Ok(Found { identity, state, template, registers: Some(registers) })
}
