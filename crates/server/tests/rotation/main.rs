//! The authority replaces its own issuers and keys while it works.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

#[path = "../feed/listener.rs"]
#[allow(dead_code, reason = "this program hears, and does nothing")]
mod listener;
#[path = "../running/mod.rs"]
mod running;

mod ceremony;
mod jwt;
mod load;
mod log;
mod roots;
mod steps;
mod succession;
mod taint;

use std::time::Duration;

use chancery_api::{CaStatusResponse, IssuerState};
use chancery_server::bootstrap::add_spares;
use chancery_server::config::RawConfig;
use chancery_types::{Clock as _, SecretString, SystemClock, SystemRandom};
use running::{Place, Running, plan, skipped};

/// Issuers and keys are published for four seconds before they are used.
fn quick(raw: &mut RawConfig) {
    raw.rotation.refresh_hint = "1s".parse().unwrap();
    raw.rotation.margin = "0s".parse().unwrap();
    raw.rotation.settle = "0s".parse().unwrap();
    raw.rotation.grace = "1s".parse().unwrap();
}

/// An authority with so many issuers in reserve.
async fn with_spares(count: u16) -> Running {
    let place = Place::with(plan(), quick).await;
    let passphrase = SecretString::new("a long passphrase".into());
    let root = place.beside("root");
    add_spares(&place.config(), &root, &passphrase, count, &SystemRandom, SystemClock.now()).unwrap();
    let server = place.serve().await.unwrap();
    Running { place, server }
}

async fn status(running: &Running) -> CaStatusResponse {
    running.admin().ca_status().await.unwrap()
}

fn active(status: &CaStatusResponse) -> u16 {
    let active = status.issuers.iter().find(|issuer| issuer.state == Some(IssuerState::Active));
    active.unwrap_or_else(|| panic!("no issuer is active: {status:?}")).epoch.0
}

/// Whether `openssl` believes these certificates, the first its holder's, by this root alone; nothing where there is none.
fn openssl_believes(test: &str, chain: &str, root: &str) -> Option<Result<(), String>> {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).unwrap();
        directory.path().join(name)
    };
    let own = chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    let output = std::process::Command::new("openssl")
        .args(["verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-CAfile"])
        .arg(file("root.pem", root))
        .arg("-untrusted")
        .arg(file("chain.pem", &chain[own.len()..]))
        .arg(file("own.pem", own))
        .output();
    let Ok(output) = output else {
        skipped(test, "there is no openssl");
        return None;
    };
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(told) })
}

/// Waits until `is_so`; how it stands then.
async fn until(running: &Running, what: &str, is_so: impl Fn(&CaStatusResponse) -> bool) -> CaStatusResponse {
    for _ in 0..600 {
        let now = status(running).await;
        if is_so(&now) {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what} did not come about: {:?}", status(running).await);
}
