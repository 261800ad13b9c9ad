//! What happens on one connection, and how long nothing may: the defence against those who hold connections
//! open and send a byte now and then.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::handover::Handover;

/// How long nothing may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionTimeouts {
    /// From the first byte of a request's head to its last (HTTP/1.1, where a head is all that can come).
    pub head: Duration,
    /// Without any request.
    pub idle: Duration,
    /// With a request under way, and no byte moving in either direction.
    pub stalled: Duration,
}

/// The clock hands of one connection, moved by its stream and its requests and read by its watch. Times are
/// milliseconds since it was opened.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    requests: AtomicUsize,
    last_request: AtomicU64,
    last_byte: AtomicU64,
    /// When the first byte of a head came; [`NO_HEAD`] between requests.
    head: AtomicU64,
    handover: Handover,
}

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look again at this moment.
    WaitUntil(Instant),
    /// Let it finish what it has, and close it.
    Retire,
    /// Close it now; the reason is for the metrics.
    Cut(&'static str),
}

const NO_HEAD: u64 = u64::MAX;

impl Activity {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            opened: now,
            requests: AtomicUsize::new(0),
            last_request: AtomicU64::new(0),
            last_byte: AtomicU64::new(0),
            head: AtomicU64::new(NO_HEAD),
            handover: Handover::default(),
        }
    }

    /// Where an answer that lasts is laid.
    pub(crate) fn handover(&self) -> &Handover {
        &self.handover
    }

    /// What the timeouts say now. `heads` is whether a byte without a request must belong to a head.
    pub(crate) fn verdict(&self, timeouts: ConnectionTimeouts, heads: bool, now: Instant) -> Verdict {
        if self.requests.load(Ordering::Acquire) > 0 {
            let end = self.moment(&self.last_byte) + timeouts.stalled;
            return if now >= end { Verdict::Cut("stalled") } else { Verdict::WaitUntil(end) };
        }
        let idle_end = self.moment(&self.last_request) + timeouts.idle;
        if now >= idle_end {
            return Verdict::Retire;
        }
        if !heads || self.head.load(Ordering::Acquire) == NO_HEAD {
            return Verdict::WaitUntil(idle_end.min(now + timeouts.head));
        }
        let head_end = self.moment(&self.head) + timeouts.head;
        if now >= head_end { Verdict::Cut("slow-head") } else { Verdict::WaitUntil(head_end.min(idle_end)) }
    }

    fn moment(&self, hand: &AtomicU64) -> Instant {
        self.opened + Duration::from_millis(hand.load(Ordering::Acquire))
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NO_HEAD - 1)
    }

    fn read(&self) {
        let now = self.elapsed();
        self.last_byte.store(now, Ordering::Release);
        if self.requests.load(Ordering::Acquire) == 0 {
            // Only the first byte counts; fails when one has come already.
            let _ = self.head.compare_exchange(NO_HEAD, now, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    fn written(&self) {
        self.last_byte.store(self.elapsed(), Ordering::Release);
    }
}

/// One request under way; it ends when the last byte of the response is handed over, or when it is dropped.
#[derive(Debug)]
pub(crate) struct RequestGuard(Arc<Activity>);

impl RequestGuard {
    pub(crate) fn begin(activity: &Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::AcqRel);
        activity.head.store(NO_HEAD, Ordering::Release);
        Self(Arc::clone(activity))
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let now = self.0.elapsed();
        self.0.last_request.store(now, Ordering::Release);
        self.0.last_byte.store(now, Ordering::Release);
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A body that holds something until it has been handed over.
#[derive(Debug)]
pub(crate) struct Guarded<G> {
    body: Body,
    guard: Option<G>,
}

impl<G> Guarded<G> {
    pub(crate) fn new(body: Body, guard: impl Into<Option<G>>) -> Self {
        Self { body, guard: guard.into() }
    }
}

impl<G: Unpin> HttpBody for Guarded<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream() {
            self.guard = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that tells its connection's activity what moves.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.read();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(polled, Poll::Ready(Ok(count)) if count > 0) {
            self.activity.written();
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if matches!(polled, Poll::Ready(Ok(count)) if count > 0) {
            self.activity.written();
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.activity.handover.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: ConnectionTimeouts = ConnectionTimeouts {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        stalled: Duration::from_secs(30),
    };

    async fn pass(seconds: u64) -> Instant {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_must_come_quickly_once_it_has_begun() {
        let activity = Activity::new(Instant::now());
        let now = pass(20).await;
        assert!(matches!(activity.verdict(TIMEOUTS, true, now), Verdict::WaitUntil(_)));
        activity.read();
        pass(9).await;
        activity.read();
        assert!(matches!(activity.verdict(TIMEOUTS, true, Instant::now()), Verdict::WaitUntil(_)));
        let now = pass(1).await;
        assert_eq!(activity.verdict(TIMEOUTS, true, now), Verdict::Cut("slow-head"));
        assert!(matches!(activity.verdict(TIMEOUTS, false, now), Verdict::WaitUntil(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn idleness_is_counted_from_the_last_request() {
        let activity = Arc::new(Activity::new(Instant::now()));
        let now = pass(50).await;
        assert!(matches!(activity.verdict(TIMEOUTS, true, now), Verdict::WaitUntil(_)));
        drop(RequestGuard::begin(&activity));
        let now = pass(59).await;
        assert!(matches!(activity.verdict(TIMEOUTS, true, now), Verdict::WaitUntil(_)));
        let now = pass(1).await;
        assert_eq!(activity.verdict(TIMEOUTS, true, now), Verdict::Retire);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_long_while_bytes_move_and_not_otherwise() {
        let activity = Arc::new(Activity::new(Instant::now()));
        activity.read();
        let request = RequestGuard::begin(&activity);
        for _ in 0..10 {
            let now = pass(29).await;
            assert!(matches!(activity.verdict(TIMEOUTS, true, now), Verdict::WaitUntil(_)));
            activity.written();
        }
        let now = pass(30).await;
        assert_eq!(activity.verdict(TIMEOUTS, true, now), Verdict::Cut("stalled"));
        drop(request);
        assert!(matches!(activity.verdict(TIMEOUTS, true, now), Verdict::WaitUntil(_)));
    }

    #[tokio::test]
    async fn a_guard_is_released_at_the_end_of_the_body() {
        use http_body_util::BodyExt;
        let guard = Arc::new(());
        let mut body = Guarded::new(Body::from("text"), Arc::clone(&guard));
        assert_eq!(Arc::strong_count(&guard), 2);
        assert!(body.frame().await.is_some());
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
