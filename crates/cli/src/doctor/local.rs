//! What lies on the disk: permissions, keys, room, and whether the clock is kept.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::finding::Findings;
use crate::authority_side::HealthRecord;

/// Room below which the next journal segments may not fit.
const LITTLE: u64 = 1 << 30;
/// Room below which the next one does not.
const NONE: u64 = 128 << 20;

pub(super) fn look(record: &HealthRecord, findings: &mut Findings) {
    permissions(record, findings);
    custody(record, findings);
    room(&record.ledger, findings);
    clock(findings);
}

/// Secrets are their owner's alone, and nobody else can put other files in their place.
fn permissions(record: &HealthRecord, findings: &mut Findings) {
    let advice = "give it to the server's user alone: `chmod 600` a file, `chmod 700` a directory";
    let mut wrong = 0;
    for path in secrets(record) {
        let Ok(found) = fs::metadata(&path) else {
            let advice = "put it back, from a backup that was made with --with-keys, or name the right path in chancery.toml";
            findings.bad("permissions", format!("{} cannot be looked at", path.display()), advice);
            wrong += 1;
            continue;
        };
        if found.mode() & 0o077 != 0 {
            let mode = found.mode() & 0o777;
            findings.bad(
                "permissions",
                format!("{} is open to others (mode {mode:o})", path.display()),
                advice,
            );
            wrong += 1;
        }
    }
    for path in [&record.directory, &record.ledger, &record.profiles, &record.policy] {
        match fs::metadata(path) {
            Ok(found) if found.mode() & 0o022 != 0 => {
                let text = format!("others can change what is in {}", path.display());
                findings.bad(
                    "permissions",
                    text,
                    "`chmod go-w` it: who writes the policy decides who gets certificates",
                );
                wrong += 1;
            }
            Ok(_) => {}
            Err(error) => {
                findings.bad(
                    "permissions",
                    format!("{}: {error}", path.display()),
                    "put it back, or mend chancery.toml",
                );
                wrong += 1;
            }
        }
    }
    if wrong == 0 {
        findings.good("permissions", "secrets are their owner's alone");
    }
}

/// Keys, passphrases, passwords, credentials, and the operator's key where it lies here.
fn secrets(record: &HealthRecord) -> Vec<PathBuf> {
    let mut secrets: Vec<PathBuf> = record.key_files.iter().chain(&record.secret_files).cloned().collect();
    let operators = fs::read_dir(record.directory.join("operators")).into_iter().flatten().flatten();
    let keys =
        operators.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "key"));
    secrets.extend(keys);
    secrets
}

fn custody(record: &HealthRecord, findings: &mut Findings) {
    if record.root_readable {
        findings.bad(
            "keys",
            "the root's key can be read from here: whoever takes this machine takes the root",
            "move its directory to offline storage; the certificate stays",
        );
    }
    if record.tokens > 0 {
        findings
            .good("keys", format!("{} keys in tokens, {} in files", record.tokens, record.key_files.len()));
        return;
    }
    match &record.passphrase_file {
        None => findings.warn(
            "keys",
            "the keys lie in files without a passphrase",
            "keep them in a token (PKCS#11), or encrypt them: [keys] passphrase_file",
        ),
        Some(file) if same_disk(file, &record.key_files) => findings.warn(
            "keys",
            format!("{} lies on the disk of the keys that it opens", file.display()),
            "have it come from elsewhere, such as systemd's LoadCredential or a file system in memory",
        ),
        Some(_) => findings.good("keys", format!("{} encrypted files", record.key_files.len())),
    }
}

fn same_disk(file: &Path, keys: &[PathBuf]) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let of_file = device(file);
    of_file.is_some() && keys.iter().any(|key| device(key) == of_file)
}

fn room(ledger: &Path, findings: &mut Findings) {
    let advice =
        "make room: when it is gone nothing is issued; `chancery ledger archive --to DIR` moves old segments";
    match rustix::fs::statvfs(ledger) {
        Err(error) => findings.bad("disk", format!("{}: {error}", ledger.display()), "is the disk mounted?"),
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("{} MiB are free for {}", free >> 20, ledger.display());
            match free {
                0..NONE => findings.bad("disk", text, advice),
                NONE..LITTLE => findings.warn("disk", text, advice),
                _ => findings.good("disk", text),
            }
        }
    }
}

/// Whether somebody keeps the clock right, as far as systemd knows.
fn clock(findings: &mut Findings) {
    let mut command = Command::new("timedatectl");
    let asked = command.args(["show", "-p", "NTPSynchronized", "--value"]).stderr(Stdio::null()).output();
    let answer = asked.ok().filter(|output| output.status.success());
    match answer.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).as_deref() {
        Some("yes") => findings.good("clock", "it is synchronized"),
        Some("no") => findings.warn(
            "clock",
            "it is not synchronized",
            "run chrony or systemd-timesyncd: certificates begin and end by it",
        ),
        _ => findings.unknown("clock", "nobody here says whether it is synchronized"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::finding::State;
    use super::*;

    fn record(directory: &Path) -> HealthRecord {
        let path = |name: &str| directory.join(name);
        for name in ["ledger", "profiles", "policy"] {
            fs::create_dir(path(name)).unwrap();
        }
        for name in ["issuer.key", "passphrase"] {
            fs::write(path(name), "secret").unwrap();
            fs::set_permissions(path(name), PermissionsExt::from_mode(0o600)).unwrap();
        }
        HealthRecord {
            directory: directory.to_owned(),
            ledger: path("ledger"),
            profiles: path("profiles"),
            policy: path("policy"),
            root_certificate: path("root.crt"),
            key_files: vec![path("issuer.key")],
            tokens: 0,
            passphrase_file: Some(path("passphrase")),
            secret_files: vec![path("passphrase")],
            root_readable: false,
            status_url: "http://localhost:1".to_owned(),
            set_refresh: 60,
        }
    }

    fn states(findings: &Findings, check: &str) -> Vec<State> {
        findings.0.iter().filter(|finding| finding.check == check).map(|finding| finding.state).collect()
    }

    #[test]
    fn open_secrets_and_writable_rules_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let record = record(directory.path());
        let mut findings = Findings::default();
        permissions(&record, &mut findings);
        assert_eq!(states(&findings, "permissions"), [State::Good]);

        fs::set_permissions(&record.key_files[0], PermissionsExt::from_mode(0o640)).unwrap();
        fs::set_permissions(&record.policy, PermissionsExt::from_mode(0o777)).unwrap();
        fs::remove_file(record.passphrase_file.as_ref().unwrap()).unwrap();
        let mut findings = Findings::default();
        permissions(&record, &mut findings);
        assert_eq!(states(&findings, "permissions"), [State::Bad, State::Bad, State::Bad]);
        assert!(findings.0.iter().all(|finding| !finding.advice.is_empty()), "{findings:?}");
    }

    #[test]
    fn a_root_within_reach_and_a_passphrase_beside_its_keys_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let record = HealthRecord { root_readable: true, ..record(directory.path()) };
        let mut findings = Findings::default();
        custody(&record, &mut findings);
        assert_eq!(states(&findings, "keys"), [State::Bad, State::Warning]);
        let mut findings = Findings::default();
        custody(&HealthRecord { root_readable: false, tokens: 1, ..record }, &mut findings);
        assert_eq!(states(&findings, "keys"), [State::Good]);
    }
}
