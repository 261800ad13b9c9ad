//! The library against a real authority, over real TLS: peers come, are revoked in the middle of it, and are gone.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod http;
mod measure;
mod outage;
mod streams;

#[path = "../../../server/tests/running/mod.rs"]
mod running;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chancery_api::{HoldRequest, ReleaseRequest, RevokeRequest, Selector};
use chancery_client::Client;
use chancery_types::{RevocationReason, SerialNumber, TrustDomain};
use chancery_verify::live::*;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{client, server};

use running::{Held, Place};

/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

/// What a member of the domain has.
fn credentials(place: &Place, held: &Held) -> Credentials {
    let root = std::fs::read(place.file("certs/root.crt")).unwrap();
    let bundles = Bundles::from([(domain(), vec![CertificateDer::from_pem_slice(&root).unwrap()])]);
    let chain = held.chain();
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(held.key.to_pkcs8_pem().as_bytes()).unwrap();
    Credentials::new(chain, key, bundles).unwrap()
}

fn following(place: &Place, address: SocketAddr, held: &Held, rules: Rules) -> Following {
    let endpoint = format!("https://localhost:{}", address.port()).parse().unwrap();
    Following {
        authority: Authority::new(endpoint, domain(), &credentials(place, held)),
        key: LogKey::Fetched,
        rules,
        keep: None,
        instance: "test".into(),
        kind: RelyingPartyKind::Library,
    }
}

async fn follow(place: &Place, address: SocketAddr, held: &Held, rules: Rules) -> Follower {
    let follower = Follower::start(following(place, address, held, rules));
    tokio::time::timeout(PATIENCE, follower.ready()).await.expect("the set is there");
    follower
}

/// A judge of members of the domain, with this status.
fn judge(place: &Place, held: &Held, status: Status) -> Judge {
    let trust = Trust::default();
    trust.follow(&domain(), &credentials(place, held), status).unwrap();
    Judge::new(trust, Allowed::members_of(domain()))
}

/// A program that follows nobody, so that all that happens to it is done by others.
fn caller(place: &Place, held: &Held, alpn: &[&str]) -> Connector {
    let open = Rules { when_unknown: WhenUnknown::Open, ..Rules::default() };
    Connector::new(judge(place, held, Status::not_followed(open)), &credentials(place, held), alpn)
}

type Serving = Result<Guarded<server::TlsStream<TcpStream>>, HandshakeError>;
type Calling = Result<Guarded<client::TlsStream<TcpStream>>, HandshakeError>;

/// A connection between these two, over the loopback.
async fn meet(listener: &TcpListener, acceptor: &Acceptor, connector: &Connector) -> (Serving, Calling) {
    let address = listener.local_addr().unwrap();
    let call = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await
    };
    let serve = async { acceptor.accept(listener.accept().await.unwrap().0).await };
    tokio::join!(serve, call)
}

fn serial(held: &Held) -> SerialNumber {
    held.response.serial
}

async fn revoke(admin: &Client, serial: SerialNumber) {
    let (selector, reason) = (Selector::Serial(serial), RevocationReason::KeyCompromise);
    let request = RevokeRequest::new(selector, reason);
    assert_eq!(admin.revoke(&request).await.unwrap().count, 1);
}

async fn hold(admin: &Client, serial: SerialNumber) {
    let request = HoldRequest::new(Selector::Serial(serial));
    assert_eq!(admin.hold(&request).await.unwrap().count, 1);
}

async fn release(admin: &Client, serial: SerialNumber) {
    let request = ReleaseRequest::new(Selector::Serial(serial));
    assert_eq!(admin.release(&request).await.unwrap().count, 1);
}

/// Waits for something that must come true.
async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Why an operation on a guarded stream failed.
fn why(error: &std::io::Error) -> Ended {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ConnectionEnded>());
    inner.unwrap_or_else(|| panic!("it does not say why: {error}")).why
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("status");
    (around, path)
}
