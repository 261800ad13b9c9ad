//! Another key of the log, as operators and auditors see it: real processes, the commands that they type.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod process;

use std::time::Duration;

use chancery_merkle::{NoteKeyKind, NoteVerifier};
use process::{Authority, run};

/// Waits until the keys of the log are in these phases.
fn until(authority: &Authority, expected: &[&str]) {
    for _ in 0..300 {
        let keys = authority.chancery(&["log", "keys", "--json"]).json();
        let phases: Vec<&str> =
            keys["keys"].as_array().unwrap().iter().map(|key| key["phase"].as_str().unwrap()).collect();
        if phases == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{expected:?} did not come about: {}", authority.chancery(&["log", "keys"]).success());
}

#[test]
fn an_auditor_who_has_the_first_key_of_the_log_needs_no_other() {
    let mut authority = Authority::init(&["--spares", "0"]);
    let config = authority.path("chancery/chancery.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let quick = "[rotation]\nrefresh_hint = \"1s\"\nmargin = \"0s\"\nsettle = \"0s\"\nlog_overlap = \"4s\"\n";
    std::fs::write(&config, replace_table(&text, "[rotation]", quick)).unwrap();
    authority.serve();
    let first = authority.chancery(&["log", "key"]).success();
    std::fs::write(authority.path("first.vkey"), &first).unwrap();
    authority.chancery(&["log", "checkpoint", "--out", "before"]).success();

    let planned = authority.chancery(&["ca", "rotate", "log", "--dry-run"]).success();
    assert!(planned.contains("make the next log key") && planned.contains("signs no more"), "{planned}");
    let told = authority.chancery(&["ca", "rotate", "--now", "log", "--note", "once a year"]).success();
    assert!(told.contains("the next log was asked for"), "{told}");
    until(&authority, &["superseded", "active"]);
    let status = authority.chancery(&["ca", "status"]).success();
    assert!(
        status.contains("log key") && status.contains("it has signed beside the next one for 4s"),
        "{status}"
    );
    until(&authority, &["withdrawn", "active"]);
    let second = authority.chancery(&["log", "key"]).success();
    assert_ne!(first, second);

    // Known: the first key. Proved: the second.
    let keys = ["log", "keys", "--log-key", "first.vkey", "--out", "now.vkey"];
    let shown = authority.chancery(&keys).success();
    assert_eq!(shown.matches("proved").count(), 1, "{shown}");
    assert_eq!(std::fs::read_to_string(authority.path("now.vkey")).unwrap().trim(), second.trim());
    let stranger = NoteVerifier::new("example.org/chancery-log", NoteKeyKind::Ed25519, [7; 32]).unwrap();
    let lost = authority.chancery(&["log", "keys", "--log-key", &stranger.vkey()]).code(4);
    assert!(lost.contains("get its newest key from its owner"), "{lost}");

    authority.chancery(&["audit", "export", "--out", "log.jsonl"]).success();
    for key in ["first.vkey", "now.vkey"] {
        let verify = ["audit", "verify", "log.jsonl", "--log-key", key];
        let verdict = authority.chancery(&verify).success();
        assert!(verdict.contains("0 errors, 0 warnings"), "{verdict}");
    }
    let grown = ["audit", "verify", "log.jsonl", "--log-key", "first.vkey", "--checkpoint", "before"];
    authority.chancery(&grown).success();
    let set = ["status", "set", "--log-key", "first.vkey", "--output", "set"];
    authority.chancery(&set).success();
    authority.chancery(&["status", "set", "--log-key", "now.vkey", "--from", "set"]).success();

    // A backup goes along, and what it has is judged by all keys.
    authority.stop();
    authority.chancery(&["ledger", "check"]).success();
    authority.chancery(&["ledger", "rebuild"]).success();
    authority.serve();
    assert_eq!(authority.chancery(&["log", "key"]).success(), second);
    // Somebody elsewhere who has only the first key and the root.
    let root = authority.path("chancery/certs/root.crt");
    let known = authority.path("first.vkey");
    let elsewhere = tempfile::tempdir().unwrap();
    let keys = [
        "log",
        "keys",
        "--server",
        &authority.url,
        "--trust-bundle",
        root.to_str().unwrap(),
        "--log-key",
        known.to_str().unwrap(),
    ];
    assert!(run(elsewhere.path(), &keys).success().contains("proved"));
}

/// A text of TOML with one table replaced or added.
fn replace_table(text: &str, name: &str, table: &str) -> String {
    let Some((before, rest)) = text.split_once(name) else { return format!("{text}\n{table}") };
    let after = rest.find("\n[").map_or("", |at| &rest[at + 1..]);
    format!("{before}{table}\n{after}")
}
