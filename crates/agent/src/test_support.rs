//! An authority for tests of the loops: it signs what it is asked for, counts, and fails when it is told to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chancery_api::{
    AgentEvent, AgentIdentity, AgentJwtRequest, AgentJwtResponse, AgentSvidItem, BatchResult, BundleView,
    CertificateDer, EnrollResponse, JwksBundle, Problem, ProblemCode, TimeWindow,
};
use chancery_client::ClientError;
use chancery_types::{
    AssuranceLevel, Claims, Generation, IssuerEpoch, LineageId, ManualClock, SecretString, SerialNumber,
    SpiffeId, SystemRandom, Timestamp,
};
use chancery_x509::write_pem;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use serde_json::json;
use time::OffsetDateTime;

use crate::config::Limits;
use crate::link::Authority;
use crate::metrics::Metrics;
use crate::rotation::Rotation;
use crate::store::Store;
use crate::timing::Pace;
use crate::workload::Workload;

/// What the authority does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Away,
    Overloaded { retry_after: u64 },
    Refuses,
    OtherKey,
    OtherName,
    OtherRoot,
}

/// The double.
pub(crate) struct Forge {
    pub(crate) clock: ManualClock,
    pub(crate) lifetime: Duration,
    pub(crate) fault: Mutex<Fault>,
    /// Items of every request, and when it came.
    pub(crate) requests: Mutex<Vec<(Timestamp, usize)>>,
    pub(crate) tokens: AtomicUsize,
    issuer: Issuer<'static, KeyPair>,
    stranger: Issuer<'static, KeyPair>,
    root: Vec<u8>,
    counter: AtomicU64,
}

/// A store and the rotation that fills it from a forge.
pub(crate) struct Bench {
    pub(crate) clock: ManualClock,
    pub(crate) forge: Arc<Forge>,
    pub(crate) store: Arc<Store>,
    pub(crate) rotation: Rotation,
}

impl Bench {
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self::with_limits(lifetime, Limits::default())
    }

    pub(crate) fn with_limits(lifetime: Duration, limits: Limits) -> Self {
        let clock = ManualClock::at(Timestamp::from_seconds(1_800_000_000));
        let forge = Arc::new(Forge::new(clock.clone(), lifetime));
        let pace = Pace::looking_every(Arc::new(clock.clone()), Duration::from_millis(5));
        let store = Arc::new(Store::new(Vec::new(), pace.clone(), limits, [7; 8]));
        let rotation = Rotation {
            store: Arc::clone(&store),
            authority: Arc::clone(&forge) as _,
            pace,
            random: Arc::new(SystemRandom),
            metrics: Arc::new(Metrics::new()),
        };
        Self { clock, forge, store, rotation }
    }

    /// Gives the node identities that processes of uid 0, 1, ... are.
    pub(crate) fn give(&self, count: usize) {
        let identities = (0..count).map(identity).collect();
        self.store.take_in(AgentEvent::Sync {
            revision: 1,
            identities,
            templates: Vec::new(),
            bundle: self.forge.bundle(),
            federated: Vec::new(),
            spread_milliseconds: 0,
        });
    }

    /// Does what is due now, and waits for it; when to look again.
    pub(crate) async fn turn(&self) -> Option<Timestamp> {
        self.rotation.turn().await
    }
}

impl Forge {
    fn new(clock: ManualClock, lifetime: Duration) -> Self {
        let (root, issuer) = authority();
        let (_, stranger) = authority();
        Self {
            clock,
            lifetime,
            fault: Mutex::new(Fault::None),
            requests: Mutex::default(),
            tokens: AtomicUsize::new(0),
            issuer,
            stranger,
            root,
            counter: AtomicU64::new(0),
        }
    }

