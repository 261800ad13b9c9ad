//! The JWT-SVID profile.

use chancery_agent::identities::{JwtError, JwtSvid};
use chancery_agent::proto::workload::{JwtsvidRequest, ValidateJwtsvidRequest};
use chancery_agent::workload::AttestationError;
use chancery_types::Clock;
use prost_types::value::Kind;
use std::time::Duration;
use tonic::Code;

use crate::world::{Authority, World};

fn audiences(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn request(names: &[&str], spiffe_id: &str) -> JwtsvidRequest {
    JwtsvidRequest { audience: audiences(names), spiffe_id: spiffe_id.to_owned() }
}

/// Lets the core make tokens of these identities for audience `reports`.
fn stock(world: &World, identities: &[(&str, &str)]) {
    let svid = |&(path, hint): &(&str, &str)| JwtSvid {
        spiffe_id: world.authority.id(path),
        token: world.authority.token(path, &audiences(&["reports"]), world.clock.now()),
        hint: hint.to_owned(),
        expires: world.clock.now() + Duration::from_secs(300),
    };
    *world.core.jwt.lock().unwrap() = Ok(identities.iter().map(svid).collect());
}

#[tokio::test]
async fn refuses_requests_without_a_usable_audience() {
    let world = World::open().await;
    stock(&world, &[("/web", "")]);
    let mut client = world.client().await;
    let many = (0..33).map(|number| number.to_string()).collect();
    let long = "x".repeat(2049);
    for wrong in [
        request(&[], ""),
        request(&[""], ""),
        request(&["reports", ""], ""),
        request(&[&long], ""),
        JwtsvidRequest { audience: many, spiffe_id: String::new() },
        request(&["reports"], "https://example.org/web"),
        request(&["reports"], "spiffe://example.org/web/"),
    ] {
        let status = client.fetch_jwtsvid(wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    assert!(world.core.jwt_asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn gives_tokens_of_all_identities_or_of_the_one_that_is_named() {
    let world = World::open().await;
    stock(&world, &[("/web", "a"), ("/admin", "b"), ("/job", "a")]);
    let mut client = world.client().await;
    let all = client.fetch_jwtsvid(request(&["reports", "reports"], "")).await.unwrap().into_inner();
    let ids: Vec<&str> = all.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect();
    assert_eq!(ids, ["spiffe://example.org/web", "spiffe://example.org/admin", "spiffe://example.org/job"]);
    let hints: Vec<&str> = all.svids.iter().map(|svid| svid.hint.as_str()).collect();
    assert_eq!(hints, ["a", "b", ""], "unique");
    let one = client.fetch_jwtsvid(request(&["reports"], "spiffe://example.org/admin")).await.unwrap();
    assert_eq!(one.into_inner().svids.len(), 1);
    let other = client.fetch_jwtsvid(request(&["reports"], "spiffe://example.org/root")).await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    let asked = world.core.jwt_asked.lock().unwrap();
    assert_eq!(asked[0], (audiences(&["reports"]), None));
    assert_eq!(asked[1].1, Some(world.authority.id("/admin")));
}

#[tokio::test]
async fn what_the_authority_says_becomes_a_status() {
    let world = World::open().await;
    let mut client = world.client().await;
    for (error, code) in [
        (JwtError::NoIdentity, Code::PermissionDenied),
        (JwtError::Refused("held".to_owned()), Code::PermissionDenied),
        (JwtError::Unavailable("refused connection".to_owned()), Code::Unavailable),
    ] {
        *world.core.jwt.lock().unwrap() = Err(error);
        assert_eq!(client.fetch_jwtsvid(request(&["reports"], "")).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn a_process_that_has_become_another_gets_no_token() {
    let world = World::open().await;
    stock(&world, &[("/web", "")]);
    world.kernel.fate.send_replace(Some(AttestationError::Changed));
    let mut client = world.client().await;
    let status = client.fetch_jwtsvid(request(&["reports"], "")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(world.core.jwt_asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn validates_a_token_and_returns_its_claims() {
    let world = World::open().await;
    let partner = Authority::new("partner.example");
    world.give(vec![world.authority.svid("/web", "")], &[&partner]);
    let mut client = world.client().await;
    for authority in [&world.authority, &partner] {
        let svid = authority.token("/job", &audiences(&["reports"]), world.clock.now());
        let request = ValidateJwtsvidRequest { audience: "reports".to_owned(), svid };
        let answer = client.validate_jwtsvid(request).await.unwrap().into_inner();
        assert_eq!(answer.spiffe_id, authority.id("/job").as_str());
        let claims = answer.claims.unwrap().fields;
        assert_eq!(claims["iss"].kind, Some(Kind::StringValue("https://issuer.example.org".to_owned())));
        assert!(matches!(claims["nested"].kind, Some(Kind::StructValue(_))));
        assert!(matches!(claims["exp"].kind, Some(Kind::NumberValue(_))));
    }
}

#[tokio::test]
async fn a_bad_token_is_an_invalid_argument() {
    let world = World::open().await;
    world.entitle();
    let stranger = Authority::new("example.org");
    let foreign = Authority::new("stranger.example");
    let (now, reports) = (world.clock.now(), audiences(&["reports"]));
    let mut client = world.client().await;
    let old = now - Duration::from_secs(3600);
    for (audience, svid) in [
        ("", world.authority.token("/job", &reports, now)),
        ("reports", String::new()),
        ("reports", "nonsense".to_owned()),
        ("other", world.authority.token("/job", &reports, now)),
        ("reports", world.authority.token("/job", &reports, old)),
        ("reports", stranger.token("/job", &reports, now)),
        ("reports", foreign.token("/job", &reports, now)),
    ] {
        let request = ValidateJwtsvidRequest { audience: audience.to_owned(), svid };
        assert_eq!(client.validate_jwtsvid(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
}
