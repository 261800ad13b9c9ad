//! What a store may do that the one for the other tests does not: TLS, connections that stay, no conditional writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use chancery_types::{SystemClock, SystemRandom};
use http::Method;
use http::header::{AUTHORIZATION, IF_NONE_MATCH};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::testing::Authority;

/// A store behind TLS that keeps objects in memory, replaces none on condition, and keeps connections.
#[derive(Default)]
struct Store {
    objects: Mutex<BTreeMap<String, Bytes>>,
    connections: AtomicUsize,
}

async fn answer(State(store): State<Arc<Store>>, request: Request) -> Response {
    assert!(request.headers().contains_key(AUTHORIZATION));
    let path = request.uri().path().to_owned();
    let coded = |status, code| (status, format!("<Error><Code>{code}</Code></Error>")).into_response();
    if request.method() == Method::GET {
        let found = store.objects.lock().unwrap().get(&path).cloned();
        return found
            .map_or_else(|| coded(StatusCode::NOT_FOUND, "NoSuchKey"), |object| object.into_response());
    }
    let is_conditional = request.headers().contains_key(IF_NONE_MATCH);
    let object = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    if is_conditional {
        return coded(StatusCode::NOT_IMPLEMENTED, "NotImplemented");
    }
    store.objects.lock().unwrap().insert(path, object);
    StatusCode::OK.into_response()
}

impl Store {
    /// Its address.
    async fn start(self: &Arc<Self>, authority: &Authority) -> String {
        let (chain, key) = authority.server();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let router = Router::new().fallback(answer).with_state(Arc::clone(self));
        let store = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    store.connections.fetch_add(1, Ordering::SeqCst);
                    let service = TowerToHyperService::new(router);
                    let served = hyper::server::conn::http1::Builder::new();
                    let _ = served.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        address
    }
}

fn bucket(endpoint: &str, roots: &Path) -> Bucket {
    let place = BucketPlace {
        name: "rolls".into(),
        prefix: String::new(),
        endpoint: Some(endpoint.parse().unwrap()),
        region: None,
        credentials: None,
        roots: roots.to_owned(),
        plain_http: false,
    };
    let environment = |name: &str| name.starts_with("AWS_").then(|| name.replace('_', "-").to_lowercase());
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    Bucket::new(&place, environment, clock, random).unwrap().with_patience(2, Duration::from_secs(10))
}

fn write_root(file: &Path, root: &CertificateDer<'_>) {
    std::fs::write(file, chancery_x509::write_pem("CERTIFICATE", root)).unwrap();
}

#[tokio::test]
async fn a_store_is_told_by_its_certificate_and_its_connections_are_used_again() {
    let (authority, store) = (Authority::new(), Arc::new(Store::default()));
    let directory = tempfile::tempdir().unwrap();
    let roots = directory.path().join("roots.pem");
    write_root(&roots, &authority.root_der());
    let endpoint = store.start(&authority).await;
    let ours = bucket(&endpoint, &roots);
    for index in 0..20 {
        let name = format!("tile/0/{index:03}");
        assert_eq!(ours.fetch(&name, 100).await.unwrap(), None);
        // It refuses conditions: whoever looked before writes without.
        assert_eq!(ours.create(&name, Bytes::from_static(b"hashes")).await.unwrap(), Creation::Made);
        assert_eq!(ours.read(&name, 100).await.unwrap().unwrap(), b"hashes");
    }
    assert_eq!(store.connections.load(Ordering::SeqCst), 1);
    assert_eq!(store.objects.lock().unwrap().keys().next().unwrap(), "/rolls/tile/0/000");
    assert!(matches!(ours.read("tile/0/000", 5).await, Err(BucketError::TooLong(5))));
    assert!(ours.read("tile/0/000", 6).await.unwrap().is_some(), "one that is too long stops nobody");

    write_root(&roots, &Authority::new().root_der());
    let refused = bucket(&endpoint, &roots).read("tile/0/000", 100).await.unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
    // One more, in place of the one whose answer was not read to its end; none that believed another root.
    assert_eq!(store.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn readers_beyond_a_number_do_not_queue() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let bucket = Arc::new(bucket(&endpoint, Path::new("/nowhere")));
    // It accepts and says nothing.
    let mut asking = tokio::task::JoinSet::new();
    let mut held = Vec::new();
    for _ in 0..READERS {
        let bucket = Arc::clone(&bucket);
        asking.spawn(async move { bucket.read("tile/0/000", 100).await });
        held.push(listener.accept().await.unwrap());
    }
    assert_eq!(bucket.read("tile/0/000", 100).await.unwrap(), None, "at once");
    drop(held);
    while let Some(asked) = asking.join_next().await {
        asked.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn connections_that_died_without_a_word_cost_one_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let dead = Arc::new(AtomicUsize::new(0));
        while let Ok((mut stream, _)) = listener.accept().await {
            let dead = Arc::clone(&dead);
            tokio::spawn(async move {
                let body = "<Error><Code>NoSuchKey</Code></Error>";
                let answer =
                    format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                // The first two connections answer once and are never heard of again.
                while stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if dead.fetch_add(1, Ordering::SeqCst) < 2 {
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
    });
    let bucket = bucket(&endpoint, Path::new("/nowhere")).with_patience(2, Duration::from_millis(500));
    let both = tokio::join!(bucket.fetch("tile/0/000", 100), bucket.fetch("tile/0/001", 100));
    assert_eq!((both.0.unwrap(), both.1.unwrap()), (None, None));
    assert_eq!(bucket.fetch("tile/0/000", 100).await.unwrap(), None);
}
