//! What must hold when everything was broken and mended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chancery_api::CertificateStatus;
use chancery_types::SerialNumber;
use chancery_x509::crl::CrlView;
use serde_json::Value;

use super::cluster::{Cluster, REPLICAS};
use super::load::Tally;
use crate::process::run;

/// Nothing lost, nothing twice, one log, the same status everywhere.
pub(crate) async fn pass(cluster: &Cluster, tally: &Tally) {
    assert!(tally.violations.is_empty(), "{:#?}", tally.violations);
    let acknowledged: Vec<SerialNumber> = tally.enrolled.iter().chain(&tally.renewed).copied().collect();
    let distinct: BTreeSet<SerialNumber> = acknowledged.iter().copied().collect();
    assert_eq!(distinct.len(), acknowledged.len(), "a serial was given twice");
    for (turn, serial) in acknowledged.iter().enumerate() {
        let replica = cluster.operator(cluster.addresses[turn % REPLICAS]);
        let told = replica.status(*serial).await.unwrap_or_else(|error| panic!("{serial} is lost: {error}"));
        let wanted = match tally.revoked.contains(serial) {
            true => CertificateStatus::Revoked,
            false => CertificateStatus::Good,
        };
        assert_eq!(told.status, wanted, "{serial}");
        if turn % 16 == 0 {
            let whole = replica.read_certificate(*serial).await.unwrap();
            let whole = serde_json::to_value(&whole).unwrap();
            assert!(whole.to_string().contains("BEGIN CERTIFICATE"), "{serial} has its signature: {whole}");
        }
    }
    published(cluster, tally).await;
    tokio::task::block_in_place(|| log(cluster, &distinct));
}

/// Every replica publishes one and the same list and set, and they name what was revoked.
async fn published(cluster: &Cluster, tally: &Tally) {
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        let mut lists = BTreeSet::new();
        let mut sets = BTreeSet::new();
        let mut missing = 0;
        for address in &cluster.addresses {
            let replica = cluster.client(*address, None);
            let list = replica.crl().await.unwrap();
            let view = CrlView::from_der(&list).unwrap();
            let named: BTreeSet<Vec<u8>> = view.entries().map(|entry| entry.serial.to_vec()).collect();
            missing += tally.revoked.iter().filter(|one| !named.contains(one.as_bytes().as_slice())).count();
            lists.insert(list);
            sets.insert(replica.status_set().await.unwrap());
        }
        if (lists.len(), sets.len(), missing) == (1, 1, 0) {
            return;
        }
        let state = (lists.len(), sets.len(), missing);
        assert!(Instant::now() < until, "lists, sets, certificates missing on a list: {state:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// By the project's own auditor, over the wire of each replica, and line by line.
fn log(cluster: &Cluster, acknowledged: &BTreeSet<SerialNumber>) {
    let config = cluster.path(0).join("chancery.toml");
    let config = ["--config", config.to_str().unwrap()];
    let key = run(cluster.beside(), &[&["log", "key"][..], &config].concat()).success();
    let url = |which: usize| format!("https://localhost:{}", cluster.addresses[which].port());
    run(cluster.beside(), &[&["audit", "export", "--out", "log.jsonl"][..], &config].concat()).success();
    let verify = ["audit", "verify", "log.jsonl", "--log-key", key.trim(), "--save-checkpoint", "kept"];
    let report = run(cluster.beside(), &verify).success();
    assert!(report.contains("The log verifies."), "{report}");
    // What each replica shows is the same log, or one that goes on from it: no fork.
    for which in 0..REPLICAS {
        let (server, kept) = (url(which), ["--checkpoint", "kept"]);
        let verify = ["audit", "verify", &server, "--log-key", key.trim()];
        let operator = ["--cert", "replica-0/operators/admin.crt", "--key", "replica-0/operators/admin.key"];
        run(cluster.beside(), &[&verify[..], &kept, &operator, &config].concat()).success();
    }
    let export = std::fs::read_to_string(cluster.beside().join("log.jsonl")).unwrap();
    let mut serials = BTreeMap::<String, u32>::new();
    let mut spent = BTreeMap::<String, u32>::new();
    for line in export.lines().skip(1) {
        let line: Value = serde_json::from_str(line).unwrap();
        let view = &line["view"];
        match view["type"].as_str().or(view["kind"].as_str()) {
            Some("issuance") => *serials.entry(text_in(view, "serial")).or_default() += 1,
            Some("token_spent" | "token-spent") => *spent.entry(text_in(view, "token")).or_default() += 1,
            _ => {}
        }
    }
    assert!(serials.values().chain(spent.values()).all(|times| *times == 1), "something was given twice");
    let lost = acknowledged.iter().filter(|serial| !serials.contains_key(&serial.to_string()));
    assert_eq!(lost.count(), 0, "everything acknowledged stands in the log");
    assert!(!spent.is_empty());
    println!("the log: {} certificates, {} tokens spent, each once; verified", serials.len(), spent.len());
    run(cluster.beside(), &[&["ledger", "check"][..], &config].concat()).success();
}

/// A text of this name, wherever it stands.
fn text_in(view: &Value, name: &str) -> String {
    fn find<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
        let object = value.as_object()?;
        object
            .get(name)
            .and_then(Value::as_str)
            .or_else(|| object.values().find_map(|inner| find(inner, name)))
    }
    find(view, name).unwrap_or_else(|| panic!("no {name} in {view}")).to_owned()
}
