//! A request for the node's certificate that may have reached the authority: kept until it is answered.
//!
//! A token works once and a certificate is renewed once. Were an answer lost and the next request another one, the
//! token would be spent for nothing, and the renewal would look like a stolen certificate at work. So the same
//! request is sent again, under the same name, also after a restart.

use chancery_api::{Base64Bytes, CsrDer};
use chancery_client::{ClientError, IdempotencyKey};
use chancery_types::{KeyAlgorithm, SecretString};
use chancery_x509::{DistinguishedName, SubjectKey};
use serde::{Deserialize, Serialize, Serializer};

use super::NodeError;

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    /// What it is for: another purpose is another request.
    pub(super) purpose: String,
    pub(super) key: SubjectKey,
    pub(super) csr: CsrDer,
    pub(super) name: IdempotencyKey,
}

/// How it is kept on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptRequest {
    purpose: String,
    #[serde(serialize_with = "expose_on_disk")]
    key: SecretString,
    csr: Base64Bytes,
    name: String,
}

impl Request {
    pub(super) fn new(purpose: String, name: Result<IdempotencyKey, ClientError>) -> Result<Self, NodeError> {
        let key = SubjectKey::generate(KeyAlgorithm::P256).map_err(NodeError::key)?;
        let csr = key.request(&DistinguishedName::empty(), &[]).map_err(NodeError::key)?;
        Ok(Self { purpose, key, csr: CsrDer::from_der(csr), name: name? })
    }

    pub(super) fn from_kept(kept: &KeptRequest) -> Option<Self> {
        let key = SubjectKey::from_pkcs8_pem(kept.key.expose_secret().as_bytes()).ok()?;
        let name = IdempotencyKey::parse(&kept.name)?;
        let csr = CsrDer::from_der(kept.csr.0.clone());
        Some(Self { purpose: kept.purpose.clone(), key, csr, name })
    }

    pub(super) fn to_kept(&self) -> KeptRequest {
        KeptRequest {
            purpose: self.purpose.clone(),
            key: SecretString::new(self.key.to_pkcs8_pem().to_string()),
            csr: Base64Bytes(self.csr.as_der().to_vec()),
            name: self.name.as_str().to_owned(),
        }
    }
}

fn expose_on_disk<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}
