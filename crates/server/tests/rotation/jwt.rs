//! Keys of JWT-SVIDs: published before they sign, kept until their last token has ended.

use chancery_api::{RotateRequest, RotationSubject};

use super::{until, with_spares};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwt_key_is_in_the_bundle_before_it_signs_and_after() {
    let running = with_spares(0).await;
    let admin = running.admin();
    let keys = async || {
        let bundle = running.client(None).bundle_json().await.unwrap();
        let jwt = bundle.keys.iter().filter(|key| key.purpose == "jwt-svid");
        (jwt.filter_map(|key| key.kid.clone()).collect::<Vec<_>>(), bundle.spiffe_sequence.unwrap())
    };
    let (first, sequence) = keys().await;
    assert_eq!(first.len(), 1);
    let request = RotateRequest { subject: RotationSubject::Jwt, dry_run: false, note: String::new() };
    admin.ca_rotate(&request).await.unwrap();
    let (both, risen) = keys().await;
    assert_eq!((both.len(), &both[0]), (2, &first[0]), "the one that signs stands first");
    assert!(risen > sequence, "relying parties notice");
    let phases = |status: &chancery_api::CaStatusResponse| -> Vec<String> {
        let mut phases: Vec<String> = status.jwt_keys.iter().map(|key| key.phase.clone()).collect();
        phases.sort();
        phases
    };
    until(&running, "another key", |status| phases(status) == ["active", "superseded"]).await;
    let (swapped, _) = keys().await;
    assert_eq!(swapped, [both[1].clone(), both[0].clone()]);
}
