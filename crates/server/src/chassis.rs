//! What every request goes through whatever it asks for, and the state that this needs.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery_api::{Operation, ProblemCode, limits};
use chancery_types::{Clock, Random, RandomError};
use tokio::sync::Semaphore;

use crate::admission::{Admission, Concurrency};
use crate::peer::ClientCertificate;
use crate::rate::{Rate, RateTable};
use crate::request_id::RequestIds;
use crate::{Health, HttpProblem, Metrics, Peer, Shutdown};

/// Bounds on requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RequestLimits {
    /// How fast one address may ask without a certificate; as fast as it can if absent.
    pub address_rate: Option<Rate>,
    /// How fast one identity may ask; as fast as it can if absent.
    pub identity_rate: Option<Rate>,
    /// Callers whose rate is remembered.
    pub callers: usize,
    /// Requests at once that change something or are answered with a signature made for them.
    pub writes: Concurrency,
    /// Requests at once that read much: exports and ranges of the log.
    pub bulk: Concurrency,
    /// How long a body may take to arrive.
    pub body_time: Duration,
    /// Bytes of all bodies together that are held at once.
    pub body_memory: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            address_rate: Some(Rate { per_second: 200.0, burst: 1000.0 }),
            identity_rate: Some(Rate { per_second: 2000.0, burst: 4000.0 }),
            callers: 65_536,
            writes: Concurrency { running: 512, waiting: 2048, patience: Duration::from_secs(5) },
            bulk: Concurrency { running: 4, waiting: 16, patience: Duration::from_secs(10) },
            body_time: Duration::from_secs(20),
            body_memory: 256 * 1024 * 1024,
        }
    }
}

/// Says whether a certificate that chains to our root, and has not expired, is still good.
pub trait CallerStatus: Send + Sync + fmt::Debug {
    /// Why it is not, for this operation; nothing when it is. Asked for every request that needs a
    /// certificate, so it must answer at once, from memory.
    fn refusal(&self, certificate: &ClientCertificate, operation: Operation) -> Option<HttpProblem>;
}

/// The state that requests go through.
pub struct Chassis {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) shutdown: Shutdown,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) callers: Arc<dyn CallerStatus>,
    pub(crate) request_ids: RequestIds,
    pub(crate) address_rates: Option<RateTable>,
    pub(crate) identity_rates: Option<RateTable>,
    pub(crate) writes: Admission,
    pub(crate) bulk: Admission,
    pub(crate) body_time: Duration,
    /// One permit for each [`BODY_UNIT`] bytes.
    pub(crate) body_memory: Arc<Semaphore>,
}

/// Bytes that one permit of the body memory stands for.
pub(crate) const BODY_UNIT: usize = 1024;

/// How much work an operation is, which decides the queue that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Answered from memory: never queued, so that status and health are there when all else is busy.
    Light,
    /// Goes through the ledger.
    Write,
    /// Reads much, for long.
    Bulk,
}

impl Chassis {
    /// Everything at rest.
    ///
    /// # Errors
    /// When the randomness source fails.
    pub fn new(
        limits: RequestLimits,
        callers: Arc<dyn CallerStatus>,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<Self, RandomError> {
        let now = Instant::now();
        let table = |rate: Rate| RateTable::new(rate, limits.callers, now);
        Ok(Self {
            metrics: Arc::default(),
            health: Arc::default(),
            shutdown: Shutdown::new(),
            clock,
            callers,
            request_ids: RequestIds::new(random)?,
            address_rates: limits.address_rate.map(table),
            identity_rates: limits.identity_rate.map(table),
            writes: Admission::new(limits.writes),
            bulk: Admission::new(limits.bulk),
            body_time: limits.body_time,
            body_memory: Arc::new(Semaphore::new(limits.body_memory / BODY_UNIT)),
        })
    }

    /// The client certificate of a request, if it is good at this moment. The gate asks for every operation
    /// of operators and holders; handlers ask where it depends on the request.
    ///
    /// # Errors
    /// `certificate-required`, `certificate-not-accepted` when it has expired since the handshake, and what
    /// [`CallerStatus`] says.
    pub fn require_certificate<'a>(
        &self,
        peer: &'a Peer,
        operation: Operation,
    ) -> Result<&'a Arc<ClientCertificate>, HttpProblem> {
        let certificate = peer.certificate().ok_or_else(|| {
            HttpProblem::new(
                ProblemCode::CertificateRequired,
                "there is no client certificate on the connection",
            )
        })?;
        if certificate.not_after() < self.clock.now() {
            let detail = format!("the client certificate expired at {}", certificate.not_after());
            return Err(HttpProblem::new(ProblemCode::CertificateNotAccepted, detail));
        }
        self.callers.refusal(certificate, operation).map_or(Ok(certificate), Err)
    }

    /// Where metrics are counted and added.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Where readiness checks are added.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// What stops the server.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}

