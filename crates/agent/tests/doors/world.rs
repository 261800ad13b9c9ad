//! What stands behind the doors in these tests: an authority, a core that says what the test wants, and a kernel
//! that knows one kind of process.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chancery_agent::doors::{Doors, DoorsConfig};
use chancery_agent::identities::{Bundle, Bundles, Identities, JwtError, JwtSvid, X509State, X509Svid};
use chancery_agent::workload::{AttestationError, Attestor, Depth, Process, Workload};
use chancery_agent::workload_api::client::{Client, connect};
use chancery_types::{
    Claims, Clock, ManualClock, SecretBytes, SerialNumber, SpiffeId, SystemClock, Timestamp, TrustDomain,
};
use data_encoding::BASE64URL_NOPAD;
use prometheus_client::registry::Registry;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::sync::watch;

/// A trust domain with an X.509 authority and a key for tokens.
pub(crate) struct Authority {
    pub(crate) domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    root: Vec<u8>,
    token_key: EcdsaKeyPair,
}

impl Authority {
    pub(crate) fn new(domain: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, domain);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into().unwrap())];
        let root = params.self_signed(&key).unwrap().der().to_vec();
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let token_key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        let domain = TrustDomain::parse(domain).unwrap();
        Self { domain, issuer: Issuer::new(params, key), root, token_key }
    }

    pub(crate) fn id(&self, path: &str) -> SpiffeId {
        self.domain.member(path).unwrap()
    }

    pub(crate) fn bundle(&self) -> Arc<Bundle> {
        let point = &self.token_key.public_key().as_ref()[1..];
        let (x, y) = point.split_at(32);
        let (x, y) = (BASE64URL_NOPAD.encode(x), BASE64URL_NOPAD.encode(y));
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k1", "use": "jwt-svid"});
        let jwt_keys = json!({"keys": [jwk]}).to_string().into_bytes();
        Arc::new(Bundle { x509_authorities: vec![self.root.clone()], jwt_keys })
    }

    /// A certificate with a new key, for an hour.
    pub(crate) fn svid(&self, path: &str, hint: &str) -> Arc<X509Svid> {
        let key = KeyPair::generate().unwrap();
        let now = SystemClock.now();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(self.id(path).as_str().try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        // The root stands in for an intermediate: what matters is that there are two.
        Arc::new(X509Svid {
            spiffe_id: self.id(path),
            serial: SerialNumber::from_bytes(&[1; 17]).unwrap(),
            chain: vec![leaf.der().to_vec(), self.root.clone()],
            key: SecretBytes::new(key.serialize_der()),
            hint: hint.to_owned(),
            not_before: now - Duration::from_secs(60),
            not_after: now + Duration::from_secs(3600),
            federates_with: Vec::new(),
        })
    }

    pub(crate) fn token(&self, path: &str, audiences: &[String], now: Timestamp) -> String {
        let header = json!({"alg": "ES256", "kid": "k1", "typ": "JWT"});
        let claims = json!({
            "sub": self.id(path), "aud": audiences, "iat": now.seconds(), "exp": now.seconds() + 300,
            "iss": "https://issuer.example.org", "nested": {"list": [1, true, null, "x"]},
        });
        let encode = |part: &Value| BASE64URL_NOPAD.encode(part.to_string().as_bytes());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.token_key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

/// What the core says.
pub(crate) struct Core {
    pub(crate) states: watch::Sender<Arc<X509State>>,
    pub(crate) known: watch::Sender<Arc<Bundles>>,
    pub(crate) depth: watch::Sender<Depth>,
    pub(crate) jwt: Mutex<Result<Vec<JwtSvid>, JwtError>>,
    /// Tokens were asked for with these audiences and this identity.
    pub(crate) jwt_asked: Mutex<Vec<(Vec<String>, Option<SpiffeId>)>>,
    /// Overrides what follows from the state.
    pub(crate) entitled: Mutex<Option<bool>>,
    pub(crate) lookups: AtomicUsize,
    pub(crate) starting: AtomicBool,
}

#[async_trait]
impl Identities for Core {
    fn is_ready(&self) -> bool {
        !self.starting.load(Ordering::SeqCst)
    }

    async fn x509(&self, _workload: &Workload) -> watch::Receiver<Arc<X509State>> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        self.states.subscribe()
    }

    fn depth(&self) -> watch::Receiver<Depth> {
        self.depth.subscribe()
    }

    fn bundles(&self) -> watch::Receiver<Arc<Bundles>> {
        self.known.subscribe()
    }

    async fn is_entitled(&self, _workload: &Workload) -> bool {
        self.entitled.lock().unwrap().unwrap_or(!self.states.borrow().svids.is_empty())
    }

    async fn jwt(
        &self,
        _workload: &Workload,
        audiences: &[String],
        identity: Option<&SpiffeId>,
    ) -> Result<Vec<JwtSvid>, JwtError> {
        self.jwt_asked.lock().unwrap().push((audiences.to_vec(), identity.cloned()));
        let mut made = self.jwt.lock().unwrap().clone()?;
        made.retain(|svid| identity.is_none_or(|wanted| svid.spiffe_id == *wanted));
        if made.is_empty() { Err(JwtError::NoIdentity) } else { Ok(made) }
    }
}

/// What the kernel says of whoever connects.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What attesting yields.
    verdict: watch::Sender<Result<Workload, AttestationError>>,
    /// Set when processes have become something else.
    pub(crate) fate: watch::Sender<Option<AttestationError>>,
    pub(crate) refuses_pins: AtomicBool,
    pub(crate) pins: AtomicUsize,
    pub(crate) attestations: Arc<AtomicUsize>,
}

