//! The replica that rotates dies between two steps, and another one finishes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chancery_api::{CaStatusResponse, IssuerState, RotateRequest, RotationSubject};
use chancery_types::{Digest, IssuerEpoch, SerialNumber};
use serde_json::Value;

use super::cluster::{Cluster, PASSPHRASE, REPLICAS};
use super::load::{Held, Load, enroll_at};
use crate::network::Fault;
use crate::process::run;

/// A lease runs out after three seconds, and what is published is used after four.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Stands in the log beside what is done because somebody asked.
const REASON: &str = "admin asked for it";

/// Asks all replicas but this one for how issuers and keys stand, until all say so.
pub(crate) async fn until_all(
    cluster: &Cluster,
    but: Option<usize>,
    what: &str,
    is_so: impl Fn(&CaStatusResponse) -> bool,
) {
    let until = Instant::now() + PATIENCE;
    for which in (0..REPLICAS).filter(|which| Some(*which) != but) {
        loop {
            let status = cluster.operator(cluster.addresses[which]).ca_status().await;
            if status.as_ref().is_ok_and(&is_so) {
                break;
            }
            assert!(Instant::now() < until, "replica {which}, {what}: {status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The issuer that signs, as they tell.
pub(crate) fn signs(epoch: u16) -> impl Fn(&CaStatusResponse) -> bool {
    move |status| {
        let active = status.issuers.iter().filter(|issuer| issuer.state == Some(IssuerState::Active));
        active.map(|issuer| issuer.epoch).eq([IssuerEpoch(epoch)])
    }
}

/// Whether there is a key besides the first one, and it is in such a phase.
fn next_is(phase: &'static str, first: Digest) -> impl Fn(&CaStatusResponse) -> bool {
    move |status| {
        let others = status.jwt_keys.iter().filter(|key| key.fingerprint != first);
        others.map(|key| key.phase.as_str()).eq([phase])
    }
}

/// The replica whose turn it is to rotate.
pub(crate) async fn rotator(cluster: &Cluster, but: Option<usize>) -> usize {
    let until = Instant::now() + PATIENCE;
    loop {
        for which in (0..REPLICAS).filter(|which| Some(*which) != but) {
            let page = cluster.operator(cluster.addresses[which]).metrics().await.unwrap();
            if String::from_utf8_lossy(&page).contains("chancery_lease_held{work=\"rotation\"} 1") {
                return which;
            }
        }
        assert!(Instant::now() < until, "nobody has the lease of the rotator");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn ask(cluster: &Cluster, which: usize, subject: RotationSubject) {
    let request = RotateRequest { subject, dry_run: false, note: "a test".into() };
    cluster.operator(cluster.addresses[which]).ca_rotate(&request).await.unwrap();
}

/// Every replica signs with this issuer, and whoever knows the root alone believes it.
pub(crate) async fn all_sign(cluster: &Cluster, epoch: u16, roots: &[&str]) -> Vec<Held> {
    let mut held = Vec::new();
    for address in &cluster.addresses {
        let one = enroll_at(cluster, *address).await;
        assert_eq!(one.response.serial.epoch(), IssuerEpoch(epoch), "{address}");
        for root in roots {
            assert_believed(cluster, &one, root);
        }
        held.push(one);
    }
    held
}

/// By `openssl`, with a root's file beside the replicas.
fn assert_believed(cluster: &Cluster, held: &Held, root: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (own, chain) = (directory.path().join("own.pem"), directory.path().join("chain.pem"));
    std::fs::write(&own, &held.response.certificate).unwrap();
    std::fs::write(&chain, &held.response.chain).unwrap();
    let output = std::process::Command::new("openssl")
        .args(["verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-CAfile"])
        .arg(cluster.beside().join(root))
        .arg("-untrusted")
        .args([&chain, &own])
        .output()
        .unwrap();
    assert!(output.status.success(), "{root}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What the log says of issuers and keys, in its order, once it is verified: at every certificate exactly one issuer was
/// active, the one that it is of.
pub(crate) fn steps(cluster: &Cluster) -> Vec<String> {
    let config = cluster.path(0).join("chancery.toml");
    let config = ["--config", config.to_str().unwrap()];
    let key = run(cluster.beside(), &[&["log", "key"][..], &config].concat()).success();
    run(cluster.beside(), &[&["audit", "export", "--out", "log.jsonl"][..], &config].concat()).success();
    run(cluster.beside(), &["audit", "verify", "log.jsonl", "--log-key", key.trim()]).success();
    let (mut steps, mut active) = (Vec::new(), BTreeSet::new());
    for line in std::fs::read_to_string(cluster.beside().join("log.jsonl")).unwrap().lines().skip(1) {
        let line: Value = serde_json::from_str(line).unwrap();
        // The last line is about the export itself.
        let Some(kind) = line["view"]["kind"].as_str() else { continue };
        let body = &line["view"]["body"];
        let epoch = body["epoch"].as_u64();
        match kind {
            "issuance" => {
                let serial: SerialNumber = body["serial"].as_str().unwrap().parse().unwrap();
                let signed = BTreeSet::from([u64::from(serial.epoch().0)]);
                assert_eq!(active, signed, "{line}");
            }
            "issuer-activated" => assert!(active.insert(epoch.unwrap()), "{line}"),
            "issuer-retired" => assert!(active.remove(&epoch.unwrap()), "{line}"),
            "issuer-prepared" | "issuer-withdrawn" => {}
            "key-changed" => {
                let (purpose, phase) = (body["purpose"].as_str().unwrap(), body["phase"].as_str().unwrap());
                steps.push(format!("{purpose} {phase}"));
                continue;
            }
            _ => continue,
        }
        if let Some(epoch) = epoch {
            steps.push(format!("{kind} {epoch}"));
        }
    }
    steps
}

/// Between being published and signing; between the key and the request; in the middle of the commit.
pub(crate) async fn issuers_are_finished_by_another(cluster: &mut Cluster) {
    let load = Load::start(cluster, 2).await;
    let died = rotator(cluster, None).await;
    ask(cluster, died, RotationSubject::Issuer).await;
    cluster.kill(died);
    until_all(cluster, Some(died), "one that is published does not sign", signs(1)).await;
    until_all(cluster, Some(died), "issuer 2", signs(2)).await;
    cluster.spawn(died);
    cluster.each_serves().await;
    all_sign(cluster, 2, &["certs/root.crt"]).await;
    let tally = load.stop().await;
    assert!(tally.violations.is_empty() && !tally.enrolled.is_empty(), "{tally}: {:?}", tally.violations);

    // No spare is left: a key and a request are made. It dies when it has the key.
    let died = rotator(cluster, None).await;
    ask(cluster, died, RotationSubject::Issuer).await;
    let request = cluster.beside().join("certs/issuer-3.csr");
    cluster.kill(died);
    let first = std::fs::read(&request).unwrap();
    std::fs::remove_file(&request).unwrap();
    cluster.spawn(died);
    let until = Instant::now() + PATIENCE;
    while !request.exists() {
        assert!(Instant::now() < until, "nobody makes the request");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let again = std::fs::read(&request).unwrap();
    assert_eq!(public_key(&again), public_key(&first), "of the key that was there");
    let sign = ["root", "sign", "certs/issuer-3.csr", "--root-dir", "root", "--passphrase-file", PASSPHRASE];
    run(cluster.beside(), &[&sign[..], &["--out", "certs/issuer-3.crt"]].concat()).success();

    cluster.each_serves().await;
    let published = |status: &CaStatusResponse| {
        status.issuers.iter().any(|issuer| issuer.epoch.0 == 3 && issuer.state == Some(IssuerState::Prepared))
    };
    until_all(cluster, None, "the issuer that the root signed", published).await;
    let died = rotator(cluster, None).await;
    cluster.networks[died].set_for(REASON, Fault::LoseCommit);
    tokio::time::timeout(PATIENCE, cluster.networks[died].lost()).await.unwrap();
    cluster.kill(died);
    until_all(cluster, Some(died), "its commit was lost", signs(2)).await;
    until_all(cluster, Some(died), "issuer 3", signs(3)).await;
    cluster.spawn(died);
    cluster.each_serves().await;
    all_sign(cluster, 3, &["certs/root.crt"]).await;
    let expected = [
        "issuer-activated 1",
        "issuer-prepared 2",
        "issuer-activated 2",
        "issuer-retired 1",
        "issuer-prepared 3",
        "issuer-activated 3",
        "issuer-retired 2",
    ];
    let steps = tokio::task::block_in_place(|| steps(cluster));
    let steps: Vec<&String> = steps.iter().filter(|step| step.starts_with("issuer")).collect();
    assert_eq!(steps, expected, "each once, in this order");
}

/// A key was made and its commit is lost; a key signs and whoever had it sign does not hear of it.
pub(crate) async fn keys_are_finished_by_another(cluster: &mut Cluster) {
    let died = rotator(cluster, None).await;
    cluster.networks[died].set_for(REASON, Fault::LoseCommit);
    let operator = cluster.operator(cluster.addresses[died]);
    let first = operator.ca_status().await.unwrap().jwt_keys[0].fingerprint;
    let request = RotateRequest { subject: RotationSubject::Jwt, dry_run: false, note: String::new() };
    let asked = tokio::spawn(async move { operator.ca_rotate(&request).await });
    tokio::time::timeout(PATIENCE, cluster.networks[died].lost()).await.unwrap();
    cluster.kill(died);
    asked.await.unwrap().unwrap_err();
    let key = cluster.beside().join("keys/jwt-2.key");
    let made = std::fs::read(&key).unwrap();
    until_all(cluster, Some(died), "the key", next_is("published", first)).await;
    cluster.spawn(died);
    cluster.each_serves().await;

    let died = rotator(cluster, None).await;
    cluster.networks[died].set_for(REASON, Fault::LoseAnswerToCommit);
    tokio::time::timeout(PATIENCE, cluster.networks[died].lost()).await.unwrap();
    cluster.kill(died);
    until_all(cluster, Some(died), "the next key", next_is("active", first)).await;
    cluster.spawn(died);
    cluster.each_serves().await;
    until_all(cluster, None, "the next key", next_is("active", first)).await;
    let mut shown = BTreeSet::new();
    for address in &cluster.addresses {
        let keys = cluster.client(*address, None).jwt_keys().await.unwrap();
        shown.insert(serde_json::to_string(&keys).unwrap());
    }
    assert_eq!(shown.len(), 1, "all show the same keys: {shown:?}");
    assert_eq!(std::fs::read(&key).unwrap(), made, "the key that was there is the one that signs");
    assert!(!cluster.beside().join("keys/jwt-3.key").exists());
    let steps = tokio::task::block_in_place(|| steps(cluster));
    let steps: Vec<&String> = steps.iter().filter(|step| step.starts_with("jwt")).collect();
    assert_eq!(steps, ["jwt active", "jwt published", "jwt active", "jwt retired"]);
}

/// Each replica has keys of its own: what one of them makes does not sign before the others have it.
pub(crate) async fn a_key_that_is_not_everywhere_waits(cluster: &mut Cluster) {
    let first = cluster.operator(cluster.addresses[0]).ca_status().await.unwrap().jwt_keys[0].fingerprint;
    ask(cluster, 0, RotationSubject::Jwt).await;
    until_all(cluster, None, "rest", |status| status.paused == ["jwt"]).await;
    let has_it = |which: &usize| cluster.path(*which).join("keys/jwt-2.key").exists();
    let made: Vec<usize> = (0..REPLICAS).filter(has_it).collect();
    assert_eq!(made.len(), 1, "one makes it, whoever was asked");
    let made = made[0];
    // Each that has not the key says so, whichever of them objected first.
    until_all(cluster, Some(made), "told", |status| {
        status.troubles.iter().any(|trouble| trouble.contains("bring it there"))
    })
    .await;
    (0..REPLICAS).filter(|which| *which != made).for_each(|which| cluster.kill(which));
    // Longer than the notice. And whoever starts meanwhile does.
    for which in (0..REPLICAS).filter(|which| *which != made) {
        cluster.spawn(which);
    }
    cluster.each_serves().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    until_all(cluster, None, "it does not sign", next_is("published", first)).await;
    let key = cluster.path(made).join("keys/jwt-2.key");
    for which in (0..REPLICAS).filter(|which| *which != made) {
        std::fs::copy(&key, cluster.path(which).join("keys/jwt-2.key")).unwrap();
    }
    ask(cluster, 0, RotationSubject::Jwt).await;
    until_all(cluster, None, "it signs", next_is("active", first)).await;
    until_all(cluster, None, "nothing rests", |status| status.paused.is_empty()).await;
}

/// The public key in a request.
fn public_key(request: &[u8]) -> String {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["req", "-noout", "-pubkey"]).stdin(std::process::Stdio::piped());
    let mut child = openssl.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), request).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}
