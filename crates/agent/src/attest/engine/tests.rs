use std::sync::Arc;

use tokio::net::UnixListener;

use super::*;
use crate::attest::test_server::{Answer, TestServer, endless, ok, status};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct Fixture {
    engine: Engine,
    _server: TestServer,
    _directory: tempfile::TempDir,
}

fn engine(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let answer: Answer = Arc::new(answer);
    let server = TestServer::on_socket(UnixListener::bind(&socket).unwrap(), answer);
    let config = EngineConfig { socket, timeout: Duration::from_millis(500) };
    Fixture { engine: Engine::new(Runtime::Docker, &config), _server: server, _directory: directory }
}

#[tokio::test]
async fn tells_labels_image_and_digest_of_a_container() {
    let fixture = engine(|head| {
        if head.starts_with(&format!("GET /containers/{ID}/json HTTP/1.1\r\n")) {
            ok(&format!(
                r#"{{"Id":"{ID}","Image":"sha256:{ID}","State":{{"Pid":1}},"Config":{{"Image":"web:1","Env":["SECRET=1"],
                    "Labels":{{"app":"web","com.example/tier":"front: end"}}}}}}"#
            ))
        } else if head.starts_with(&format!("GET /images/sha256:{ID}/json HTTP/1.1\r\n")) {
            ok(&format!(r#"{{"Id":"sha256:{ID}","RepoDigests":["web@sha256:{ID}"]}}"#))
        } else {
            status("404 Not Found")
        }
    });
    let claims = fixture.engine.describe(ID).await.unwrap();
    for (claim, text) in [
        ("docker.label", "app:web"),
        ("docker.label", "com.example/tier:front: end"),
        ("docker.image", "web:1"),
        ("docker.image_id", &format!("sha256:{ID}")),
        ("docker.image_digest", &format!("web@sha256:{ID}")),
    ] {
        assert!(claims.holds(claim, text), "{claim} {text}: {claims:?}");
    }
    // Never what the container was given as its environment.
    assert!(!serde_json::to_string(&claims).unwrap().contains("SECRET"));
}

#[tokio::test]
async fn a_container_without_labels_has_no_claim_of_labels() {
    let fixture = engine(|_| ok(r#"{"Config":{"Labels":null}}"#));
    assert_eq!(fixture.engine.describe(ID).await.unwrap(), Claims::new());
}

#[tokio::test]
async fn a_label_whose_name_could_be_taken_for_another_is_left_out() {
    let fixture = engine(|_| ok(r#"{"Config":{"Labels":{"role:admin":"x","role":"admin"}}}"#));
    let claims = fixture.engine.describe(ID).await.unwrap();
    assert_eq!(claims.value("docker.label"), Some(&ClaimValue::List(vec!["role:admin".into()])));
}

#[tokio::test]
async fn a_container_outlives_its_image() {
    let fixture = engine(|head| match head.starts_with("GET /containers/") {
        true => ok(&format!(r#"{{"Image":"sha256:{ID}","Config":{{}}}}"#)),
        false => status("404 Not Found"),
    });
    let claims = fixture.engine.describe(ID).await.unwrap();
    assert!(claims.value("docker.image_id").is_some() && claims.value("docker.image_digest").is_none());
}

#[tokio::test]
async fn asks_for_no_image_whose_id_is_not_a_digest() {
    let fixture = engine(|head| {
        assert!(head.starts_with("GET /containers/"), "{head}");
        ok(r#"{"Image":"../../secrets?x=","Config":{}}"#)
    });
    assert_eq!(fixture.engine.describe(ID).await.unwrap(), Claims::new());
}

#[tokio::test]
async fn refuses_an_answer_that_is_too_long_or_none() {
    for (answer, expected) in [
        (endless(MAX_ANSWER + 1), "longer than 1048576 bytes"),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40).into_bytes(), "breaks off"),
        (format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes(), "exchange failed"),
        (status("404 Not Found"), "it answered 404"),
        (status("302 Found"), "it answered 302"),
        (ok("{}"), "cannot be understood"),
        (ok("[[[["), "cannot be understood"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{".to_vec(), "breaks off"),
        (b"220 smtp ready\r\n".to_vec(), "exchange failed"),
        (Vec::new(), "did not answer within"),
    ] {
        let fixture = engine(move |_| answer.clone());
        let error = fixture.engine.describe(ID).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error} is not {expected}");
    }
}

#[tokio::test]
async fn says_so_when_there_is_no_engine() {
    let config = EngineConfig { socket: "/nonexistent/docker.sock".into(), timeout: Duration::from_secs(1) };
    let error = Engine::new(Runtime::Docker, &config).describe(ID).await.unwrap_err();
    assert!(error.to_string().contains("cannot connect to /nonexistent/docker.sock"), "{error}");
}
