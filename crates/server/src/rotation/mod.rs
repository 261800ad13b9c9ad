//! The authority replaces its own issuers and keys.
//!
//! What is to be done says the plan (crate rotate), a function of how things stand ([`standing`]) and of the time. Each
//! change is judged once more at the moment at which it is made, and is one commit whose preconditions name the last
//! entry about everything that it rests on ([`change`]): a crash at any point leaves the state before or the state after,
//! and of two processes that want the same one is refused. What then follows in this process, such as lists and
//! answers for another issuer, follows the ledger, whoever changed it.

mod change;
mod keys;
mod missing;
mod roots;
mod standing;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chancery_entry::Body;
use chancery_keys::KeyError;
use chancery_ledger::{ModelError, Turn};
use chancery_revoke::{CrlPublisher, OcspResponder, OperationError, ResponderCredential};
use chancery_rotate::authority::{
    Actor, Life, Observer, Rules, State, Violation, What, check, plan, rollback, timeline,
};
use chancery_types::{IssuerEpoch, Timestamp};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

use crate::authority::{Authority, AuthorityError, Followed, OpenError};
use crate::bootstrap::InitError;
pub(crate) use roots::RootRefusal;

/// How often the plan is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// The same where what is published is used soon.
const SHORTEST: Duration = Duration::from_millis(200);
/// When what could not be followed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How long the timeline reaches.
const AHEAD: Duration = Duration::from_hours(400 * 24);
/// Changes in it.
const SHOWN: usize = 60;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// How things stand does not allow it.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The ledger took it not, or the authority cannot.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A key is not here.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A key cannot be made or opened.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A root cannot follow those that are trusted.
    #[error(transparent)]
    Root(#[from] RootRefusal),
    /// A request cannot be made.
    #[error(transparent)]
    Request(#[from] InitError),
    /// What was left was not revoked.
    #[error(transparent)]
    Revoke(#[from] OperationError),
    /// Lists of the next issuer are not published yet.
    #[error("the revocation lists of issuer {0} are not in place yet")]
    NoList(IssuerEpoch),
    /// What works beside the requests is gone.
    #[error("the work was broken off")]
    BrokenOff,
}

impl From<ModelError> for RotationError {
    fn from(error: ModelError) -> Self {
        Self::Authority(error.into())
    }
}

/// Looks after the authority's own issuers and keys.
pub struct Rotation {
    authority: Arc<Authority>,
    crl: Arc<CrlPublisher>,
    ocsp: Arc<OcspResponder>,
    rules: Rules,
    started: Instant,
    observer: Mutex<Observer>,
    server_tls: Mutex<Option<Life>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    /// One process at a time.
    turn: Turn,
    trouble: Mutex<Option<String>>,
    /// Those of what is published, as far as they were looked for.
    keys: Mutex<missing::Keys>,
    /// Told when another issuer signs, or other roots count.
    succeeded: Notify,
}

impl std::fmt::Debug for Rotation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Rotation").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Rotation {
    /// For an authority that is open and whose status is published.
    #[must_use]
    pub fn new(authority: Arc<Authority>, crl: Arc<CrlPublisher>, ocsp: Arc<OcspResponder>) -> Self {
        let rules = authority.config().rotation.rules.clone();
        let turn = Turn::new(Arc::clone(authority.ledger()), "rotation");
        Self {
            authority,
            crl,
            ocsp,
            rules,
            started: Instant::now(),
            observer: Mutex::default(),
            server_tls: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            turn,
            trouble: Mutex::default(),
            keys: Mutex::default(),
            succeeded: Notify::new(),
        }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What the last look could not do, or which key is not here, if anything.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        trouble.or_else(|| self.missing_keys())
    }

    /// Waits until another issuer signs, or other roots count.
    pub(crate) async fn succession(&self) {
        self.succeeded.notified().await;
    }

    /// The server's own certificate is another; for the timeline.
    pub(crate) fn server_has(&self, from: Timestamp, until: Timestamp) {
        *self.server_tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(Life { from, until });
    }

    /// Follows the ledger and, while it is this process's turn, the plan; until it is dropped.
    pub async fn run(&self) {
        let pause = (self.rules.notice() / 8).clamp(SHORTEST, LOOK);
        let is_enabled = self.authority.config().rotation.enabled;
        let looks = async {
            loop {
                if is_enabled && self.turn.ask().await.is_some() {
                    self.look().await;
                }
                let looked = async { self.look_for_keys(&self.state().await?).await };
                if let Err(error) = looked.await {
                    tracing::warn!(%error, "it is not known how issuers and keys stand");
                }
                tokio::time::sleep(pause).await;
            }
        };
        // The turn lasts less long than the pause between two looks.
        let keep = async {
            if is_enabled {
                self.turn.keep().await;
            }
        };
        tokio::join!(looks, keep, self.follow());
    }

    /// Lets another process look after issuers and keys at once: this one stops.
    pub async fn give_up(&self) {
        self.turn.give_up().await;
    }

    /// Does what is due, unless another process does it in a moment: each would make a key of its own.
    pub async fn look_in_turn(&self) {
        if !self.authority.config().rotation.enabled || self.turn.ask().await.is_some() {
            self.look().await;
        }
    }

    /// Does what is due.
    pub async fn look(&self) {
        let mut trouble = None;
        match self.state().await {
            Err(error) => trouble = Some(error.to_string()),
            Ok(state) => {
                if let Err(violation) = check(&state) {
                    tracing::error!(%violation, "ISSUERS AND KEYS DO NOT STAND AS THEY MUST");
                    trouble = Some(violation.to_string());
                }
                for planned in plan(&state, &self.rules, self.now()) {
                    match planned.what.actor() {
                        Actor::OwnTask => {}
                        Actor::Operator => {
                            trouble = Some(format!("{}: {}", planned.what, planned.reason));
                        }
                        Actor::Scheduler => {
                            let reason = planned.reason.to_string();
                            if let Err(error) =
                                self.make(&planned.what, "chancery", &reason, Vec::new()).await
                            {
                                tracing::warn!(change = %planned.what, %error, "a change of issuers or keys was not made");
                                trouble = Some(format!("{}: {error}", planned.what));
                            }
                        }
                    }
                }
            }
        }
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        // What was just published is seen from now on.
        drop(self.state().await);
    }

    /// What will happen if nobody does anything else.
    ///
    /// # Errors
    /// [`RotationError`] when it cannot be found out how things stand.
    pub async fn timeline(&self) -> Result<Vec<chancery_rotate::authority::Change>, RotationError> {
        let state = self.state().await?;
        Ok(self.timeline_of(&state))
    }

    /// What would happen from such a state on.
    #[must_use]
    pub fn timeline_of(&self, state: &State) -> Vec<chancery_rotate::authority::Change> {
        timeline(state, &self.rules, self.now(), self.now() + AHEAD, SHOWN)
    }

    /// The change that undoes the last one of a kind.
    ///
    /// # Errors
    /// [`RotationError::Violation`] when there is none.
    pub async fn undoing(&self, subject: chancery_rotate::authority::Subject) -> Result<What, RotationError> {
        Ok(rollback(&self.state().await?, subject, self.now())?)
    }

    fn now(&self) -> Timestamp {
        self.authority.clock().now()
    }

    /// Follows what the ledger says of issuers and keys.
    async fn follow(&self) {
        let mut news = self.authority.ledger().news();
        loop {
            let is_about_us = match news.recv().await {
                Ok(news) => matches!(
                    news.entry.body,
                    Body::IssuerActivated(_)
                        | Body::IssuerRetired(_)
                        | Body::IssuerPrepared(_)
                        | Body::IssuerWithdrawn(_)
                        | Body::KeyChanged(_)
                ),
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return,
            };
            if is_about_us {
                self.adopt_at_last().await;
            }
        }
    }

    /// Takes over what the ledger says, however often it has to be tried.
    async fn adopt_at_last(&self) {
        while let Err(error) = self.adopt().await {
            tracing::error!(%error, "A CHANGE OF ISSUERS OR KEYS IS NOT IN FORCE HERE");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Takes over what the ledger says: who signs, which lists are published, who answers.
    ///
    /// # Errors
    /// [`RotationError`], the first one; of what it is about, what was in force stays.
    pub(crate) async fn adopt(&self) -> Result<(), RotationError> {
        let Followed { has_other_issuer, has_other_roots, failure } = self.authority.follow_keys().await;
        let active = self.authority.workflow().issuer().epoch();
        if has_other_issuer {
            tracing::info!(epoch = %active, "another issuer signs");
        }
        if has_other_roots {
            tracing::info!(count = self.authority.roots().bundle().count(), "other roots are in the bundle");
        }
        let published = self.publish_for_issuers(active).await;
        if has_other_issuer || has_other_roots {
            self.succeeded.notify_one();
        }
        published?;
        failure.map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// Has lists published, and requests answered, for every issuer that there is.
    async fn publish_for_issuers(&self, active: IssuerEpoch) -> Result<(), RotationError> {
        let issuers = self.authority.status_issuers().await?;
        for issuer in &issuers {
            let credential = self.ocsp.credential(issuer.epoch);
            let is_delegated = credential.as_ref().is_some_and(|known| known.certificate.is_some());
            if credential.is_none() {
                self.ocsp.add_issuer(issuer.epoch, &issuer.certificate);
            }
            // Only one that signs certificates can delegate.
            if issuer.epoch != active
                && (credential.is_none() || is_delegated)
                && let Some(signer) = issuer.signer.clone()
            {
                let own = ResponderCredential::of_issuer(&issuer.certificate, signer);
                self.ocsp.use_credential(issuer.epoch, own);
            }
        }
        self.crl.use_issuers(issuers).await;
        Ok(())
    }
}
