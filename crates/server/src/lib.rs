//! The doors of the authority: REST on rustls and the admin socket, and everything that stands between a
//! stranger and the work behind them.
//!
//! The chassis is independent of what is served: [`Listener`] and [`AdminSocket`] accept connections within
//! bounds, the gate of every operation checks who asks, how often and how much, [`HttpProblem`] is the one way
//! in which a refusal becomes HTTP, and [`Metrics`], [`Health`] and [`Shutdown`] serve whoever operates it.
//! Nothing here decides on certificates: the crates below do.
//!
//! It trusts the kernel for peer credentials, rustls for what a handshake proves, and nothing that a request
//! says about itself.

mod activity;
mod admin_socket;
mod admission;
mod agents;
pub mod authority;
pub mod backup;
pub mod bootstrap;
mod callers;
mod changes;
mod chassis;
pub mod config;
mod connections;
mod extract;
mod federation;
mod feed;
mod gate;
mod handover;
mod health;
mod host;
mod jwk;
mod listener;
pub mod maintenance;
mod metrics;
pub mod openapi;
mod outbound;
mod peer;
pub mod presence;
mod prober;
mod problem;
mod process;
mod published;
mod rate;
pub mod relocation;
mod request_id;
mod rotation;
mod router;
mod routes;
mod serve;
mod shutdown;
mod site;
mod ssf;
mod standing;
mod storage;
mod tidy;
pub mod tiles;
mod tls;

#[cfg(test)]
mod testing;

#[cfg(test)]
mod agreement;

pub use activity::ConnectionTimeouts;
pub use admin_socket::{AdminSocket, AdminSocketError};
pub use admission::Concurrency;
pub use chassis::{CallerStatus, Chassis, RequestLimits};
pub use connections::ConnectionLimits;
pub use extract::{Caller, ExpectedVersion, IdempotencyKey, Json, OcspBody, Path, Query};
pub use health::Health;
pub use listener::{Listener, ListenerLimits};
pub use metrics::Metrics;
pub use peer::{ClientCertificate, Peer, PeerError};
pub use prober::{Prober, Round};
pub use problem::HttpProblem;
pub use rate::Rate;
pub use request_id::RequestId;
pub use router::{assemble, assemble_some, chassis_route, handle};
pub use serve::{ServeError, Server};
pub use shutdown::{Drained, Shutdown};
pub use site::Site;
pub use tls::{OldestTls, TlsError, TlsMaterial, TlsSlot};
