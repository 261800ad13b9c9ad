//! Which check a peer fails, and what rustls makes of it.

use rcgen::{ExtendedKeyUsagePurpose, IsCa, date_time_ymd};
use rustls::{AlertDescription, CertificateError, Error};
use rustls_pki_types::UnixTime;

use super::super::judge::unix_time;
use super::*;

fn now() -> UnixTime {
    unix_time(SystemClock.now())
}

fn alert(refusal: &Refusal) -> AlertDescription {
    match refusal.to_rustls() {
        Error::InvalidCertificate(error) => error.into(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_check_refuses_by_its_own_name_and_with_its_own_alert() {
    let (domain, other, stranger) =
        (Domain::new("example.org"), Domain::new("other.org"), Domain::new("example.org"));
    let status = all_good(Rules::default());
    let judge = Judge::new(domain.trusted(&status), domain.members());
    let refuse = |held: &Held| judge.judge(&held.chain, Side::Client, now()).unwrap_err();

    let good = domain.issue("/web");
    let judged = judge.judge(&good.chain, Side::Client, now()).unwrap();
    assert_eq!(judged.peer.serial, Some(good.serial));
    assert_eq!(judged.peer.id.as_str(), "spiffe://example.org/web");
    assert!(judge.judge(&good.chain, Side::Server, now()).is_ok());

    let refusal = judge.judge(&[], Side::Client, now()).unwrap_err();
    assert_eq!(refusal, Refusal::NoCertificate);
    let refusal = judge.judge(&[CertificateDer::from(vec![1, 2])], Side::Client, now()).unwrap_err();
    assert!(matches!(refusal, Refusal::Unreadable(_)));

    let two = ["spiffe://example.org/a", "spiffe://example.org/b"];
    for (uris, count) in [(&two[..], 2), (&[], 0), (&["https://example.org/a"], 1)] {
        let refusal = refuse(&domain.issue_with(uris, BOTH, |_| {}));
        assert_eq!(refusal, Refusal::Identity(count));
        assert_eq!(alert(&refusal), AlertDescription::BadCertificate);
    }
    let refusal = refuse(&domain.issue_with(&["spiffe://example.org"], BOTH, |_| {}));
    assert!(matches!(&refusal, Refusal::NotAllowed(_)));
    assert_eq!(alert(&refusal), AlertDescription::AccessDenied);

    let refusal = refuse(&other.issue("/web"));
    assert!(matches!(&refusal, Refusal::Domain { .. }));
    assert_eq!(alert(&refusal), AlertDescription::UnknownCA);
    // Says that it is of our domain, and is of somebody else's root; and the other way round.
    for forged in [stranger.issue("/web"), other.issue_with(&["spiffe://example.org/web"], BOTH, |_| {})] {
        let refusal = refuse(&forged);
        assert!(matches!(&refusal, Refusal::Chain { .. }), "{refusal}");
        // The roots have one name, so that it is the signature that tells.
        assert_eq!(alert(&refusal), AlertDescription::DecryptError);
    }

    let expired = domain.issue_with(&["spiffe://example.org/web"], BOTH, |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    assert_eq!(alert(&refuse(&expired)), AlertDescription::CertificateExpired);
    let servers_only =
        domain.issue_with(&["spiffe://example.org/web"], &[ExtendedKeyUsagePurpose::ServerAuth], |_| {});
    assert_eq!(alert(&refuse(&servers_only)), AlertDescription::UnsupportedCertificate);
    assert!(judge.judge(&servers_only.chain, Side::Server, now()).is_ok());
    let authority = domain.issue_with(&["spiffe://example.org/web"], BOTH, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    assert!(matches!(refuse(&authority), Refusal::Chain { .. }));

    let nobody = judge.allowing(Allowed::default()).judge(&good.chain, Side::Client, now()).unwrap_err();
    assert!(matches!(nobody, Refusal::NotAllowed(_)));

    know(&status, 2, &[good.serial]);
    let refusal = refuse(&good);
    assert_eq!(refusal, Refusal::NotGood(NotGood::Listed));
    assert_eq!(alert(&refusal), AlertDescription::CertificateRevoked);
}

#[tokio::test]
async fn unknown_standing_is_decided_by_the_rules() {
    let domain = Domain::new("example.org");
    let held = domain.issue("/web");
    for (when_unknown, is_let_in) in [(WhenUnknown::Open, true), (WhenUnknown::Closed, false)] {
        let rules = Rules { when_unknown, ..Rules::default() };
        for status in [Status::followed(rules), Status::not_followed(rules)] {
            let judge = Judge::new(domain.trusted(&status), domain.members());
            let judged = judge.judge(&held.chain, Side::Client, now());
            assert_eq!(judged.is_ok(), is_let_in);
            if let Err(refusal) = judged {
                assert!(matches!(refusal, Refusal::Unknown(_)));
                assert_eq!(alert(&refusal), AlertDescription::CertificateUnknown);
            }
        }
        // A serial number of another form is none that the set could speak of.
        let status = all_good(rules);
        let foreign = domain.issue_with(&["spiffe://example.org/web"], BOTH, |params| {
            params.serial_number = Some(rcgen::SerialNumber::from(77_u64));
        });
        let judge = Judge::new(domain.trusted(&status), domain.members());
        assert_eq!(judge.judge(&foreign.chain, Side::Client, now()).is_ok(), is_let_in);
    }
}

#[tokio::test]
async fn each_domain_has_its_own_roots_and_status_and_roots_are_replaced_while_running() {
    let (here, there, later) =
        (Domain::new("example.org"), Domain::new("other.org"), Domain::new("example.org"));
    let (near, far) = (all_good(Rules::default()), all_good(Rules::default()));
    let trust = here.trusted(&near);
    trust.add(&there.name, std::slice::from_ref(&there.root), far.clone()).unwrap();
    let judge = Judge::new(trust.clone(), here.members().or(there.members()));
    let (ours, theirs, new) = (here.issue("/web"), there.issue("/web"), later.issue("/web"));
    assert_eq!(ours.serial, theirs.serial, "so that the test says something");
    let passes = |held: &Held| judge.judge(&held.chain, Side::Client, now()).is_ok();
    assert!(passes(&ours) && passes(&theirs) && !passes(&new));
    know(&near, 2, &[ours.serial]);
    assert!(!passes(&ours) && passes(&theirs));
    trust.replace_roots(&here.name, std::slice::from_ref(&later.root)).unwrap();
    know(&near, 3, &[]);
    assert!(passes(&new) && !passes(&ours));
    // A bundle that cannot be used changes nothing.
    for (roots, domain) in [
        (vec![], &here.name),
        (vec![CertificateDer::from(vec![1])], &here.name),
        (vec![here.root.clone()], &"no.org".parse().unwrap()),
    ] {
        assert!(trust.replace_roots(domain, &roots).is_err());
    }
    assert!(passes(&new));
    trust.remove(&there.name);
    assert!(!passes(&theirs));
}

#[test]
fn errors_that_have_room_for_it_say_everything() {
    let refusal = Refusal::Unknown(Unknown::Nothing);
    assert!(matches!(refusal.to_rustls(), Error::InvalidCertificate(CertificateError::Other(_))));
}
