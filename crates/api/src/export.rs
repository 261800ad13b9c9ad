//! The form of an export: one JSON object a line, so that other programs can read it too.
//!
//! ```text
//! {"chancery_export":1,"origin":..,"vkey":..,"size":N,"checkpoint":..,"issuers":[..],"crls":[..]}
//! {"index":0,"leaf":..,"hash":..,"view":{..}}
//! {"index":1,"leaf":..,"hash":..,"view":{..},"signature":..}
//! {"chancery_export_end":1,"entries":N,"sha256":".."}
//! ```
//!
//! Nothing in it is believed because it stands there: `leaf` is hashed into the tree, whose root the checkpoint
//! signs; everything else is checked against the leaves. `hash` and `view` repeat what the leaf says, so that a
//! damaged entry can be named and not only noticed; `sha256` covers all lines before the last.

use chancery_types::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// The version of the form that is written and read here.
pub const EXPORT_VERSION: u32 = 1;

/// The first line: what log it is, and what belongs to it beside entries. A field that is not ours is refused: it
/// is one of ours with a damaged name. New fields mean a new [`EXPORT_VERSION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportHeader {
    /// [`EXPORT_VERSION`].
    pub chancery_export: u32,
    /// The log's origin line.
    pub origin: String,
    /// The checkpoint key as a C2SP verifier key.
    pub vkey: String,
    /// The trust domain, without scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// Entries that the checkpoint covers.
    pub size: u64,
    /// The signed checkpoint, whole.
    pub checkpoint: String,
    /// The issuers' certificates, DER in base64.
    #[serde(default)]
    pub issuers: Vec<String>,
    /// The issuers' current full revocation lists, DER in base64.
    #[serde(default)]
    pub crls: Vec<String>,
    /// When it was written, by the exporter's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// What was selected, in words; absent when the export is whole. The tree of a selection cannot be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<String>,
}

/// The line of one entry, as it is written.
#[derive(Debug, Clone, Serialize)]
pub struct ExportLine<'a, V: Serialize> {
    /// Its index in the log.
    pub index: u64,
    /// Its exact bytes, in base64.
    pub leaf: &'a str,
    /// Its leaf hash (RFC 6962 section 2.1).
    pub hash: Digest,
    /// The decoded entry, for people.
    pub view: V,
    /// The certificate's signature, as X.509 has it, in base64; only beside an issuance whose certificate was signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<&'a str>,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportFooter {
    /// [`EXPORT_VERSION`].
    pub chancery_export_end: u32,
    /// Entry lines before it.
    pub entries: u64,
    /// SHA-256 of all bytes before this line, in lower-case hexadecimal.
    pub sha256: String,
}
