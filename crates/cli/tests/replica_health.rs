//! What the doctor sees of several replicas on one database, whole and broken on purpose; and that one trace goes through
//! all of them.

#![allow(unreachable_pub, reason = "what tests share")]
#![allow(clippy::print_stdout, reason = "what is missing must be noticed")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

#[path = "traces/collector.rs"]
mod collector;
mod process;
#[path = "../../ledger/tests/server/mod.rs"]
mod server;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use collector::{Answer, Collector};
use process::{Authority, command, free_port};
use serde_json::Value;
use server::Server;

/// The example of W3C Trace Context.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A second server of the same authority, killed when it is dropped.
struct Replica {
    child: Child,
    url: String,
}

impl Replica {
    /// A copy of the first one's directory with addresses of its own, changed like this.
    fn start(authority: &Authority, change: impl Fn(String) -> String) -> Self {
        let (first, second) = (authority.path("chancery"), authority.path("second"));
        let _ = std::fs::remove_dir_all(&second);
        let copied = Command::new("cp").arg("-a").args([&first, &second]).status().unwrap();
        assert!(copied.success());
        for own in ["run", "checkpoints"] {
            let _ = std::fs::remove_dir_all(second.join(own));
        }
        let config = second.join("chancery.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let port = authority.url.rsplit(':').next().unwrap();
        let (api, status) = (free_port(), free_port());
        let lines = text.lines().map(|line| match line.split(" = ").next() {
            Some("api") => format!("api = \"127.0.0.1:{api}\""),
            Some("status") => format!("status = \"127.0.0.1:{status}\""),
            _ => line.to_owned(),
        });
        let text = lines.collect::<Vec<_>>().join("\n") + "\n";
        assert!(text.contains(&api.to_string()) && port != api.to_string(), "{text}");
        std::fs::write(&config, change(text)).unwrap();
        let child = command(&authority.path(""))
            .args(["serve", "--allow-online-root", "--config", "second/chancery.toml"])
            .env("OTEL_SERVICE_NAME", "second")
            .stderr(std::fs::File::create(authority.path("second.log")).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let replica = Self { child, url: format!("https://127.0.0.1:{api}") };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !authority.chancery(&["log", "key", "--server", &replica.url]).is_success() {
            let log = std::fs::read_to_string(authority.path("second.log")).unwrap();
            assert!(Instant::now() < deadline, "it does not serve:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        replica
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the doctor says now: check, state, what was found and what to do.
fn doctor(authority: &Authority) -> Vec<(String, String, String)> {
    let output = command(&authority.path("")).args(["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    let findings = findings.map(|finding| {
        let said = format!("{} -> {}", text(finding, "found"), text(finding, "advice"));
        (text(finding, "check"), text(finding, "state"), said)
    });
    findings.collect()
}

/// Waits until the doctor finds this, and says what it found besides.
fn finds(authority: &Authority, check: &str, state: &str, words: &str) -> Vec<(String, String, String)> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = doctor(authority);
        if found.iter().any(|one| one.0 == check && one.1 == state && one.2.contains(words)) {
            return found;
        }
        assert!(Instant::now() < deadline, "{check} {state} {words:?}: {found:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Has the database do this.
fn sql(database: &Server, text: &str) {
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--set=ON_ERROR_STOP=1", "--dbname", database.address(), "--command", text])
        .output()
        .unwrap();
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_doctor_sees_every_replica_and_what_was_broken_on_purpose() {
    let Some(database) = Server::start() else { return };
    let collector = Collector::start(Answer::Take);
    let mut authority = Authority::init(&["--database", database.address()]);
    let config = authority.path("chancery/chancery.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    // Both are reached under the same names, as behind a balancer: here those of the first.
    let text = text.replace("[listen]", &format!("[listen]\nurl = {:?}", authority.url));
    let status = text.lines().find_map(|line| line.strip_prefix("status = ")).unwrap().trim_matches('"');
    let text = text.replace("[status]", &format!("[status]\nurl = \"http://{status}\""));
    assert_eq!(text.matches("\nurl = ").count(), 2, "{text}");
    // Tidying is taken and given back at once: what is given back is nobody's, and no trouble.
    assert!(text.contains("settle = \"1h\""), "{text}");
    let text = text.replace("settle = \"1h\"", "settle = \"0s\"");
    std::fs::write(&config, format!("{text}\n[telemetry]\notlp = {:?}\n", collector.address)).unwrap();
    authority.serve();
    let replica = Replica::start(&authority, |text| text);

    let found = finds(&authority, "replicas", "good", "2 follow the log");
    for check in [
        "database",
        "database clock",
        "connections",
        "notifications",
        "database log",
        "agreement",
        "leases",
        "checkpoints",
    ] {
        assert!(found.iter().any(|one| one.0 == check && one.1 == "good"), "{check}: {found:#?}");
    }
    let wrong: Vec<_> = found.iter().filter(|one| one.1 == "bad" && one.0 != "keys").collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    one_trace_goes_through_both(&authority, &replica, &collector);

    // Another shard count is another opinion on which list a certificate is on; another policy decides otherwise.
    drop(replica);
    let second = Replica::start(&authority, |text| text.replace("crl_shards = 16", "crl_shards = 8"));
    finds(&authority, "agreement", "bad", "configuration of");
    drop(second);
    let second = Replica::start(&authority, |text| text);
    let policy = authority.path("chancery/policy/operators.cedar");
    let rules = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, format!("{rules}\n// another thought\n")).unwrap();
    finds(&authority, "agreement", "bad", "SIGHUP");
    std::fs::write(&policy, rules).unwrap();

    // One that is killed is missed, and one that does not follow is told by what it knows.
    drop(second);
    let later =
        "UPDATE chancery.scratch SET until = until - interval '60 seconds' WHERE key LIKE 'replica/%'";
    sql(&database, later);
    finds(&authority, "replicas", "warning", "has not been heard");
    let old = "INSERT INTO chancery.scratch (key, value, until) VALUES ('replica/forged', convert_to('{\"name\": \"slow\", \
               \"version\": \"0.0.1\", \"configuration\": \"x\", \"rules\": \"x\", \"position\": 1, \"connections\": 400, \
               \"uptime\": 1}', 'UTF8'), now() + interval '595 seconds')";
    sql(&database, old);
    finds(&authority, "agreement", "warning", "version 0.0.1");
    finds(&authority, "connections", "bad", "max_connections");

    // The database says that it may forget.
    sql(&database, "ALTER ROLE chancery SET synchronous_commit = off");
    finds(&authority, "database", "bad", "synchronous_commit is off");
    sql(&database, "ALTER ROLE chancery RESET synchronous_commit");

    // Nobody is left: leases lie about, and nobody is heard.
    authority.stop();
    sql(&database, "UPDATE chancery.leases SET until = now() - interval '1 minute'");
    sql(&database, "DELETE FROM chancery.scratch WHERE key LIKE 'replica/%'");
    let found = finds(&authority, "replicas", "bad", "none is heard");
    assert!(found.iter().any(|one| one.0 == "leases" && one.2.contains("crl-full")), "{found:#?}");
    sql(&database, "DELETE FROM chancery.entries WHERE index = (SELECT max(index) FROM chancery.entries)");
    finds(&authority, "database log", "bad", "ledger check");
}

/// What is asked of one replica and then of another in one trace stands in one trace.
fn one_trace_goes_through_both(authority: &Authority, replica: &Replica, collector: &Collector) {
    for server in [authority.url.as_str(), &replica.url] {
        let output = command(&authority.path(""))
            .args(["identity", "list", "--server", server, "--cert", "chancery/operators/admin.crt"])
            .args(["--key", "chancery/operators/admin.key", "--trust-bundle", "chancery/certs/root.crt"])
            .env("TRACEPARENT", format!("00-{TRACE}-00f067aa0ba902b7-01"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let spans = collector.wait("both", |spans| {
        let of = |service: &str| {
            spans
                .iter()
                .any(|span| span.trace == TRACE && span.service == service && span.name == "list-identities")
        };
        of("second") && of("chancery-server")
    });
    let instances: std::collections::BTreeSet<_> =
        spans.iter().filter(|span| span.trace == TRACE).map(|span| span.instance.as_str()).collect();
    assert_eq!(instances.len(), 2, "{spans:#?}");
    assert!(spans.iter().any(|span| span.attribute("http.route") == "/v1/identities"));
}
