//! What each entry changes in the read model.

use chancery_entry::{
    Body, Document, Entry, HoldTarget, IdentityRegistration, Issuance, IssuerActivation, TaintStep,
    TokenBinding,
};
use chancery_types::{
    Identity, IdentityState, IssuerEpoch, LineageId, RevocationReason, SerialNumber, SpiffeId, Timestamp,
};

use super::record::{
    CertificateRecord, CertificateState, CrlRecord, IdentityRecord, IssuerRecord, IssuerState,
    IssuerTaintRecord, LineageHead, RevokedCertificate, StatusSetRecord, TemplateRecord, TokenRecord,
    TokenState, last_entry, to_json,
};
use super::{Changes, ModelError, Table, View, Write, change as changes, query, search, taken, tidy};

/// The changes that the entry at `index` makes, in no particular order; each key at most once.
///
/// Entries are applied as they were accepted: what they require was checked then, and is not checked again.
/// What is final stays so whatever an entry says: a revoked certificate, a retired identity, a spent token.
pub(crate) fn apply(index: u64, entry: &Entry, view: &dyn View) -> Result<Changes, ModelError> {
    match &entry.body {
        Body::Issuance(issuance) => issue(index, entry.time, issuance, view),
        other => change(index, entry.time, other, view).map(Changes::from),
    }
}

/// Whether an entry may change how something stands that was recorded before it: see
/// [`Ledger::standing_epoch`](crate::Ledger::standing_epoch).
pub(crate) fn changes_standing(body: &Body) -> bool {
    match body {
        Body::Revocation(_)
        | Body::Hold(_)
        | Body::Release(_)
        | Body::IdentityChanged(_)
        | Body::IdentityHeld(_)
        | Body::IdentityReleased(_)
        | Body::IdentityRetired(_) => true,
        Body::Null
        | Body::Genesis(_)
        | Body::Issuance(_)
        | Body::Tidied(_)
        | Body::Refusal(_)
        | Body::CrlPublished(_)
        | Body::CrlDivided(_)
        | Body::CrlShardPublished(_)
        | Body::StatusSetPublished(_)
        | Body::IdentityRegistered(_)
        | Body::TemplateRegistered(_)
        | Body::TemplateRemoved(_)
        | Body::TokenCreated(_)
        | Body::TokenSpent(_)
        | Body::TokenRevoked(_)
        | Body::IssuerActivated(_)
        | Body::IssuerRetired(_)
        | Body::IssuerPrepared(_)
        | Body::IssuerTainted(_)
        | Body::IssuerWithdrawn(_)
        | Body::KeyChanged(_)
        | Body::RotationWished(_)
        | Body::PolicyChanged(_)
        | Body::ProfileChanged(_)
        | Body::OperatorAction(_)
        | Body::ChangeProposed(_)
        | Body::ChangeStepped(_)
        | Body::Ceremony(_) => false,
    }
}

