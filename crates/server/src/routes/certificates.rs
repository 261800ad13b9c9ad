//! Certificates as operators search them, and the decisions behind them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use chancery_api::{
    CertificateDetail, CertificateQuery, CertificateStatus, CertificateView, Cursor, DecisionView, Outcome,
    Page, ProblemCode, Reduction, RevocationView,
};
use chancery_entry::{Body, Entry, Issuance};
use chancery_ledger::{self as ledger, CertificateRecord, CertificateState, StateFilter};
use chancery_policy::DecisionReceipt;
use chancery_types::{RevocationReason, SerialNumber, SpiffeId, Timestamp};
use chancery_x509::{PublicKey, TbsView, write_pem};

use super::enrolment::chain_pem;
use super::identities::page_request;
use super::problem_of;
use crate::site::Site;
use crate::{HttpProblem, Json, Path, Query};

pub(super) async fn list(
    State(site): State<Arc<Site>>,
    Query(query): Query<CertificateQuery>,
) -> Result<Json<Page<CertificateView>>, HttpProblem> {
    let mut viewer = Viewer::new(&site);
    if let Some(serial) = query.serial {
        let record = site.authority.ledger().certificate(serial).await.map_err(problem_of)?;
        let mut items = Vec::new();
        if let Some(record) = record {
            items.push(viewer.view(record).await?);
        }
        return Ok(Json(Page { items, next: None }));
    }
    let now = site.authority.clock().now();
    let request = page_request(&query.page())?;
    let mut wanted = ledger::CertificateQuery {
        identity: query.identity,
        lineage: query.lineage,
        key: query.key,
        owner: query.owner,
        state: None,
        expires_before: query.expires_before,
        expires_after: query.expires_after,
        may_lag: true,
        ..ledger::CertificateQuery::default()
    };
    match query.status {
        None => {}
        Some(CertificateStatus::Held) => wanted.state = Some(StateFilter::Held),
        Some(CertificateStatus::Revoked) => wanted.state = Some(StateFilter::Revoked),
        Some(CertificateStatus::Good) => {
            wanted.state = Some(StateFilter::Good);
            wanted.expires_after = Some(wanted.expires_after.map_or(now, |after| after.max(now)));
        }
        Some(CertificateStatus::Expired) => {
            wanted.state = Some(StateFilter::Good);
            wanted.expires_before = Some(wanted.expires_before.map_or(now, |before| before.min(now)));
        }
    }
    let page = site.authority.ledger().certificates(&wanted, &request).await.map_err(problem_of)?;
    let mut items = Vec::with_capacity(page.items.len());
    for record in page.items {
        items.push(viewer.view(record).await?);
    }
    Ok(Json(Page { items, next: page.next.map(|key| Cursor(key).to_text()) }))
}

pub(super) async fn read(
    State(site): State<Arc<Site>>,
    Path(serial): Path<SerialNumber>,
) -> Result<Json<CertificateDetail>, HttpProblem> {
    let record = record(&site, serial).await?;
    let issued = site.authority.workflow().retrieve(&record).await.map_err(problem_of)?;
    let certificate = Viewer::new(&site).view(record).await?;
    Ok(Json(CertificateDetail {
        certificate,
        pem: Some(write_pem("CERTIFICATE", issued.der())),
        chain: chain_pem(&site, issued.issuer_der()),
    }))
}

pub(super) async fn why(
    State(site): State<Arc<Site>>,
    Path(serial): Path<SerialNumber>,
) -> Result<Json<DecisionView>, HttpProblem> {
    let record = record(&site, serial).await?;
    let (at, issuance) = issuance(&site, record.index).await?;
    let receipt: DecisionReceipt =
        serde_json::from_str(&issuance.decision.0).map_err(HttpProblem::internal)?;
    Ok(Json(DecisionView {
        serial,
        log_index: record.index,
        at,
        outcome: outcome(receipt.outcome),
        determining: receipt.policies,
        policy_version: receipt.policy_hash,
        reduced: receipt.granted.map(|grant| reductions(grant.reductions)).unwrap_or_default(),
        inputs: serde_json::to_value(&receipt.inputs).map_err(HttpProblem::internal)?,
    }))
}

