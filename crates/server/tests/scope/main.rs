//! Revoking and holding by any property: what is hit, who has to agree, and what happens when the server dies.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

#[path = "../running/mod.rs"]
mod running;

mod approvals;
mod lives;
mod measure;
mod selectors;
mod waves;

use chancery_api::{CertificateStatus, ChangeResponse, IdentityDocument, RevokeRequest, Selector};
use chancery_client::{Client, RetryPolicy};
use chancery_server::config::RawConfig;
use chancery_types::{Identity, RevocationReason, SerialNumber};
use running::{Held, Running, id};

/// An authority where more than two certificates of an environment, and more than a quarter, need approval.
async fn strict(edit: impl FnOnce(&mut RawConfig)) -> Running {
    Running::with(|raw| {
        raw.revocation.limit_floor = 2;
        edit(raw);
    })
    .await
}

/// Registers an identity of this environment, owner and team, and enrols it so often.
async fn enrol_in(running: &Running, name: &str, environment: &str, owner: &str, count: usize) -> Vec<Held> {
    let mut identity = Identity::new(id(name), owner);
    identity.environment = environment.into();
    identity.team = format!("team-{owner}");
    running.admin().register_identity(&IdentityDocument(identity)).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(running.enroll_again(name).await);
    }
    held
}

/// Over the administration socket.
fn local(running: &Running) -> Client {
    let endpoint = format!("unix:{}", running.place.config().admin_socket.display()).parse().unwrap();
    Client::builder(endpoint).retry(RetryPolicy::never()).build().unwrap()
}

fn environment(name: &str) -> Selector {
    Selector::Environment(name.into())
}

fn revocation(selector: Selector) -> RevokeRequest {
    RevokeRequest::new(selector, RevocationReason::Superseded)
}

async fn status(running: &Running, held: &Held) -> CertificateStatus {
    running.admin().status(held.response.serial).await.unwrap().status
}

async fn count(running: &Running, all: &[Held], wanted: CertificateStatus) -> usize {
    let mut count = 0;
    for held in all {
        count += usize::from(status(running, held).await == wanted);
    }
    count
}

fn sorted(changed: &ChangeResponse) -> Vec<SerialNumber> {
    let mut serials = changed.serials.clone();
    serials.sort_unstable();
    serials
}