/// The changes of everything but issuances, which alone are searched for.
fn change(index: u64, time: Timestamp, body: &Body, view: &dyn View) -> Result<Vec<Write>, ModelError> {
    match body {
        Body::Null
        | Body::Issuance(_)
        | Body::Genesis(_)
        | Body::Refusal(_)
        | Body::OperatorAction(_)
        | Body::Ceremony(_) => Ok(Vec::new()),
        Body::Tidied(tidied) => tidy::tidy(time, tidied, view),
        Body::Revocation(revocation) => {
            let state = CertificateState::Revoked { at: time, reason: revocation.reason };
            let taken = taken_by(&revocation.by, time, &[revocation.serial], view)?;
            let mut writes = change_certificate(revocation.serial, state, view)?;
            if let Some(change) = changes::change_number(&revocation.by).filter(|_| !writes.is_empty()) {
                writes.push(changes::counts(change, view)?);
            }
            writes.extend(taken);
            Ok(writes)
        }
        Body::Hold(hold) => match hold.target {
            HoldTarget::Certificate(serial) => {
                let taken = taken_by(&hold.by, time, &[serial], view)?;
                let mut writes = change_certificate(serial, CertificateState::Held { since: time }, view)?;
                if let Some(change) = changes::change_number(&hold.by).filter(|_| !writes.is_empty()) {
                    writes.push(changes::holds(change, serial, time));
                    writes.push(changes::counts(change, view)?);
                }
                writes.extend(taken);
                Ok(writes)
            }
            HoldTarget::Lineage(lineage) => {
                let head = query::lineage_head(view, lineage)?;
                let living = head.map(|head| query::living(view, lineage, &head)).transpose()?;
                let taken = taken_by(&hold.by, time, &living.unwrap_or_default(), view)?;
                let mut writes = change_lineage(lineage, Some(time), view)?;
                writes.extend(taken);
                Ok(writes)
            }
        },
        Body::Release(release) => match release.target {
            HoldTarget::Certificate(serial) => change_certificate(serial, CertificateState::Good, view),
            HoldTarget::Lineage(lineage) => change_lineage(lineage, None, view),
        },
        Body::CrlPublished(list) => Ok(vec![(
            query::crl_key(list.epoch, None),
            Some(to_json(&CrlRecord {
                number: list.number,
                this_update: list.this_update,
                next_update: list.next_update,
                entries: list.entries,
                hash: list.hash,
                index,
            })),
        )]),
        Body::CrlShardPublished(list) => Ok(vec![(
            query::crl_key(list.epoch, Some(list.shard)),
            Some(to_json(&CrlRecord {
                number: list.number,
                this_update: list.this_update,
                next_update: list.next_update,
                entries: list.entries,
                hash: list.hash,
                index,
            })),
        )]),
        Body::CrlDivided(division) => {
            let shards = division.shards.to_be_bytes();
            let key = [&division.epoch.0.to_be_bytes()[..], &shards, division.base.as_bytes()];
            Ok(vec![(Table::CrlDivision.key(&key), Some(index.to_be_bytes().to_vec()))])
        }
        Body::StatusSetPublished(set) => Ok(vec![(
            Table::StatusSet.key(&[]),
            Some(to_json(&StatusSetRecord {
                sequence: set.sequence,
                made: set.made,
                entries: set.entries,
                hash: set.hash,
            })),
        )]),
        Body::IdentityRegistered(registration) | Body::IdentityChanged(registration) => {
            register_identity(index, time, registration, view)
        }
        Body::IdentityHeld(change) => {
            change_identity(&change.identity, IdentityState::Held, time, &change.by, view)
        }
        Body::IdentityReleased(change) => {
            change_identity(&change.identity, IdentityState::Active, time, &change.by, view)
        }
        Body::IdentityRetired(change) => {
            change_identity(&change.identity, IdentityState::Retired, time, &change.by, view)
        }
        Body::TemplateRegistered(template) => Ok(vec![(
            Table::Template.key(&[template.name.as_bytes()]),
            Some(to_json(&TemplateRecord {
                name: template.name.clone(),
                document: json(&template.document),
                index,
            })),
        )]),
        Body::TemplateRemoved(removal) => Ok(vec![(Table::Template.key(&[removal.name.as_bytes()]), None)]),
        Body::TokenCreated(created) => {
            let (identity, template) = match &created.binding {
                TokenBinding::Identity(identity) => (Some(identity.clone()), None),
                TokenBinding::Template { name, parameters } => (None, Some((name.clone(), json(parameters)))),
            };
            let record = TokenRecord {
                token: created.token,
                secret_hash: created.secret_hash,
                identity,
                template,
                key: created.key,
                created: time,
                created_by: created.by.clone(),
                expires: created.expires,
                state: TokenState::Open,
            };
            if query::token_bytes(view, created.token)?.is_some() {
                return Ok(Vec::new());
            }
            Ok(vec![(Table::Token.key(&[created.token.as_bytes()]), Some(record.to_bytes()))])
        }
        Body::TokenSpent(spend) => {
            change_token(spend.token, TokenState::Spent { serial: spend.serial }, view)
        }
        Body::TokenRevoked(revocation) => change_token(revocation.token, TokenState::Revoked, view),
        Body::IssuerPrepared(issuer) => introduce(issuer, IssuerState::Prepared, (index, time), view),
        Body::IssuerActivated(issuer) => introduce(issuer, IssuerState::Active, (index, time), view),
        Body::IssuerRetired(issuer) => change_issuer(issuer.epoch, view, |record| {
            (record.state, record.index, record.since) = (IssuerState::Retired, index, time);
        }),
        Body::IssuerWithdrawn(issuer) => change_issuer(issuer.epoch, view, |record| {
            (record.state, record.index, record.since) = (IssuerState::Withdrawn, index, time);
        }),
        Body::IssuerTainted(taint) => change_issuer(taint.epoch, view, |record| {
            record.index = index;
            let before =
                record.taint.get_or_insert(IssuerTaintRecord { at: time, until: None, is_distrusted: false });
            match taint.step {
                TaintStep::Marked => {}
                TaintStep::Renewing => before.until = Some(taint.until),
                TaintStep::Distrusted => before.is_distrusted = true,
            }
        }),
        Body::KeyChanged(key) => {
            let place = Table::Key.key(&[&[key.purpose as u8], key.key.as_bytes()]);
            Ok(vec![(place, last_entry(index, time, body))])
        }
        Body::RotationWished(wish) => {
            Ok(vec![(Table::Wish.key(&[wish.subject.as_bytes()]), last_entry(index, time, body))])
        }
        Body::ChangeProposed(proposal) => Ok(changes::propose(index, time, proposal)),
        Body::ChangeStepped(step) => changes::step(time, step, view),
        Body::PolicyChanged(change) => Ok(vec![(
            Table::Policy.key(&[change.policy_hash.as_bytes(), change.name.as_bytes()]),
            Some(index.to_be_bytes().to_vec()),
        )]),
        Body::ProfileChanged(change) => Ok(vec![(
            Table::Profile.key(&[change.profile_hash.as_bytes()]),
            Some(index.to_be_bytes().to_vec()),
        )]),
    }
}

