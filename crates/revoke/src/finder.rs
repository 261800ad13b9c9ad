//! Finding what a scope names, a page at a time, by the narrowest way that the read model has.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use chancery_entry::{Body, Entry};
use chancery_ledger::{CertificateQuery, CertificateRecord, IdentityQuery, Ledger, ModelError, PageRequest};
use chancery_types::{
    Claims, Generation, Identity, LineageId, Selector as ClaimSelector, SpiffeId, Timestamp,
};
use serde::Deserialize;

use crate::selection::{Scope, Selector};

/// Certificates in a page at most.
const PAGE: usize = 4096;
/// Identities that are gone through one by one; where there are more, every living certificate is looked at.
const FEW: usize = 512;
/// Pages of the identities' table that are looked at to find out whether there are few.
const LOOKS: usize = 8;
/// Identities and enrolments that are remembered during a search.
const REMEMBERED: usize = 65_536;

/// A certificate that a search found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: CertificateRecord,
    /// The document of its identity, where that was asked for and there is one.
    pub(crate) identity: Option<Arc<Identity>>,
}

/// Goes through the certificates of a scope. Those that come to be during the search may be found or not.
///
/// A wide search looks at its pages on threads for blocking work: however many certificates there are, the tasks of
/// the runtime go on.
pub(crate) struct Finder(Option<Box<Search>>);

impl Finder {
    /// What has not expired at this moment. A serial is found even when it has: its owner asked for it by name.
    pub(crate) fn new(ledger: &Arc<dyn Ledger>, scope: &Scope, now: Timestamp) -> Self {
        Self(Some(Box::new(Search {
            ledger: Arc::clone(ledger),
            scope: scope.clone(),
            now,
            ways: None,
            after: None,
            wants_identities: false,
            identities: HashMap::new(),
            enrolments: HashMap::new(),
        })))
    }

    /// Only what these queries lead to.
    pub(crate) fn along(mut self, ways: impl IntoIterator<Item = CertificateQuery>) -> Self {
        if let Some(search) = &mut self.0 {
            search.ways = Some(ways.into_iter().collect());
        }
        self
    }

    /// With the documents of identities.
    pub(crate) fn with_identities(mut self) -> Self {
        if let Some(search) = &mut self.0 {
            search.wants_identities = true;
        }
        self
    }

    /// The next page, possibly empty; nothing at the end.
    ///
    /// # Errors
    /// [`ModelError`], after which the search is over.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Found>>, ModelError> {
        let Some(mut search) = self.0.take() else { return Ok(None) };
        let (search, page) = if search.scope.is_narrow() {
            let page = search.next().await;
            (search, page)
        } else {
            let runtime = tokio::runtime::Handle::current();
            let look = move || {
                let page = runtime.block_on(search.next());
                (search, page)
            };
            let looked = tokio::task::spawn_blocking(look).await;
            looked.map_err(|_| ModelError::Engine("a search among certificates did not end".into()))?
        };
        let page = page?;
        self.0 = page.is_some().then_some(search);
        Ok(page)
    }
}

/// Where a search is.
struct Search {
    ledger: Arc<dyn Ledger>,
    scope: Scope,
    now: Timestamp,
    ways: Option<VecDeque<CertificateQuery>>,
    after: Option<Vec<u8>>,
    wants_identities: bool,
    identities: HashMap<SpiffeId, Option<Arc<Identity>>>,
    enrolments: HashMap<LineageId, Arc<Claims>>,
}

impl Search {
    async fn next(&mut self) -> Result<Option<Vec<Found>>, ModelError> {
        if self.ways.is_none() {
            if let Some(serial) = self.scope.selectors().iter().find_map(serial) {
                self.ways = Some(VecDeque::new());
                let found = self.ledger.certificate(serial).await?.into_iter().collect();
                return self.pick(found).await.map(Some);
            }
            self.ways = Some(self.plan().await?);
        }
        let Some(query) = self.ways.as_ref().and_then(VecDeque::front) else { return Ok(None) };
        let request = PageRequest { limit: PAGE, after: self.after.take() };
        let page = self.ledger.certificates(query, &request).await?;
        self.after = page.next;
        if self.after.is_none()
            && let Some(ways) = &mut self.ways
        {
            ways.pop_front();
        }
        self.pick(page.items).await.map(Some)
    }

