//! Clients that are not ours: curl, and Python's gRPC.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use chancery_api::{FeedEvent, FeedQuery};
use chancery_server::bootstrap::InitPlan;
use chancery_server::config::ServerName;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::listener::{hold, release, told};
use crate::running::{Held, Place, Running, plan, skipped};

/// A program that prints what it is told.
struct Other {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Other {
    fn start(command: &mut Command) -> std::io::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Ok(Self { _child: child, lines })
    }

    async fn line(&mut self) -> Option<String> {
        let line = tokio::time::timeout(Duration::from_secs(30), self.lines.next_line()).await;
        line.expect("the program says something").unwrap()
    }

    /// The next line that begins so, without the beginning.
    async fn after(&mut self, beginning: &str) -> String {
        loop {
            let line = self.line().await.expect("the program has not ended");
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }
}

/// Files of a credential, for programs.
struct Files {
    _directory: tempfile::TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(held: &Held) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
        std::fs::write(&certificate, held.chain()).unwrap();
        std::fs::write(&key, &*held.key.to_pkcs8_pem()).unwrap();
        Self { _directory: directory, certificate, key }
    }
}

#[tokio::test]
async fn curl_follows_server_sent_events_and_goes_on_by_their_ids() {
    let running = Running::start().await;
    let (watcher, web) = (running.enroll("watcher").await, running.enroll("web").await.response.serial);
    let files = Files::of(&watcher);
    let url = format!("https://localhost:{}/v1/status/feed", running.server.api_address().port());
    let curl = |more: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--no-buffer", "--http1.1", "--include", &url]);
        command.arg("--cacert").arg(running.place.file("certs/root.crt"));
        command.arg("--cert").arg(&files.certificate).arg("--key").arg(&files.key).args(more);
        command
    };
    let Ok(mut listening) = Other::start(&mut curl(&[])) else {
        return skipped("curl as a client of the feed", "there is no curl");
    };
    assert_eq!(listening.after("HTTP/1.1 ").await, "200 OK");
    assert_eq!(listening.after("content-type: ").await, "text/event-stream");
    let position = listening.after("id: ").await;
    assert_eq!(listening.after("event: ").await, "heartbeat");
    hold(&running, web).await;
    assert_eq!(listening.after("event: ").await, "hold");
    let event: FeedEvent = serde_json::from_str(&listening.after("data: ").await).unwrap();
    assert_eq!(told(&event), ("hold", vec![web]));
    assert_eq!(listening.line().await.as_deref(), Some(""));

    let header = format!("Last-Event-ID: {position}");
    let mut resumed = Other::start(&mut curl(&["--header", &header])).unwrap();
    assert_eq!(resumed.after("id: ").await, event.sequence.to_string());
    let again: FeedEvent = serde_json::from_str(&resumed.after("data: ").await).unwrap();
    assert_eq!(again, event);
    let mut refused = Other::start(&mut curl(&["--header", "Last-Event-ID: soon"])).unwrap();
    assert_eq!(refused.after("HTTP/1.1 ").await, "400 Bad Request");

    // A server that stops says so, and ends the answer as HTTP wants it.
    running.server.stop().await;
    assert_eq!(listening.after("data: ").await, {
        let (at, reason) = (event.sequence, "stopping");
        format!(r#"{{"after":{at},"sequence":{at},"event":"end","reason":"{reason}"}}"#)
    });
    while listening.line().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_follows_the_grpc_stream() {
    let Some(python) = python_with_grpc().await else { return };
    // BoringSSL, in gRPC's C core, cannot judge constraints of addresses, and refuses what OpenSSL and GnuTLS accept.
    let names = vec![ServerName::parse("localhost").unwrap()];
    let place = Place::with(InitPlan { names, ..plan() }, |_| {}).await;
    let running = Running { server: place.serve().await.unwrap(), place };
    let (watcher, web) = (running.enroll("watcher").await, running.enroll("web").await.response.serial);
    let files = Files::of(&watcher);
    let client = running.client(Some(watcher.identity()));
    let [here] = client.poll_status_feed(&FeedQuery::default()).await.unwrap().try_into().unwrap();
    hold(&running, web).await;
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(python);
    command
        .arg(crate_directory.join("tests/feed/follow.py"))
        .arg(crate_directory.join("proto"))
        .arg(format!("localhost:{}", running.server.api_address().port()))
        .args([&running.place.file("certs/root.crt"), &files.certificate, &files.key])
        .arg(here.sequence.to_string());
    let mut follower = Other::start(&mut command).unwrap();
    let line = follower.after("").await;
    let (position, rest) = line.split_once(' ').unwrap();
    assert!(position.parse::<u64>().unwrap() > here.sequence);
    assert_eq!(rest, format!("hold {web}"));
    release(&running, web).await;
    let line = follower.after("").await;
    assert_eq!(line.split_once(' ').unwrap().1, format!("release {web}"));
    running.server.stop().await;
    let line = follower.after("").await;
    assert_eq!(line.split_once(' ').unwrap().1, "end 4");
    assert_eq!(follower.after("").await, "UNAVAILABLE");
}

/// A Python with the packages, in a folder that later runs find again; nothing, said aloud, where there is no network.
async fn python_with_grpc() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-grpc");
    let python = folder.join("bin/python");
    let imports =
        || Command::new(&python).args(["-c", "import grpc, grpc_tools"]).stderr(Stdio::null()).status();
    if imports().await.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let folder = folder.to_str().unwrap().to_owned();
    let pip = python.to_str().unwrap().to_owned();
    let steps: [Vec<&str>; 2] = [
        vec!["python3", "-m", "venv", "--clear", &folder],
        vec![&pip, "-m", "pip", "install", "--quiet", "--retries", "1", "grpcio", "grpcio-tools"],
    ];
    for step in steps {
        let done = Command::new(step[0]).args(&step[1..]).stdout(Stdio::null()).status().await;
        if !done.is_ok_and(|status| status.success()) {
            skipped("gRPC from Python", &format!("failed: {}", step.join(" ")));
            return None;
        }
    }
    Some(python)
}
