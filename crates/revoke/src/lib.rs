//! Revokes, holds and releases, and publishes how things stand: OCSP and revocation lists, from one ledger order.
//!
//! An operation is one commit: when it returns, the ledger holds it, the read model shows it, renewal is refused
//! everywhere and [`OcspResponder`] answers `revoked`. [`CrlPublisher`] follows within a second. Who may revoke
//! what is policy's business and was decided before this crate is called. It trusts the ledger for order and
//! state, and checks what its own keys sign before anybody sees it.

// The tests' world names this crate as measurements do.
#[cfg(test)]
extern crate self as chancery_revoke;

mod board;
mod change;
mod claims;
mod crl;
mod finder;
mod ocsp;
mod operation;
mod radius;
mod selection;
mod set;

pub use board::{IssuerChange, Lines, StatusBoard, StatusChange, StatusNews, changes, serials};
pub use change::{Advanced, Asking, Order, recorded_radius};
pub use crl::{CrlPublisher, CrlRules, Place, PublishError, PublishedCrl, StatusIssuer};
pub use ocsp::{OcspAnswer, OcspCounts, OcspResponder, ResponderCredential, SharedAnswer};
pub use operation::{Hand, Operation, OperationError, Revoker};
pub use radius::{Aim, Asker, Intent, Radius, has_grown};
pub use selection::{Scope, Selector};
pub use set::{PublishedSet, SetPublishError, SetPublisher, SetPublisherSpec};

#[cfg(test)]
mod testing;
