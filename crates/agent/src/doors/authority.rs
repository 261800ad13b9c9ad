//! Lets clients in that name the socket's path where HTTP/2 wants a host.
//!
//! gRPC's C core (so Python, C++, Ruby) and gRPC Java send `:authority: run%2Fagent.sock` or `/run/agent.sock` over a
//! UNIX socket. That is no authority by RFC 3986, and h2 resets such calls before anybody can look at them. Nothing
//! here reads the authority, so the two characters that are wrong in it are replaced by dashes in the bytes of the
//! connection: plain and Huffman-coded text keep their lengths, so that frames and the compression state of both sides
//! stay as they are. Everything else, and whatever is not understood, passes unchanged.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose incoming authorities are made readable.
#[derive(Debug)]
pub(crate) struct Mended<S> {
    stream: S,
    received: BytesMut,
    /// So many bytes of what was received have been looked at.
    seen: usize,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes are of no interest.
    Pass(usize),
    /// A frame begins.
    Frame,
}

impl<S> Mended<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, received: BytesMut::new(), seen: 0, state: State::Pass(PREFACE) }
    }

    /// Looks at what was received, as far as frames are whole.
    fn look(&mut self) {
        loop {
            let rest = &mut self.received[self.seen..];
            match self.state {
                State::Pass(left) if left > rest.len() => {
                    self.seen += rest.len();
                    self.state = State::Pass(left - rest.len());
                    return;
                }
                State::Pass(left) => {
                    self.seen += left;
                    self.state = State::Frame;
                }
                State::Frame => {
                    let Some(([high, middle, low, kind, flags, ..], payload)) =
                        rest.split_at_mut_checked(FRAME_HEAD)
                    else {
                        return;
                    };
                    let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
                    if *kind == HEADERS && length <= LARGEST_FRAME {
                        let Some(payload) = payload.get_mut(..length) else { return };
                        mend_headers(payload, *flags);
                    }
                    self.state = State::Pass(FRAME_HEAD + length);
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.seen == 0 {
            let mut space = [0; 4096];
            let mut chunk = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut chunk))?;
            self.received.extend_from_slice(chunk.filled());
            if chunk.filled().is_empty() {
                // The end; what is left is half a frame.
                self.seen = self.received.len();
                break;
            }
            self.look();
        }
        let length = self.seen.min(out.remaining());
        out.put_slice(&self.received[..length]);
        self.received.advance(length);
        self.seen -= length;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The payload of a HEADERS frame (RFC 9113 section 6.2). Blocks that go on in another frame are left alone: no
/// client sends the first few headers in two.
fn mend_headers(payload: &mut [u8], flags: u8) -> Option<()> {
    let padding = if flags & PADDED != 0 { usize::from(*payload.first()?) } else { 0 };
    let before = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    let end = payload.len().checked_sub(padding)?;
    if flags & END_HEADERS != 0 { mend_block(payload.get_mut(before..end)?) } else { None }
}

/// A header block (RFC 7541 section 6), as far as it is understood.
fn mend_block(mut block: &mut [u8]) -> Option<()> {
    while let Some(&first) = block.first() {
        let (prefix, literal) = match first {
            0b1000_0000.. => (7, false),
            0b0100_0000.. => (6, true),
            0b0010_0000.. => (5, false),
            _ => (4, true),
        };
        let (index, rest) = integer(block, prefix)?;
        block = rest;
        if !literal {
            continue;
        }
        let named = if index == 0 {
            let (name, rest) = string(block)?;
            block = rest;
            matches!((&*name.bytes, name.huffman), (b":authority", false) | (HUFFMAN_AUTHORITY, true))
        } else {
            index == STATIC_AUTHORITY
        };
        let (value, rest) = string(block)?;
        block = rest;
        if !named || value.bytes.len() > LONGEST_AUTHORITY {
            continue;
        }
        if value.huffman {
            mend_huffman(value.bytes);
        } else {
            value.bytes.iter_mut().filter(|byte| matches!(byte, b'%' | b'/')).for_each(|byte| *byte = b'-');
        }
    }
    Some(())
}

struct Text<'a> {
    bytes: &'a mut [u8],
    huffman: bool,
}

/// A string (RFC 7541 section 5.2), and what follows it.
fn string(block: &mut [u8]) -> Option<(Text<'_>, &mut [u8])> {
    let huffman = block.first()? & 0b1000_0000 != 0;
    let (length, rest) = integer(block, 7)?;
    let (bytes, rest) = rest.split_at_mut_checked(length)?;
    Some((Text { bytes, huffman }, rest))
}

/// An integer whose first byte has so many bits of it (RFC 7541 section 5.1), and what follows it.
fn integer(block: &mut [u8], prefix: u32) -> Option<(usize, &mut [u8])> {
    let (first, mut rest) = block.split_first_mut()?;
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(*first) & most;
    if value < most {
        return Some((value, rest));
    }
    for shift in [0, 7, 14] {
        let (next, after) = rest.split_first_mut()?;
        rest = after;
        value += usize::from(*next & 0x7f) << shift;
        if *next & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

/// Walks through the codes of a Huffman-coded text: each length has the codes below a bound that no shorter one has.
/// `%`, `/` and `-` all have six bits.
fn mend_huffman(text: &mut [u8]) {
    let mut at = 0;
    while let Some((code, length)) = code(text, at) {
        if length == 6 && (code == PERCENT || code == SLASH) {
            for bit in 0..6 {
                let (byte, mask) = ((at + bit) / 8, 0x80 >> ((at + bit) % 8));
                if DASH >> (5 - bit) & 1 == 1 { text[byte] |= mask } else { text[byte] &= !mask }
            }
        }
        at += length;
    }
}

/// The code that begins at this bit, and its length; none at the end or if it is of no character of a path.
fn code(text: &[u8], at: usize) -> Option<(u32, usize)> {
    CODES.iter().find_map(|&(length, bound)| {
        bits(text, at, length).filter(|&code| code < bound).map(|code| (code, length))
    })
}

fn bits(text: &[u8], at: usize, count: usize) -> Option<u32> {
    let bit = |position: usize| text.get(position / 8).map(|byte| u32::from(byte >> (7 - position % 8) & 1));
    (at..at + count).try_fold(0, |value, position| Some(value << 1 | bit(position)?))
}

/// `PRI * HTTP/2.0` and so on (RFC 9113 section 3.4).
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
/// What h2 takes unless told otherwise, and it is not.
const LARGEST_FRAME: usize = 16 * 1024;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:authority` in the static table (RFC 7541 appendix A).
const STATIC_AUTHORITY: usize = 1;
const HUFFMAN_AUTHORITY: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// Lengths of codes and the bound of each (RFC 7541 appendix B), as far as they are printable ASCII.
const CODES: [(usize, u32); 10] = [
    (5, 0xa),
    (6, 0x2e),
    (7, 0x7c),
    (8, 0xfe),
    (10, 0x3fd),
    (11, 0x7fd),
    (12, 0xffc),
    (13, 0x1ffe),
    (14, 0x3ffe),
    (15, 0x7fff),
];
/// A path of a socket has at most 108 bytes, each of them three when it is percent-encoded.
const LONGEST_AUTHORITY: usize = 512;
const PERCENT: u32 = 0x15;
const DASH: u32 = 0x16;
const SLASH: u32 = 0x18;

#[cfg(test)]
mod tests;
