//! An authority without doors, for `chancery bench`: made on a real disk, filled with identities and tokens, and
//! asked for certificates by plain function calls.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use chancery_server::authority::{
    Authority, Enrolment, Evidence, OnlineRoot, Requester, TokenEvidence, TokenFor, Wish,
};
use chancery_server::bootstrap::{self, InitPlan};
use chancery_server::config::{Config, ServerName};
use chancery_types::{
    Digest, Identity, KeyAlgorithm, SecretString, SpiffeId, SystemClock, SystemRandom, TrustDomain,
};
use chancery_x509::{ProvenRequest, PublicKey};

use super::Database;
use super::making::rewrite;

/// How long a token waits to be spent.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Who made all this, in the ledger.
const BY: &str = "bench";

/// An authority in this process.
#[derive(Debug, Clone)]
pub(crate) struct InProcess {
    authority: Arc<Authority>,
}

impl InProcess {
    /// Makes an authority for this trust domain in `directory`, its root beside it, with limits that no benchmark
    /// meets, its ledger beside it or in a database; returns its configuration file.
    pub(crate) async fn make(
        directory: &Path,
        trust_domain: &TrustDomain,
        (api, status): (SocketAddr, SocketAddr),
        database: Option<&Database>,
    ) -> Result<PathBuf> {
        let name = |text| ServerName::parse(text).map_err(anyhow::Error::msg);
        let plan = InitPlan {
            directory: directory.to_owned(),
            trust_domain: trust_domain.clone(),
            names: vec![name("localhost")?, name("127.0.0.1")?],
            algorithm: KeyAlgorithm::P256,
            token: None,
            api,
            status,
            url: None,
            status_url: None,
            database: database.map(Database::to_server).transpose()?,
            root_key: None,
        };
        let root = directory.with_extension("root");
        let passphrase = bootstrap::generated_passphrase(&SystemRandom)?;
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        let report = bootstrap::init(&plan, &root, &passphrase, clock, random).await?;
        raise_limits(&report.finished.config)?;
        Ok(report.finished.config)
    }

    /// Opens an authority that no other process has open.
    pub(crate) async fn open(config: &Path) -> Result<Self> {
        let config = Config::load(config)?;
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        let authority = Authority::open(config, OnlineRoot::Refuse, clock, random).await?;
        Ok(Self { authority: Arc::new(authority) })
    }

    /// Registers an identity.
    pub(crate) async fn register(&self, id: &SpiffeId) -> Result<()> {
        self.authority.register_identity(&Identity::new(id.clone(), BY), BY).await?;
        Ok(())
    }

    /// Makes a join token.
    pub(crate) async fn create_token(&self, id: &SpiffeId) -> Result<SecretString> {
        let purpose = TokenFor::Identity(id.clone());
        Ok(self.authority.create_token(purpose, TOKEN_LIFETIME, None, false, BY).await?.text)
    }

    /// Enrols with a certificate request, which is verified; returns the certificate's bytes.
    pub(crate) async fn enroll(&self, csr: &[u8], token: SecretString) -> Result<usize> {
        self.issue(self.authority.prove(csr)?, token).await
    }

    /// Enrols a bare key, as one that an attested agent vouches for; returns the certificate's bytes.
    pub(crate) async fn enroll_vouched(&self, spki: &[u8], token: SecretString) -> Result<usize> {
        let key = PublicKey::from_spki_der(spki)?;
        let request =
            ProvenRequest::dangerous_key_vouched_by_attested_agent(key, Vec::new(), Digest::of(spki));
        self.issue(request, token).await
    }

    async fn issue(&self, request: ProvenRequest, token: SecretString) -> Result<usize> {
        let enrolment = Enrolment {
            request,
            evidence: Evidence::JoinToken(TokenEvidence { token }),
            wish: Wish::default(),
            requester: Requester { name: BY.to_owned(), address: None },
            idempotency: None,
        };
        Ok(self.authority.enroll(enrolment).await?.issued.der().len())
    }

    /// How often the ledger was synced to disk since it was opened.
    pub(crate) fn syncs(&self) -> u64 {
        self.authority.ledger().syncs()
    }

    /// Entries in the ledger.
    pub(crate) fn entries(&self) -> u64 {
        self.authority.ledger().head().size
    }

    /// Closes the ledger, so that another process can open it.
    pub(crate) fn close(self) {
        self.authority.ledger().close();
    }
}

/// Rates and counts far above what one machine can send.
fn raise_limits(file: &Path) -> Result<()> {
    rewrite(file, |raw| {
        raw.limits.requests_per_second = 100_000_000;
        raw.limits.burst = 100_000_000;
        raw.limits.concurrent_requests = 100_000;
        raw.limits.connections = 100_000;
        raw.limits.connections_per_address = 100_000;
    })
}