    async fn identity(&mut self, id: &SpiffeId) -> Result<Option<Arc<Identity>>, ModelError> {
        if let Some(known) = self.identities.get(id) {
            return Ok(known.clone());
        }
        let found = self.ledger.identity(id).await?.map(|record| Arc::new(record.identity));
        if self.identities.len() >= REMEMBERED {
            self.identities.clear();
        }
        self.identities.insert(id.clone(), found.clone());
        Ok(found)
    }

    async fn plan(&self) -> Result<VecDeque<CertificateQuery>, ModelError> {
        let living = CertificateQuery { expires_after: Some(self.now), ..CertificateQuery::default() };
        let mut query = living.clone();
        let mut wanted = IdentityQuery::default();
        let mut is_by_identity = false;
        for selector in self.scope.selectors() {
            match selector.clone() {
                Selector::Identity(identity) => query.identity = Some(identity),
                Selector::Lineage(lineage) => query.lineage = Some(lineage),
                Selector::Key(key) => query.key = Some(key),
                Selector::Node(node) => query.node = Some(node),
                Selector::Issuer(epoch) => query.issuer = Some(epoch),
                Selector::Under(above) => wanted.prefix = Some(above.to_string()),
                Selector::Owner(owner) => wanted.owner = Some(owner),
                Selector::Team(team) => wanted.team = Some(team),
                Selector::Environment(environment) => wanted.environment = Some(environment),
                Selector::Serial(_) | Selector::Claim(_) => continue,
            }
            is_by_identity |= matches!(
                selector,
                Selector::Under(_) | Selector::Owner(_) | Selector::Team(_) | Selector::Environment(_)
            );
        }
        let is_narrow = query.identity.is_some()
            || query.lineage.is_some()
            || query.key.is_some()
            || query.node.is_some();
        if is_by_identity
            && !is_narrow
            && let Some(few) = self.few_identities(&wanted).await?
        {
            let of = |identity| CertificateQuery { identity: Some(identity), ..living.clone() };
            return Ok(few.into_iter().map(of).collect());
        }
        Ok(VecDeque::from([query]))
    }

    /// The identities that match, if they are few and found soon.
    async fn few_identities(&self, wanted: &IdentityQuery) -> Result<Option<Vec<SpiffeId>>, ModelError> {
        let mut few = Vec::new();
        let mut request = PageRequest::first(FEW);
        for _ in 0..LOOKS {
            let page = self.ledger.identities(wanted, &request).await?;
            few.extend(page.items.into_iter().map(|record| record.identity.spiffe_id));
            match page.next {
                Some(_) if few.len() > FEW => return Ok(None),
                Some(after) => request.after = Some(after),
                None => return Ok(Some(few)),
            }
        }
        Ok(None)
    }

    /// Those that match every selector.
    async fn pick(&mut self, found: Vec<CertificateRecord>) -> Result<Vec<Found>, ModelError> {
        let mut picked = Vec::with_capacity(found.len());
        for record in found {
            if self.scope.may_hold(&record)
                && self.is_by_identity(&record).await?
                && self.is_by_claims(&record).await?
            {
                let identity = match self.wants_identities {
                    true => self.identity(&record.identity).await?,
                    false => None,
                };
                picked.push(Found { record, identity });
            }
        }
        Ok(picked)
    }

