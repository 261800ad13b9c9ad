//! The whole road as users walk it: real processes, real sockets, the commands that they type.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod process;

use std::path::Path;
use std::process::Command;

use process::{Authority, run};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Registers an identity and returns the file with a join token for it.
fn token(authority: &Authority, name: &str) -> std::path::PathBuf {
    authority.chancery(&["identity", "create", name, "--owner", "ada"]).success();
    let token = authority.chancery(&["token", "create", "--identity", name]).success();
    let path = authority.path(&format!("{name}.token"));
    std::fs::write(&path, token).unwrap();
    path
}

/// The exact set names a revoked certificate, is verified anywhere, and is refused under another key.
fn exact_set(authority: &Authority, elsewhere: &Path, revoked: &str, key: &str) {
    let fetch = ["status", "set", "--check", revoked, "--output", "exact.set", "--json"];
    let named = (0..100).map(|_| authority.chancery(&fetch).json());
    let set = named.into_iter().find(|set| set["checked"][0]["standing"] == "not-good").expect("it is named");
    assert_eq!((&set["issuers"][0]["issuer"], set["issuers"].as_array().unwrap().len()), (&1.into(), 1));
    let file = authority.path("exact.set");
    let read = ["status", "set", "--from", text(&file), "--log-key", key, "--json"];
    assert_eq!(run(elsewhere, &read).json()["hash"], set["hash"]);
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    run(elsewhere, &read).code(4);
}

