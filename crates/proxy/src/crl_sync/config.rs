//! `crl-sync.toml`: what an operator writes, checked as a whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chancery_agent::hook::{Hook, HookSettings};
use chancery_agent::sink::owner::{self, Ownership};
use chancery_types::HumanDuration;
use serde::Deserialize;

use crate::mistakes::{ConfigError, Mistakes, load};
use crate::source::RawCredentials;
use crate::tunnel::Address;
use crate::upstream::Upstream;

/// The file as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCrlSync {
    /// The authority, as https://host:port.
    pub server: String,
    /// PEM file with its roots.
    pub trust_bundle: PathBuf,
    /// A client certificate, with which the status feed is followed.
    #[serde(default)]
    pub identity: Option<RawCredentials>,
    /// How often to ask when the feed is not there; `30s` if not given.
    #[serde(default)]
    pub poll: Option<HumanDuration>,
    /// Where metrics and health are served: an address, or `unix:/path`; nowhere if not given.
    #[serde(default)]
    pub metrics: Option<String>,
    /// How long the lists in place may go without being known to be the newest before it is an alarm; ten minutes if
    /// not given, or three times `poll`.
    #[serde(default)]
    pub maximum_age: Option<HumanDuration>,
    /// Files with lists of the roots.
    #[serde(default)]
    pub also: Vec<PathBuf>,
    /// Where lists are put.
    #[serde(default)]
    pub outputs: Vec<RawOutput>,
}

/// `[[outputs]]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawOutput {
    /// How it is called in reports and logs.
    pub name: String,
    /// One PEM file with all lists.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// A directory with a file for each list.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// With `directory`: what the files are; `hashed` if not given.
    #[serde(default)]
    pub form: Option<FileForm>,
    /// Octal; `0644` if not given.
    #[serde(default)]
    pub mode: Option<String>,
    /// Whose the files are: a name or a number; this process's own user if not given.
    #[serde(default)]
    pub owner: Option<String>,
    /// Their group.
    #[serde(default)]
    pub group: Option<String>,
    /// What is done after they have changed.
    #[serde(default)]
    pub hook: Option<HookSettings>,
}

/// How lists stand in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileForm {
    /// All in one PEM file.
    #[serde(skip)]
    Bundle,
    /// PEM, named by the hash of the issuer's name: what OpenSSL calls `-CApath`.
    #[default]
    Hashed,
    /// PEM, `<hash>-<n>.crl.pem`.
    Pem,
    /// DER, `<hash>-<n>.crl`.
    Der,
}

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct CrlSyncConfig {
    /// The authority.
    pub upstream: Upstream,
    /// How often to ask when the feed is not there.
    pub poll: Duration,
    /// Where metrics and health are served.
    pub metrics: Option<Address>,
    /// After how long without a good round there is an alarm.
    pub maximum_age: Duration,
    /// Files with lists of the roots.
    pub also: Vec<PathBuf>,
    /// Where lists are put.
    pub outputs: Vec<OutputConfig>,
}

/// One checked output.
#[derive(Debug, Clone)]
pub struct OutputConfig {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) form: FileForm,
    pub(super) mode: u32,
    pub(super) ownership: Ownership,
    pub(super) hook: Option<Hook>,
}

impl CrlSyncConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path, Self::check)
    }

    /// Checks a configuration whose paths are relative to this directory.
    ///
    /// # Errors
    /// One line for each mistake.
    pub fn check(raw: RawCrlSync, directory: &Path) -> Result<Self, Vec<String>> {
        let mut mistakes = Mistakes::default();
        let upstream =
            Upstream::check(&raw.server, &raw.trust_bundle, raw.identity, directory, &mut mistakes);
        let poll = raw.poll.map_or(POLL, |poll| poll.0);
        if !(Duration::from_secs(1)..=Duration::from_hours(24)).contains(&poll) {
            mistakes.add("poll: is from 1s to 24h");
        }
        if raw.outputs.is_empty() {
            mistakes.add("outputs: name at least one place for the lists");
        }
        let mut names = BTreeSet::new();
        let mut paths = BTreeSet::new();
        let mut outputs = Vec::with_capacity(raw.outputs.len());
        for output in raw.outputs {
            let name = output.name.clone();
            if !names.insert(name.clone()) {
                mistakes.add(format!("outputs: two are called {name:?}"));
            }
            let Some(output) = OutputConfig::check(output, directory, &mut mistakes) else { continue };
            if !paths.insert(output.path.clone()) {
                mistakes.add(format!("outputs: two write to {}", output.path.display()));
            }
            outputs.push(output);
        }
        let maximum_age = raw.maximum_age.map_or(MAXIMUM_AGE.max(3 * poll), |age| age.0);
        if maximum_age < 2 * poll {
            mistakes.add("maximum_age: is at least twice poll, or an ordinary pause is an alarm");
        }
        let metrics = raw.metrics.and_then(|text| mistakes.keep("metrics", Address::parse(&text, directory)));
        let also = raw.also.iter().map(|path| directory.join(path)).collect();
        mistakes.into_result(upstream.map(|upstream| Self {
            upstream,
            poll,
            metrics,
            maximum_age,
            also,
            outputs,
        }))
    }
}

impl OutputConfig {
    fn check(raw: RawOutput, directory: &Path, mistakes: &mut Mistakes) -> Option<Self> {
        let field = |field: &str| format!("outputs.{}.{field}", raw.name);
        if raw.name.is_empty() || raw.name.len() > 64 {
            mistakes.add("outputs: a name has 1 to 64 bytes");
        }
        let place = match (raw.file, raw.directory, raw.form) {
            (Some(file), None, None) => Some((directory.join(file), FileForm::Bundle)),
            (None, Some(path), form) => Some((directory.join(path), form.unwrap_or_default())),
            _ => {
                mistakes
                    .add(format!("outputs.{}: give file, or directory (and form): one of the two", raw.name));
                None
            }
        };
        let mode = raw.mode.as_deref().unwrap_or("0644");
        let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| mode & !0o664 == 0);
        let mode = mistakes.keep(&field("mode"), mode.ok_or("is octal and at most 0664"));
        let ownership =
            mistakes.keep(&field("owner"), owner::resolve(raw.owner.as_deref(), raw.group.as_deref()));
        let hook = mistakes.keep(&field("hook"), raw.hook.map(Hook::try_from).transpose());
        let (path, form) = place?;
        Some(Self { name: raw.name, path, form, mode: mode?, ownership: ownership?, hook: hook? })
    }

    /// Where its files are.
    pub(super) fn directory(&self) -> &Path {
        match self.form {
            FileForm::Bundle => self.path.parent().unwrap_or(Path::new("/")),
            _ => &self.path,
        }
    }
}

/// Twenty looks that came to nothing.
const MAXIMUM_AGE: Duration = Duration::from_mins(10);
/// As long as the authority lets caches keep a list.
const POLL: Duration = Duration::from_secs(30);
