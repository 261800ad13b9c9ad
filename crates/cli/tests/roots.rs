//! Another root, as operators bring it: real processes, the commands that they type.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod process;

use process::{Authority, run};

#[test]
fn an_operator_makes_a_root_brings_it_and_takes_it_back() {
    let secrets = tempfile::tempdir().unwrap();
    let passphrase = secrets.path().join("passphrase");
    std::fs::write(&passphrase, "a long passphrase of the root\n").unwrap();
    let passphrase = passphrase.to_str().unwrap();
    let mut authority = Authority::init(&["--passphrase-file", passphrase, "--spares", "0"]);
    authority.serve();

    let rotate = [
        "root",
        "rotate",
        "--root-dir",
        "chancery-root",
        "--passphrase-file",
        passphrase,
        "--new-root-dir",
        "root-2",
        "--new-passphrase-file",
        passphrase,
        "--out",
        "root-2.pem",
        "--spares",
        "2",
        "--json",
    ];
    let made = authority.chancery(&rotate).json();
    assert_eq!(made["issuers"], 2, "the configuration is at hand: {made}");
    let again = authority.chancery(&rotate).code(1);
    assert!(again.contains("root.key"), "no root is made over another: {again}");
    // A root for which nobody vouches, and one that somebody else vouches for.
    let alone = authority.path("root-2/root.crt");
    let refused = authority.chancery(&["ca", "root", "add", alone.to_str().unwrap()]).code(3);
    assert!(refused.contains("vouches") && refused.contains("chancery root rotate"), "{refused}");
    authority.chancery(&["ca", "root", "add", "root-2.pem", "--dry-run"]).success();
    let told =
        authority.chancery(&["ca", "root", "add", "root-2.pem", "--note", "the first is old"]).success();
    assert!(told.contains("is published") && told.contains("may sign"), "{told}");

    let status = authority.chancery(&["ca", "status", "--json"]).json();
    assert_eq!(
        (&status["roots"][0]["phase"], &status["roots"][1]["phase"]),
        (&"active".into(), &"published".into())
    );
    assert_eq!(status["roots"][1]["fingerprint"], made["fingerprint"]);
    assert_eq!(status["roots"][1]["issuers"].as_array().unwrap().len(), 2);
    // Somebody elsewhere who has only the first root fetches both.
    let first = authority.path("chancery/certs/root.crt");
    let fetch = ["bundle", "--server", &authority.url, "--trust-bundle", first.to_str().unwrap()];
    let roots = run(secrets.path(), &fetch).success();
    assert_eq!(roots.matches("BEGIN CERTIFICATE").count(), 2);
    let audit = |name: &str| {
        authority.chancery(&["audit", "export", "--out", name]).success();
        let key = authority.chancery(&["log", "key"]).success();
        authority.chancery(&["audit", "verify", name, "--log-key", key.trim()]).success();
    };
    audit("with-root.jsonl");

    let back = authority.chancery(&["ca", "rollback", "root"]).success();
    assert!(back.contains("out of the bundle"), "{back}");
    assert_eq!(authority.chancery(&["bundle"]).success().matches("BEGIN CERTIFICATE").count(), 1);
    audit("without-root.jsonl");
    authority.stop();
    // What was brought, and taken back, is known after a start too.
    authority.serve();
    let status = authority.chancery(&["ca", "status"]).success();
    assert!(status.contains("withdrawn"), "{status}");
}
