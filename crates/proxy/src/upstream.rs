//! The authority, as relying parties reach it: where it is, why it is believed, and as whom it is asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chancery_client::{Client, ClientError, Endpoint, TrustAnchors};
use chancery_verify::live::Credentials;
use chancery_x509::{Certificate, read_certificates};
use tokio::sync::watch;

use crate::mistakes::Mistakes;
use crate::source::{CredentialSource, RawCredentials};

/// Where the authority is and how it is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Where.
    pub server: Endpoint,
    /// Its roots, PEM.
    pub trust_bundle: PathBuf,
    /// As whom it is asked; nobody in particular if absent, which the status feed does not take.
    pub identity: Option<CredentialSource>,
}

/// Why the authority cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The roots cannot be read.
    #[error("{path}: {why}")]
    Bundle {
        /// Where they should be.
        path: String,
        /// Why they are not.
        why: String,
    },
    /// The client cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Upstream {
    pub(crate) fn check(
        server: &str,
        trust_bundle: &Path,
        identity: Option<RawCredentials>,
        directory: &Path,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let server = mistakes.keep("server", server.parse::<Endpoint>());
        if matches!(server, Some(Endpoint::Unix(_))) {
            mistakes.add("server: a relying party asks over TLS; write https://host:port");
        }
        let identity = match identity {
            Some(mut raw) => {
                // The roots are named once, for whatever is fetched.
                if raw.workload_api.is_none() {
                    raw.trust_bundle.get_or_insert_with(|| trust_bundle.to_owned());
                }
                Some(CredentialSource::check(raw, directory, mistakes)?)
            }
            None => None,
        };
        Some(Self { server: server?, trust_bundle: directory.join(trust_bundle), identity })
    }

    /// The roots.
    ///
    /// # Errors
    /// [`UpstreamError::Bundle`].
    pub fn roots(&self) -> Result<Vec<Certificate>, UpstreamError> {
        let fail = |why: String| UpstreamError::Bundle { path: self.trust_bundle.display().to_string(), why };
        let pem = std::fs::read(&self.trust_bundle).map_err(|error| fail(error.to_string()))?;
        let roots = read_certificates(&pem, MOST_ROOTS).map_err(|error| fail(error.to_string()))?;
        roots.iter().map(|der| Certificate::from_der(der).map_err(|error| fail(error.to_string()))).collect()
    }

    /// A client that always shows the newest credential. With an identity it waits for the first one.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn client(&self) -> Result<Client, UpstreamError> {
        let roots = self.roots()?.into_iter().map(|root| root.der().to_vec().into());
        let anchors = TrustAnchors::from_certificates(roots).map_err(ClientError::from)?;
        let builder = Client::builder(self.server.clone()).trust(anchors).response_bytes(MOST_BYTES);
        let Some(source) = &self.identity else { return Ok(builder.build()?) };
        let credentials = loop {
            match source.open().await {
                Ok(credentials) => break credentials,
                Err(error) => tracing::warn!(%error, "there is no credential yet"),
            }
            tokio::time::sleep(AGAIN).await;
        };
        let changes = credentials.changes();
        let builder = match credentials.identity() {
            Some(identity) => builder.identity(identity),
            None => builder,
        };
        let client = builder.build()?;
        tokio::spawn(renew(client.clone(), credentials, changes));
        Ok(client)
    }
}

async fn renew(client: Client, credentials: Credentials, mut changes: watch::Receiver<u64>) {
    while changes.changed().await.is_ok() {
        if let Err(error) = client.replace_identity(credentials.identity().as_ref()) {
            tracing::error!(%error, "the new credential cannot be shown to the authority; the one in use stays");
        }
    }
}

/// Between two looks for the first credential.
const AGAIN: Duration = Duration::from_secs(1);
/// Roots that are read.
const MOST_ROOTS: usize = 64;
/// Bytes of an answer: a list of a million entries.
const MOST_BYTES: usize = 64 << 20;
