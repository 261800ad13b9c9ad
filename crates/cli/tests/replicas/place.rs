//! `chancery ledger migrate`: from a directory into a database and back, as an operator does it.

use std::path::Path;

use super::cluster::Cluster;
use crate::process::{Authority, run};
use crate::server::Server;

/// Writes what the command said the configuration has to say.
fn configure(authority: &Authority, moved: &serde_json::Value) {
    settle(&authority.path("chancery/chancery.toml"), moved["settings"].as_str().unwrap());
}

/// Puts these settings in the place of those of the storage.
pub(crate) fn settle(file: &Path, settings: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    let (mut kept, mut is_storage) = (String::new(), false);
    for line in text.lines() {
        if line.starts_with('[') {
            is_storage = line.starts_with("[storage");
        }
        if !is_storage {
            kept += line;
            kept += "\n";
        }
    }
    std::fs::write(file, kept + settings).unwrap();
}

fn enrol(authority: &Authority, out: &Path) {
    let token = authority.chancery(&["token", "create", "--identity", "web"]).success();
    std::fs::write(authority.path("token"), token).unwrap();
    let (url, out) = (authority.url.as_str(), out.to_str().unwrap());
    authority.chancery(&["enroll", "--server", url, "--token-file", "token", "--out", out]).success();
}

fn renew(authority: &Authority, pair: &Path) -> serde_json::Value {
    let (url, pair) = (authority.url.as_str(), pair.to_str().unwrap());
    authority.chancery(&["renew", "--server", url, "--in", pair, "--json"]).json()["generation"].clone()
}

pub(crate) fn moves_and_comes_back(database: &Server) {
    let mut authority = Authority::init(&[]);
    authority.serve();
    authority.chancery(&["identity", "create", "web", "--owner", "ada"]).success();
    let pair = authority.path("web");
    enrol(&authority, &pair);
    let key = authority.chancery(&["log", "key"]).success();
    let into = ["ledger", "migrate", "--to", database.address(), "--json"];
    let busy = authority.chancery(&into).code(1);
    assert!(busy.contains("in use by another process"), "{busy}");
    authority.stop();

    let before = authority.chancery(&["ledger", "check", "--json"]).json();
    let moved = authority.chancery(&into).json();
    assert_eq!((&moved["entries"], &moved["root"]), (&before["entries"], &before["root"]));
    let ended = authority.chancery(&["serve", "--allow-online-root"]).code(1);
    assert!(ended.contains("the log has ended here") && ended.contains("postgres://"), "{ended}");
    // Again is nothing new.
    assert_eq!(authority.chancery(&into).json()["root"], before["root"]);
    configure(&authority, &moved);
    assert_eq!(authority.chancery(&["ledger", "check", "--json"]).json()["root"], before["root"]);
    authority.serve();
    assert_eq!(renew(&authority, &pair), 1);
    let second = authority.path("second");
    enrol(&authority, &second);

    // Back, while the server is at work: from then on it refuses to sign.
    let back = authority.chancery(&["ledger", "migrate", "--to", "embedded:chancery/again", "--json"]).json();
    let refused = authority.chancery(&["token", "create", "--identity", "web"]);
    assert!(!refused.is_success(), "it has ended there");
    authority.stop();
    let ended = authority.chancery(&["serve", "--allow-online-root"]).code(1);
    assert!(ended.contains("closed") && ended.contains("embedded:"), "{ended}");
    configure(&authority, &back);
    authority.serve();
    assert_eq!((renew(&authority, &pair), renew(&authority, &second)), (2.into(), 1.into()));
    authority.chancery(&["audit", "export", "--out", "log.jsonl"]).success();
    let verify = ["audit", "verify", "log.jsonl", "--log-key", key.trim()];
    let report = run(&authority.path("."), &verify).success();
    assert!(report.contains("The log verifies."), "{report}");
}

/// A token of one replica, a certificate of another, a nonce of a third; each once, wherever it is shown.
pub(crate) fn goes_from_replica_to_replica(cluster: &Cluster) {
    let config = cluster.path(0).join("chancery.toml");
    let config = ["--config", config.to_str().unwrap()];
    let at = |which: usize| format!("https://localhost:{}", cluster.addresses[which].port());
    let run = |arguments: &[&str]| run(cluster.beside(), arguments);
    let token = run(&[&["token", "create", "--identity", "web"][..], &config].concat()).success();
    std::fs::write(cluster.beside().join("token"), token).unwrap();
    let roots = ["--trust-bundle", "replica-0/certs/root.crt"];
    let enroll = |which: usize, out: &str| {
        let (server, enroll) = (at(which), ["enroll", "--token-file", "token", "--out", out]);
        run(&[&enroll[..], &["--server", &server], &roots].concat())
    };
    enroll(1, "web").success();
    assert!(enroll(2, "again").code(3).contains("token"), "it is spent everywhere");
    let [first, second, third] = [at(0), at(1), at(2)];
    let proof = ["revoke", "--key", "web/tls.key", "--print-proof", "--server", &first];
    let proof = run(&[&proof[..], &roots].concat()).success();
    let revoke = |server: &str| {
        let revoke = ["revoke", "--token-proof", proof.trim(), "--json", "--server", server];
        run(&[&revoke[..], &roots].concat())
    };
    assert_eq!(revoke(&second).json()["count"], 1);
    assert!(revoke(&third).code(1).contains("nonce"), "it came back already");
    assert!(revoke(&first).code(1).contains("nonce"), "also to where it was given out");
    run(&["renew", "--server", &third, "--in", "web"]).code(3);
}
