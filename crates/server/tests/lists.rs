//! Revocation lists over the life of an authority: divided anew, started again, in trouble.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod running;

use std::path::Path;
use std::time::Duration;

use chancery_api::HealthState;
use chancery_revoke::Selector;
use chancery_server::Server;
use chancery_types::{RevocationReason, SerialNumber};
use chancery_x509::crl::CrlView;
use chancery_x509::{Certificate, read_certificates};

use running::{Held, Running, published};

fn certificate(held: &Held) -> Certificate {
    let der = read_certificates(held.response.certificate.as_bytes(), 1).unwrap().remove(0);
    Certificate::from_der(&der).unwrap()
}

fn list_of(held: &Held) -> String {
    certificate(held).tbs().crl_urls().next().unwrap().to_owned()
}

fn serial(held: &Held) -> SerialNumber {
    certificate(held).serial_number().unwrap()
}

async fn revoke(server: &Server, held: &Held) {
    let revoker = server.site().authority.revoker();
    let reason = RevocationReason::KeyCompromise;
    revoker.revoke(&Selector::Serial(serial(held)), reason, "test", "").await.unwrap();
}

/// The list that a relying party gets at a URL.
async fn fetch(server: &Server, url: &str) -> Vec<u8> {
    let path = url.strip_prefix("http://").unwrap().split_once('/').unwrap().1;
    let address = server.status_address();
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--fail", &format!("http://{address}/{path}")])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{url}");
    output.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dividing_anew_strands_no_certificate() {
    let Running { place, server } = Running::start().await;
    let running = Running { place, server };
    let before = running.enroll("before").await;
    assert!(list_of(&before).contains("/crl/1/16/"), "{}", list_of(&before));
    published(&running.server).await;
    let first = fetch(&running.server, &list_of(&before)).await;
    running.server.stop().await;

    running.place.edit(|config| config.status.crl_shards = 3);
    let running = Running { server: running.place.serve().await.unwrap(), place: running.place };
    let after = running.enroll("after").await;
    assert!(list_of(&after).contains("/crl/1/3/"), "{}", list_of(&after));
    for held in [&before, &after] {
        revoke(&running.server, held).await;
    }
    published(&running.server).await;
    for held in [&before, &after] {
        let url = list_of(held);
        let der = fetch(&running.server, &url).await;
        let list = CrlView::from_der(&der).unwrap();
        assert_eq!(list.distribution_points().collect::<Vec<_>>(), [url.as_str()]);
        assert!(list.entry(serial(held).as_bytes()).is_some(), "{url}");
    }
    let second = fetch(&running.server, &list_of(&before)).await;
    let number = |der: &[u8]| CrlView::from_der(der).unwrap().number_u64().unwrap();
    assert!(number(&second) > number(&first));
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_that_moved_is_named_beside_the_one_before() {
    let Running { place, server } = Running::start().await;
    let running = Running { place, server };
    let before = running.enroll("before").await;
    running.server.stop().await;
    running.place.edit(|config| config.status.url = Some("http://status.example.org".into()));
    let running = Running { server: running.place.serve().await.unwrap(), place: running.place };
    published(&running.server).await;
    let der = fetch(&running.server, &list_of(&before)).await;
    let list = CrlView::from_der(&der).unwrap();
    let points: Vec<&str> = list.distribution_points().collect();
    assert_eq!(points.len(), 2);
    assert!(points[0].starts_with("http://status.example.org/crl/1/16/"));
    assert_eq!(points[1], list_of(&before));
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_lists_on_which_something_changed_are_made_anew() {
    let running = Running::start().await;
    let held = running.enroll("web").await;
    published(&running.server).await;
    let crl = &running.server.site().crl;
    let hashes = || crl.places().map(|place| place.current().unwrap().hash).collect::<Vec<_>>();
    let before = hashes();
    revoke(&running.server, &held).await;
    published(&running.server).await;
    let after = hashes();
    let changed = crl.places().zip(before.iter().zip(&after)).filter(|(_, (before, after))| before != after);
    let changed: Vec<_> = changed.map(|(place, _)| place.clone()).collect();
    assert_eq!(changed.len(), 2, "the full list and that of its part");
    assert!(changed.iter().all(|place| place.covers(serial(&held))));

    // Started again, it finds that nothing has to be done.
    running.server.stop().await;
    let server = running.place.serve().await.unwrap();
    published(&server).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let crl = &server.site().crl;
    assert_eq!(crl.places().map(|place| place.current().unwrap().hash).collect::<Vec<_>>(), after);
    assert_eq!(crl.published(), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_cannot_be_replaced_stays_and_is_tried_again() {
    let running = Running::start().await;
    let held = running.enroll("web").await;
    published(&running.server).await;
    let before = fetch(&running.server, &list_of(&held)).await;
    let directory = running.place.file("crl/1/16");
    forbid(&directory, true);
    revoke(&running.server, &held).await;
    let crl = &running.server.site().crl;
    for _ in 0..500 {
        if crl.failures() > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(crl.failures() > 0);
    assert_eq!(fetch(&running.server, &list_of(&held)).await, before);
    let health = running.server.site().chassis.health().ready().unwrap();
    let check = health.checks.iter().find(|check| check.name == "crl").unwrap();
    assert_eq!(check.state, HealthState::Degraded, "{}", check.detail);

    forbid(&directory, false);
    published(&running.server).await;
    let der = fetch(&running.server, &list_of(&held)).await;
    assert!(CrlView::from_der(&der).unwrap().entry(serial(&held).as_bytes()).is_some());
    running.server.stop().await;
}

/// Puts a directory where new lists would be written, or takes it away.
fn forbid(directory: &Path, forbidden: bool) {
    for number in 0..16 {
        let path = directory.join(format!("{number}.new"));
        let _ = if forbidden { std::fs::create_dir(path) } else { std::fs::remove_dir(path) };
    }
}
