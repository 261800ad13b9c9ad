//! A TLS service of our own, which takes up new files when it is told to, or pretends to.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Manner {
    /// Takes up the files.
    Obedient,
    /// Says it did.
    Deaf,
    /// Says that it cannot.
    Refusing,
}

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) hook: SocketAddr,
    manner: AtomicU8,
    told: AtomicUsize,
    /// The bodies of the requests by which it was told.
    occasions: Mutex<Vec<serde_json::Value>>,
    directory: PathBuf,
    served: Mutex<Option<Arc<ServerConfig>>>,
}

impl Service {
    pub(crate) async fn start(directory: &Path) -> Arc<Self> {
        let tls = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Arc::new(Self {
            address: tls.local_addr().unwrap(),
            hook: http.local_addr().unwrap(),
            manner: AtomicU8::new(Manner::Obedient as u8),
            told: AtomicUsize::new(0),
            occasions: Mutex::default(),
            directory: directory.to_owned(),
            served: Mutex::default(),
        });
        tokio::spawn(service.clone().serve(tls));
        tokio::spawn(service.clone().listen(http));
        service
    }

    pub(crate) fn behave(&self, manner: Manner) {
        self.manner.store(manner as u8, Ordering::SeqCst);
    }

    pub(crate) fn told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }

    pub(crate) fn reasons(&self) -> Vec<String> {
        let occasions = self.occasions.lock().unwrap();
        occasions.iter().map(|occasion| occasion["reason"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn serve_certificate(&self, chain: &[Vec<u8>], key: &[u8]) {
        let chain = chain.iter().cloned().map(CertificateDer::from).collect();
        self.serve_with(chain, PrivateKeyDer::try_from(key.to_vec()).unwrap());
    }

    fn serve_with(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        *self.served.lock().unwrap() = Some(Arc::new(config));
    }

    fn reload(&self) -> bool {
        let Ok(chain) = fs::read(self.directory.join("tls.crt")) else { return false };
        let chain = CertificateDer::pem_slice_iter(&chain).map(Result::unwrap).collect();
        let key = fs::read(self.directory.join("tls.key")).unwrap();
        self.serve_with(chain, PrivateKeyDer::from_pem_slice(&key).unwrap());
        true
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let Some(config) = self.served.lock().unwrap().clone() else { continue };
            tokio::spawn(async move {
                if let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await {
                    let _ = stream.read(&mut [0]).await;
                }
            });
        }
    }

    async fn listen(self: Arc<Self>, listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut buffer = [0; 2048];
                let length = stream.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..length]);
            }
            let body = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            self.occasions.lock().unwrap().push(serde_json::from_slice(&request[body..]).unwrap());
            let manner = self.manner.load(Ordering::SeqCst);
            let good = manner != Manner::Refusing as u8;
            if manner == Manner::Obedient as u8 {
                self.reload();
            }
            let answer = if good { "204 No Content" } else { "500 Internal Server Error" };
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            self.told.fetch_add(1, Ordering::SeqCst);
        }
    }
}
