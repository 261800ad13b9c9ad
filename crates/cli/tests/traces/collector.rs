//! A collector of traces: takes OTLP over HTTP as the protocol says it, and remembers what came.

#![allow(dead_code, reason = "each includer uses its part")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

/// How long the slowest of machines may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One span as it came.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) attributes: Vec<(String, String)>,
}

impl Shown {
    pub(crate) fn attribute(&self, name: &str) -> &str {
        let found = self.attributes.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value.as_str())
    }
}

/// How it answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// As it should.
    Take,
    /// With this status.
    Refuse(u16),
    /// Not at all.
    Never,
}

pub(crate) struct Collector {
    pub(crate) address: String,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    asked: Arc<AtomicUsize>,
}

impl Collector {
    pub(crate) fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let asked: Arc<AtomicUsize> = Arc::default();
        let (kept, count) = (Arc::clone(&bodies), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, count) = (Arc::clone(&kept), Arc::clone(&count));
                std::thread::spawn(move || serve(stream, answer, &kept, &count));
            }
        });
        Self { address, bodies, asked }
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// What came, byte for byte.
    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        self.bodies.lock().unwrap().clone()
    }

    pub(crate) fn spans(&self) -> Vec<Shown> {
        let decode = |body: &Vec<u8>| ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        self.bodies().iter().map(decode).flat_map(shown).collect()
    }

    /// Waits for spans of which this is true.
    pub(crate) fn wait(&self, what: &str, fits: impl Fn(&[Shown]) -> bool) -> Vec<Shown> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let spans = self.spans();
            if fits(&spans) {
                return spans;
            }
            let names = || spans.iter().map(|span| format!("{} {}", span.service, span.name));
            assert!(Instant::now() < deadline, "{what} did not come: {:#?}", names().collect::<Vec<_>>());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn serve(stream: TcpStream, answer: Answer, bodies: &Mutex<Vec<Vec<u8>>>, asked: &AtomicUsize) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(length) if length > 2 => head.push(line.trim().to_owned()),
                Ok(2) => break,
                _ => return,
            }
        }
        assert_eq!(head[0], "POST /v1/traces HTTP/1.1");
        let header = |name: &str| {
            let lines = head.iter().filter_map(|line| line.split_once(": "));
            lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
        };
        assert_eq!(header("content-type"), Some("application/x-protobuf"));
        assert!(header("host").is_some_and(|host| host.starts_with("127.0.0.1:")));
        let mut body = vec![0; header("content-length").unwrap().parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        asked.fetch_add(1, Ordering::SeqCst);
        let status = match answer {
            Answer::Take => {
                bodies.lock().unwrap().push(body);
                200
            }
            Answer::Refuse(status) => status,
            Answer::Never => {
                std::thread::sleep(Duration::from_secs(3600));
                return;
            }
        };
        let text = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
        );
        if reader.get_mut().write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn shown(request: ExportTraceServiceRequest) -> Vec<Shown> {
    let mut all = Vec::new();
    for resource in request.resource_spans {
        let about = resource.resource.unwrap().attributes;
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            all.push(Shown {
                service: value(&about, "service.name"),
                instance: value(&about, "service.instance.id"),
                kind: span.kind(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                attributes: span.attributes.iter().map(|pair| (pair.key.clone(), text(pair))).collect(),
                name: span.name,
            });
        }
    }
    all
}

fn value(pairs: &[KeyValue], name: &str) -> String {
    pairs.iter().find(|pair| pair.key == name).map(text).unwrap_or_default()
}

fn text(pair: &KeyValue) -> String {
    match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
