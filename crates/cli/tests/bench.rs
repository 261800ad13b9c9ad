//! `chancery bench`, run as a user runs it: alone, and of replicas on a database.

#![allow(unreachable_pub, dead_code, reason = "what tests share")]
#![allow(clippy::print_stdout, reason = "what is missing must be noticed")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod process;
#[path = "../../ledger/tests/server/mod.rs"]
mod server;

use process::run;
use serde_json::Value;
use server::Server;

/// What a run of one second measured, and that it cleaned up.
fn bench(arguments: &[&str]) -> Value {
    let place = tempfile::tempdir().unwrap();
    let always = ["bench", "--seconds", "1", "--json"];
    let report = run(place.path(), &[&always, arguments].concat()).json();
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "the bench cleans up");
    report
}

#[test]
fn measures_a_server_beside_the_floor() {
    let report = bench(&["--clients", "2", "--only", "lone"]);
    assert!(report["floor"]["verify_us"].as_f64().unwrap() > 0.0);
    let row = &report["rows"][0];
    assert!(row["units"].as_u64().unwrap() > 0, "{row}");
    assert!(row["syncs"].as_u64().unwrap() > 0, "{row}");
    assert!(row["times_floor"].as_f64().unwrap() > 1.0, "{row}");
}

#[test]
fn measures_one_replica_and_two() {
    let Some(database) = Server::find() else { return };
    let schema = server::schema();
    let of_database = ["--database", database.address(), "--database-schema", &schema];
    let parts = ["--only", "replicas", "--replicas", "2", "--clients", "2"];
    let report = bench(&[&parts[..], &of_database].concat());
    let growth = report["growth"].as_array().unwrap();
    assert_eq!(growth.len(), 2, "{report}");
    for (found, replicas) in growth.iter().zip(1..) {
        assert_eq!(found["replicas"], replicas);
        assert!(found["per_second"].as_f64().unwrap() > 0.0, "{found}");
        assert!(found["core_share"].as_f64().unwrap() > 0.0, "{found}");
    }
}

#[test]
fn replicas_want_a_database_and_a_database_wants_to_be_measured() {
    let place = tempfile::tempdir().unwrap();
    let database = ["--database", "postgres://chancery@127.0.0.1:1/postgres"];
    for (parts, database, hint) in [
        (&["replicas"][..], &[][..], "name one with --database"),
        (&["replicas", "in-process"], &database, "not both"),
        (&["ocsp"], &database, "--only in-process or --only replicas"),
    ] {
        let only: Vec<&str> = parts.iter().flat_map(|part| ["--only", part]).collect();
        let said = run(place.path(), &[&["bench"], &only[..], database].concat()).code(2);
        assert!(said.contains(hint), "{said}");
    }
}
