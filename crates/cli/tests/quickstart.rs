//! The commands that show and measure an authority, run as a user runs them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn chancery(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chancery"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("CHANCERY_CONFIG")
        .output()
        .expect("the binary was built for this test")
}

fn json(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).expect("standard output is JSON")
}

#[test]
fn a_stolen_certificate_is_soon_let_in_by_nobody_who_looks() {
    let place = tempfile::tempdir().unwrap();
    // What it fails with when somebody who looks still lets the thief in.
    let output = chancery(place.path(), &["drill", "theft", "--dir", "drill", "--json"]);
    let drill = json(&output);
    let findings = drill["findings"].as_array().unwrap();
    for finding in findings {
        let looks = finding["learns"] != "nothing";
        assert_eq!(finding["is_right"], true, "{finding}");
        assert_eq!(finding["new_until_ms"].is_number(), looks, "{finding}");
        let asks_once = finding["learns"] == "asking each time";
        assert_eq!(finding["open_until_ms"].is_number(), looks && !asks_once, "{finding}");
    }
    assert!(findings.len() >= 5, "{findings:?}");
    if findings.len() < 8 {
        println!(
            "SKIPPED parts of a_stolen_certificate_is_soon_let_in_by_nobody_who_looks: {}",
            drill["steps"][2]
        );
    }
    assert!(!place.path().join("drill").exists());
}

#[test]
fn quickstart_tells_the_whole_story_and_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let output = chancery(place.path(), &["quickstart", "--dir", "story", "--json"]);
    let story = json(&output);
    assert_eq!(story["ok"], true);
    let steps = story["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 21);
    let results: Vec<String> = steps.iter().map(|step| step["result"].to_string()).collect();
    for (step, what) in [
        (3, "refused: the root key"),
        (8, "api met spiffe://quickstart.example/web"),
        (11, "Revoked"),
        (12, "certificate-revoked"),
        (13, "spiffe://quickstart.example/node/here"),
        (14, "has been told of both"),
        (15, "is spiffe://quickstart.example/billing, serial"),
        (15, "is spiffe://quickstart.example/mailer, serial"),
        (16, "exit code 1: the agent refused (PermissionDenied)"),
        (17, "another key"),
        (18, "its stream was withdrawn"),
        (18, "PermissionDenied"),
        (18, "billing noticed nothing"),
        (20, "The log verifies."),
        (21, "error leaf-hash entry"),
    ] {
        assert!(results[step - 1].contains(what), "step {step}: {}", results[step - 1]);
    }
    assert_ne!(serial_in(&results[16]), serial_in(&results[14]), "billing rotated");
    assert!(!place.path().join("story").exists());
}

/// The first serial number in a result.
fn serial_in(result: &str) -> &str {
    let (_, serial) = result.split_once("serial ").expect("a serial number is told");
    serial.split(|character: char| !character.is_ascii_hexdigit()).next().unwrap_or_default()
}

#[test]
fn quickstart_keeps_its_directory_when_told_and_takes_none_that_exists() {
    let place = tempfile::tempdir().unwrap();
    let output = chancery(place.path(), &["quickstart", "--dir", "story", "--keep"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("$ chancery init --yes"), "{told}");
    for kept in ["chancery/chancery.toml", "offline-root/root.key", "web/tls.crt", "log.jsonl"] {
        assert!(place.path().join("story").join(kept).exists(), "{kept}");
    }
    let again = chancery(place.path(), &["quickstart", "--dir", "story"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(place.path().join("story/chancery/chancery.toml").exists());
}
