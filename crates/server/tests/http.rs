//! The road over real sockets: a server, clients over TLS, and openssl as the judge of what they get.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests fail the test")]

mod running;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use chancery_api::{
    CreateTokenRequest, CsrDer, EnrollRequest, EnrollResponse, Evidence, IdentityDocument, ProblemCode,
    RenewRequest, RevokeRequest, Selector,
};
use chancery_client::{Client, ClientError, IdempotencyKey, TlsIdentity, TrustAnchors};
use chancery_server::Server;
use chancery_server::authority::OnlineRoot;
use chancery_server::bootstrap::{InitPlan, InitReport, init};
use chancery_server::config::Config;
use chancery_types::{Identity, KeyAlgorithm, RevocationReason, SecretString, SystemClock, SystemRandom};
use chancery_x509::{DistinguishedName, RequestPurpose, RequestSpec, SubjectKey};

/// A running authority in a directory of its own.
struct Running {
    place: tempfile::TempDir,
    report: InitReport,
    server: Server,
}

impl Running {
    async fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("ca");
        let plan = InitPlan { directory: directory.clone(), ..running::plan() };
        let passphrase = SecretString::new("a long passphrase".into());
        let root = place.path().join("root");
        let report =
            init(&plan, &root, &passphrase, Arc::new(SystemClock), Arc::new(SystemRandom)).await.unwrap();
        let config = Config::load(&directory.join("chancery.toml")).unwrap();
        let server = Server::start(config, OnlineRoot::Refuse, Arc::new(SystemClock), Arc::new(SystemRandom));
        let server = server.await.unwrap();
        Self { place, report, server }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join("ca").join(name)
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.server.api_address().port())
    }

    fn client(&self, identity: Option<TlsIdentity>) -> Client {
        let root = std::fs::read(self.file("certs/root.crt")).unwrap();
        let mut builder =
            Client::builder(self.url().parse().unwrap()).trust(TrustAnchors::from_pem(&root).unwrap());
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        builder.build().unwrap()
    }

    fn operator(&self) -> Client {
        let chain = std::fs::read(&self.report.finished.operator_certificate).unwrap();
        let key = std::fs::read(&self.report.finished.operator_key).unwrap();
        self.client(Some(TlsIdentity::from_pem(&chain, &key).unwrap()))
    }

    /// Registers an identity and enrols it with a fresh token.
    async fn enroll(&self, name: &str) -> (SubjectKey, EnrollResponse) {
        let id = format!("spiffe://example.org/{name}").parse().unwrap();
        let operator = self.operator();
        operator.register_identity(&IdentityDocument(Identity::new(id, "ada"))).await.unwrap();
        let request = serde_json::json!({ "identity": format!("spiffe://example.org/{name}") });
        let request: CreateTokenRequest = serde_json::from_value(request).unwrap();
        let token = operator.create_token(&request).await.unwrap();
        let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
        let request = EnrollRequest {
            csr: CsrDer::from_der(csr(&key)),
            evidence: Evidence::JoinToken { token: token.token },
            profile: None,
            identity: None,
            lifetime: None,
            receipt: true,
        };
        let anonymous = self.client(None);
        let first = anonymous.enroll(&request, &idempotency_key("enroll-1")).await.unwrap();
        let again = anonymous.enroll(&request, &idempotency_key("enroll-1")).await.unwrap();
        assert_eq!(first.certificate, again.certificate, "a retried enrolment gives the same certificate");
        let spent = anonymous.enroll(&request, &idempotency_key("enroll-2")).await.unwrap_err();
        assert_eq!(problem(&spent), Some(ProblemCode::TokenSpent));
        (key, first)
    }
}

fn csr(key: &SubjectKey) -> Vec<u8> {
    let spec = RequestSpec {
        public_key: key.public_key(),
        signature_algorithm: key.signature_algorithm(),
        subject: &DistinguishedName::empty(),
        names: &[],
        purpose: RequestPurpose::Subject,
    };
    spec.build(|message| key.sign(message)).unwrap()
}

fn idempotency_key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).unwrap()
}

fn problem(error: &ClientError) -> Option<ProblemCode> {
    match error {
        ClientError::Problem(problem) => problem.known_code(),
        _ => None,
    }
}

