//! From claims to the identities whose selectors they could fulfil, without looking at all identities.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chancery_entry::Body;
use chancery_ledger::{IdentityQuery, Ledger, ModelError, News, PageRequest};
use chancery_types::{Claims, Identity, SpiffeId};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

/// Identities by one selector each: name and text.
type BySelector = HashMap<(String, String), Vec<SpiffeId>>;

/// An index over registered identities, made when it is first asked for and again after a registration.
#[derive(Debug)]
pub(super) struct SelectorIndex {
    revision: AtomicU64,
    made: Mutex<Option<(u64, Arc<BySelector>)>>,
    /// What other processes on the same ledger record; this one says itself what it does.
    news: Option<Mutex<Receiver<News>>>,
}

impl SelectorIndex {
    pub(super) fn new(ledger: &dyn Ledger) -> Self {
        let news = ledger.scratch().map(|_| Mutex::new(ledger.news()));
        Self { revision: AtomicU64::default(), made: Mutex::default(), news }
    }

    /// Takes note of what was heard. Something that is not heard yet is only missed: whether the selectors of what
    /// is found hold is checked on the record itself.
    fn hear(&self) {
        let Some(news) = &self.news else { return };
        let mut news = news.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match news.try_recv() {
                Ok(news) if concerns(&news.entry.body) => self.outdate(),
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => self.outdate(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// To be called after an identity was registered or changed.
    pub(super) fn outdate(&self) {
        self.revision.fetch_add(1, Ordering::SeqCst);
    }

    /// Identities of which at least one selector holds: the only ones that can match.
    pub(super) async fn candidates(
        &self,
        ledger: &dyn Ledger,
        claims: &Claims,
    ) -> Result<BTreeSet<SpiffeId>, ModelError> {
        let index = self.current(ledger).await?;
        let mut candidates = BTreeSet::new();
        for (name, value) in claims.iter() {
            for text in value.texts() {
                candidates.extend(index.get(&(name.to_owned(), text)).into_iter().flatten().cloned());
            }
        }
        Ok(candidates)
    }

    async fn current(&self, ledger: &dyn Ledger) -> Result<Arc<BySelector>, ModelError> {
        self.hear();
        // Read before the identities are: what is registered meanwhile outdates this one.
        let revision = self.revision.load(Ordering::SeqCst);
        if let Some((made, index)) = self.made.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
            && *made == revision
        {
            return Ok(Arc::clone(index));
        }
        let query = IdentityQuery { with_selectors: true, ..IdentityQuery::default() };
        let identities = ledger.identities(&query, &PageRequest::first(usize::MAX)).await?;
        let mut index = BySelector::new();
        for record in identities.items {
            // One selector of each set finds it; whether all hold is checked on the record itself.
            let identity = record.identity;
            let sets = std::iter::once(&identity.selectors).chain(&identity.alternatives);
            for (name, text) in sets.filter_map(|set| set.iter().next()) {
                let selector = (name.to_owned(), text.to_owned());
                index.entry(selector).or_default().push(identity.spiffe_id.clone());
            }
        }
        let index = Arc::new(index);
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some((revision, Arc::clone(&index)));
        Ok(index)
    }
}

/// Whether an entry may change which identity a selector finds. Those that templates make have none.
fn concerns(body: &Body) -> bool {
    match body {
        Body::IdentityRegistered(one) | Body::IdentityChanged(one) => {
            let identity: Result<Identity, _> = serde_json::from_str(&one.document.0);
            identity
                .is_ok_and(|identity| !(identity.selectors.is_empty() && identity.alternatives.is_empty()))
        }
        _ => false,
    }
}
