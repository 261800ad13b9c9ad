//! The rules that hold between entries: what must have happened before, what may happen once.
//!
//! It keeps a few dozen bytes for each certificate, lineage, token and identity, never the entries themselves.

use std::collections::HashMap;
use std::sync::Arc;

use chancery_entry::{
    Body, CrlDivision, Entry, Genesis, HoldTarget, Issuance, IssuerActivation, KeyPurpose, StatusSetPublished,
};
use chancery_types::{
    Digest, EvidenceKind, Generation, IdentityState, IssuerEpoch, LineageId, RevocationReason, SerialNumber,
    SpiffeId, Timestamp,
};
use chancery_x509::{Certificate, VouchedRoot};

use super::certificate::{Job, RecordedProfile};
use super::changes::Changes;
use super::finding::{Check, Finding, Findings};
use super::holds::HoldEvent;
use super::issuers::Issuer;
use super::status::{Collected, Division, Issued, RecordedList, Revoked, Scope, Status, Tidied};
use super::tokens::Tokens;

/// What the entries so far amount to.
#[derive(Default)]
pub(crate) struct History {
    genesis: Option<Genesis>,
    /// That of the beginning, and those that the log tells of.
    roots: Vec<Certificate>,
    latest: Option<Timestamp>,
    issuers: HashMap<IssuerEpoch, IssuerRecord>,
    profiles: HashMap<Digest, Arc<RecordedProfile>>,
    identities: HashMap<SpiffeId, IdentityState>,
    lineages: HashMap<LineageId, Lineage>,
    tokens: Tokens,
    issued: Vec<Issued>,
    revoked: HashMap<SerialNumber, Revoked>,
    holds: Vec<HoldEvent>,
    changes: Changes,
    lists: HashMap<Scope, Vec<RecordedList>>,
    divisions: HashMap<IssuerEpoch, Arc<Vec<Division>>>,
    /// Sequence and hash.
    last_set: Option<(u64, Digest)>,
    /// Versions of the exact set, with their entries.
    sets: Vec<(u64, StatusSetPublished)>,
    /// When issuers were published, by entry; the first one is activated at once.
    published: Vec<(u64, IssuerEpoch)>,
    tidied: Vec<Tidied>,
}

struct IssuerRecord {
    /// Nothing when its certificate is unreadable.
    issuer: Option<Arc<Issuer>>,
    /// SHA-256 of its certificate as it was recorded.
    certificate: Digest,
    phase: IssuerPhase,
}

/// How an issuer stands: published, with lists of its own, before it signs; and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IssuerPhase {
    Prepared,
    Active,
    Retired,
    Withdrawn,
}

struct Lineage {
    generation: Generation,
    identity: IdentityTag,
    is_held: bool,
}

/// Half of a SHA-256: enough to tell identities apart, in less memory than their names.
pub(super) type IdentityTag = [u8; 16];

/// An entry with the index that it has.
pub(crate) struct Placed<'a> {
    pub(crate) index: u64,
    pub(crate) entry: &'a Entry,
}

impl History {
    /// Follows one entry. An issuance yields what is left to check about it.
    pub(crate) fn follow(
        &mut self,
        index: u64,
        entry: Entry,
        signature: Option<Vec<u8>>,
        findings: &mut Findings,
    ) -> Option<Job> {
        let mut report = |finding: Finding| findings.push(finding.at(index));
        self.check_time(entry.time, &mut report);
        if signature.is_some() && !matches!(entry.body, Body::Issuance(_)) {
            let detail = "a signature stands beside an entry that is no issuance";
            report(Finding::new(Check::CertificateSignature, detail));
        }
        if self.genesis.is_none() && !matches!(entry.body, Body::Genesis(_)) && index == 0 {
            report(Finding::new(Check::Genesis, format!("the log begins with {}", entry.body.kind())));
        }
        match &entry.body {
            Body::Issuance(_) => {}
            _ => self.follow_other(&Placed { index, entry: &entry }, &mut report),
        }
        match entry.body {
            Body::Issuance(issuance) => {
                let trust_domain = self.genesis.as_ref().map(|genesis| genesis.trust_domain.trust_domain());
                let (issuer, profile) = self.follow_issuance(index, &issuance, &mut report);
                let time = entry.time;
                let divisions = self.divisions.get(&issuance.serial.epoch()).cloned();
                Some(Job { divisions, index, time, trust_domain, issuance, issuer, profile, signature })
            }
            _ => None,
        }
    }

