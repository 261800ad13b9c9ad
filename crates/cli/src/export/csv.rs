//! Comma-separated values (RFC 4180).

use std::io::Write;

use anyhow::Result;

use super::row::{Row, TEXT_COLUMNS};

/// Writes rows below a header.
#[derive(Debug)]
pub(super) struct Writer<W>(W);

impl<W: Write> Writer<W> {
    pub(super) fn new(mut output: W) -> Result<Self> {
        output.write_all(b"index")?;
        for column in TEXT_COLUMNS {
            write!(output, ",{}", column.name())?;
        }
        output.write_all(b",generation\r\n")?;
        Ok(Self(output))
    }

    pub(super) fn write(&mut self, row: &Row) -> Result<()> {
        write!(self.0, "{}", row.index)?;
        for text in &row.texts {
            self.0.write_all(b",")?;
            self.field(text.as_deref().unwrap_or_default())?;
        }
        self.0.write_all(b",")?;
        if let Some(generation) = row.generation {
            write!(self.0, "{generation}")?;
        }
        self.0.write_all(b"\r\n")?;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.0.flush()?;
        Ok(())
    }

    fn field(&mut self, text: &str) -> Result<()> {
        if !text.contains([',', '"', '\r', '\n']) {
            self.0.write_all(text.as_bytes())?;
            return Ok(());
        }
        write!(self.0, "\"{}\"", text.replace('"', "\"\""))?;
        Ok(())
    }
}
