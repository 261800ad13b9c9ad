//! An answer for proxies that ask: whether the peer whose certificate they have seen may, and still may.
//!
//! Envoy asks over gRPC (`envoy.service.auth.v3.Authorization`), nginx by a subrequest over HTTP (`auth_request`). The
//! proxy has made the handshake, so that the peer has the key; its certificate is verified here once more, under the
//! issuers that the authority names and the configured roots, and judged by identity and live status as everywhere.
//!
//! Whoever may ask is believed to have made that handshake. So questions are taken on UNIX sockets and on loopback
//! addresses alone, and a header of a client must never come through as the proxy's: the recipes overwrite it.

mod config;
mod daemon;
mod decision;
mod envoy;
mod nginx;
pub mod proto;

pub use self::config::{AuthzConfig, RawAuthz, RawPlace};
pub use self::daemon::{AuthzError, Running, run};
pub use self::decision::{Decider, Verdict};
