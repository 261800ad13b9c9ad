//! What an operator writes about a sink, and what is left of it once it has been checked.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use chancery_types::{HumanDuration, SpiffeId};
use serde::Deserialize;

use super::owner::{self, Ownership};
use crate::hook::{Hook, HookSettings};
use crate::probe::{Probe, ProbeSettings};

/// A sink, as it stands in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkSettings {
    /// How it is called in the status and in logs.
    pub name: String,
    /// Which identity is written; the default one if not given.
    pub spiffe_id: Option<SpiffeId>,
    /// Where the files appear. It is made if it is not there.
    pub directory: PathBuf,
    /// Its mode; `0755` if not given. The files have their own.
    pub directory_mode: Option<String>,
    /// Whose the files are: a name or a number; the agent's own user if not given.
    pub owner: Option<String>,
    /// Their group.
    pub group: Option<String>,
    /// What is written. Not given: `tls.crt` (chain), `tls.key` (key) and `bundle.crt` (bundle).
    pub files: Option<Vec<FileSettings>>,
    /// How long what was replaced stays, for programs that are slow to reload; `5m` if not given.
    pub grace: Option<HumanDuration>,
    /// What happens to the files when the identity is withdrawn.
    #[serde(default)]
    pub on_withdrawal: OnWithdrawal,
    /// What is done after the files have changed.
    pub hook: Option<HookSettings>,
    /// Where to look whether the new certificate is served.
    pub probe: Option<ProbeSettings>,
}

/// One file, as it stands in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// Its name in the directory.
    pub name: String,
    /// What stands in it: `chain`, `leaf`, `issuers`, `key`, `combined`, `bundle`, `crl`, `pkcs12`, `jks`.
    pub content: String,
    /// Octal; `0600` if not given when there is a key in it, `0644` otherwise.
    pub mode: Option<String>,
    /// Where the password of a key store is, the first line of a file.
    pub password_file: Option<PathBuf>,
    /// The name of the entry in a key store; `identity` if not given.
    pub alias: Option<String>,
}

/// What happens to the files when the authority has withdrawn the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnWithdrawal {
    /// They go, and the hook runs.
    #[default]
    Remove,
    /// They stay until they end.
    Keep,
}

/// A sink that can be opened.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    pub(super) name: String,
    pub(super) spiffe_id: Option<SpiffeId>,
    pub(super) directory: PathBuf,
    pub(super) directory_mode: u32,
    pub(super) ownership: Ownership,
    pub(super) files: Vec<FileConfig>,
    pub(super) grace: Duration,
    pub(super) on_withdrawal: OnWithdrawal,
    pub(super) hook: Option<Hook>,
    pub(super) probe: Option<Probe>,
}

#[derive(Debug, Clone)]
pub(super) struct FileConfig {
    pub(super) name: String,
    pub(super) content: Content,
    pub(super) mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Chain,
    Leaf,
    Issuers,
    Key,
    Combined,
    Bundle,
    Crl,
    Pkcs12 { password: PathBuf, alias: String },
    Jks { password: PathBuf, alias: String },
}

/// Everything that is wrong with a sink's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sink {name:?}: {}", mistakes.join("; "))]
pub struct SinkConfigError {
    /// The sink.
    pub name: String,
    /// Each mistake, with what to write instead.
    pub mistakes: Vec<String>,
}

impl SinkConfig {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it writes.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The identity that it is for; `None`: the default one of its state.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.spiffe_id.as_ref()
    }
}

impl TryFrom<SinkSettings> for SinkConfig {
    type Error = SinkConfigError;

    fn try_from(settings: SinkSettings) -> Result<Self, SinkConfigError> {
        let mut mistakes = Mistakes(Vec::new());
        if settings.name.is_empty() || settings.name.len() > 64 {
            mistakes.add("a name has 1 to 64 bytes".to_owned());
        }
        check_directory(&settings.directory, &mut mistakes);
        let files = settings.files.unwrap_or_else(default_files);
        if files.is_empty() {
            mistakes.add("files is empty: leave it out for tls.crt, tls.key and bundle.crt".to_owned());
        }
        let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
        if names.len() < files.len() {
            mistakes.add("two files have one name".to_owned());
        }
        let files = files.into_iter().filter_map(|file| check_file(file, &mut mistakes)).collect();
        let directory_mode = match settings.directory_mode.as_deref().map_or(Some(0o755), octal) {
            Some(mode) if mode & !0o755 == 0 && mode & 0o700 == 0o700 => mode,
            _ => {
                mistakes.add("directory_mode is from 0700 to 0755: nobody else may write there".to_owned());
                0o700
            }
        };
        let ownership = mistakes.note(owner::resolve(settings.owner.as_deref(), settings.group.as_deref()));
        let hook = settings.hook.map(Hook::try_from).transpose();
        let hook = mistakes.note(hook.map_err(|error| format!("hook: {error}")));
        let probe = settings.probe.map(Probe::try_from).transpose();
        let probe = mistakes.note(probe.map_err(|error| format!("probe: {error}")));

        match (mistakes.0.is_empty(), ownership, hook, probe) {
            (true, Some(ownership), Some(hook), Some(probe)) => Ok(Self {
                name: settings.name,
                spiffe_id: settings.spiffe_id,
                directory: settings.directory,
                directory_mode,
                ownership,
                files,
                grace: settings.grace.map_or(GRACE, |grace| grace.0),
                on_withdrawal: settings.on_withdrawal,
                hook,
                probe,
            }),
            _ => Err(SinkConfigError { name: settings.name, mistakes: mistakes.0 }),
        }
    }
}

