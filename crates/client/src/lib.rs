//! The HTTP interface seen from the other side of the wire: connections, trust, retries and typed answers.
//!
//! For the command line, for programs that enrol themselves, and for tests. It keeps connections open, shows
//! a client certificate that can be swapped while it runs, repeats what may be repeated, and turns problem
//! documents into [`ClientError::Problem`]. It is not an agent: it stores nothing, renews nothing by itself
//! and never makes a key.
//!
//! What it trusts: the roots it is given, the root whose fingerprint it is given, or the file permissions of
//! the admin socket. It does not trust the server's answers to be small, quick or well-formed.

mod agent_events;
mod bootstrap;
mod builder;
mod connection;
mod endpoint;
mod error;
mod exchange;
mod pool;
mod retry;
mod routes;
mod status_feed;
mod stream;
mod tls;

pub use agent_events::AgentEvents;
pub use builder::ClientBuilder;
pub use endpoint::{Endpoint, EndpointError};
pub use error::{ClientError, TrustError};
pub use exchange::{Client, IdempotencyKey, Tagged};
pub use retry::RetryPolicy;
pub use status_feed::StatusFeed;
pub use stream::ByteStream;
pub use tls::{HttpVersion, TlsIdentity, TrustAnchors};

#[cfg(test)]
mod tests;