    pub(crate) fn fail(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    pub(crate) fn bundle(&self) -> BundleView {
        BundleView {
            trust_domain: "example.org".parse().unwrap(),
            x509_authorities: vec![CertificateDer::from_der(self.root.clone())],
            jwt_keys: JwksBundle { keys: Vec::new(), spiffe_sequence: None, spiffe_refresh_hint: None },
            sequence: 1,
            refresh_hint_seconds: 300,
        }
    }

    pub(crate) fn asked(&self) -> Vec<usize> {
        self.requests.lock().unwrap().iter().map(|(_, items)| *items).collect()
    }

    fn problem(code: ProblemCode, retry_after: Option<u64>) -> Problem {
        let mut problem = Problem::new(code, "as the test wants it");
        problem.retry_after = retry_after;
        problem
    }

    fn issue(&self, item: &AgentSvidItem, fault: Fault) -> EnrollResponse {
        use chancery_types::Clock as _;
        let now = self.clock.now();
        let (not_before, not_after) = (now - Duration::from_secs(60), now + self.lifetime);
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let serial = SerialNumber::compose(IssuerEpoch(1), counter, [1; 8]).unwrap();
        let name = match fault {
            Fault::OtherName => "spiffe://example.org/somebody-else",
            _ => item.identity.as_str(),
        };
        let mut params = CertificateParams::default();
        params.not_before = calendar(not_before);
        params.not_after = calendar(not_after);
        params.serial_number = Some(serial.as_bytes().to_vec().into());
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let other = KeyPair::generate().unwrap();
        let spki = match fault {
            Fault::OtherKey => rcgen::PublicKeyData::subject_public_key_info(&other),
            _ => item.key.as_der().to_vec(),
        };
        let key = rcgen::SubjectPublicKeyInfo::from_der(&spki).unwrap();
        let issuer = if fault == Fault::OtherRoot { &self.stranger } else { &self.issuer };
        let certificate = params.signed_by(&key, issuer).unwrap();
        EnrollResponse {
            serial,
            spiffe_id: item.identity.clone(),
            profile: "workload".into(),
            certificate: write_pem("CERTIFICATE", certificate.der()),
            chain: String::new(),
            not_before,
            not_after,
            renew_after: TimeWindow { start: now + self.lifetime / 5, end: now + self.lifetime * 9 / 20 },
            lineage: LineageId::from_array([0; 16]),
            generation: Generation(0),
            assurance: AssuranceLevel::Repeatable,
            reduced: Vec::new(),
            ignored: Vec::new(),
            log_index: counter,
            receipt: None,
        }
    }
}

#[async_trait]
impl Authority for Forge {
    async fn svids(&self, items: Vec<AgentSvidItem>) -> Result<Vec<BatchResult>, ClientError> {
        use chancery_types::Clock as _;
        self.requests.lock().unwrap().push((self.clock.now(), items.len()));
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::Away => Err(away()),
            Fault::Overloaded { retry_after } => {
                let problem = Self::problem(ProblemCode::Overloaded, Some(retry_after));
                Err(ClientError::Problem(Box::new(problem)))
            }
            Fault::Refuses => {
                let refusal = || Box::new(Self::problem(ProblemCode::PolicyDenied, None));
                Ok(items.iter().map(|_| BatchResult::Refused(refusal())).collect())
            }
            _ => {
                let issued = items.iter().map(|item| self.issue(item, fault));
                Ok(issued.map(|answer| BatchResult::Issued(Box::new(answer))).collect())
            }
        }
    }

    async fn jwt(&self, request: &AgentJwtRequest) -> Result<AgentJwtResponse, ClientError> {
        use chancery_types::Clock as _;
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::Away => Err(away()),
            Fault::Refuses => {
                Err(ClientError::Problem(Box::new(Self::problem(ProblemCode::PolicyDenied, None))))
            }
            _ => {
                let number = self.tokens.fetch_add(1, Ordering::Relaxed);
                let token = SecretString::new(format!("{}.{number}", request.identity));
                Ok(AgentJwtResponse { token, expires: self.clock.now() + Duration::from_secs(300) })
            }
        }
    }
}

fn away() -> ClientError {
    ClientError::Connect {
        endpoint: "https://ca.example.org:8443".into(),
        source: std::io::ErrorKind::ConnectionRefused.into(),
    }
}

fn authority() -> (Vec<u8>, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().der().to_vec();
    (root, Issuer::new(params, key))
}

fn calendar(moment: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(moment.seconds()).unwrap()
}

/// The identity of processes with this uid.
pub(crate) fn identity(uid: usize) -> AgentIdentity {
    serde_json::from_value(json!({
        "spiffe_id": id(uid), "profile": "workload", "key_algorithm": "p256",
        "selectors": BTreeMap::from([("unix.uid", uid.to_string())]),
    }))
    .unwrap()
}

pub(crate) fn id(uid: usize) -> SpiffeId {
    format!("spiffe://example.org/user/{uid}").parse().unwrap()
}

/// A process with this uid.
pub(crate) fn workload(uid: usize) -> Workload {
    let mut claims = Claims::new();
    claims.insert("unix.uid", uid.to_string());
    Workload { pid: 1, claims }
}
