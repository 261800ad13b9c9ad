//! Revocation lists over the life of an authority: divided anew, started again, in trouble.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod running;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chancery_api::{CertificateQuery, CertificateStatus, HealthState};
use chancery_client::{Client, RetryPolicy};
use chancery_ledger::CrlDivisionRecord;
use chancery_revoke::{CrlPublisher, Hand, Selector, StatusIssuer};
use chancery_server::authority::OnlineRoot;
use chancery_server::bootstrap::{RevokedIssuer, make_root_crl};
use chancery_server::config::RawConfig;
use chancery_server::{Prober, Server};
use chancery_types::{
    Clock, HumanDuration, IssuerEpoch, ManualClock, RevocationReason, SecretString, SerialNumber,
    SystemClock, SystemRandom,
};
use chancery_x509::crl::CrlView;
use chancery_x509::{Certificate, read_certificates};

use running::{Held, Running, published, skipped};

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
    revoker.revoke(&Selector::Serial(serial(held)).into(), reason, Hand::of("test", "")).await.unwrap();
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
    let running = Running::start().await;
    let before = running.enroll("before").await;
    assert!(list_of(&before).contains("/crl/1/16/"), "{}", list_of(&before));
    published(&running.server).await;
    let first = fetch(&running.server, &list_of(&before)).await;
    let running = running.again(|config| config.status.crl_shards = 3).await;
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
    let running = Running::start().await;
    let before = running.enroll("before").await;
    let moved = |config: &mut RawConfig| config.status.url = Some("http://status.example.org".into());
    let running = running.again(moved).await;
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
    let running = running.again(|_| {}).await;
    published(&running.server).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let crl = &running.server.site().crl;
    assert_eq!(crl.places().map(|place| place.current().unwrap().hash).collect::<Vec<_>>(), after);
    assert_eq!(crl.published(), 0);
    running.server.stop().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_prober_finds_what_relying_parties_would() {
    let running = Running::start().await;
    let held = running.enroll("web").await;
    published(&running.server).await;
    let site = running.server.site();
    let prober = |crl: &Arc<CrlPublisher>, clock: Arc<dyn Clock>| {
        Prober::new(Arc::clone(crl), Arc::clone(&site.board), clock).with_lag(Duration::from_millis(200))
    };
    let own = prober(&site.crl, Arc::new(SystemClock));
    let round = own.look().await;
    assert_eq!((round.good, round.troubles), (16, vec![]));

    let late = SystemClock.now() + Duration::from_secs(13 * 3600);
    let round = prober(&site.crl, Arc::new(ManualClock::at(late))).look().await;
    assert_eq!((round.good, round.troubles.len()), (0, 16));
    assert!(round.troubles[0].contains("more than half of its time is over"), "{}", round.troubles[0]);

    forbid(&running.place.file("crl/1/16"), true);
    revoke(&running.server, &held).await;
    for _ in 0..500 {
        if site.crl.failures() > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let round = own.look().await;
    assert_eq!((round.good, round.troubles.len()), (15, 1));
    assert!(round.troubles[0].contains("it differs in 1 lines"), "{}", round.troubles[0]);
    assert!(round.troubles[0].contains(&list_of(&held)));
    forbid(&running.place.file("crl/1/16"), false);
    published(&running.server).await;
    assert!(own.look().await.troubles.is_empty());

    let elsewhere = StatusIssuer {
        epoch: IssuerEpoch(1),
        certificate: site.crl.full(IssuerEpoch(1)).unwrap().issuer().certificate.clone(),
        signer: None,
        divisions: vec![CrlDivisionRecord {
            shards: 1,
            base: format!("http://{}", running::free_address()),
            index: 0,
        }],
    };
    let crl = Arc::new(CrlPublisher::new(
        Arc::clone(site.authority.ledger()),
        Arc::new(SystemClock),
        Arc::clone(&site.board),
        *site.crl.rules(),
        vec![elsewhere],
        &running.place.beside("elsewhere"),
    ));
    let round = prober(&crl, Arc::new(SystemClock)).look().await;
    assert!(round.troubles[0].contains("it cannot be fetched"), "{:?}", round.troubles);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_want_a_list_of_every_authority_get_them_in_one_file() {
    let running = Running::start().await;
    let held = running.enroll("web").await;
    published(&running.server).await;
    let (root, passphrase) = (running.place.beside("root"), SecretString::new("a long passphrase".into()));
    let (leaf, chain) = (running.place.beside("leaf.pem"), running.place.beside("chain.pem"));
    std::fs::write(&leaf, &held.response.certificate).unwrap();
    let issuer_path = running.place.file("certs/issuer-1.crt");
    let issuer = read_certificates(&std::fs::read(&issuer_path).unwrap(), 1).unwrap().remove(0);
    let issuer = Certificate::from_der(&issuer).unwrap();
    let revoked = RevokedIssuer { certificate: issuer, reason: RevocationReason::CaCompromise };
    let mut number = 0;
    for (issuers, expected) in
        [(vec![], "leaf.pem: OK"), (vec![revoked], "certificate revoked"), (vec![], "certificate revoked")]
    {
        let month = Duration::from_secs(30 * 86_400);
        let list = make_root_crl(&root, &passphrase, &issuers, month, SystemClock.now()).unwrap();
        assert!(list.number > number);
        number = list.number;
        std::fs::copy(&list.path, running.place.file("certs/root.crl")).unwrap();
        assert_eq!(fetch(&running.server, "http://x/crl/root.crl").await, list.der);
        std::fs::write(&chain, fetch(&running.server, "http://x/crl/chain.pem").await).unwrap();
        let mut openssl = tokio::process::Command::new("openssl");
        openssl.args(["verify", "-crl_check_all", "-CRLfile"]).arg(&chain);
        openssl.arg("-CAfile").arg(running.place.file("certs/root.crt"));
        let Ok(output) = openssl.arg("-untrusted").arg(&issuer_path).arg(&leaf).output().await else {
            return skipped("lists", "openssl is not installed");
        };
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains(expected), "{expected}: {said}");
    }
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_long_ago_is_told_from_the_log() {
    let running = Running::start().await;
    let (stolen, other) = (running.enroll("web").await, running.enroll("db").await);
    revoke(&running.server, &stolen).await;
    let Running { place, server } = running;
    let before = server.site().authority.ledger().head().size;
    server.stop().await;
    drop(server);
    place.edit(|raw| raw.rotation.settle = HumanDuration(Duration::ZERO));
    let later = ManualClock::at(SystemClock.now() + Duration::from_hours(60 * 24));
    let server = loop {
        let (clock, random) = (Arc::new(later.clone()), Arc::new(SystemRandom));
        match Server::start(place.config(), OnlineRoot::Refuse, clock, random).await {
            Ok(server) => break server,
            Err(error) => assert!(error.to_string().contains("process"), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let endpoint = format!("unix:{}", place.config().admin_socket.display()).parse().unwrap();
    let client = Client::builder(endpoint).retry(RetryPolicy::never()).build().unwrap();
    let mut detail = client.read_certificate(serial(&stolen)).await.unwrap();
    for _ in 0..500 {
        if detail.certificate.tidied {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        detail = client.read_certificate(serial(&stolen)).await.unwrap();
    }
    assert!(detail.certificate.tidied && detail.certificate.log_index < before);
    assert_eq!(detail.certificate.status, CertificateStatus::Revoked);
    assert_eq!(detail.pem.as_deref(), Some(stolen.response.certificate.as_str()));
    let decision = client.why(serial(&stolen)).await.unwrap();
    assert_eq!((decision.serial, decision.log_index), (serial(&stolen), detail.certificate.log_index));
    assert_eq!(client.status(serial(&stolen)).await.unwrap().status, CertificateStatus::Revoked);
    assert_eq!(client.status(serial(&other)).await.unwrap().status, CertificateStatus::Expired);
    let query = CertificateQuery { identity: Some(running::id("db")), ..Default::default() };
    assert!(client.list_certificates(&query).await.unwrap().items.is_empty());
    let revoker = server.site().authority.revoker();
    let (selector, reason) = (Selector::Serial(serial(&other)), RevocationReason::Superseded);
    let late = revoker.revoke(&selector.into(), reason, Hand::of("test", "")).await.unwrap();
    assert_eq!((late.changed, late.unchanged), (0, 1), "it ended long ago");
    server.stop().await;
}

/// Puts a directory where new lists would be written, or takes it away.
fn forbid(directory: &Path, forbidden: bool) {
    for number in 0..16 {
        let path = directory.join(format!("{number}.new"));
        let _ = if forbidden { std::fs::create_dir(path) } else { std::fs::remove_dir(path) };
    }
}
