//! The proxy: TLS in front of programs that speak none, or behind them, with peers judged by identity and live status.
//!
//! A listener takes connections, plain or TLS, and makes one for each to its backend, TLS or plain; bytes are passed
//! on as they are, so whatever runs over TCP runs through it, HTTP/1.1 and HTTP/2 (by ALPN) among it. Where there is
//! TLS there is a list of who is allowed at the other end; where there is none, there is this machine. A connection
//! whose peer is revoked or held, or is no longer allowed, is reset while it runs.
//!
//! Nothing is added to what is passed on but a PROXY header where one is asked for. Headers of HTTP are not touched: a
//! program that wants to know who its peer is reads the PROXY header (version 2, TLV 0xE0).

mod address;
mod config;
mod connection;
mod daemon;
pub mod header;
mod listener;
mod metrics;
mod relay;
mod socket;

pub use self::address::Address;
pub use self::config::{Limits, ListenerConfig, ProxyConfig, RawLimits, RawListener, RawProxy};
pub use self::daemon::{ProxyError, Running, run};
pub(crate) use self::socket::Listening;
