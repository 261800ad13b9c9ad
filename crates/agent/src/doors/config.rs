//! What the doors are told: where they are, what they offer, and how much a stranger may use.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chancery_types::TrustDomain;

/// How the doors are set up. Whoever reads it from a file checks nothing: [`crate::doors::Doors::bind`] does.
#[derive(Debug, Clone)]
pub struct DoorsConfig {
    /// The UNIX socket, an absolute path.
    pub socket: PathBuf,
    /// Its permissions. Anybody may connect by default: who gets what is decided by attestation, not by the file.
    pub socket_mode: u32,
    /// A TCP address on which nobody is attested: the kernel does not say which process is at the other end of a
    /// TCP connection. So it gives no identities, only what [`Verifiers::Anybody`] may have, and is refused
    /// without that; the address must be a loopback address.
    pub dangerous_unattested_tcp: Option<SocketAddr>,
    /// The agent's own trust domain.
    pub trust_domain: TrustDomain,
    /// What is offered; the rest answers `Unimplemented`.
    pub profiles: BTreeSet<Profile>,
    /// Who gets bundles.
    pub verifiers: Verifiers,
    /// How much a stranger may use.
    pub limits: DoorLimits,
}

impl DoorsConfig {
    /// A socket at this path, everything offered, with the usual limits.
    #[must_use]
    pub fn new(socket: PathBuf, trust_domain: TrustDomain) -> Self {
        Self {
            socket,
            socket_mode: 0o777,
            dangerous_unattested_tcp: None,
            trust_domain,
            profiles: Profile::ALL.into(),
            verifiers: Verifiers::Entitled,
            limits: DoorLimits::default(),
        }
    }
}

/// What an operator can switch off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// X.509-SVIDs and bundles over the Workload API.
    X509,
    /// JWT-SVIDs, their bundles and their validation over the Workload API.
    Jwt,
    /// Envoy's secret discovery service.
    Sds,
    /// gRPC server reflection.
    Reflection,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 4] = [Self::X509, Self::Jwt, Self::Sds, Self::Reflection];
}

/// Who may have bundles and have JWT-SVIDs validated over the Workload API. SDS is for those with an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verifiers {
    /// Processes that have an identity themselves.
    Entitled,
    /// Any process; one without an identity gets the bundle of the agent's own trust domain.
    Anybody,
}

/// Bounds on what one caller, and all of them, may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorLimits {
    /// Open connections of everybody together. At most a quarter of the process's open files is used for them.
    pub connections: usize,
    /// Open connections of one user. Nobody may hold more than what is left for all others, either.
    pub connections_per_user: usize,
    /// Calls at once on one connection.
    pub streams_per_connection: u32,
    /// Calls and streams of one user that are open at once.
    pub calls_per_user: usize,
    /// Attestations being worked on at once for one user; more of them wait.
    pub attestations_per_user: usize,
    /// Bytes of requests of one user that are not answered yet.
    pub request_bytes_per_user: usize,
    /// How long a new connection may take to make its first call.
    pub handshake: Duration,
    /// How long a connection may stay without a call.
    pub idle: Duration,
    /// How long a call may take until its answer begins.
    pub answer: Duration,
    /// How often a silent connection is asked whether somebody is there.
    pub keepalive: Duration,
    /// How long it may take to say so.
    pub keepalive_timeout: Duration,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_user: 1024,
            streams_per_connection: 64,
            calls_per_user: 4096,
            attestations_per_user: 32,
            request_bytes_per_user: 16 * 1024 * 1024,
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(120),
            answer: Duration::from_secs(30),
            keepalive: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}
