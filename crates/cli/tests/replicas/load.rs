//! Clients that enrol, renew, spend twice and revoke through the balancer, and remember what they were told.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chancery_api::{
    CertificateStatus, CsrDer, EnrollRequest, EnrollResponse, Evidence, ProblemCode, RenewRequest,
    RevokeRequest, Selector,
};
use chancery_client::{Client, ClientError, IdempotencyKey, TlsIdentity};
use chancery_types::{KeyAlgorithm, SecretString, SerialNumber};
use chancery_x509::{DistinguishedName, RequestPurpose, RequestSpec, SubjectKey};
use tokio::task::JoinHandle;

use super::cluster::{Cluster, client, operator, token};

/// What was acknowledged, and what never should be.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// Certificates from enrolments.
    pub(crate) enrolled: Vec<SerialNumber>,
    /// Certificates from renewals.
    pub(crate) renewed: Vec<SerialNumber>,
    /// Revocations.
    pub(crate) revoked: BTreeSet<SerialNumber>,
    /// Second uses of a token that were refused.
    pub(crate) refused: u64,
    /// Requests that were sent again.
    pub(crate) again: u64,
    /// What must not happen, each in words.
    pub(crate) violations: Vec<String>,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "acknowledged: {} enrolments, {} renewals, {} revocations; refused: {} second uses of a token; sent \
             again: {}; violations: {}",
            self.enrolled.len(),
            self.renewed.len(),
            self.revoked.len(),
            self.refused,
            self.again,
            self.violations.len()
        )
    }
}

/// Clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Tally>>,
}

impl Load {
    pub(crate) async fn start(cluster: &Cluster, workers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |number: usize| Worker {
            directory: cluster.path(0),
            balancer: cluster.balancer,
            replicas: cluster.addresses.clone(),
            operator: cluster.operator(cluster.balancer),
            anybody: cluster.client(cluster.balancer, None),
            stop: Arc::clone(&stop),
            number,
            tally: Tally::default(),
        };
        let workers = (0..workers).map(|number| tokio::spawn(worker(number).run())).collect();
        Self { stop, workers }
    }

    /// Lets everybody finish what is under way.
    pub(crate) async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for worker in self.workers {
            let one = worker.await.unwrap();
            all.enrolled.extend(one.enrolled);
            all.renewed.extend(one.renewed);
            all.revoked.extend(one.revoked);
            all.refused += one.refused;
            all.again += one.again;
            all.violations.extend(one.violations);
        }
        all
    }
}

struct Worker {
    directory: PathBuf,
    balancer: SocketAddr,
    replicas: Vec<SocketAddr>,
    operator: Client,
    anybody: Client,
    stop: Arc<AtomicBool>,
    number: usize,
    tally: Tally,
}

impl Worker {
    async fn run(mut self) -> Tally {
        let mut round = self.number;
        while !self.stop.load(Ordering::Relaxed) {
            round += 1;
            let operator = self.operator.clone();
            let wish = token();
            let Some(token) = self.insist(|| operator.create_token(&wish)).await else { continue };
            let Some(first) = self.enroll(&token.token).await else { continue };
            self.tally.enrolled.push(first.response.serial);
            if round.is_multiple_of(3) {
                self.spend_again(&token.token).await;
            }
            let mut last = first.response.serial;
            if round.is_multiple_of(2)
                && let Some(renewed) = self.renew(&first).await
            {
                self.tally.renewed.push(renewed.serial);
                last = renewed.serial;
            }
            if round.is_multiple_of(4) {
                self.revoke(last).await;
            }
        }
        self.tally
    }

    async fn enroll(&mut self, token: &SecretString) -> Option<Held> {
        let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
        let request = enrolment(&key, token);
        let (anybody, same) = (self.anybody.clone(), fresh());
        let response = self.insist(|| anybody.enroll(&request, &same)).await?;
        Some(Held { key, response })
    }

    /// Somebody else with the same token, at every replica at once.
    async fn spend_again(&mut self, token: &SecretString) {
        for address in self.replicas.clone() {
            let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
            let thief = client(&self.directory, address, None);
            match thief.enroll(&enrolment(&key, token), &fresh()).await {
                Ok(response) => {
                    self.tally.violations.push(format!("a token bought {} too", response.serial));
                }
                Err(ClientError::Problem(problem))
                    if problem.known_code() == Some(ProblemCode::TokenSpent) =>
                {
                    self.tally.refused += 1;
                }
                // Broken just now.
                Err(_) => {}
            }
        }
    }

