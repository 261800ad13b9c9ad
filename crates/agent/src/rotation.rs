//! Certificates of workloads: asked for when the plan says so, verified, put in place.
//!
//! What is due goes out in requests of up to a hundred, a few at a time; each gets a new key. A certificate takes
//! the place of the old one only after it was judged as a peer would judge it; whatever fails leaves the old one
//! where it is, and is tried again when the plan says so.

use std::sync::Arc;
use std::time::Duration;

use chancery_api::{AgentSvidItem, BatchResult, EnrollResponse, PublicKeyDer};
use chancery_client::ClientError;
use chancery_rotate::client::{Failed, Seed, Window};
use chancery_types::{Random, SecretBytes, SpiffeId};
use chancery_x509::{SubjectKey, SubjectKeyError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::identities::X509Svid;
use crate::link::{Authority, advised, is_final, is_refusal};
use crate::metrics::Metrics;
use crate::store::{Answer, Arrival, Ask, Origin, Store};
use crate::timing::Pace;
use crate::verify::{Expected, judge};

/// Requests under way at once: enough to keep an authority busy that is far away, too few to be a burden.
const REQUESTS: usize = 4;
/// A plan is made at least this often, for clocks that were set back.
const PLAN_AT_LEAST: Duration = Duration::from_secs(60);

/// What the rotation works with.
#[derive(Clone)]
pub(crate) struct Rotation {
    pub(crate) store: Arc<Store>,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) pace: Pace,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Rotation {
    /// Rotates for ever.
    pub(crate) async fn run(self) {
        let slots = Arc::new(Semaphore::new(REQUESTS));
        let mut requests = JoinSet::new();
        let mut planned = tokio::time::Instant::now();
        let mut next = None;
        let mut plan_now = true;
        loop {
            let now = self.pace.now();
            if plan_now || next.is_some_and(|next| next <= now) || planned.elapsed() >= PLAN_AT_LEAST {
                let work = self.store.plan(now);
                (next, planned) = (work.next, tokio::time::Instant::now());
                for batch in work.batches {
                    let (rotation, slots) = (self.clone(), Arc::clone(&slots));
                    requests.spawn(async move {
                        let _slot = slots.acquire_owned().await.expect("the semaphore is never closed");
                        rotation.fetch(batch).await;
                    });
                }
            }
            plan_now = tokio::select! {
                () = self.store.woken() => true,
                Some(done) = requests.join_next() => {
                    if let Err(error) = done {
                        tracing::error!(%error, "a request ended in an error of the agent's own");
                        self.store.forget_attempts();
                    }
                    true
                }
                () = self.pace.look_or(next) => false,
            };
        }
    }

    /// Does what is due now, waits for it, and says when to look again: one turn of the loop, for tests that move
    /// the clock by hand.
    #[cfg(test)]
    pub(crate) async fn turn(&self) -> Option<chancery_types::Timestamp> {
        let work = self.store.plan(self.pace.now());
        for batch in work.batches {
            self.fetch(batch).await;
        }
        work.next
    }

    /// Asks for one batch and puts in place what comes.
    async fn fetch(&self, batch: Vec<Ask>) {
        let ids: Vec<SpiffeId> = batch.iter().map(|ask| ask.identity.spiffe_id.clone()).collect();
        if let Some(left) = self.store.pause(self.pace.now()) {
            return self.failed(
                &ids,
                Answer::Trouble,
                "the authority has asked everybody to wait",
                Some(left),
            );
        }
        let (batch, keys) = match generate(batch).await {
            Ok(made) => made,
            Err(error) => {
                return self.failed(&ids, Answer::Trouble, &format!("no key could be made: {error}"), None);
            }
        };
        let items = batch.iter().zip(&keys).map(|(ask, key)| item(ask, key)).collect();
        match self.authority.svids(items).await {
            Ok(results) if results.len() == batch.len() => self.use_results(batch, keys, results).await,
            Ok(results) => {
                let why = format!("the authority answered {} items of {}", results.len(), batch.len());
                self.failed(&ids, Answer::Trouble, &why, None);
            }
            Err(error) => self.request_failed(&ids, &error),
        }
    }

    fn request_failed(&self, ids: &[SpiffeId], error: &ClientError) {
        let retry_after = advised(error);
        if let Some(wait) = retry_after {
            self.store.pause_until(self.pace.now() + wait);
        }
        let answer = if is_refusal(error) { Answer::Refusal } else { Answer::Trouble };
        self.failed(ids, answer, &error.to_string(), retry_after);
    }

    /// Judges and installs away from the runtime's threads: a hundred chains take milliseconds.
    async fn use_results(&self, batch: Vec<Ask>, keys: Vec<SubjectKey>, results: Vec<BatchResult>) {
        let rotation = self.clone();
        let work = move || {
            for ((ask, key), result) in batch.iter().zip(&keys).zip(results) {
                let ids = std::slice::from_ref(&ask.identity.spiffe_id);
                match result {
                    BatchResult::Issued(answer) => rotation.install(ask, key, &answer),
                    BatchResult::Refused(problem) => {
                        let retry_after = problem.retry_after.map(Duration::from_secs);
                        rotation.metrics.refused.inc();
                        let answer = if is_final(&problem) { Answer::Refusal } else { Answer::Trouble };
                        rotation.failed(ids, answer, &problem.to_string(), retry_after);
                    }
                }
            }
        };
        tokio::task::spawn_blocking(work).await.expect("judging certificates does not panic");
    }

    fn install(&self, ask: &Ask, key: &SubjectKey, answer: &EnrollResponse) {
        let identity = &ask.identity;
        let expected = Expected {
            key: key.public_key(),
            spiffe_id: Some(&identity.spiffe_id),
            dns_names: Some(&identity.dns_names),
        };
        let roots = Arc::clone(&self.store.roots().borrow());
        let fit = match judge(answer, &expected, &roots, self.pace.now()) {
            Ok(fit) => fit,
            Err(unfit) => {
                self.metrics.unfit.inc();
                tracing::error!(identity = %identity.spiffe_id, error = %unfit, "a new certificate is not used");
                let ids = std::slice::from_ref(&identity.spiffe_id);
                return self.failed(ids, Answer::Trouble, &unfit.to_string(), None);
            }
        };
        let svid = X509Svid {
            spiffe_id: fit.spiffe_id,
            serial: fit.serial,
            chain: fit.chain,
            key: SecretBytes::new(key.pkcs8_der().to_vec()),
            hint: identity.hint.clone().unwrap_or_default(),
            not_before: fit.not_before,
            not_after: fit.not_after,
            federates_with: identity.federates_with.clone(),
        };
        let (serial, until) = (svid.serial, svid.not_after);
        let window = Window { from: answer.renew_after.start, until: answer.renew_after.end };
        let origin = Origin { log_index: answer.log_index, profile: answer.profile.clone() };
        if self.store.install(identity, Arrival { svid, window, origin }) {
            self.metrics.issued.inc();
            tracing::debug!(identity = %identity.spiffe_id, %serial, %until, "a certificate is in place");
        }
    }

    fn failed(&self, ids: &[SpiffeId], answer: Answer, why: &str, retry_after: Option<Duration>) {
        self.metrics.failed.inc_by(ids.len() as u64);
        tracing::warn!(identities = ids.len(), first = ids.first().map(SpiffeId::as_str), why, "not issued");
        let mut seed = [0; 8];
        // Without randomness all who failed now come back together; they came together before.
        let _ = self.random.fill(&mut seed);
        let seed = Seed::new(u64::from_be_bytes(seed));
        // The store knows how many attempts went before.
        let failed = Failed { attempts: 1, at: self.pace.now(), retry_after, seed };
        self.store.fail(ids, failed, answer, why);
    }
}

/// A new key for each, made away from the runtime's threads.
async fn generate(batch: Vec<Ask>) -> Result<(Vec<Ask>, Vec<SubjectKey>), SubjectKeyError> {
    let work = move || {
        let keys = batch.iter().map(|ask| SubjectKey::generate(ask.identity.key_algorithm)).collect();
        Result::map(keys, |keys| (batch, keys))
    };
    tokio::task::spawn_blocking(work).await.expect("making keys does not panic")
}

fn item(ask: &Ask, key: &SubjectKey) -> AgentSvidItem {
    AgentSvidItem {
        identity: ask.identity.spiffe_id.clone(),
        key: PublicKeyDer::from_der(key.public_key().spki_der().to_vec()),
        claims: (*ask.claims).clone(),
    }
}

#[cfg(test)]
mod tests;
