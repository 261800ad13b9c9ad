//! From an approval to the exact bytes that will be signed.

use chancery_attest::{Attested, RenewedFrom};
use chancery_entry::{Blob, Document, Entry, IdentityRegistration, Issuance, TokenSpend};
use chancery_ledger::{Precondition, Proposal};
use chancery_policy::Approved;
use chancery_types::{Digest, Generation, LineageId, Random, SerialNumber, Timestamp};
use chancery_x509::lint::{LintContext, check};
use chancery_x509::{DistinguishedName, Issuance as Particulars, Profile, ProvenRequest, Validity};

use crate::error::{LintFailure, PrepareError};
use crate::issuer::Issuer;

/// A request that was decided, and whose requester has the key.
#[derive(Debug)]
pub struct IssueRequest {
    /// The decision.
    pub approved: Approved,
    /// The key, and the proof that the requester has it.
    pub request: ProvenRequest,
    /// Who asked, as the door saw it.
    pub requester: String,
    /// Hash of the caller and its idempotency key.
    pub idempotency: Option<Digest>,
    /// The subject, for profiles whose subject is given: the authority's own certificates.
    pub subject: Option<DistinguishedName>,
    /// An identity that a template makes, to be registered together with its first certificate.
    pub registers: Option<IdentityRegistration>,
}

/// A certificate that is ready to be recorded: encoded, linted, unsigned.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) issuance: Issuance,
    pub(crate) proposal: Proposal,
    /// Where the issuance stands among the proposal's entries.
    pub(crate) offset: u64,
}

impl Prepared {
    /// The exact TBSCertificate, DER.
    #[must_use]
    pub fn tbs_der(&self) -> &[u8] {
        &self.issuance.tbs.0
    }
}

/// Encodes and lints a certificate for an approved request, with a serial of this counter, which is its alone.
///
/// # Errors
/// [`PrepareError`]; nothing was recorded.
pub(crate) fn prepare(
    request: IssueRequest,
    issuer: &Issuer,
    counter: u64,
    forbidden_keys: &[Digest],
    random: &dyn Random,
    now: Timestamp,
) -> Result<Prepared, PrepareError> {
    check_request(&request, forbidden_keys)?;
    let profile = request.approved.profile().as_ref();
    let serial = SerialNumber::generate(issuer.epoch(), counter, random)??;
    let validity = validity(&request.approved, profile, issuer, now)?;
    let tbs = encode(&request, issuer, serial, validity)?;
    lint(&tbs, request.subject.as_ref(), profile, issuer, serial, now)?;
    let (lineage, generation) = lineage(request.approved.attested().lineage(), now, random)?;
    let attested = request.approved.attested();
    let receipt = request.approved.receipt().to_json();
    let issuance = Issuance {
        serial,
        identity: request.approved.identity().spiffe_id.clone(),
        lineage,
        generation,
        not_before: validity.not_before,
        not_after: validity.not_after,
        key: request.request.public_key().fingerprint(),
        profile: profile.name().to_owned(),
        profile_hash: profile.hash(),
        requester: request.requester,
        evidence: attested.kind(),
        assurance: attested.assurance(),
        evidence_hash: attested.evidence_hash(),
        decision: Document(receipt),
        idempotency: request.idempotency,
        tbs: Blob(tbs),
    };
    let offset = u64::from(request.registers.is_some());
    let proposal = propose(&issuance, attested, request.registers, now)?;
    Ok(Prepared { issuance, proposal, offset })
}

/// What the approval cannot know: the request in hand.
fn check_request(request: &IssueRequest, forbidden_keys: &[Digest]) -> Result<(), PrepareError> {
    let key = request.request.public_key().fingerprint();
    if request.approved.attested().bound_key().is_some_and(|bound| bound != key)
        || request.approved.key().fingerprint != key
    {
        return Err(PrepareError::OtherKey);
    }
    if forbidden_keys.contains(&key) {
        return Err(PrepareError::AuthorityKey);
    }
    if request.request.asks_for_ca() && !request.approved.profile().is_authority() {
        return Err(PrepareError::AsksForAuthority);
    }
    Ok(())
}

