//! Hooks as they stand in the configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chancery_types::HumanDuration;
use rustix::process::Signal;
use serde::Deserialize;

use super::http::Request;
use super::signal::{Addressee, Target};

/// A hook, as it stands in the configuration file: one of `command`, `systemd_unit`, `pidfile`, `pid` and `url`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookSettings {
    /// A program, with an absolute path, and its arguments.
    pub command: Option<Vec<String>>,
    /// A unit that systemd reloads, or restarts if it cannot be reloaded.
    pub systemd_unit: Option<String>,
    /// A file with the id of the process to signal.
    pub pidfile: Option<PathBuf>,
    /// The id of the process to signal: the one that has it when the agent starts.
    pub pid: Option<u32>,
    /// With pidfile or pid: `HUP` if not given.
    pub signal: Option<String>,
    /// With pidfile or pid: the program that the process must run.
    pub executable: Option<PathBuf>,
    /// An address on this machine, like `http://127.0.0.1:9000/reload`, that gets a POST.
    pub url: Option<String>,
    /// How long it may take; `30s` if not given.
    pub timeout: Option<HumanDuration>,
}

/// A hook that can be run.
#[derive(Debug, Clone)]
pub struct Hook {
    pub(super) action: Action,
    pub(super) timeout: Duration,
}

#[derive(Debug, Clone)]
pub(super) enum Action {
    Command { argv: Vec<String> },
    Systemd { unit: String },
    Signal(Target),
    Http(Request),
}

/// A signal that tells a program something, by its name with or without `SIG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalName(pub(crate) Signal);

impl std::str::FromStr for SignalName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text.strip_prefix("SIG").unwrap_or(text) {
            "HUP" => Signal::HUP,
            "USR1" => Signal::USR1,
            "USR2" => Signal::USR2,
            "INT" => Signal::INT,
            "TERM" => Signal::TERM,
            "QUIT" => Signal::QUIT,
            "WINCH" => Signal::WINCH,
            _ => return Err(format!("signal {text:?} is none of HUP, USR1, USR2, INT, TERM, QUIT, WINCH")),
        }))
    }
}

impl TryFrom<HookSettings> for Hook {
    type Error = String;

    fn try_from(settings: HookSettings) -> Result<Self, String> {
        let timeout = settings.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        if !(Duration::from_millis(100)..=LONGEST).contains(&timeout) {
            return Err("timeout is from 100ms to 10m".to_owned());
        }
        let signalling = settings.pidfile.is_some() || settings.pid.is_some();
        if !signalling && (settings.signal.is_some() || settings.executable.is_some()) {
            return Err("signal and executable go with pidfile or pid".to_owned());
        }
        let signal = settings.signal.as_deref().unwrap_or("HUP").parse::<SignalName>()?;
        let target =
            |addressee| Action::Signal(Target { addressee, signal, executable: settings.executable.clone() });
        let mut actions = Vec::new();
        if let Some(argv) = settings.command {
            actions.push(command(argv)?);
        }
        if let Some(unit) = settings.systemd_unit {
            actions.push(systemd(unit)?);
        }
        if let Some(path) = settings.pidfile {
            if !path.is_absolute() {
                return Err(format!("pidfile {} is not an absolute path", path.display()));
            }
            actions.push(target(Addressee::PidFile(path)));
        }
        if let Some(pid) = settings.pid {
            actions.push(target(Addressee::pinned(pid)?));
        }
        if let Some(url) = settings.url {
            actions.push(Action::Http(http(&url)?));
        }
        let [action] = <[Action; 1]>::try_from(actions).map_err(|actions| {
            format!("give one of command, systemd_unit, pidfile, pid, url, not {}", actions.len())
        })?;
        Ok(Self { action, timeout })
    }
}

fn command(argv: Vec<String>) -> Result<Action, String> {
    let program = argv.first().ok_or("command is empty")?;
    if !program.starts_with('/') {
        return Err(format!(
            "command {program:?} is not an absolute path: there is no shell to search for it"
        ));
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        return Err("command has a NUL in it".to_owned());
    }
    Ok(Action::Command { argv })
}

fn systemd(unit: String) -> Result<Action, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    let fine = unit.bytes().all(plain) && unit.contains('.') && !unit.starts_with('-') && unit.len() < 256;
    if fine {
        Ok(Action::Systemd { unit })
    } else {
        Err(format!("{unit:?} is not a unit like nginx.service"))
    }
}

fn http(url: &str) -> Result<Request, String> {
    let error = |why: &str| format!("url {url:?} {why}: write it like http://127.0.0.1:9000/reload");
    let uri: hyper::Uri = url.parse().map_err(|_| error("is none"))?;
    let authority = uri.authority().ok_or_else(|| error("names no host"))?;
    if uri.scheme_str() != Some("http") || authority.as_str().contains('@') {
        return Err(error("is not plain http without a user"));
    }
    let host = authority.host().replace("localhost", "127.0.0.1");
    let address = host.trim_matches(['[', ']']).parse().map_err(|_| error("names no address"))?;
    let address = SocketAddr::new(address, authority.port_u16().unwrap_or(80));
    if !address.ip().is_loopback() {
        return Err(error("leads off this machine"));
    }
    Ok(Request { address, path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string) })
}

/// As systemd reloads: thirty seconds is long for a reload and short for a person who waits.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A hook that takes longer would still run when the next rotation comes.
const LONGEST: Duration = Duration::from_mins(10);