    /// The genesis entry, once it was seen.
    pub(crate) fn genesis(&self) -> Option<&Genesis> {
        self.genesis.as_ref()
    }

    /// The certificates of all issuers that were published or activated.
    pub(crate) fn issuer_fingerprints(&self) -> Vec<Digest> {
        let readable = self.issuers.values().filter_map(|record| record.issuer.as_ref());
        readable.map(|issuer| issuer.fingerprint()).collect()
    }

    /// The rules that can be judged only at the end, and the status of every certificate.
    pub(crate) fn finish(mut self, findings: &mut Findings) -> Status {
        self.tokens.report_lone_halves(findings);
        let issuers = self.issuers.into_values().filter_map(|record| record.issuer).collect();
        let collected = Collected {
            issued: self.issued,
            revoked: self.revoked,
            holds: self.holds,
            lists: self.lists,
            divisions: self.divisions,
            issuers,
            sets: self.sets,
            published: self.published,
            tidied: self.tidied,
        };
        Status::of(collected, findings)
    }

    fn check_time(&mut self, time: Timestamp, report: &mut impl FnMut(Finding)) {
        match self.latest {
            Some(latest) if time.millis() + CLOCK_TOLERANCE_MS < latest.millis() => {
                let detail = format!("dated {time}, after an entry of {latest}");
                report(Finding::new(Check::TimeOrder, detail));
            }
            Some(latest) if time <= latest => {}
            _ => self.latest = Some(time),
        }
    }

    fn follow_other(&mut self, placed: &Placed<'_>, report: &mut impl FnMut(Finding)) {
        let (index, time) = (placed.index, placed.entry.time);
        match &placed.entry.body {
            Body::Null
            | Body::Issuance(_)
            | Body::Refusal(_)
            | Body::TemplateRegistered(_)
            | Body::TemplateRemoved(_)
            | Body::PolicyChanged(_)
            | Body::OperatorAction(_)
            | Body::IssuerTainted(_)
            | Body::RotationWished(_)
            | Body::Ceremony(_) => {}
            Body::ChangeProposed(proposal) => self.changes.propose(index, proposal, report),
            Body::ChangeStepped(step) => self.changes.step(time, step, report),
            Body::Genesis(genesis) => self.follow_genesis(index, genesis, report),
            Body::Revocation(revocation) => {
                self.changes.touch(time, &revocation.by, report);
                self.follow_revocation(index, time, revocation.serial, revocation.reason, report);
            }
            Body::Hold(hold) => {
                self.changes.touch(time, &hold.by, report);
                self.follow_hold(placed, &hold.target, true);
            }
            Body::Release(release) => self.follow_hold(placed, &release.target, false),
            Body::CrlPublished(list) => {
                let record =
                    RecordedList { index, number: list.number, entries: list.entries, hash: list.hash };
                self.follow_list((list.epoch, None), record, report);
            }
            Body::CrlShardPublished(list) => {
                let record =
                    RecordedList { index, number: list.number, entries: list.entries, hash: list.hash };
                self.follow_list((list.epoch, Some(list.shard)), record, report);
            }
            Body::CrlDivided(division) => self.follow_division(division),
            Body::Tidied(tidy) => self.tidied.push(Tidied {
                index,
                // By the proposer's own clock nothing can have ended later.
                ended_before: tidy.ended_before.min(time),
                serials: tidy.serials.clone(),
            }),
            Body::StatusSetPublished(set) => self.follow_set(index, set, report),
            Body::IdentityRegistered(registration) | Body::IdentityChanged(registration) => {
                self.identities.entry(registration.identity.clone()).or_insert(IdentityState::Active);
            }
            Body::IdentityHeld(change) => {
                self.identities.insert(change.identity.clone(), IdentityState::Held);
            }
            Body::IdentityReleased(change) => {
                self.identities.insert(change.identity.clone(), IdentityState::Active);
            }
            Body::IdentityRetired(change) => {
                self.identities.insert(change.identity.clone(), IdentityState::Retired);
            }
            Body::TokenCreated(creation) => self.tokens.create(creation, report),
            Body::TokenSpent(spend) => self.tokens.spend(index, time, spend, report),
            Body::TokenRevoked(revocation) => self.tokens.withdraw(revocation.token, report),
            Body::IssuerPrepared(preparation) => self.follow_preparation(index, preparation, report),
            Body::IssuerActivated(activation) => self.follow_activation(index, activation, report),
            Body::IssuerRetired(retirement) => {
                let record = self.issuers.get_mut(&retirement.epoch);
                // One that was withdrawn too early is published again.
                let may = |phase| matches!(phase, IssuerPhase::Active | IssuerPhase::Withdrawn);
                match record.filter(|record| may(record.phase)) {
                    Some(record) => record.phase = IssuerPhase::Retired,
                    None => {
                        let detail = format!("issuer {} is retired and was not active", retirement.epoch);
                        report(Finding::new(Check::IssuerInactive, detail));
                    }
                }
            }
            Body::IssuerWithdrawn(withdrawal) => {
                let record = self.issuers.get_mut(&withdrawal.epoch);
                let fault = match record.as_ref().map(|record| record.phase) {
                    Some(IssuerPhase::Active) => Some("signs still"),
                    Some(_) => None,
                    None => Some("was never published"),
                };
                match (fault, record) {
                    (None, Some(record)) => record.phase = IssuerPhase::Withdrawn,
                    (fault, _) => {
                        let fault = fault.unwrap_or_default();
                        let detail = format!("issuer {} is withdrawn and {fault}", withdrawal.epoch);
                        report(Finding::new(Check::IssuerInactive, detail));
                    }
                }
            }
            Body::KeyChanged(change) => {
                if change.purpose == KeyPurpose::Root {
                    self.follow_root(&change.content.0, report);
                }
            }
            Body::ProfileChanged(change) => {
                let computed = Digest::of(change.text.as_bytes());
                if computed != change.profile_hash {
                    let (name, stated) = (&change.name, change.profile_hash);
                    let detail = format!("profile {name}: recorded as {stated}, its text has {computed}");
                    report(Finding::new(Check::ProfileHash, detail));
                }
                let domain = self.genesis.as_ref().map(|genesis| genesis.trust_domain.trust_domain());
                let (profile, finding) = RecordedProfile::read(&change.name, &change.text, domain.as_ref());
                finding.into_iter().for_each(report);
                self.profiles.insert(change.profile_hash, Arc::new(profile));
            }
        }
    }

