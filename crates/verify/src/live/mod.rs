//! Live status: who a peer is, whether it may, whether it still may, and the end of its connections when not.
//!
//! A [`Follower`] keeps what is known of the authority's certificates: the signed exact set, and what the status feed
//! told after it. [`Status`] answers from that in memory. A [`Judge`] decides about peers by bundle, SPIFFE ID and
//! status; [`PeerVerifier`] is the judge as rustls asks it, [`Acceptor`] and [`Connector`] are TLS with all of it, and
//! a [`Guarded`] stream ends when its peer is not good any more. docs/VERIFY.md says how to use them and what happens
//! when something fails.
//!
//! What is trusted: the trust bundles that are given, and the log's key. The feed is advice: it can take away, and only
//! a signed set, which never goes back, gives back.

mod acknowledge;
mod allowed;
mod authority;
mod connections;
mod credentials;
mod follower;
mod guarded;
mod judge;
mod keep;
mod knowledge;
mod line;
mod patience;
mod refusal;
mod sets;
mod standing;
mod status;
mod steady;
mod tls;
mod trust;
mod verifier;

pub use allowed::Allowed;
pub use authority::Authority;
pub use chancery_api::RelyingPartyKind;
pub use connections::{ConnectionEnded, Ended, Peer};
pub use credentials::{Bundles, CredentialError, CredentialFiles, Credentials};
pub use follower::{Follower, Following};
pub use guarded::{Guarded, Sever};
pub use judge::{Judge, Judged, Side};
pub use refusal::Refusal;
pub use sets::LogKey;
pub use standing::{NotGood, Rules, Standing, Unknown, WhenUnknown};
pub use status::{Admission, Status, StatusView};
pub use tls::{Acceptor, Connector, HandshakeError, without_resumption};
pub use trust::{BundleError, Trust};
pub use verifier::PeerVerifier;

#[cfg(test)]
mod tests;
