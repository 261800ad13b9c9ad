//! A backup is made while the authority issues, and what comes of it goes on where the published log ends or not at all.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]
#![expect(clippy::print_stdout, reason = "what was not tested is said")]

#[path = "process/age.rs"]
mod age;
mod process;
#[path = "../../ledger/tests/server/mod.rs"]
#[allow(unreachable_pub, reason = "what tests share")]
mod server;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use age::age_key;
use process::{Authority, Ran, command, run};
use server::Server;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn enroll(authority: &Authority, name: &str) {
    authority.chancery(&["identity", "create", name, "--owner", "ada"]).success();
    let token = authority.chancery(&["token", "create", "--identity", name]).success();
    std::fs::write(authority.path(&format!("{name}.token")), token).unwrap();
    let file = format!("{name}.token");
    let url = authority.url.as_str();
    authority.chancery(&["enroll", "--server", url, "--token-file", &file, "--out", name]).success();
}

fn restore(directory: &Path, into: &str, more: &[&str]) -> Ran {
    run(directory, &[&["restore", "b.age", "-i", "backup.key", "--into", into][..], more].concat())
}

#[test]
fn a_backup_of_a_busy_authority_goes_on_elsewhere_and_the_auditor_agrees() {
    let mut authority = Authority::init(&[]);
    let Some(recipient) = age_key(&authority.path(""), "backup.key") else { return };
    authority.serve();
    enroll(&authority, "web");
    let busy = AtomicBool::new(true);
    let made = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while busy.load(Ordering::Relaxed) {
                number += 1;
                enroll(&authority, &format!("busy-{number}"));
            }
        });
        let backups = (0..4).map(|_| {
            let backup = ["backup", "--to", &recipient, "--with-keys", "--out", "b.age", "--json"];
            authority.chancery(&backup).json()
        });
        let backups: Vec<_> = backups.collect();
        busy.store(false, Ordering::Relaxed);
        backups
    });
    let entries: Vec<u64> = made.iter().map(|made| made["backup"]["entries"].as_u64().unwrap()).collect();
    assert!(entries.is_sorted() && entries[0] < entries[3], "it works meanwhile: {entries:?}");
    authority.chancery(&["log", "checkpoint", "--out", "late"]).success();
    authority.chancery(&["revoke", "--identity", "web", "--reason", "key-compromise"]).success();
    knows_of_the_revocation(&authority, made[3]["backup"]["entries"].as_u64().unwrap());
    let log_key = authority.chancery(&["log", "key"]).success();
    authority.chancery(&["log", "checkpoint", "--out", "after"]).success();
    authority.chancery(&["audit", "export", "--out", "export.jsonl"]).success();
    let here = authority.path("");

    opens_with_age(&here, log_key.trim());
    refuses_to_go_back(&authority);
    let grown = restore(&here, "grown/ca", &["--checkpoint", "after"]).code(1);
    assert!(grown.contains("grown"), "its parent is missing: {grown}");

    // With what is missing from the export it goes on, and the revocation with it.
    let checkpoint = ["--checkpoint", "after", "--log", "export.jsonl", "--json"];
    let restored = restore(&here, "again", &checkpoint).json();
    assert!(restored["restored"]["added"].as_u64().unwrap() > 0, "{restored}");
    assert_eq!(restored["restored"]["revocations"], 1);
    authority.stop();
    let moved = here.join("chancery");
    std::fs::rename(&moved, here.join("lost")).unwrap();
    std::fs::rename(here.join("again"), &moved).unwrap();
    authority.chancery(&["ledger", "rebuild"]).success();
    authority.chancery(&["ledger", "check"]).success();
    authority.serve();
    let verify = ["audit", "verify", &authority.url, "--log-key", log_key.trim(), "--checkpoint", "after"];
    authority.chancery(&verify).success();
    let serial = authority.chancery(&["certificate", "list", "--identity", "web", "--json"]).json();
    let serial = serial[0]["serial"].as_str().unwrap().to_owned();
    assert_eq!(authority.chancery(&["status", &serial, "--json"]).json()["status"], "revoked");
    enroll(&authority, "new");
}

/// Waits until the exact set speaks of more than these entries: it is published a moment after a change.
fn knows_of_the_revocation(authority: &Authority, entries: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let set = authority.chancery(&["status", "set", "--json"]).json();
        if set["sequence"].as_u64().unwrap() > entries && set["not_good"].as_u64().unwrap() > 0 {
            return;
        }
        assert!(Instant::now() < deadline, "no set speaks of the revocation: {set}");
    }
}

/// The program `age` and `tar` open it, and the log in it verifies as it lies.
fn opens_with_age(here: &Path, log_key: &str) {
    let script = "mkdir opened && age -d -i backup.key b.age | tar -x -C opened";
    let opened = Command::new("sh").args(["-c", script]).current_dir(here).status().unwrap();
    assert!(opened.success());
    run(here, &["audit", "verify", "opened/log", "--log-key", log_key]).success();
    assert!(here.join("opened/authority/keys").is_dir(), "--with-keys");
    assert!(!here.join("opened/authority/run").exists());
}