    fn follow_genesis(&mut self, index: u64, genesis: &Genesis, report: &mut impl FnMut(Finding)) {
        if index != 0 || self.genesis.is_some() {
            report(Finding::new(Check::Genesis, "a second beginning within the log"));
            return;
        }
        match Certificate::from_der(&genesis.root.0) {
            Ok(root) => self.roots.push(root),
            Err(error) => report(Finding::new(Check::Genesis, format!("field root: {error}"))),
        }
        self.genesis = Some(genesis.clone());
    }

    /// A root follows others if one of them vouches for it.
    fn follow_root(&mut self, content: &[u8], report: &mut impl FnMut(Finding)) {
        let root = match VouchedRoot::from_der(content) {
            Ok(root) => root,
            Err(error) => {
                report(Finding::new(Check::RootUnvouched, format!("the root cannot be read: {error}")));
                return;
            }
        };
        let certificate = root.certificate();
        if self.roots.contains(certificate) {
            return;
        }
        let domain = self.genesis.as_ref().map(|genesis| genesis.trust_domain.trust_domain());
        let checked = domain.map_or(Ok(()), |domain| root.check(&domain));
        let is_vouched_for = self.roots.iter().any(|elder| root.vouched_for_by(elder).is_ok());
        let fault = match checked {
            Err(error) => Some(error.to_string()),
            Ok(()) if !is_vouched_for => Some("no root before it in the log vouches for it".to_owned()),
            Ok(()) => None,
        };
        match fault {
            Some(fault) => {
                let detail = format!("root {} was brought, and {fault}", certificate.fingerprint());
                report(Finding::new(Check::RootUnvouched, detail));
            }
            None => self.roots.push(certificate.clone()),
        }
    }

    /// It is published; one that was withdrawn before it signed anything may be published again.
    fn follow_preparation(
        &mut self,
        index: u64,
        preparation: &IssuerActivation,
        report: &mut impl FnMut(Finding),
    ) {
        let epoch = preparation.epoch;
        match self.issuers.get(&epoch).map(|record| record.phase) {
            None | Some(IssuerPhase::Withdrawn) => {
                self.insert_issuer(index, preparation, IssuerPhase::Prepared, report)
            }
            Some(_) => {
                let detail = format!("issuer {epoch} is published a second time");
                report(Finding::new(Check::IssuerCertificate, detail));
            }
        }
    }

