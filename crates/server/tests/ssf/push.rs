//! Delivery by push (RFC 8935) to a server in Python.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::receiver::{CHANGE, Receiver, VERIFICATION, hold, python, release, restarted, script};
use crate::running::{Running, free_address, id};

/// Certificate and key of a receiver that no authority of ours has made.
struct Site {
    directory: tempfile::TempDir,
    port: u16,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("site.crt"), certificate.pem()).unwrap();
        std::fs::write(directory.path().join("site.key"), key.serialize_pem()).unwrap();
        Self { directory, port: free_address().port() }
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    async fn authority(&self) -> Running {
        Running::with(|config| {
            config.ssf.push_hosts = vec![format!("localhost:{}", self.port)];
            config.ssf.push_roots = Some(self.file("site.crt"));
        })
        .await
    }
}

/// The program.
struct Server {
    _child: Child,
    answers: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Server {
    async fn start(python: &Path, running: &Running, site: &Site, audience: &str) -> Self {
        let url = format!("https://localhost:{}", running.server.api_address().port());
        let mut child = Command::new(python)
            .arg(script())
            .args(["serve", &url])
            .arg(running.place.file("certs/root.crt"))
            .args([audience, &site.file("site.crt"), &site.file("site.key"), &site.port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut server = Self { answers: child.stdin.take().unwrap(), lines, _child: child };
        assert!(server.next().await["listening"].is_string());
        server
    }

    /// The next token that arrives.
    async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(30), self.lines.next_line()).await;
        let line = line.expect("something is pushed").unwrap().expect("the receiver lives");
        serde_json::from_str(&line).unwrap()
    }

    /// What it says to a request.
    async fn answer(&mut self, with: &str) {
        self.answers.write_all(format!("{with}\n").as_bytes()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_pushed_in_order_each_until_it_is_taken() {
    let Some(python) = python().await else { return };
    let site = Site::new();
    let running = site.authority().await;
    let (siem, web) = (running.enroll("siem").await, running.enroll("web").await.response.serial);
    let audience = site.url("/tenant/7");
    let mut server = Server::start(&python, &running, &site, &audience).await;
    let mut receiver = Receiver::of(&running, &siem).await;
    let delivery = json!({
        "method": "urn:ietf:rfc:8935", "endpoint_url": site.url("/events?tenant=7"),
        "authorization_header": "Bearer of-the-receiver",
    });
    let stream = receiver.create(json!({ "aud": audience, "delivery": delivery })).await;
    let name = stream["stream_id"].as_str().unwrap().to_owned();
    assert!(!stream.to_string().contains("of-the-receiver"), "{stream}");

    hold(&running, web).await;
    release(&running, web).await;
    let first = server.next().await;
    assert_eq!(first["authorization"], "Bearer of-the-receiver");
    assert_eq!(first["path"], "/events?tenant=7");
    assert_eq!(first["claims"]["events"][CHANGE]["change_type"], "revoke");
    server.answer("500").await;
    let again = server.next().await;
    assert_eq!(again, first, "the same token again");
    server.answer("400 invalid_audience").await;
    assert_eq!(server.next().await, first);
    let trouble = running.admin().event_streams().await.unwrap().streams.remove(0);
    assert_eq!(trouble.last_error.as_deref(), Some("it answered 400 Bad Request, invalid_audience: told to"));
    server.answer("202").await;
    assert_eq!(server.next().await["claims"]["events"][CHANGE]["change_type"], "update");
    server.answer("202").await;

    let verify = json!({ "stream_id": name, "state": "are you there" });
    assert_eq!(receiver.ask("POST /v1/ssf/verify", verify).await.status, 204);
    assert_eq!(server.next().await["claims"]["events"][VERIFICATION]["state"], "are you there");
    server.answer("202").await;
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_receiver_missed_while_it_or_the_server_was_away_is_pushed_later() {
    let Some(python) = python().await else { return };
    let site = Site::new();
    let running = site.authority().await;
    let (siem, web) = (running.enroll("siem").await, running.enroll("web").await.response.serial);
    let mut receiver = Receiver::of(&running, &siem).await;
    let delivery = json!({ "method": "urn:ietf:rfc:8935", "endpoint_url": site.url("/") });
    receiver.create(json!({ "delivery": delivery })).await;
    hold(&running, web).await;
    while running.admin().event_streams().await.unwrap().streams[0].last_error.is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let running = restarted(running).await;
    let mut server = Server::start(&python, &running, &site, &id("siem").to_string()).await;
    assert_eq!(server.next().await["claims"]["events"][CHANGE]["x509_serial"], web.to_string());
    server.answer("202").await;
    while running.admin().event_streams().await.unwrap().streams[0].waiting > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Who is held is told nothing, and nothing is lost.
    let held = chancery_api::IdentityStateRequest::default();
    running.admin().hold_identity(&id("siem"), &held).await.unwrap();
    release(&running, web).await;
    loop {
        let stream = running.admin().event_streams().await.unwrap().streams.remove(0);
        if stream.last_error.as_deref() == Some("the stream's owner is not active") {
            assert!(stream.waiting > 0);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.admin().retire_identity(&id("siem"), &held).await.unwrap();
    while !running.admin().event_streams().await.unwrap().streams.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.server.stop().await;
}
