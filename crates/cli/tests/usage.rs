//! What somebody sees who asks for help, or gets it wrong: the real program, its output and its exit codes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program, away from any configuration and any variable that could speak for it.
fn chancery(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), arguments)
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHANCERY_")) {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let output = chancery(&["--help"]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(0));
    for command in [
        "init",
        "root",
        "serve",
        "check-config",
        "ledger",
        "identity",
        "node",
        "template",
        "token",
        "operator",
        "enroll",
        "renew",
        "proxy",
        "authz",
        "crl-sync",
        "certificate",
        "revoke",
        "hold",
        "release",
        "status",
        "why",
        "policy",
        "profile",
        "bundle",
        "ca",
        "log",
        "audit",
        "verify",
        "completions",
        "version",
    ] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(command)), "{command}\n{text}");
    }
    assert!(text.contains("3 refused by the authority, 4 verification failed"));
    assert!(!text.contains('\u{1b}'), "no colours in a pipe");
}

#[test]
fn every_command_has_help() {
    for command in [
        &["identity", "create"][..],
        &["token", "create"],
        &["revoke"],
        &["proxy"],
        &["authz"],
        &["crl-sync"],
        &["enroll"],
        &["audit", "verify"],
        &["init"],
        &["root", "sign"],
    ] {
        let output = chancery(&[command, &["--help"]].concat());
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", err(&output));
        assert!(out(&output).contains("Usage: chancery"), "{command:?}");
    }
}

#[test]
fn no_command_is_misuse_and_shows_the_help() {
    let output = chancery(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("Commands"));
}

#[test]
fn a_misspelt_command_is_misuse_and_names_the_right_one() {
    let output = chancery(&["enrol"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("enroll"), "{}", err(&output));
}

#[test]
fn without_a_server_says_what_to_give() {
    let output = chancery(&["certificate", "list"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        err(&output),
        "error: no server is known; say --server https://host:port (or set CHANCERY_SERVER), or run beside a \
         chancery.toml\n"
    );
    assert!(out(&output).is_empty());
}

#[test]
fn without_trust_nothing_is_connected_to() {
    let output = chancery(&["bundle", "--server", "https://ca.example.org"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("--trust-bundle FILE with its roots, or --fingerprint HEX"),
        "{}",
        err(&output)
    );
}

#[test]
fn a_server_that_does_not_answer_is_a_failure_with_its_cause() {
    let fingerprint = "00".repeat(32);
    let arguments =
        ["bundle", "--server", "https://127.0.0.1:1", "--fingerprint", fingerprint.as_str(), "-v"];
    let output = chancery(&arguments);
    assert_eq!(output.status.code(), Some(1));
    let text = err(&output);
    assert!(text.starts_with("error: cannot connect to https://127.0.0.1:1"), "{text}");
    assert!(text.contains("check the address"), "{text}");
    assert!(text.contains("caused by:"), "{text}");
}

#[test]
fn without_a_configuration_serve_says_where_it_looked() {
    let output = chancery(&["serve"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("run `chancery init`"), "{}", err(&output));
    let named = chancery(&["serve", "--config", "nowhere.toml"]);
    assert!(err(&named).contains("nowhere.toml does not exist"), "{}", err(&named));
}

#[test]
fn init_without_questions_needs_a_trust_domain() {
    let output = chancery(&["init", "--yes"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("--trust-domain"), "{}", err(&output));
}

#[test]
fn a_bare_path_needs_a_trust_domain() {
    let output = chancery(&["identity", "show", "web"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("spiffe://TRUST-DOMAIN/web"), "{}", err(&output));
}

#[test]
fn an_export_that_is_none_fails_verification() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.jsonl"), "{\"nothing\":1}\n").unwrap();
    let output = run(directory.path(), &["audit", "verify", "a.jsonl"]);
    assert_eq!(output.status.code(), Some(4), "{}", err(&output));
    let missing = run(directory.path(), &["audit", "verify", "b.jsonl"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(err(&missing).contains("cannot open b.jsonl"), "{}", err(&missing));
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = chancery(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(out(&output).contains("enroll"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(run(directory.path(), &["man", "man1"]).status.code(), Some(0));
    for page in ["chancery.1", "chancery-enroll.1", "chancery-identity-create.1"] {
        let text = std::fs::read_to_string(directory.path().join("man1").join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    assert!(!directory.path().join("man1/chancery-help.1").exists());
}

#[test]
fn version_is_data() {
    let output = chancery(&["version", "--json"]);
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_reader_that_goes_away_is_not_a_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chancery"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}
