//! A root takes the place of another: what is shown meanwhile, to whom, and what becomes of the old one.

use std::sync::Arc;
use std::time::Duration;

use chancery_server::Server;
use chancery_server::authority::OnlineRoot;
use chancery_server::bootstrap::{add_spares, make_root_crl};
use chancery_types::{Clock as _, IssuerEpoch, ManualClock, SystemClock, SystemRandom};
use chancery_x509::read_certificates;

use super::ceremony::{passphrase, pem, request, rotate};
use super::running::{Place, Running, plan};
use super::{active, openssl_believes, quick, status, until, with_spares};

const DAY: Duration = Duration::from_hours(24);

fn spares(place: &Place, root: &str, count: u16) {
    let root = place.beside(root);
    add_spares(&place.config(), &root, &passphrase(), count, &SystemRandom, SystemClock.now()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_new_root_signs_is_believed_by_the_old_root_alone_and_by_the_new_one_alone() {
    let running = with_spares(0).await;
    let made = rotate(&running.place, "root", "root-2");
    spares(&running.place, "root-2", 1);
    running.admin().ca_add_root(&request(&made)).await.unwrap();
    let held = running.enroll("web").await;
    assert_eq!(read_certificates(held.chain().as_bytes(), 8).unwrap().len(), 2, "nothing signs under it yet");
    let now = until(&running, "an issuer below the new root", |status| active(status) == 2).await;
    assert_eq!(now.roots[1].issuers, [IssuerEpoch(2)], "{now:?}");

    // The administrator's certificate stands under the old root, and its client knows nothing else.
    let held = running.enroll_again("web").await;
    let chain = held.chain();
    assert_eq!(
        read_certificates(chain.as_bytes(), 8).unwrap().len(),
        3,
        "its issuer, and the old root's word for it"
    );
    let old = std::fs::read_to_string(running.place.file("certs/root.crt")).unwrap();
    let new = pem(made.root.certificate());
    let test = "what the new root signs";
    for root in [&old, &new] {
        if let Some(judgement) = openssl_believes(test, &chain, root) {
            judgement.unwrap();
        }
    }
    let voucher = pem(&made.root.vouchers()[0]);
    if let Some(judgement) = openssl_believes(test, &chain.replace(&voucher, ""), &old) {
        assert!(judgement.is_err(), "it is the old root's word that counts");
    }
    // Whoever holds a certificate of the new root is let in.
    running.renew(&held).await.unwrap();
    let bundle = std::fs::read_to_string(running.place.file("certs/bundle.pem")).unwrap();
    assert_eq!(bundle, old + &new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_each_root_is_served() {
    let running = with_spares(0).await;
    let made = rotate(&running.place, "root", "root-2");
    running.admin().ca_add_root(&request(&made)).await.unwrap();
    let mut lists = Vec::new();
    for (root, name) in [("root", "root.crl"), ("root-2", "root-2.crl")] {
        let list =
            make_root_crl(&running.place.beside(root), &passphrase(), &[], 30 * DAY, SystemClock.now());
        let list = list.unwrap();
        std::fs::copy(&list.path, running.place.file(&format!("certs/{name}"))).unwrap();
        assert_eq!(fetch(&running, &format!("/crl/{name}")).await, list.der);
        lists.push(String::from_utf8(std::fs::read(&list.path).unwrap()).unwrap());
    }
    let all = String::from_utf8(fetch(&running, "/crl/chain.pem").await).unwrap();
    assert!(lists.iter().all(|list| all.contains(list.trim())), "{all}");
    let of_roots = String::from_utf8(fetch(&running, "/crl/roots.pem").await).unwrap();
    assert_eq!(of_roots.matches("BEGIN X509 CRL").count(), 2);
    assert!(lists.iter().all(|list| of_roots.contains(list.trim())), "{of_roots}");
    let none = fetch(&running, "/crl/root-3.crl").await;
    assert!(String::from_utf8_lossy(&none).contains("not-found"));
}

/// The body of what the status port answers.
async fn fetch(running: &Running, path: &str) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(running.server.status_address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    answer.split_off(head + 4)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_root_leaves_the_bundle_when_its_last_issuer_has_ended() {
    let place = Place::with(plan(), quick).await;
    let made = rotate(&place, "root", "root-2");
    spares(&place, "root-2", 4);
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let (manual, random) = (Arc::clone(&clock), Arc::new(SystemRandom));
    let server = Server::start(place.config(), OnlineRoot::Refuse, manual, random).await.unwrap();
    let running = Running { place, server };
    running.admin().ca_add_root(&request(&made)).await.unwrap();
    until(&running, "an issuer below the new root", |status| active(status) == 2).await;
    assert_eq!(status(&running).await.roots[0].phase, "active", "what the old issuer signed is met");
    let rotation = Arc::clone(&running.server.site().rotation);
    // From here on the server's time is not that of TLS, so it is looked at from within.
    for (days, issuer) in [(35, 3), (35, 4)] {
        clock.advance(days * DAY);
        for round in 0.. {
            assert!(round < 600, "issuer {issuer} does not sign");
            let state = rotation.state().await.unwrap();
            assert!(state.roots[0].phase.is_active(), "an issuer below it lives");
            if state.active_issuer().unwrap().epoch == IssuerEpoch(issuer) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    clock.advance(22 * DAY);
    for round in 0.. {
        assert!(round < 600, "the old root stays: {:?}", rotation.state().await);
        let state = rotation.state().await.unwrap();
        if state.roots[0].phase == chancery_rotate::authority::Phase::Withdrawn {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let bundle = std::fs::read_to_string(running.place.file("certs/bundle.pem")).unwrap();
    assert_eq!(bundle, pem(made.root.certificate()));
}
