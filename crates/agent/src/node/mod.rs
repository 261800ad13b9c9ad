//! The node: proved to the authority once, and kept proved.
//!
//! ```text
//! start    a kept credential that is still good, or evidence
//! then     renewed when half of its life is still left, with a new key each time
//! refused  or ended: evidence again, if it can be shown again or a new token has been put in place
//! ```
//! Waits are by the clock and by elapsed time, whichever says first that it is time: a machine that slept finds out
//! within seconds, and a clock that was set back does not make a credential last longer.

mod credential;
mod evidence;
mod request;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chancery_api::{EnrollRequest, EnrollResponse, RenewRequest};
use chancery_client::ClientError;
use chancery_rotate::client::{self, Failed, Seed, Window};
use chancery_telemetry::step;
use chancery_types::{Random, Timestamp};
use tokio::sync::{Notify, watch};
use tracing::Instrument as _;

use credential::Kept;
pub(crate) use credential::NodeCredential;
use evidence::Proof;
use request::{KeptRequest, Request};

use crate::config::{Config, EvidenceConfig, Keep};
use crate::link::{Link, advised, is_refusal};
use crate::state::{StateDirectory, StateError};
use crate::store::{Origin, Wish};
use crate::timing::Pace;
use crate::verify::{Expected, Unfit, judge};

const CREDENTIAL: &str = "node.json";
const REQUEST: &str = "request.json";

/// Why the node has no (new) credential.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The authority was not reached, or refuses.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// What it gave cannot be used.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// A file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The evidence cannot be used.
    #[error("{path}: {why}")]
    Evidence {
        /// Which file.
        path: String,
        /// Why not.
        why: String,
    },
    /// A token was refused before, and asking again would not change that.
    #[error(
        "the join token was refused before ({0}); put a new one into its file, or keep the credential with \
         state.keep_credential so that a restart needs none"
    )]
    TokenUsed(String),
    /// No key could be made or used.
    #[error("a key cannot be used: {0}")]
    Key(String),
    /// The authority's certificates do not say whose they are.
    #[error("neither root nor issuers of the authority name a trust domain")]
    TrustDomain,
}

impl NodeError {
    fn key(error: impl std::fmt::Display) -> Self {
        Self::Key(error.to_string())
    }

    /// Whether the authority has said no for good.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Client(error) => is_refusal(error),
            Self::TokenUsed(_) => true,
            _ => false,
        }
    }

    fn advised(&self) -> Option<Duration> {
        match self {
            Self::Client(error) => advised(error),
            _ => None,
        }
    }
}

/// How the node stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// What proves it.
    pub(crate) credential: Option<Arc<NodeCredential>>,
    /// When it will be replaced.
    pub(crate) renew_at: Option<Timestamp>,
    /// Why the last attempt to replace it failed.
    pub(crate) trouble: Option<String>,
}

/// Keeps the node proved.
#[derive(Debug)]
pub(crate) struct Node {
    link: Arc<Link>,
    /// What verifies the authority, as the stream last said.
    roots: watch::Receiver<Arc<Vec<Vec<u8>>>>,
    evidence: EvidenceConfig,
    state: Option<StateDirectory>,
    pace: Pace,
    random: Arc<dyn Random>,
    standing: watch::Sender<Standing>,
    pending: Mutex<Option<Request>>,
    /// A token that was refused, by the purpose of its request, and why.
    refused: Mutex<Option<(String, String)>>,
    /// The authority does not take the credential any more.
    refusal: Notify,
}

