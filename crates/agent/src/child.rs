//! A program that is started with an identity: what `chancery run -- PROGRAM ARGUMENTS` does.
//!
//! The child gets the agent's socket and the paths of its files in its environment, and everything else as its
//! parent has it. Signals that the parent gets go to the child, the child's end is the parent's. When the identity
//! rotates, the child is left alone, signalled, or started anew.
//!
//! It keeps the child running, not safe: the child has the rights of whoever started it.

mod environment;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

pub use self::environment::Environment;
use crate::hook::SignalName;
use crate::sink::{Phase, SinkStatus};

/// What to run, and what to do with it.
#[derive(Debug, Clone)]
pub struct ChildConfig {
    /// The program, searched for in `PATH` if it has no slash.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What is added to its environment.
    pub environment: Environment,
    /// What happens when its identity has rotated.
    pub on_rotation: OnRotation,
}

/// How a child learns of new files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRotation {
    /// It looks for itself.
    Nothing,
    /// By a signal.
    Signal(SignalName),
    /// By being ended with SIGTERM, or killed if it is still there after this time, and started anew.
    Restart(Duration),
}

/// Why there is no child.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It cannot be started.
    #[error("cannot run {program}: {cause}")]
    Start {
        /// What.
        program: String,
        /// Why not.
        cause: std::io::Error,
    },
    /// Signals cannot be received, or the child not be waited for.
    #[error("cannot watch over the child: {0}")]
    Watch(std::io::Error),
}

impl ChildError {
    /// What a shell would exit with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound => 127,
            Self::Start { .. } => 126,
            Self::Watch(_) => 125,
        }
    }
}

/// What a parent exits with that ends as its child did: 128 and the number of the signal, as in a shell, if it was
/// killed.
#[must_use]
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

/// Runs the child to its end. `rotations` changes whenever there are new files; when its sender is gone, there will
/// be none.
///
/// # Errors
/// [`ChildError`].
pub async fn run(
    config: &ChildConfig,
    mut rotations: watch::Receiver<u64>,
) -> Result<ExitStatus, ChildError> {
    // Before the child is there, so that no signal is lost in between.
    let mut signals = listen().map_err(ChildError::Watch)?;
    rotations.mark_unchanged();
    loop {
        let mut child = Child::start(config)?;
        let ended = loop {
            tokio::select! {
                status = child.process.wait() => break Some(status.map_err(ChildError::Watch)?),
                Some(signal) = signals.recv() => child.signal(signal),
                Ok(()) = rotations.changed() => match config.on_rotation {
                    OnRotation::Nothing => {}
                    OnRotation::Signal(SignalName(signal)) => child.signal(signal),
                    OnRotation::Restart(patience) => match child.end(patience, &mut signals).await? {
                        Asked::ByUs => break None,
                        Asked::ByOthers(status) => break Some(status),
                    },
                },
            }
        };
        if let Some(status) = ended {
            return Ok(status);
        }
    }
}

/// Turns what a sink says into rotations: waits for its first files, then counts every change of them. `None` if the
/// sink ended before there were any.
pub async fn rotations_of(mut status: watch::Receiver<SinkStatus>) -> Option<watch::Receiver<u64>> {
    let serial = |status: &SinkStatus| status.in_place.as_ref().map(|certificate| certificate.serial.clone());
    // What an earlier run left does not count as long as nothing was issued to this one.
    let first =
        status.wait_for(|status| status.issued.is_some() && status.phase == Phase::Current).await.ok()?;
    let mut seen = serial(&first);
    drop(first);
    let (count, rotations) = watch::channel(0);
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            let now = serial(&status.borrow_and_update());
            if now.is_some() && now != seen {
                seen = now;
                count.send_modify(|count| *count += 1);
            }
        }
    });
    Some(rotations)
}

/// Who wanted a child to end.
enum Asked {
    ByUs,
    ByOthers(ExitStatus),
}

struct Child {
    process: tokio::process::Child,
    /// What signals are sent to: it cannot come to mean another process.
    handle: std::os::fd::OwnedFd,
}

impl Child {
    fn start(config: &ChildConfig) -> Result<Self, ChildError> {
        let program = config.program.to_string_lossy().into_owned();
        let mut command = Command::new(&config.program);
        command.args(&config.arguments).envs(config.environment.variables()).kill_on_drop(true);
        let process = command.spawn().map_err(|cause| ChildError::Start { program, cause })?;
        // It has not been waited for, so that the number is still its own, even if it has ended.
        let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it was just started");
        let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(|cause| ChildError::Watch(cause.into()))?;
        Ok(Self { process, handle })
    }

    /// One that has ended gets no signal, and needs none.
    fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// Ends it. If somebody else asks for the end meanwhile, it stays ended.
    async fn end(
        &mut self,
        patience: Duration,
        signals: &mut mpsc::Receiver<Signal>,
    ) -> Result<Asked, ChildError> {
        self.signal(Signal::TERM);
        let mut asked_by_others = false;
        let handle = &self.handle;
        let ended = timeout(patience, async {
            loop {
                tokio::select! {
                    status = self.process.wait() => break status,
                    Some(signal) = signals.recv() => {
                        asked_by_others |= [Signal::TERM, Signal::INT, Signal::QUIT].contains(&signal);
                        let _ = pidfd_send_signal(handle, signal);
                    }
                }
            }
        })
        .await;
        let status = match ended {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::KILL);
                self.process.wait().await
            }
        };
        let status = status.map_err(ChildError::Watch)?;
        Ok(if asked_by_others { Asked::ByOthers(status) } else { Asked::ByUs })
    }
}

/// Signals to this process that are meant for the child.
fn listen() -> std::io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(16);
    // At a terminal the kernel sends these two to both of us.
    let at_terminal = std::io::stdin().is_terminal();
    let forwarded = [
        (SignalKind::hangup(), Signal::HUP, true),
        (SignalKind::terminate(), Signal::TERM, true),
        (SignalKind::user_defined1(), Signal::USR1, true),
        (SignalKind::user_defined2(), Signal::USR2, true),
        (SignalKind::interrupt(), Signal::INT, !at_terminal),
        (SignalKind::quit(), Signal::QUIT, !at_terminal),
    ];
    for (kind, number, forward) in forwarded {
        let mut stream = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if forward && sender.send(number).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}
