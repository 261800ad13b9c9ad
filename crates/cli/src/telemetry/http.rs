//! The way to a collector: HTTP/1.1 over the TLS that everything else here has.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// Where Debian has the roots that everybody trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Bytes of a collector's answer that are read.
const MOST_ANSWER: usize = 64 * 1024;

/// A connection that is used again.
type Connection = SendRequest<Full<Bytes>>;

/// Sends on the runtime of this process; whoever waits for it is a thread of the SDK.
#[derive(Debug, Clone)]
pub(super) struct HttpSender {
    runtime: Handle,
    roots: Arc<Path>,
    patience: Duration,
    kept: Arc<Mutex<Option<Connection>>>,
}

impl HttpSender {
    /// One that believes these roots, and gives up after so long. The file is read when a connection is made, because
    /// whoever writes it replaces it.
    ///
    /// # Errors
    /// When a file was named and has no certificate in it.
    pub(super) fn new(roots: Option<&Path>, patience: Duration) -> Result<Self> {
        if let Some(roots) = roots {
            tls(roots)?;
        }
        let roots = Arc::from(roots.unwrap_or(Path::new(SYSTEM_ROOTS)));
        Ok(Self { runtime: Handle::current(), roots, patience, kept: Arc::default() })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        // One batch after the other: the SDK exports so.
        let mut kept = self.kept.lock().await;
        let mut connection = match kept.take().filter(SendRequest::is_ready) {
            Some(connection) => connection,
            None => self.connect(request.uri()).await?,
        };
        let response = connection.send_request(in_origin_form(request)?).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MOST_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("its answer cannot be read: {error}"))?.to_bytes();
        *kept = Some(connection);
        Ok(Response::from_parts(parts, body))
    }

    async fn connect(&self, uri: &Uri) -> Result<Connection> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        if !is_https {
            return start(stream).await;
        }
        let connector = TlsConnector::from(Arc::new(tls(&self.roots)?));
        start(connector.connect(ServerName::try_from(host)?, stream).await?).await
    }
}

#[async_trait]
impl HttpClient for HttpSender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sender = self.clone();
        let sending = self.runtime.spawn(async move {
            match tokio::time::timeout(sender.patience, sender.send(request)).await {
                Ok(sent) => sent,
                Err(_) => bail!("no answer within {:?}", sender.patience),
            }
        });
        sending.await?.map_err(|error| format!("{error:#}").into())
    }
}

async fn start<S>(stream: S) -> Result<Connection>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driver) = handshake(TokioIo::new(stream)).await?;
    // Ends when the collector closes, or with the sender.
    tokio::spawn(driver);
    Ok(sender)
}

/// RFC 9112 section 3.2.1: only the path stands in the request line; the host has its header.
fn in_origin_form(request: Request<Bytes>) -> Result<Request<Full<Bytes>>> {
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().context("the address has no host")?;
    let host = HeaderValue::from_str(authority.as_str())?;
    parts.headers.insert(HOST, host);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse()?;
    Ok(Request::from_parts(parts, Full::new(body)))
}

fn tls(roots: &Path) -> Result<ClientConfig> {
    let mut anchors = RootCertStore::empty();
    let named = || format!("{} has no roots to tell a collector by", roots.display());
    for root in CertificateDer::pem_file_iter(roots).with_context(named)? {
        anchors.add(root.with_context(named)?).with_context(named)?;
    }
    if anchors.is_empty() {
        bail!(named());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(anchors).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A collector behind TLS that takes one request after the other; its address and its certificate.
    async fn collector(directory: &Path) -> (String, std::path::PathBuf) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = directory.join("collector.pem");
        std::fs::write(&file, made.cert.pem()).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://localhost:{}/v1/traces", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = TlsAcceptor::from(Arc::new(config.clone())).accept(stream).await else {
                    continue;
                };
                let mut asked = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut asked).await {
                    // The end of the body.
                    if !asked[..length].ends_with(b"spans") {
                        continue;
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
        });
        (address, file)
    }

    fn batch(address: &str) -> Request<Bytes> {
        Request::post(address).body(Bytes::from_static(b"spans")).unwrap()
    }

    #[tokio::test]
    async fn a_collector_behind_tls_is_told_by_the_roots_that_were_named() {
        let directory = tempfile::tempdir().unwrap();
        let (address, roots) = collector(directory.path()).await;
        let sender = HttpSender::new(Some(&roots), Duration::from_secs(10)).unwrap();
        // The second goes over the connection of the first.
        for _ in 0..2 {
            assert_eq!(sender.send_bytes(batch(&address)).await.unwrap().status(), 200);
        }
        // It looks after one connection at a time.
        drop(sender);

        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&roots, other.cert.pem()).unwrap();
        let stranger = HttpSender::new(Some(&roots), Duration::from_secs(10)).unwrap();
        let error = stranger.send_bytes(batch(&address)).await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
    }

    #[tokio::test]
    async fn a_file_without_roots_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let error = HttpSender::new(Some(&empty), Duration::from_secs(1)).unwrap_err().to_string();
        assert!(error.contains("empty.pem"), "{error}");
    }
}
