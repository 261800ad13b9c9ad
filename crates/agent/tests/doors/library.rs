//! The verifying library at the Workload API's other end.

use std::time::Duration;

use chancery_types::TrustDomain;
use chancery_verify::live::{CredentialError, Credentials};

use crate::world::{Authority, World};

/// Waits for something that must come true.
async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn the_verifying_library_shows_what_the_agent_gives_it_and_follows_it() {
    let world = World::open().await;
    let partner = Authority::new("partner.example");
    let default = world.authority.svid("/web", "internal");
    world.give(vec![default, world.authority.svid("/admin", "")], &[&partner]);
    let web = Credentials::from_workload_api(&world.path(), None).await.unwrap();
    assert_eq!(web.id(), Some(world.authority.id("/web")));
    let admin =
        Credentials::from_workload_api(&world.path(), Some(world.authority.id("/admin"))).await.unwrap();
    assert_eq!(admin.id(), Some(world.authority.id("/admin")));
    for name in ["example.org", "partner.example"] {
        assert_eq!(web.bundles()[&TrustDomain::parse(name).unwrap()].len(), 1);
    }
    world.give(vec![world.authority.svid("/rotated", "")], &[]);
    eventually("the new identity is shown", || web.id() == Some(world.authority.id("/rotated"))).await;
    assert_eq!(web.bundles().len(), 1);
    // It has lost the identity that it asked for, and keeps what it has until the end.
    assert_eq!(admin.id(), Some(world.authority.id("/admin")));
}

#[tokio::test]
async fn the_verifying_library_says_why_there_is_no_identity() {
    let world = World::open().await;
    let refused = Credentials::from_workload_api(&world.path(), None).await.unwrap_err();
    assert!(
        matches!(&refused, CredentialError::WorkloadApi { detail, .. } if detail.contains("status 7")),
        "{refused}"
    );
    let nobody =
        Credentials::from_workload_api(&world.path().with_extension("none"), None).await.unwrap_err();
    assert!(matches!(nobody, CredentialError::WorkloadApi { .. }));
}