    async fn is_by_identity(&mut self, record: &CertificateRecord) -> Result<bool, ModelError> {
        if !self.scope.asks_identities() {
            return Ok(true);
        }
        let identity = self.identity(&record.identity).await?;
        let is_asked = |identity: &Identity| {
            self.scope.selectors().iter().all(|selector| match selector {
                Selector::Owner(owner) => identity.owner == *owner,
                Selector::Team(team) => identity.team == *team,
                Selector::Environment(environment) => identity.environment == *environment,
                _ => true,
            })
        };
        Ok(identity.is_some_and(|identity| is_asked(&identity)))
    }

    async fn is_by_claims(&mut self, record: &CertificateRecord) -> Result<bool, ModelError> {
        if self.scope.claims().next().is_none() {
            return Ok(true);
        }
        let own = self.claims_at(record.index).await?;
        let first = match record.generation {
            Generation(0) => None,
            _ => self.enrolment(record).await?,
        };
        let identity = self.identity(&record.identity).await?;
        Ok(self.scope.claims().all(|claim| {
            let said =
                [Some(&own), first.as_deref()].into_iter().flatten().filter_map(|claims| says(claims, claim));
            let said: Option<bool> = said.reduce(|one, other| one || other);
            said.unwrap_or_else(|| identity.as_ref().is_some_and(|identity| asks_for(identity, claim)))
        }))
    }

    /// What was proved when the lineage of a renewed certificate began.
    async fn enrolment(&mut self, record: &CertificateRecord) -> Result<Option<Arc<Claims>>, ModelError> {
        if let Some(known) = self.enrolments.get(&record.lineage) {
            return Ok(Some(Arc::clone(known)));
        }
        let query = CertificateQuery { lineage: Some(record.lineage), ..CertificateQuery::default() };
        let mut request = PageRequest::first(1);
        loop {
            let page = self.ledger.certificates(&query, &request).await?;
            if let Some(first) = page.items.iter().find(|record| record.generation == Generation(0)) {
                let claims = Arc::new(self.claims_at(first.index).await?);
                if self.enrolments.len() >= REMEMBERED {
                    self.enrolments.clear();
                }
                self.enrolments.insert(record.lineage, Arc::clone(&claims));
                return Ok(Some(claims));
            }
            match page.next {
                Some(after) => request.after = Some(after),
                None => return Ok(None),
            }
        }
    }

    /// What the evidence of an issuance proved; the log has it, not the read model.
    async fn claims_at(&self, index: u64) -> Result<Claims, ModelError> {
        let unreadable = |why: String| ModelError::Engine(format!("entry {index}: {why}"));
        let bytes = self.ledger.entry(index).await.map_err(|error| unreadable(error.to_string()))?;
        let entry =
            Entry::decode(&bytes.unwrap_or_default()).map_err(|error| unreadable(error.to_string()))?;
        let Body::Issuance(issuance) = entry.body else { return Err(unreadable("it is no issuance".into())) };
        // What the authority vouches for itself has no evidence.
        Ok(serde_json::from_str::<Receipt>(&issuance.decision.0)
            .map_or_else(|_| Claims::new(), |receipt| receipt.inputs.evidence.claims))
    }
}

fn serial(selector: &Selector) -> Option<chancery_types::SerialNumber> {
    match selector {
        Selector::Serial(serial) => Some(*serial),
        _ => None,
    }
}

/// What evidence says of a claim; nothing when it does not speak of it.
fn says(claims: &Claims, wanted: &ClaimSelector) -> Option<bool> {
    claims.value(wanted.claim()).map(|_| wanted.holds(claims))
}

/// Whether an identity's selectors ask for this of every process, or an alternative does.
fn asks_for(identity: &Identity, wanted: &ClaimSelector) -> bool {
    let mut sets = std::iter::once(&identity.selectors).chain(&identity.alternatives);
    sets.any(|set| set.iter().any(|asked| asked == (wanted.claim(), wanted.text())))
}

/// The part of a decision's receipt that is read here.
#[derive(Deserialize)]
struct Receipt {
    inputs: Inputs,
}

#[derive(Deserialize)]
struct Inputs {
    evidence: Evidence,
}

#[derive(Deserialize)]
struct Evidence {
    claims: Claims,
}
