//! A stream that ends when its peer is not to be talked to any more.
//!
//! Ended means: whoever waits in a read or a write is woken and has an error that says why, every later call has the
//! same, and the connection is reset. Reset, not closed with a goodbye: what is still in the kernel's buffers must not
//! reach a peer that is not good, and no goodbye must be waited for.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::{Admission, ConnectionEnded, Peer};

/// A stream that can be made to end without a goodbye.
pub trait Sever {
    /// Has the connection reset when it is dropped, which is at once; by default it is only dropped.
    fn sever(&self) {}
}

impl Sever for TcpStream {
    fn sever(&self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "the connection will be closed, not reset");
        }
    }
}

impl Sever for UnixStream {}

impl Sever for DuplexStream {}

impl<S: Sever> Sever for tokio_rustls::server::TlsStream<S> {
    fn sever(&self) {
        self.get_ref().0.sever();
    }
}

impl<S: Sever> Sever for tokio_rustls::client::TlsStream<S> {
    fn sever(&self) {
        self.get_ref().0.sever();
    }
}

impl<S: Sever> Sever for tokio_rustls::TlsStream<S> {
    fn sever(&self) {
        self.get_ref().0.sever();
    }
}

/// A stream and what admitted its peer. Can be used wherever the stream could.
#[derive(Debug)]
pub struct Guarded<S: Sever> {
    // Nothing once it was ended. Dropped before the admission, so that what is registered is open.
    stream: Option<S>,
    admission: Admission,
}

impl<S: Sever> Guarded<S> {
    /// Binds a stream to the admission of its peer.
    #[must_use]
    pub fn new(stream: S, admission: Admission) -> Self {
        Self { stream: Some(stream), admission }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.admission.peer()
    }

    /// The stream; nothing once it was ended.
    #[must_use]
    pub fn get_ref(&self) -> Option<&S> {
        self.stream.as_ref()
    }

    /// Why it was ended, if it was.
    #[must_use]
    pub fn ended(&self) -> Option<ConnectionEnded> {
        self.admission.ended()
    }

    /// The stream, unless it was ended.
    fn alive(&mut self) -> io::Result<&mut S> {
        if let Some(ended) = self.admission.ended() {
            if let Some(stream) = self.stream.take() {
                stream.sever();
            }
            return Err(ended.into());
        }
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: Sever + AsyncWrite + Unpin> Guarded<S> {
    /// Writes with whatever writes, and is woken when the connection is ended meanwhile.
    fn poll_out<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let stream = match self.alive() {
            Ok(stream) => stream,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let written = write(Pin::new(stream), context);
        if written.is_pending() {
            self.admission.wake_writer(context.waker());
            // It may have been ended before there was anybody to wake.
            if let Err(error) = self.alive() {
                return Poll::Ready(Err(error));
            }
        }
        written
    }
}

impl<S: Sever + AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = match self.alive() {
            Ok(stream) => stream,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let read = Pin::new(stream).poll_read(context, buffer);
        if read.is_pending() {
            self.admission.wake_reader(context.waker());
            if let Err(error) = self.alive() {
                return Poll::Ready(Err(error));
            }
        }
        read
    }
}

impl<S: Sever + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(context, |stream, context| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(context, |stream, context| stream.poll_shutdown(context))
    }
}
