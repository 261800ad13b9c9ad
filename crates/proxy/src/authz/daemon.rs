//! The service as a process.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chancery_agent::notify::Supervisor;
use chancery_api::RelyingPartyKind;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tower::Service as _;

use super::config::AuthzConfig;
use super::proto::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use super::{Decider, nginx};
use crate::console::{self, Console};
use crate::mistakes::ConfigError;
use crate::signals::{Signals, feed};
use crate::source::{SharedSource, SourceError};
use crate::tunnel::{Address, Listening};

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum AuthzError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is nothing to judge peers by.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It cannot listen.
    #[error("cannot listen at {place}: {error}")]
    Listen {
        /// Where.
        place: String,
        /// Why not.
        error: std::io::Error,
    },
    /// The operating system does not deliver signals.
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
}

/// A running service; it ends when this is dropped.
pub struct Running {
    source: SharedSource,
    decider: Decider,
    nginx: Option<SocketAddr>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// [`AuthzError`].
pub async fn run(config: AuthzConfig) -> Result<(), AuthzError> {
    let supervisor = Supervisor::from_environment();
    let mut signals = Signals::new().map_err(AuthzError::Signals)?;
    let _running = tokio::select! {
        running = Running::start(config) => running?,
        () = signals.stop() => return Ok(()),
        () = feed(&supervisor) => unreachable!("the watchdog is fed for ever"),
    };
    supervisor.ready("answering proxies");
    tokio::select! {
        () = signals.stop() => supervisor.stopping(),
        () = feed(&supervisor) => unreachable!("the watchdog is fed for ever"),
    }
    Ok(())
}

impl Running {
    /// Obtains credentials, learns the status of certificates, and listens.
    ///
    /// # Errors
    /// [`AuthzError`].
    pub async fn start(config: AuthzConfig) -> Result<Self, AuthzError> {
        let source = Arc::new(config.source.start(RelyingPartyKind::Authorization, "authz").await?);
        let decider = Decider::new(source.judge(config.allow.allowed()));
        let following = {
            let source = source.clone();
            decider.clone().follow_issuers(move || source.client())
        };
        let mut tasks = vec![AbortOnDropHandle::new(tokio::spawn(following))];
        let mut at_nginx = None;
        for (address, door) in [(&config.envoy, Door::Envoy), (&config.nginx, Door::Nginx)] {
            let Some(address) = address else { continue };
            let listening = listen(address).await?;
            if let Door::Nginx = door {
                at_nginx = listening.address();
            }
            tracing::info!(%address, ?door, "answering");
            tasks.push(AbortOnDropHandle::new(tokio::spawn(accept(listening, door, decider.clone()))));
        }
        if let Some(address) = &config.metrics {
            let fail = |error| AuthzError::Listen { place: address.to_string(), error };
            tasks.push(console::serve(address, Arc::new(Health(source.clone()))).await.map_err(fail)?);
        }
        Ok(Self { source, decider, nginx: at_nginx, _tasks: tasks })
    }

    /// Waits until everything is known of status that there is to know.
    pub async fn ready(&self) {
        self.source.ready().await;
    }

    /// What it decides by.
    #[must_use]
    pub fn decider(&self) -> &Decider {
        &self.decider
    }

    /// Where nginx asks, with the port that the system chose.
    #[must_use]
    pub fn nginx_address(&self) -> Option<SocketAddr> {
        self.nginx
    }
}

#[derive(Debug, Clone, Copy)]
enum Door {
    Envoy,
    Nginx,
}

async fn listen(address: &Address) -> Result<Listening, AuthzError> {
    Listening::at(address).await.map_err(|error| AuthzError::Listen { place: address.to_string(), error })
}

async fn accept(listening: Listening, door: Door, decider: Decider) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        let socket = match listening.accept().await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let decider = decider.clone();
        tokio::spawn(async move {
            let mut http = auto::Builder::new(TokioExecutor::new());
            http.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(HEADERS);
            http.http2().timer(TokioTimer::new()).max_concurrent_streams(MOST_CALLS);
            let socket = TokioIo::new(socket);
            let ended = match door {
                Door::Envoy => {
                    let authorization = AuthorizationServer::new(decider).max_decoding_message_size(MESSAGE);
                    let service =
                        service_fn(move |request: Request<Incoming>| authorization.clone().call(request));
                    http.http2_only().serve_connection(socket, service).await
                }
                Door::Nginx => {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answer = nginx::answer(&decider, request.headers());
                        async { Ok::<_, Infallible>(answer) }
                    });
                    http.http1_only().serve_connection(socket, service).await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(error, ?door, "a connection ended");
            }
            drop(permit);
        });
    }
}

struct Health(SharedSource);

impl Console for Health {
    fn metrics(&self) -> String {
        let view = self.0.view();
        let age = view.age.map_or(-1, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        format!(
            "# TYPE chancery_authz_status_sequence gauge\nchancery_authz_status_sequence {}\n\
             # TYPE chancery_authz_status_age_seconds gauge\nchancery_authz_status_age_seconds {age}\n# EOF\n",
            view.sequence
        )
    }

    fn trouble(&self) -> Option<String> {
        (!self.0.is_fresh()).then(|| "the status of certificates is not known well enough".to_owned())
    }
}

/// Connections of proxies at once.
const MOST_CONNECTIONS: usize = 1024;
/// Calls on one of Envoy's connections at once.
const MOST_CALLS: u32 = 1024;
/// Bytes of a question: a certificate, every character of it escaped, and what Envoy says besides.
const MESSAGE: usize = 1 << 20;
/// Bytes of the headers of a question.
const HEADERS: usize = 256 << 10;
/// For the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
