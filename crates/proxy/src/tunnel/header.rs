//! The PROXY protocol, versions 1 and 2: who really connected, said before the first byte of a connection.
//!
//! <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>. Incoming headers are read byte by byte up to their
//! end and not beyond; only addresses are taken from them, never an identity.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Which version to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text: addresses alone.
    V1,
    /// Binary: addresses, ALPN, TLS, and the peer's SPIFFE ID as TLV 0xE0.
    V2,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Who connected.
    pub source: SocketAddr,
    /// To what.
    pub destination: SocketAddr,
}

/// What is said of the verified peer in version 2.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeerFacts<'a> {
    /// Its SPIFFE ID.
    pub spiffe_id: Option<&'a str>,
    /// The protocol chosen in the handshake.
    pub alpn: Option<&'a [u8]>,
}

/// Why a header is not one.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The connection ended or failed before the header did.
    #[error("the PROXY header is not whole: {0}")]
    Io(#[from] io::Error),
    /// Something else than a header.
    #[error("the connection does not begin with a PROXY header: {0}")]
    Form(&'static str),
}

/// Reads a header of either version. Nothing for a connection that the other side made for itself (LOCAL, UNKNOWN).
///
/// # Errors
/// [`HeaderError`].
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Addresses>, HeaderError> {
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await?;
    if begin == SIGNATURE {
        return read_v2(stream).await;
    }
    if !begin.starts_with(b"PROXY ") {
        return Err(HeaderError::Form("it begins with something else"));
    }
    let mut line = begin.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == LONGEST_LINE {
            return Err(HeaderError::Form("its line is longer than 107 bytes"));
        }
        line.push(stream.read_u8().await?);
    }
    let line =
        std::str::from_utf8(&line[..line.len() - 2]).map_err(|_| HeaderError::Form("it is not text"))?;
    read_v1(line)
}

fn read_v1(line: &str) -> Result<Option<Addresses>, HeaderError> {
    let words: Vec<&str> = line.split(' ').collect();
    if words.get(1) == Some(&"UNKNOWN") {
        return Ok(None);
    }
    let ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] = words[..]
    else {
        return Err(HeaderError::Form("its line has other words than it should"));
    };
    let address = |ip: &str, port: &str| {
        let ip: IpAddr = ip.parse().ok()?;
        // A port with a sign or zeros before it is none.
        let number: u16 = port.parse().ok().filter(|number: &u16| number.to_string() == port)?;
        (ip.is_ipv4() == (family == "TCP4")).then_some(SocketAddr::new(ip, number))
    };
    let wrong = HeaderError::Form("an address in it is none");
    match (address(source, source_port), address(destination, destination_port)) {
        (Some(source), Some(destination)) => Ok(Some(Addresses { source, destination })),
        _ => Err(wrong),
    }
}

async fn read_v2(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Addresses>, HeaderError> {
    let (command, family, length) =
        (stream.read_u8().await?, stream.read_u8().await?, stream.read_u16().await?);
    if usize::from(length) > LONGEST_BODY {
        return Err(HeaderError::Form("it is longer than 4096 bytes"));
    }
    let mut body = vec![0; usize::from(length)];
    stream.read_exact(&mut body).await?;
    match command {
        LOCAL => return Ok(None),
        PROXY => {}
        _ => return Err(HeaderError::Form("its version or command is unknown")),
    }
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    match family {
        TCP4 if body.len() >= 12 => {
            let ip = |at: usize| Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]);
            let source = SocketAddr::new(ip(0).into(), port(8));
            Ok(Some(Addresses { source, destination: SocketAddr::new(ip(4).into(), port(10)) }))
        }
        TCP6 if body.len() >= 36 => {
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&body[at..at + 16]);
                Ipv6Addr::from(octets)
            };
            let source = SocketAddr::new(ip(0).into(), port(32));
            Ok(Some(Addresses { source, destination: SocketAddr::new(ip(16).into(), port(34)) }))
        }
        TCP4 | TCP6 => Err(HeaderError::Form("it is too short for its addresses")),
        // UNIX sockets and datagrams have nothing that we could say on.
        _ => Ok(None),
    }
}

/// Writes a header.
#[must_use]
pub fn write(version: ProxyVersion, addresses: Option<Addresses>, facts: PeerFacts<'_>) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => write_v1(addresses),
        ProxyVersion::V2 => write_v2(addresses, facts),
    }
}

