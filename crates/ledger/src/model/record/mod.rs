//! The read model's records, and their bytes.
//!
//! Certificates, lineages and tokens are many and small: a fixed binary layout. The rest is JSON.

mod bytes;
mod certificate;
mod identity;
mod issuer;
mod status;
mod token;

pub(crate) use bytes::{Fields, from_json, last_entry, time_from_bytes, to_json};
pub use certificate::{CertificateRecord, CertificateState, LineageRecord, RevokedCertificate};
pub(crate) use certificate::{LineageHead, state_bytes};
pub use identity::{IdentityRecord, TemplateRecord};
pub use issuer::{IssuerRecord, IssuerState, IssuerTaintRecord, KeyRecord, WishRecord};
pub use status::{CrlDivisionRecord, CrlRecord, StatusSetRecord};
pub use token::{TokenRecord, TokenState};