impl Kernel {
    /// From now on, attesting yields this.
    pub(crate) fn finds(&self, verdict: Result<Workload, AttestationError>) {
        self.verdict.send_modify(|found| *found = verdict);
    }
}

impl Attestor for Kernel {
    fn pin(&self, socket: BorrowedFd<'_>) -> Result<Arc<dyn Process>, AttestationError> {
        let peer = rustix::net::sockopt::socket_peercred(socket);
        let peer = peer.map_err(|error| AttestationError::Unknown(error.to_string()))?;
        assert!(peer.pid.as_raw_nonzero().get() > 0);
        if self.refuses_pins.load(Ordering::SeqCst) {
            return Err(AttestationError::Exited);
        }
        self.pins.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Pinned {
            verdict: self.verdict.subscribe(),
            fate: self.fate.subscribe(),
            attestations: Arc::clone(&self.attestations),
        }))
    }
}

#[derive(Debug)]
struct Pinned {
    verdict: watch::Receiver<Result<Workload, AttestationError>>,
    fate: watch::Receiver<Option<AttestationError>>,
    attestations: Arc<AtomicUsize>,
}

#[async_trait]
impl Process for Pinned {
    async fn attest(&self, depth: Depth) -> Result<Workload, AttestationError> {
        self.attestations.fetch_add(1, Ordering::SeqCst);
        let mut workload = self.verdict.borrow().clone()?;
        if depth == Depth::Content {
            workload.claims.insert("unix.sha256", "00");
        }
        Ok(workload)
    }

    async fn changed(&self, _workload: &Workload) -> AttestationError {
        let mut fate = self.fate.clone();
        let fate = fate.wait_for(Option::is_some).await.ok().and_then(|fate| fate.clone());
        fate.unwrap_or(AttestationError::Exited)
    }
}

pub(crate) fn workload(uid: &str) -> Workload {
    let mut claims = Claims::new();
    claims.insert("unix.uid", uid);
    Workload { pid: 42, claims }
}

/// Doors, and everything behind them.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) core: Arc<Core>,
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) clock: ManualClock,
    pub(crate) registry: Registry,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) doors: Option<Doors>,
}

impl World {
    /// A caller with no identity, and the usual doors.
    pub(crate) async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    pub(crate) async fn open_with(change: impl FnOnce(&mut DoorsConfig)) -> Self {
        let authority = Authority::new("example.org");
        let known = Bundles::from([(authority.domain.clone(), authority.bundle())]);
        let core = Arc::new(Core {
            states: watch::channel(Arc::default()).0,
            known: watch::channel(Arc::new(known)).0,
            depth: watch::Sender::default(),
            jwt: Mutex::new(Err(JwtError::NoIdentity)),
            jwt_asked: Mutex::default(),
            entitled: Mutex::new(None),
            lookups: AtomicUsize::new(0),
            starting: AtomicBool::new(false),
        });
        let kernel = Arc::new(Kernel {
            verdict: watch::channel(Ok(workload("1000"))).0,
            fate: watch::channel(None).0,
            refuses_pins: AtomicBool::new(false),
            pins: AtomicUsize::new(0),
            attestations: Arc::default(),
        });
        let directory = tempfile::tempdir().unwrap();
        let mut config = DoorsConfig::new(directory.path().join("agent.sock"), authority.domain.clone());
        change(&mut config);
        let clock = ManualClock::at(SystemClock.now());
        let mut registry = Registry::default();
        let identities: Arc<dyn Identities> = core.clone();
        let doors =
            Doors::bind(config, identities, kernel.clone(), Arc::new(clock.clone()), &mut registry).await;
        Self { authority, core, kernel, clock, registry, directory, doors: Some(doors.unwrap()) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.doors.as_ref().unwrap().path().to_owned()
    }

    pub(crate) async fn client(&self) -> Client {
        connect(&self.path()).await.unwrap()
    }

    /// Gives the caller these certificates, and the bundles of these trust domains beside its own.
    pub(crate) fn give(&self, svids: Vec<Arc<X509Svid>>, federated: &[&Authority]) {
        let domains = federated.iter().copied().chain([&self.authority]);
        let bundles: BTreeMap<_, _> = domains.map(|one| (one.domain.clone(), one.bundle())).collect();
        self.core.states.send_replace(Arc::new(X509State { svids, bundles, crls: Vec::new() }));
    }

    /// One identity, `/web`.
    pub(crate) fn entitle(&self) -> Arc<X509Svid> {
        let svid = self.authority.svid("/web", "");
        self.give(vec![Arc::clone(&svid)], &[]);
        svid
    }

    /// Takes everything away from the caller.
    pub(crate) fn withdraw(&self) {
        self.core.states.send_replace(Arc::default());
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// DER structures in a row.
pub(crate) fn concatenated(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

/// Says what is not tested here and why, past the capture of the test harness.
pub(crate) fn skipped(test: &str, why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
