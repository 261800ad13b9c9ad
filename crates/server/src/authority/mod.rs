//! The authority itself: everything it can do, without a word of HTTP.
//!
//! It wires the crates of the road together and holds what they share: ledger, keys, rules. The doors (REST
//! now, others later) translate their requests into its methods and its errors into theirs.

mod enrolment;
mod enrolments;
mod error;
mod issuers;
mod jwt;
mod kept;
mod keyring;
mod log_keys;
mod nonces;
mod open;
mod own;
mod records;
mod registry;
mod roots;
mod rules;
mod selectors;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use chancery_api::LogKeysResponse;
use chancery_attest::{CertificateRecords, CertificateState, Nonces, Verifiers};
use chancery_issue::Workflow;
use chancery_ledger::Ledger;
use chancery_merkle::{LogSigners, NoteVerifier};
use chancery_policy::CallerFacts;
use chancery_revoke::Revoker;
use chancery_types::{Claims, Clock, Digest, IdentityState, LineageId, Random, SpiffeId, Timestamp};
use chancery_x509::{Certificate, PublicKey, WeakKeyList};

pub use chancery_attest::{Evidence, TokenEvidence};
pub use enrolment::{Enrolled, Enrolment, Requester, Wish};
pub use error::AuthorityError;
pub use jwt::{SignedJwt, TokenWish};

pub(crate) use issuers::{Followed, division, jwt_records};
pub(crate) use keyring::Keyring;
pub(crate) use log_keys::{LogKey, open_log_signers, read_log_keys, vouch};
pub(crate) use open::open_keys;
pub use open::{OnlineRoot, OpenError, log_origin, server_identity};
pub use own::ServerCredential;
pub use registry::{NewToken, TokenFor};
pub(crate) use roots::{KnownRoot, Roots};
pub use rules::{Rules, RulesError};

use crate::config::Config;
use kept::Kept;
use records::KnownIdentity;

/// How long it may take to hear of what another process recorded.
const HEARING: Duration = Duration::from_secs(2);

/// A certificate authority, open.
pub struct Authority {
    config: Config,
    ledger: Arc<dyn Ledger>,
    workflow: Workflow,
    rules: ArcSwap<Rules>,
    /// Held while other rules are recorded and then put in force.
    reloading: tokio::sync::Mutex<()>,
    verifiers: Verifiers,
    nonces: Arc<dyn Nonces>,
    /// The same where replicas share them.
    shared_nonces: Option<Arc<nonces::SharedNonces>>,
    records: records::LedgerRecords,
    callers: Kept<Digest, KnownCaller>,
    selectors: selectors::SelectorIndex,
    revoker: Revoker,
    weak_keys: WeakKeyList,
    root: Certificate,
    roots: ArcSwap<roots::Roots>,
    log_signers: Arc<LogSigners>,
    log_keys: ArcSwap<LogKeysResponse>,
    jwt: ArcSwap<issuers::JwtKeys>,
    keyring: Arc<keyring::Keyring>,
    enrolments: Arc<enrolments::Enrolments>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Authority")
            .field("trust_domain", &self.config.trust_domain)
            .finish_non_exhaustive()
    }
}

/// A caller, and until when its certificate is in force.
#[derive(Debug, Clone)]
struct KnownCaller {
    caller: Caller,
    not_after: Timestamp,
}

/// Who holds a client certificate of ours, and whether it counts at this moment.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The identity in the certificate.
    pub identity: SpiffeId,
    /// For policy.
    pub facts: CallerFacts,
}

