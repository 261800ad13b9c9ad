//! What Docker or Podman says of a container, through its UNIX socket.
//!
//! Whoever can answer on that socket can start containers of its choice, so its word is as good as theirs. Labels
//! and images cannot be changed while a container lives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use chancery_types::{ClaimValue, Claims};
use hyper::StatusCode;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::cgroup::Runtime;
use super::config::EngineConfig;
use super::http::{self, HttpError};

/// A container engine with Docker's API.
#[derive(Debug)]
pub(super) struct Engine {
    runtime: Runtime,
    socket: PathBuf,
    timeout: Duration,
}

impl Engine {
    pub(super) fn new(runtime: Runtime, config: &EngineConfig) -> Self {
        Self { runtime, socket: config.socket.clone(), timeout: config.timeout }
    }

    pub(super) fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// `docker.label`, `docker.image`, `docker.image_id` and `docker.image_digest` of a container, or the same of
    /// `podman`.
    pub(super) async fn describe(&self, container: &str) -> Result<Claims, HttpError> {
        tokio::time::timeout(self.timeout, self.ask(container))
            .await
            .unwrap_or(Err(HttpError::Late(self.timeout)))
    }

    async fn ask(&self, container: &str) -> Result<Claims, HttpError> {
        let found: Container = self.get(&format!("/containers/{container}/json")).await?;
        let image_id = found.image.filter(|id| is_digest(id));
        let digests = match &image_id {
            Some(id) => self.digests(id).await?,
            None => None,
        };
        // A name with a colon could be read as another name and the beginning of its value.
        let labels = found.config.labels.unwrap_or_default().into_iter();
        let labels = labels.filter(|(name, _)| !name.contains(':'));
        let labels = labels.map(|(name, value)| format!("{name}:{value}")).collect();
        let mut claims = Claims::new();
        let mut insert = |name: &str, texts: Vec<String>| {
            if !texts.is_empty() {
                claims.insert(format!("{}.{name}", self.runtime.as_str()), ClaimValue::List(texts));
            }
        };
        insert("label", labels);
        insert("image", found.config.image.into_iter().collect());
        insert("image_id", image_id.into_iter().collect());
        insert("image_digest", digests.unwrap_or_default());
        Ok(claims)
    }

    /// The digests under which an image was pulled or pushed. A container outlives the removal of its image.
    async fn digests(&self, image: &str) -> Result<Option<Vec<String>>, HttpError> {
        match self.get::<Image>(&format!("/images/{image}/json")).await {
            Ok(image) => Ok(image.repo_digests),
            Err(HttpError::Status(StatusCode::NOT_FOUND)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, HttpError> {
        let answer = self.fetch(&self.socket, path).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    async fn fetch(&self, socket: &Path, path: &str) -> Result<Bytes, HttpError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| HttpError::Connect(socket.display().to_string(), error))?;
        http::get(stream, "localhost", path, None, MAX_ANSWER).await
    }
}

/// What is used of `GET /containers/ID/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    #[serde(default)]
    image: Option<String>,
    config: ContainerConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerConfig {
    #[serde(default)]
    image: Option<String>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// What is used of `GET /images/ID/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
}

/// `sha256:` and 64 digits; Podman leaves the algorithm out.
fn is_digest(id: &str) -> bool {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

const MAX_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests;
