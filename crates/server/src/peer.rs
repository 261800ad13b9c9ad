//! Who is at the other end of a connection, as far as the connection itself proves it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use chancery_types::{SpiffeId, Timestamp};
use rustls_pki_types::CertificateDer;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The other end of a connection. Every request carries it as an extension.
#[derive(Debug, Clone)]
pub enum Peer {
    /// Somebody on the network.
    Network {
        /// Where from.
        address: SocketAddr,
        /// The client certificate, if one was shown: then it chains to our root and was in force when the
        /// connection was made. Whether it is now is for each request to find out.
        certificate: Option<Arc<ClientCertificate>>,
    },
    /// A process on this machine, through the admin socket.
    Admin {
        /// Its effective user id when it connected.
        uid: u32,
    },
}

/// A client certificate that chains to our root.
#[derive(Debug)]
pub struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    serial: Vec<u8>,
    spiffe_id: SpiffeId,
    not_after: Timestamp,
}

/// A client certificate that our root vouches for is not one that we issue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Not a certificate.
    #[error("the client certificate cannot be read: {0}")]
    Unreadable(String),
    /// No name that we give.
    #[error("the client certificate has no SPIFFE ID, or more than one URI")]
    NoSpiffeId,
}

impl ClientCertificate {
    /// Reads a chain, the client's own certificate first.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn parse(chain: &[CertificateDer<'_>]) -> Result<Self, PeerError> {
        let unreadable = |error: &dyn std::fmt::Display| PeerError::Unreadable(error.to_string());
        let leaf = chain.first().ok_or_else(|| PeerError::Unreadable("the chain is empty".to_owned()))?;
        let certificate = x509_cert::Certificate::from_der(leaf).map_err(|error| unreadable(&error))?;
        let content = certificate.tbs_certificate();
        let names = content
            .get_extension::<SubjectAltName>()
            .map_err(|error| unreadable(&error))?
            .map(|(_, names)| names.0)
            .unwrap_or_default();
        let not_after = content.validity().not_after.to_unix_duration().as_secs();
        Ok(Self {
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            serial: content.serial_number().as_bytes().to_vec(),
            spiffe_id: spiffe_id(&names)?,
            not_after: Timestamp::from_seconds(i64::try_from(not_after).unwrap_or(i64::MAX)),
        })
    }

    /// The chain as it was shown, the client's own certificate first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The serial number's bytes, without a leading zero.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The identity in it.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The end of its validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

/// Exactly one URI, and it is a SPIFFE ID (X509-SVID section 2).
fn spiffe_id(names: &[GeneralName]) -> Result<SpiffeId, PeerError> {
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => SpiffeId::parse(uri).map_err(|_| PeerError::NoSpiffeId),
        _ => Err(PeerError::NoSpiffeId),
    }
}

/// Whose budget a request is counted against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum CallerKey {
    /// A network address; for IPv6 the /64 that one site has.
    Address(IpAddr),
    /// An identity, from wherever it calls.
    Identity(SpiffeId),
}

impl Peer {
    /// The client certificate, if one was shown.
    #[must_use]
    pub fn certificate(&self) -> Option<&Arc<ClientCertificate>> {
        match self {
            Self::Network { certificate, .. } => certificate.as_ref(),
            Self::Admin { .. } => None,
        }
    }

    /// Whose budget its requests are counted against; nobody's for the admin socket.
    pub(crate) fn caller_key(&self) -> Option<CallerKey> {
        match self {
            Self::Network { certificate: Some(certificate), .. } => {
                Some(CallerKey::Identity(certificate.spiffe_id.clone()))
            }
            Self::Network { address, certificate: None } => Some(CallerKey::Address(site(address.ip()))),
            Self::Admin { .. } => None,
        }
    }

    /// For the log.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Network { certificate: Some(certificate), .. } => certificate.spiffe_id.to_string(),
            Self::Network { address, certificate: None } => address.ip().to_string(),
            Self::Admin { uid } => format!("uid:{uid}"),
        }
    }
}

/// The part of an address that one party has to itself: all of IPv4, the first 64 bits of IPv6.
pub(crate) fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Authority;

    #[test]
    fn reads_identity_serial_and_end_of_a_certificate() {
        let authority = Authority::new();
        let (chain, _) = authority.client("spiffe://example.org/web");
        let certificate = ClientCertificate::parse(&chain).unwrap();
        assert_eq!(certificate.spiffe_id().to_string(), "spiffe://example.org/web");
        assert!(!certificate.serial().is_empty());
        assert!(certificate.not_after() > Timestamp::from_seconds(1_700_000_000));
    }

    #[test]
    fn refuses_a_certificate_without_spiffe_id_or_that_is_none() {
        let authority = Authority::new();
        let (chain, _) = authority.server();
        assert_eq!(ClientCertificate::parse(&chain).unwrap_err(), PeerError::NoSpiffeId);
        let noise = [CertificateDer::from(vec![1, 2, 3])];
        assert!(matches!(ClientCertificate::parse(&noise), Err(PeerError::Unreadable(_))));
        assert!(matches!(ClientCertificate::parse(&[]), Err(PeerError::Unreadable(_))));
    }

    #[test]
    fn addresses_of_one_site_share_a_budget() {
        let site = |text: &str| site(text.parse().unwrap()).to_string();
        assert_eq!(site("192.0.2.7"), "192.0.2.7");
        assert_eq!(site("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(site("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
