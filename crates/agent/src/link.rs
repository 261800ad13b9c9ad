//! The way to the authority: whom it is taken for, and as whom we come.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use chancery_api::{
    AgentJwtRequest, AgentJwtResponse, AgentStreamQuery, AgentSvidItem, AgentSvidsRequest, BatchResult,
};
use chancery_client::{AgentEvents, Client, ClientError, Endpoint, RetryPolicy, TlsIdentity, TrustAnchors};
use chancery_telemetry::step;
use rustls_pki_types::CertificateDer;
use tracing::Instrument as _;

/// How long connecting may take: an agent would rather try again.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// What the agent's loops ask of the authority: a [`Link`], or a double in their tests.
#[async_trait]
pub(crate) trait Authority: Send + Sync + 'static {
    /// Certificates for workloads, in the order of the items.
    async fn svids(&self, items: Vec<AgentSvidItem>) -> Result<Vec<BatchResult>, ClientError>;

    /// A token for a workload.
    async fn jwt(&self, request: &AgentJwtRequest) -> Result<AgentJwtResponse, ClientError>;
}

/// A client that can be made anew while others use it.
#[derive(Debug)]
pub(crate) struct Link {
    server: Endpoint,
    parts: Mutex<Parts>,
    client: ArcSwap<Client>,
}

#[derive(Debug)]
struct Parts {
    anchors: TrustAnchors,
    identity: Option<TlsIdentity>,
}

impl Link {
    /// A link that believes whoever descends from these roots, and comes as nobody.
    pub(crate) fn new(server: Endpoint, roots: &[Vec<u8>]) -> Result<Self, ClientError> {
        let parts = Parts { anchors: anchors(roots)?, identity: None };
        let client = ArcSwap::from_pointee(parts.client(&server)?);
        Ok(Self { server, parts: Mutex::new(parts), client })
    }

    /// A client of the moment.
    pub(crate) fn client(&self) -> Arc<Client> {
        self.client.load_full()
    }

    /// A client that shows no certificate, for evidence of another kind.
    pub(crate) fn anonymous(&self) -> Result<Client, ClientError> {
        let anchors = self.lock().anchors.clone();
        Parts { anchors, identity: None }.client(&self.server)
    }

    /// Comes as somebody else from now on.
    pub(crate) fn use_identity(&self, identity: TlsIdentity) -> Result<(), ClientError> {
        self.change(|parts| parts.identity = Some(identity))
    }

    /// Believes other roots from now on.
    pub(crate) fn use_roots(&self, roots: &[Vec<u8>]) -> Result<(), ClientError> {
        let anchors = anchors(roots)?;
        self.change(|parts| parts.anchors = anchors)
    }

    /// Gives up its connections: a peer that is silent may be gone without a word.
    pub(crate) fn reconnect(&self) -> Result<(), ClientError> {
        self.change(|_| ())
    }

    /// The stream of what this node may serve, from this revision on.
    pub(crate) async fn stream(&self, after: Option<u64>) -> Result<AgentEvents, ClientError> {
        self.client().agent_stream(&AgentStreamQuery { after }).await
    }

    fn change(&self, edit: impl FnOnce(&mut Parts)) -> Result<(), ClientError> {
        let mut parts = self.lock();
        edit(&mut parts);
        self.client.store(Arc::new(parts.client(&self.server)?));
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Authority for Link {
    async fn svids(&self, items: Vec<AgentSvidItem>) -> Result<Vec<BatchResult>, ClientError> {
        let step = step!("svids", chancery.certificates = items.len());
        let client = self.client();
        Ok(client.agent_svids(&AgentSvidsRequest { items }).instrument(step).await?.results)
    }

    async fn jwt(&self, request: &AgentJwtRequest) -> Result<AgentJwtResponse, ClientError> {
        self.client().agent_jwt(request).instrument(step!("jwt")).await
    }
}

impl Parts {
    fn client(&self, server: &Endpoint) -> Result<Client, ClientError> {
        let builder = Client::builder(server.clone())
            .trust(self.anchors.clone())
            .connect_timeout(CONNECT)
            .request_timeout(ANSWER)
            // The loops above have their own idea of patience, and report every failure.
            .retry(RetryPolicy::never());
        match &self.identity {
            Some(identity) => builder.identity(identity.clone()).build(),
            None => builder.build(),
        }
    }
}

fn anchors(roots: &[Vec<u8>]) -> Result<TrustAnchors, ClientError> {
    let roots = roots.iter().cloned().map(CertificateDer::from);
    Ok(TrustAnchors::from_certificates(roots)?)
}

/// What the server asked us to wait, if it did.
pub(crate) fn advised(error: &ClientError) -> Option<Duration> {
    match error {
        ClientError::Problem(problem) => problem.retry_after.map(Duration::from_secs),
        _ => None,
    }
}

/// Whether the authority answered and said no, for good: asking the same again will not help soon.
pub(crate) fn is_refusal(error: &ClientError) -> bool {
    match error {
        ClientError::Problem(problem) => is_final(problem),
        _ => false,
    }
}

/// The same of an answer to one item of many.
pub(crate) fn is_final(problem: &chancery_api::Problem) -> bool {
    problem.retry_after.is_none() && !is_its_own_trouble(problem)
}

fn is_its_own_trouble(problem: &chancery_api::Problem) -> bool {
    use chancery_api::ProblemCode as Code;
    matches!(
        problem.known_code(),
        Some(
            Code::Internal
                | Code::Overloaded
                | Code::ShuttingDown
                | Code::NotReady
                | Code::RateLimited
                | Code::LedgerUnavailable
                | Code::KeyUnavailable
                | Code::RequestTimeout
                | Code::IdempotencyInProgress
        )
    )
}