fn introduce(
    issuer: &IssuerActivation,
    state: IssuerState,
    (index, since): (u64, Timestamp),
    view: &dyn View,
) -> Result<Vec<Write>, ModelError> {
    let taint = query::issuer(view, issuer.epoch)?.and_then(|before| before.taint);
    let (epoch, certificate) = (issuer.epoch, issuer.certificate.0.clone());
    let record = IssuerRecord { epoch, certificate, state, index, since, taint };
    Ok(vec![(Table::Issuer.key(&[&epoch.0.to_be_bytes()]), Some(record.to_bytes()))])
}

fn change_issuer(
    epoch: IssuerEpoch,
    view: &dyn View,
    change: impl FnOnce(&mut IssuerRecord),
) -> Result<Vec<Write>, ModelError> {
    let Some(mut record) = query::issuer(view, epoch)? else { return Ok(Vec::new()) };
    change(&mut record);
    Ok(vec![(Table::Issuer.key(&[&epoch.0.to_be_bytes()]), Some(record.to_bytes()))])
}

/// How many of a lineage's oldest certificates a renewal looks at, to forget the expired ones: more than the
/// one that it adds, so that the list does not grow while certificates expire.
const PRUNED: usize = 4;

fn issue(index: u64, time: Timestamp, issuance: &Issuance, view: &dyn View) -> Result<Changes, ModelError> {
    let serial = issuance.serial;
    let record = CertificateRecord::of(index, issuance);
    let before = if issuance.generation.0 == 0 { None } else { query::lineage_head(view, issuance.lineage)? };
    let head = LineageHead {
        generation: issuance.generation,
        enrolled_by: before.map_or(issuance.evidence, |before| before.enrolled_by),
        enrolled_with: before.map_or(issuance.assurance, |before| before.enrolled_with),
        enrolled_at: before.map_or(time, |before| before.enrolled_at),
        held_since: before.and_then(|before| before.held_since),
        issued: time,
        latest: serial,
        latest_not_after: issuance.not_after,
    };
    let mut writes = Vec::with_capacity(4);
    writes.push((Table::Certificate.key(&[serial.as_bytes()]), Some(record.to_bytes())));
    writes.push((Table::Lineage.key(&[issuance.lineage.as_bytes()]), Some(head.to_bytes())));
    if let Some(before) = before {
        for (key, not_after) in query::earlier(view, issuance.lineage, PRUNED)? {
            if not_after <= time {
                writes.push((key, None));
            }
        }
        let key = Table::Lineage.key(&[issuance.lineage.as_bytes(), before.latest.as_bytes()]);
        writes.push((key, Some(before.latest_not_after.millis().to_be_bytes().to_vec())));
    }
    if let Some(hash) = issuance.idempotency {
        writes.push((Table::Idempotency.key(&[hash.as_bytes()]), Some(serial.as_bytes().to_vec())));
    }
    Ok(Changes { pairs: writes, search: search::keys(&record) })
}

/// The writes that bring a certificate into this state. A revoked one stays revoked.
fn change_certificate(
    serial: SerialNumber,
    state: CertificateState,
    view: &dyn View,
) -> Result<Vec<Write>, ModelError> {
    let Some(mut record) = query::certificate(view, serial)? else { return Ok(Vec::new()) };
    let was_revoked = match record.state {
        CertificateState::Revoked { at, .. } => Some(at),
        _ => None,
    };
    let line = match (state, was_revoked) {
        (CertificateState::Revoked { reason, .. }, Some(at)) => {
            // Only the reason moves: the certificate has been revoked since it first was.
            record.state = CertificateState::Revoked { at, reason };
            Some((reason, at))
        }
        (_, Some(_)) => return Ok(Vec::new()),
        (CertificateState::Revoked { at, reason }, None) => {
            record.state = state;
            Some((reason, at))
        }
        (CertificateState::Held { since }, None) => {
            record.state = state;
            Some((RevocationReason::CertificateHold, since))
        }
        (CertificateState::Good, None) => {
            record.state = state;
            None
        }
    };
    let line = line.map(|(reason, at)| {
        RevokedCertificate { serial, reason, at, not_after: record.not_after }.to_bytes()
    });
    Ok(vec![
        (Table::Certificate.key(&[serial.as_bytes()]), Some(record.to_bytes())),
        (Table::Revoked.key(&[serial.as_bytes()]), line),
    ])
}

