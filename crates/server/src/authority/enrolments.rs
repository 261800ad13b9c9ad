//! What a node proved when it enrolled, however often it has renewed since.
//!
//! A renewal repeats nothing of the first evidence, so the claims are read from the decision that the log keeps
//! beside the first certificate of the lineage. They never change, so they are kept in memory once found.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chancery_entry::{Body, Entry};
use chancery_ledger::{CertificateQuery, CertificateRecord, Ledger, PageRequest};
use chancery_policy::DecisionReceipt;
use chancery_types::{Claims, Generation, LineageId};

use super::AuthorityError;

/// Lineages that are remembered: one for each node, a few more after re-attestation.
const REMEMBERED: usize = 65_536;

/// Beginnings of lineages, as far as they were asked for.
pub(crate) struct Enrolments {
    ledger: Arc<dyn Ledger>,
    known: Mutex<HashMap<LineageId, Arc<Claims>>>,
}

impl Enrolments {
    pub(crate) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, known: Mutex::default() }
    }

    /// What was proved when this lineage began.
    pub(crate) async fn of(&self, lineage: LineageId) -> Result<Arc<Claims>, AuthorityError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&lineage).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let first = self.first(lineage).await?;
        let claims = Arc::new(self.claims(first.index).await?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(lineage, Arc::clone(&claims));
        Ok(claims)
    }

    /// The first certificate of a lineage: serials of one issuer rise, and those of the next are higher.
    async fn first(&self, lineage: LineageId) -> Result<CertificateRecord, AuthorityError> {
        let query = CertificateQuery { lineage: Some(lineage), ..CertificateQuery::default() };
        let mut request = PageRequest::first(1);
        loop {
            let page = self.ledger.certificates(&query, &request).await?;
            if let Some(first) = page.items.into_iter().find(|record| record.generation == Generation(0)) {
                return Ok(first);
            }
            let after = page.next.ok_or_else(|| AuthorityError::not_found("lineage", lineage))?;
            request.after = Some(after);
        }
    }

    async fn claims(&self, index: u64) -> Result<Claims, AuthorityError> {
        let unreadable = |why: String| AuthorityError::invalid("entry", format!("entry {index}: {why}"));
        let bytes = self.ledger.entry(index).await?.ok_or_else(|| unreadable("it is not there".into()))?;
        let entry = Entry::decode(&bytes).map_err(|error| unreadable(error.to_string()))?;
        let Body::Issuance(issuance) = entry.body else {
            return Err(unreadable("it is no issuance".into()));
        };
        let receipt = DecisionReceipt::from_json(&issuance.decision.0);
        Ok(receipt.map_err(|error| unreadable(error.to_string()))?.inputs.evidence.claims)
    }
}
