//! Work on several replicas at once, and a memory of everything that was acknowledged.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chancery_entry::{Body, Entry, TokenSpend};
use chancery_ledger::{
    CertificateState, CommitError, IssuedSignature, Ledger, Outcome, Precondition, Proposal, Standing,
};
use chancery_merkle::{Checkpoint, Frontier, leaf_hash};
use chancery_types::{Digest, RevocationReason, SerialNumber};

use crate::workload;

/// What every load needs.
pub(crate) async fn set_up(ledger: &dyn Ledger) {
    accept(ledger, workload::genesis()).await;
    accept(ledger, workload::issuer()).await;
    for number in 0..10 {
        accept(ledger, workload::registration(number)).await;
    }
}

/// Commits one proposal; its first index, or what stands in its way.
pub(crate) async fn one(ledger: &dyn Ledger, proposal: Proposal) -> Result<u64, Standing> {
    match ledger.commit(vec![proposal]).await.unwrap().remove(0) {
        Outcome::Accepted { first_index } => Ok(first_index),
        Outcome::Refused(conflict) => Err(conflict.standing),
    }
}

pub(crate) async fn accept(ledger: &dyn Ledger, proposal: Proposal) -> u64 {
    one(ledger, proposal).await.unwrap()
}

/// What the ledger has said.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Acknowledged: index and what the entry's serial is.
    pub(crate) entries: HashMap<u64, SerialNumber>,
    pub(crate) revoked: HashSet<SerialNumber>,
    pub(crate) checkpoints: Vec<(u64, Digest)>,
    /// Commits after which it was not known whether they were recorded.
    pub(crate) unanswered: u64,
}