fn refuses_to_go_back(authority: &Authority) {
    let here = authority.path("");
    let unknown = restore(&here, "again", &[]).code(1);
    assert!(unknown.contains("--checkpoint"), "{unknown}");
    for more in [["--checkpoint", "after"], ["--status-set", "chancery/status/exact.set"]] {
        let refused = restore(&here, "again", &more).code(4);
        assert!(refused.contains("Two ways out") && refused.contains("--log"), "{refused}");
    }
    let https = ["--checkpoint", &authority.url, "--trust-bundle", "chancery/certs/root.crt"];
    restore(&here, "again", &https).code(4);
    // An earlier checkpoint proves nothing against it, and one of another log everything.
    restore(&here, "known", &["--checkpoint", "late", "--log", "export.jsonl"]).success();
    let other = Authority::init(&[]);
    let foreign = other.path("chancery/ledger/checkpoint");
    let refused = restore(&here, "again", &["--checkpoint", text(&foreign)]).code(4);
    assert!(refused.contains("not of this log"), "{refused}");
    restore(&here, "dangerous", &["--dangerous-without-checkpoint"]).success();
    let there = restore(&here, "dangerous", &["--dangerous-without-checkpoint"]).code(1);
    assert!(there.contains("exists already"), "{there}");
    assert!(!here.join("again").exists() && !here.join("again.restoring").exists(), "nothing is left");
}

#[test]
fn a_backup_that_is_damaged_or_somebody_elses_leaves_nothing() {
    let authority = Authority::init(&[]);
    let here = authority.path("");
    let (Some(recipient), Some(_)) = (age_key(&here, "backup.key"), age_key(&here, "other.key")) else {
        return;
    };
    let backup = ["backup", "--to", &recipient, "--out", "b.age", "--json"];
    let made = authority.chancery(&backup).json();
    assert!(made["backup"]["entries"].as_u64().unwrap() > 0, "no server runs, and it is made all the same");
    let left_out = made["backup"]["left_out"].to_string();
    assert!(left_out.contains("--with-keys"), "{left_out}");
    // No root's key, wherever somebody has made one; keys or not.
    std::fs::create_dir(authority.path("chancery/root-2")).unwrap();
    std::fs::copy(here.join("chancery-root/root.key"), authority.path("chancery/root-2/root.key")).unwrap();
    let with_keys = ["backup", "--to", &recipient, "--with-keys", "--out", "keys.age", "--json"];
    let left_out = authority.chancery(&with_keys).json()["backup"]["left_out"].to_string();
    assert!(left_out.contains("root-2/root.key: a root's key never"), "{left_out}");

    let whole = std::fs::read(here.join("b.age")).unwrap();
    let known = ["--checkpoint", "chancery/ledger/checkpoint"];
    let other = ["restore", "b.age", "-i", "other.key", "--into", "again"];
    let refused = run(&here, &[&other[..], &known].concat()).code(1);
    assert!(refused.contains("another key"), "{refused}");
    for length in [whole.len() - 1, whole.len() / 2, 150, 0] {
        std::fs::write(here.join("b.age"), &whole[..length]).unwrap();
        restore(&here, "again", &known).code(1);
    }
    for at in [30, 100, 250, whole.len() / 3, whole.len() - 20] {
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        std::fs::write(here.join("b.age"), flipped).unwrap();
        restore(&here, "again", &known).code(1);
        assert!(!here.join("again").exists() && !here.join("again.restoring").exists(), "byte {at}");
    }
    std::fs::write(here.join("b.age"), &whole).unwrap();
    restore(&here, "again", &known).success();
    assert!(here.join("again/certs/root.crt").exists() && !here.join("again/keys").exists());

    authority.chancery(&["backup"]).code(2);
    let wrong = authority.chancery(&["backup", "--to", "age1nonsense"]).code(1);
    assert!(wrong.contains("no recipient"), "{wrong}");
}

#[test]
fn a_backup_without_keys_has_no_secret_wherever_its_file_lies() {
    let Some(database) = Server::find() else { return };
    let schema = server::schema();
    let authority = Authority::init(&["--database", database.address(), "--database-schema", &schema]);
    let here = authority.path("");
    let Some(recipient) = age_key(&here, "backup.key") else { return };
    let password = here.join("chancery/password");
    std::fs::write(&password, "nobody's\n").unwrap();
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
    let config = here.join("chancery/chancery.toml");
    let settings = std::fs::read_to_string(&config).unwrap();
    let named = settings.replace("[storage.postgres]", "[storage.postgres]\npassword_file = \"password\"");
    assert_ne!(named, settings);
    std::fs::write(&config, named).unwrap();
    let names = |keys: &[&str]| {
        let backup = ["backup", "--to", &recipient, "--out", "b.age"];
        authority.chancery(&[&backup, keys].concat()).success();
        let list = "age -d -i backup.key b.age | tar t";
        let listed = Command::new("sh").args(["-c", list]).current_dir(&here).output().unwrap();
        std::fs::remove_file(here.join("b.age")).unwrap();
        String::from_utf8(listed.stdout).unwrap()
    };
    let (without, with) = (names(&[]), names(&["--with-keys"]));
    assert!(without.contains("authority/chancery.toml\n"), "{without}");
    assert!(!without.contains("authority/password\n") && !without.contains("authority/keys/"), "{without}");
    assert!(with.contains("authority/password\n") && with.contains("authority/keys/"), "{with}");
}

#[test]
fn a_backup_to_a_full_disk_fails_and_leaves_nothing() {
    let authority = Authority::init(&[]);
    let here = authority.path("");
    let Some(recipient) = age_key(&here, "backup.key") else { return };
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let backup = ["backup", "--to", &recipient, "--out", "-"];
    let output = command(&here).args(backup).stdout(full).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("No space left"), "{errors}");
}
