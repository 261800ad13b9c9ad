//! Issuer and root follow each other while programs on a node meet all the time: no handshake fails, whatever of the
//! roots the two of them know.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chancery_api::{
    AddRootRequest, CaStatusResponse, IssuerState, RenewalRequest, RenewalScope, RotateRequest,
    RotationSubject,
};
use chancery_client::{Client, RetryPolicy, TrustAnchors};
use chancery_server::bootstrap::{RootRotated, add_spares, rotate_root};
use chancery_types::{
    Clock as _, HumanDuration, IssuerEpoch, KeyAlgorithm, SecretString, SystemClock, SystemRandom,
    TrustDomain,
};
use chancery_verify::live::{
    Acceptor, Allowed, Connector, Credentials, Judge, Rules, Status, Trust, WhenUnknown,
};
use chancery_x509::{Certificate, read_certificates, write_pem};
use rustls_pki_types::{CertificateDer, ServerName};

use crate::place::World;
use crate::running::{Place, id, skipped};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn passphrase() -> SecretString {
    SecretString::new("a long passphrase".into())
}

/// Issuers, roots and keys are published for four seconds before they are used.
fn quick(place: &Place) {
    place.edit(|raw| {
        raw.rotation.refresh_hint = "1s".parse().unwrap();
        raw.rotation.margin = "0s".parse().unwrap();
        raw.rotation.settle = "0s".parse().unwrap();
    });
    spare(place, "root");
}

fn spare(place: &Place, root: &str) {
    let root = place.beside(root);
    add_spares(&place.config(), &root, &passphrase(), 1, &SystemRandom, SystemClock.now()).unwrap();
}

fn new_root(place: &Place) -> RootRotated {
    let (old, new, passphrase) = (place.beside("root"), place.beside("root-2"), passphrase());
    let (old, new) = ((old.as_path(), &passphrase), (new.as_path(), &passphrase));
    rotate_root(old, new, KeyAlgorithm::P256, &SystemRandom, SystemClock.now()).unwrap()
}

fn open() -> Status {
    Status::not_followed(Rules { when_unknown: WhenUnknown::Open, ..Rules::default() })
}

