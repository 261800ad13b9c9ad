//! A receiver: what it asks of the transmitter, and the Python that judges what it gets.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use chancery_api::{HoldRequest, ReleaseRequest, RevokeRequest, Selector};
use chancery_types::{RevocationReason, SerialNumber};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::running::wire::{Answer, Wire};
use crate::running::{Held, Running, skipped};

pub(crate) const CHANGE: &str = "https://schemas.openid.net/secevent/caep/event-type/credential-change";
pub(crate) const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";

/// Somebody with a certificate and a connection.
pub(crate) struct Receiver(pub(crate) Wire);

impl Receiver {
    pub(crate) async fn of(running: &Running, held: &Held) -> Self {
        Self(Wire::tls(running, Some((&held.chain(), &held.key.to_pkcs8_pem()))).await)
    }

    pub(crate) async fn ask(&mut self, line: &str, body: Value) -> Answer {
        self.0.json(line, body.to_string().as_bytes()).await.unwrap()
    }

    /// Makes a stream; its configuration.
    pub(crate) async fn create(&mut self, request: Value) -> Value {
        let answer = self.ask("POST /v1/ssf/stream", request).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        value(&answer)
    }

    /// Polls; tokens by name, and whether there are more.
    pub(crate) async fn poll(&mut self, stream: &str, request: Value) -> (Vec<(String, String)>, bool) {
        let answer = self.ask(&format!("POST /v1/ssf/streams/{stream}/poll"), request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body = value(&answer);
        let sets = body["sets"].as_object().unwrap();
        let sets = sets.iter().map(|(name, token)| (name.clone(), token.as_str().unwrap().to_owned()));
        (sets.collect(), body["moreAvailable"].as_bool().unwrap())
    }

    /// Polls without waiting until so many tokens are there.
    pub(crate) async fn poll_for(&mut self, stream: &str, count: usize) -> Vec<(String, String)> {
        for _ in 0..300 {
            let (sets, _) = self.poll(stream, json!({ "returnImmediately": true })).await;
            assert!(sets.len() <= count, "{sets:?}");
            if sets.len() == count {
                return sets;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{count} events do not come");
    }

    pub(crate) async fn acknowledge(&mut self, stream: &str, names: &[&str]) {
        let (sets, _) = self.poll(stream, json!({ "ack": names, "maxEvents": 0 })).await;
        assert!(sets.is_empty());
    }
}

/// The same authority, stopped and started.
pub(crate) async fn restarted(running: Running) -> Running {
    let Running { place, server } = running;
    server.stop().await;
    drop(server);
    Running { server: place.serve().await.unwrap(), place }
}

pub(crate) fn value(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

pub(crate) async fn revoke(running: &Running, serial: SerialNumber) {
    let request = RevokeRequest::new(Selector::Serial(serial), RevocationReason::KeyCompromise);
    running.admin().revoke(&request).await.unwrap();
}

pub(crate) async fn hold(running: &Running, serial: SerialNumber) {
    running.admin().hold(&HoldRequest::new(Selector::Serial(serial))).await.unwrap();
}

pub(crate) async fn release(running: &Running, serial: SerialNumber) {
    running.admin().release(&ReleaseRequest::new(Selector::Serial(serial))).await.unwrap();
}

/// What PyJWT and python-jose, with the keys that the server publishes, say that tokens say.
pub(crate) async fn judged(python: &Path, running: &Running, audience: &str, tokens: &[&str]) -> Vec<Value> {
    let url = format!("https://localhost:{}", running.server.api_address().port());
    let mut command = Command::new(python);
    command.arg(script()).arg("verify").arg(url).arg(running.place.file("certs/root.crt")).arg(audience);
    let output = command.args(tokens).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ssf/receiver.py")
}

/// A Python with the packages, in a folder that later runs find again; nothing, said aloud, where there is no network.
pub(crate) async fn python() -> Option<PathBuf> {
    static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _making = MAKING.lock().await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-jwt");
    let python = folder.join("bin/python");
    let imports = || {
        Command::new(&python).args(["-c", "import jwt, jose, cryptography"]).stderr(Stdio::null()).status()
    };
    if imports().await.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    // Tests are processes of their own: each makes the folder beside and moves it into place.
    let making = folder.with_extension(std::process::id().to_string());
    let (place, pip) = (making.to_str().unwrap().to_owned(), making.join("bin/pip"));
    let pip = pip.to_str().unwrap().to_owned();
    let steps: [Vec<&str>; 2] = [
        vec!["python3", "-m", "venv", "--clear", &place],
        vec![&pip, "install", "--quiet", "--retries", "1", "pyjwt", "python-jose[cryptography]"],
    ];
    for step in steps {
        let done = Command::new(step[0]).args(&step[1..]).stdout(Stdio::null()).status().await;
        if !done.is_ok_and(|status| status.success()) {
            skipped("security event tokens judged by Python", &format!("failed: {}", step.join(" ")));
            return None;
        }
    }
    if std::fs::rename(&making, &folder).is_err() {
        let _ = std::fs::remove_dir_all(&making);
    }
    Some(python)
}
