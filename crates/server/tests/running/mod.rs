//! What the tests of the whole system share: a real authority behind real sockets, clients for it, and a
//! connection on which anything can be sent.

#![allow(dead_code, reason = "each test program uses the part that it needs")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test that called it")]
#![allow(unreachable_pub, reason = "a module of several test programs")]

pub mod wire;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chancery_api::{
    CreateTokenRequest, CreateTokenResponse, CsrDer, EnrollRequest, EnrollResponse, Evidence,
    IdentityDocument, OperatorRequest, ProblemCode, RenewRequest,
};
use chancery_client::{Client, ClientError, IdempotencyKey, RetryPolicy, TlsIdentity, TrustAnchors};
use chancery_server::Server;
use chancery_server::authority::{Authority, OnlineRoot};
use chancery_server::bootstrap::{InitPlan, init};
use chancery_server::config::{Config, RawConfig, ServerName};
use chancery_types::{
    Identity, IssuerEpoch, KeyAlgorithm, Role, SecretString, SpiffeId, SystemClock, SystemRandom,
};
use chancery_x509::crl::CrlView;
use chancery_x509::{DistinguishedName, RequestPurpose, RequestSpec, SubjectKey};

/// An authority in a directory of its own, served.
pub struct Running {
    pub place: Place,
    pub server: Server,
}

/// An authority in a directory of its own.
pub struct Place {
    directory: PathBuf,
    /// Removed with everything in it at the end.
    _around: Option<tempfile::TempDir>,
}

/// A key and the certificate for it.
pub struct Held {
    pub key: SubjectKey,
    pub response: EnrollResponse,
}

impl Place {
    pub async fn new() -> Self {
        Self::with(plan(), |_| {}).await
    }

    /// Makes an authority as planned; `edit` changes its configuration.
    pub async fn with(plan: InitPlan, edit: impl FnOnce(&mut RawConfig)) -> Self {
        let around = tempfile::tempdir().unwrap();
        let mut place = Self::inside(around.path(), plan).await;
        place.edit(edit);
        place._around = Some(around);
        place
    }

    /// Makes an authority in `ca` of a directory, with its root in `root` beside it.
    pub async fn inside(around: &Path, plan: InitPlan) -> Self {
        let plan = InitPlan { directory: around.join("ca"), ..plan };
        let passphrase = SecretString::new("a long passphrase".into());
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        init(&plan, &around.join("root"), &passphrase, clock, random).await.unwrap();
        Self::existing(plan.directory)
    }

    /// An authority that was made before.
    pub fn existing(directory: PathBuf) -> Self {
        Self { directory, _around: None }
    }

    /// Rewrites the configuration.
    pub fn edit(&self, edit: impl FnOnce(&mut RawConfig)) {
        let path = self.file("chancery.toml");
        let mut raw: RawConfig = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        edit(&mut raw);
        std::fs::write(path, toml::to_string(&raw).unwrap()).unwrap();
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A file that is none of the authority's.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.directory.with_file_name(name)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn config(&self) -> Config {
        Config::load(&self.file("chancery.toml")).unwrap()
    }

    pub async fn serve(&self) -> Result<Server, chancery_server::ServeError> {
        Server::start(self.config(), OnlineRoot::Refuse, Arc::new(SystemClock), Arc::new(SystemRandom)).await
    }

    /// The authority without its doors.
    pub async fn open(&self) -> Authority {
        Authority::open(self.config(), OnlineRoot::Refuse, Arc::new(SystemClock), Arc::new(SystemRandom))
            .await
            .unwrap()
    }

    pub fn anchors(&self) -> TrustAnchors {
        TrustAnchors::from_pem(&std::fs::read(self.file("certs/root.crt")).unwrap()).unwrap()
    }

    pub fn operator_identity(&self) -> TlsIdentity {
        let chain = std::fs::read(self.file("operators/admin.crt")).unwrap();
        let key = std::fs::read(self.file("operators/admin.key")).unwrap();
        TlsIdentity::from_pem(&chain, &key).unwrap()
    }

    /// A client that sends everything once.
    pub fn client_at(&self, address: SocketAddr, identity: Option<TlsIdentity>) -> Client {
        let url = format!("https://localhost:{}", address.port());
        let mut builder =
            Client::builder(url.parse().unwrap()).trust(self.anchors()).retry(RetryPolicy::never());
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        builder.build().unwrap()
    }
}

impl Running {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(edit: impl FnOnce(&mut RawConfig)) -> Self {
        let place = Place::with(plan(), edit).await;
        let server = place.serve().await.unwrap();
        Self { place, server }
    }

    /// The same authority, stopped and started again with another configuration.
    pub async fn again(self, edit: impl FnOnce(&mut RawConfig)) -> Self {
        let place = self.ended().await;
        place.edit(edit);
        let server = place.serve().await.unwrap();
        Self { place, server }
    }

