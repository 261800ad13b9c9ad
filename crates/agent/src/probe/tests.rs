use std::process::Stdio;

use tokio::net::TcpListener;
use tokio::process::Command;

use super::*;
use crate::sink::tests::service::Service;
use crate::sink::tests::{Authority, svid};

fn probe(address: &str, more: serde_json::Value) -> Probe {
    let mut settings = serde_json::json!({ "address": address, "server_name": "localhost", "timeout": "5s" });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Probe::try_from(serde_json::from_value::<ProbeSettings>(settings).unwrap()).unwrap()
}

#[tokio::test]
async fn tells_the_certificate_from_another_and_says_which() {
    let authority = Authority::new();
    let states = [authority.issue(Duration::from_secs(600)), authority.issue(Duration::from_secs(900))];
    let [one, other] = [svid(&states[0]), svid(&states[1])];
    let service = Service::start(std::path::Path::new("/nowhere")).await;
    service.serve_certificate(&one.chain, one.key.expose_secret());
    let probe = probe(&service.address.to_string(), serde_json::json!({}));
    assert_eq!(probe.look(&one.chain[0]).await, ProbeOutcome::Serving);
    let another =
        ProbeOutcome::ServingAnother { serial: one.serial.to_string(), not_after: Some(one.not_after) };
    assert_eq!(probe.look(&other.chain[0]).await, another);
}

#[tokio::test]
async fn service_that_is_not_there_or_speaks_no_tls_serves_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let quick = serde_json::json!({ "timeout": "200ms" });
    let silent = probe(&address, quick.clone()).look(b"").await;
    assert!(
        matches!(&silent, ProbeOutcome::NotServing { why } if why.contains("no handshake within")),
        "{silent:?}"
    );
    drop(listener);
    let gone = probe(&address, quick).look(b"").await;
    assert!(matches!(&gone, ProbeOutcome::NotServing { why } if why.contains("refused")), "{gone:?}");
}

#[tokio::test]
async fn postgresql_without_tls_is_named() {
    for (answer, part) in [(b'N', "is ssl on?"), (b'E', "this is not PostgreSQL")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let probe = probe(&address, serde_json::json!({ "starttls": "postgres" }));
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
            stream.write_all(&[answer]).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(probe.look(b""), serve);
        assert!(matches!(&outcome, ProbeOutcome::NotServing { why } if why.contains(part)), "{outcome:?}");
    }
}

#[tokio::test]
async fn openssl_is_seen_through_whatever_it_asks_of_its_clients() {
    let authority = Authority::new();
    let state = authority.issue(Duration::from_secs(600));
    let svid = svid(&state);
    let home = tempfile::tempdir().unwrap();
    let pem = |label, bytes: &[u8]| der::pem::encode_string(label, der::pem::LineEnding::LF, bytes).unwrap();
    std::fs::write(home.path().join("crt"), pem("CERTIFICATE", &svid.chain[0])).unwrap();
    std::fs::write(home.path().join("key"), pem("PRIVATE KEY", svid.key.expose_secret())).unwrap();
    for more in [&["-tls1_3"][..], &["-tls1_2"], &["-Verify", "1", "-verify_return_error"]] {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let started = Command::new("openssl")
            .args(["s_server", "-accept", &free, "-cert", "crt", "-key", "key", "-quiet"])
            .args(more)
            .current_dir(home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let Ok(_server) = started else {
            println!(
                "SKIPPED openssl_is_seen_through_whatever_it_asks_of_its_clients: openssl is not installed"
            );
            return;
        };
        let probe = probe(&free, serde_json::json!({ "patience": "30s", "alpn": ["h2", "http/1.1"] }));
        assert_eq!(probe.wait_for(&svid.chain[0]).await, ProbeOutcome::Serving, "{more:?}");
    }
}