/// Somebody who believes these roots and never hears of others.
fn knowing(roots: &[CertificateDer<'static>]) -> Judge {
    let trust = Trust::default();
    trust.add(&domain(), roots, open()).unwrap();
    Judge::new(trust, Allowed::members_of(domain()))
}

/// Somebody who believes what the Workload API says at the moment.
fn following(credentials: &Credentials) -> Judge {
    let trust = Trust::default();
    trust.follow(&domain(), credentials, open()).unwrap();
    Judge::new(trust, Allowed::members_of(domain()))
}

/// Two programs and their judges meet by TLS, both with certificates.
async fn meet(server: (&Credentials, &Judge), client: (&Credentials, &Judge)) -> Result<(), String> {
    let acceptor = Acceptor::new(server.1.clone(), server.0, &[]);
    let connector = Connector::new(client.1.clone(), client.0, &[]);
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    let (server, client) = tokio::join!(acceptor.accept(near), connector.connect(name, far));
    server.map_err(|error| format!("server: {error}"))?;
    client.map_err(|error| format!("client: {error}"))?;
    Ok(())
}

/// The number of the issuer that signed what this program shows.
fn epoch(shown: &[Vec<u8>]) -> u16 {
    Certificate::from_der(&shown[0]).unwrap().serial_number().unwrap().epoch().0
}

async fn until(admin: &Client, what: &str, is_so: impl Fn(&CaStatusResponse) -> bool) {
    let wait = async {
        while !is_so(&admin.ca_status().await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn signs(number: u16) -> impl Fn(&CaStatusResponse) -> bool {
    move |status| {
        status
            .issuers
            .iter()
            .any(|issuer| issuer.epoch.0 == number && issuer.state == Some(IssuerState::Active))
    }
}

/// What `openssl` says of a chain, by one root; nothing where there is none.
fn openssl(chain: &[Vec<u8>], root: &[u8]) -> Option<Result<(), String>> {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, certificates: &[Vec<u8>]| {
        let pem: String = certificates.iter().map(|der| write_pem("CERTIFICATE", der)).collect();
        std::fs::write(directory.path().join(name), pem).unwrap();
        directory.path().join(name)
    };
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-CAfile"])
        .arg(file("root.pem", &[root.to_vec()]))
        .arg("-untrusted")
        .arg(file("chain.pem", &chain[1..]))
        .arg(file("own.pem", &chain[..1]))
        .output()
        .ok()?;
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(told) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_meet_through_a_rotation_of_issuer_and_root_and_no_handshake_fails() {
    let world = World::with(quick).await;
    let old = std::fs::read(world.place().file("certs/root.crt")).unwrap();
    let old = CertificateDer::from(read_certificates(&old, 1).unwrap().remove(0));
    for name in ["web", "db"] {
        world.register_with(name, |identity| identity.dns_names = vec!["localhost".parse().unwrap()]).await;
    }
    let serving = world.serve("").await.unwrap();
    let socket = world.file("api.sock");
    let web = Credentials::from_workload_api(&socket, Some(id("web"))).await.unwrap();
    let db = Credentials::from_workload_api(&socket, Some(id("db"))).await.unwrap();
    let mut states = world.follow();

    let stop = Arc::new(AtomicBool::new(false));
    let meetings = Arc::new(AtomicU64::new(0));
    let polled: Arc<Mutex<Vec<CertificateDer<'static>>>> = Arc::new(Mutex::new(vec![old.clone()]));
    // Programs that hear of everything through the agent, that know nothing but the old root, and that poll the bundle.
    let worker = |number: usize| {
        let (web, db, old, polled) = (web.clone(), db.clone(), old.clone(), Arc::clone(&polled));
        let (stop, meetings) = (Arc::clone(&stop), Arc::clone(&meetings));
        tokio::spawn(async move {
            let (live_web, live_db) = (following(&web), following(&db));
            let stubborn = knowing(&[old]);
            while !stop.load(Ordering::Relaxed) {
                let poller = knowing(&polled.lock().unwrap().clone());
                let judges = [&live_web, &live_db, &stubborn, &poller];
                for (one, judge) in judges.iter().enumerate() {
                    let other = judges[(one + number) % judges.len()];
                    meet((&web, judge), (&db, other)).await.unwrap();
                    meet((&db, other), (&web, judge)).await.unwrap();
                    meetings.fetch_add(2, Ordering::Relaxed);
                }
            }
        })
    };
    let workers: Vec<_> = (0..3).map(worker).collect();
    // Clients that know only the old root, and make a new connection each time, poll the bundle.
    let poller = {
        let (stop, polled, place) = (Arc::clone(&stop), Arc::clone(&polled), world.url());
        let (anchors, web) = (TrustAnchors::from_certificates([old.clone()]).unwrap(), web.clone());
        tokio::spawn(async move {
            let mut sequences = BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                let client = Client::builder(place.parse().unwrap())
                    .trust(anchors.clone())
                    .identity(web.identity().unwrap())
                    .retry(RetryPolicy::never())
                    .build()
                    .unwrap();
                let roots = read_certificates(&client.bundle().await.unwrap(), 8).unwrap();
                *polled.lock().unwrap() = roots.into_iter().map(CertificateDer::from).collect();
                sequences.insert(client.bundle_json().await.unwrap().spiffe_sequence.unwrap());
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            sequences
        })
    };

    // An issuer takes the place of another under the same root.
    let rotate = RotateRequest { subject: RotationSubject::Issuer, dry_run: false, note: String::new() };
    world.admin().ca_rotate(&rotate).await.unwrap();
    until(&world.admin(), "issuer 2", signs(2)).await;
    replaced(&world, &mut states, 1, 2).await;

    // And a root that of another.
    let made = new_root(world.place());
    spare(world.place(), "root-2");
    let certificates = std::iter::once(made.root.certificate()).chain(made.root.vouchers());
    let certificates = certificates.map(|one| write_pem("CERTIFICATE", one.der())).collect();
    let request = AddRootRequest { certificates, dry_run: false, note: String::new() };
    world.admin().ca_add_root(&request).await.unwrap();
    until(&world.admin(), "issuer 3", signs(3)).await;
    let state = replaced(&world, &mut states, 2, 3).await;
    assert_eq!(state.bundles[&domain()].x509_authorities.len(), 2, "the Workload API tells of both roots");

    // Now those can be met who know the new root alone.
    let new = CertificateDer::from(made.root.certificate().der().to_vec());
    let modern = knowing(std::slice::from_ref(&new));
    let stubborn = knowing(std::slice::from_ref(&old));
    // The programs hear from the agent a moment after the agent knows.
    let heard = async {
        while meet((&web, &modern), (&db, &modern)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("both programs show certificates under the new root");
    for _ in 0..20 {
        for (one, other) in [(&modern, &stubborn), (&stubborn, &modern), (&modern, &modern)] {
            meet((&web, one), (&db, other)).await.unwrap();
            meetings.fetch_add(1, Ordering::Relaxed);
        }
    }
    for root in [&old, &new] {
        match openssl(&state.svids[0].chain, root) {
            Some(judgement) => judgement.unwrap(),
            None => skipped("programs meet", "there is no openssl"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    let sequences = poller.await.unwrap();
    assert!(sequences.len() >= 3, "the bundle says each time that it is another: {sequences:?}");
    println!("{} handshakes, bundles {sequences:?}: none failed", meetings.load(Ordering::Relaxed));
    serving.stop().await;
}

/// Agents replace what an issuer signed; the state of this process after it.
async fn replaced(
    world: &World,
    states: &mut tokio::sync::watch::Receiver<Arc<chancery_agent::identities::X509State>>,
    before: u16,
    after: u16,
) -> Arc<chancery_agent::identities::X509State> {
    let request = RenewalRequest {
        scope: RenewalScope::Issuer(IssuerEpoch(before)),
        over: Some(HumanDuration(Duration::from_secs(1))),
        note: String::new(),
    };
    world.admin().ask_renewal(&request).await.unwrap();
    let are_replaced = |state: &Arc<chancery_agent::identities::X509State>| {
        state.svids.len() == 2 && state.svids.iter().all(|svid| epoch(&svid.chain) == after)
    };
    crate::place::wait(states, PATIENCE, are_replaced).await
}