/// Counts for this hand those of these certificates that are in force until now.
fn taken_by(
    by: &str,
    time: Timestamp,
    serials: &[SerialNumber],
    view: &dyn View,
) -> Result<Option<Write>, ModelError> {
    if !taken::is_counted(by) {
        return Ok(None);
    }
    let mut parts = Vec::new();
    for serial in serials {
        let Some(record) = query::certificate(view, *serial)? else { continue };
        if record.state == CertificateState::Good {
            let identity = query::identity(view, &record.identity)?;
            parts.push((identity.map(|found| found.identity.environment).unwrap_or_default(), 1));
        }
    }
    if parts.is_empty() { Ok(None) } else { taken::count(by, time, parts, view).map(Some) }
}

/// Holds or releases a lineage with all its living certificates.
///
/// A certificate that was held before the lineage was stays held after its release: which ones the lineage
/// held is known by the time.
fn change_lineage(
    lineage: LineageId,
    held_since: Option<Timestamp>,
    view: &dyn View,
) -> Result<Vec<Write>, ModelError> {
    let Some(head) = query::lineage_head(view, lineage)? else { return Ok(Vec::new()) };
    let mut writes = Vec::new();
    for serial in query::living(view, lineage, &head)? {
        let Some(record) = query::certificate(view, serial)? else { continue };
        match (record.state, held_since, head.held_since) {
            (CertificateState::Good, Some(since), _) => {
                writes.extend(change_certificate(serial, CertificateState::Held { since }, view)?);
            }
            (CertificateState::Held { since }, None, Some(lineage_since)) if since == lineage_since => {
                writes.extend(change_certificate(serial, CertificateState::Good, view)?);
            }
            _ => {}
        }
    }
    let head = LineageHead { held_since, ..head };
    writes.push((Table::Lineage.key(&[lineage.as_bytes()]), Some(head.to_bytes())));
    Ok(writes)
}

fn register_identity(
    index: u64,
    time: Timestamp,
    registration: &IdentityRegistration,
    view: &dyn View,
) -> Result<Vec<Write>, ModelError> {
    let identity: Identity = serde_json::from_str(&registration.document.0)
        .map_err(|_| ModelError::Malformed { table: "identity" })?;
    let before = query::identity(view, &registration.identity)?;
    let record = IdentityRecord {
        identity,
        state: before.as_ref().map_or(IdentityState::Active, |before| before.state),
        index,
        registered: before.map_or(time, |before| before.registered),
        changed: time,
        changed_by: registration.by.clone(),
    };
    Ok(vec![(identity_key(&registration.identity), Some(record.to_bytes()))])
}

fn change_identity(
    id: &SpiffeId,
    state: IdentityState,
    time: Timestamp,
    by: &str,
    view: &dyn View,
) -> Result<Vec<Write>, ModelError> {
    let Some(mut record) = query::identity(view, id)? else { return Ok(Vec::new()) };
    if record.state == IdentityState::Retired {
        return Ok(Vec::new());
    }
    record.state = state;
    record.changed = time;
    by.clone_into(&mut record.changed_by);
    Ok(vec![(identity_key(id), Some(record.to_bytes()))])
}

fn identity_key(id: &SpiffeId) -> Vec<u8> {
    Table::Identity.key(&[id.as_str().as_bytes()])
}

fn change_token(
    token: chancery_types::TokenId,
    state: TokenState,
    view: &dyn View,
) -> Result<Vec<Write>, ModelError> {
    let Some(bytes) = query::token_bytes(view, token)? else { return Ok(Vec::new()) };
    if TokenRecord::standing(&bytes)?.0 != TokenState::Open {
        return Ok(Vec::new());
    }
    Ok(vec![(Table::Token.key(&[token.as_bytes()]), Some(TokenRecord::in_state(bytes, state)?))])
}

pub(super) fn json(document: &Document) -> serde_json::Value {
    serde_json::from_str(&document.0).unwrap_or(serde_json::Value::Null)
}