    fn follow_activation(
        &mut self,
        index: u64,
        activation: &IssuerActivation,
        report: &mut impl FnMut(Finding),
    ) {
        let epoch = activation.epoch;
        let Some(before) = self.issuers.get_mut(&epoch) else {
            return self.insert_issuer(index, activation, IssuerPhase::Active, report);
        };
        let mut fault = |what| {
            report(Finding::new(Check::IssuerCertificate, format!("issuer {epoch} is activated {what}")));
        };
        if before.certificate != Digest::of(&activation.certificate.0) {
            fault("with another certificate than was published");
        }
        match before.phase {
            // After retirement a rotation was rolled back: the one before signs again.
            IssuerPhase::Prepared | IssuerPhase::Retired => before.phase = IssuerPhase::Active,
            IssuerPhase::Active => fault("a second time"),
            IssuerPhase::Withdrawn => fault("and was withdrawn"),
        }
    }

    fn insert_issuer(
        &mut self,
        index: u64,
        recorded: &IssuerActivation,
        phase: IssuerPhase,
        report: &mut impl FnMut(Finding),
    ) {
        let (issuer, finding) = Issuer::read(recorded.epoch, &recorded.certificate.0, &self.roots);
        finding.into_iter().for_each(report);
        let certificate = Digest::of(&recorded.certificate.0);
        let record = IssuerRecord { issuer: issuer.map(Arc::new), certificate, phase };
        self.published.push((index, recorded.epoch));
        self.issuers.insert(recorded.epoch, record);
    }

    fn follow_issuance(
        &mut self,
        index: u64,
        issuance: &Issuance,
        report: &mut impl FnMut(Finding),
    ) -> (Option<Arc<Issuer>>, Option<Arc<RecordedProfile>>) {
        let serial = issuance.serial;
        let mut report = |check, detail: String| report(Finding::new(check, detail).of(serial));
        let record = self.issuers.get(&serial.epoch());
        let fault = match record.map(|record| record.phase) {
            Some(IssuerPhase::Active) => None,
            Some(IssuerPhase::Retired | IssuerPhase::Withdrawn) => Some("was retired"),
            Some(IssuerPhase::Prepared) => Some("was published and not yet activated"),
            None => Some("was never activated"),
        };
        if let Some(fault) = fault {
            report(Check::IssuerInactive, format!("issuer {} {fault}", serial.epoch()));
        }
        let issuer = record.and_then(|record| record.issuer.clone());
        let profile = self.profiles.get(&issuance.profile_hash).cloned();
        match &profile {
            None => {
                let (name, hash) = (&issuance.profile, issuance.profile_hash);
                report(
                    Check::ProfileUnknown,
                    format!("profile {name:?} with hash {hash} was not in force before"),
                );
            }
            Some(profile) if profile.name != issuance.profile => {
                let (stated, named) = (&issuance.profile, &profile.name);
                report(
                    Check::ProfileUnknown,
                    format!("the hash is that of profile {named:?}, not of {stated:?}"),
                );
            }
            Some(_) => {}
        }
        self.check_identity(issuance, &mut report);
        self.check_lineage(issuance, &mut report);
        if issuance.evidence == EvidenceKind::JoinToken {
            self.tokens.buy(index, issuance, &mut |finding| report(finding.check, finding.detail));
        }
        self.issued.push(Issued { serial, lineage: issuance.lineage, index, not_after: issuance.not_after });
        (issuer, profile)
    }

    fn check_identity(&self, issuance: &Issuance, report: &mut impl FnMut(Check, String)) {
        let identity = &issuance.identity;
        if let Some(genesis) = &self.genesis
            && genesis.trust_domain.trust_domain_name() != identity.trust_domain_name()
        {
            report(Check::TbsMismatch, format!("field identity: {identity} is of another trust domain"));
        }
        match self.identities.get(identity) {
            Some(IdentityState::Active) => {}
            Some(IdentityState::Held) => report(Check::IdentityInactive, format!("{identity} was held")),
            Some(IdentityState::Retired) => {
                report(Check::IdentityInactive, format!("{identity} was retired"))
            }
            None => report(Check::IdentityUnknown, format!("{identity} was not registered")),
        }
    }

