//! What the node does with requests whose answers do not come.

use chancery_api::{Problem, ProblemCode};
use chancery_types::SystemRandom;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::*;
use crate::config::RawConfig;

/// A node whose authority is not there.
fn node(directory: &std::path::Path, keep: bool) -> Node {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let roots = vec![root.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()];
    let text = format!(
        "server = \"https://localhost:1\"\ntrust_bundle = \"roots.pem\"\n\
         state = {{ directory = \"state\", keep_credential = {keep} }}\n\
         [evidence]\njoin_token_file = \"join.token\""
    );
    let raw: RawConfig = toml::from_str(&text).unwrap();
    let config = Config::check(raw, directory).unwrap();
    let state = StateDirectory::open(config.state.as_ref().unwrap()).unwrap();
    let link = Arc::new(Link::new(config.server.clone(), &roots).unwrap());
    let pace = Pace::new(Arc::new(chancery_types::SystemClock));
    let (_, roots) = watch::channel(Arc::new(roots));
    Node::new(&config, link, roots, Some(&state), pace, Arc::new(SystemRandom))
}

fn lost() -> ClientError {
    ClientError::Connect { endpoint: String::new(), source: std::io::ErrorKind::ConnectionReset.into() }
}

fn refused() -> ClientError {
    ClientError::Problem(Box::new(Problem::new(ProblemCode::PolicyDenied, "")))
}

#[test]
fn a_request_whose_answer_was_lost_is_sent_again_as_it_was_also_after_a_restart() {
    let around = tempfile::tempdir().unwrap();
    let first = node(around.path(), true);
    let request = first.pending("renew 1".into()).unwrap();
    let (csr, name) = (request.csr.clone(), request.name.clone());
    first.settle(request, Err(lost())).unwrap_err();
    let again = first.pending("renew 1".into()).unwrap();
    assert_eq!((again.csr.as_der(), &again.name), (csr.as_der(), &name));

    let restarted = node(around.path(), true);
    let again = restarted.pending("renew 1".into()).unwrap();
    assert_eq!((again.csr.as_der(), &again.name), (csr.as_der(), &name));
    assert_ne!(restarted.pending("renew 2".into()).unwrap().name, name, "another purpose");
}

#[test]
fn a_request_that_was_refused_is_forgotten() {
    let around = tempfile::tempdir().unwrap();
    let node = node(around.path(), true);
    let request = node.pending("renew 1".into()).unwrap();
    let name = request.name.clone();
    node.settle(request, Err(refused())).unwrap_err();
    assert_ne!(node.pending("renew 1".into()).unwrap().name, name);
}

#[test]
fn nothing_of_a_node_is_on_disk_unless_it_was_asked_for() {
    let around = tempfile::tempdir().unwrap();
    let node = node(around.path(), false);
    let request = node.pending("renew 1".into()).unwrap();
    node.settle(request, Err(lost())).unwrap_err();
    assert_eq!(std::fs::read_dir(around.path().join("state")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_token_that_was_refused_is_not_shown_again_until_it_is_another() {
    let around = tempfile::tempdir().unwrap();
    let node = node(around.path(), false);
    let show = |text: &str| std::fs::write(around.path().join("join.token"), text).unwrap();
    show("chancery1.a.b\n");
    let purpose = Proof::read(&node.evidence).unwrap().purpose();
    *lock(&node.refused) = Some((purpose, "it was spent".into()));
    let error = node.attest().await.unwrap_err();
    assert!(matches!(&error, NodeError::TokenUsed(why) if why == "it was spent"), "{error}");
    show("chancery1.c.d\n");
    let error = node.attest().await.unwrap_err();
    assert!(matches!(error, NodeError::Client(_)), "it asks, and nobody is there: {error}");
    show("\n");
    let error = node.attest().await.unwrap_err();
    assert!(error.to_string().contains("first line"), "{error}");
}
