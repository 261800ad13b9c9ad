//! What the kubelet of this node says of a container: which pod it is of, and whose that pod is.
//!
//! The kubelet runs the pods, so nobody knows better. It lists all of them at once; one list serves everybody who
//! asks within half a second, and nobody makes it answer more often than that.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chancery_types::{ClaimValue, Claims, SecretString};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::config::KubeletConfig;
use super::http::{self, HttpError};
use pods::{Pod, Pods};

mod pods;

/// The kubelet of this node.
#[derive(Debug)]
pub(super) struct Kubelet {
    config: KubeletConfig,
    last: Mutex<Option<(Instant, Arc<Pods>)>>,
}

/// Why a container cannot be described.
#[derive(Debug, thiserror::Error)]
pub(super) enum KubeletError {
    /// It does not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The token cannot be read.
    #[error("cannot read the token {0}: {1}")]
    Token(PathBuf, #[source] std::io::Error),
    /// It lists no such container, even after a while.
    #[error("it does not list the container {0}")]
    NotListed(String),
}

impl Kubelet {
    pub(super) fn new(config: KubeletConfig) -> Self {
        Self { config, last: Mutex::new(None) }
    }

    /// `k8s.ns`, `k8s.sa`, `k8s.pod_name`, `k8s.pod_uid`, `k8s.pod_label`, `k8s.node_name`, `k8s.container_name`
    /// and `k8s.image`. A container that has just been started may not be listed yet, so it waits a little.
    pub(super) async fn describe(&self, pod: Option<&str>, container: &str) -> Result<Claims, KubeletError> {
        let until = Instant::now() + self.config.wait;
        loop {
            let pods = self.pods().await?;
            if let Some((found, running)) = pods.find(pod, container) {
                return Ok(claims(found, &running.name, [&running.image, &running.image_id]));
            }
            if Instant::now() + MAX_AGE > until {
                return Err(KubeletError::NotListed(container.to_owned()));
            }
            tokio::time::sleep(MAX_AGE).await;
        }
    }

    async fn pods(&self) -> Result<Arc<Pods>, KubeletError> {
        let mut last = self.last.lock().await;
        if let Some((at, pods)) = &*last
            && at.elapsed() < MAX_AGE
        {
            return Ok(Arc::clone(pods));
        }
        let limit = self.config.timeout;
        let answer =
            tokio::time::timeout(limit, self.fetch()).await.unwrap_or(Err(HttpError::Late(limit).into()))?;
        // Megabytes on a large node.
        let pods = tokio::task::spawn_blocking(move || serde_json::from_slice::<Pods>(&answer)).await;
        let pods = pods.map_err(|error| HttpError::Body(error.to_string()))?.map_err(HttpError::from)?;
        let pods = Arc::new(pods);
        *last = Some((Instant::now(), Arc::clone(&pods)));
        Ok(pods)
    }

    async fn fetch(&self) -> Result<Bytes, KubeletError> {
        let (host, port) = (&self.config.host, self.config.port);
        let failed = |error| HttpError::Connect(format!("{host}:{port}"), error);
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(failed)?;
        let Some(tls) = &self.config.tls else {
            return Ok(http::get(stream, host, PODS, None, MAX_ANSWER).await?);
        };
        let token = self.config.token_file.as_ref().map(read_token).transpose()?;
        let name =
            ServerName::try_from(host.clone()).map_err(|error| failed(std::io::Error::other(error)))?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(failed)?;
        Ok(http::get(stream, host, PODS, token.as_ref(), MAX_ANSWER).await?)
    }
}

fn claims(pod: &Pod, container: &str, images: [&String; 2]) -> Claims {
    let mut claims = Claims::new();
    let mut insert = |name: &str, text: &str| {
        if !text.is_empty() {
            claims.insert(format!("k8s.{name}"), text);
        }
    };
    insert("ns", &pod.metadata.namespace);
    insert("sa", &pod.spec.service_account_name);
    insert("pod_name", &pod.metadata.name);
    insert("pod_uid", &pod.metadata.uid);
    insert("node_name", &pod.spec.node_name);
    insert("container_name", container);
    let labels: Vec<_> = pod.metadata.labels.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    if !labels.is_empty() {
        claims.insert("k8s.pod_label", ClaimValue::List(labels));
    }
    let images: Vec<_> = images.into_iter().filter(|image| !image.is_empty()).cloned().collect();
    if !images.is_empty() {
        claims.insert("k8s.image", ClaimValue::List(images));
    }
    claims
}

/// Read every time: Kubernetes replaces it long before it ends.
fn read_token(path: &PathBuf) -> Result<SecretString, KubeletError> {
    use std::io::Read;
    let failed = |error| KubeletError::Token(path.clone(), error);
    let mut text = String::new();
    std::fs::File::open(path).map_err(failed)?.take(MAX_TOKEN).read_to_string(&mut text).map_err(failed)?;
    text.truncate(text.trim_end().len());
    Ok(SecretString::new(text))
}

const PODS: &str = "/pods";

/// How long a list is good for, and how often one is fetched at most.
const MAX_AGE: Duration = Duration::from_millis(500);

/// 250 pods of 64 KiB each.
const MAX_ANSWER: usize = 16 << 20;

const MAX_TOKEN: u64 = 64 * 1024;

#[cfg(test)]
mod tests;
