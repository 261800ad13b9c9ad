//! What handlers work with: the authority and what publishes its status.

use std::sync::Arc;

use chancery_revoke::{CrlPublisher, OcspResponder, SetPublisher, StatusBoard};

use crate::Chassis;
use crate::agents::Agents;
use crate::authority::Authority;
use crate::changes::Changes;
use crate::feed::Feed;
use crate::prober::Prober;
use crate::rotation::Rotation;
use crate::ssf::Transmitter;
use crate::tidy::Tidier;
use crate::tiles::TileStore;

/// The state of every route.
#[derive(Debug, Clone)]
pub struct Site {
    /// The authority.
    pub authority: Arc<Authority>,
    /// What of all certificates is not good.
    pub board: Arc<StatusBoard>,
    /// Answers OCSP.
    pub ocsp: Arc<OcspResponder>,
    /// Publishes revocation lists.
    pub crl: Arc<CrlPublisher>,
    /// Drives changes to many certificates.
    pub changes: Arc<Changes>,
    /// Fetches the lists as relying parties do.
    pub prober: Arc<Prober>,
    /// Publishes the exact set.
    pub set: Arc<SetPublisher>,
    /// Tells agents what changes.
    pub(crate) agents: Arc<Agents>,
    /// Tells relying parties what changes.
    pub(crate) feed: Arc<Feed>,
    /// Looks after the authority's own issuers and keys.
    pub rotation: Arc<Rotation>,
    /// Tells receivers of security events the same.
    pub(crate) ssf: Arc<Transmitter>,
    /// Full tiles outside the ledger.
    pub(crate) tiles: Option<Arc<TileStore>>,
    /// Takes what ended long ago out of what searches find, where that is wanted.
    pub(crate) tidier: Option<Arc<Tidier>>,
    /// What every request goes through.
    pub chassis: Arc<Chassis>,
}
