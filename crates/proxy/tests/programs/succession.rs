//! Lists in files while a root takes the place of another.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery_api::{AddRootRequest, IssuerState};
use chancery_proxy::crl_sync::{CrlSync, CrlSyncConfig};
use chancery_server::bootstrap::{add_spares, make_root_crl, rotate_root};
use chancery_types::{Clock as _, KeyAlgorithm, SecretString, SystemClock, SystemRandom};
use chancery_x509::write_pem;

use crate::running::{Place, Running, plan};
use crate::world::PATIENCE;

fn passphrase() -> SecretString {
    SecretString::new("a long passphrase".into())
}

/// What an operator does at a root, once in half a year.
fn list_of_root(place: &Place, root: &str) {
    let month = Duration::from_hours(24 * 30);
    let list = make_root_crl(&place.beside(root), &passphrase(), &[], month, SystemClock.now()).unwrap();
    std::fs::copy(&list.path, place.file(&format!("certs/{root}.crl"))).unwrap();
}

/// What `openssl` says of a chain by one root when it wants a list of every authority.
fn openssl(directory: &Path, chain: &str, lists: &Path, root: &Path) -> String {
    let own = chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    std::fs::write(directory.join("own.pem"), own).unwrap();
    std::fs::write(directory.join("above.pem"), &chain[own.len()..]).unwrap();
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-crl_check_all", "-no-CApath", "-no-CAstore", "-CRLfile"])
        .arg(lists)
        .arg("-CAfile")
        .arg(root)
        .arg("-untrusted")
        .arg(directory.join("above.pem"))
        .arg(directory.join("own.pem"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_the_new_root_and_its_issuers_are_in_place_for_those_who_know_only_the_old_one() {
    let place = Place::with(plan(), |raw| {
        raw.rotation.refresh_hint = "1s".parse().unwrap();
        raw.rotation.margin = "0s".parse().unwrap();
        raw.rotation.settle = "0s".parse().unwrap();
    })
    .await;
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    let directory = tempfile::tempdir().unwrap();
    let (root, lists) = (directory.path().join("bundle.crt"), directory.path().join("lists.pem"));
    std::fs::copy(running.place.file("certs/root.crt"), &root).unwrap();
    list_of_root(&running.place, "root");
    let text = format!(
        "server = \"https://localhost:{}\"\ntrust_bundle = \"bundle.crt\"\n\
         [[outputs]]\nname = \"files\"\nfile = {lists:?}\n",
        running.server.api_address().port(),
    );
    let config = CrlSyncConfig::check(toml::from_str(&text).unwrap(), directory.path()).unwrap();
    let mut sync = CrlSync::new(config, Arc::new(SystemClock)).await.unwrap();
    sync.once().await.unwrap();

    let (old, new, secret) = (running.place.beside("root"), running.place.beside("root-2"), passphrase());
    let (old, new) = ((old.as_path(), &secret), (new.as_path(), &secret));
    let made = rotate_root(old, new, KeyAlgorithm::P256, &SystemRandom, SystemClock.now()).unwrap();
    add_spares(&running.place.config(), new.0, &secret, 1, &SystemRandom, SystemClock.now()).unwrap();
    let certificates = std::iter::once(made.root.certificate()).chain(made.root.vouchers());
    let certificates = certificates.map(|one| write_pem("CERTIFICATE", one.der())).collect();
    let request = AddRootRequest { certificates, dry_run: false, note: String::new() };
    running.admin().ca_add_root(&request).await.unwrap();
    list_of_root(&running.place, "root-2");
    let began = Instant::now();
    let is_new =
        |issuer: &chancery_api::CaIssuer| issuer.epoch.0 == 2 && issuer.state == Some(IssuerState::Active);
    while !running.admin().ca_status().await.unwrap().issuers.iter().any(is_new) {
        assert!(began.elapsed() < PATIENCE, "issuer 2 does not sign");
        sync.once().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // The list of the new issuer was in place before it signed anything.
    let held = running.enroll("web").await;
    let told = openssl(directory.path(), &held.chain(), &lists, &root);
    assert!(told.contains("own.pem: OK"), "{told}");
}
