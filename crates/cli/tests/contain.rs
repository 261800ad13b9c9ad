//! What operators see of relying parties in an incident: who has confirmed, who has not, and the danger that is left.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod process;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use process::{Authority, command, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long the slowest of machines may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// So old may the authority's last word be at a proxy that keeps peers out then.
const MAXIMUM_AGE: u64 = 300;

/// A program that is killed when this is dropped.
struct Program(Child);

impl Program {
    fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(process, signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Registers an identity and enrols it, into a directory of its name.
fn enrol(authority: &Authority, name: &str) {
    authority.chancery(&["identity", "create", name, "--owner", "ada"]).success();
    let token = authority.chancery(&["token", "create", "--identity", name]).success();
    std::fs::write(authority.path("join.token"), token).unwrap();
    let enroll = ["enroll", "--server", &authority.url, "--token-file", "join.token", "--out", name];
    authority.chancery(&enroll).success();
}

/// A proxy, the service behind it that says nothing, and where clients find it.
struct Proxy {
    program: Program,
    address: SocketAddr,
    /// Told of each connection that came through.
    came: Receiver<()>,
}

/// Starts a proxy that shows the identity of this name, and waits until the authority knows it.
fn proxy(authority: &Authority, name: &str, when_unknown: &str) -> Proxy {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "[authority]\nserver = \"{}\"\n\
         [identity]\ncertificate = \"{name}/tls.crt\"\nkey = \"{name}/tls.key\"\ntrust_bundle = \"{name}/ca.crt\"\n\
         [status]\nwhen_unknown = \"{when_unknown}\"\nmaximum_age = \"{MAXIMUM_AGE}s\"\n\
         [[listeners]]\nname = \"in\"\nlisten = \"{address}\"\nto = \"{}\"\n\
         allow_clients = [\"spiffe://example.org/*\"]\n",
        authority.url,
        service.local_addr().unwrap(),
    );
    let (told, came) = channel();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in service.incoming() {
            held.push(stream);
            if told.send(()).is_err() {
                return;
            }
        }
    });
    let file = format!("{name}.toml");
    std::fs::write(authority.path(&file), text).unwrap();
    let log = std::fs::File::create(authority.path(&format!("{name}.log"))).unwrap();
    let child = command(&authority.path("")).args(["proxy", "--config", &file]).stderr(log).spawn().unwrap();
    let program = Program(child);
    let id = format!("spiffe://example.org/{name}");
    eventually("the proxy confirms", || {
        let known = authority.chancery(&["relying-party", "list", "--json"]).json();
        let mut parties = known["relying_parties"].as_array().unwrap().iter();
        parties.any(|party| party["spiffe_id"] == id && party["connected"] == true)
            && TcpStream::connect(address).is_ok()
    });
    Proxy { program, address, came }
}

/// OpenSSL's client with `web`'s certificate, connected until it is cut; its standard input keeps it there.
fn peer(authority: &Authority, address: SocketAddr) -> (Program, ChildStdin) {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-cert", "web/tls.crt", "-key", "web/tls.key"])
        .args(["-cert_chain", "web/tls.crt", "-CAfile", "web/ca.crt", "-verify_return_error", "-quiet"])
        .current_dir(authority.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"hello\n").unwrap();
    (Program(child), input)
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The JSON documents that a command printed, one after the other.
fn documents(text: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap).collect()
}

#[test]
fn containing_shows_who_enforces_it_cuts_the_peer_and_ends_as_decided() {
    let mut authority = Authority::init(&[]);
    authority.serve();
    for name in ["web", "api"] {
        enrol(&authority, name);
    }
    let api = proxy(&authority, "api", "closed");
    let (mut web, _input) = peer(&authority, api.address);
    api.came.recv_timeout(PATIENCE).expect("the peer came through");

    let contain = ["contain", "--identity", "web", "--watch", "--timeout", "60s"];
    let held = authority.chancery(&[&contain[..], &["--then", "keep", "--block"]].concat()).success();
    assert!(held.contains("1 certificate held"), "{held}");
    assert!(held.contains("1 confirmed, 0 waiting, 1 connections closed"), "{held}");
    assert!(!held.contains("worst exposure"), "{held}");
    eventually("the peer is cut", || web.0.try_wait().unwrap().is_some());

    // Holding what is held changes nothing, and confirming it takes no time; the release gives it back.
    let again = authority.chancery(&[&contain[..], &["--then", "release"]].concat()).success();
    assert!(again.contains("0 certificates held") && again.contains("1 certificate released"), "{again}");
    let revoked = authority.chancery(&[&contain[..], &["--then", "revoke", "--json"]].concat()).success();
    let [hold, reached, revoke] = documents(&revoked).try_into().unwrap();
    assert_eq!((&hold["count"], &revoke["count"]), (&1.into(), &1.into()));
    assert_eq!(reached["confirmed"][0]["spiffe_id"], "spiffe://example.org/api");
    let status = authority.chancery(&["status", hold["serials"][0].as_str().unwrap(), "--json"]).json();
    assert_eq!(status["revocation"]["reason"], "key-compromise");
    drop(api);
    authority.stop();
}

#[test]
fn whoever_does_not_confirm_is_named_with_the_exposure_that_is_left() {
    let mut authority = Authority::init(&[]);
    authority.serve();
    for name in ["web", "strict", "lax"] {
        enrol(&authority, name);
    }
    let strict = proxy(&authority, "strict", "closed");
    let lax = proxy(&authority, "lax", "open");

    // A relying party that hangs: connected, and silent. What it knows is too old within five minutes.
    strict.program.signal(Signal::STOP);
    let hold = ["contain", "--identity", "web", "--watch", "--timeout", "2s", "--then", "keep"];
    let held = run(&authority.path(""), &hold);
    assert!(held.code(4).contains("1 relying parties have not confirmed position"));
    let told = held.output();
    assert!(told.contains("1 confirmed, 1 waiting") && told.contains("worst exposure left: "), "{told}");
    let row = told.lines().find(|line| line.contains("spiffe://example.org/strict")).unwrap();
    assert!(row.contains("waiting"), "{told}");
    strict.program.signal(Signal::CONT);

    // One that lets peers in without knowing does so until the certificate ends.
    lax.program.signal(Signal::STOP);
    let revoke = ["revoke", "--identity", "web", "--wait", "--json"];
    let waited = run(&authority.path(""), &[&revoke[..], &["--timeout", "2s"]].concat());
    waited.code(4);
    let [changed, reached] = documents(&waited.output()).try_into().unwrap();
    assert_eq!(changed["count"], 1);
    let named = |of: &str| reached[of][0]["spiffe_id"].clone();
    assert_eq!(named("confirmed"), "spiffe://example.org/strict");
    assert_eq!(named("waiting"), "spiffe://example.org/lax");
    assert!(reached["worst_exposure_seconds"].as_u64().unwrap() > MAXIMUM_AGE, "{reached}");

    lax.program.signal(Signal::CONT);
    enrol(&authority, "other");
    let other = ["revoke", "--identity", "other", "--wait", "--timeout", "60s", "--json"];
    let [_, reached] = documents(&authority.chancery(&other).success()).try_into().unwrap();
    assert_eq!(reached["confirmed"].as_array().unwrap().len(), 2);
    assert!(reached["worst_exposure_seconds"].is_null() && reached["waiting"] == Value::Array(vec![]));
    drop((strict, lax));
    authority.stop();
}
