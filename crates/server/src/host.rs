//! One connection, from its first byte to its last, whatever it runs over.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::future::RouteFuture;
use chancery_api::limits;
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tower::Service;

use crate::activity::{Activity, ConnectionTimeouts, Guarded, RequestGuard, Verdict, Watched};
use crate::handover::carry;
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
    // No `async fn`: it would hold the stream twice, once as it was given and once in HTTP's hands.
    pub(crate) fn serve<S>(
        &self,
        stream: S,
        protocol: Protocol,
        peer: Peer,
    ) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::new(Instant::now()));
        let stream = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
        let answers =
            Answers { router: self.router.clone(), peer: peer.clone(), activity: Arc::clone(&activity) };
        let connection = match protocol {
            Protocol::Http1 => Connection::Http1(Box::new(http1().serve_connection(stream, answers))),
            Protocol::Http2 => Connection::Http2(Box::new(http2().serve_connection(stream, answers))),
        };
        let host = self.clone();
        async move {
            let _counted = Counted::new(&host.metrics.connections);
            let Some(stream) = host.answer(connection, &activity, &peer).await else { return };
            let Some(parts) = activity.handover().take() else { return };
            drop(activity);
            if let Err(reason) = carry(stream, parts, host.timeouts.stalled).await {
                host.metrics.closed_connection(reason);
                tracing::debug!(peer = peer.describe(), reason, "connection cut");
            }
        }
    }

    /// Until it is over, or an answer that lasts has taken the stream over.
    async fn answer<S>(&self, mut connection: Connection<S>, activity: &Activity, peer: &Peer) -> Option<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let is_http1 = matches!(connection, Connection::Http1(_));
        let mut next_look = Instant::now() + self.timeouts.head;
        let mut retiring = false;
        let mut last_moment = None;
        loop {
            tokio::select! {
                ended = std::future::poll_fn(|context| connection.poll(context, activity)) => match ended {
                    End::HandedOver => return connection.into_stream(),
                    End::Over(result) => {
                        if let Err(error) = result {
                            tracing::debug!(peer = peer.describe(), %error, "connection ended");
                        }
                        return None;
                    }
                },
                () = self.shutdown.begun(), if !retiring => {
                    retiring = true;
                    connection.retire();
                }
                () = tokio::time::sleep_until(next_look) => {
                    let now = Instant::now();
                    if last_moment.is_some_and(|moment| now >= moment) {
                        return None;
                    }
                    match activity.verdict(self.timeouts, is_http1, now) {
                        Verdict::WaitUntil(moment) => next_look = moment,
                        Verdict::Retire => {
                            self.metrics.closed_connection("idle");
                            retiring = true;
                            connection.retire();
                            next_look = now + GOODBYE;
                            last_moment = Some(next_look);
                        }
                        Verdict::Cut(reason) => {
                            self.metrics.closed_connection(reason);
                            tracing::debug!(peer = peer.describe(), reason, "connection cut");
                            return None;
                        }
                    }
                }
            }
        }
    }
}

/// A connection in HTTP's hands.
enum Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Http1(Box<http1::Connection<TokioIo<Watched<S>>, Answers>>),
    Http2(Box<http2::Connection<TokioIo<Watched<S>>, Answers, TokioExecutor>>),
}

/// Why HTTP is done with a connection.
enum End {
    Over(hyper::Result<()>),
    HandedOver,
}

impl<S> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn poll(&mut self, context: &mut Context<'_>, activity: &Activity) -> Poll<End> {
        let polled = match self {
            Self::Http1(connection) => Pin::new(connection.as_mut()).poll(context),
            Self::Http2(connection) => Pin::new(connection.as_mut()).poll(context),
        };
        match polled {
            Poll::Ready(result) => Poll::Ready(End::Over(result)),
            Poll::Pending if activity.handover().is_ready() => Poll::Ready(End::HandedOver),
            Poll::Pending => Poll::Pending,
        }
    }

    /// It finishes the requests that it has.
    fn retire(&mut self) {
        match self {
            Self::Http1(connection) => Pin::new(connection.as_mut()).graceful_shutdown(),
            Self::Http2(connection) => Pin::new(connection.as_mut()).graceful_shutdown(),
        }
    }

    /// The stream below; only HTTP/1.1 has one that can be used further.
    fn into_stream(self) -> Option<S> {
        match self {
            Self::Http1(connection) => Some(connection.into_parts().io.into_inner().into_inner()),
            Self::Http2(_) => None,
        }
    }
}

/// What answers the requests of one connection.
struct Answers {
    router: Router,
    peer: Peer,
    activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for Answers {
    type Response = Response<Guarded<RequestGuard>>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Answering {
        let guard = RequestGuard::begin(&self.activity);
        request.extensions_mut().insert(self.peer.clone());
        if request.version() == Version::HTTP_11 && request.method() == Method::GET {
            request.extensions_mut().insert(self.activity.handover().clone());
        }
        Answering { route: self.router.clone().call(request.map(Body::new)), guard: Some(guard) }
    }
}

/// One request, until its answer begins.
struct Answering {
    route: RouteFuture<Infallible>,
    guard: Option<RequestGuard>,
}

impl Future for Answering {
    type Output = Result<Response<Guarded<RequestGuard>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.route).poll(context))?;
        let guard = self.guard.take();
        Poll::Ready(Ok(response.map(|body| Guarded::new(body, guard))))
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

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // hyper's timeout would also end connections that merely wait for their next request.
        .header_read_timeout(None)
        .max_buf_size(limits::HEADER_BYTES);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits::HEADER_BYTES).expect("the limit is small"))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