fn write_v1(addresses: Option<Addresses>) -> Vec<u8> {
    let Some((source, destination)) = addresses.and_then(same_family) else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

fn write_v2(addresses: Option<Addresses>, facts: PeerFacts<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    let family = match addresses.and_then(same_family) {
        Some((SocketAddr::V4(source), SocketAddr::V4(destination))) => {
            body.extend_from_slice(&source.ip().octets());
            body.extend_from_slice(&destination.ip().octets());
            body.extend_from_slice(&source.port().to_be_bytes());
            body.extend_from_slice(&destination.port().to_be_bytes());
            TCP4
        }
        Some((SocketAddr::V6(source), SocketAddr::V6(destination))) => {
            body.extend_from_slice(&source.ip().octets());
            body.extend_from_slice(&destination.ip().octets());
            body.extend_from_slice(&source.port().to_be_bytes());
            body.extend_from_slice(&destination.port().to_be_bytes());
            TCP6
        }
        _ => UNSPECIFIED,
    };
    for (kind, value) in [(TLV_ALPN, facts.alpn), (TLV_SPIFFE_ID, facts.spiffe_id.map(str::as_bytes))] {
        // A SPIFFE ID has 2048 bytes at the most, a protocol's name 255.
        let Some((value, length)) = value.and_then(|value| Some((value, u16::try_from(value.len()).ok()?)))
        else {
            continue;
        };
        body.push(kind);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(value);
    }
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[PROXY, family]);
    let length = u16::try_from(body.len()).expect("addresses and two short values");
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(&body);
    header
}

/// Both of one family: an IPv4 address may stand in the clothes of an IPv6 one.
fn same_family(addresses: Addresses) -> Option<(SocketAddr, SocketAddr)> {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (source, destination) = (plain(addresses.source), plain(addresses.destination));
    (source.is_ipv4() == destination.is_ipv4()).then_some((source, destination))
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const TLV_ALPN: u8 = 0x01;
/// The first of those that are for everybody's own use (section 2.2.8).
const TLV_SPIFFE_ID: u8 = 0xe0;
const LONGEST_LINE: usize = 107;
const LONGEST_BODY: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(source: &str, destination: &str) -> Addresses {
        Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_nothing_behind_it() {
        let facts = PeerFacts { spiffe_id: Some("spiffe://example.org/web"), alpn: Some(b"h2") };
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            for said in [
                Some(addresses("192.0.2.1:56324", "192.0.2.2:443")),
                Some(addresses("[2001:db8::1]:1", "[2001:db8::2]:65535")),
                None,
            ] {
                let mut bytes = write(version, said, facts);
                bytes.extend_from_slice(b"GET");
                let mut stream = bytes.as_slice();
                assert_eq!(read(&mut stream).await.unwrap(), said);
                assert_eq!(stream, b"GET");
            }
        }
    }

    #[test]
    fn writes_what_the_specification_shows() {
        let line = write(
            ProxyVersion::V1,
            Some(addresses("192.168.0.1:56324", "192.168.0.11:443")),
            PeerFacts::default(),
        );
        assert_eq!(line, b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
        let mapped = addresses("[::ffff:192.168.0.1]:56324", "192.168.0.11:443");
        assert_eq!(write(ProxyVersion::V1, Some(mapped), PeerFacts::default()), line);
        let facts = PeerFacts { spiffe_id: Some("spiffe://a/b"), alpn: None };
        let header = write(ProxyVersion::V2, Some(addresses("192.168.0.1:1", "192.168.0.2:2")), facts);
        let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x1b\xc0\xa8\x00\x01\xc0\xa8\x00\x02\x00\x01\x00\x02";
        assert_eq!(header, [head.as_slice(), b"\xe0\x00\x0cspiffe://a/b"].concat());
    }

    #[tokio::test]
    async fn refuses_what_is_no_header() {
        for text in [
            b"GET / HTTP/1.1\r\n\r\n".as_slice(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            b"PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n",
            b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            &[b'P', b'R', b'O', b'X', b'Y', b' '].iter().chain(&[b'x'; 200]).copied().collect::<Vec<_>>(),
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x00",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x02ab",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        ] {
            assert!(matches!(read(&mut &*text).await, Err(HeaderError::Form(_))), "{text:?}");
        }
        assert!(matches!(read(&mut b"PROXY TCP4 19".as_slice()).await, Err(HeaderError::Io(_))));
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(begin in 0..3_usize, bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let begin = [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21"][begin];
            let bytes = [begin, &bytes].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut rest = bytes.as_slice();
            if runtime.block_on(read(&mut rest)).is_ok() {
                proptest::prop_assert!(bytes.len() - rest.len() >= 15);
            }
        }
    }
}
