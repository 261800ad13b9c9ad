//! The doctor finds nothing in a deployment that is well, and names what was broken on purpose.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

#[path = "../../server/tests/object_store/mod.rs"]
mod object_store;
mod process;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use object_store::ObjectStore;
use process::{Authority, command};
use serde_json::Value;

/// The findings of the doctor, and whether it found something wrong.
fn findings(authority: &Authority, more: &[&str]) -> (Vec<(String, String, String)>, bool) {
    findings_in(authority, more, &[])
}

/// The same in an environment that has more.
fn findings_in(
    authority: &Authority,
    more: &[&str],
    environment: &[(&str, &str)],
) -> (Vec<(String, String, String)>, bool) {
    let mut doctor = command(&authority.path(""));
    doctor.args(["doctor", "--json"]).args(more).envs(environment.iter().copied());
    let output = doctor.output().unwrap();
    let sick = output.status.code() == Some(4);
    assert!(sick || output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    let findings =
        findings.map(|finding| (text(finding, "check"), text(finding, "state"), text(finding, "found")));
    (findings.collect(), sick)
}

fn has(found: &[(String, String, String)], check: &str, state: &str, words: &str) {
    let is = |finding: &&(String, String, String)| {
        finding.0 == check && finding.1 == state && finding.2.contains(words)
    };
    assert!(found.iter().any(|finding| is(&finding)), "{check} {state} {words:?}: {found:#?}");
}

#[test]
fn the_doctor_finds_what_was_broken_and_only_that() {
    let mut authority = Authority::init(&[]);
    authority.serve();
    // A laptop: the root lies beside it, which it says.
    std::fs::rename(authority.path("chancery-root"), authority.path("away")).unwrap();
    for _ in 0..200 {
        if authority.path("chancery/status/exact.set").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let (found, sick) = findings(&authority, &[]);
    assert!(!sick, "{found:#?}");
    for check in
        ["configuration", "permissions", "server", "issuers", "bundle", "lists", "ocsp", "log", "agents"]
    {
        has(&found, check, "good", "");
    }
    has(&found, "keys", "warning", "passphrase");
    assert_eq!(authority.chancery(&["doctor", "--json", "--problems"]).json()["bad"], 0);

    std::fs::rename(authority.path("away"), authority.path("chancery-root")).unwrap();
    let other = Authority::init(&[]);
    let foreign = other.path("chancery/ledger/checkpoint");
    let policy = authority.path("chancery/policy");
    open_up(&policy, 0o777);
    open_up(&authority.path("chancery/operators/admin.key"), 0o644);
    let (found, sick) = findings(&authority, &["--checkpoint", foreign.to_str().unwrap(), "--problems"]);
    assert!(sick);
    has(&found, "keys", "bad", "root's key");
    has(&found, "permissions", "bad", "admin.key");
    has(&found, "permissions", "bad", "policy");
    assert!(found.iter().all(|(_, state, _)| state != "good"), "--problems: {found:#?}");

    authority.stop();
    let (found, sick) = findings(&authority, &[]);
    assert!(sick);
    has(&found, "server", "bad", &authority.url);
    let config = authority.path("chancery/chancery.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[keys]", "[kees]")).unwrap();
    let (found, sick) = findings(&authority, &[]);
    assert!(sick);
    has(&found, "configuration", "bad", "kees");
}

fn open_up(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn the_doctor_tries_the_place_of_full_tiles() {
    let authority = Authority::init(&[]);
    let config = authority.path("chancery/chancery.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let name_place = |place: &str| {
        let named = text.replace("[storage]\n", &format!("[storage]\ntiles = \"{place}\"\n"));
        assert_ne!(named, text);
        std::fs::write(&config, named).unwrap();
    };
    name_place("tiles");
    has(&findings(&authority, &[]).0, "tiles", "bad", "no such directory");
    std::fs::create_dir(authority.path("chancery/tiles")).unwrap();
    has(&findings(&authority, &[]).0, "tiles", "good", "256 entries");

    name_place("s3://rolls/log");
    let (found, _) = findings_in(&authority, &[], &[("AWS_REGION", "eu-central-1")]);
    has(&found, "tiles", "unknown", "storage.tiles_credentials");
    let Some(mut store) = ObjectStore::start() else { return };
    let (id, secret) = (store.ready.keys["keeper"].id.clone(), store.ready.keys["keeper"].secret.clone());
    let endpoint = store.ready.endpoint.clone();
    let environment = |secret| {
        [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", id.as_str()),
            ("AWS_SECRET_ACCESS_KEY", secret),
        ]
    };
    let (found, _) = findings_in(&authority, &[], &environment(&secret));
    has(&found, "tiles", "good", "s3://rolls/log can be read and written");
    assert_eq!(store.names(), ["log/chancery-doctor"]);
    let (found, sick) = findings_in(&authority, &[], &environment("hidden"));
    assert!(sick);
    has(&found, "tiles", "bad", "SignatureDoesNotMatch");
    assert!(!format!("{found:?}").contains("hidden"), "{found:?}");
}
