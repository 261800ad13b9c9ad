//! A database that comes back older, and the ways out: what it lacks is brought back from a backup, into it, into another
//! schema or into a directory; or the log is over.

use std::path::Path;

use super::cluster::{Cluster, REPLICAS};
use super::place::settle;
use crate::age::age_key;
use crate::process::{Ran, run};

/// Runs a command as a replica's operator.
fn of_replica(cluster: &Cluster, which: usize, arguments: &[&str]) -> Ran {
    let config = cluster.path(which).join("chancery.toml");
    run(cluster.beside(), &[arguments, &["--config", config.to_str().unwrap()]].concat())
}

/// Enrols and revokes at once; the serial.
fn revoked(cluster: &Cluster, name: &str) -> String {
    let token = of_replica(cluster, 0, &["token", "create", "--identity", "web"]).success();
    std::fs::write(cluster.beside().join("token"), token).unwrap();
    let server = format!("https://localhost:{}", cluster.addresses[1].port());
    let roots = ["--server", &server, "--trust-bundle", "replica-0/certs/root.crt"];
    let enroll = ["enroll", "--token-file", "token", "--out", name, "--json"];
    let enrolled = run(cluster.beside(), &[&enroll[..], &roots].concat()).json();
    let serial = enrolled["serial"].as_str().unwrap().to_owned();
    of_replica(cluster, 0, &["revoke", "--serial", &serial, "--reason", "key-compromise"]).success();
    serial
}

fn restore(here: &Path, backup: &str, into: &str, more: &[&str]) -> Ran {
    let known = [
        "--checkpoint",
        "replica-1/checkpoints/checkpoint",
        "--checkpoint",
        "replica-2/checkpoints/checkpoint",
    ];
    let restore = ["restore", backup, "-i", "backup.key", "--into", into];
    run(here, &[&restore[..], &known, more].concat())
}

pub(crate) fn what_an_older_database_lacks_comes_from_a_backup(cluster: &mut Cluster) {
    let here = cluster.beside().to_owned();
    let Some(recipient) = age_key(&here, "backup.key") else { return };
    let back_up = |cluster: &Cluster, out: &str| {
        let backup = ["backup", "--to", &recipient, "--with-keys", "--out", out, "--json"];
        of_replica(cluster, 0, &backup).json()["backup"].clone()
    };
    // Backups of both kinds while all replicas work; then something is revoked.
    revoked(cluster, "before");
    cluster.database.back_up();
    let early = back_up(cluster, "early.age");
    assert_eq!(early["revocations"], 1);
    let serial = revoked(cluster, "after");
    // Every replica dies; what is left is the database.
    std::thread::sleep(std::time::Duration::from_secs(1));
    (0..REPLICAS).for_each(|which| cluster.kill(which));
    let late = back_up(cluster, "late.age");
    assert_eq!(late["revocations"], 2);
    cluster.database.restore();
    for which in 0..REPLICAS {
        let refused = cluster.refuses_to_serve(which);
        assert!(refused.contains("two ways out") && refused.contains("chancery restore"), "{refused}");
    }
    let older = of_replica(cluster, 0, &["backup", "--to", &recipient, "--out", "older.age"]).code(1);
    assert!(older.contains("two ways out"), "{older}");

    // A backup from before the revocation is no way out, wherever it should go, and leaves nothing.
    let address = cluster.database.address().to_owned();
    for more in [&["--database", address.as_str()][..], &[]] {
        let refused = restore(&here, "early.age", "again", more).code(4);
        assert!(refused.contains("Two ways out") && refused.contains("--log"), "{refused}");
        assert!(!here.join("again").exists());
    }
    // One that has everything fills what the database lacks, and a fresh schema, and a directory.
    let fresh = ["--database", &address, "--database-schema", "fresh"];
    for (into, more) in [("again", &["--database", address.as_str()][..]), ("fresh", &fresh), ("alone", &[])]
    {
        let restored = restore(&here, "late.age", into, &[more, &["--json"]].concat()).json();
        assert_eq!(
            (&restored["restored"]["entries"], &restored["restored"]["root"]),
            (&late["entries"], &late["root"])
        );
        let file = here.join(into).join("chancery.toml");
        settle(&file, restored["restored"]["settings"].as_str().unwrap());
        let check = ["ledger", "check", "--json", "--config", file.to_str().unwrap()];
        let found = run(&here, &check).json();
        assert_eq!((&found["entries"], &found["root"]), (&late["entries"], &late["root"]), "{into}");
    }
    // The database that was filled is the one that the replicas go on with; the revocation stands.
    (0..REPLICAS).for_each(|which| cluster.spawn(which));
    tokio::runtime::Handle::current().block_on(cluster.each_serves());
    for which in 0..REPLICAS {
        let status = of_replica(cluster, which, &["certificate", "show", &serial, "--json"]).json();
        assert_eq!(status["certificate"]["status"], "revoked");
    }
    // From here on the database has more than the backup: nothing is laid over it.
    let grown =
        ["restore", "late.age", "-i", "backup.key", "--into", "over", "--dangerous-without-checkpoint"];
    let refused = run(&here, &[&grown[..], &["--database", &address]].concat()).code(1);
    assert!(refused.contains("goes on where the log that is restored ends"), "{refused}");
    tokio::runtime::Handle::current().block_on(cluster.each_serves());
    // The other way out: a new log beside the old one.
    let init = ["init", "--yes", "--trust-domain", "example.org", "--dir", "new", "--root-dir", "new-root"];
    run(&here, &[&init[..], &["--database", &address, "--database-schema", "anew"]].concat()).success();
}
