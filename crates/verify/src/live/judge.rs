//! Whether a peer is let in: its chain, its name, its purpose, and how its certificate stands, in this order.

use std::time::Duration;

use chancery_types::{SpiffeId, Timestamp};
use chancery_x509::{Certificate, GeneralName};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{Allowed, Peer, Refusal, Status, Trust};

/// Certificates that a peer may send beside its own.
const MOST_INTERMEDIATES: usize = 8;

/// What a peer is, in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It connected to us.
    Client,
    /// We connected to it.
    Server,
}

/// Judges peers. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Judge {
    trust: Trust,
    allowed: Allowed,
}

/// A peer that passed, and the status by which it was judged and is to be admitted.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Who it is.
    pub peer: Peer,
    /// The status of its trust domain.
    pub status: Status,
}

impl Judge {
    /// Judges by these bundles who is who, and allows these.
    #[must_use]
    pub fn new(trust: Trust, allowed: Allowed) -> Self {
        Self { trust, allowed }
    }

    /// The same, for other peers.
    #[must_use]
    pub fn allowing(&self, allowed: Allowed) -> Self {
        Self { trust: self.trust.clone(), allowed }
    }

    /// Judges a chain, the peer's own certificate first.
    ///
    /// # Errors
    /// [`Refusal`], the first check that failed.
    pub fn judge(&self, chain: &[CertificateDer<'_>], side: Side, now: UnixTime) -> Result<Judged, Refusal> {
        let (own, intermediates) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        let peer = read_peer(own)?;
        let Some(domain) = self.trust.domain(peer.id.trust_domain_name()) else {
            let domain = peer.id.trust_domain();
            return Err(Refusal::Domain { id: peer.id, domain });
        };
        let usage = match side {
            Side::Client => webpki::KeyUsage::client_auth(),
            Side::Server => webpki::KeyUsage::server_auth(),
        };
        let intermediates = &intermediates[..intermediates.len().min(MOST_INTERMEDIATES)];
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        webpki::EndEntityCert::try_from(own)
            .and_then(|end_entity| {
                let anchors = &domain.anchors;
                end_entity.verify_for_usage(algorithms, anchors, intermediates, now, usage, None, None)?;
                Ok(())
            })
            .map_err(|error| Refusal::Chain { id: peer.id.clone(), error })?;
        if !self.allowed.allows(&peer.id) {
            return Err(Refusal::NotAllowed(peer.id));
        }
        domain.status.check(peer.serial)?;
        Ok(Judged { peer, status: domain.status })
    }

    /// Who the holder of a certificate is whose chain was judged before.
    pub(crate) fn recognize(&self, own: &CertificateDer<'_>) -> Result<Judged, Refusal> {
        let peer = read_peer(own)?;
        match self.trust.domain(peer.id.trust_domain_name()) {
            Some(domain) => Ok(Judged { peer, status: domain.status }),
            None => Err(Refusal::Domain { domain: peer.id.trust_domain(), id: peer.id }),
        }
    }
}

/// What a certificate says of its holder, unverified.
fn read_peer(own: &CertificateDer<'_>) -> Result<Peer, Refusal> {
    let own = Certificate::from_der(own).map_err(|error| Refusal::Unreadable(error.to_string()))?;
    let tbs = own.tbs();
    let id = the_only_identity(&own)?;
    // X509-SVID section 2: the name of a trust domain is for its authorities.
    if id.path().is_empty() {
        return Err(Refusal::NotAllowed(id));
    }
    Ok(Peer { id, serial: own.serial_number(), not_after: tbs.not_after() })
}

/// X509-SVID section 2: exactly one URI, which is the SPIFFE ID.
fn the_only_identity(own: &Certificate) -> Result<SpiffeId, Refusal> {
    let uris = own.tbs().names().filter(|name| matches!(name, GeneralName::Uri(_))).count();
    match (own.tbs().spiffe_id(), uris) {
        (Some(id), 1) => Ok(id),
        _ => Err(Refusal::Identity(uris)),
    }
}

/// The time as rustls wants it.
pub(crate) fn unix_time(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.seconds()).unwrap_or(0)))
}
