//! What is sent: every answer is a success or a problem document, never the server's own failure.

use chancery_api::{Method, Operation, limits};
use chancery_types::KeyAlgorithm;
use chancery_x509::SubjectKey;
use data_encoding::BASE64;

use crate::running::wire::{Answer, Wire};
use crate::running::{Running, csr, new_key};

/// The answer was made by the server with its wits about it: no 5xx, and a problem document when it refuses.
fn is_composed(answer: &Answer, what: &str) -> Option<String> {
    assert!(answer.status < 500, "{what}: {answer:?} {}", answer.text());
    answer.problem()
}

fn path(operation: Operation, value: &str) -> String {
    operation.fill(&vec![value; operation.parameters().len()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_refuses_bodies_that_are_none_with_a_problem_document() {
    let running = Running::start().await;
    let mut wire = Wire::admin(&running).await;
    let deep = [vec![b'['; 20_000], vec![b']'; 20_000]].concat();
    let wide = format!("{{{}\"x\":1}}", "\"x\":1,".repeat(5_000));
    let bodies: [&[u8]; 14] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"0",
        b"\"text\"",
        b"{\"a\":1}",
        b"{\"a\":1}{\"a\":1}",
        b"{\"csr\":\"\xff\xfe\"}",
        b"{\"csr\":\"\\ud800\"}",
        b"{\"csr\":1e999999,\"note\":\"\\u0000\"}",
        b"\xef\xbb\xbf{}",
        &deep,
        wide.as_bytes(),
    ];
    let operations = Operation::ALL.iter().filter(|operation| operation.method() != Method::Get);
    for &operation in operations {
        let line = format!("{} {}", operation.method(), path(operation, "spiffe://example.org/nobody"));
        for body in bodies {
            let what = format!("{line} {}", String::from_utf8_lossy(&body[..body.len().min(40)]));
            let answer = wire.json(&line, body).await.unwrap();
            let code = is_composed(&answer, &what);
            if code.as_deref() == Some("body-too-large") {
                // What was not read stands in the way of the next request.
                wire = Wire::admin(&running).await;
            }
            // gRPC says what it has to say in trailers. A stream may be asked for in words that nobody knows.
            let takes_none = matches!(
                operation,
                Operation::Nonce
                    | Operation::CreateStream
                    | Operation::RevokeToken
                    | Operation::RemoveTemplate
                    | Operation::FollowStatus
            );
            assert!(code.is_some() || takes_none, "{what}: {}", answer.text());
        }
        for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/json\t", ""] {
            let answer = wire.ask(&line, &[("content-type", media_type)], b"{}").await.unwrap();
            is_composed(&answer, &format!("{line} as {media_type}"));
        }
    }
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_survives_paths_and_queries_that_lead_astray() {
    let running = Running::start().await;
    let mut wire = Wire::admin(&running).await;
    let long = "x".repeat(4_000);
    let values = [
        "x",
        "..",
        ".",
        "../../../etc/passwd",
        "..%2f..%2fkeys%2fissuer-1.key",
        "a/b",
        "%",
        "%zz",
        "\u{0}",
        "\u{fffd}",
        "1.der/../../keys/issuer-1.key",
        "0/000",
        "entries/000",
        "0/x001/234",
        "8/000",
        "0/000.p/256",
        "0/000.p/0",
        "0/-1",
        "spiffe://",
        "18446744073709551616",
        "entries/x999/x999/x999/x999/x999/999",
        &long,
    ];
    // The feed answers for as long as somebody reads; the poll of it takes the same queries.
    for &operation in Operation::ALL.iter().filter(|operation| **operation != Operation::StatusFeed) {
        let raw = operation.path().contains('{').then(|| {
            // As they are, without the encoding that our own client would give them.
            let prefix = operation.path().split('{').next().unwrap();
            [format!("{prefix}%ff%fe"), format!("{prefix}%00"), format!("{prefix}../../../../etc/passwd")]
        });
        let filled = values.iter().map(|value| path(operation, value));
        for path in filled.chain(raw.into_iter().flatten()) {
            let line = format!("{} {path}", operation.method());
            let answer = wire.json(&line, b"{}").await.unwrap();
            is_composed(&answer, &line);
            assert!(!answer.text().contains("root:x:0") && !answer.text().contains("PRIVATE KEY"), "{line}");
        }
        for query in
            ["?", "?limit=-1", "?limit=99999999999999999999", "?cursor=%ff", "?since=never", "?a=%00&a=b"]
        {
            let line = format!("{} {}{query}", operation.method(), path(operation, "x"));
            is_composed(&wire.json(&line, b"{}").await.unwrap(), &line);
        }
    }
    for line in [
        "GET /",
        "GET //v1/enroll",
        "POST /v1/enroll/",
        "PATCH /v1/enroll",
        "TRACE /v1/healthz",
        "GET /V1/healthz",
    ] {
        let code = is_composed(&wire.json(line, b"").await.unwrap(), line);
        assert!(matches!(code.as_deref(), Some("not-found" | "method-not-allowed")), "{line}: {code:?}");
    }
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_certificate_request_is_named_as_such() {
    let running = Running::start().await;
    let token = {
        running.register("web").await;
        running.token("web").await.token
    };
    let mut wire = Wire::tls(&running, None).await;
    let good = csr(&new_key());
    let mut cases: Vec<Vec<u8>> = (1..good.len()).step_by(17).map(|length| good[..length].to_vec()).collect();
    for at in (0..good.len()).step_by(11) {
        let mut damaged = good.clone();
        damaged[at] ^= 0x41;
        cases.push(damaged);
    }
    cases.push([good.as_slice(), &[0]].concat());
    cases.push(vec![0x30; 8_000]);
    cases.push([vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff], vec![0; 100]].concat());
    cases.push((0..4_000).flat_map(|_| [0x30, 0x80]).collect());
    for case in cases {
        let body = serde_json::json!({
            "csr": BASE64.encode(&case),
            "evidence": { "kind": "join-token", "token": token.expose_secret() },
        });
        let answer = wire.json("POST /v1/enroll", body.to_string().as_bytes()).await.unwrap();
        let code = is_composed(&answer, "a damaged request").unwrap();
        assert!(["invalid-csr", "key-refused", "extension-refused"].contains(&code.as_str()), "{code}");
    }
    // Nothing of it spent the token.
    let body = serde_json::json!({
        "csr": BASE64.encode(&good), "evidence": { "kind": "join-token", "token": token.expose_secret() },
    });
    let answer = wire.json("POST /v1/enroll", body.to_string().as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_the_key_of_the_authority_is_refused() {
    let running = Running::start().await;
    running.register("web").await;
    let token = running.token("web").await.token;
    let issuer = std::fs::read(running.place.file("certs/issuer-1.crt")).unwrap();
    let issuer = chancery_x509::read_certificates(&issuer, 1).unwrap().remove(0);
    let issuer = chancery_x509::Certificate::from_der(&issuer).unwrap();
    // A request that carries the issuer's public key with a signature of somebody else's.
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let own = key.public_key().spki_der();
    let mut request = csr(&key);
    let at = request.windows(own.len()).position(|window| window == own).unwrap();
    request[at..at + own.len()].copy_from_slice(issuer.tbs().spki_der());
    let body = serde_json::json!({
        "csr": BASE64.encode(&request), "evidence": { "kind": "join-token", "token": token.expose_secret() },
    });
    let mut wire = Wire::tls(&running, None).await;
    let answer = wire.json("POST /v1/enroll", body.to_string().as_bytes()).await.unwrap();
    assert_eq!(answer.problem().as_deref(), Some("invalid-csr"));
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_are_bounded_before_anything_is_read() {
    let running = Running::start().await;
    // A gibibyte is announced: refused at once, without waiting for it.
    for line in ["POST /v1/enroll", "POST /ocsp", "POST /v1/revoke"] {
        let mut wire = Wire::tls(&running, None).await;
        let head = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1073741824\r\n\r\n{{"
        );
        wire.send(head.as_bytes()).await.unwrap();
        assert_eq!(wire.answer().await.unwrap().problem().as_deref(), Some("body-too-large"), "{line}");
    }
    // It is not announced: refused as soon as it is too much.
    let mut wire = Wire::tls(&running, None).await;
    let head = "POST /v1/enroll HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    wire.send(head.as_bytes()).await.unwrap();
    let chunk = [b"4000\r\n".as_slice(), &[b' '; 0x4000], b"\r\n"].concat();
    for _ in 0..=limits::BODY_BYTES / 0x4000 {
        if wire.send(&chunk).await.is_err() {
            break;
        }
    }
    assert_eq!(wire.answer().await.unwrap().problem().as_deref(), Some("body-too-large"));
    // Headers: too long, too many. The connection ends; there is nobody to answer to politely.
    let long =
        format!("GET /v1/healthz HTTP/1.1\r\nhost: localhost\r\nx-long: {}\r\n\r\n", "x".repeat(200_000));
    let many = format!("GET /v1/healthz HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(20_000));
    let endless = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(100_000));
    for head in [long, many, endless] {
        let mut wire = Wire::tls(&running, None).await;
        let sent = wire.send(head.as_bytes()).await;
        if let (Ok(()), Ok(answer)) = (sent, wire.answer().await) {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
    }
    assert_alive(&running).await;
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_http_ends_the_connection_and_nothing_else() {
    let running = Running::start().await;
    let garbage: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00\xff\x00\xff\r\n\r\n",
        b"POST /v1/enroll HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"POST /v1/enroll HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/enroll HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for bytes in garbage {
        for door in [running.server.status_address(), running.server.api_address()] {
            let mut wire = Wire::plain(door).await;
            let _ = wire.send(bytes).await;
            // Some end at once; some wait for more, until a deadline of the listener.
            let answer = tokio::time::timeout(std::time::Duration::from_millis(100), wire.answer()).await;
            if let Ok(Ok(answer)) = answer {
                assert!((400..500).contains(&answer.status), "{bytes:?}: {answer:?}");
            }
        }
        let mut wire = Wire::tls(&running, None).await;
        let _ = wire.send(bytes).await;
        let answer = tokio::time::timeout(std::time::Duration::from_millis(100), wire.answer()).await;
        if let Ok(Ok(answer)) = answer {
            assert!((400..500).contains(&answer.status), "{bytes:?}: {answer:?}");
        }
    }
    assert_alive(&running).await;
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotency_keys_are_visible_ascii_and_alone() {
    let running = Running::start().await;
    let body = serde_json::json!({
        "csr": BASE64.encode(&csr(&new_key())), "evidence": { "kind": "join-token", "token": "none" },
    });
    let body = body.to_string();
    let long = "k".repeat(limits::IDEMPOTENCY_KEY_CHARACTERS + 1);
    for key in ["", "a b", "schl\u{fc}ssel", "\t", &long] {
        let mut wire = Wire::tls(&running, None).await;
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let answer = wire.ask("POST /v1/enroll", &headers, body.as_bytes()).await.unwrap();
        assert_eq!(answer.problem().as_deref(), Some("idempotency-key-invalid"), "{key:?}");
    }
    let mut wire = Wire::tls(&running, None).await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "a"), ("idempotency-key", "b")];
    let answer = wire.ask("POST /v1/enroll", &headers, body.as_bytes()).await.unwrap();
    assert_eq!(answer.problem().as_deref(), Some("idempotency-key-invalid"));
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ocsp_answers_garbage_with_a_malformed_request() {
    let running = Running::start().await;
    let huge = vec![0x30; limits::OCSP_BYTES];
    let bodies: [&[u8]; 7] = [
        b"",
        b"\0",
        b"hello",
        b"\x30\x00",
        b"\x30\x84\xff\xff\xff\xff",
        &[0x30, 0x03, 0x30, 0x01, 0x30],
        &huge,
    ];
    for address in [running.server.status_address()] {
        let mut wire = Wire::plain(address).await;
        for body in bodies {
            let headers = [("content-type", "application/ocsp-request")];
            let answer = wire.ask("POST /ocsp", &headers, body).await.unwrap();
            assert_malformed(&answer, &format!("POST {body:?}"));
            if body.is_empty() || body.len() > 1000 {
                continue;
            }
            let line = format!(
                "GET /ocsp/{}",
                chancery_api::Operation::OcspGet.fill(&[&BASE64.encode(body)]).trim_start_matches("/ocsp/")
            );
            assert_malformed(&wire.ask(&line, &[], b"").await.unwrap(), &line);
        }
        for path in ["/ocsp/!!!!", "/ocsp/%ff", "/ocsp/AAAA/BBBB", "/ocsp/%2e%2e%2fetc"] {
            let answer = wire.ask(&format!("GET {path}"), &[], b"").await.unwrap();
            assert!(answer.status < 500, "{path}: {answer:?}");
        }
    }
    running.server.stop().await;
}

/// RFC 6960 section 2.3: an unsigned response with the status malformedRequest (1).
fn assert_malformed(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 200, "{what}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/ocsp-response"), "{what}");
    assert_eq!(answer.body, [0x30, 0x03, 0x0a, 0x01, 0x01], "{what}");
}

async fn assert_alive(running: &Running) {
    let mut wire = Wire::tls(running, None).await;
    assert_eq!(wire.ask("GET /v1/readyz", &[], b"").await.unwrap().status, 200);
}