impl Node {
    pub(crate) fn new(
        config: &Config,
        link: Arc<Link>,
        roots: watch::Receiver<Arc<Vec<Vec<u8>>>>,
        state: Option<&StateDirectory>,
        pace: Pace,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            link,
            roots,
            evidence: config.evidence.clone(),
            state: state.filter(|_| config.credential == Keep::OnDisk).cloned(),
            pace,
            random,
            standing: watch::Sender::default(),
            pending: Mutex::default(),
            refused: Mutex::default(),
            refusal: Notify::new(),
        }
    }

    /// How the node stands, now and at every change.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Returns once the node has a credential. Tries for as long as trying makes sense.
    ///
    /// # Errors
    /// The authority refuses evidence that cannot be shown again.
    pub(crate) async fn start(&self) -> Result<(), NodeError> {
        match self.kept() {
            Ok(Some(credential)) => {
                tracing::info!(node = %credential.spiffe_id, until = %credential.not_after, "the kept credential is good");
                self.use_credential(credential)?;
                return Ok(());
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the kept credential cannot be used; evidence is shown instead")
            }
        }
        let mut failures = 0;
        loop {
            match self.attest().await {
                Ok(credential) => return self.replace_credential(credential),
                Err(error) if error.is_refusal() && !self.repeats() => return Err(error),
                Err(error) => {
                    failures += 1;
                    self.wait_after(&error, failures).await;
                }
            }
        }
    }

    /// Keeps the credential fresh, for ever.
    pub(crate) async fn run(&self) {
        loop {
            let refused = tokio::select! {
                () = self.due() => false,
                () = self.refusal.notified() => true,
            };
            let mut failures = 0;
            while let Err(error) = self.replace(refused).await {
                failures += 1;
                self.wait_after(&error, failures).await;
            }
        }
    }

    /// The authority withdrew these certificates: if the node's is among them, it has to prove itself again.
    pub(crate) fn withdraw(&self, serials: &[chancery_types::SerialNumber]) {
        let ours = self.standing.borrow().credential.as_ref().map(|credential| credential.serial);
        if ours.is_some_and(|serial| serials.contains(&serial)) {
            self.prove_again();
        }
    }

    /// The authority does not take the credential any more.
    pub(crate) fn prove_again(&self) {
        tracing::warn!(
            "the authority does not take the node's certificate any more; evidence is shown again"
        );
        self.refusal.notify_one();
    }

    /// The authority would like certificates to be renewed early, the node's perhaps among them.
    pub(crate) fn renew_early(&self, wish: &Wish) {
        let now = self.pace.now();
        self.standing.send_if_modified(|standing| {
            let ours = standing.credential.as_ref().filter(|ours| ours.is_meant_by(wish));
            if let Some(ours) = ours {
                let asked = Some(Window { from: now, until: wish.until.max(now) });
                let (seed, life) = (self.seed(), Some(ours.life()));
                let held = client::Held { seed, life, window: None, asked, failed: None };
                let early = client::due(&held, now).at;
                standing.renew_at = Some(standing.renew_at.map_or(early, |regular| regular.min(early)));
            }
            ours.is_some()
        });
    }

    async fn due(&self) {
        let mut standing = self.standing.subscribe();
        let began = tokio::time::Instant::now();
        let seen = self.pace.now();
        loop {
            let Some(renew_at) = standing.borrow_and_update().renew_at else { return };
            // By elapsed time as well, for a clock that was set back.
            if renew_at <= self.pace.now() || began.elapsed() >= renew_at.since(seen) {
                return;
            }
            tokio::select! {
                () = self.pace.look_or(Some(renew_at)) => {}
                _ = standing.changed() => {}
            }
        }
    }

    /// The next credential: by renewal while that is possible, else by evidence. After a refusal evidence comes first;
    /// the old credential is still tried, because what was held may have been released.
    async fn replace(&self, refused: bool) -> Result<(), NodeError> {
        let now = self.pace.now();
        let current = self.standing.borrow().credential.clone().filter(|current| current.is_valid_at(now));
        let credential = match (current, refused) {
            (None, _) => self.attest().await?,
            (Some(current), true) => match self.attest().await {
                Err(error) if error.is_refusal() => self.renew(&current).await.map_err(|_| error)?,
                attested => attested?,
            },
            (Some(current), false) => match self.renew(&current).await {
                Err(error) if error.is_refusal() => {
                    tracing::warn!(%error, "the node's certificate was not renewed; evidence is shown instead");
                    self.attest().await?
                }
                renewed => renewed?,
            },
        };
        self.replace_credential(credential)
    }

    async fn renew(&self, current: &NodeCredential) -> Result<NodeCredential, NodeError> {
        let request = self.pending(format!("renew {}", current.serial))?;
        let ask = RenewRequest { csr: request.csr.clone(), lifetime: None, receipt: false };
        let client = self.link.client();
        let answer = client.renew(&ask, &request.name).instrument(step!("node")).await;
        let credential = self.settle(request, answer)?;
        Ok(credential)
    }

    async fn attest(&self) -> Result<NodeCredential, NodeError> {
        self.attest_anew().instrument(step!("node")).await
    }

    async fn attest_anew(&self) -> Result<NodeCredential, NodeError> {
        let proof = Proof::read(&self.evidence)?;
        let purpose = proof.purpose();
        if let Some((refused, why)) = &*lock(&self.refused)
            && *refused == purpose
        {
            return Err(NodeError::TokenUsed(why.clone()));
        }
        let client = self.link.anonymous()?;
        let request = if proof.is_spent_by_use() {
            self.pending(purpose.clone())?
        } else {
            Request::new(purpose.clone(), client.new_idempotency_key())?
        };
        let roots = Arc::clone(&self.roots.borrow());
        let ask = EnrollRequest {
            csr: request.csr.clone(),
            evidence: proof.show(&client, &request.csr, &roots).await?,
            profile: None,
            identity: None,
            lifetime: None,
            receipt: false,
        };
        let answer = client.enroll(&ask, &request.name).await;
        if let (true, Err(error)) = (proof.is_spent_by_use(), &answer)
            && is_refusal(error)
        {
            *lock(&self.refused) = Some((purpose, error.to_string()));
        }
        self.settle(request, answer)
    }

    /// The request for this purpose: the one that was not answered, or a new one.
    fn pending(&self, purpose: String) -> Result<Request, NodeError> {
        let kept = || {
            let kept = self.state.as_ref()?.load::<KeptRequest>(REQUEST).ok()??;
            Request::from_kept(&kept)
        };
        let before = lock(&self.pending).take().or_else(kept);
        if let Some(request) = before.filter(|request| request.purpose == purpose) {
            return Ok(request);
        }
        let request = Request::new(purpose, self.link.client().new_idempotency_key())?;
        if let Some(state) = &self.state {
            state.save(REQUEST, &request.to_kept())?;
        }
        Ok(request)
    }

    /// Makes a credential of an answer. A request without one is kept, to be sent again as it is.
    fn settle(
        &self,
        request: Request,
        answer: Result<EnrollResponse, ClientError>,
    ) -> Result<NodeCredential, NodeError> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if is_refusal(&error) => {
                self.forget_request();
                return Err(error.into());
            }
            Err(error) => {
                *lock(&self.pending) = Some(request);
                return Err(error.into());
            }
        };
        let roots = Arc::clone(&self.roots.borrow());
        let expected = Expected { key: request.key.public_key(), spiffe_id: None, dns_names: None };
        match judge(&answer, &expected, &roots, self.pace.now()) {
            Ok(fit) => {
                let origin = Origin { log_index: answer.log_index, profile: answer.profile };
                Ok(NodeCredential::new(fit, self.pace.now(), origin, request.key))
            }
            Err(unfit) => {
                // It was issued, and may be fit once our clock or bundle is right: the same request brings it again.
                *lock(&self.pending) = Some(request);
                Err(unfit.into())
            }
        }
    }

    fn replace_credential(&self, credential: NodeCredential) -> Result<(), NodeError> {
        if let Some(state) = &self.state {
            state.save(CREDENTIAL, &credential.to_kept())?;
        }
        self.forget_request();
        tracing::info!(
            node = %credential.spiffe_id, serial = %credential.serial, until = %credential.not_after,
            "the node is proved"
        );
        self.use_credential(credential)
    }

    fn use_credential(&self, credential: NodeCredential) -> Result<(), NodeError> {
        self.link.use_identity(credential.tls())?;
        let life = credential.life();
        let renew_at = client::regular(life, self.seed());
        self.standing.send_replace(Standing {
            credential: Some(Arc::new(credential)),
            renew_at: Some(renew_at),
            trouble: None,
        });
        Ok(())
    }

    fn forget_request(&self) {
        *lock(&self.pending) = None;
        if let Some(state) = &self.state
            && let Err(error) = state.remove(REQUEST)
        {
            tracing::warn!(%error, "a request that was answered cannot be removed");
        }
    }

    fn kept(&self) -> Result<Option<NodeCredential>, NodeError> {
        let Some(state) = &self.state else { return Ok(None) };
        let Some(kept) = state.load::<Kept>(CREDENTIAL)? else { return Ok(None) };
        let roots = Arc::clone(&self.roots.borrow());
        Ok(Some(NodeCredential::from_kept(&kept, &roots, self.pace.now())?))
    }

    fn repeats(&self) -> bool {
        matches!(self.evidence, EvidenceConfig::X509Pop { .. })
    }

    async fn wait_after(&self, error: &NodeError, failures: u32) {
        let now = self.pace.now();
        let failed = Failed { attempts: failures, at: now, retry_after: error.advised(), seed: self.seed() };
        let life = self.standing.borrow().credential.as_ref().map(|credential| credential.life());
        let next = client::next_attempt(failed, life).at;
        tracing::warn!(%error, failures, %next, "the node has no new credential; what it has stays in use");
        self.standing.send_modify(|standing| standing.trouble = Some(error.to_string()));
        self.pace.until(next).await;
    }

    fn seed(&self) -> Seed {
        let mut bytes = [0; 8];
        // Without randomness nodes that do the same at the same moment go on doing so.
        let _ = self.random.fill(&mut bytes);
        Seed::new(u64::from_be_bytes(bytes))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