fn identity(key: &SubjectKey, response: &EnrollResponse) -> TlsIdentity {
    let chain = format!("{}{}", response.certificate, response.chain);
    TlsIdentity::from_pem(chain.as_bytes(), key.to_pkcs8_pem().as_bytes()).unwrap()
}

fn openssl(arguments: &[&str]) -> Option<(bool, String)> {
    match Command::new("openssl").args(arguments).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(_) => {
            eprintln!("SKIPPED: openssl is not installed, so nothing judges the certificates here");
            None
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enrol_renew_revoke_and_what_others_say() {
    let running = Running::start().await;
    let (key, first) = running.enroll("web").await;

    // Renewal over mTLS with a new key.
    let holder = running.client(Some(identity(&key, &first)));
    let new_key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let renewal = RenewRequest { csr: CsrDer::from_der(csr(&new_key)), lifetime: None, receipt: false };
    let second = holder.renew(&renewal, &idempotency_key("renew-1")).await.unwrap();
    assert_eq!(second.generation.0, 1);
    assert_eq!(second.lineage, first.lineage);

    // openssl accepts the chain and the OCSP answer.
    let leaf = running.file("leaf.pem");
    let issuer = running.file("certs/issuer-1.crt");
    let root = running.file("certs/root.crt");
    std::fs::write(&leaf, &second.certificate).unwrap();
    let ocsp_url = format!("http://127.0.0.1:{}/ocsp", running.server.status_address().port());
    let verify = ["verify", "-x509_strict", "-CAfile", path(&root), "-untrusted", path(&issuer), path(&leaf)];
    if let Some((accepted, text)) = openssl(&verify) {
        assert!(accepted, "{text}");
    }
    let ask = || {
        let chain = running.file("chain.pem");
        let both = [std::fs::read(&issuer).unwrap(), std::fs::read(&root).unwrap()].concat();
        std::fs::write(&chain, both).unwrap();
        let arguments = [
            "ocsp",
            "-issuer",
            path(&issuer),
            "-cert",
            path(&leaf),
            "-url",
            &ocsp_url,
            "-CAfile",
            path(&chain),
        ];
        tokio::task::block_in_place(|| openssl(&arguments))
    };
    if let Some((_, text)) = ask() {
        assert!(text.contains("Response verify OK") && text.contains(": good"), "{text}");
    }

    // Revoked: OCSP says so at once, the list within a second, renewal is refused.
    let revoke = RevokeRequest {
        note: "drill".into(),
        ..RevokeRequest::new(Selector::Serial(second.serial), RevocationReason::KeyCompromise)
    };
    let changed = running.operator().revoke(&revoke).await.unwrap();
    assert_eq!(changed.count, 1);
    if let Some((_, text)) = ask() {
        assert!(text.contains("Response verify OK") && text.contains(": revoked"), "{text}");
        assert!(text.contains("keyCompromise"), "{text}");
    }
    let holder = running.client(Some(identity(&new_key, &second)));
    let third = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let renewal = RenewRequest { csr: CsrDer::from_der(csr(&third)), lifetime: None, receipt: false };
    let refused = holder.renew(&renewal, &idempotency_key("renew-2")).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::CertificateRevoked), "{refused}");
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    let list = running.file("crl/1.crl");
    let arguments =
        ["crl", "-inform", "DER", "-in", path(&list), "-CAfile", path(&issuer), "-text", "-noout"];
    if let Some((_, text)) = openssl(&arguments) {
        let serial = second.serial.to_string().to_uppercase();
        assert!(text.contains("verify OK") && text.contains(&serial), "{text}");
    }
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_may_not_do_is_refused_with_a_reason() {
    let running = Running::start().await;
    let (key, response) = running.enroll("web").await;
    let anonymous = running.client(None);
    let workload = running.client(Some(identity(&key, &response)));
    let document = IdentityDocument(Identity::new("spiffe://example.org/x".parse().unwrap(), "ada"));
    let refused = anonymous.register_identity(&document).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::CertificateRequired));
    let refused = workload.register_identity(&document).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted), "{refused}");
    let revoke = RevokeRequest::new(Selector::Serial(response.serial), RevocationReason::KeyCompromise);
    let refused = anonymous.revoke(&revoke).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NotPermitted), "{refused}");
    let why = running.operator().why(response.serial).await.unwrap();
    assert!(!why.determining.is_empty());
    running.server.stop().await;
}