    async fn renew(&mut self, before: &Held) -> Option<EnrollResponse> {
        let holder = client(&self.directory, self.balancer, Some(before.identity()));
        let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
        let request = RenewRequest { csr: CsrDer::from_der(csr(&key)), lifetime: None, receipt: false };
        let same = fresh();
        self.insist(|| holder.renew(&request, &same)).await
    }

    /// Revokes, and then nobody calls it good.
    async fn revoke(&mut self, serial: SerialNumber) {
        let request = serde_json::json!({ "selector": Selector::Serial(serial), "reason": "superseded" });
        let request: RevokeRequest = serde_json::from_value(request).unwrap();
        let operator = self.operator.clone();
        if self.insist(|| operator.revoke(&request)).await.is_none() {
            return;
        }
        self.tally.revoked.insert(serial);
        for address in self.replicas.clone() {
            let relying = client(&self.directory, address, Some(operator_of(&self.directory)));
            // One that cannot say anything says nothing wrong.
            if let Ok(answer) = relying.status(serial).await
                && answer.status != CertificateStatus::Revoked
            {
                let told = format!("{address} called {serial} {:?} after it was revoked", answer.status);
                self.tally.violations.push(told);
            }
        }
    }

    /// Sends the same until it is answered. What is refused for good is a violation: nothing here may be.
    async fn insist<T, F: Future<Output = Result<T, ClientError>>>(
        &mut self,
        send: impl Fn() -> F,
    ) -> Option<T> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match send().await {
                Ok(answer) => return Some(answer),
                Err(ClientError::Problem(problem)) if !is_passing(problem.known_code()) => {
                    self.tally.violations.push(format!("refused: {problem}"));
                    return None;
                }
                Err(error) if Instant::now() > until => {
                    self.tally.violations.push(format!("never answered: {error}"));
                    return None;
                }
                Err(_) => self.tally.again += 1,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A key and what it holds.
pub(crate) struct Held {
    pub(crate) key: SubjectKey,
    pub(crate) response: EnrollResponse,
}

impl Held {
    /// What it shows.
    pub(crate) fn identity(&self) -> TlsIdentity {
        let chain = format!("{}{}", self.response.certificate, self.response.chain);
        TlsIdentity::from_pem(chain.as_bytes(), self.key.to_pkcs8_pem().as_bytes()).unwrap()
    }
}

/// Enrols at one replica.
pub(crate) async fn enroll_at(cluster: &Cluster, address: SocketAddr) -> Held {
    let bought = cluster.operator(address).create_token(&token()).await.unwrap();
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let request = enrolment(&key, &bought.token);
    let response = cluster.client(address, None).enroll(&request, &fresh()).await.unwrap();
    Held { key, response }
}

fn operator_of(directory: &std::path::Path) -> TlsIdentity {
    operator(directory)
}

/// Whether the same may be answered later.
fn is_passing(code: Option<ProblemCode>) -> bool {
    matches!(
        code,
        Some(
            ProblemCode::LedgerUnavailable
                | ProblemCode::NotReady
                | ProblemCode::Overloaded
                | ProblemCode::RateLimited
                | ProblemCode::ShuttingDown
                | ProblemCode::RequestTimeout
                | ProblemCode::IdempotencyInProgress
                | ProblemCode::Internal
        )
    )
}

fn enrolment(key: &SubjectKey, token: &SecretString) -> EnrollRequest {
    EnrollRequest {
        csr: CsrDer::from_der(csr(key)),
        evidence: Evidence::JoinToken { token: token.clone() },
        profile: None,
        identity: None,
        lifetime: None,
        receipt: false,
    }
}

pub(crate) fn csr(key: &SubjectKey) -> Vec<u8> {
    let spec = RequestSpec {
        public_key: key.public_key(),
        signature_algorithm: key.signature_algorithm(),
        subject: &DistinguishedName::empty(),
        names: &[],
        purpose: RequestPurpose::Subject,
    };
    spec.build(|message| key.sign(message)).unwrap()
}

pub(crate) fn fresh() -> IdempotencyKey {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    IdempotencyKey::parse(&format!("load-{}-{number}", std::process::id())).unwrap()
}