fn validity(
    approved: &Approved,
    profile: &Profile,
    issuer: &Issuer,
    now: Timestamp,
) -> Result<Validity, PrepareError> {
    let tbs = issuer.certificate().tbs();
    let end = approved.identity().expires.map_or(tbs.not_after(), |expires| expires.min(tbs.not_after()));
    let validity = profile.validity(now, approved.lifetime(), tbs.not_before(), end.whole_second());
    if validity.not_after <= now {
        return Err(PrepareError::IssuerExpired(tbs.not_after()));
    }
    Ok(validity)
}

fn encode(
    request: &IssueRequest,
    issuer: &Issuer,
    serial: SerialNumber,
    validity: Validity,
) -> Result<Vec<u8>, PrepareError> {
    let profile = request.approved.profile();
    let particulars = Particulars {
        serial: serial.as_bytes(),
        issuer: issuer.certificate(),
        signature_algorithm: issuer.signer().algorithm(),
        validity,
        public_key: request.request.public_key(),
        names: request.approved.names(),
        subject: request.subject.as_ref(),
        urls: issuer.urls().of_certificate(serial),
    };
    Ok(profile.specify(&particulars)?.to_tbs_der())
}

/// The exact bytes, held against the standards and the profile as a relying party will read them.
fn lint(
    tbs: &[u8],
    subject: Option<&DistinguishedName>,
    profile: &Profile,
    issuer: &Issuer,
    serial: SerialNumber,
    now: Timestamp,
) -> Result<(), PrepareError> {
    let context = LintContext {
        profile,
        issuer: issuer.certificate(),
        trust_domain: issuer.trust_domain(),
        now,
        urls: issuer.urls().of_certificate(serial),
        subject,
    };
    let failures: Vec<LintFailure> = check(tbs, &context)
        .into_iter()
        .filter(chancery_x509::lint::Finding::is_error)
        .map(|finding| LintFailure { lint: finding.id, detail: finding.detail })
        .collect();
    if failures.is_empty() { Ok(()) } else { Err(PrepareError::Lint(failures)) }
}

fn lineage(
    renewed: Option<RenewedFrom>,
    now: Timestamp,
    random: &dyn Random,
) -> Result<(LineageId, Generation), PrepareError> {
    match renewed {
        Some(from) => Ok((from.lineage, from.generation.next())),
        None => Ok((LineageId::at(now, random)?, Generation(0))),
    }
}

/// What must still hold when the order is decided, and what is recorded then.
fn propose(
    issuance: &Issuance,
    attested: &Attested,
    registers: Option<IdentityRegistration>,
    now: Timestamp,
) -> Result<Proposal, PrepareError> {
    // First: whoever asks again while the first try is under way, perhaps at another replica, is to hear of that one,
    // and of nothing that it has changed.
    let mut requires: Vec<Precondition> =
        issuance.idempotency.map(Precondition::IdempotencyUnused).into_iter().collect();
    requires.push(Precondition::SerialUnused(issuance.serial));
    requires.push(Precondition::IssuerActive(issuance.serial.epoch()));
    let mut entries = Vec::with_capacity(3);
    match registers {
        Some(registration) => {
            requires.push(Precondition::IdentityUnused(registration.identity.clone()));
            entries.push(Entry::new(now, chancery_entry::Body::IdentityRegistered(registration)));
        }
        None => requires.push(Precondition::IdentityActive(issuance.identity.clone())),
    }
    match attested.lineage() {
        Some(from) => {
            requires.push(Precondition::LineageAt { lineage: from.lineage, generation: from.generation });
            // It may have been revoked or held since the evidence was looked at.
            requires.push(Precondition::InForce(from.serial));
        }
        None => requires.push(Precondition::LineageUnused(issuance.lineage)),
    }
    requires.extend(attested.vouched_by().map(Precondition::InForce));
    entries.push(Entry::new(now, issuance.clone()));
    if let Some(token) = attested.spends() {
        requires.push(Precondition::TokenUsable { token, now });
        let spend = TokenSpend { token, serial: issuance.serial };
        entries.push(Entry::new(now, chancery_entry::Body::TokenSpent(spend)));
    }
    Ok(Proposal::new(requires, entries)?)
}