    fn check_lineage(&mut self, issuance: &Issuance, report: &mut impl FnMut(Check, String)) {
        let (id, generation) = (issuance.lineage, issuance.generation);
        let identity = tag(&issuance.identity);
        let Some(lineage) = self.lineages.get_mut(&id) else {
            if generation.0 != 0 {
                let detail = format!("lineage {id} begins with generation {generation}");
                report(Check::LineageGeneration, detail);
            }
            self.lineages.insert(id, Lineage { generation, identity, is_held: false });
            return;
        };
        let expected = lineage.generation.next();
        if generation != expected {
            let detail = format!("lineage {id} has generation {generation} where {expected} comes next");
            report(Check::LineageGeneration, detail);
        }
        if lineage.is_held {
            report(Check::LineageState, format!("lineage {id} was renewed while it was held"));
        }
        if lineage.identity != identity {
            let detail = format!("lineage {id} went over to {}", issuance.identity);
            report(Check::LineageState, detail);
        }
        lineage.generation = lineage.generation.max(generation);
    }

    fn follow_revocation(
        &mut self,
        index: u64,
        time: Timestamp,
        serial: SerialNumber,
        reason: RevocationReason,
        report: &mut impl FnMut(Finding),
    ) {
        match self.revoked.get_mut(&serial) {
            None => {
                self.revoked.insert(serial, Revoked { index, since: time, reason, changed: time });
            }
            // A revocation is for good; only its reason may become graver.
            Some(revoked) if reason == RevocationReason::KeyCompromise && revoked.reason != reason => {
                revoked.reason = reason;
                revoked.changed = time;
            }
            Some(revoked) => {
                let detail = format!("revoked for {reason}, and was revoked for {} before", revoked.reason);
                report(Finding::new(Check::Revocation, detail).of(serial));
            }
        }
    }

    /// Remembers a hold or release; what it means for certificates is replayed at the end.
    fn follow_hold(&mut self, placed: &Placed<'_>, target: &HoldTarget, begins: bool) {
        if let HoldTarget::Lineage(id) = target
            && let Some(lineage) = self.lineages.get_mut(id)
        {
            lineage.is_held = begins;
        }
        let (index, time, target) = (placed.index, placed.entry.time, target.clone());
        self.holds.push(HoldEvent { index, time, target, begins });
    }

    fn follow_division(&mut self, division: &CrlDivision) {
        let divisions = self.divisions.entry(division.epoch).or_default();
        let (shards, base) = (division.shards, division.base.clone());
        Arc::make_mut(divisions).push(Division { shards, base });
    }

    fn follow_list(&mut self, scope: Scope, list: RecordedList, report: &mut impl FnMut(Finding)) {
        let (epoch, shard) = scope;
        if !self.issuers.contains_key(&epoch) {
            let detail = format!("a revocation list of issuer {epoch}, which was never published");
            report(Finding::new(Check::CrlRecord, detail));
        }
        let is_divided = shard.is_none_or(|shard| {
            let divisions = self.divisions.get(&epoch);
            divisions.is_some_and(|all| all.iter().any(|division| division.shards == shard.of()))
        });
        if !is_divided {
            let detail =
                format!("issuer {epoch}: a list of a part among which its certificates are not divided");
            report(Finding::new(Check::CrlRecord, detail));
        }
        let lists = self.lists.entry(scope).or_default();
        if let Some(last) = lists.last().filter(|last| last.number >= list.number) {
            let detail = format!("issuer {epoch}: list {} follows list {}", list.number, last.number);
            report(Finding::new(Check::CrlRecord, detail));
        }
        lists.push(list);
    }

    /// Versions of the exact set name the one before them, go forward, and say nothing about entries to come.
    fn follow_set(&mut self, index: u64, set: &StatusSetPublished, report: &mut impl FnMut(Finding)) {
        self.sets.push((index, set.clone()));
        let mut report = |detail: String| report(Finding::new(Check::StatusSetRecord, detail));
        let sequence = set.sequence;
        if sequence > index {
            report(format!("set {sequence} claims to know entries that come after its own"));
        }
        let last = self.last_set.replace((sequence, set.hash));
        if let Some((last, _)) = last.filter(|(last, _)| *last >= sequence) {
            report(format!("set {sequence} follows set {last}"));
        }
        if last.map(|(_, hash)| hash) != set.previous {
            let text = |hash: Option<Digest>| hash.map_or("none".to_owned(), |hash| hash.to_string());
            let (named, before) = (text(set.previous), text(last.map(|(_, hash)| hash)));
            report(format!("set {sequence} names {named} as the one before it, which was {before}"));
        }
    }
}

pub(super) fn tag(identity: &SpiffeId) -> IdentityTag {
    let digest = Digest::of(identity.as_str().as_bytes());
    let [tag @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *digest.as_bytes();
    tag
}

/// How far the clocks of proposers may be apart before the order of entries looks odd: five minutes.
const CLOCK_TOLERANCE_MS: i64 = 5 * 60 * 1000;
