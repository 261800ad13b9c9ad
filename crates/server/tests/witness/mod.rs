//! A witness: works with an authority like a crowd of clients, writes down everything that was acknowledged,
//! and later, when the authority has died and come back, looks for all of it.
//!
//! What was acknowledged is a line of text each, so that it can be kept where the authority's death does not
//! reach it: `certificate SERIAL TBS-SHA256`, `revoked SERIAL`, `token ID`, `spent ID SERIAL`,
//! `checkpoint SIZE ROOT`.

#![allow(dead_code, reason = "each test program uses the part that it needs")]
#![allow(unreachable_pub, reason = "a module of several test programs")]
#![allow(clippy::unwrap_used, reason = "what fails here is a finding")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use chancery_api::{
    AuditExportQuery, EnrollRequest, EnrollResponse, Evidence, IdentityDocument, ProblemCode, RevokeRequest,
    Selector,
};
use chancery_client::{Client, ClientError, IdempotencyKey};
use chancery_ledger::{CertificateState, TokenState};
use chancery_merkle::{Checkpoint, SignedNote, verify_consistency};
use chancery_types::{Digest, Identity, RevocationReason, SerialNumber, TokenId};
use chancery_verify::audit::{AuditOptions, JsonLines, audit};
use chancery_x509::{Certificate, read_certificates};

use crate::running::{Held, Place, csr, enrolment, fresh, id, new_key, problem, published, token_for};

/// Requests whose answer never came: sent again, each must give one certificate or the one that it gave.
pub type Unanswered = Vec<(EnrollRequest, IdempotencyKey)>;

/// Puts a line where it survives. Called once the authority has acknowledged, and before the next request.
pub type Note = Arc<dyn Fn(String) + Send + Sync>;