impl Authority {
    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.ledger
    }

    /// Waits until this process has heard of the log as far as another one has told a client of it: a moment, and no
    /// longer than two seconds. Nobody who changes from one replica to another is to be told how things stood before.
    pub(crate) async fn has_heard_of(&self, position: u64) {
        let heard = async {
            while self.ledger.head().size < position {
                tokio::time::sleep(HEARING / 100).await;
            }
        };
        if self.ledger.head().size < position {
            let _ = tokio::time::timeout(HEARING, heard).await;
            // What was told is taken in by then.
            tokio::time::sleep(HEARING / 50).await;
        }
    }

    /// The issuance workflow.
    #[must_use]
    pub fn workflow(&self) -> &Workflow {
        &self.workflow
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// The rules in force once those are that the ledger has on record: for whoever learns of them from there.
    pub(crate) async fn settled_rules(&self) -> Arc<Rules> {
        let _settled = self.reloading.lock().await;
        self.rules()
    }

    /// Changes of status.
    #[must_use]
    pub fn revoker(&self) -> &Revoker {
        &self.revoker
    }

    /// Nonces for proofs of possession.
    #[must_use]
    pub fn nonces(&self) -> &Arc<dyn Nonces> {
        &self.nonces
    }

    /// The root that the configuration names: the first one.
    #[must_use]
    pub fn root(&self) -> &Certificate {
        &self.root
    }

    /// The key that verifies the log's checkpoints: of those that sign the newest.
    #[must_use]
    pub fn log_key(&self) -> NoteVerifier {
        let in_force = self.log_signers.in_force();
        in_force.first().expect("no authority is open without a key of its log").verifier().clone()
    }

    /// The keys of the log, which sign the exact set too.
    #[must_use]
    pub(crate) fn log_signers(&self) -> &Arc<LogSigners> {
        &self.log_signers
    }

    /// Where the keys of issuers and tokens are.
    pub(crate) fn keyring(&self) -> &Arc<keyring::Keyring> {
        &self.keyring
    }

    /// What was proved when a lineage of certificates was enrolled.
    ///
    /// # Errors
    /// [`AuthorityError`] when there is no such lineage or the ledger cannot be read.
    pub(crate) async fn enrolment_claims(&self, lineage: LineageId) -> Result<Arc<Claims>, AuthorityError> {
        self.enrolments.of(lineage).await
    }

    /// Reads a bare key that an attested agent has made, and refuses those that everybody can know.
    ///
    /// # Errors
    /// [`AuthorityError::PublicKey`] or [`AuthorityError::WeakKey`].
    pub(crate) fn vouched_key(&self, spki: &[u8]) -> Result<PublicKey, AuthorityError> {
        let key = PublicKey::from_spki_der(spki)?;
        self.weak_keys.check(&key)?;
        Ok(key)
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The source of randomness.
    #[must_use]
    pub fn random(&self) -> &Arc<dyn Random> {
        &self.random
    }

    /// Puts the rules on disk into force, all or nothing.
    ///
    /// # Errors
    /// What is wrong with them; those in force stay.
    pub async fn reload_rules(&self, by: &str) -> Result<(), ReloadError> {
        let _reloading = self.reloading.lock().await;
        let config = &self.config;
        let rules = Rules::load(&config.profiles, &config.policy, &config.trust_domain)?;
        rules.record(self.ledger.as_ref(), by, self.clock.now()).await?;
        self.rules.store(Arc::new(rules));
        Ok(())
    }

    /// A registered identity and how it stands now; `None` if there never was one.
    pub(crate) async fn identity(&self, id: &SpiffeId) -> Result<Option<KnownIdentity>, AuthorityError> {
        Ok(self.records.identity(id).await?)
    }

    /// Who the holder of this client certificate is, if the certificate counts at this moment: issued here, in
    /// force, neither held nor revoked, its identity active. TLS has proved possession of its key.
    ///
    /// # Errors
    /// [`AuthorityError::Model`] when the records cannot be read; `None` when it does not count.
    pub async fn caller(&self, certificate: &[u8]) -> Result<Option<Caller>, AuthorityError> {
        let (question, epoch) = (Digest::of(certificate), self.ledger.standing_epoch());
        let known = match self.callers.answer(epoch, &question) {
            Some(known) => known,
            None => match self.find_caller(certificate).await? {
                Some(known) => {
                    self.callers.keep(epoch, question, known.clone());
                    known
                }
                None => return Ok(None),
            },
        };
        Ok((known.not_after > self.clock.now()).then_some(known.caller))
    }

    /// The same by the ledger's records, expiry aside.
    async fn find_caller(&self, certificate: &[u8]) -> Result<Option<KnownCaller>, AuthorityError> {
        let Ok(certificate) = Certificate::from_der(certificate) else { return Ok(None) };
        let Some(serial) = certificate.serial_number() else { return Ok(None) };
        let standing = self.records.certificate(serial).await.map_err(chancery_attest::AttestError::from)?;
        let counts = standing.filter(|standing| {
            standing.state == CertificateState::Good
                && standing.identity_state == IdentityState::Active
                && Digest::of(certificate.tbs().spki_der()) == standing.key
        });
        Ok(counts.map(|standing| KnownCaller {
            not_after: standing.not_after,
            caller: Caller {
                facts: CallerFacts::mtls(&standing.identity, standing.role).under(&standing.profile),
                identity: standing.identity,
            },
        }))
    }
}

/// Why rules were not put into force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// They are wrong.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// They could not be recorded.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}
