//! Step by step: asked for, rolled back, tainted, told.

use chancery_api::{IssuerState, ProblemCode, RollbackRequest, RotateRequest, RotationSubject, TaintRequest};
use chancery_types::IssuerEpoch;

use super::running::problem;
use super::{active, status, until, with_spares};

fn rotate(dry_run: bool) -> RotateRequest {
    RotateRequest { subject: RotationSubject::Issuer, dry_run, note: "a test".into() }
}

fn back() -> RollbackRequest {
    RollbackRequest { subject: RotationSubject::Issuer, dry_run: false, note: "it broke something".into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_is_published_then_used_and_both_steps_can_be_rolled_back() {
    let running = with_spares(2).await;
    let admin = running.admin();
    let before = status(&running).await;
    assert_eq!((active(&before), before.issuers.len()), (1, 3), "{before:?}");
    assert!(before.timeline.iter().any(|change| change.what == "issuer 2 signs in place of issuer 1"));

    let planned = admin.ca_rotate(&rotate(true)).await.unwrap().planned;
    assert_eq!((planned[0].what.as_str(), planned[0].code.as_str()), ("publish issuer 2", "asked"));
    assert_eq!(status(&running).await.issuers, before.issuers, "nothing was done");

    admin.ca_rotate(&rotate(false)).await.unwrap();
    let published = status(&running).await;
    assert_eq!(published.issuers[1].state, Some(IssuerState::Prepared), "{published:?}");
    assert_eq!(active(&published), 1, "nobody knows issuer 2 yet");
    let undone = admin.ca_rollback(&back()).await.unwrap();
    assert_eq!(undone.done[0], "stop publishing for issuer 2");
    let rests = status(&running).await;
    assert_eq!((active(&rests), rests.paused.as_slice()), (1, ["issuer".to_owned()].as_slice()));

    admin.ca_rotate(&rotate(false)).await.unwrap();
    until(&running, "issuer 2", |status| active(status) == 2).await;
    let held = running.enroll("web").await;
    assert_eq!(held.response.serial.epoch(), IssuerEpoch(2));
    admin.ca_rollback(&back()).await.unwrap();
    assert_eq!(active(&status(&running).await), 1, "whoever signed before signs again, at once");
    assert_eq!(running.enroll_again("web").await.response.serial.epoch(), IssuerEpoch(1));
    // Issuer 2 has signed: everybody knows it.
    let answer = admin.ca_rollback(&back()).await.unwrap();
    assert_eq!(answer.done[0], "issuer 2 signs in place of issuer 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tainted_issuer_is_followed_by_another_and_what_is_left_of_it_is_revoked() {
    let running = with_spares(1).await;
    let admin = running.admin();
    let held = running.enroll("web").await;
    let unknown = TaintRequest { issuer: IssuerEpoch(9), dry_run: false, note: String::new() };
    assert_eq!(problem(&admin.ca_taint(&unknown).await.unwrap_err()), Some(ProblemCode::NotFound));
    let taint = TaintRequest { issuer: IssuerEpoch(1), dry_run: false, note: "its key was stolen".into() };
    let answer = admin.ca_taint(&taint).await.unwrap();
    assert_eq!(answer.planned[0].code, "tainted", "{answer:?}");
    let after = until(&running, "issuer 2", |status| active(status) == 2).await;
    assert_eq!(after.issuers[0].state, Some(IssuerState::Tainted));
    assert!(
        after.timeline.iter().any(|change| change.what == "revoke what is left of issuer 1"),
        "{after:?}"
    );
    let again = running.enroll_again("web").await;
    assert_eq!(again.response.serial.epoch(), IssuerEpoch(2));
    assert_ne!(held.response.serial, again.response.serial);
}
