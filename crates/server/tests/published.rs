//! What is published, over real sockets: the door without TLS, the log, the export; openssl as the judge of
//! OCSP.

#![expect(clippy::unwrap_used, reason = "a test's helpers stop the test")]
#![expect(clippy::print_stderr, reason = "a judge that is missing must be noticed")]

mod running;

use std::process::Command;
use std::sync::Arc;

use chancery_api::{AuditExportQuery, ExportFooter, ExportHeader, IssuerState, LogEntriesQuery, ProblemCode};
use chancery_client::{Client, ClientError, TlsIdentity, TrustAnchors};
use chancery_merkle::{LogKeys, NoteVerifier, Receipt, VerifiedCheckpoint, read_bundle};
use chancery_server::Server;
use chancery_server::authority::OnlineRoot;
use chancery_server::bootstrap::{InitPlan, InitReport, init};
use chancery_server::config::{Config, ServerName};
use chancery_status::{SignedSet, Standing};
use chancery_types::{IssuerEpoch, SecretString, SystemClock, SystemRandom, TrustDomain};
use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Running {
    place: tempfile::TempDir,
    report: InitReport,
    server: Server,
}

impl Running {
    async fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let plan = InitPlan {
            directory: place.path().join("ca"),
            names: vec![ServerName::parse("localhost").unwrap()],
            ..running::plan()
        };
        let passphrase = SecretString::new("a long passphrase".into());
        let root = place.path().join("root");
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        let report = init(&plan, &root, &passphrase, clock.clone(), random.clone()).await.unwrap();
        let config = Config::load(&report.finished.config).unwrap();
        let server = Server::start(config, OnlineRoot::Refuse, clock, random).await.unwrap();
        Self { place, report, server }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join("ca").join(name)
    }

    fn operator(&self) -> Client {
        let read = |path| std::fs::read(path).unwrap();
        let finished = &self.report.finished;
        let url = format!("https://localhost:{}", self.server.api_address().port());
        let identity =
            TlsIdentity::from_pem(&read(&finished.operator_certificate), &read(&finished.operator_key));
        Client::builder(url.parse().unwrap())
            .trust(TrustAnchors::from_pem(&read(&self.file("certs/root.crt"))).unwrap())
            .identity(identity.unwrap())
            .build()
            .unwrap()
    }

    /// A request without TLS; lines of headers end in CRLF.
    async fn get(&self, path: &str, headers: &str) -> Answer {
        let mut stream = TcpStream::connect(self.server.status_address()).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        Answer { head, body: bytes[end + 4..].to_vec() }
    }

    /// The same once there is a list.
    async fn get_list(&self, path: &str) -> Answer {
        for _ in 0..500 {
            let answer = self.get(path, "").await;
            if answer.status() != "503" {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("no list was published");
    }
}

struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn status(&self) -> &str {
        &self.head[9..12]
    }

    fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default()
    }
}

