//! The line of an export as it is read; its form is `chancery_api`'s `export`.

use serde::Deserialize;
use serde_json::value::RawValue;

/// The line of one entry. A field that is not ours is refused: it is one of ours with a damaged name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParsedLine {
    pub(crate) index: u64,
    pub(crate) leaf: String,
    #[serde(default)]
    pub(crate) hash: Option<String>,
    #[serde(default)]
    pub(crate) view: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) signature: Option<String>,
}
