//! Identities that end, or are blocked, while others try to enrol and to renew.

use std::sync::Arc;

use chancery_api::{
    CertificateStatus, Evidence, IdentityStateRequest, ProblemCode, RevokeRequest, Selector, TokenQuery,
    TokenState,
};
use chancery_types::{IdentityState, RevocationReason};

use crate::running::{Running, enrolment, fresh, id, new_key, problem};
use crate::{revocation, status};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_for_a_retired_identity_loses() {
    for _ in 0..5 {
        let running = Arc::new(Running::start().await);
        let held = running.enroll("web").await;
        let unused = running.token("web").await;
        let mut tokens = Vec::new();
        for _ in 0..4 {
            tokens.push(running.token("web").await.token);
        }
        let busy = {
            let running = Arc::clone(&running);
            tokio::spawn(async move {
                let mut issued = vec![held.response.serial];
                if let Ok(renewed) = running.renew(&held).await {
                    issued.push(renewed.response.serial);
                }
                for token in tokens {
                    let request = enrolment(&new_key(), Evidence::JoinToken { token });
                    if let Ok(response) = running.client(None).enroll(&request, &fresh()).await {
                        issued.push(response.serial);
                    }
                }
                issued
            })
        };
        let request = IdentityStateRequest::default();
        running.admin().retire_identity(&id("web"), &request).await.unwrap();
        for serial in busy.await.unwrap() {
            let standing = running.admin().status(serial).await.unwrap().status;
            assert_eq!(standing, CertificateStatus::Revoked, "{serial}");
        }
        let query = TokenQuery::default();
        let open = running.admin().list_tokens(&query).await.unwrap();
        let state = open.items.iter().find(|view| view.id == unused.id).unwrap().state;
        assert_eq!(state, TokenState::Revoked);
        // Once more finds nothing left to do, and finishes what a crash would have left.
        running.admin().retire_identity(&id("web"), &request).await.unwrap();
        Arc::into_inner(running).unwrap().server.stop().await;
    }
}

#[tokio::test]
async fn an_identity_that_is_only_revoked_enrols_again_and_a_blocked_one_does_not() {
    let running = Running::start().await;
    let held = running.enroll("web").await;
    running.admin().revoke(&revocation(Selector::Identity(id("web")))).await.unwrap();
    assert_eq!(status(&running, &held).await, CertificateStatus::Revoked);
    let again = running.enroll_again("web").await;

    let token = running.token("web").await.token;
    let block = RevokeRequest { block: true, ..revocation(Selector::Identity(id("web"))) };
    assert_eq!(running.admin().revoke(&block).await.unwrap().count, 1);
    assert_eq!(status(&running, &again).await, CertificateStatus::Revoked);
    let request = enrolment(&new_key(), Evidence::JoinToken { token });
    let refused = running.client(None).enroll(&request, &fresh()).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::IdentityHeld), "{refused}");
    assert_eq!(running.admin().read_identity(&id("web")).await.unwrap().state, IdentityState::Held);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_renewal_slips_through_a_revocation_of_its_identity() {
    let running = Arc::new(Running::start().await);
    running.register("web").await;
    for round in 0..10 {
        let held = running.enroll_again("web").await;
        let busy = {
            let running = Arc::clone(&running);
            tokio::spawn(
                async move { running.renew(&held).await.ok().map(|renewed| renewed.response.serial) },
            )
        };
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        let reason = RevocationReason::KeyCompromise;
        let revoke = RevokeRequest::new(Selector::Identity(id("web")), reason);
        running.admin().revoke(&revoke).await.unwrap();
        if let Some(renewed) = busy.await.unwrap() {
            let standing = running.admin().status(renewed).await.unwrap().status;
            assert_eq!(standing, CertificateStatus::Revoked, "round {round}");
        }
    }
    Arc::into_inner(running).unwrap().server.stop().await;
}
