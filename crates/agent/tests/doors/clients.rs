//! Clients that are not ours: the crate `spiffe` and the Python package `spiffe`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use chancery_agent::identities::JwtSvid;
use chancery_types::Clock;
use spiffe::{JwtSource, TrustDomain, WorkloadApiClient, X509Source};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use crate::world::{Authority, World, skipped};

fn stock_tokens(world: &World) {
    let token = world.authority.token("/web", &["reports".to_owned()], world.clock.now());
    let expires = world.clock.now() + Duration::from_secs(300);
    let svid = JwtSvid { spiffe_id: world.authority.id("/web"), token, hint: "internal".to_owned(), expires };
    *world.core.jwt.lock().unwrap() = Ok(vec![svid]);
}

fn endpoint(world: &World) -> String {
    format!("unix://{}", world.path().display())
}

#[tokio::test]
async fn the_rust_crate_reads_identities_and_bundles() {
    let world = World::open().await;
    let partner = Authority::new("partner.example");
    let svid = world.authority.svid("/web", "internal");
    world.give(vec![svid.clone(), world.authority.svid("/admin", "")], &[&partner]);
    stock_tokens(&world);
    let client = WorkloadApiClient::connect_to(endpoint(&world)).await.unwrap();
    let context = client.fetch_x509_context().await.unwrap();
    let default = context.default_svid().unwrap();
    assert_eq!(default.spiffe_id().to_string(), "spiffe://example.org/web");
    assert_eq!(default.hint(), Some("internal"));
    assert_eq!(default.private_key().as_ref(), svid.key.expose_secret());
    assert_eq!(default.cert_chain().len(), 2);
    assert_eq!(client.fetch_all_x509_svids().await.unwrap().len(), 2);
    let bundles = client.fetch_x509_bundles().await.unwrap();
    let keys = client.fetch_jwt_bundles().await.unwrap();
    for name in ["example.org", "partner.example"] {
        let domain = TrustDomain::new(name).unwrap();
        assert_eq!(bundles.get(&domain).unwrap().authorities().len(), 1);
        assert!(keys.get(&domain).unwrap().find_jwt_authority("k1").is_some());
    }
    let token = client.fetch_jwt_token(["reports"], None).await.unwrap();
    let validated = client.validate_jwt_token("reports", &token).await.unwrap();
    assert_eq!(validated.spiffe_id().to_string(), "spiffe://example.org/web");
    assert!(client.validate_jwt_token("others", &token).await.is_err());
}

#[tokio::test]
async fn the_sources_of_the_rust_crate_follow_rotations() {
    let world = World::open().await;
    world.entitle();
    stock_tokens(&world);
    let source = X509Source::builder().endpoint(endpoint(&world)).build().await.unwrap();
    let mut updates = source.updated();
    let rotated = world.entitle();
    loop {
        if source.svid().unwrap().private_key().as_ref() == rotated.key.expose_secret() {
            break;
        }
        updates.changed().await.unwrap();
    }
    let tokens = JwtSource::builder().endpoint(endpoint(&world)).build().await.unwrap();
    let svid = tokens.fetch_jwt_svid(["reports"]).await.unwrap();
    assert_eq!(svid.spiffe_id().to_string(), "spiffe://example.org/web");
}

#[tokio::test]
async fn the_rust_crate_is_told_that_it_has_no_identity() {
    let world = World::open().await;
    let client = WorkloadApiClient::connect_to(endpoint(&world)).await.unwrap();
    let refused = client.fetch_x509_context().await.unwrap_err();
    assert!(matches!(refused, spiffe::WorkloadApiError::NoIdentityIssued), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_package_reads_follows_and_validates() {
    let Some(python) = python_with_spiffe().await else { return };
    let world = World::open().await;
    let partner = Authority::new("partner.example");
    let first = world.authority.svid("/web", "internal");
    world.give(vec![first], &[&partner]);
    stock_tokens(&world);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doors/client.py");
    let mut child = Command::new(python)
        .arg(script)
        .env("SPIFFE_ENDPOINT_SOCKET", endpoint(&world))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(next(&mut lines).await, "svid spiffe://example.org/web chain 2");
    assert_eq!(next(&mut lines).await, "bundles example.org partner.example");
    assert_eq!(next(&mut lines).await, "token spiffe://example.org/web reports");
    assert_eq!(next(&mut lines).await, "refused others");
    world.give(vec![world.authority.svid("/rotated", "")], &[]);
    assert_eq!(next(&mut lines).await, "rotated spiffe://example.org/rotated");
    world.withdraw();
    // The script asks until it is refused.
    assert_eq!(next(&mut lines).await, "denied");
    assert!(child.wait().await.unwrap().success());
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
    line.expect("the script says something").unwrap().expect("the script has not ended")
}

/// A Python with the package, in a folder that later runs find again; nothing, said aloud, where there is no network.
async fn python_with_spiffe() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-spiffe-0.3.2");
    let python = folder.join("bin/python");
    let imports = || Command::new(&python).args(["-c", "import spiffe"]).stderr(Stdio::null()).status();
    if imports().await.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let folder = folder.to_str().unwrap().to_owned();
    let pip = python.to_str().unwrap().to_owned();
    let steps: [Vec<&str>; 2] = [
        vec!["python3", "-m", "venv", "--clear", &folder],
        vec![&pip, "-m", "pip", "install", "--quiet", "--retries", "1", "spiffe==0.3.2"],
    ];
    for step in steps {
        let done = Command::new(step[0]).args(&step[1..]).stdout(Stdio::null()).status().await;
        if !done.is_ok_and(|status| status.success()) {
            skipped("the Python client", &format!("failed: {}", step.join(" ")));
            return None;
        }
    }
    Some(python)
}
