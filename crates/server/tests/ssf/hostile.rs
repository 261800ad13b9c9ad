//! What no decent receiver sends.

use serde_json::{Value, json};

use crate::receiver::{Receiver, hold, value};
use crate::running::Running;
use crate::running::wire::Wire;

const STREAM: &str = "/v1/ssf/stream";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_or_touches_the_stream_of_another() {
    let running = Running::start().await;
    let (siem, thief) = (running.enroll("siem").await, running.enroll("thief").await);
    let mut receiver = Receiver::of(&running, &siem).await;
    let name = receiver.create(json!({})).await["stream_id"].as_str().unwrap().to_owned();
    hold(&running, running.enroll("web").await.response.serial).await;
    let told = receiver.poll_for(&name, 1).await;

    let mut other = Receiver::of(&running, &thief).await;
    let (query, named) = (format!("?stream_id={name}"), json!({ "stream_id": name }));
    for (line, body) in [
        (format!("GET {STREAM}{query}"), json!({})),
        (format!("GET /v1/ssf/status{query}"), json!({})),
        (format!("DELETE {STREAM}{query}"), json!({})),
        (format!("PATCH {STREAM}"), named.clone()),
        (format!("PUT {STREAM}"), named.clone()),
        ("POST /v1/ssf/status".to_owned(), json!({ "stream_id": name, "status": "disabled" })),
        ("POST /v1/ssf/verify".to_owned(), named),
        (format!("POST /v1/ssf/streams/{name}/poll"), json!({ "ack": [told[0].0] })),
    ] {
        let answer = other.ask(&line, body).await;
        assert_eq!((answer.status, answer.problem().as_deref()), (404, Some("not-found")), "{line}");
    }
    assert_eq!(value(&other.0.ask(&format!("GET {STREAM}"), &[], b"").await.unwrap()), json!([]));
    let forbidden = other.0.ask("GET /v1/event-streams", &[], b"").await.unwrap();
    assert_eq!(forbidden.problem().as_deref(), Some("not-permitted"));
    let mut nobody = Wire::tls(&running, None).await;
    let refused = nobody.json(&format!("POST {STREAM}"), b"{}").await.unwrap();
    assert_eq!((refused.status, refused.problem().as_deref()), (401, Some("certificate-required")));
    assert_eq!(receiver.poll_for(&name, 1).await[0].0, told[0].0, "nothing was taken away");
    let own = value(&receiver.0.ask(&format!("GET {STREAM}"), &[], b"").await.unwrap());
    assert_eq!(own[0]["stream_id"], name.as_str());
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_do_is_refused_with_a_reason() {
    let running = Running::start().await;
    let siem = running.enroll("siem").await;
    let mut receiver = Receiver::of(&running, &siem).await;
    let stream = receiver.create(json!({ "unheard_of": 1 })).await;
    let name = stream["stream_id"].as_str().unwrap().to_owned();
    let push = |url: &str| json!({ "delivery": { "method": "urn:ietf:rfc:8935", "endpoint_url": url } });
    let malformed: Vec<(&str, Value)> = vec![
        ("POST", push("https://siem.example/")),
        ("POST", push("http://169.254.169.254/latest/meta-data")),
        ("POST", push("file:///etc/passwd")),
        ("POST", json!({ "delivery": { "method": "urn:ietf:rfc:9999" } })),
        ("POST", json!({ "delivery": "push" })),
        ("POST", json!({ "aud": "spiffe://example.org/somebody" })),
        ("POST", json!({ "iss": "https://evil.example" })),
        ("POST", json!({ "stream_id": "mine" })),
        ("POST", json!({ "description": "x".repeat(1025) })),
        ("POST", json!({ "events_requested": vec!["x"; 65] })),
        ("PATCH", json!({})),
        ("PATCH", json!({ "stream_id": name, "aud": "https://elsewhere.example" })),
        ("PUT", json!({ "stream_id": name, "iss": "https://evil.example" })),
    ];
    for (method, body) in malformed {
        let answer = receiver.ask(&format!("{method} {STREAM}"), body.clone()).await;
        assert_eq!((answer.status, answer.problem().as_deref()), (400, Some("malformed-request")), "{body}");
    }
    let poll = format!("POST /v1/ssf/streams/{name}/poll");
    for (line, body, status) in [
        (poll.as_str(), r#"{"ack":"x"}"#.to_owned(), 400),
        (&poll, r#"{"maxEvents":-1}"#.to_owned(), 400),
        (&poll, format!(r#"{{"ack":["{}"]}}"#, "x".repeat(70_000)), 413),
        ("POST /v1/ssf/streams/..%2f..%2fetc/poll", "{}".to_owned(), 404),
        ("POST /v1/ssf/status", format!(r#"{{"stream_id":"{name}","status":"broken"}}"#), 400),
        ("POST /v1/ssf/verify", format!(r#"{{"stream_id":"{name}","state":"{}"}}"#, "x".repeat(2000)), 400),
        ("DELETE /v1/ssf/stream", String::new(), 400),
    ] {
        let mut wire = Receiver::of(&running, &siem).await;
        let answer = wire.0.json(line, body.as_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "{line}: {}", answer.text());
    }
    let answer = receiver.0.ask(&poll, &[("content-type", "application/secevent+jwt")], b"{}").await.unwrap();
    assert_eq!(answer.status, 415);
    let much = json!({ "maxEvents": u64::MAX, "returnImmediately": true, "ack": vec!["\u{e9}-1-x"; 1000] });
    assert_eq!(receiver.poll(&name, much).await, (Vec::new(), false));

    for _ in 1..8 {
        receiver.create(json!({})).await;
    }
    let full = receiver.ask(&format!("POST {STREAM}"), json!({})).await;
    assert_eq!((full.status, full.problem().as_deref()), (409, Some("not-in-this-state")));
    let removed = receiver.ask(&format!("DELETE {STREAM}?stream_id={name}"), json!({})).await;
    assert_eq!(removed.status, 204);
    let gone = receiver.ask(&poll, json!({})).await;
    assert_eq!(gone.status, 404);
    let changed = json!({ "description": "the eighth" });
    let eighth = receiver.create(changed).await["stream_id"].as_str().unwrap().to_owned();
    let replaced = receiver.ask(&format!("PUT {STREAM}"), json!({ "stream_id": eighth })).await;
    assert_eq!(value(&replaced)["description"], Value::Null);
    let metadata = value(&receiver.0.ask("GET /.well-known/ssf-configuration", &[], b"").await.unwrap());
    assert_eq!(
        metadata["delivery_methods_supported"],
        json!(["urn:ietf:rfc:8936"]),
        "nobody may be pushed to"
    );
    running.server.stop().await;
}