impl fmt::Debug for Chassis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Chassis").field("callers", &self.callers).finish_non_exhaustive()
    }
}

/// The most bytes that the body of this operation may have.
pub(crate) fn body_limit(operation: Operation) -> usize {
    match operation {
        Operation::EnrollBatch | Operation::AgentSvids => limits::BATCH_BODY_BYTES,
        Operation::OcspPost => limits::OCSP_BYTES,
        _ => limits::BODY_BYTES,
    }
}

pub(crate) fn weight(operation: Operation) -> Weight {
    match operation {
        Operation::Enroll
        | Operation::EnrollBatch
        | Operation::AgentSvids
        | Operation::AgentJwt
        | Operation::Renew
        | Operation::CreateToken
        | Operation::RevokeToken
        | Operation::RegisterIdentity
        | Operation::ChangeIdentity
        | Operation::RetireIdentity
        | Operation::HoldIdentity
        | Operation::ReleaseIdentity
        | Operation::RegisterTemplate
        | Operation::ChangeTemplate
        | Operation::RemoveTemplate
        | Operation::AskRenewal
        | Operation::CaRotate
        | Operation::CaRollback
        | Operation::CaAddRoot
        | Operation::CaTaint
        | Operation::Revoke
        | Operation::Hold
        | Operation::Release
        | Operation::ReadChange
        | Operation::ApproveChange
        | Operation::WithdrawChange
        | Operation::PauseChange
        | Operation::ResumeChange
        | Operation::UndoChange
        | Operation::CreateStream
        | Operation::UpdateStream
        | Operation::ReplaceStream
        | Operation::DeleteStream
        | Operation::SetStreamStatus
        | Operation::VerifyStream
        | Operation::CreateOperator => Weight::Write,
        Operation::ExportAudit | Operation::LogEntries => Weight::Bulk,
        Operation::Nonce
        | Operation::AgentStream
        | Operation::OpenIdConfiguration
        | Operation::JwtKeys
        | Operation::ListTokens
        | Operation::ListIdentities
        | Operation::ReadIdentity
        | Operation::ListTemplates
        | Operation::ReadTemplate
        | Operation::ListCertificates
        | Operation::ReadCertificate
        | Operation::ListChanges
        | Operation::CaStatus
        | Operation::StatusOfMany
        | Operation::Status
        | Operation::StatusSet
        | Operation::StatusDelta
        | Operation::StatusFeed
        | Operation::PollStatusFeed
        | Operation::FollowStatus
        | Operation::Acknowledge
        | Operation::ListRelyingParties
        | Operation::SsfConfiguration
        | Operation::ReadStream
        | Operation::ReadStreamStatus
        | Operation::PollStream
        | Operation::ListEventStreams
        | Operation::Why
        | Operation::Bundle
        | Operation::BundleJson
        | Operation::Issuers
        | Operation::IssuerCertificate
        | Operation::CrlDer
        | Operation::CrlPem
        | Operation::IssuerCrl
        | Operation::ShardCrl
        | Operation::OcspGet
        | Operation::OcspPost
        | Operation::LogCheckpoint
        | Operation::LogTile
        | Operation::LogProof
        | Operation::LogKey
        | Operation::LogKeys
        | Operation::ReadPolicy
        | Operation::CheckPolicy
        | Operation::Healthz
        | Operation::Readyz
        | Operation::Metrics
        | Operation::OpenApi => Weight::Light,
    }
}