struct Mistakes(Vec<String>);

impl Mistakes {
    fn add(&mut self, mistake: String) {
        self.0.push(mistake);
    }

    fn note<T>(&mut self, checked: Result<T, String>) -> Option<T> {
        checked.map_err(|mistake| self.add(mistake)).ok()
    }
}

fn default_files() -> Vec<FileSettings> {
    let file = |name: &str, content: &str| FileSettings {
        name: name.to_owned(),
        content: content.to_owned(),
        mode: None,
        password_file: None,
        alias: None,
    };
    vec![file("tls.crt", "chain"), file("tls.key", "key"), file("bundle.crt", "bundle")]
}

fn check_directory(directory: &Path, mistakes: &mut Mistakes) {
    let plain = directory.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !directory.is_absolute() || !plain || directory.components().count() < 3 {
        mistakes.add(format!(
            "directory {} is not an absolute path without .., of its own and not directly under /",
            directory.display()
        ));
    }
}

fn check_file(file: FileSettings, mistakes: &mut Mistakes) -> Option<FileConfig> {
    let name = file.name;
    let before = mistakes.0.len();
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || name.contains(['/', '\0']) {
        mistakes.add(format!("file name {name:?} is not one plain name without a dot before it"));
    }
    let password = file.password_file.filter(|path| path.is_absolute());
    let alias = file.alias.unwrap_or_else(|| "identity".to_owned());
    if alias.is_empty() || alias.len() > 100 || alias != alias.to_lowercase() {
        mistakes.add(format!(
            "alias {alias:?} of {name} is not 1 to 100 bytes in lower case, as Java wants them"
        ));
    }
    let content = match (file.content.as_str(), password) {
        ("chain", None) => Some(Content::Chain),
        ("leaf", None) => Some(Content::Leaf),
        ("issuers", None) => Some(Content::Issuers),
        ("key", None) => Some(Content::Key),
        ("combined", None) => Some(Content::Combined),
        ("bundle", None) => Some(Content::Bundle),
        ("crl", None) => Some(Content::Crl),
        ("pkcs12", Some(password)) => Some(Content::Pkcs12 { password, alias }),
        ("jks", Some(password)) => Some(Content::Jks { password, alias }),
        ("pkcs12" | "jks", None) => {
            mistakes.add(format!("{name} needs password_file, an absolute path"));
            None
        }
        (other, None) => {
            mistakes.add(format!(
                "content {other:?} of {name} is none of chain, leaf, issuers, key, combined, bundle, crl, pkcs12, jks"
            ));
            None
        }
        (_, Some(_)) => {
            mistakes.add(format!("{name} has a password_file, which only pkcs12 and jks use"));
            None
        }
    }?;
    let secret =
        matches!(content, Content::Key | Content::Combined | Content::Pkcs12 { .. } | Content::Jks { .. });
    let mode = match file.mode.as_deref() {
        None => Some(if secret { 0o600 } else { 0o644 }),
        Some(mode) => octal(mode),
    };
    match mode {
        Some(mode) if mode & !0o664 != 0 => {
            mistakes.add(format!("mode {mode:04o} of {name} has bits beyond 0664"));
        }
        Some(mode) if secret && mode & !0o640 != 0 => {
            mistakes.add(format!("mode {mode:04o} of {name}, which holds a key: give 0600, 0640, or less"));
        }
        Some(_) => {}
        None => mistakes.add(format!("mode of {name} is not octal like 0640")),
    }
    (mistakes.0.len() == before).then_some(FileConfig { name, content, mode: mode? })
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// How long what was replaced stays: nginx and its like open the files within a second, and people look after it
/// within minutes.
const GRACE: Duration = Duration::from_mins(5);