/// The serial number of the certificate in a file, by OpenSSL.
fn serial(certificate: &Path) -> String {
    let output = openssl(&["x509", "-in", text(certificate), "-noout", "-serial"]);
    output.trim().trim_start_matches("serial=").to_ascii_lowercase()
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {}: {errors}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

fn openssl_verifies(directory: &Path) {
    let (certificate, roots) = (directory.join("tls.crt"), directory.join("ca.crt"));
    let chain = ["-CAfile", text(&roots), "-untrusted", text(&certificate), text(&certificate)];
    openssl(&[&["verify", "-x509_strict"][..], &chain].concat());
}

#[test]
fn a_workload_enrols_renews_is_revoked_and_the_log_proves_it_all() {
    let mut authority = Authority::init(&[]);
    let again = authority.chancery(&["init", "--yes", "--trust-domain", "example.org"]).code(2);
    assert!(again.contains("holds an authority already"), "{again}");
    authority.chancery(&["check-config"]).success();
    let refused = authority.chancery(&["serve"]).code(1);
    assert!(refused.contains("root key") && refused.contains("--allow-online-root"), "{refused}");
    authority.serve();

    // The workload is somewhere else: it has a token and an address, nothing more.
    let token = token(&authority, "web");
    let elsewhere = tempfile::tempdir().unwrap();
    let (url, token) = (authority.url.as_str(), text(&token));
    let enroll =
        ["enroll", "--server", url, "--token-file", token, "--out", "web", "--receipt", "web.receipt"];
    run(elsewhere.path(), &enroll).success();
    let pair = elsewhere.path().join("web");
    openssl_verifies(&pair);
    let first = serial(&pair.join("tls.crt"));
    let spent = run(elsewhere.path(), &["enroll", "--server", url, "--token-file", token, "--out", "again"]);
    assert!(spent.code(3).contains("token"), "a token is spent once");
    assert!(!elsewhere.path().join("again/tls.key").exists());

    let key = authority.chancery(&["log", "key"]).success();
    let certificate = pair.join("tls.crt");
    let verify =
        ["verify", "--receipt", "web.receipt", "--certificate", text(&certificate), "--log-key", key.trim()];
    run(elsewhere.path(), &verify).success();

    let renew = ["renew", "--server", url, "--in", "web"];
    let renewed = run(elsewhere.path(), &[&renew[..], &["--json"]].concat()).json();
    assert_eq!(renewed["generation"], 1);
    openssl_verifies(&pair);
    assert_ne!(serial(&pair.join("tls.crt")), first);
    run(elsewhere.path(), &verify).code(4);

    let counted = authority.chancery(&["revoke", "--identity", "web", "--dry-run", "--json"]).json();
    assert_eq!((&counted["count"], &counted["dry_run"]), (&2.into(), &true.into()));
    let revoke = ["revoke", "--identity", "web", "--reason", "key-compromise", "--json"];
    assert_eq!(authority.chancery(&revoke).json()["count"], 2);
    let status = authority.chancery(&["status", &first, "--json"]).json();
    assert_eq!(
        (&status["status"], &status["revocation"]["reason"]),
        (&"revoked".into(), &"key-compromise".into())
    );
    exact_set(&authority, elsewhere.path(), &first, key.trim());
    run(elsewhere.path(), &renew).code(3);
    assert_eq!(std::fs::read_dir(&pair).unwrap().count(), 3, "a refused renewal leaves nothing behind");

    audit(&authority, key.trim());
    let busy = authority.chancery(&["ledger", "check"]).code(1);
    assert!(!busy.is_empty(), "the server has the ledger");
    authority.stop();
    let kept = authority.chancery(&["ledger", "check", "--json"]).json();
    assert_eq!(authority.chancery(&["ledger", "rebuild", "--json"]).json(), kept);
    assert!(!authority.path("chancery/ledger.check").exists());
}

/// Exports, verifies, extends, tampers.
fn audit(authority: &Authority, key: &str) {
    authority.chancery(&["audit", "export", "--out", "log.jsonl"]).success();
    let verify = ["audit", "verify", "log.jsonl", "--log-key", key];
    let report = authority.chancery(&[&verify[..], &["--save-checkpoint", "kept"]].concat()).success();
    assert!(report.contains("The log verifies."), "{report}");

    authority.chancery(&["identity", "create", "later", "--owner", "ada"]).success();
    authority.chancery(&["audit", "export", "--out", "later.jsonl"]).success();
    let extended = ["audit", "verify", "later.jsonl", "--log-key", key, "--checkpoint", "kept", "--json"];
    authority.chancery(&extended).success();
    authority.chancery(&["audit", "verify", &authority.url, "--log-key", key]).success();

    let export = std::fs::read_to_string(authority.path("log.jsonl")).unwrap();
    let tampered = export.replace("key-compromise", "superseded");
    assert_ne!(export, tampered);
    std::fs::write(authority.path("log.jsonl"), tampered).unwrap();
    let found = authority.chancery(&verify);
    assert!(found.code(4).contains("does not verify"));

    for form in ["csv", "parquet"] {
        let out = format!("log.{form}");
        authority.chancery(&["audit", "export", "--format", form, "--out", &out]).success();
        assert!(std::fs::metadata(authority.path(&out)).unwrap().len() > 1000);
    }
}

#[test]
fn whoever_holds_a_key_can_end_it_and_nobody_else() {
    let mut authority = Authority::init(&[]);
    authority.serve();
    let token = token(&authority, "web");
    let elsewhere = tempfile::tempdir().unwrap();
    let url = authority.url.as_str();
    run(elsewhere.path(), &["enroll", "--server", url, "--token-file", text(&token), "--out", "web"])
        .success();
    let trust = ["--server", url, "--trust-bundle", "web/ca.crt"];

    let by_certificate = [&["revoke", "--key", "web/tls.crt"][..], &trust].concat();
    run(elsewhere.path(), &by_certificate).code(3);
    let proof = [&["revoke", "--key", "web/tls.key", "--print-proof"][..], &trust].concat();
    let proof = run(elsewhere.path(), &proof).success();
    let by_proof = [&["revoke", "--token-proof", proof.trim(), "--json"][..], &trust].concat();
    assert_eq!(run(elsewhere.path(), &by_proof).json()["count"], 1);
    run(elsewhere.path(), &by_proof).code(1);
}

#[test]
fn operators_have_certificates_of_their_own_and_their_roles_limits() {
    let mut authority = Authority::init(&[]);
    authority.serve();
    authority.chancery(&["operator", "create", "eve", "--role", "viewer", "--out", "."]).success();
    let as_eve = ["--cert", "eve.crt", "--key", "eve.key"];
    authority.chancery(&[&["identity", "list"][..], &as_eve].concat()).success();
    let create = ["identity", "create", "web", "--owner", "eve"];
    let refused = authority.chancery(&[&create[..], &as_eve].concat()).code(3);
    assert!(refused.contains("not-permitted"), "{refused}");

    let profiles = authority.chancery(&["profile", "list"]).success();
    assert!(profiles.contains("workload"), "{profiles}");
    assert!(authority.chancery(&["profile", "show", "workload"]).success().contains("lifetime"));
    authority.chancery(&["profile", "show", "nothing"]).code(2);

    authority.chancery(&create).success();
    let changed = authority.chancery(&["identity", "update", "web", "--team", "t", "--json"]).json();
    assert_eq!((&changed["identity"]["team"], &changed["identity"]["owner"]), (&"t".into(), &"eve".into()));
    let held = authority.chancery(&["identity", "hold", "web", "--note", "look into it", "--json"]).json();
    assert_eq!(held["state"], "held");
    let found = authority.chancery(&["identity", "list", "--state", "held", "--json"]).json();
    assert_eq!(found.as_array().unwrap().len(), 1);
    authority.chancery(&["token", "create", "--identity", "web"]).code(3);
    authority.chancery(&["identity", "release", "web"]).success();

    let socket = text(&authority.path("chancery/run/admin.sock")).to_owned();
    authority.chancery(&["certificate", "list", "--admin-socket", &socket]).success();
}

#[test]
fn a_node_is_evicted_and_banned_and_a_workload_names_it() {
    let mut authority = Authority::init(&[]);
    authority.serve();
    authority.chancery(&["identity", "create", "node/a", "--owner", "ada", "--profile", "node"]).success();
    let create = ["identity", "create", "web", "--owner", "ada", "--selector", "unix:uid:1000"];
    let names = ["--alternative", "unix:uid:0,unix:gid:0", "--parent", "spiffe://example.org/node/a"];
    let rest = ["--hint", "main", "--federates-with", "elsewhere.org", "--json"];
    let web = authority.chancery(&[&create[..], &names, &rest].concat()).json();
    assert_eq!(web["identity"]["selectors"]["unix.uid"], "1000");
    assert_eq!(web["identity"]["alternatives"][0]["unix.gid"], "0");
    assert_eq!(web["identity"]["parents"][0], "spiffe://example.org/node/a");
    let shown = authority.chancery(&["identity", "show", "web"]).success();
    assert!(shown.contains("unix:uid:1000") && shown.contains("elsewhere.org"), "{shown}");

    let enroll = |out: &str| {
        let token = authority.chancery(&["token", "create", "--identity", "node/a"]).success();
        std::fs::write(authority.path("node.token"), token).unwrap();
        let url = authority.url.as_str();
        let enroll = ["enroll", "--server", url, "--token-file", "node.token", "--out", out];
        authority.chancery(&enroll).success();
    };
    enroll("first");
    let nodes = authority.chancery(&["node", "list", "--json"]).json();
    assert_eq!(nodes.as_array().unwrap().len(), 1, "a workload is no node: {nodes}");
    let shown = authority.chancery(&["node", "show", "node/a", "--json"]).json();
    assert_eq!(shown["certificates"].as_array().unwrap().len(), 1);
    assert_eq!(shown["certificates"][0]["profile"], "node");
    assert!(authority.chancery(&["node", "evict", "web"]).code(2).contains("not a node"));

    let evicted = authority.chancery(&["node", "evict", "node/a", "--note", "moved", "--json"]).json();
    assert_eq!((&evicted["own"], &evicted["banned"]), (&1.into(), &false.into()));
    enroll("second");
    let banned = authority.chancery(&["node", "ban", "node/a", "--json"]).json();
    assert_eq!((&banned["own"], &banned["workloads"]), (&1.into(), &0.into()));
    assert_eq!(authority.chancery(&["node", "list", "--state", "held", "--json"]).json()[0]["state"], "held");
    let again = authority.chancery(&["node", "ban", "node/a", "--json"]).json();
    assert_eq!(again["own"], 0);
    authority.chancery(&["token", "create", "--identity", "node/a"]).code(3);
    authority.chancery(&["identity", "release", "node/a"]).success();
    enroll("third");
}

#[test]
fn a_root_on_another_machine_signs_in_two_steps() {
    let mut authority = Authority::init(&["--issuer-csr"]);
    let offline = tempfile::tempdir().unwrap();
    std::fs::write(offline.path().join("passphrase"), "correct horse battery\n").unwrap();
    let secret = ["--passphrase-file", "passphrase"];
    let create = ["root", "create", "--root-dir", "root", "--trust-domain", "example.org", "--json"];
    let root = run(offline.path(), &[&create[..], &secret].concat()).json();
    let request = authority.path("chancery/issuer.csr");
    let sign = ["root", "sign", text(&request), "--root-dir", "root", "--out", "issuer.crt"];
    let wrong = authority.path("wrong");
    std::fs::write(&wrong, "not it\n").unwrap();
    run(offline.path(), &[&sign[..], &["--passphrase-file", text(&wrong)]].concat()).code(1);
    run(offline.path(), &[&sign[..], &secret].concat()).success();
    let (issuer, certificate) = (offline.path().join("issuer.crt"), offline.path().join("root/root.crt"));
    let import = ["init", "--import", text(&issuer), "--root-certificate", text(&certificate), "--json"];
    let made = authority.chancery(&import).json();
    assert_eq!(made["root_fingerprint"], root["fingerprint"]);
    authority.serve();
    let shown = run(offline.path(), &["root", "show", "--root-dir", "root", "--json"]).json();
    assert_eq!(shown["fingerprint"], root["fingerprint"]);
}

#[test]
fn the_shipped_policy_passes_the_cases_that_ship_with_it() {
    let authority = Authority::init(&[]);
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ca-config/policy/tests");
    let files = [cases.join("issue.toml"), cases.join("operators.toml")];
    authority.chancery(&["policy", "test", text(&files[0]), text(&files[1])]).success();
    let wrong = authority.path("wrong.toml");
    let case = "[[case]]\nname = \"strangers administer\"\ncall.action = \"token.create\"\n\
                expect = { outcome = \"grant\" }\n";
    std::fs::write(&wrong, case).unwrap();
    let failed = authority.chancery(&["policy", "test", text(&wrong)]).code(4);
    assert!(failed.contains("1 of 1 cases failed"), "{failed}");
}
