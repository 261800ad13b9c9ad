//! A real authority for tests: made and served by the program itself, on free ports, killed when it is dropped.
//! Used by every test that needs a server.

#[path = "../../../ledger/tests/server/port.rs"]
#[allow(clippy::duplicate_mod, reason = "some programs have a database server too, which comes with it")]
mod port;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) use port::free_port;

/// An authority in a directory of its own, and its server if it runs.
pub(crate) struct Authority {
    directory: tempfile::TempDir,
    /// Where clients reach it.
    pub(crate) url: String,
    server: Option<Child>,
}

impl Authority {
    /// Makes one: `chancery init` with these flags besides those that a test always needs.
    pub(crate) fn init(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (api, status) = (free_port(), free_port());
        let authority = Self { directory, url: format!("https://127.0.0.1:{api}"), server: None };
        let (api, status) = (format!("127.0.0.1:{api}"), format!("127.0.0.1:{status}"));
        let always =
            ["init", "--yes", "--trust-domain", "example.org", "--listen", &api, "--status-listen", &status];
        authority.chancery(&[&always, flags].concat()).success();
        authority
    }

    /// Serves it, and waits until it answers.
    pub(crate) fn serve(&mut self) {
        let log = std::fs::File::create(self.path("serve.log")).unwrap();
        let child = command(self.directory.path())
            .args(["serve", "--allow-online-root"])
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if run(self.directory.path(), &["log", "key"]).is_success() {
                return;
            }
            let child = self.server.as_mut().unwrap();
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "it does not serve:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) {
        let mut child = self.server.take().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Runs a command beside the authority, as an operator on its host does.
    pub(crate) fn chancery(&self, arguments: &[&str]) -> Ran {
        run(self.directory.path(), arguments)
    }

    /// A path in the directory beside the authority.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("serve.log")).unwrap_or_default()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        if let Some(child) = &mut self.server {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a command did.
pub(crate) struct Ran {
    line: String,
    output: Output,
}

impl Ran {
    /// Requires exit code 0; returns standard output.
    pub(crate) fn success(&self) -> String {
        self.code(0);
        String::from_utf8(self.output.stdout.clone()).unwrap()
    }

    /// Requires exit code 0 and JSON.
    #[allow(dead_code, reason = "not every test reads what a command says of itself")]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.success()).unwrap()
    }

    /// Requires this exit code; returns standard error.
    pub(crate) fn code(&self, code: i32) -> String {
        let errors = String::from_utf8_lossy(&self.output.stderr).into_owned();
        let text = String::from_utf8_lossy(&self.output.stdout);
        assert_eq!(self.output.status.code(), Some(code), "{}\n{text}\n{errors}", self.line);
        errors
    }

    /// What it wrote to standard output, however it ended.
    #[allow(dead_code, reason = "not every test looks at what a failure printed")]
    pub(crate) fn output(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).unwrap()
    }

    /// Whether it ended with exit code 0.
    pub(crate) fn is_success(&self) -> bool {
        self.output.status.success()
    }
}

/// Runs the program in this directory.
pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Ran {
    let output = command(directory).args(arguments).output().unwrap();
    Ran { line: arguments.join(" "), output }
}

pub(crate) fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHANCERY_")) {
        command.env_remove(name);
    }
    command.current_dir(directory).stdin(Stdio::null());
    command
}
