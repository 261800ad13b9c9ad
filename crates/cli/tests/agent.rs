//! The agent as users run it: the program itself, under a supervisor, with the commands that scripts type.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod process;

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use process::{Authority, command};
use rustix::process::{Pid, Signal, kill_process};

/// How long the slowest of machines may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent, killed when it is dropped.
struct Agent {
    child: Child,
    supervisor: UnixDatagram,
    log: PathBuf,
}

impl Agent {
    /// Starts one beside the authority, with these flags more, and waits until it says that it is ready.
    fn start(authority: &Authority, flags: &[&str]) -> Self {
        let path = authority.path("notify.sock");
        let _ = std::fs::remove_file(&path);
        let supervisor = UnixDatagram::bind(&path).unwrap();
        supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = authority.path("agent.log");
        let child = command(&authority.path(""))
            .args(["agent", "--log-format", "json"])
            .args(flags)
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "1000000")
            .stderr(std::fs::File::create(&log).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, supervisor, log }
    }

    /// Waits until the supervisor was told this.
    fn says(&self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = [0; 512];
        while Instant::now() < deadline {
            let Ok(length) = self.supervisor.recv(&mut heard) else { break };
            if String::from_utf8_lossy(&heard[..length]).contains(what) {
                return;
            }
        }
        panic!("{what} was not said: {}", std::fs::read_to_string(&self.log).unwrap());
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority with a node, a token for it, and this user as `web`.
fn world() -> (Authority, String) {
    let mut authority = Authority::init(&[]);
    authority.serve();
    let create = |name: &str, more: &[&str]| {
        let line = ["identity", "create", name, "--owner", "ada"];
        authority.chancery(&[&line, more].concat()).success();
    };
    create("node/a", &["--profile", "node"]);
    let uid = format!("unix:uid:{}", rustix::process::geteuid().as_raw());
    create("web", &["--parent", "spiffe://example.org/node/a", "--selector", &uid]);
    let token = authority.chancery(&["token", "create", "--identity", "node/a"]).success();
    std::fs::write(authority.path("join.token"), token).unwrap();
    let socket = authority.path("api.sock").to_str().unwrap().to_owned();
    (authority, socket)
}

#[test]
fn a_script_gets_its_identity_by_a_token_a_socket_and_nothing_else() {
    let (mut authority, socket) = world();
    let status_socket = authority.path("status.sock").to_str().unwrap().to_owned();
    let url = authority.url.clone();
    let flags = ["--server", &url, "--join-token-file", "join.token", "--socket", &socket];
    let flags = [&flags[..], &["--status-socket", &status_socket, "--state", "state", "--keep-credential"]];
    let mut agent = Agent::start(&authority, &flags.concat());
    agent.says("READY=1");
    agent.says("WATCHDOG=1");

    authority.chancery(&["fetch", "x509", "--socket", &socket, "--write", "web"]).success();
    let (certificate, roots) = (authority.path("web/tls.crt"), authority.path("web/ca.crt"));
    let verified = Command::new("openssl")
        .args(["verify", "-x509_strict", "-CAfile"])
        .args([&roots, std::path::Path::new("-untrusted"), &certificate, &certificate])
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let token = authority.chancery(&["fetch", "jwt", "--socket", &socket, "--audience", "db"]).success();
    assert_eq!(token.trim().split('.').count(), 3);

    let ask = ["agent", "status", "--status-socket", &status_socket];
    let status = authority.chancery(&[&ask[..], &["--json"]].concat()).json();
    assert_eq!(status["health"], "ok", "{status}");
    assert_eq!(status["identities"][0]["spiffe_id"], "spiffe://example.org/web");
    assert!(authority.chancery(&ask).success().contains("spiffe://example.org/node/a"));

    // A program that knows nothing of all this, and ends as it likes.
    let script = "openssl x509 -in \"$CHANCERY_CERT_FILE\" -noout && \
                  test -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\" && exit 7";
    let run = ["run", "--socket", &socket, "--files", "run", "--", "sh", "-c", script];
    authority.chancery(&run).code(7);
    authority.chancery(&["run", "--socket", &socket, "--", "/no/such/program"]).code(127);

    agent.signal(Signal::HUP);
    agent.says("RELOADING=1");
    agent.says("READY=1");

    authority.chancery(&["identity", "hold", "web"]).success();
    let deadline = Instant::now() + PATIENCE;
    let refused = loop {
        let ran = authority.chancery(&["fetch", "x509", "--socket", &socket]);
        if !ran.is_success() {
            break ran.code(1);
        }
        assert!(Instant::now() < deadline, "it is held and still served");
    };
    assert!(refused.contains("PermissionDenied"), "{refused}");

    // Nothing that was issued needs the authority to be there.
    authority.chancery(&["identity", "release", "web"]).success();
    let deadline = Instant::now() + PATIENCE;
    while !authority.chancery(&["fetch", "x509", "--socket", &socket]).is_success() {
        assert!(Instant::now() < deadline, "it is released and not served");
    }
    authority.stop();
    authority.chancery(&["fetch", "x509", "--socket", &socket]).success();

    agent.signal(Signal::TERM);
    agent.says("STOPPING=1");
    let ended = agent.child.wait().unwrap();
    let log = std::fs::read_to_string(authority.path("agent.log")).unwrap();
    assert!(ended.success(), "{ended}\n{log}");
    assert!(!authority.path("api.sock").exists() && !authority.path("status.sock").exists());
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
    let gone = authority.chancery(&ask).code(1);
    assert!(gone.contains("no agent answers"), "{gone}");
}

#[test]
fn the_log_says_more_when_the_file_does_and_a_wrong_file_changes_nothing() {
    let (authority, socket) = world();
    let write = |log: &str| {
        let text = format!(
            "server = {:?}\ntrust_bundle = \"chancery-root/root.crt\"\nlog = {log:?}\n\
             [evidence]\njoin_token_file = \"join.token\"\n\
             [workload_api]\nsocket = {socket:?}\n[status]\nsocket = \"status.sock\"\n",
            authority.url
        );
        std::fs::write(authority.path("agent.toml"), text).unwrap();
    };
    write("warn");
    let agent = Agent::start(&authority, &["--config", "agent.toml"]);
    agent.says("READY=1");
    let log = || std::fs::read_to_string(authority.path("agent.log")).unwrap();
    let reload = || {
        agent.signal(Signal::HUP);
        agent.says("RELOADING=1");
        agent.says("READY=1");
    };
    assert!(!log().contains("\"level\":\"INFO\""), "{}", log());

    write("chancery=loudest");
    reload();
    assert!(log().contains("the configuration is wrong; the one in force stays"), "{}", log());
    assert!(log().contains("chancery=loudest"), "{}", log());
    assert!(!log().contains("\"level\":\"DEBUG\""), "{}", log());

    write("debug");
    reload();
    authority.chancery(&["fetch", "x509", "--socket", &socket]).success();
    let deadline = Instant::now() + PATIENCE;
    while !log().contains("\"level\":\"DEBUG\"") {
        assert!(Instant::now() < deadline, "{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_token_that_was_spent_ends_the_agent_with_the_authoritys_word() {
    let (authority, socket) = world();
    let status_socket = authority.path("status.sock").to_str().unwrap().to_owned();
    let flags = ["--server", &authority.url, "--join-token-file", "join.token", "--socket", &socket];
    let flags = [&flags[..], &["--status-socket", &status_socket]].concat();
    let first = Agent::start(&authority, &flags);
    first.says("READY=1");
    drop(first);
    let mut second = Agent::start(&authority, &flags);
    let ended = second.child.wait().unwrap();
    let log = std::fs::read_to_string(authority.path("agent.log")).unwrap();
    assert_eq!(ended.code(), Some(3), "{log}");
    assert!(log.contains("the node was not proved"), "{log}");
}

#[test]
fn a_configuration_is_checked_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("agent.toml"), "server = \"http://x\"\n").unwrap();
    let refused = process::run(directory.path(), &["check-config", "--agent", "."]).code(1);
    for what in ["server", "trust_bundle", "evidence"] {
        assert!(refused.contains(what), "{what}: {refused}");
    }
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ca-config");
    let fine = process::run(directory.path(), &["check-config", "--agent", sample]).success();
    assert!(fine.contains("in order"), "{fine}");
}
