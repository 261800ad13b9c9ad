//! The core behind the doors: what a workload is entitled to, from what is held, or fetched while it waits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chancery_api::{AgentIdentity, AgentJwtRequest};
use chancery_types::SpiffeId;
use tokio::sync::watch;

use crate::identities::{Bundles, Identities, JwtError, JwtSvid, X509State};
use crate::link::{Authority, is_refusal};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::timing::Pace;
use crate::tokens::Tokens;
use crate::workload::{Depth, Workload};

/// How long a workload waits for its first certificates, before it is told what there is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves the doors.
pub(crate) struct Core {
    pub(crate) store: Arc<Store>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) pace: Pace,
    pub(crate) metrics: Arc<Metrics>,
}

#[async_trait]
impl Identities for Core {
    async fn x509(&self, workload: &Workload) -> watch::Receiver<Arc<X509State>> {
        let Some(mut receiver) = self.store.subscribe(&workload.claims) else {
            // There is no room for another listener; nobody is told anything.
            return watch::Sender::default().subscribe();
        };
        self.store.settle(&workload.claims, PATIENCE).await;
        receiver.mark_unchanged();
        receiver
    }

    fn depth(&self) -> watch::Receiver<Depth> {
        self.store.depth()
    }

    fn bundles(&self) -> watch::Receiver<Arc<Bundles>> {
        self.store.bundles()
    }

    async fn is_entitled(&self, workload: &Workload) -> bool {
        self.store.is_entitled(&workload.claims)
    }

    async fn jwt(
        &self,
        workload: &Workload,
        audiences: &[String],
        identity: Option<&SpiffeId>,
    ) -> Result<Vec<JwtSvid>, JwtError> {
        let mut matching = self.store.matching(&workload.claims);
        if let Some(wanted) = identity {
            matching.retain(|identity| identity.spiffe_id == *wanted);
        }
        if matching.is_empty() {
            return Err(JwtError::NoIdentity);
        }
        let mut tokens = Vec::with_capacity(matching.len());
        for identity in &matching {
            tokens.push(self.token(workload, identity, audiences).await?);
        }
        Ok(tokens)
    }
}

impl Core {
    async fn token(
        &self,
        workload: &Workload,
        identity: &AgentIdentity,
        audiences: &[String],
    ) -> Result<JwtSvid, JwtError> {
        let id = &identity.spiffe_id;
        if let Some(token) = self.tokens.fresh(id, audiences, self.pace.now()) {
            return Ok(token);
        }
        let request = AgentJwtRequest {
            identity: id.clone(),
            audiences: audiences.to_vec(),
            claims: workload.claims.clone(),
        };
        match self.authority.jwt(&request).await {
            Ok(answer) => {
                self.metrics.tokens.inc();
                let token = JwtSvid {
                    spiffe_id: id.clone(),
                    token: answer.token.expose_secret().to_owned(),
                    hint: identity.hint.clone().unwrap_or_default(),
                    expires: answer.expires,
                };
                self.tokens.keep(audiences, token.clone(), self.pace.now());
                Ok(token)
            }
            Err(error) if is_refusal(&error) => Err(JwtError::Refused(error.to_string())),
            Err(error) => self
                .tokens
                .valid(id, audiences, self.pace.now())
                .ok_or_else(|| JwtError::Unavailable(error.to_string())),
        }
    }
}
