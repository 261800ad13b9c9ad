use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::attest::config::{AttestorConfig, RawAttestorConfig, RawKubelet};
use crate::attest::test_server::{TestServer, endless, ok, status};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POD: &str = "6d0f2a1c-9f1e-4f6e-8f5b-0a1b2c3d4e5f";

fn list() -> String {
    format!(
        r#"{{"kind":"PodList","items":[
            {{"metadata":{{"name":"other","namespace":"default","uid":"00000000-0000-0000-0000-000000000000","labels":null}},
              "spec":{{}},"status":{{"containerStatuses":null}}}},
            {{"metadata":{{"name":"web-1","namespace":"shop","uid":"{POD}","labels":{{"app":"web","tier":"front"}}}},
              "spec":{{"serviceAccountName":"web","nodeName":"n1","containers":[{{"env":[{{"name":"A","value":"B"}}]}}]}},
              "status":{{"containerStatuses":[{{"name":"main","image":"web:1","imageID":"web@sha256:00",
                "containerID":"containerd://{ID}"}}]}}}}]}}"#
    )
}

/// A kubelet on its read-only port.
async fn plain(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> (Kubelet, TestServer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = KubeletConfig {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        tls: None,
        token_file: None,
        timeout: Duration::from_secs(5),
        wait: Duration::ZERO,
    };
    (Kubelet::new(config), TestServer::on_port(listener, None, Arc::new(answer)))
}

#[tokio::test]
async fn tells_whose_pod_a_container_is_of() {
    let (kubelet, _server) = plain(|head| {
        assert!(head.starts_with("GET /pods HTTP/1.1\r\n"), "{head}");
        ok(&list())
    })
    .await;
    let claims = kubelet.describe(Some(POD), ID).await.unwrap();
    for (claim, text) in [
        ("k8s.ns", "shop"),
        ("k8s.sa", "web"),
        ("k8s.pod_name", "web-1"),
        ("k8s.pod_uid", POD),
        ("k8s.pod_label", "app:web"),
        ("k8s.pod_label", "tier:front"),
        ("k8s.node_name", "n1"),
        ("k8s.container_name", "main"),
        ("k8s.image", "web:1"),
        ("k8s.image", "web@sha256:00"),
    ] {
        assert!(claims.holds(claim, text), "{claim} {text}: {claims:?}");
    }
    // Where the cgroup does not tell the pod, the container is enough.
    assert_eq!(kubelet.describe(None, ID).await.unwrap(), claims);
}

#[tokio::test]
async fn does_not_describe_a_container_by_another_pod() {
    let (kubelet, _server) = plain(|_| ok(&list())).await;
    for (pod, container) in [
        (Some("00000000-0000-0000-0000-000000000000"), ID),
        (Some(POD), &ID.replace('0', "f")[..]),
        (None, ""),
    ] {
        let error = kubelet.describe(pod, container).await.unwrap_err();
        assert!(matches!(error, KubeletError::NotListed(_)), "{error}");
    }
}

#[tokio::test]
async fn waits_for_a_container_that_was_only_just_started() {
    let asked = AtomicUsize::new(0);
    let (mut kubelet, server) = plain(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => ok(r#"{"items":null}"#),
        _ => ok(&list()),
    })
    .await;
    kubelet.config.wait = Duration::from_secs(30);
    assert!(kubelet.describe(Some(POD), ID).await.unwrap().holds("k8s.sa", "web"));
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn one_list_serves_everybody_who_asks_at_the_same_time() {
    let (kubelet, server) = plain(|_| ok(&list())).await;
    let asking = (0..50).map(|_| kubelet.describe(Some(POD), ID));
    for answer in futures_util::future::join_all(asking).await {
        answer.unwrap();
    }
    assert!(server.requests() < 5, "{}", server.requests());
}

#[tokio::test]
async fn refuses_an_answer_that_is_too_long_or_none() {
    for (answer, expected) in [
        (endless(MAX_ANSWER + 1), "longer than 16777216 bytes"),
        (status("401 Unauthorized"), "it answered 401"),
        (ok("7"), "cannot be understood"),
        (ok(r#"{"items":[{"metadata":{}}]}"#), "cannot be understood"),
    ] {
        let (kubelet, _server) = plain(move |_| answer.clone()).await;
        let error = kubelet.describe(Some(POD), ID).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error} is not {expected}");
    }
    let (mut kubelet, _server) = plain(|_| Vec::new()).await;
    kubelet.config.timeout = Duration::from_millis(100);
    let error = kubelet.describe(Some(POD), ID).await.unwrap_err();
    assert!(matches!(error, KubeletError::Http(HttpError::Late(_))), "{error}");
}

/// A kubelet with a certificate of its own, an agent that is configured with `ca`, and the file of its token.
async fn with_tls(ca: impl Fn(&str) -> String) -> (Kubelet, TestServer, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(directory.path().join("ca.pem"), ca(&certificate.pem())).unwrap();
    std::fs::write(directory.path().join("token"), "first\n").unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let raw = RawAttestorConfig {
        kubelet: Some(RawKubelet {
            url: format!("https://localhost:{}", listener.local_addr().unwrap().port()),
            ca: Some("ca.pem".into()),
            token_file: Some("token".into()),
            wait: chancery_types::HumanDuration(Duration::from_millis(100)),
        }),
        ..RawAttestorConfig::default()
    };
    let config = AttestorConfig::check(&raw, directory.path()).unwrap();
    let answer = |head: &str| match head.contains("authorization: Bearer second\r\n") {
        true => ok(&list()),
        false => status("401 Unauthorized"),
    };
    let server = TestServer::on_port(listener, Some(TlsAcceptor::from(Arc::new(server))), Arc::new(answer));
    (Kubelet::new(config.kubelet.unwrap()), server, directory)
}

#[tokio::test]
async fn shows_the_token_that_is_in_the_file_now() {
    let (kubelet, _server, directory) = with_tls(str::to_owned).await;
    let error = kubelet.describe(Some(POD), ID).await.unwrap_err();
    assert!(error.to_string().contains("401"), "{error}");
    std::fs::write(directory.path().join("token"), "second\n").unwrap();
    assert!(kubelet.describe(Some(POD), ID).await.unwrap().holds("k8s.ns", "shop"));
    std::fs::remove_file(directory.path().join("token")).unwrap();
    *kubelet.last.lock().await = None;
    assert!(matches!(kubelet.describe(Some(POD), ID).await.unwrap_err(), KubeletError::Token(..)));
}

#[tokio::test]
async fn shows_no_token_to_a_kubelet_that_it_was_not_told_to_trust() {
    let other = || {
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap().pem()
    };
    let (kubelet, _server, _directory) = with_tls(move |_| other()).await;
    let error = kubelet.describe(Some(POD), ID).await.unwrap_err();
    assert!(matches!(error, KubeletError::Http(HttpError::Connect(..))), "{error}");
}
