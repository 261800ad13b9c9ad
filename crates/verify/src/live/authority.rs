//! The way to the authority, with whatever credentials this program has at the moment.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chancery_client::{Client, ClientError, Endpoint, RetryPolicy, TlsIdentity, TrustAnchors};
use chancery_types::TrustDomain;
use rustls_pki_types::CertificateDer;

use super::Credentials;

/// How long a request, or the next part of an answer, may take: longer than the silence that the feed allows itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// An authority: where it is, and who we are to it. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Authority {
    endpoint: Endpoint,
    trust_domain: TrustDomain,
    credentials: Credentials,
    way: Arc<Mutex<Option<Way>>>,
}

#[derive(Debug)]
struct Way {
    /// Of the credentials that it was made with.
    version: u64,
    roots: Vec<CertificateDer<'static>>,
    /// Rises with every other client.
    generation: u64,
    client: Client,
}

impl Authority {
    /// The authority of a trust domain. Its server is verified by the roots that the credentials have for the domain,
    /// and by its name.
    #[must_use]
    pub fn new(endpoint: Endpoint, trust_domain: TrustDomain, credentials: &Credentials) -> Self {
        Self { endpoint, trust_domain, credentials: credentials.clone(), way: Arc::default() }
    }

    /// Whose certificates it issues.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// A client with the newest credentials, and its generation: another one means that other roots count.
    pub(crate) fn client(&self) -> Result<(u64, Client), ClientError> {
        let version = self.credentials.version();
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = &*way
            && way.version == version
        {
            return Ok((way.generation, way.client.clone()));
        }
        let roots = self.credentials.bundles().get(&self.trust_domain).cloned().unwrap_or_default();
        let identity = self.credentials.identity();
        match &mut *way {
            Some(way) if way.roots == roots => {
                way.client.replace_identity(identity.as_ref())?;
                way.version = version;
                Ok((way.generation, way.client.clone()))
            }
            other => {
                let client = self.build(&roots, identity)?;
                let generation = other.as_ref().map_or(0, |way| way.generation) + 1;
                *other = Some(Way { version, roots, generation, client: client.clone() });
                Ok((generation, client))
            }
        }
    }

    fn build(
        &self,
        roots: &[CertificateDer<'static>],
        identity: Option<TlsIdentity>,
    ) -> Result<Client, ClientError> {
        let mut builder = Client::builder(self.endpoint.clone())
            .trust(TrustAnchors::from_certificates(roots.iter().cloned())?)
            .request_timeout(PATIENCE)
            .retry(RetryPolicy::never());
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        builder.build()
    }
}