/// Work that goes on until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    /// Acknowledged commits, by replica.
    done: Arc<Vec<AtomicU64>>,
    told: Arc<Mutex<Told>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// So many at a time at each replica.
    pub(crate) fn start<L: Ledger>(replicas: &[Arc<L>], each: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done: Arc<Vec<AtomicU64>> = Arc::new(replicas.iter().map(|_| AtomicU64::new(0)).collect());
        let told = Arc::new(Mutex::new(Told::default()));
        // Two that belong to different replicas share each token: one of them gets it.
        let counter = Arc::new(AtomicU64::new(1));
        let mut tasks = Vec::new();
        for (number, replica) in replicas.iter().enumerate() {
            for _ in 0..each {
                let worker = Worker {
                    ledger: Arc::clone(replica) as Arc<dyn Ledger>,
                    replica: number,
                    counter: Arc::clone(&counter),
                    stop: Arc::clone(&stop),
                    done: Arc::clone(&done),
                    told: Arc::clone(&told),
                };
                tasks.push(tokio::spawn(worker.run()));
            }
        }
        Self { stop, done, told, tasks }
    }

    /// Waits until every replica has acknowledged something new; how long it took.
    pub(crate) async fn works(&self, limit: Duration) -> Duration {
        let began = Instant::now();
        for replica in 0..self.done.len() {
            self.works_at(replica, limit).await;
        }
        began.elapsed()
    }

    pub(crate) async fn works_at(&self, replica: usize, limit: Duration) -> Duration {
        let began = Instant::now();
        // The commit that ends next may have begun long before.
        let wanted = self.done[replica].load(Ordering::SeqCst) + 1;
        while self.done[replica].load(Ordering::SeqCst) < wanted {
            assert!(began.elapsed() < limit, "replica {replica} does not work after {limit:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        began.elapsed()
    }

    pub(crate) async fn stop(self) -> Told {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

struct Worker {
    ledger: Arc<dyn Ledger>,
    replica: usize,
    counter: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    done: Arc<Vec<AtomicU64>>,
    told: Arc<Mutex<Told>>,
}

impl Worker {
    async fn run(self) {
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.counter.fetch_add(1, Ordering::SeqCst);
            self.enrol(number).await;
        }
    }

    /// A token is made, two certificates ask for it at once, one gets it; that one may be revoked.
    async fn enrol(&self, number: u64) {
        let (token, creation) = workload::token(number);
        self.insist(creation).await;
        let buying = |counter| {
            let issuance = workload::issuance(counter, workload::identity(number % 10));
            let requires = vec![
                Precondition::TokenUsable { token, now: workload::now() },
                Precondition::SerialUnused(issuance.serial),
                Precondition::IdentityActive(issuance.identity.clone()),
            ];
            let spend = Body::TokenSpent(TokenSpend { token, serial: issuance.serial });
            workload::propose(requires, issuance.not_before, vec![issuance.into(), spend])
        };
        let (one, other) = (1_000_000 + 2 * number, 1_000_001 + 2 * number);
        let (first, second) = tokio::join!(self.insist(buying(one)), self.insist(buying(other)));
        for (counter, index) in [(one, first), (other, second)] {
            let Some(index) = index else { continue };
            let serial = workload::serial(counter);
            self.told.lock().unwrap().entries.insert(index, serial);
            let signature = IssuedSignature { index, signature: vec![7; 70] };
            // A failure costs a second signature later.
            let _ = self.ledger.keep_signatures(vec![signature]).await;
            if number.is_multiple_of(3) {
                let revocation = workload::revoke(serial, RevocationReason::Superseded, workload::now());
                if self.insist(revocation).await.is_some() {
                    self.told.lock().unwrap().revoked.insert(serial);
                }
            }
        }
        if let Ok(note) = self.ledger.checkpoint() {
            let checkpoint = Checkpoint::parse(note.text()).unwrap();
            self.told.lock().unwrap().checkpoints.push((checkpoint.size(), checkpoint.root()));
        }
    }

    /// Commits, again and again while the database is away; the index when it was acknowledged, nothing when it was
    /// refused or stands already.
    async fn insist(&self, proposal: Proposal) -> Option<u64> {
        loop {
            match self.ledger.commit(vec![proposal.clone()]).await {
                Ok(outcomes) => {
                    self.done[self.replica].fetch_add(1, Ordering::SeqCst);
                    return match outcomes[0] {
                        Outcome::Accepted { first_index } => Some(first_index),
                        Outcome::Refused(_) => None,
                    };
                }
                Err(CommitError::Unavailable { .. }) => self.told.lock().unwrap().unanswered += 1,
                Err(error) => panic!("replica {}: {error}", self.replica),
            }
        }
    }
}

impl Told {
    /// Everything acknowledged is there, nothing was given twice, and every checkpoint is one of this log.
    pub(crate) async fn verify(&self, ledger: &dyn Ledger) {
        let entries = ledger.entries(0, usize::MAX).await.unwrap();
        let (mut spent, mut serials) = (HashSet::new(), HashMap::new());
        for (bytes, index) in entries.iter().zip(0_u64..) {
            match Entry::decode(bytes).unwrap().body {
                Body::TokenSpent(spend) => {
                    assert!(spent.insert(spend.token), "token {} was spent twice", spend.token);
                }
                Body::Issuance(issuance) => {
                    let counter = (issuance.serial.epoch(), issuance.serial.counter());
                    assert_eq!(serials.insert(counter, index), None, "counter {counter:?} was given twice");
                }
                _ => {}
            }
        }
        assert!(!self.entries.is_empty());
        for (index, serial) in &self.entries {
            let counter = (serial.epoch(), serial.counter());
            assert_eq!(serials.get(&counter), Some(index), "certificate {serial} was acknowledged");
        }
        for serial in &self.revoked {
            let state = ledger.certificate(*serial).await.unwrap().unwrap().state;
            assert!(matches!(state, CertificateState::Revoked { .. }), "{serial} was revoked");
        }
        let mut checkpoints = self.checkpoints.clone();
        checkpoints.sort_by_key(|(size, _)| *size);
        let mut frontier = Frontier::new();
        for (size, root) in checkpoints {
            assert!(size <= entries.len() as u64, "a checkpoint of {size} was given out");
            while frontier.size() < size {
                let next = usize::try_from(frontier.size()).unwrap();
                frontier.append(leaf_hash(&entries[next]), &mut |_, _, _| {});
            }
            assert_eq!(frontier.root(), root, "the checkpoint of {size} is of another log");
        }
    }
}

/// Works for ever from this number on, and says what was acknowledged.
pub(crate) async fn work_aloud(ledger: Arc<dyn Ledger>, first: u64) {
    let told = Arc::new(Mutex::new(Told::default()));
    let counter = Arc::new(AtomicU64::new(first));
    for _ in 0..8 {
        let worker = Worker {
            ledger: Arc::clone(&ledger),
            replica: 0,
            counter: Arc::clone(&counter),
            stop: Arc::default(),
            done: Arc::new(vec![AtomicU64::new(0)]),
            told: Arc::clone(&told),
        };
        tokio::spawn(worker.run());
    }
    loop {
        let said = std::mem::take(&mut told.lock().unwrap().entries);
        for (index, serial) in said {
            use std::io::Write;
            // In one write, so that lines do not mix.
            std::io::stdout().lock().write_all(format!("ack {index} {serial} .\n").as_bytes()).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
