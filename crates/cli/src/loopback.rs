//! An authority, and an agent of it, as child processes on loopback, for the commands that show and measure them.
//!
//! The child is this very program. It is stopped by SIGTERM and killed when its handle is dropped, so that a
//! failed demonstration leaves nothing behind.

use std::fmt;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};

/// How long a server may take until it accepts connections, and how long until it is gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at whether it is there.
const LOOK: Duration = Duration::from_millis(5);
/// An agent and a supervisor that the caller may have, and that are none of the child's business.
const OF_OTHERS: [&str; 3] = ["SPIFFE_ENDPOINT_SOCKET", "NOTIFY_SOCKET", "WATCHDOG_USEC"];

/// Two addresses on loopback that nobody listens on at this moment.
pub(crate) fn free_addresses() -> Result<(SocketAddr, SocketAddr)> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (one, two) = (bind()?, bind()?);
    Ok((one.local_addr()?, two.local_addr()?))
}

/// This program, to be run with other arguments: without any setting of the caller's environment.
pub(crate) fn this_program() -> Result<Command> {
    let program = std::env::current_exe().context("this program does not find itself")?;
    Ok(copy_of_this_program(&program))
}

/// The same from a copy of it.
pub(crate) fn copy_of_this_program(path: &Path) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CHANCERY_") || OF_OTHERS.contains(&&*text) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Where a server accepts connections.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    /// On loopback.
    Tcp(SocketAddr),
    /// On a UNIX socket.
    Unix(PathBuf),
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    process: Pid,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts this program as a server in a directory and waits until all of its doors accept connections. What it
    /// writes goes to `log`.
    pub(crate) async fn start(
        directory: &Path,
        arguments: &[&str],
        log: &Path,
        doors: &[Door],
    ) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = this_program()?
            .args(arguments)
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .context("cannot start the server")?;
        let process = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let process = process.context("the server ended before it began")?;
        let mut server = Self { child, process, log: log.to_owned() };
        for door in doors {
            server.wait_for(door).await?;
        }
        Ok(server)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.as_raw_nonzero().get().unsigned_abs()
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        kill_process(self.process, Signal::TERM).context("cannot stop the server")?;
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(_) => bail!("the server did not end well:\n{}", self.said()),
            Err(_) => bail!("the server did not stop within {} s:\n{}", PATIENCE.as_secs(), self.said()),
        }
    }

    /// What it wrote.
    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    async fn wait_for(&mut self, door: &Door) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at once ({status}):\n{}", self.said());
            }
            if door.is_open().await {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("the server does not listen on {door} after {} s:\n{}", PATIENCE.as_secs(), self.said())
    }
}

impl Door {
    async fn is_open(&self) -> bool {
        match self {
            Self::Tcp(address) => TcpStream::connect(address).await.is_ok(),
            Self::Unix(path) => UnixStream::connect(path).await.is_ok(),
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => path.display().fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_differ_and_can_be_bound() {
        let (one, two) = free_addresses().unwrap();
        assert_ne!(one, two);
        assert!(TcpListener::bind(one).is_ok() && TcpListener::bind(two).is_ok());
    }
}
