//! Whole handshakes, resumed ones too.

use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

fn judge_of(domain: &Domain, status: &Status) -> Judge {
    Judge::new(domain.trusted(status), domain.members())
}

#[tokio::test]
async fn both_ends_know_each_other_and_count_the_connection() {
    let domain = Domain::new("example.org");
    let status = all_good(Rules::default());
    let judge = judge_of(&domain, &status);
    let (web, db) = (domain.issue("/web"), domain.issue("/db"));
    let acceptor = Acceptor::new(judge.clone(), &db.credentials(), &["h2"]);
    let connector = Connector::new(judge, &web.credentials(), &["h2"]);
    let (server, client) = shake_hands(&acceptor, &connector).await;
    let (mut server, mut client) = (server.unwrap(), client.unwrap());
    assert_eq!(server.peer().id.path(), "/web");
    assert_eq!(client.peer().id.path(), "/db");
    assert_eq!(server.get_ref().unwrap().get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(status.view().connections_open, 2);
    client.write_all(b"hello").await.unwrap();
    client.flush().await.unwrap();
    let mut five = [0; 5];
    server.read_exact(&mut five).await.unwrap();
    assert_eq!(&five, b"hello");
    drop((server, client));
    assert_eq!(status.view().connections_open, 0);
}

#[tokio::test]
async fn the_end_that_refuses_says_why_and_the_other_has_the_alert() {
    let domain = Domain::new("example.org");
    let (near, far) = (all_good(Rules::default()), all_good(Rules::default()));
    let (web, db) = (domain.issue("/web"), domain.issue("/db"));
    let acceptor = Acceptor::new(judge_of(&domain, &near), &db.credentials(), &[]);
    let connector = Connector::new(judge_of(&domain, &far), &web.credentials(), &[]);

    know(&far, 2, &[db.serial]);
    let (server, client) = shake_hands(&acceptor, &connector).await;
    assert!(matches!(client.unwrap_err(), HandshakeError::Refused(Refusal::NotGood(NotGood::Listed))));
    assert!(server.unwrap_err().to_string().contains("CertificateRevoked"));
    know(&far, 3, &[]);
    know(&near, 2, &[web.serial]);
    let (server, client) = shake_hands(&acceptor, &connector).await;
    assert!(matches!(server.unwrap_err(), HandshakeError::Refused(Refusal::NotGood(NotGood::Listed))));
    // In TLS 1.3 the client is done before the server has judged it: it has the alert when it reads.
    let error = client.unwrap().read_u8().await.unwrap_err();
    assert!(error.to_string().contains("CertificateRevoked"), "{error}");
    assert_eq!(near.view().connections_open, 0);
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let domain = Domain::new("example.org");
    let status = all_good(Rules::default());
    let db = domain.issue("/db");
    let acceptor = Acceptor::new(judge_of(&domain, &status), &db.credentials(), &[]);
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(PeerVerifier::new(judge_of(&domain, &status)))
        .with_no_client_auth();
    let connector = Connector::with_config(judge_of(&domain, &status), Arc::new(config));
    let (server, _) = shake_hands(&acceptor, &connector).await;
    assert!(server.unwrap_err().to_string().contains("certificate"));
}

#[tokio::test]
async fn rotated_credentials_show_in_the_next_handshake_and_end_no_connection() {
    let domain = Domain::new("example.org");
    let status = all_good(Rules::default());
    let judge = judge_of(&domain, &status);
    let (web, db, next) = (domain.issue("/web"), domain.issue("/db"), domain.issue("/db"));
    let shown = db.credentials();
    let acceptor = Acceptor::new(judge.clone(), &shown, &[]);
    let connector = Connector::new(judge, &web.credentials(), &[]);
    let (server, client) = shake_hands(&acceptor, &connector).await;
    let (mut server, mut client) = (server.unwrap(), client.unwrap());
    assert!(shown.show(next.chain.clone(), web.key.clone_key()).is_err(), "a key of another certificate");
    shown.show(next.chain.clone(), next.key.clone_key()).unwrap();
    let (_server, renewed) = shake_hands(&acceptor, &connector).await;
    assert_eq!(renewed.unwrap().peer().serial, Some(next.serial));
    server.write_u8(7).await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 7);
    assert_eq!(client.peer().serial, Some(db.serial));
}

/// Configurations that resume sessions, as a program may have them that brings its own.
fn resuming(domain: &Domain, status: &Status, server: &Held, client: &Held) -> (ServerConfig, ClientConfig) {
    let verifier = PeerVerifier::new(judge_of(domain, status));
    let mut serving = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.clone())
        .with_cert_resolver(Arc::new(server.credentials()));
    serving.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
    let calling = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(client.credentials()));
    (serving, calling)
}

async fn exchange_byte(ends: Ends) -> HandshakeKind {
    let (mut server, mut client) = (ends.0.unwrap(), ends.1.unwrap());
    server.write_u8(7).await.unwrap();
    server.flush().await.unwrap();
    client.read_u8().await.unwrap();
    server.get_ref().unwrap().get_ref().1.handshake_kind().unwrap()
}

#[tokio::test]
async fn a_revoked_peer_does_not_resume_its_session() {
    let domain = Domain::new("example.org");
    let status = all_good(Rules::default());
    let (web, db) = (domain.issue("/web"), domain.issue("/db"));
    let (serving, calling) = resuming(&domain, &status, &db, &web);
    let judge = judge_of(&domain, &status);
    let acceptor = Acceptor::with_config(judge.clone(), Arc::new(serving));
    let connector = Connector::with_config(judge, Arc::new(calling));
    assert_eq!(exchange_byte(shake_hands(&acceptor, &connector).await).await, HandshakeKind::Full);
    let resumed = exchange_byte(shake_hands(&acceptor, &connector).await).await;
    assert_eq!(resumed, HandshakeKind::Resumed, "so that the test says something");

    know(&status, 2, &[web.serial]);
    let (server, _client) = shake_hands(&acceptor, &connector).await;
    assert!(matches!(server.unwrap_err(), HandshakeError::Refused(Refusal::NotGood(_))));
    know(&status, 3, &[db.serial]);
    let (_server, client) = shake_hands(&acceptor, &connector).await;
    assert!(matches!(client.unwrap_err(), HandshakeError::Refused(Refusal::NotGood(_))));
}

#[tokio::test]
async fn configurations_made_here_resume_nothing() {
    let domain = Domain::new("example.org");
    let status = all_good(Rules::default());
    let (web, db) = (domain.issue("/web"), domain.issue("/db"));
    let judge = judge_of(&domain, &status);
    let (mut serving, calling) = resuming(&domain, &status, &db, &web);
    without_resumption(&mut serving);
    let eager = Connector::with_config(judge.clone(), Arc::new(calling));
    for acceptor in [
        Acceptor::new(judge.clone(), &db.credentials(), &[]),
        Acceptor::with_config(judge.clone(), Arc::new(serving)),
    ] {
        for _ in 0..3 {
            let kind = exchange_byte(shake_hands(&acceptor, &eager).await).await;
            assert_eq!(kind, HandshakeKind::Full);
        }
    }
}
