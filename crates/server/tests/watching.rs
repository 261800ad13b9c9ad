//! Dashboards and alerts speak of what the server exposes, and the alerts fire when they should.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    dead_code,
    reason = "tests and what they share"
)]

mod running;
#[path = "../../ledger/tests/server/mod.rs"]
mod server;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use chancery_server::bootstrap::InitPlan;
use chancery_server::config::RawPostgres;
use running::{Place, Running, plan, published, skipped};
use server::Server;

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(name)
}

/// Every word of a text that could be one of our metrics.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("chancery_") || word.starts_with("process_")).collect()
}

/// The names of the samples that a page's declared metrics have.
fn exposed(page: &str) -> BTreeSet<String> {
    let declared = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let samples = declared.flat_map(|(name, kind)| match kind {
        "counter" => vec![format!("{name}_total")],
        "histogram" => ["bucket", "sum", "count"].iter().map(|end| format!("{name}_{end}")).collect(),
        _ => vec![name.to_owned()],
    });
    samples.collect()
}

#[tokio::test]
async fn every_metric_of_dashboards_and_alerts_is_exposed() {
    all_are_exposed_by(Running::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_on_a_database_exposes_the_same() {
    let Some(database) = Server::find() else { return };
    let settings = RawPostgres { schema: server::schema(), ..RawPostgres::default() };
    let plan = InitPlan { database: Some((database.address().to_owned(), settings)), ..plan() };
    let place = Place::with(plan, |_| {}).await;
    let server = place.serve().await.unwrap();
    all_are_exposed_by(Running { place, server }).await;
}

async fn all_are_exposed_by(running: Running) {
    published(&running.server).await;
    let page = loop {
        let page = String::from_utf8(running.admin().metrics().await.unwrap().to_vec()).unwrap();
        // The first exact set is made in the first moments, and the first request is counted when it was answered.
        let mut awaited =
            vec!["chancery_status_set_age_seconds".to_owned(), "chancery_http_request_seconds".to_owned()];
        for work in ["crl-full", "crl-parts", "rotation", "status-set"] {
            awaited.push(format!("chancery_lease_held{{work=\"{work}\"}} 1"));
        }
        if awaited.iter().all(|words| page.contains(words)) {
            break page;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let mut exposed = exposed(&page);
    // Stands on the page from the first refused connection on: see the tests of the listener.
    exposed.insert("chancery_connections_refused_total".to_owned());
    for file in ["grafana/chancery.json", "prometheus/chancery.rules.yml", "prometheus/chancery.test.yml"] {
        let text = std::fs::read_to_string(packaging(file)).unwrap();
        let used = metrics_in(&text);
        assert!(used.len() > 3, "{file} speaks of {used:?}");
        for name in used {
            assert!(exposed.contains(name), "{file} speaks of {name}, which is not among {exposed:?}");
        }
    }
    let dashboard = std::fs::read_to_string(packaging("grafana/chancery.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
    // What an operator has to see of it stands there.
    let shown = dashboard.to_string();
    for name in [
        "chancery_agent_streams",
        "chancery_certificates_tidied_total",
        "chancery_feed_followers",
        "chancery_lease_held",
        "chancery_rotation_trouble",
        "chancery_status_behind_entries",
        "chancery_trace_spans_total",
    ] {
        assert!(shown.contains(name), "{name} is on no panel");
    }
}

#[test]
fn alerts_are_what_prometheus_takes_and_fire_when_they_should() {
    for arguments in [["check", "rules", "chancery.rules.yml"], ["test", "rules", "chancery.test.yml"]] {
        let mut command = Command::new("promtool");
        let Ok(output) = command.args(arguments).current_dir(packaging("prometheus")).output() else {
            return skipped("alerts", "promtool (Debian: prometheus) is not installed");
        };
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}