/// Works until told to stop or until the authority is gone. Returns the requests that were under way then.
pub async fn work(
    place: &Place,
    address: SocketAddr,
    workers: usize,
    note: Note,
    stop: Arc<AtomicBool>,
) -> Unanswered {
    let unanswered = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for number in 0..workers {
        let worker = Worker {
            name: format!("load-{number}"),
            admin: place.client_at(address, Some(place.operator_identity())),
            place: Place::existing(place.directory().to_owned()),
            address,
            note: Arc::clone(&note),
            unanswered: Arc::clone(&unanswered),
        };
        let stop = Arc::clone(&stop);
        tasks.push(tokio::spawn(async move { worker.run(&stop).await }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    std::mem::take(&mut *unanswered.lock().unwrap())
}

struct Worker {
    name: String,
    admin: Client,
    place: Place,
    address: SocketAddr,
    note: Note,
    unanswered: Arc<Mutex<Unanswered>>,
}

impl Worker {
    async fn run(&self, stop: &AtomicBool) {
        let identity = Identity::new(id(&self.name), "ada");
        match self.admin.register_identity(&IdentityDocument(identity)).await {
            Ok(_) => {}
            Err(error) if problem(&error) == Some(ProblemCode::AlreadyExists) => {}
            Err(error) => return self.check(error),
        }
        for turn in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.turn(turn).await {
                return self.check(error);
            }
        }
    }

    /// The authority may be gone; as long as it is there, it answers what it should.
    fn check(&self, error: ClientError) {
        let code = problem(&error);
        assert!(matches!(code, None | Some(ProblemCode::ShuttingDown)), "{}: {error}", self.name);
    }

    async fn turn(&self, turn: u32) -> Result<(), ClientError> {
        let token = self.admin.create_token(&token_for(&self.name)).await?;
        (self.note)(format!("token {}", token.id));
        let key = new_key();
        let request = enrolment(&key, Evidence::JoinToken { token: token.token });
        let response = self.enroll(request).await?;
        (self.note)(format!("spent {} {}", token.id, response.serial));
        let held = Held { key, response };
        let key = new_key();
        let renewal = chancery_api::RenewRequest {
            csr: chancery_api::CsrDer::from_der(csr(&key)),
            lifetime: None,
            receipt: false,
        };
        let holder = self.place.client_at(self.address, Some(held.identity()));
        let renewed = holder.renew(&renewal, &fresh()).await?;
        self.acknowledged(&renewed);
        if turn.is_multiple_of(2) {
            let request =
                RevokeRequest::new(Selector::Serial(renewed.serial), RevocationReason::KeyCompromise);
            self.admin.revoke(&request).await?;
            (self.note)(format!("revoked {}", renewed.serial));
        }
        let text = String::from_utf8(self.admin.log_checkpoint().await?.to_vec()).unwrap();
        let signed: SignedNote = text.parse().unwrap();
        let checkpoint = Checkpoint::parse(signed.text()).unwrap();
        (self.note)(format!("checkpoint {} {}", checkpoint.size(), checkpoint.root()));
        Ok(())
    }

    async fn enroll(&self, request: EnrollRequest) -> Result<EnrollResponse, ClientError> {
        let key = fresh();
        let result = self.place.client_at(self.address, None).enroll(&request, &key).await;
        match &result {
            Ok(response) => self.acknowledged(response),
            Err(_) => self.unanswered.lock().unwrap().push((request, key)),
        }
        result
    }

    fn acknowledged(&self, response: &EnrollResponse) {
        (self.note)(certificate_line(response));
    }
}

/// The TBS is what was recorded; a signature that was not kept is made again, and ECDSA never signs twice the
/// same way.
pub fn certificate_line(response: &EnrollResponse) -> String {
    let der = read_certificates(response.certificate.as_bytes(), 1).unwrap().remove(0);
    let tbs = Digest::of(Certificate::from_der(&der).unwrap().tbs().der());
    format!("certificate {} {tbs}", response.serial)
}

/// Sends again what was not answered: each request gives one certificate, whether or not it had given it.
pub async fn send_again(place: &Place, address: SocketAddr, unanswered: Unanswered, note: &Note) -> usize {
    let count = unanswered.len();
    for (request, key) in unanswered {
        let client = place.client_at(address, None);
        let first = client.enroll(&request, &key).await.expect("a request without an answer is sent again");
        let second = client.enroll(&request, &key).await.expect("and again");
        assert_eq!(first.serial, second.serial);
        note(certificate_line(&first));
    }
    count
}

/// What was looked for and found.
#[derive(Debug, Default, Clone, Copy)]
pub struct Found {
    pub certificates: usize,
    pub revocations: usize,
    pub tokens: usize,
    pub spent: usize,
    pub checkpoints: usize,
    pub audited: u64,
}

/// Opens the authority and looks for everything that was acknowledged; with `whole`, audits the log as well.
///
/// # Errors
/// What is missing or wrong, the first of it.
pub async fn look_for(place: &Place, acknowledged: &[String], whole: bool) -> Result<Found, String> {
    let server = place.serve().await.map_err(|error| format!("it does not start again: {error}"))?;
    let authority = Arc::clone(&server.site().authority);
    let ledger = authority.ledger();
    let mut found = Found::default();
    let head = ledger.head();
    let mut buyers: BTreeMap<TokenId, SerialNumber> = BTreeMap::new();
    for line in acknowledged {
        let words: Vec<&str> = line.split(' ').collect();
        let missing = |what: &str| format!("{line}: {what}");
        match words[..] {
            ["certificate", serial, hash] => {
                let record = ledger.certificate(serial.parse().unwrap()).await.map_err(|e| e.to_string())?;
                let record = record.ok_or_else(|| missing("no such certificate"))?;
                let issued =
                    authority.workflow().retrieve(&record).await.map_err(|e| missing(&e.to_string()))?;
                let certificate = Certificate::from_der(issued.der()).map_err(|e| missing(&e.to_string()))?;
                if Digest::of(certificate.tbs().der()).to_string() != hash {
                    return Err(missing("another certificate has this serial"));
                }
                found.certificates += 1;
            }
            ["revoked", serial] => {
                let record = ledger.certificate(serial.parse().unwrap()).await.map_err(|e| e.to_string())?;
                let is_revoked = |state: &CertificateState| matches!(state, CertificateState::Revoked { .. });
                if !record.is_some_and(|record| is_revoked(&record.state)) {
                    return Err(missing("not revoked"));
                }
                found.revocations += 1;
            }
            ["token", token] => {
                let record = ledger.token(token.parse().unwrap()).await.map_err(|e| e.to_string())?;
                record.ok_or_else(|| missing("no such token"))?;
                found.tokens += 1;
            }
            ["spent", token, serial] => {
                let (token, serial) = (token.parse().unwrap(), serial.parse().unwrap());
                let record = ledger.token(token).await.map_err(|e| e.to_string())?;
                if record.map(|record| record.state) != Some(TokenState::Spent { serial }) {
                    return Err(missing("not spent on it"));
                }
                if buyers.insert(token, serial).is_some_and(|before| before != serial) {
                    return Err(missing("spent twice"));
                }
                found.spent += 1;
            }
            ["checkpoint", size, root] => {
                let (size, root): (u64, Digest) = (size.parse().unwrap(), root.parse().unwrap());
                if size > head.size {
                    return Err(missing("the log is shorter now"));
                }
                let proof =
                    ledger.consistency_proof(size, head.size).await.map_err(|e| missing(&e.to_string()))?;
                verify_consistency(size, head.size, &root, &head.root, &proof)
                    .map_err(|error| missing(&error.to_string()))?;
                found.checkpoints += 1;
            }
            _ => return Err(missing("nothing that a witness writes")),
        }
    }
    if whole {
        published(&server).await;
        found.audited = audited(place, server.api_address()).await?;
    }
    server.stop().await;
    Ok(found)
}

/// Exports the log as an auditor does and has it audited; this also finds tokens that were spent twice.
async fn audited(place: &Place, address: SocketAddr) -> Result<u64, String> {
    let client = place.client_at(address, Some(place.operator_identity()));
    let mut stream =
        client.export_audit(&AuditExportQuery::default()).await.map_err(|error| error.to_string())?;
    let mut export = Vec::new();
    while let Some(part) = stream.next_chunk().await.map_err(|error| error.to_string())? {
        export.extend_from_slice(&part);
    }
    let mut source = JsonLines::open(export.as_slice()).map_err(|error| error.to_string())?;
    let report = tokio::task::block_in_place(|| audit(&mut source, &AuditOptions::default(), &mut |_| {}))
        .map_err(|error| error.to_string())?;
    if !report.findings.are_clean() {
        let found: Vec<String> = report.findings.list().iter().map(ToString::to_string).collect();
        return Err(format!("the log does not verify: {}", found.join("; ")));
    }
    Ok(report.entries)
}
