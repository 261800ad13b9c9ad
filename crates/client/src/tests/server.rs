//! A small HTTPS server for tests: counts what comes, answers what it is told.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use chancery_api::{PROBLEM_MEDIA_TYPE, Problem};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::{Endpoint, TlsIdentity};

/// The common name in the client's certificate.
#[derive(Debug, Clone)]
pub(super) struct PeerName(pub(super) String);

/// A root with its key.
pub(super) struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub(super) fn root_pem(&self) -> String {
        self.certificate.pem()
    }

    pub(super) fn root_der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    pub(super) fn client(&self, name: &str) -> TlsIdentity {
        let (certificate, key) = self.leaf(name);
        TlsIdentity::from_der(vec![certificate], key)
    }

    fn leaf(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

/// A server for the name `localhost`; stops when it is dropped.
pub(super) struct TestServer {
    pub(super) authority: Authority,
    port: u16,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    close: watch::Sender<usize>,
    task: JoinHandle<()>,
}

impl TestServer {
    pub(super) async fn start<H>(handler: H) -> Self
    where
        H: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    {
        Self::start_with(|_| handler).await
    }

    pub(super) async fn start_with<M, H>(make_handler: M) -> Self
    where
        M: FnOnce(&Authority) -> H,
        H: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    {
        let authority = Authority::new();
        let handler = Arc::new(make_handler(&authority));
        let acceptor = TlsAcceptor::from(Arc::new(tls(&authority)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (connected, requested) = (Arc::clone(&connections), Arc::clone(&requests));
        let (close, closing) = watch::channel(0);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, handler) = (acceptor.clone(), Arc::clone(&handler));
                let (connected, requested) = (Arc::clone(&connected), Arc::clone(&requested));
                let mut closing = closing.clone();
                closing.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    connected.fetch_add(1, Ordering::SeqCst);
                    let peer = peer_name(&stream);
                    let counting = move |mut request: Request<Incoming>| {
                        requested.fetch_add(1, Ordering::SeqCst);
                        if let Some(peer) = &peer {
                            request.extensions_mut().insert(peer.clone());
                        }
                        handler(&request)
                    };
                    tokio::select! {
                        () = serve(stream, counting) => {}
                        _ = closing.changed() => {}
                    }
                });
            }
        });
        Self { authority, port, connections, requests, close, task }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::Https { host: "localhost".into(), port: self.port }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(super) fn close_connections(&self) {
        self.close.send_modify(|count| *count += 1);
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The same without TLS, on a socket.
pub(super) fn unix<H>(path: &Path, handler: H) -> JoinHandle<()>
where
    H: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
{
    let listener = UnixListener::bind(path).unwrap();
    let handler = Arc::new(handler);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let handler = Arc::clone(&handler);
            tokio::spawn(serve(stream, move |request: Request<Incoming>| handler(&request)));
        }
    })
}

pub(super) fn answer(body: &str) -> Response<Full<Bytes>> {
    response(200, "application/json", body)
}

pub(super) fn problem(status: u16, problem: &Problem) -> Response<Full<Bytes>> {
    response(status, PROBLEM_MEDIA_TYPE, &serde_json::to_string(problem).unwrap())
}

pub(super) fn response(status: u16, media_type: &str, body: &str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", media_type)
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap()
}

async fn serve<S, H>(stream: S, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    let service = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, std::convert::Infallible>(handler(request)) }
    });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

fn tls(authority: &Authority) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.root_der()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let (certificate, key) = authority.leaf("localhost");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// The first DNS name in the client's certificate; good enough to tell test clients apart.
fn peer_name<S>(stream: &tokio_rustls::server::TlsStream<S>) -> Option<PeerName> {
    let der = stream.get_ref().1.peer_certificates()?.first()?.clone();
    let names = ["first", "second"];
    let found = names.iter().find(|name| der.windows(name.len()).any(|window| window == name.as_bytes()));
    found.map(|name| PeerName((*name).to_owned()))
}