pub(super) fn outcome(outcome: chancery_policy::Outcome) -> Outcome {
    match outcome {
        chancery_policy::Outcome::Grant => Outcome::Grant,
        chancery_policy::Outcome::Reduce => Outcome::Reduce,
        chancery_policy::Outcome::Deny => Outcome::Deny,
    }
}

pub(super) fn reductions(reductions: Vec<chancery_policy::Reduction>) -> Vec<Reduction> {
    let view = |reduction: chancery_policy::Reduction| Reduction {
        what: reduction.what,
        asked: reduction.asked,
        granted: reduction.granted,
        because: reduction.because,
    };
    reductions.into_iter().map(view).collect()
}

/// What a certificate is worth at this moment.
pub(super) fn standing(
    record: &CertificateRecord,
    now: Timestamp,
) -> (CertificateStatus, Option<RevocationView>) {
    match record.state {
        CertificateState::Revoked { at, reason } => {
            (CertificateStatus::Revoked, Some(RevocationView { at, reason }))
        }
        CertificateState::Held { since } => {
            let reason = RevocationReason::CertificateHold;
            (CertificateStatus::Held, Some(RevocationView { at: since, reason }))
        }
        CertificateState::Good if record.not_after < now => (CertificateStatus::Expired, None),
        CertificateState::Good => (CertificateStatus::Good, None),
    }
}

pub(super) async fn record(site: &Site, serial: SerialNumber) -> Result<CertificateRecord, HttpProblem> {
    let record = site.authority.ledger().certificate(serial).await.map_err(problem_of)?;
    record.ok_or_else(|| {
        HttpProblem::new(ProblemCode::NotFound, format!("no certificate {serial} was issued here"))
    })
}

async fn issuance(site: &Site, index: u64) -> Result<(Timestamp, Box<Issuance>), HttpProblem> {
    let bytes = site.authority.ledger().entry(index).await.map_err(problem_of)?;
    match bytes.and_then(|bytes| Entry::decode(&bytes).ok()) {
        Some(Entry { time, body: Body::Issuance(issuance) }) => Ok((time, issuance)),
        _ => Err(HttpProblem::internal(format!("entry {index} is not an issuance"))),
    }
}

/// Shows records; remembers owners over a page.
struct Viewer<'a> {
    site: &'a Site,
    now: Timestamp,
    owners: HashMap<SpiffeId, String>,
}

impl<'a> Viewer<'a> {
    fn new(site: &'a Site) -> Self {
        Self { site, now: site.authority.clock().now(), owners: HashMap::new() }
    }

    async fn view(&mut self, record: CertificateRecord) -> Result<CertificateView, HttpProblem> {
        let (issued, issuance) = issuance(self.site, record.index).await?;
        let tbs = TbsView::from_der(&issuance.tbs.0).map_err(HttpProblem::internal)?;
        let key = PublicKey::from_spki_der(tbs.spki_der()).map_err(HttpProblem::internal)?;
        let (status, revocation) = standing(&record, self.now);
        Ok(CertificateView {
            serial: record.serial,
            names: tbs.subject_names(),
            owner: self.owner(&record.identity).await?,
            spiffe_id: record.identity,
            profile: record.profile,
            issuer: record.serial.epoch(),
            key_algorithm: key.algorithm(),
            key_fingerprint: record.key,
            not_before: record.not_before,
            not_after: record.not_after,
            issued,
            lineage: record.lineage,
            generation: record.generation,
            evidence: record.evidence,
            assurance: record.assurance,
            status,
            revocation,
            log_index: record.index,
            tidied: record.is_tidied,
        })
    }

    async fn owner(&mut self, id: &SpiffeId) -> Result<String, HttpProblem> {
        if let Some(owner) = self.owners.get(id) {
            return Ok(owner.clone());
        }
        let record = self.site.authority.ledger().identity(id).await.map_err(problem_of)?;
        let owner = record.map(|record| record.identity.owner).unwrap_or_default();
        self.owners.insert(id.clone(), owner.clone());
        Ok(owner)
    }
}
