//! Answers that last as long as their connection. On HTTP/1.1 nothing can follow them, so once the head is out, what
//! HTTP keeps for further requests is put away (16 KiB of buffers), and the rest of the answer is written to the
//! stream as it is. The client sees one chunked answer (RFC 9112, section 7.1).

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::{AppendHeaders, IntoResponse, Response};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt};
use http::header::CONNECTION;
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The parts of an answer; none is empty, and after the last one there is nothing, however often one asks.
type Parts = BoxStream<'static, Bytes>;

/// Parts that are ready together go out together, up to about so many bytes: one TLS record.
const AT_ONCE: usize = 16 * 1024;

/// Where a handler lays the answer that takes its connection over.
#[derive(Clone, Default)]
pub(crate) struct Handover(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// 0 while nothing is laid, then one of these below.
    stage: AtomicU8,
    parts: Mutex<Option<Parts>>,
}

/// An answer was laid; its head is not written.
const LAID: u8 = 1;
/// The head was written, and the body asked for.
const ASKED: u8 = 2;
/// Everything up to the body has left.
const READY: u8 = 3;

impl Handover {
    fn lay(&self, parts: Parts) {
        *self.0.parts.lock().unwrap_or_else(PoisonError::into_inner) = Some(parts);
        self.0.stage.store(LAID, Ordering::Release);
    }

    /// The body is asked for only after the head was written.
    fn asked(&self) {
        self.step(LAID, ASKED);
    }

    /// The stream has let out all that was written.
    pub(crate) fn flushed(&self) {
        self.step(ASKED, READY);
    }

    /// Whether the stream can be taken over.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.stage.load(Ordering::Acquire) == READY
    }

    /// The answer, once.
    pub(crate) fn take(&self) -> Option<Parts> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn step(&self, from: u8, to: u8) {
        let _ = self.0.stage.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Handover({})", self.0.stage.load(Ordering::Relaxed))
    }
}

/// An answer of these parts: by handover where the connection can do that.
pub(crate) fn lasting(
    handover: Option<Handover>,
    parts: impl Stream<Item = Bytes> + Send + 'static,
) -> Response {
    match handover {
        Some(handover) => {
            handover.lay(parts.fuse().boxed());
            (AppendHeaders([(CONNECTION, "close")]), Body::new(Promised(handover))).into_response()
        }
        None => Body::from_stream(parts.map(Ok::<_, std::convert::Infallible>)).into_response(),
    }
}

/// A body that somebody else will write.
struct Promised(Handover);

impl HttpBody for Promised {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.asked();
        Poll::Pending
    }
}

/// Writes the parts as chunks until there are no more, or the other end goes away. Whatever it sends is not read: it
/// was told that the connection ends with this answer.
///
/// # Errors
/// `stalled` when nothing could be written for so long.
pub(crate) async fn carry<S>(mut stream: S, mut parts: Parts, stalled: Duration) -> Result<(), &'static str>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut listening = true;
    loop {
        let mut byte = [0];
        let part = tokio::select! {
            part = parts.next() => part,
            read = stream.read(&mut byte), if listening => match read {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => {
                    listening = false;
                    continue;
                }
            },
        };
        let is_last = part.is_none();
        let mut chunks = Vec::new();
        match part {
            Some(part) => push_chunk(&mut chunks, &part),
            None => chunks.extend_from_slice(b"0\r\n\r\n"),
        }
        while chunks.len() < AT_ONCE && !is_last {
            let Some(Some(part)) = parts.next().now_or_never() else { break };
            push_chunk(&mut chunks, &part);
        }
        let writing = async {
            stream.write_all(&chunks).await?;
            if is_last { stream.shutdown().await } else { stream.flush().await }
        };
        match tokio::time::timeout(stalled, writing).await {
            Ok(Ok(())) if !is_last => {}
            Ok(_) => return Ok(()),
            Err(_) => return Err("stalled"),
        }
    }
}

fn push_chunk(chunks: &mut Vec<u8>, part: &[u8]) {
    chunks.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
    chunks.extend_from_slice(part);
    chunks.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
