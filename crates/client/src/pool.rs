//! The connections that are open and idle, so that the next request need not shake hands again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{Request, Response};
use rustls::ClientConfig;

use crate::connection::{Body, Connection, SendError};
use crate::tls::http1_only;
use crate::{ClientError, Endpoint};

/// Idle HTTP/1.1 connections that are kept; more are closed.
const IDLE_CONNECTIONS: usize = 64;

/// The open connections to one endpoint.
#[derive(Debug)]
pub(crate) struct Pool {
    endpoint: Endpoint,
    connect_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Absent for sockets.
    tls: Option<Arc<ClientConfig>>,
    /// Rises when the TLS configuration is replaced, so that connections of the old one are not kept.
    generation: u64,
    idle: Vec<Connection>,
    shared: Option<http2::SendRequest<Body>>,
}

/// A response whose body is still on its way.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) response: Response<Incoming>,
    /// Absent for HTTP/2, whose connection others use at the same time.
    connection: Option<Connection>,
    generation: u64,
}

impl Pool {
    pub(crate) fn new(endpoint: Endpoint, tls: Option<Arc<ClientConfig>>, connect_timeout: Duration) -> Self {
        let state = State { tls, generation: 0, idle: Vec::new(), shared: None };
        Self { endpoint, connect_timeout, state: Mutex::new(state) }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Uses another TLS configuration from now on. Requests under way finish on their connections.
    pub(crate) fn replace_tls(&self, tls: Arc<ClientConfig>) {
        let mut state = self.lock();
        state.tls = Some(tls);
        state.generation += 1;
        state.idle.clear();
        state.shared = None;
    }

    /// Sends a request on an idle connection, or on a new one.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Result<Lease, ClientError> {
        // A connection that was closed while it was idle shows it only now; every round discards one.
        loop {
            let (mut connection, generation, reused) = self.connection().await?;
            match connection.send(request).await {
                Ok(response) => {
                    let connection = matches!(connection, Connection::Http1(_)).then_some(connection);
                    return Ok(Lease { response, connection, generation });
                }
                Err(SendError::NotSent(returned)) if reused => request = *returned,
                Err(error) => return Err(self.unanswered(error)),
            }
        }
    }

    /// Sends a request on a connection of its own, over HTTP/1.1: an answer that may last for days then holds up
    /// nothing else, and costs the server less memory.
    pub(crate) async fn send_alone(&self, request: Request<Body>) -> Result<Lease, ClientError> {
        let (generation, tls) = {
            let state = self.lock();
            (state.generation, state.tls.as_deref().map(http1_only))
        };
        let mut connection = Connection::open(&self.endpoint, tls, self.connect_timeout).await?;
        let response = connection.send(request).await.map_err(|error| self.unanswered(error))?;
        Ok(Lease { response, connection: Some(connection), generation })
    }

    fn unanswered(&self, error: SendError) -> ClientError {
        let endpoint = self.endpoint.to_string();
        match error {
            SendError::NotSent(_) => {
                ClientError::Connect { endpoint, source: std::io::ErrorKind::ConnectionReset.into() }
            }
            SendError::Broken(source) => ClientError::Broken { endpoint, source },
        }
    }

    /// Takes the connection of a response that was read to its end back.
    pub(crate) fn give_back(&self, lease: Lease) {
        let Some(connection) = lease.connection else { return };
        let mut state = self.lock();
        if state.generation == lease.generation
            && state.idle.len() < IDLE_CONNECTIONS
            && !connection.is_closed()
        {
            state.idle.push(connection);
        }
    }

    /// A connection that is ready, the generation it belongs to, and whether it was used before.
    async fn connection(&self) -> Result<(Connection, u64, bool), ClientError> {
        loop {
            let (candidate, generation, tls) = self.candidate();
            let Some(mut candidate) = candidate else {
                let opened = Connection::open(&self.endpoint, tls, self.connect_timeout).await?;
                return Ok((self.share(opened, generation), generation, false));
            };
            if candidate.ready().await {
                return Ok((candidate, generation, true));
            }
        }
    }

    fn candidate(&self) -> (Option<Connection>, u64, Option<Arc<ClientConfig>>) {
        let mut state = self.lock();
        if state.shared.as_ref().is_some_and(http2::SendRequest::is_closed) {
            state.shared = None;
        }
        let shared = state.shared.clone().map(Connection::Http2);
        let candidate = shared.or_else(|| state.idle.pop());
        (candidate, state.generation, state.tls.clone())
    }

    /// Lets others use a new HTTP/2 connection too.
    fn share(&self, connection: Connection, generation: u64) -> Connection {
        if let Connection::Http2(sender) = &connection {
            let mut state = self.lock();
            if state.generation == generation && state.shared.is_none() {
                state.shared = Some(sender.clone());
            }
        }
        connection
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The next part of the body; nothing at its end.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        while let Some(frame) = self.response.body_mut().frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}