    /// Stops it; nobody holds its ledger any more.
    pub async fn ended(self) -> Place {
        let Self { place, server } = self;
        server.stop().await;
        drop(server);
        let lock = std::fs::File::open(place.file("ledger/lock")).unwrap();
        for _ in 0..500 {
            // What was under way may hold the ledger for a moment.
            if lock.try_lock().is_ok() {
                return place;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the ledger is held by something that does not end");
    }

    pub fn client(&self, identity: Option<TlsIdentity>) -> Client {
        self.place.client_at(self.server.api_address(), identity)
    }

    pub fn admin(&self) -> Client {
        self.client(Some(self.place.operator_identity()))
    }

    pub async fn register(&self, name: &str) -> SpiffeId {
        let identity = Identity::new(id(name), "ada");
        self.admin().register_identity(&IdentityDocument(identity)).await.unwrap();
        id(name)
    }

    pub async fn token(&self, name: &str) -> CreateTokenResponse {
        self.admin().create_token(&token_for(name)).await.unwrap()
    }

    /// Registers an identity and enrols it.
    pub async fn enroll(&self, name: &str) -> Held {
        self.register(name).await;
        self.enroll_again(name).await
    }

    /// Enrols a registered identity.
    pub async fn enroll_again(&self, name: &str) -> Held {
        let token = self.token(name).await.token;
        let key = new_key();
        let request = enrolment(&key, Evidence::JoinToken { token });
        let response = self.client(None).enroll(&request, &fresh()).await.unwrap();
        Held { key, response }
    }

    /// A certificate for an operator with this role.
    pub async fn operator(&self, name: &str, role: Role) -> Held {
        let key = new_key();
        let request =
            OperatorRequest { name: name.into(), role, csr: CsrDer::from_der(csr(&key)), lifetime: None };
        let response = self.admin().create_operator(&request, &fresh()).await.unwrap();
        Held { key, response }
    }

    pub async fn renew(&self, held: &Held) -> Result<Held, ClientError> {
        let key = new_key();
        let request = RenewRequest { csr: CsrDer::from_der(csr(&key)), lifetime: None, receipt: false };
        let response = self.client(Some(held.identity())).renew(&request, &fresh()).await?;
        Ok(Held { key, response })
    }
}

impl Held {
    pub fn identity(&self) -> TlsIdentity {
        TlsIdentity::from_pem(self.chain().as_bytes(), self.key.to_pkcs8_pem().as_bytes()).unwrap()
    }

    pub fn chain(&self) -> String {
        format!("{}{}", self.response.certificate, self.response.chain)
    }
}

/// The usual plan; the directory is filled in by [`Place::with`].
pub fn plan() -> InitPlan {
    InitPlan {
        directory: PathBuf::new(),
        trust_domain: "example.org".parse().unwrap(),
        names: vec![ServerName::parse("localhost").unwrap(), ServerName::parse("127.0.0.1").unwrap()],
        algorithm: KeyAlgorithm::P256,
        token: None,
        api: free_address(),
        status: free_address(),
        url: None,
        status_url: None,
        database: None,
        root_key: None,
    }
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn id(name: &str) -> SpiffeId {
    format!("spiffe://example.org/{name}").parse().unwrap()
}

pub fn new_key() -> SubjectKey {
    SubjectKey::generate(KeyAlgorithm::P256).unwrap()
}

pub fn csr(key: &SubjectKey) -> Vec<u8> {
    let spec = RequestSpec {
        public_key: key.public_key(),
        signature_algorithm: key.signature_algorithm(),
        subject: &DistinguishedName::empty(),
        names: &[],
        purpose: RequestPurpose::Subject,
    };
    spec.build(|message| key.sign(message)).unwrap()
}

pub fn enrolment(key: &SubjectKey, evidence: Evidence) -> EnrollRequest {
    EnrollRequest {
        csr: CsrDer::from_der(csr(key)),
        evidence,
        profile: None,
        identity: None,
        lifetime: None,
        receipt: false,
    }
}

pub fn token_for(name: &str) -> CreateTokenRequest {
    serde_json::from_value(serde_json::json!({ "identity": id(name) })).unwrap()
}

/// A new idempotency key.
pub fn fresh() -> IdempotencyKey {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    IdempotencyKey::parse(&format!("test-{}-{number}", std::process::id())).unwrap()
}

/// The problem's code; `None` when it is no problem document.
pub fn problem(error: &ClientError) -> Option<ProblemCode> {
    match error {
        ClientError::Problem(problem) => problem.known_code(),
        _ => None,
    }
}

/// The full list of the active issuer once it and every list of a part say what the ledger says now.
pub async fn published(server: &Server) -> Vec<u8> {
    let site = server.site();
    for _ in 0..500 {
        if let Some(list) = site.crl.full(IssuerEpoch(1)).unwrap().current()
            && is_current(server).await
        {
            return list.der.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("no list was published");
}

async fn is_current(server: &Server) -> bool {
    let site = server.site();
    for place in site.crl.places() {
        let ledger = site.authority.ledger();
        let now = site.authority.clock().now();
        let lines = ledger.revoked(place.epoch(), now - site.crl.rules().keep()).await.unwrap();
        let wanted: Vec<_> = lines.iter().filter(|line| place.covers(line.serial)).collect();
        let Some(list) = place.current() else { return false };
        let view = CrlView::from_der(&list.der).unwrap();
        if !view.distribution_points().eq(place.urls().iter().map(String::as_str)) {
            return false;
        }
        let wanted = wanted.iter().map(|line| (line.serial.as_bytes().as_slice(), line.reason));
        if !view.entries().map(|entry| (entry.serial, entry.reason)).eq(wanted) {
            return false;
        }
    }
    true
}

/// Says, past the capture of test output, what was not tested and why.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED {test}: {why}");
}
