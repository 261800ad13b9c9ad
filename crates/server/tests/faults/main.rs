//! What the authority does when the ground gives way: the disk is full, the directory cannot be written, the
//! token with the issuing key is gone. It says so, acknowledges nothing that it cannot keep, goes on answering
//! what others depend on, and works again when it can.
//!
//! The disks are a small tmpfs and an ext4 image of their own, which take root to mount; the token is SoftHSM.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod disk;
#[path = "../running/mod.rs"]
mod running;
#[path = "../witness/mod.rs"]
mod witness;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chancery_api::{CertificateStatus, CsrDer, EnrollResponse, Evidence, ProblemCode, RenewRequest};
use chancery_server::bootstrap::InitPlan;
use chancery_server::config::ServerName;
use chancery_x509::ocsp::{CertIdHash, IssuerHashes, OcspRequest};
use chancery_x509::{Certificate, read_certificates};

use disk::Disk;
use running::wire::Wire;
use running::{Held, Place, Running, csr, enrolment, fresh, new_key, plan, problem, skipped};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_writing_and_nothing_else() {
    for sparse in ["never", "always"] {
        let place = Place::new().await;
        let Some(disk) = Disk::in_memory("a_full_disk", place.beside("disk")) else { return };
        disk.take_ledger(&place, sparse);
        let server = place.serve().await.unwrap();
        let running = Running { place, server };
        let held = running.enroll("web").await;
        let witnessed = Mutex::new(vec![line(&held.response)]);
        disk.fill();

        // What is acknowledged is kept; what cannot be kept is refused, with the one code that says so.
        let (mut current, mut refusals) = (held, 0);
        for _ in 0..60 {
            match renew(&running, &current).await {
                Ok(next) => {
                    witnessed.lock().unwrap().push(line(&next.response));
                    current = next;
                }
                Err(error) => {
                    assert_eq!(problem(&error), Some(ProblemCode::LedgerUnavailable), "{sparse}: {error}");
                    refusals += 1;
                    if refusals == 5 {
                        break;
                    }
                }
            }
        }
        // Space that the journal had reserved may have lasted for all of them.
        assert!(refusals > 0 || sparse == "never", "{sparse}: a full disk refused nothing");

        // Others depend on these.
        others_are_served(&running, &current.response).await;

        // There is room again: it works again, by itself or after a restart.
        disk.empty();
        let began = Instant::now();
        let recovered = loop {
            match renew(&running, &current).await {
                Ok(next) => {
                    witnessed.lock().unwrap().push(line(&next.response));
                    break true;
                }
                Err(error) if began.elapsed() > Duration::from_secs(5) => {
                    assert_eq!(problem(&error), Some(ProblemCode::LedgerUnavailable), "{sparse}: {error}");
                    break false;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        println!("{sparse}: {refusals} refused while full; works again without a restart: {recovered}");
        running.server.stop().await;
        let Running { place, server } = running;
        drop(server);
        let acknowledged = witnessed.into_inner().unwrap();
        let found = witness::look_for(&place, &acknowledged, true).await.unwrap();
        assert_eq!(found.certificates, acknowledged.len(), "{sparse}");
        let server = place.serve().await.unwrap();
        let running = Running { place, server };
        running.enroll("db").await;
        running.server.stop().await;
    }
}

async fn others_are_served(running: &Running, response: &EnrollResponse) {
    let status = running.client(None).status(response.serial).await.unwrap().status;
    assert_eq!(status, CertificateStatus::Good);
    let issuer = std::fs::read(running.place.file("certs/issuer-1.crt")).unwrap();
    let issuer = Certificate::from_der(&read_certificates(&issuer, 1).unwrap().remove(0)).unwrap();
    let hashes = IssuerHashes::of(&issuer);
    let request = OcspRequest::to_der(&hashes, CertIdHash::Sha256, &[response.serial.as_bytes()], None);
    let mut wire = Wire::plain(running.server.status_address()).await;
    let headers = [("content-type", "application/ocsp-request")];
    let answer = wire.ask("POST /ocsp", &headers, &request).await.unwrap();
    // A signed answer, not the few bytes of an error.
    assert!(answer.status == 200 && answer.body.len() > 200, "{answer:?}");
    for path in ["/crl/full.der", "/v1/healthz"] {
        assert_eq!(wire.ask(&format!("GET {path}"), &[], b"").await.unwrap().status, 200, "{path}");
    }
    let mut wire = Wire::admin(running).await;
    for path in ["/v1/log/checkpoint", "/v1/identities", "/v1/certificates"] {
        assert_eq!(wire.ask(&format!("GET {path}"), &[], b"").await.unwrap().status, 200, "{path}");
    }
}

async fn renew(running: &Running, held: &Held) -> Result<Held, chancery_client::ClientError> {
    // With a new key at each try: had a refused one been recorded, the next would be a fork.
    let key = new_key();
    let request = RenewRequest { csr: CsrDer::from_der(csr(&key)), lifetime: None, receipt: false };
    let response = running.client(Some(held.identity())).renew(&request, &fresh()).await?;
    Ok(Held { key, response })
}

fn line(response: &EnrollResponse) -> String {
    witness::certificate_line(response)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_cannot_be_written_is_refused_at_the_start() {
    let place = Place::new().await;
    let Some(disk) = Disk::in_memory("a_directory_that_cannot_be_written", place.beside("disk")) else {
        return;
    };
    disk.take_ledger(&place, "never");
    disk.remount("ro");
    let refused = place.serve().await.unwrap_err().to_string();
    println!("read-only: {refused}");
    assert!(
        refused.contains(disk.path().to_str().unwrap()) || refused.to_lowercase().contains("read-only"),
        "{refused}"
    );
    disk.remount("rw");
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    running.enroll("web").await;
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_turns_read_only_stops_writing_and_nothing_else() {
    let place = Place::new().await;
    let image = place.beside("image");
    let Some(disk) = Disk::of_blocks("a_file_system_that_turns_read_only", place.beside("disk"), &image)
    else {
        return;
    };
    disk.take_ledger(&place, "never");
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    let held = running.enroll("web").await;
    let renewed = running.renew(&held).await.unwrap();
    let acknowledged = [line(&held.response), line(&renewed.response)];

    // As ext4 does by itself once it has found an error: from here on nothing can be written.
    disk.remount("abort");
    for _ in 0..3 {
        let refused = renew(&running, &renewed).await.map(|_| ()).unwrap_err();
        assert_eq!(problem(&refused), Some(ProblemCode::LedgerUnavailable), "{refused}");
    }
    others_are_served(&running, &renewed.response).await;
    let mut wire = Wire::admin(&running).await;
    let ready = wire.ask("GET /v1/readyz", &[], b"").await.unwrap();
    assert_eq!(ready.problem().as_deref(), Some("not-ready"), "{}", ready.text());
    println!("read-only while it runs: {}", ready.text());
    running.server.stop().await;
    let Running { place, server } = running;
    drop((server, wire));

    // The disk is repaired and mounted again: what was acknowledged is there, and it works.
    let mut disk = disk;
    disk.repair(&image);
    let found = witness::look_for(&place, &acknowledged, true).await.unwrap();
    assert_eq!(found.certificates, acknowledged.len());
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    running.renew(&renewed).await.unwrap();
    running.server.stop().await;
}

const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
];
/// Tells a process of this program where its token is: a module reads its configuration from the environment.
const TOKEN: &str = "CHANCERY_TEST_TOKEN";

#[test]
fn an_issuer_in_a_token_issues_and_says_when_the_token_is_gone() {
    const NAME: &str = "an_issuer_in_a_token";
    let Some(module) = MODULES.iter().find(|path| Path::new(path).exists()) else {
        return skipped(NAME, "SoftHSM2 is not installed (softhsm2)");
    };
    let around = tempfile::tempdir().unwrap();
    let file = |name: &str| around.path().join(name);
    std::fs::create_dir(file("tokens")).unwrap();
    let tokens = format!("directories.tokendir = {}\nlog.level = ERROR\n", file("tokens").display());
    std::fs::write(file("softhsm2.conf"), tokens).unwrap();
    write_secret(&file("pin"), "4711-pin\n");
    let made = Command::new("softhsm2-util")
        .args([
            "--init-token",
            "--free",
            "--label",
            "ca",
            "--pin",
            "4711-pin",
            "--so-pin",
            "security-officer",
        ])
        .env("SOFTHSM2_CONF", file("softhsm2.conf"))
        .output();
    match made {
        Ok(output) if output.status.success() => {}
        other => return skipped(NAME, &format!("softhsm2-util makes no token: {other:?}")),
    }
    let uri = format!("pkcs11:token=ca?module-path={module}&pin-source={}", file("pin").display());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["with_a_token", "--exact", "--nocapture", "--ignored"])
        .env(TOKEN, &uri)
        .env("SOFTHSM2_CONF", file("softhsm2.conf"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    print!("{said}");
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Not a test: the process that the test above starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that the test above starts"]
async fn with_a_token() {
    let Ok(token) = std::env::var(TOKEN) else { return };
    let plan =
        InitPlan { token: Some(token), names: vec![ServerName::parse("localhost").unwrap()], ..plan() };
    let place = Place::with(plan, |_| {}).await;
    assert!(!place.file("keys/issuer-1.key").exists(), "the issuing key is in the token alone");
    let server = place.serve().await.unwrap();
    let running = Running { place, server };
    let held = running.enroll("web").await;
    let held = running.renew(&held).await.unwrap();

    // The token's data is gone while the server runs.
    let configuration = PathBuf::from(std::env::var("SOFTHSM2_CONF").unwrap());
    let tokens = configuration.with_file_name("tokens");
    std::fs::rename(&tokens, tokens.with_extension("gone")).unwrap();
    std::fs::create_dir(&tokens).unwrap();
    let mut codes = Vec::new();
    for _ in 0..3 {
        let token = running.token("web").await.token;
        let request = enrolment(&new_key(), Evidence::JoinToken { token });
        match running.client(None).enroll(&request, &fresh()).await {
            // The module may have the key in its memory.
            Ok(_) => codes.push(None),
            Err(error) => {
                assert_eq!(problem(&error), Some(ProblemCode::KeyUnavailable), "{error}");
                codes.push(problem(&error));
            }
        }
    }
    println!("without the token's files: {codes:?}");
    others_are_served(&running, &held.response).await;
    running.server.stop().await;
    let Running { place, server } = running;
    drop(server);

    // Nor does it start without it, and says which key is missing.
    let config = place.file("chancery.toml");
    let refused = start_elsewhere(&config);
    println!("start without the token: {refused}");
    assert!(refused.contains("issuer key"), "{refused}");
    std::fs::remove_dir(&tokens).unwrap();
    std::fs::rename(tokens.with_extension("gone"), &tokens).unwrap();
    assert_eq!(start_elsewhere(&config), "started");
}

/// Starts a server in a process of its own, whose module knows nothing of before; says what came of it.
fn start_elsewhere(config: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["starts_or_says_why_not", "--exact", "--nocapture", "--ignored"])
        .env(TOKEN, config)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let found =
        said.lines().find_map(|line| line.split_once("result: ")).map(|(_, result)| result.to_owned());
    found.unwrap_or_else(|| panic!("{said} {}", String::from_utf8_lossy(&output.stderr)))
}

/// Not a test: see [`start_elsewhere`].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that the test above starts"]
async fn starts_or_says_why_not() {
    let Ok(config) = std::env::var(TOKEN) else { return };
    let place = Place::existing(Path::new(&config).parent().unwrap().to_owned());
    match place.serve().await {
        Ok(server) => {
            println!("result: started");
            server.stop().await;
        }
        Err(error) => println!("result: {error}"),
    }
}
