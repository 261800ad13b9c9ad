//! The status port as a relying party uses it: plain HTTP/1.1 on a connection that stays open.
//!
//! What comes over it (lists, OCSP answers) is signed; the way it came is not trusted. Only what this program's own
//! server sends is understood: bodies with a length.

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Bytes of an answer that are read.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// Bytes of one header line.
const MAX_LINE: u64 = 16 * 1024;

/// An open connection to a status port.
#[derive(Debug)]
pub(crate) struct StatusPort {
    stream: BufReader<TcpStream>,
    host: String,
}

impl StatusPort {
    /// Connects to `host:port`.
    pub(crate) async fn connect(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).await.with_context(|| format!("cannot connect to {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host: host.to_owned() })
    }

    /// Reads what an `http://` URL names, on a connection of its own.
    pub(crate) async fn fetch(url: &str) -> Result<Vec<u8>> {
        let (host, path) =
            split(url).with_context(|| format!("{url:?} is not an http:// URL with a path"))?;
        Self::connect(host).await?.get(path).await
    }

    /// Asks the OCSP responder that an `http://` URL names, on a connection of its own.
    pub(crate) async fn ask_ocsp(url: &str, request: &[u8]) -> Result<Vec<u8>> {
        let (host, path) =
            split(url).with_context(|| format!("{url:?} is not an http:// URL with a path"))?;
        Self::connect(host).await?.post_ocsp(path, request).await
    }

    /// `GET`.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host), &[]).await
    }

    /// `POST` of an OCSP request.
    pub(crate) async fn post_ocsp(&mut self, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/ocsp-request\r\n\
             Content-Length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        self.exchange(&head, body).await
    }

    async fn exchange(&mut self, head: &str, body: &[u8]) -> Result<Vec<u8>> {
        let mut request = Vec::with_capacity(head.len() + body.len());
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        let status = self.line().await?;
        let mut length = None;
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse::<usize>().context("the answer's length is no number")?);
            }
        }
        let length = length.context("the answer does not say how long it is")?;
        ensure!(length <= MAX_BODY, "the answer has {length} bytes, at most {MAX_BODY} are read");
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await?;
        match status.split(' ').nth(1) {
            Some("200") => Ok(answer),
            _ => bail!("{} answered {status:?}: {}", self.host, String::from_utf8_lossy(&answer)),
        }
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        (&mut self.stream).take(MAX_LINE).read_line(&mut line).await?;
        ensure!(line.ends_with('\n'), "{} closed the connection in the middle of an answer", self.host);
        Ok(line.trim_end().to_owned())
    }
}

/// Host with port, and path, of an `http://` URL.
fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let path = rest.find('/')?;
    Some(rest.split_at(path))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answered(answer: &'static str) -> Result<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        StatusPort::fetch(&format!("http://{host}/crl/1.crl")).await
    }

    #[tokio::test]
    async fn reads_a_body_by_its_length_and_refuses_everything_else() {
        assert_eq!(answered("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc").await.unwrap(), b"abc");
        for (answer, why) in [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "404"),
            ("HTTP/1.1 200 OK\r\n\r\n", "how long"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "at most"),
            ("HTTP/1.1 200", "closed the connection"),
        ] {
            let error = answered(answer).await.unwrap_err().to_string();
            assert!(error.contains(why), "{answer:?}: {error}");
        }
    }

    #[test]
    fn only_plain_urls_with_a_path_are_taken() {
        assert_eq!(split("http://localhost:80/crl/1.crl"), Some(("localhost:80", "/crl/1.crl")));
        assert_eq!(split("https://localhost/crl"), None);
        assert_eq!(split("http://localhost"), None);
    }
}
