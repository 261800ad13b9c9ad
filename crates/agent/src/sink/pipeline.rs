//! From a new certificate to a program that serves it: write, hook, probe, report, and again where that failed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chancery_rotate::client::{Failed, Life, Seed, next_attempt};
use chancery_types::{Clock, Random, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use super::config::{OnWithdrawal, SinkConfig};
use super::directory::{Directory, DirectoryError, Version};
use super::render::{self, RenderError};
use super::status::{Certificate, Phase, SinkStatus};
use crate::hook::{HookOutcome, Occasion, OccasionCertificate, Reason};
use crate::identities::{X509State, X509Svid};
use crate::probe::{OnFailure, ProbeOutcome};

/// One file sink, ready to run.
#[derive(Debug)]
pub struct Sink {
    config: Arc<SinkConfig>,
    directory: Arc<Mutex<Directory>>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    status: watch::Sender<SinkStatus>,
    job: Job,
    /// What the job was made for; nothing while there is no identity.
    wanted: Option<Wanted>,
    /// The last version that its program was seen to take up, or found at the start.
    good: Option<Good>,
    /// The certificate of the files that the program was last told of.
    last: Option<Arc<X509Svid>>,
    failed: u32,
}

/// What is left to do for a state.
#[derive(Debug, Clone)]
enum Job {
    Nothing,
    /// Make files of this certificate.
    Write(Arc<X509State>, Arc<X509Svid>),
    /// They are written, as this version; the program is to take them up.
    Apply(Version, Arc<X509Svid>),
    /// There is no identity any more: take the files away, and tell the program.
    Withdraw,
}

/// Everything in a state that files are made of.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    chain: Vec<Vec<u8>>,
    authorities: Vec<Vec<u8>>,
    crls: Vec<Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Good {
    version: Version,
    /// `None` for what an earlier run of the agent wrote.
    svid: Option<Arc<X509Svid>>,
}

/// What comes after an attempt, unless a new state comes first.
#[derive(Clone, Copy)]
enum Next {
    Rest,
    Prune(Instant),
    Retry(Instant),
}

/// Why an attempt failed, for the status.
struct Failure {
    phase: Phase,
    detail: String,
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Render(#[from] RenderError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("the task that writes was ended: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

impl Sink {
    /// Opens and locks the directory.
    ///
    /// # Errors
    /// [`DirectoryError`], which says what to change.
    pub fn open(
        config: SinkConfig,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, DirectoryError> {
        let directory = Directory::open(&config)?;
        let found = directory.current()?.filter(|version| !version.serial.is_empty());
        let status = SinkStatus {
            name: config.name.clone(),
            directory: config.directory.clone(),
            phase: Phase::Waiting,
            detail: String::new(),
            issued: None,
            in_place: found.as_ref().map(|version| in_place(version, None)),
            hook: None,
            probe: None,
            failed_attempts: 0,
            next_attempt: None,
            updated: clock.now(),
        };
        Ok(Self {
            config: Arc::new(config),
            directory: Arc::new(Mutex::new(directory)),
            clock,
            random,
            status: watch::Sender::new(status),
            job: Job::Nothing,
            wanted: None,
            good: found.map(|version| Good { version, svid: None }),
            last: None,
            failed: 0,
        })
    }

    /// Its status, now and at every change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<SinkStatus> {
        self.status.subscribe()
    }

    /// Follows the states until their sender is gone. A write that has begun comes to its end even if this is
    /// dropped; a hook that runs is killed.
    pub async fn run(mut self, mut states: watch::Receiver<Arc<X509State>>) {
        let mut next = Next::Rest;
        loop {
            let state = states.borrow_and_update().clone();
            if self.take(&state) {
                next = self.attempt().await;
            }
            let changed = loop {
                let (Next::Prune(at) | Next::Retry(at)) = next else { break states.changed().await };
                match tokio::time::timeout_at(at, states.changed()).await {
                    Ok(changed) => break changed,
                    Err(_) if matches!(next, Next::Retry(_)) => next = self.attempt().await,
                    Err(_) => {
                        self.prune().await;
                        next = Next::Rest;
                    }
                }
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Finds out what a new state asks for, and whether that is anything new.
    fn take(&mut self, state: &Arc<X509State>) -> bool {
        let svid = match render::choose(&self.config, state) {
            Ok(svid) => svid,
            // Nothing was ever issued to this run: what an earlier one wrote is not touched for want of news.
            Err(error) if self.last.is_none() && self.wanted.is_none() => {
                self.report(|status| status.detail = error.to_string());
                return false;
            }
            Err(_) => {
                let was_there = self.wanted.take().is_some();
                if was_there {
                    self.failed = 0;
                    self.job = Job::Withdraw;
                }
                return was_there;
            }
        };
        let wanted = Wanted {
            chain: svid.chain.clone(),
            authorities: render::authorities(&svid, state),
            crls: state.crls.clone(),
        };
        if self.wanted.as_ref() == Some(&wanted) {
            return false;
        }
        self.wanted = Some(wanted);
        self.failed = 0;
        self.report(|status| status.issued = Some(certificate(&svid)));
        self.job = Job::Write(state.clone(), svid);
        true
    }

    /// Does what is left to do, and says how that went.
    async fn attempt(&mut self) -> Next {
        let done = match self.job.clone() {
            Job::Nothing => return Next::Rest,
            Job::Withdraw => self.withdraw().await,
            Job::Apply(version, svid) => self.apply(version, svid).await,
            Job::Write(state, svid) => match self.write(state, svid.clone()).await {
                Ok(version) => {
                    // Also when the program takes nothing up for long, old versions do not pile up.
                    self.prune().await;
                    self.job = Job::Apply(version.clone(), svid.clone());
                    self.apply(version, svid).await
                }
                Err(failure) => Err(failure),
            },
        };
        match done {
            Ok(phase) => {
                self.job = Job::Nothing;
                self.failed = 0;
                self.report(|status| (status.phase, status.detail) = (phase, String::new()));
                Next::Prune(Instant::now() + self.config.grace)
            }
            Err(failure) => self.retry_after(failure),
        }
    }

    fn retry_after(&mut self, Failure { phase, detail }: Failure) -> Next {
        self.failed += 1;
        let now = self.clock.now();
        // The nearer the end of what is served, the more often.
        let life =
            self.good.as_ref().map(|good| Life { from: good.version.written, until: good.version.ends });
        let seed = Seed::of(self.config.name.as_bytes());
        let failed = Failed { attempts: self.failed, at: now, retry_after: None, seed };
        let due = next_attempt(failed, life).at;
        tracing::warn!(sink = %self.config.name, ?phase, attempts = self.failed, next = %due, "{detail}");
        self.report(|status| {
            (status.phase, status.detail, status.next_attempt) = (phase, detail, Some(due));
        });
        Next::Retry(Instant::now() + due.since(now))
    }

    /// Makes the files and puts them in place.
    async fn write(&mut self, state: Arc<X509State>, svid: Arc<X509Svid>) -> Result<Version, Failure> {
        self.report(|status| status.phase = Phase::Applying);
        let (config, clock, random) = (self.config.clone(), self.clock.clone(), self.random.clone());
        let files_of = svid.clone();
        let version = self
            .on_disk(move |directory| {
                let files = render::render(&config, &files_of, &state, &*clock, &*random)?;
                let serial = files_of.serial.to_string();
                Ok(directory.publish(&files, &serial, files_of.not_after, clock.now())?)
            })
            .await?;
        self.report(|status| status.in_place = Some(in_place(&version, Some(&svid))));
        Ok(version)
    }

    /// Has the program take up a version, or else the one before.
    async fn apply(&mut self, version: Version, svid: Arc<X509Svid>) -> Result<Phase, Failure> {
        self.put_in_place(&version, Some(&svid)).await?;
        let reason = if self.failed == 0 { Reason::Issued } else { Reason::Retry };
        self.last = Some(svid.clone());
        let told = self.tell(reason, &svid).await;
        let seen = self.look(&svid, told.is_ok()).await;
        match told.and(seen) {
            Ok(()) => {
                self.good = Some(Good { version, svid: Some(svid) });
                Ok(Phase::Current)
            }
            Err(failure) if self.failed + 1 >= ATTEMPTS_BEFORE_ROLLING_BACK => self.roll_back(failure).await,
            Err(failure) => Err(failure),
        }
    }

    /// Puts the last good version back, if that is wanted and it has not ended. It always reports a failure: that
    /// of the new one.
    async fn roll_back(&mut self, failure: Failure) -> Result<Phase, Failure> {
        let wanted = self.config.probe.as_ref().is_some_and(|probe| probe.on_failure == OnFailure::RollBack);
        let now = self.clock.now();
        // It must not end before the next attempt puts the new one in place again.
        let Some(good) =
            self.good.clone().filter(|good| wanted && good.version.ends > now + LEAST_TO_ROLL_BACK)
        else {
            return Err(failure);
        };
        self.put_in_place(&good.version, good.svid.as_deref()).await?;
        let svid = good.svid.or_else(|| self.last.clone());
        if let Some(svid) = svid {
            // How this ends is in the status; there is nothing more to fall back on.
            let _ = self.tell(Reason::RolledBack, &svid).await;
        }
        let detail = format!("{}; certificate {} is back in place", failure.detail, good.version.serial);
        Err(Failure { phase: Phase::RolledBack, detail })
    }

    /// Takes the files away and tells the program, unless it is to keep them.
    async fn withdraw(&mut self) -> Result<Phase, Failure> {
        if self.config.on_withdrawal == OnWithdrawal::Keep {
            return Ok(Phase::Withdrawn);
        }
        let clock = self.clock.clone();
        self.on_disk(move |directory| {
            if directory.current()?.is_none_or(|version| !version.serial.is_empty()) {
                directory.publish(&[], "", Timestamp::default(), clock.now())?;
            }
            Ok(directory.remove_others()?)
        })
        .await?;
        self.good = None;
        self.report(|status| (status.phase, status.in_place, status.probe) = (Phase::Withdrawn, None, None));
        match self.last.clone() {
            Some(svid) => self.tell(Reason::Withdrawn, &svid).await.map(|()| Phase::Withdrawn),
            None => Ok(Phase::Withdrawn),
        }
    }

    async fn put_in_place(&self, version: &Version, svid: Option<&X509Svid>) -> Result<(), Failure> {
        let target = version.clone();
        self.on_disk(move |directory| {
            if directory.current()?.as_ref() != Some(&target) {
                directory.point_to(&target)?;
            }
            Ok(())
        })
        .await?;
        self.report(|status| status.in_place = Some(in_place(version, svid)));
        Ok(())
    }

    async fn tell(&self, reason: Reason, svid: &X509Svid) -> Result<(), Failure> {
        let Some(hook) = &self.config.hook else { return Ok(()) };
        let occasion = Occasion {
            reason,
            sink: self.config.name.clone(),
            directory: self.config.directory.clone(),
            certificate: Some(OccasionCertificate {
                spiffe_id: svid.spiffe_id.clone(),
                serial: svid.serial,
                not_after: svid.not_after,
            }),
        };
        let outcome = hook.run(&occasion).await;
        let failure = if outcome.is_done() { None } else { Some(hook_failure(&outcome)) };
        self.report(|status| status.hook = Some(outcome));
        failure.map_or(Ok(()), Err)
    }

    /// Looks what is served: for a while if the program was told, once for the status if it was not.
    async fn look(&self, svid: &X509Svid, told: bool) -> Result<(), Failure> {
        let Some(probe) = &self.config.probe else { return Ok(()) };
        let expected = svid.chain.first().map_or(&[][..], Vec::as_slice);
        let outcome = if told { probe.wait_for(expected).await } else { probe.look(expected).await };
        let detail = match &outcome {
            ProbeOutcome::Serving => None,
            ProbeOutcome::ServingAnother { serial, .. } => Some(format!(
                "issued, not serving: certificate {} is in place, {serial} is served",
                svid.serial
            )),
            ProbeOutcome::NotServing { why } => Some(format!("issued, not serving: {why}")),
        };
        self.report(|status| status.probe = Some(outcome));
        detail.map_or(Ok(()), |detail| Err(Failure { phase: Phase::IssuedNotServing, detail }))
    }

    async fn prune(&self) {
        let keep = self.good.as_ref().map(|good| good.version.clone());
        let now = self.clock.now();
        let pruned = self.on_disk(move |directory| Ok(directory.prune(keep.as_ref(), now)?)).await;
        if let Err(failure) = pruned {
            // Old keys of ended certificates: worth a word, and another try with the next rotation.
            tracing::warn!(sink = %self.config.name, "old versions stay: {}", failure.detail);
        }
    }

    /// Files are synced, which takes as long as the disk does.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Directory) -> Result<T, WriteError> + Send + 'static,
    ) -> Result<T, Failure> {
        let directory = self.directory.clone();
        let done = tokio::task::spawn_blocking(move || {
            work(&directory.lock().unwrap_or_else(PoisonError::into_inner))
        });
        let done = done.await.map_err(WriteError::from).flatten();
        done.map_err(|error| Failure { phase: Phase::NotWritten, detail: error.to_string() })
    }

    fn report(&self, change: impl FnOnce(&mut SinkStatus)) {
        self.status.send_modify(|status| {
            status.next_attempt = None;
            change(status);
            status.failed_attempts = self.failed;
            status.updated = self.clock.now();
        });
    }
}

fn certificate(svid: &X509Svid) -> Certificate {
    Certificate {
        spiffe_id: Some(svid.spiffe_id.clone()),
        serial: svid.serial.to_string(),
        not_after: svid.not_after,
    }
}

fn in_place(version: &Version, svid: Option<&X509Svid>) -> Certificate {
    Certificate {
        spiffe_id: svid.map(|svid| svid.spiffe_id.clone()),
        serial: version.serial.clone(),
        not_after: version.ends,
    }
}

fn hook_failure(outcome: &HookOutcome) -> Failure {
    let detail = match outcome {
        HookOutcome::Done { .. } => String::new(),
        HookOutcome::NotStarted { why } | HookOutcome::NoProcess { why } => {
            format!("the hook did not run: {why}")
        }
        HookOutcome::Failed { how, output } => format!("the hook failed: {how}: {}", first_line(output)),
        HookOutcome::TimedOut { after_seconds, output } => {
            format!("the hook took more than {after_seconds} s: {}", first_line(output))
        }
    };
    Failure { phase: Phase::HookFailed, detail }
}

fn first_line(output: &str) -> &str {
    output.lines().next().unwrap_or("it printed nothing")
}

/// A reload that fails twice may be a coincidence.
const ATTEMPTS_BEFORE_ROLLING_BACK: u32 = 3;

/// What must be left of a certificate that is rolled back to: many times the shortest pause between attempts.
const LEAST_TO_ROLL_BACK: Duration = Duration::from_mins(1);
