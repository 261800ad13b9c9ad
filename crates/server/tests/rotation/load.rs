//! An issuer is replaced under load: nobody is refused, no handshake fails, whoever looks.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chancery_api::{IdentityDocument, RotateRequest, RotationSubject};
use chancery_types::Identity;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::running::{Held, Running, id};
use super::{active, until, with_spares};

/// The chain that whoever holds this shows.
fn chain(held: &Held) -> Vec<CertificateDer<'static>> {
    chancery_x509::read_certificates(held.chain().as_bytes(), 8)
        .unwrap()
        .into_iter()
        .map(CertificateDer::from)
        .collect()
}

fn key(held: &Held) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(held.key.pkcs8_der().to_vec()))
}

/// Two peers who know nothing but the root meet by TLS, both with certificates.
fn meet(root: &CertificateDer<'static>, server: &Held, client: &Held) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder(Arc::clone(&roots)).build().unwrap();
    let ours = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(server), key(server))
        .map_err(|error| error.to_string())?;
    let theirs = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain(client), key(client))
        .map_err(|error| error.to_string())?;
    let mut server = ServerConnection::new(Arc::new(ours)).map_err(|error| error.to_string())?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(theirs), name).map_err(|error| error.to_string())?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets().map_err(|error| format!("client: {error}"))?;
    }
    Ok(())
}

/// What `openssl` says of the server's own TLS, with every list that it can check.
fn judged(running: &Running) -> Result<(), String> {
    let output = Command::new("openssl")
        .args(["s_client", "-verify_return_error", "-brief", "-connect"])
        .arg(running.server.api_address().to_string())
        .arg("-CAfile")
        .arg(running.place.file("certs/root.crt"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() && told.contains("Verification: OK") { Ok(()) } else { Err(told) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_is_replaced_under_load_without_one_refusal_or_failed_handshake() {
    let running = Arc::new(with_spares(1).await);
    let root = CertificateDer::from(running.server.site().authority.root().der().to_vec());
    for name in ["steady", "busy"] {
        let mut identity = Identity::new(id(name), "ada");
        identity.dns_names = vec!["localhost".parse().unwrap()];
        running.admin().register_identity(&IdentityDocument(identity)).await.unwrap();
    }
    let steady = Arc::new(running.enroll_again("steady").await);
    let stop = Arc::new(AtomicBool::new(false));
    let (handshakes, issued) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let workers = (0..3).map(|_| {
        let (running, root, steady) = (Arc::clone(&running), root.clone(), Arc::clone(&steady));
        let (stop, handshakes, issued) = (Arc::clone(&stop), Arc::clone(&handshakes), Arc::clone(&issued));
        tokio::spawn(async move {
            let mut epochs = BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                // Enrolment unwraps: a single refusal fails the test.
                let fresh = running.enroll_again("busy").await;
                issued.fetch_add(1, Ordering::Relaxed);
                epochs.insert(fresh.response.serial.epoch().0);
                for (server, client) in [(&fresh, &*steady), (&*steady, &fresh), (&fresh, &fresh)] {
                    meet(&root, server, client).unwrap();
                    handshakes.fetch_add(1, Ordering::Relaxed);
                }
            }
            epochs
        })
    });
    let workers: Vec<_> = workers.collect();
    let has_openssl = Command::new("openssl").arg("version").output().is_ok();
    if !has_openssl {
        println!("SKIPPED what openssl says of it: there is no openssl");
    }
    let request =
        RotateRequest { subject: RotationSubject::Issuer, dry_run: false, note: "under load".into() };
    running.admin().ca_rotate(&request).await.unwrap();
    let mut judgements = 0;
    while active(&super::status(&running).await) == 1 {
        if has_openssl {
            judged(&running).unwrap();
            judgements += 1;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // The server shows a certificate of the new issuer too, and openssl believes it.
    until(&running, "two issuers", |status| active(status) == 2).await;
    for _ in 0..10 {
        if has_openssl {
            judged(&running).unwrap();
            judgements += 1;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut epochs = BTreeSet::new();
    for worker in workers {
        epochs.extend(worker.await.unwrap());
    }
    assert_eq!(epochs, BTreeSet::from([1, 2]), "both issuers signed while everybody looked");
    let lists = running.server.site().crl.places().filter(|place| place.current().is_some()).count();
    println!(
        "{} certificates, {} handshakes, {judgements} by openssl, {lists} lists: none failed",
        issued.load(Ordering::Relaxed),
        handshakes.load(Ordering::Relaxed)
    );
}
