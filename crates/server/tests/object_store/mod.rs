//! An object store for tests that somebody else wrote: the S3 of moto, which checks signatures and permissions.
//!
//! `CHANCERY_TEST_MOTO` names a Python that has moto; `scripts/test` installs one. Otherwise `python3` may have it.

#![allow(dead_code, reason = "each includer uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here fails the test, and skips are said"
)]

pub(crate) mod network;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

/// A store with one bucket; it ends with this.
pub(crate) struct ObjectStore {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) ready: Ready,
}

/// How it is reached.
#[derive(Deserialize)]
pub(crate) struct Ready {
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    pub(crate) region: String,
    /// `keeper` may read and write, `reader` may read, `lent` is a session.
    pub(crate) keys: BTreeMap<String, Key>,
}

#[derive(Deserialize)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl ObjectStore {
    /// A store, or nothing, loudly, where moto is not installed.
    pub(crate) fn start() -> Option<Self> {
        let python = std::env::var("CHANCERY_TEST_MOTO").unwrap_or_else(|_| "python3".into());
        let tried = Command::new(&python).args(["-c", "import moto.server, boto3, flask_cors"]).output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            println!(
                "SKIPPED tiles in an object store: moto is not installed (pip install 'moto[s3]' flask flask-cors)"
            );
            return None;
        }
        let mut child = Command::new(python)
            .args(["-c", include_str!("store.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut answers = BufReader::new(answers);
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        Some(Self { child, commands, answers, ready: serde_json::from_str(&line).unwrap() })
    }

    /// Writes a user's credentials to a file, as the AWS tools do.
    pub(crate) fn write_credentials(&self, user: &str, file: &Path) {
        let key = &self.ready.keys[user];
        write_credentials(file, &key.id, &key.secret, key.token.as_deref());
    }

    /// An object as another program reads it.
    pub(crate) fn get(&mut self, name: &str) -> Option<Vec<u8>> {
        let answer = self.ask(&json!(["get", name]));
        answer.as_str().map(|text| BASE64.decode(text.as_bytes()).unwrap())
    }

    /// Puts an object there as another program does, over any that is there.
    pub(crate) fn put(&mut self, name: &str, bytes: &[u8]) {
        self.ask(&json!(["put", name, BASE64.encode(bytes)]));
    }

    pub(crate) fn delete(&mut self, name: &str) {
        self.ask(&json!(["delete", name]));
    }

    /// The names of all objects.
    pub(crate) fn names(&mut self) -> Vec<String> {
        serde_json::from_value(self.ask(&json!(["list"]))).unwrap()
    }

    fn ask(&mut self, command: &Value) -> Value {
        writeln!(self.commands, "{command}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

/// Writes credentials to a file of their owner's own.
pub(crate) fn write_credentials(file: &Path, id: &str, secret: &str, token: Option<&str>) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    if let Some(token) = token {
        text += &format!("aws_session_token = {token}\n");
    }
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(file);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}