fn openssl(arguments: &[&str]) -> Option<String> {
    match Command::new("openssl").args(arguments).output() {
        Ok(output) => Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()),
        Err(_) => {
            eprintln!("SKIPPED: openssl is not installed, so nothing judges the answers here");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_without_tls_has_what_certificates_point_to_and_nothing_else() {
    let running = Running::start().await;
    let issuer = running.operator().issuers().await.unwrap().issuers.remove(0);
    assert_eq!((issuer.epoch.0, issuer.state), (1, IssuerState::Active));

    let certificate = running.get("/ca/1.der", "").await;
    assert_eq!(certificate.header("content-type"), "application/pkix-cert");
    assert!(issuer.certificate.replace('\n', "").contains(&BASE64.encode(&certificate.body)));

    let list = running.get_list("/crl/1.crl").await;
    assert_eq!((list.status(), list.header("content-type")), ("200", "application/pkix-crl"));
    assert_eq!(list.header("cache-control"), "public, max-age=30");
    assert_eq!(running.get("/crl/full.der", "").await.body, list.body);
    let pem = running.get("/crl/full.pem", "").await;
    let text = String::from_utf8(pem.body).unwrap();
    assert!(text.starts_with("-----BEGIN X509 CRL-----\n"));
    assert!(text.replace('\n', "").contains(&BASE64.encode(&list.body)));
    let known = format!("if-none-match: {}\r\n", list.header("etag"));
    let unchanged = running.get("/crl/1.crl", &known).await;
    assert_eq!((unchanged.status(), unchanged.body.len()), ("304", 0));
    let since = format!("if-modified-since: {}\r\n", list.header("last-modified"));
    assert_eq!(running.get("/crl/1.crl", &since).await.status(), "304");

    let part = running.get_list("/crl/1/16/3.crl").await;
    assert_eq!((part.status(), part.header("content-type")), ("200", "application/pkix-crl"));
    assert_ne!(part.body, list.body);
    let known = format!("if-none-match: {}\r\n", part.header("etag"));
    assert_eq!(running.get("/crl/1/16/3.crl", &known).await.status(), "304");

    assert_eq!(running.get("/v1/healthz", "").await.status(), "200");
    let others = [
        "/crl/2.crl",
        "/crl/01.crl",
        "/crl/1/16/16.crl",
        "/crl/1/16/03.crl",
        "/crl/1/4/0.crl",
        "/crl/+1/16/3.crl",
        "/ca/2.der",
        "/ca/1",
        "/v1/bundle",
        "/v1/enroll",
        "/metrics",
        "/",
    ];
    for path in others {
        assert_eq!(running.get(path, "").await.status(), "404", "{path}");
    }
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ocsp_in_the_path_is_answered_however_it_is_spelt() {
    let running = Running::start().await;
    let file = |name: &str| running.file(name).to_str().unwrap().to_owned();
    let (issuer, chain) = (file("certs/issuer-1.crt"), file("chain.pem"));
    let leaf = running.report.finished.operator_certificate.to_str().unwrap().to_owned();
    let (request, answer) = (file("request.der"), file("answer.der"));
    let both = [std::fs::read(&issuer).unwrap(), std::fs::read(file("certs/root.crt")).unwrap()].concat();
    std::fs::write(&chain, both).unwrap();
    let make = ["ocsp", "-issuer", &issuer, "-cert", &leaf, "-no_nonce", "-reqout", &request];
    if openssl(&make).is_none() {
        return;
    }
    let base64 = BASE64.encode(&std::fs::read(&request).unwrap());
    let escaped = base64.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    for spelling in [&base64, &escaped, &format!("/{base64}"), base64.trim_end_matches('=')] {
        let found = running.get(&format!("/ocsp/{spelling}"), "").await;
        assert_eq!(found.header("content-type"), "application/ocsp-response");
        assert_eq!(found.header("cache-control"), "max-age=60, public, no-transform, must-revalidate");
        std::fs::write(&answer, &found.body).unwrap();
        let judge = ["ocsp", "-respin", &answer, "-issuer", &issuer, "-cert", &leaf, "-CAfile", &chain];
        let text = openssl(&judge).unwrap();
        assert!(text.contains("Response verify OK") && text.contains(": good"), "{spelling}: {text}");
    }
    let malformed = running.get("/ocsp/not-a-request", "").await;
    // OCSPResponse with the status malformedRequest (RFC 6960 section 4.2.1), which no cache keeps.
    assert_eq!(malformed.body, [0x30, 3, 0x0a, 1, 1]);
    assert_eq!(malformed.header("cache-control"), "no-store");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_proves_what_it_says_and_the_export_is_whole() {
    let running = Running::start().await;
    let operator = running.operator();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let key: LogKeys = text(&operator.log_key().await.unwrap()).parse().unwrap();
    let note = text(&operator.log_checkpoint().await.unwrap());
    let size = VerifiedCheckpoint::open_text(&note, &key, &[]).unwrap().checkpoint().size();
    assert!(size > 2);

    let bundle = operator.log_tile(&format!("entries/000.p/{size}")).await.unwrap();
    let bundle = read_bundle(&bundle, u16::try_from(size).unwrap()).unwrap();
    let query = LogEntriesQuery { start: 0, count: Some(size) };
    let shown = operator.log_entries(&query).await.unwrap();
    assert_eq!(shown.entries.len() as u64, size);
    assert_eq!(shown.entries[0].entry["kind"], "genesis");
    for (entry, leaf) in shown.entries.iter().zip(&bundle) {
        assert_eq!(entry.bytes, BASE64.encode(leaf));
    }
    let hashes = operator.log_tile(&format!("0/000.p/{size}")).await.unwrap();
    assert_eq!(hashes[..32], *shown.entries[0].leaf_hash.as_bytes());
    for (tile, code) in [("0/000", ProblemCode::NotFound), ("0/0", ProblemCode::MalformedRequest)] {
        let refused = operator.log_tile(tile).await.unwrap_err();
        assert!(
            matches!(refused, ClientError::Problem(ref it) if it.known_code() == Some(code)),
            "{refused}"
        );
    }

    let proof = operator.log_proof(running.report.finished.operator_serial).await.unwrap();
    let receipt: Receipt = proof.receipt.parse().unwrap();
    assert_eq!(receipt.index, proof.log_index);
    receipt.verify(&BASE64.decode(proof.entry.as_bytes()).unwrap(), &key, &[]).unwrap();

    let mut export = operator.export_audit(&AuditExportQuery::default()).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(part) = export.next_chunk().await.unwrap() {
        bytes.extend_from_slice(&part);
    }
    let exported = text(&bytes);
    let lines: Vec<&str> = exported.lines().collect();
    let header: ExportHeader = serde_json::from_str(lines[0]).unwrap();
    let footer: ExportFooter = serde_json::from_str(lines[lines.len() - 1]).unwrap();
    assert!(header.size >= size && header.issuers.len() == 1);
    assert_eq!((footer.entries, lines.len() as u64), (header.size, header.size + 2));
    running.server.stop().await;
}

/// The set that is served once it names so many certificates.
async fn set_of(running: &Running, key: &NoteVerifier, wanted: usize) -> (SignedSet, String) {
    let domain = TrustDomain::parse("example.org").unwrap();
    for _ in 0..500 {
        let answer = running.get_list("/v1/status/set").await;
        assert_eq!(answer.header("content-type"), "application/vnd.chancery.status-set");
        assert_eq!(answer.header("cache-control"), "public, max-age=1");
        let tag = answer.header("etag").to_owned();
        let set = SignedSet::open(answer.body.into(), &domain, std::slice::from_ref(key)).unwrap();
        if set.set().len() == wanted {
            return (set, tag);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no set names {wanted} certificates");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exact_set_follows_revocations_and_its_deltas_lead_to_it() {
    let running = Running::start().await;
    let (operator, domain) = (running.operator(), TrustDomain::parse("example.org").unwrap());
    let key = running.server.site().authority.log_key();
    let issuer = IssuerEpoch(1);
    let (first, tag) = set_of(&running, &key, 0).await;
    assert!(first.set().covers(issuer) && !first.set().covers(IssuerEpoch(2)));
    let known = format!("if-none-match: {tag}\r\n");
    let unchanged = running.get("/v1/status/set", &known).await;
    assert_eq!((unchanged.status(), unchanged.body.len()), ("304", 0));

    let listed = operator.list_certificates(&Default::default()).await.unwrap().items;
    let serial = listed.iter().find(|view| view.spiffe_id.as_str().ends_with("/ocsp/1")).unwrap().serial;
    let hold = serde_json::json!({ "selector": { "serial": serial } });
    operator.hold(&serde_json::from_value(hold).unwrap()).await.unwrap();
    let (second, _) = set_of(&running, &key, 1).await;
    assert_eq!(second.set().standing(serial), Standing::NotGood);
    assert!(second.set().sequence() > first.set().sequence());
    let delta = running.get(&format!("/v1/status/set/{}", first.set().sequence()), "").await;
    assert_eq!(delta.header("content-type"), "application/vnd.chancery.status-delta");
    let advanced = first.advance(delta.body.into(), &domain, std::slice::from_ref(&key)).unwrap();
    assert_eq!(advanced.to_bytes(), second.to_bytes());

    let current = running.get(&format!("/v1/status/set/{}", second.set().sequence()), "").await;
    assert_eq!((current.status(), current.body.len()), ("204", 0));
    for path in ["/v1/status/set/1", "/v1/status/set/18446744073709551615"] {
        let absent = running.get(path, "").await;
        assert_eq!(absent.status(), "404", "{path}");
        assert!(String::from_utf8(absent.body).unwrap().contains("/v1/status/set"), "{path}");
    }
    assert_eq!(running.get("/v1/status/set/x", "").await.status(), "400");
    // The other door serves the same.
    assert_eq!(operator.status_set().await.unwrap(), second.to_bytes());
    let metrics = String::from_utf8(operator.metrics().await.unwrap().to_vec()).unwrap();
    assert!(metrics.contains("chancery_status_set_entries 1"), "{metrics}");
    let ready = operator.readyz().await.unwrap();
    let check = ready.checks.iter().find(|check| check.name == "status-set").unwrap();
    assert_eq!(check.state, chancery_api::HealthState::Ok);
    running.server.stop().await;
}
