//! Each selector against certificates of which it must find some and not the others.

use chancery_api::{
    HoldRequest, KeySource, ProblemCode, PublicKeyDer, ReleaseRequest, RevokeRequest, Selector,
};
use chancery_types::{IssuerEpoch, SerialNumber};

use crate::running::{Running, id, problem};
use crate::{enrol_in, environment, revocation, sorted};

#[tokio::test]
async fn each_selector_finds_its_own_and_a_dry_run_touches_what_the_run_touches() {
    let running = Running::start().await;
    let shop = enrol_in(&running, "shop", "prod", "ada", 1).await;
    let web = enrol_in(&running, "shop/web", "prod", "ada", 2).await;
    let shopping = enrol_in(&running, "shopping", "prod", "bob", 1).await;
    let test = enrol_in(&running, "test/web", "test", "bob", 2).await;
    let of = |all: &[&[crate::Held]]| {
        let mut serials: Vec<SerialNumber> =
            all.iter().flat_map(|some| some.iter()).map(|held| held.response.serial).collect();
        serials.sort_unstable();
        serials
    };
    let key = PublicKeyDer::from_der(web[0].key.public_key().spki_der().to_vec());
    let cases = [
        (vec![Selector::Serial(web[0].response.serial)], of(&[&web[..1]])),
        (vec![Selector::Identity(id("shop/web"))], of(&[&web])),
        (vec![Selector::Under(id("shop"))], of(&[&shop, &web])),
        (vec![Selector::Lineage(web[1].response.lineage)], of(&[&web[1..]])),
        (vec![Selector::Key(KeySource::PublicKey(key))], of(&[&web[..1]])),
        (vec![Selector::Owner("bob".into())], of(&[&shopping, &test])),
        (vec![Selector::Team("team-ada".into())], of(&[&shop, &web])),
        (vec![environment("prod")], of(&[&shop, &web, &shopping])),
        (vec![environment("prod"), Selector::Owner("bob".into())], of(&[&shopping])),
        (vec![Selector::Under(id("shop")), Selector::Identity(id("test/web"))], vec![]),
        (vec![Selector::Issuer(IssuerEpoch(1)), environment("test")], of(&[&test])),
    ];
    let admin = running.admin();
    for (selectors, expected) in cases {
        let within = selectors[1..].to_vec();
        let hold = HoldRequest { within: within.clone(), ..HoldRequest::new(selectors[0].clone()) };
        let release = ReleaseRequest { within, ..ReleaseRequest::new(selectors[0].clone()) };
        let counted = admin.hold(&HoldRequest { dry_run: true, ..hold.clone() }).await;
        if expected.is_empty() {
            assert_eq!(problem(&counted.unwrap_err()), Some(ProblemCode::NotFound), "{selectors:?}");
            continue;
        }
        assert_eq!(sorted(&counted.unwrap()), expected, "{selectors:?}");
        let held = admin.hold(&hold).await.unwrap();
        assert_eq!(sorted(&held), expected, "{selectors:?}");
        // Lists are published meanwhile.
        let head = running.server.site().authority.ledger().head().size;
        assert!(held.sequence > held.operation && held.sequence <= Some(head), "{:?}", held.sequence);
        let counted = admin.release(&ReleaseRequest { dry_run: true, ..release.clone() }).await.unwrap();
        assert_eq!(sorted(&counted), expected, "{selectors:?}");
        assert_eq!(sorted(&admin.release(&release).await.unwrap()), expected, "{selectors:?}");
    }
    let issuer = RevokeRequest { dry_run: true, ..revocation(Selector::Issuer(IssuerEpoch(1))) };
    let radius = admin.revoke(&issuer).await.unwrap().radius.unwrap();
    let parts: Vec<_> =
        radius.environments.iter().map(|part| (part.name.as_str(), part.certificates)).collect();
    assert!(parts.contains(&("prod", 4)) && parts.contains(&("test", 2)), "{parts:?}");
    running.server.stop().await;
}

#[tokio::test]
async fn refuses_scopes_that_nobody_can_mean() {
    let running = Running::start().await;
    enrol_in(&running, "web", "prod", "ada", 1).await;
    let admin = running.admin();
    let many = vec![environment("prod"); 9];
    for (request, code) in [
        (RevokeRequest { within: many, ..revocation(environment("prod")) }, ProblemCode::TooManyItems),
        (revocation(environment("")), ProblemCode::MalformedRequest),
        (revocation(Selector::Owner("x".repeat(300))), ProblemCode::MalformedRequest),
        (revocation(environment("nowhere")), ProblemCode::NotFound),
        (revocation(Selector::Issuer(IssuerEpoch(9))), ProblemCode::NotFound),
    ] {
        assert_eq!(problem(&admin.revoke(&request).await.unwrap_err()), Some(code), "{request:?}");
    }
    running.server.stop().await;
}

#[tokio::test]
async fn an_operator_cannot_reach_admins_through_a_wide_scope() {
    let running = Running::start().await;
    let operator = running.operator("olga", chancery_types::Role::Operator).await;
    let client = running.client(Some(operator.identity()));
    let everybody = RevokeRequest { dry_run: true, ..revocation(Selector::Under(id("operator"))) };
    let refused = client.revoke(&everybody).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted), "{refused}");
    running.server.stop().await;
}
