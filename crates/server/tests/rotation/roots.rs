//! Roots that are refused, and one that is taken back.

use std::time::Duration;

use chancery_api::{ProblemCode, RollbackRequest, RotateRequest, RotationSubject};
use chancery_client::ClientError;
use chancery_x509::{BasicConstraints, KeyUsages, read_certificates};

use super::ceremony::{Hand, Says, asking, pem, request, rotate};
use super::running::{Running, problem};
use super::{status, with_spares};

const MONTH: Duration = Duration::from_hours(24 * 30);

/// What the server says to these certificates, and that nothing is another than before.
async fn refused(running: &Running, certificates: String) -> String {
    let before = status(running).await.roots;
    let error = running.admin().ca_add_root(&asking(certificates)).await.unwrap_err();
    assert_eq!(status(running).await.roots, before, "{error}");
    assert!(
        matches!(problem(&error), Some(ProblemCode::RootRefused | ProblemCode::MalformedRequest)),
        "{error}"
    );
    match error {
        ClientError::Problem(problem) => {
            let fields: String = problem.errors.iter().map(|field| field.detail.clone()).collect();
            format!("{} {fields}", problem.detail)
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_for_which_no_trusted_root_vouches_is_refused_whoever_brings_it() {
    let running = with_spares(0).await;
    let hand = Hand::of(&running.place);
    let (root, voucher) = (hand.root(&Says::good()), hand.voucher(&Says::good()));
    let told = refused(&running, pem(&root)).await;
    assert!(told.contains("no certificate is there by which"), "{told}");
    let told = refused(&running, pem(&root) + &pem(&hand.forged(&Says::good()))).await;
    assert!(told.contains("signature"), "{told}");
    let told = refused(&running, pem(&voucher)).await;
    assert!(told.contains("0 certificates sign themselves"), "{told}");
    let told = refused(&running, pem(&root) + &pem(&Hand::of(&running.place).voucher(&Says::good()))).await;
    assert!(told.contains("neither the root nor a certificate for"), "{told}");
    let first = std::fs::read_to_string(running.place.file("certs/root.crt")).unwrap();
    let told = refused(&running, first.clone()).await;
    assert!(told.contains("this root is active already"), "{told}");
    let told = refused(&running, first + &pem(&root)).await;
    assert!(told.contains("2 certificates sign themselves"), "{told}");
    // One bit of a signature.
    let mut der = voucher.der().to_vec();
    *der.last_mut().unwrap() ^= 1;
    let told = refused(&running, pem(&root) + &chancery_x509::write_pem("CERTIFICATE", &der)).await;
    assert!(told.contains("signature"), "{told}");
    for nothing in
        [String::new(), "no certificate".into(), pem(&root).replace('M', "N"), pem(&root).repeat(10)]
    {
        refused(&running, nothing).await;
    }
    // What was refused was refused for its faults: the same root with all that it needs is taken.
    running.admin().ca_add_root(&asking(pem(&root) + &pem(&voucher))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roots_that_say_something_else_than_a_root_of_this_trust_domain_are_refused() {
    let running = with_spares(0).await;
    let cases: [(&str, fn(&mut Says)); 10] = [
        ("this trust domain is spiffe://example.org", |says| {
            says.names = vec!["spiffe://example.com".parse().unwrap()];
        }),
        ("names no trust domain", |says| says.names.clear()),
        ("allows no authority below it", |says| {
            says.edit = |spec| {
                spec.authority = Some(BasicConstraints { is_authority: true, path_length: Some(0) });
            };
        }),
        ("is not an authority", |says| says.edit = |spec| spec.authority = None),
        ("is not an authority", |says| says.edit = |spec| spec.key_usages = KeyUsages::default()),
        ("carries extKeyUsage", |says| {
            says.edit = |spec| spec.extended_key_usages = &[chancery_x509::ExtendedKeyUsage::ServerAuth];
        }),
        ("it is", |says| says.until = says.from + Duration::from_secs(1)),
        ("it is", |says| says.from = says.from + MONTH),
        ("before the issuer that signs now", |says| says.until = says.from + MONTH),
        ("was the clock of the ceremony right", |says| says.from = says.from - MONTH),
    ];
    for (expected, change) in cases {
        let hand = Hand::of(&running.place);
        let mut says = Says::good();
        change(&mut says);
        let told = refused(&running, pem(&hand.root(&says)) + &pem(&hand.voucher(&Says::good()))).await;
        assert!(told.contains(expected) || told.contains("sign themselves"), "root, {expected}: {told}");
    }
    // The same of the certificate by which the old root vouches, where it matters there too.
    let voucher_cases: [(&str, fn(&mut Says)); 4] = [
        ("this trust domain is spiffe://example.org", |says| {
            says.names = vec!["spiffe://example.com".parse().unwrap()];
        }),
        ("allows no authority below it", |says| {
            says.edit = |spec| {
                spec.authority = Some(BasicConstraints { is_authority: true, path_length: Some(0) });
            };
        }),
        ("carries extKeyUsage", |says| {
            says.edit = |spec| spec.extended_key_usages = &[chancery_x509::ExtendedKeyUsage::ServerAuth];
        }),
        ("is valid from", |says| says.until = says.from + Duration::from_secs(1)),
    ];
    for (expected, change) in voucher_cases {
        let hand = Hand::of(&running.place);
        let mut says = Says::good();
        change(&mut says);
        let told = refused(&running, pem(&hand.root(&Says::good())) + &pem(&hand.voucher(&says))).await;
        assert!(told.contains(expected), "voucher, {expected}: {told}");
    }
    assert_eq!(status(&running).await.roots.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_root_is_in_every_bundle_and_can_be_taken_back() {
    let running = with_spares(0).await;
    let admin = running.admin();
    let made = rotate(&running.place, "root", "root-2");
    let roots = async || {
        let bundle = running.client(None).bundle_json().await.unwrap();
        let count = bundle.keys.iter().filter(|key| key.purpose == "x509-svid").count();
        let pem = running.client(None).bundle().await.unwrap();
        assert_eq!(read_certificates(&pem, 8).unwrap().len(), count);
        (count, bundle.spiffe_sequence.unwrap(), bundle.spiffe_refresh_hint)
    };
    let (one, sequence, hint) = roots().await;
    assert_eq!((one, hint), (1, Some(1)));
    let trial = chancery_api::AddRootRequest { dry_run: true, ..request(&made) };
    let told = admin.ca_add_root(&trial).await.unwrap();
    assert!(told.done[0].starts_with("would be done: publish root"), "{told:?}");
    assert_eq!(roots().await, (1, sequence, hint), "nothing was done");

    let answer = admin.ca_add_root(&request(&made)).await.unwrap();
    assert_eq!(answer.planned[0].code, "noticed", "{answer:?}");
    let (two, risen, _) = roots().await;
    assert!(two == 2 && risen > sequence, "{two} roots, {risen} after {sequence}");
    let phases = async || -> Vec<String> {
        status(&running).await.roots.iter().map(|root| root.phase.clone()).collect()
    };
    assert_eq!(phases().await, ["active", "published"]);
    let again = admin.ca_add_root(&request(&made)).await.unwrap_err();
    assert!(again.to_string().contains("this root is published already"), "{again}");
    // Nobody trusts the new root before it is active.
    let next = rotate(&running.place, "root-2", "root-3");
    let early = admin.ca_add_root(&request(&next)).await.unwrap_err();
    assert_eq!(problem(&early), Some(ProblemCode::RootRefused), "{early}");

    let back =
        RollbackRequest { subject: RotationSubject::Root, dry_run: false, note: "not this one".into() };
    let undone = admin.ca_rollback(&back).await.unwrap();
    assert!(undone.done[0].starts_with("take root"), "{undone:?}");
    assert_eq!(phases().await, ["active", "withdrawn"]);
    assert_eq!(roots().await.0, 1);
    assert_eq!(problem(&admin.ca_rollback(&back).await.unwrap_err()), Some(ProblemCode::NotInThisState));
    let wish = RotateRequest { subject: RotationSubject::Root, dry_run: false, note: String::new() };
    let nothing = admin.ca_rotate(&wish).await.unwrap_err();
    assert!(nothing.to_string().contains("chancery ca root add"), "{nothing}");

    // Whoever brings it again wants it: it does not rest.
    admin.ca_add_root(&request(&made)).await.unwrap();
    super::until(&running, "an active root", |status| status.roots[1].phase == "active").await;
    admin.ca_add_root(&request(&next)).await.unwrap();
}
