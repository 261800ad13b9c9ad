//! Telling systemd how things stand (sd_notify(3)): one datagram each, to the socket that the environment names.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to whoever supervises us; says nothing when nobody does.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    #[must_use]
    pub fn from_environment() -> Self {
        let read = |name: &str| std::env::var(name).ok();
        Self::new(read("NOTIFY_SOCKET").as_deref(), read("WATCHDOG_USEC"), read("WATCHDOG_PID"))
    }

    fn new(socket: Option<&str>, microseconds: Option<String>, pid: Option<String>) -> Self {
        let socket = socket.and_then(address).and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            // A supervisor that does not read must not hold us up.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        let is_ours = pid.is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = microseconds
            .and_then(|text| text.parse().ok())
            .filter(|microseconds| is_ours && *microseconds > 0)
            .map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// How often to call [`alive`](Self::alive): half of what the watchdog allows.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|allowed| allowed / 2)
    }

    /// Workloads can be served.
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// The configuration is being read again; [`ready`](Self::ready) follows.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// What is under way is finished, then the process ends.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// The loops are alive.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.say(&format!("STATUS={status}"));
    }

    fn say(&self, text: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::debug!(%error, "the supervisor does not listen");
        }
    }
}

/// A path, or a name in the abstract namespace behind `@`.
fn address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok(),
        None if text.starts_with('/') => SocketAddr::from_pathname(text).ok(),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_systemd_expects_and_nothing_without_it() {
        let around = tempfile::tempdir().unwrap();
        let path = around.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let supervisor = Supervisor::new(path.to_str(), Some("3000000".into()), None);
        assert_eq!(supervisor.watchdog(), Some(Duration::from_millis(1500)));
        let mut heard = [0; 200];
        supervisor.ready("serving");
        let length = listener.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1\nSTATUS=serving");
        supervisor.reloading();
        let length = listener.recv(&mut heard).unwrap();
        assert!(heard[..length].starts_with(b"RELOADING=1\nMONOTONIC_USEC="));

        let alone = Supervisor::new(None, Some("3000000".into()), Some("1".into()));
        alone.alive();
        assert_eq!(alone.watchdog(), None);
    }

    #[test]
    fn a_name_in_the_abstract_namespace_is_understood() {
        let name = format!("chancery-test-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Supervisor::new(Some(&format!("@{name}")), None, None).stopping();
        let mut heard = [0; 20];
        let length = listener.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"STOPPING=1");
    }
}
