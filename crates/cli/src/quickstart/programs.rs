//! Programs of their own on the stage: copies of this one under other names, which ask the agent what they are.
//!
//! They are told nothing but where the agent's socket is. What the agent gives them follows from what the kernel says
//! of the process that asks.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout};

use crate::commands::fetch::Identity;
use crate::loopback::copy_of_this_program;
use crate::stage::Said;

/// How long a program may have to wait for what it is shown to get.
const PATIENCE: Duration = Duration::from_secs(10);

/// An executable file.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
}

/// A program that runs and listens to the agent.
#[derive(Debug)]
pub(crate) struct Listener {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    errors: ChildStderr,
    identity: Option<Identity>,
}

impl Program {
    /// A copy of this program, with something more behind it that no loader reads: another file, with another hash.
    pub(crate) fn install(path: PathBuf, more: &str) -> Result<Self> {
        let copy = || -> Result<()> {
            std::fs::copy(std::env::current_exe()?, &path)?;
            std::fs::OpenOptions::new().append(true).open(&path)?.write_all(more.as_bytes())?;
            Ok(())
        };
        copy().with_context(|| format!("cannot copy this program to {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it until it loses what it is.
    pub(crate) fn listen(&self, socket: &Path) -> Result<Listener> {
        let mut child = copy_of_this_program(&self.path)
            .args(["fetch", "x509", "--watch", "--json"])
            .env("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", socket.display()))
            .env("NO_COLOR", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!("cannot run {}; choose a --dir where programs may run", self.path.display())
            })?;
        let output = child.stdout.take().expect("it was asked for");
        let errors = child.stderr.take().expect("it was asked for");
        Ok(Listener { child, lines: BufReader::new(output).lines(), errors, identity: None })
    }
}

impl Listener {
    /// Its process.
    pub(crate) fn id(&self) -> Result<u32> {
        self.child.id().context("the program has ended")
    }

    /// What it is, by what its stream brought last.
    pub(crate) fn identity(&self) -> Result<&Identity> {
        self.identity.as_ref().context("the stream has brought nothing yet")
    }

    /// Waits for what its stream brings next.
    pub(crate) async fn next(&mut self) -> Result<&Identity> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        match line.context("nothing came over the stream in time")?? {
            Some(line) => {
                let identities: Vec<Identity> = serde_json::from_str(&line)?;
                self.identity = identities.into_iter().next();
                self.identity()
            }
            None => bail!("the stream ended instead: {}", self.said().await?),
        }
    }

    /// Waits until its stream ends with nothing more; says with which exit code it ended, and what it said.
    pub(crate) async fn ended(mut self) -> Result<Said> {
        let last = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        if let Some(line) = last.context("the stream goes on")?? {
            bail!("the stream brought something more: {line}");
        }
        let errors = self.said().await?;
        Ok(Said { code: self.child.wait().await?.code(), output: String::new(), errors })
    }

    /// Whether it still runs, which it does as long as its stream is open.
    pub(crate) fn is_there(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    async fn said(&mut self) -> Result<String> {
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).await?;
        Ok(errors)
    }
}
