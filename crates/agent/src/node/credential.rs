//! The certificate by which the authority knows this node, and its key.

use chancery_client::TlsIdentity;
use chancery_rotate::client::Life;
use chancery_types::{SecretString, SerialNumber, SpiffeId, Timestamp};
use chancery_x509::{CERTIFICATE, SubjectKey, read_certificates, write_pem};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize, Serializer};

use crate::store::{Origin, Wish};
use crate::verify::{Expected, Fit, Unfit, judge_chain};

/// Proves this node.
#[derive(Debug)]
pub(crate) struct NodeCredential {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) serial: SerialNumber,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// When it came.
    received: Timestamp,
    origin: Origin,
    chain: Vec<Vec<u8>>,
    key: SubjectKey,
}

/// How it is kept on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// PEM, the leaf first.
    chain: String,
    /// PKCS #8, PEM.
    #[serde(serialize_with = "expose_on_disk")]
    key: SecretString,
    received: Timestamp,
    #[serde(default)]
    origin: Origin,
}

impl NodeCredential {
    pub(super) fn new(fit: Fit, received: Timestamp, origin: Origin, key: SubjectKey) -> Self {
        let Fit { spiffe_id, serial, chain, not_before, not_after } = fit;
        Self { spiffe_id, serial, not_before, not_after, received, origin, chain, key }
    }

    /// One that was kept, if it still is good for anything.
    pub(super) fn from_kept(kept: &Kept, roots: &[Vec<u8>], now: Timestamp) -> Result<Self, Unfit> {
        let key = SubjectKey::from_pkcs8_pem(kept.key.expose_secret().as_bytes()).map_err(|_| Unfit::Key)?;
        let chain = read_certificates(kept.chain.as_bytes(), 8)?;
        let expected = Expected { key: key.public_key(), spiffe_id: None, dns_names: None };
        let fit = judge_chain(chain, &expected, roots, now)?;
        Ok(Self::new(fit, kept.received, kept.origin.clone(), key))
    }

    pub(super) fn to_kept(&self) -> Kept {
        Kept {
            chain: self.chain.iter().map(|der| write_pem(CERTIFICATE, der)).collect(),
            key: SecretString::new(self.key.to_pkcs8_pem().to_string()),
            received: self.received,
            origin: self.origin.clone(),
        }
    }

    /// As TLS shows it.
    pub(crate) fn tls(&self) -> TlsIdentity {
        let chain = self.chain.iter().cloned().map(CertificateDer::from).collect();
        let key = PrivatePkcs8KeyDer::from(self.key.pkcs8_der().to_vec());
        TlsIdentity::from_der(chain, PrivateKeyDer::Pkcs8(key))
    }

    pub(crate) fn life(&self) -> Life {
        Life { from: self.received.clamp(self.not_before, self.not_after), until: self.not_after }
    }

    /// Whether the authority would like it to be replaced.
    pub(super) fn is_meant_by(&self, wish: &Wish) -> bool {
        wish.means(&self.spiffe_id, self.serial, &self.origin)
    }

    pub(crate) fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

/// The file is 0600 in a directory that is 0700; that it holds a key is what it is for.
fn expose_on_disk<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}
