//! Traces as an operator sees them: the programs themselves, and a collector that takes what they send.

#![expect(clippy::print_stderr, reason = "a judge that is missing must be noticed")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

#[path = "traces/collector.rs"]
mod collector;
mod process;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use collector::{Answer, Collector, Shown};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use process::{Authority, command};

/// The example of W3C Trace Context.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// An authority whose configuration has this section more.
fn authority(telemetry: &str) -> Authority {
    let mut authority = Authority::init(&[]);
    let config = authority.path("chancery/chancery.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[telemetry]\n{telemetry}\n")).unwrap();
    authority.serve();
    authority
}

/// Has the authority register somebody, within a trace of the caller's.
fn register(authority: &Authority, name: &str, flags: &str) {
    let output = command(&authority.path(""))
        .args(["identity", "create", name, "--owner", "ada"])
        .env("TRACEPARENT", format!("00-{TRACE}-{PARENT}-{flags}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn find<'a>(spans: &'a [Shown], service: &str, name: &str) -> Option<&'a Shown> {
    spans.iter().find(|span| span.service == service && span.name == name)
}

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_trace_goes_from_the_agent_through_the_whole_road() {
    let collector = Collector::start(Answer::Take);
    let authority = authority(&format!("otlp = {:?}", collector.address));
    authority.chancery(&["identity", "create", "node/a", "--owner", "ada", "--profile", "node"]).success();
    let token = authority.chancery(&["token", "create", "--identity", "node/a"]).success();
    std::fs::write(authority.path("join.token"), &token).unwrap();
    let agent = command(&authority.path(""))
        .args(["agent", "--server", &authority.url, "--join-token-file", "join.token"])
        .args(["--socket", "api.sock", "--status-socket", "status.sock"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.address)
        .env("OTEL_SERVICE_NAME", "node-agent")
        .stderr(std::fs::File::create(authority.path("agent.log")).unwrap())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _agent = Agent(agent);

    let spans = collector.wait("an enrolment", |spans| {
        find(spans, "node-agent", "node").is_some() && find(spans, "chancery-server", "enroll").is_some()
    });
    let root = find(&spans, "node-agent", "node").unwrap();
    let asked = find(&spans, "node-agent", "enroll").unwrap();
    let answered = find(&spans, "chancery-server", "enroll").unwrap();
    assert_eq!((root.parent.as_str(), &asked.parent), ("", &root.id));
    assert_eq!((&answered.parent, &answered.trace), (&asked.id, &root.trace));
    assert!(!root.instance.is_empty() && root.instance != answered.instance);
    assert_eq!((asked.kind, answered.kind), (SpanKind::Client, SpanKind::Server));
    assert_eq!(answered.attribute("http.response.status_code"), "200");
    assert_eq!(answered.attribute("http.route"), "/v1/enroll");
    let steps = ["attest", "find", "policy", "prepare", "commit", "sign", "publish"];
    for name in steps {
        let step = spans.iter().find(|span| span.name == name && span.trace == root.trace);
        let step = step.unwrap_or_else(|| panic!("{name} is not in the trace"));
        assert_eq!(
            (step.parent.as_str(), step.service.as_str()),
            (answered.id.as_str(), "chancery-server"),
            "{name}"
        );
    }
    let of = |name: &str| spans.iter().find(|span| span.name == name && span.trace == root.trace).unwrap();
    assert_eq!(of("attest").attribute("chancery.evidence"), "join-token");
    assert_eq!(of("policy").attribute("chancery.identity"), "spiffe://example.org/node/a");
    let serial = of("sign").attribute("chancery.serial");
    authority.chancery(&["certificate", "show", serial]).success();

    // The log line of the request has the trace too, and nothing secret has left.
    assert!(authority.log().contains(&format!("trace_id=\"{}\"", root.trace)), "{}", authority.log());
    let secret = token.trim().rsplit('.').next().unwrap().as_bytes();
    for body in collector.bodies() {
        assert!(!body.windows(secret.len()).any(|window| window == secret), "a token's secret was exported");
    }
    judge(&collector, &authority);
}

/// What was sent is what the protocol's own library for Python reads.
fn judge(collector: &Collector, authority: &Authority) {
    let python = std::env::var("CHANCERY_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import opentelemetry.proto"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED opentelemetry-proto as judge of exported traces: not installed (pip install opentelemetry-proto)"
        );
        return;
    }
    let mut paths = Vec::new();
    for (number, body) in collector.bodies().iter().enumerate() {
        let path = authority.path(&format!("batch-{number}"));
        std::fs::write(&path, body).unwrap();
        paths.push(path);
    }
    let program = "import sys\n\
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest\n\
        for path in sys.argv[1:]:\n\
        \x20   request = ExportTraceServiceRequest.FromString(open(path, 'rb').read())\n\
        \x20   for resource in request.resource_spans:\n\
        \x20       for scope in resource.scope_spans:\n\
        \x20           for span in scope.spans:\n\
        \x20               assert len(span.trace_id) == 16 and len(span.span_id) == 8, span\n\
        \x20               assert len(span.parent_span_id) in (0, 8), span\n\
        \x20               assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano, span\n\
        \x20               print(span.name)\n";
    let output = Command::new(&python).args(["-c", program]).args(&paths).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = String::from_utf8(output.stdout).unwrap().lines().count();
    assert_eq!(read, collector.spans().len());
}

#[test]
fn a_callers_trace_is_in_the_log_without_any_collector() {
    let authority = authority("");
    register(&authority, "web", "01");
    assert!(authority.log().contains(&format!("trace_id=\"{TRACE}\"")), "{}", authority.log());
}

#[test]
fn those_who_are_known_decide_what_is_recorded_and_nobody_else() {
    let collector = Collector::start(Answer::Take);
    let authority = authority(&format!("otlp = {:?}\nsample = 0.0", collector.address));
    // Its caller does not record this one; nobody asked for that one.
    register(&authority, "quiet", "00");
    authority.chancery(&["identity", "create", "silent", "--owner", "ada"]).success();
    register(&authority, "web", "01");
    let spans =
        collector.wait("the caller's", |spans| find(spans, "chancery-server", "register-identity").is_some());
    let shown = find(&spans, "chancery-server", "register-identity").unwrap();
    assert_eq!((shown.trace.as_str(), shown.parent.as_str()), (TRACE, PARENT));
    assert_eq!(shown.attribute("chancery.caller"), "spiffe://example.org/operator/admin");
    assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");
    let registered = spans.iter().filter(|span| span.name == "register-identity").count();
    assert_eq!(registered, 1);

    // A stranger says that its trace is recorded; it is not recorded here.
    let key = authority.chancery(&["token", "create", "--identity", "web"]).success();
    std::fs::write(authority.path("web.token"), key).unwrap();
    let bundle = authority.chancery(&["bundle"]).success();
    std::fs::write(authority.path("ca.pem"), bundle).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = TRACE.replace("4bf9", "aaaa");
    let output = command(elsewhere.path())
        .args(["enroll", "--server", &authority.url, "--out", "web", "--trust-bundle"])
        .arg(authority.path("ca.pem"))
        .arg("--token-file")
        .arg(authority.path("web.token"))
        .env("TRACEPARENT", format!("00-{stranger}-{PARENT}-01"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    register(&authority, "last", "01");
    let spans = collector
        .wait("the last", |spans| spans.iter().filter(|span| span.name == "register-identity").count() == 2);
    assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");
    assert!(authority.log().contains(&stranger));
}

#[test]
fn a_collector_that_is_away_or_refuses_or_hangs_holds_nobody_up() {
    for answer in [Some(Answer::Refuse(503)), Some(Answer::Never), None] {
        let collector = answer.map(Collector::start);
        // Nobody listens on the port of a listener that is gone.
        let gone = format!("http://127.0.0.1:{}", process::free_port());
        let address = collector.as_ref().map_or(gone, |collector| collector.address.clone());
        let mut authority = authority(&format!("otlp = {address:?}\nqueue = 16"));
        for number in 0..30 {
            register(&authority, &format!("web-{number}"), "01");
        }
        if let Some(collector) = &collector {
            collector_was_asked(collector);
        }
        let metrics = metrics(&authority);
        let value = |outcome: &str| metric(&metrics, outcome);
        assert!(value("ended") >= 30.0, "{metrics}");
        assert!(value("exported") == 0.0, "{metrics}");
        // SIGTERM is not held up either, beyond the two seconds for the last batch.
        let began = Instant::now();
        authority.stop();
        assert!(began.elapsed() < Duration::from_secs(20), "{answer:?}: {:?}", began.elapsed());
        if !matches!(answer, Some(Answer::Never)) {
            let warnings = authority.log().matches("the collector does not take traces").count();
            assert_eq!(warnings, 1, "{}", authority.log());
        }
    }
}

fn collector_was_asked(collector: &Collector) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while collector.asked() == 0 {
        assert!(Instant::now() < deadline, "nothing was sent");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The page of metrics, over the admin socket.
fn metrics(authority: &Authority) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--fail", "--unix-socket"])
        .arg(authority.path("chancery/run/admin.sock"))
        .arg("http://localhost/metrics")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn metric(page: &str, outcome: &str) -> f64 {
    let name = format!("chancery_trace_spans_total{{outcome=\"{outcome}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("{name}\n{page}")).parse().unwrap()
}

#[test]
fn a_collector_that_cannot_be_used_is_said_before_anything_is_served() {
    let authority = Authority::init(&[]);
    let config = authority.path("chancery/chancery.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[telemetry]\notlp = \"collector:4317\"\nsample = 2\n")).unwrap();
    let said = authority.chancery(&["check-config"]).code(1);
    assert!(said.contains("telemetry.otlp") && said.contains("telemetry.sample"), "{said}");
    std::fs::write(&config, format!("{text}\n[telemetry]\notlp = \"https://x\"\nroots = \"none.pem\"\n"))
        .unwrap();
    let said = authority.chancery(&["serve", "--allow-online-root"]).code(1);
    assert!(said.contains("none.pem"), "{said}");
}
