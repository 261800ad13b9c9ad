//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::config::DoorLimits;
use super::metrics::Counted;
use super::router::Router;
use super::shares::{CallPlace, Charge, Metered, Place};
use super::visit::Caller;
use crate::workload::Process;

/// A connection that was let in.
pub(crate) struct Connection {
    pub(crate) router: Router,
    pub(crate) place: Place,
    pub(crate) process: Option<Arc<dyn Process>>,
}

impl Connection {
    /// Answers calls until the connection ends, is silent for too long, or the agent stops.
    pub(crate) async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let desk = Arc::clone(self.router.desk());
        let limits = desk.config.limits;
        let _counted = Counted::new(desk.metrics.connections.clone());
        let (open, mut calls) = watch::channel(0_usize);
        let service = service_fn(|request| self.answer(request, limits.answer, &open));
        let mut connection = pin!(http2(&limits).serve_connection(TokioIo::new(stream), service));
        let mut end = End::NotBegun { until: Instant::now() + limits.handshake };
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "a local connection ended");
                    }
                    return;
                }
                () = desk.stopping.cancelled(), if !matches!(end, End::Retiring { .. }) => {
                    if matches!(end, End::NotBegun { .. }) {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    end = End::Retiring { until: None };
                }
                changed = calls.changed() => {
                    let count = *calls.borrow_and_update();
                    match end {
                        _ if changed.is_err() => {}
                        End::Retiring { .. } => {}
                        _ if count > 0 => end = End::Busy,
                        _ => end = End::Idle { until: Instant::now() + limits.idle },
                    }
                }
                () = moment(end.until()) => {
                    match end {
                        // Whoever has not asked anything loses nothing.
                        End::NotBegun { .. } => return desk.metrics.close_connection("no-call"),
                        End::Idle { .. } => desk.metrics.close_connection("idle"),
                        End::Busy | End::Retiring { .. } => return,
                    }
                    connection.as_mut().graceful_shutdown();
                    end = End::Retiring { until: Some(Instant::now() + GOODBYE) };
                }
            }
        }
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        patience: Duration,
        open: &watch::Sender<usize>,
    ) -> impl Future<Output = Result<Response<Answer>, Infallible>> + use<> {
        let guard = OpenCall::begin(open, self.place.share.call());
        let charge = Charge::new(Arc::clone(&self.place.share));
        let caller = Caller {
            process: self.process.clone(),
            share: Arc::clone(&self.place.share),
            charge: charge.clone(),
        };
        let mut request = request.map(|body| Metered::new(body, charge));
        request.extensions_mut().insert(caller);
        let router = self.router.clone();
        async move {
            let response = if guard.place.is_none() {
                Status::resource_exhausted("this user has too many calls and streams open").into_http()
            } else {
                let response = tokio::time::timeout(patience, router.call(request)).await;
                response.unwrap_or_else(|_| Status::unavailable(NO_ANSWER).into_http())
            };
            Ok(response.map(|body| Answer { body, guard: Some(guard) }))
        }
    }
}

/// How a connection will end, if it does not do so by itself.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Nothing was ever asked.
    NotBegun { until: Instant },
    /// Nothing is being asked.
    Idle { until: Instant },
    /// Something is being asked.
    Busy,
    /// The caller was told to go.
    Retiring { until: Option<Instant> },
}

impl End {
    fn until(self) -> Option<Instant> {
        match self {
            Self::NotBegun { until } | Self::Idle { until } => Some(until),
            Self::Busy => None,
            Self::Retiring { until } => until,
        }
    }
}

async fn moment(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// A call that is under way until it is dropped.
#[derive(Debug)]
struct OpenCall {
    open: watch::Sender<usize>,
    /// None if its user has no right to one more.
    place: Option<CallPlace>,
}

impl OpenCall {
    fn begin(open: &watch::Sender<usize>, place: Option<CallPlace>) -> Self {
        open.send_modify(|count| *count += 1);
        Self { open: open.clone(), place }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.open.send_modify(|count| *count -= 1);
    }
}

/// The body of a response, which keeps its call open until it has been handed over.
#[derive(Debug)]
struct Answer {
    body: tonic::body::Body,
    guard: Option<OpenCall>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if matches!(frame, None | Some(Err(_))) {
            self.guard = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn http2(limits: &DoorLimits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADER_BYTES)
        .keep_alive_interval(limits.keepalive)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

const NO_ANSWER: &str = "the agent has no answer yet, or the request did not come whole; try again";
/// How long a caller may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// Bytes that one call, and all calls of a connection, may send ahead of being read.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Bytes of answers that wait for a caller that does not read them, for each call.
const SEND_BUFFER: usize = 64 * 1024;
/// The headers of one call.
const HEADER_BYTES: u32 = 16 * 1024;
