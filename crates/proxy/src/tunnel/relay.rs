//! Bytes from one side to the other and back, as they come: a side that has said all may still listen.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

/// What has passed through one connection.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// From the client.
    pub(super) up: AtomicU64,
    /// To the client.
    pub(super) down: AtomicU64,
}

/// Why a connection ended before both sides had said all.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    /// A side failed, went away or was ended.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Nobody said anything.
    #[error("nothing was said for {0:?}")]
    Idle(Duration),
}

/// Passes everything on until both sides have said all. What one side does not take yet is not read from the other:
/// two buffers of 32 KiB are all that is held.
pub(super) async fn relay(
    client: impl AsyncRead + AsyncWrite + Unpin,
    backend: impl AsyncRead + AsyncWrite + Unpin,
    passed: &Arc<Passed>,
    idle: Option<Duration>,
) -> Result<(), RelayError> {
    let mut client = Counted { stream: client, passed: Arc::clone(passed), count: |passed| &passed.up };
    let mut backend = Counted { stream: backend, passed: Arc::clone(passed), count: |passed| &passed.down };
    let copying = copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER);
    let Some(idle) = idle else {
        copying.await?;
        return Ok(());
    };
    tokio::select! {
        copied = copying => { copied?; Ok(()) }
        () = silence(passed, idle) => Err(RelayError::Idle(idle)),
    }
}

/// Waits until nothing has passed for so long.
async fn silence(passed: &Passed, idle: Duration) {
    let total = || passed.up.load(Ordering::Relaxed) + passed.down.load(Ordering::Relaxed);
    let mut before = total();
    loop {
        tokio::time::sleep(idle).await;
        let now = total();
        if now == before {
            return;
        }
        before = now;
    }
}

/// A stream that counts what is read from it.
struct Counted<S> {
    stream: S,
    passed: Arc<Passed>,
    count: fn(&Passed) -> &AtomicU64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        (self.count)(&self.passed).fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// As large as two TLS records.
const BUFFER: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_side_that_has_said_all_still_hears_the_other() {
        let ((mut client, inner), (outer, mut backend)) = (duplex(64), duplex(64));
        let passed = Arc::new(Passed::default());
        let counted = Arc::clone(&passed);
        let relaying = tokio::spawn(async move { relay(inner, outer, &counted, None).await });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        backend.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "question");
        backend.write_all(b"and a late answer").await.unwrap();
        drop(backend);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "and a late answer");
        relaying.await.unwrap().unwrap();
        assert_eq!((passed.up.load(Ordering::Relaxed), passed.down.load(Ordering::Relaxed)), (8, 17));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_words_do_not() {
        let ((mut client, inner), (outer, _backend)) = (duplex(64), duplex(64));
        let passed = Arc::new(Passed::default());
        let idle = Duration::from_secs(60);
        let began = tokio::time::Instant::now();
        let relaying = tokio::spawn(async move { relay(inner, outer, &passed, Some(idle)).await });
        tokio::time::sleep(Duration::from_secs(30)).await;
        client.write_all(b"still here").await.unwrap();
        assert!(matches!(relaying.await.unwrap(), Err(RelayError::Idle(_))));
        assert_eq!(began.elapsed().as_secs(), 120);
    }
}
