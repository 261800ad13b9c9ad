//! One entry of the log as a row of a table.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The columns. What an entry's kind does not have is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// The index in the log.
    pub(super) index: u64,
    /// Everything else, in the order of [`TEXT_COLUMNS`].
    pub(super) texts: Vec<Option<String>>,
    /// The place in the lineage.
    pub(super) generation: Option<u32>,
}

impl Row {
    /// Reads an entry's line.
    pub(super) fn parse(line: &[u8]) -> Result<Self> {
        let line: Value = serde_json::from_slice(line).context("not JSON")?;
        let index = line["index"].as_u64().context("no index")?;
        let view = &line["view"];
        let body = &view["body"];
        let texts = TEXT_COLUMNS
            .iter()
            .map(|column| match column {
                Column::Line(name) => text(&line[*name]),
                Column::View(name) => text(&view[*name]),
                Column::Body(name) => text(&body[*name]),
            })
            .collect();
        let generation = body["generation"].as_u64().and_then(|number| u32::try_from(number).ok());
        Ok(Self { index, texts, generation })
    }
}

/// Where a column's value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// Beside the entry.
    Line(&'static str),
    /// In the entry itself.
    View(&'static str),
    /// In what the entry says.
    Body(&'static str),
}

impl Column {
    /// Its name in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Line(name) | Self::View(name) | Self::Body(name) => name,
        }
    }
}

/// The columns of text, in order.
pub(super) const TEXT_COLUMNS: [Column; 25] = [
    Column::View("time"),
    Column::View("kind"),
    Column::Body("identity"),
    Column::Body("serial"),
    Column::Body("lineage"),
    Column::Body("profile"),
    Column::Body("not_before"),
    Column::Body("not_after"),
    Column::Body("key"),
    Column::Body("evidence"),
    Column::Body("assurance"),
    Column::Body("requester"),
    Column::Body("by"),
    Column::Body("reason"),
    Column::Body("cause"),
    Column::Body("target"),
    Column::Body("note"),
    Column::Body("code"),
    Column::Body("token"),
    Column::Body("name"),
    Column::Body("action"),
    Column::Body("resource"),
    Column::Body("decision"),
    Column::Line("hash"),
    Column::Line("leaf"),
];

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_what_the_entry_has_and_documents_as_json() {
        let line = br#"{"index":7,"leaf":"AA==","hash":"h","view":{"time":"t","kind":"hold","body":{"target":{"lineage":"x"},"by":"ada"}}}"#;
        let row = Row::parse(line).unwrap();
        assert_eq!((row.index, row.generation), (7, None));
        let value = |name: &str| {
            let at = TEXT_COLUMNS.iter().position(|column| column.name() == name).unwrap();
            row.texts[at].clone()
        };
        assert_eq!(value("target").as_deref(), Some(r#"{"lineage":"x"}"#));
        assert_eq!(value("by").as_deref(), Some("ada"));
        assert_eq!(value("serial"), None);
        assert!(Row::parse(b"{}").is_err());
    }
}
