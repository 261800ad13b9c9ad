//! One connection, from its first byte to its last, whatever it runs over.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use chancery_api::limits;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tower::Service;

use crate::activity::{Activity, ConnectionTimeouts, Guarded, RequestGuard, Verdict, Watched};
use crate::metrics::{Counted, Metrics};
use crate::{Peer, Shutdown};

/// Serves connections: a router, and the bounds that hold for each of them.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) router: Router,
    pub(crate) timeouts: ConnectionTimeouts,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
}

/// Which HTTP a connection speaks: settled by ALPN, or by convention on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Host {
    /// Answers requests until the connection ends, times out, or the server stops.
    pub(crate) async fn serve<S>(&self, stream: S, protocol: Protocol, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _counted = Counted::new(&self.metrics.connections);
        let activity = Arc::new(Activity::new(Instant::now()));
        let stream = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
        let service = service_fn(|request| self.answer(request, &peer, &activity));
        let builder = http(protocol);
        let mut connection = pin!(builder.serve_connection(stream, service));
        let mut next_look = Instant::now() + self.timeouts.head;
        let mut retiring = false;
        let mut last_moment = None;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(peer = peer.describe(), %error, "connection ended");
                    }
                    return;
                }
                () = self.shutdown.begun(), if !retiring => {
                    retiring = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = tokio::time::sleep_until(next_look) => {
                    let now = Instant::now();
                    if last_moment.is_some_and(|moment| now >= moment) {
                        return;
                    }
                    match activity.verdict(self.timeouts, protocol == Protocol::Http1, now) {
                        Verdict::WaitUntil(moment) => next_look = moment,
                        Verdict::Retire => {
                            self.metrics.closed_connection("idle");
                            retiring = true;
                            connection.as_mut().graceful_shutdown();
                            next_look = now + GOODBYE;
                            last_moment = Some(next_look);
                        }
                        Verdict::Cut(reason) => {
                            self.metrics.closed_connection(reason);
                            tracing::debug!(peer = peer.describe(), reason, "connection cut");
                            return;
                        }
                    }
                }
            }
        }
    }

    fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: &Peer,
        activity: &Arc<Activity>,
    ) -> impl Future<Output = Result<Response<Guarded<RequestGuard>>, Infallible>> + use<> {
        let guard = RequestGuard::begin(activity);
        request.extensions_mut().insert(peer.clone());
        let mut router = self.router.clone();
        async move {
            let response = router.call(request.map(Body::new)).await?;
            Ok(response.map(|body| Guarded::new(body, guard)))
        }
    }
}

/// How long an idle client may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// Bytes that one HTTP/2 stream, and the whole connection, may send ahead of being read.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// How often a silent HTTP/2 peer is asked whether it is there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

fn http(protocol: Protocol) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        // hyper's timeout would also end connections that merely wait for their next request.
        .header_read_timeout(None)
        .max_buf_size(limits::HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits::HEADER_BYTES).expect("the limit is small"))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
