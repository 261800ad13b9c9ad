//! An export of the log in other forms than the one that can be audited: tables for people and their tools.
//!
//! What arrives is JSON, line by line; what leaves has one row for each entry. Only the JSON form carries what an
//! audit needs, so the others are for reading and counting.

mod csv;
#[cfg(feature = "parquet")]
mod parquet;
mod row;

use std::io::{BufWriter, Write};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use data_encoding::HEXLOWER;
use ring::digest::{Context as Hasher, SHA256};
use serde::Deserialize;

use row::Row;

/// The forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Form {
    /// One JSON object a line, with the exact bytes of each entry: the only form that can be audited.
    #[default]
    Jsonl,
    /// Comma-separated values (RFC 4180), one row for each entry.
    Csv,
    /// Apache Parquet, one row for each entry.
    Parquet,
}

impl Form {
    /// The ending of its files.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }
}

/// Takes an export apart as it arrives, writes it in the wanted form, and knows at the end whether it was whole.
pub(crate) struct Converter<W: Write + Send> {
    output: Output<W>,
    line: Vec<u8>,
    hasher: Hasher,
    header: Option<Header>,
    entries: u64,
    ended: bool,
}

/// What a converter has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Entries so far.
    pub(crate) entries: u64,
    /// Entries that the log has; a selection has fewer.
    pub(crate) size: u64,
}

enum Output<W: Write + Send> {
    Jsonl(BufWriter<W>),
    Csv(csv::Writer<BufWriter<W>>),
    #[cfg(feature = "parquet")]
    Parquet(Box<parquet::Writer<W>>),
}

/// The parts of the first line that are needed here.
#[derive(Debug, Deserialize)]
struct Header {
    chancery_export: u32,
    size: u64,
}

/// The last line.
#[derive(Debug, Deserialize)]
struct Footer {
    chancery_export_end: u32,
    entries: u64,
    sha256: String,
}

impl<W: Write + Send> Converter<W> {
    /// Begins.
    pub(crate) fn new(form: Form, output: W) -> Result<Self> {
        let output = match form {
            Form::Jsonl => Output::Jsonl(BufWriter::new(output)),
            Form::Csv => Output::Csv(csv::Writer::new(BufWriter::new(output))?),
            #[cfg(feature = "parquet")]
            Form::Parquet => Output::Parquet(Box::new(parquet::Writer::new(output)?)),
            #[cfg(not(feature = "parquet"))]
            Form::Parquet => {
                bail!("this program was built without Parquet; build it with --features parquet")
            }
        };
        Ok(Self {
            output,
            line: Vec::new(),
            hasher: Hasher::new(&SHA256),
            header: None,
            entries: 0,
            ended: false,
        })
    }

    /// Takes the next part of the export.
    pub(crate) fn take(&mut self, mut part: &[u8]) -> Result<Seen> {
        while let Some(end) = part.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = part.split_at(end + 1);
            self.line.extend_from_slice(line);
            part = rest;
            let line = std::mem::take(&mut self.line);
            self.take_line(&line)?;
            self.line = line;
            self.line.clear();
        }
        self.line.extend_from_slice(part);
        if self.line.len() > MAX_LINE && self.header.is_some() {
            bail!("the export has a line of more than {MAX_LINE} bytes; something else answered");
        }
        Ok(Seen { entries: self.entries, size: self.header.as_ref().map_or(0, |header| header.size) })
    }

    /// Ends; an export that breaks off, or does not have the digest that it states, is an error.
    pub(crate) fn finish(self) -> Result<Seen> {
        if !self.ended || !self.line.is_empty() {
            bail!("the export breaks off after {} entries; export again", self.entries);
        }
        match self.output {
            Output::Jsonl(mut output) => output.flush()?,
            Output::Csv(output) => output.finish()?,
            #[cfg(feature = "parquet")]
            Output::Parquet(output) => output.finish()?,
        }
        Ok(Seen { entries: self.entries, size: self.header.map_or(0, |header| header.size) })
    }

    fn take_line(&mut self, line: &[u8]) -> Result<()> {
        if self.ended {
            bail!("something follows the last line of the export; export again");
        }
        if let Output::Jsonl(output) = &mut self.output {
            output.write_all(line)?;
        }
        if self.header.is_none() {
            let header: Header = serde_json::from_slice(line).context("the answer is not an export")?;
            if header.chancery_export != FORM_VERSION {
                bail!("the export has form {}, this program reads {FORM_VERSION}", header.chancery_export);
            }
            self.header = Some(header);
        } else if line.starts_with(FOOTER) {
            return self.take_footer(line);
        } else {
            self.entries += 1;
            if !matches!(self.output, Output::Jsonl(_)) {
                let row = Row::parse(line).with_context(|| format!("entry line {}", self.entries))?;
                self.output.write(&row)?;
            }
        }
        self.hasher.update(line);
        Ok(())
    }

    fn take_footer(&mut self, line: &[u8]) -> Result<()> {
        let footer: Footer = serde_json::from_slice(line).context("the last line of the export")?;
        let digest = HEXLOWER.encode(self.hasher.clone().finish().as_ref());
        if footer.chancery_export_end != FORM_VERSION || footer.sha256 != digest {
            bail!("the export was damaged on its way: its last line does not fit what came; export again");
        }
        if footer.entries != self.entries {
            bail!("the export has {} entries and states {}; export again", self.entries, footer.entries);
        }
        self.ended = true;
        Ok(())
    }
}

impl<W: Write + Send> Output<W> {
    fn write(&mut self, row: &Row) -> Result<()> {
        match self {
            Self::Jsonl(_) => Ok(()),
            Self::Csv(output) => output.write(row),
            #[cfg(feature = "parquet")]
            Self::Parquet(output) => output.write(row),
        }
    }
}

/// The version of the export's form that is read here.
const FORM_VERSION: u32 = 1;
/// How the last line begins.
const FOOTER: &[u8] = b"{\"chancery_export_end\"";
/// Bytes of an entry's line that are held.
const MAX_LINE: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// An export of these entry lines.
    fn export(lines: &[&str]) -> Vec<u8> {
        let mut text = format!("{{\"chancery_export\":1,\"origin\":\"o\",\"size\":{}}}\n", lines.len());
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        let digest = HEXLOWER.encode(ring::digest::digest(&SHA256, text.as_bytes()).as_ref());
        let entries = lines.len();
        text.push_str(&format!(
            "{{\"chancery_export_end\":1,\"entries\":{entries},\"sha256\":\"{digest}\"}}\n"
        ));
        text.into_bytes()
    }

    const ISSUANCE: &str = r#"{"index":0,"leaf":"AA==","hash":"00","view":{"time":"2026-11-21T12:00:00.5Z","kind":"issuance","body":{"serial":"01","identity":"spiffe://e/x","generation":3,"requester":"a, \"b\""}},"signature":"AQ=="}"#;
    const NULL: &str =
        r#"{"index":1,"leaf":"","hash":"11","view":{"time":"2026-11-21T12:00:01Z","kind":"null"}}"#;

    fn convert(form: Form, input: &[u8], piece: usize) -> Result<(Vec<u8>, Seen)> {
        let mut output = Vec::new();
        let mut converter = Converter::new(form, &mut output)?;
        for part in input.chunks(piece) {
            converter.take(part)?;
        }
        let seen = converter.finish()?;
        Ok((output, seen))
    }

    #[test]
    fn json_passes_through_whatever_the_pieces_are() {
        let input = export(&[ISSUANCE, NULL]);
        for piece in [1, 7, 1000] {
            let (output, seen) = convert(Form::Jsonl, &input, piece).unwrap();
            assert_eq!(output, input);
            assert_eq!(seen, Seen { entries: 2, size: 2 });
        }
    }

    #[test]
    fn csv_has_a_row_for_each_entry_and_quotes_what_must_be() {
        let (output, _) = convert(Form::Csv, &export(&[ISSUANCE, NULL]), 10).unwrap();
        let text = String::from_utf8(output).unwrap();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert!(lines[0].starts_with("index,time,kind,"));
        assert!(lines[1].starts_with("0,2026-11-21T12:00:00.5Z,issuance,spiffe://e/x,"), "{}", lines[1]);
        assert!(lines[1].contains(r#""a, ""b""""#), "{}", lines[1]);
        assert!(lines[2].starts_with("1,2026-11-21T12:00:01Z,null,,"));
        assert_eq!(lines.len(), 4);
    }

    #[cfg(feature = "parquet")]
    #[test]
    fn parquet_is_read_back_by_the_library() {
        use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.parquet");
        let input = export(&[ISSUANCE, NULL]);
        let mut converter = Converter::new(Form::Parquet, std::fs::File::create(&path).unwrap()).unwrap();
        converter.take(&input).unwrap();
        converter.finish().unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 2);
        let rows: Vec<String> =
            reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert!(rows[0].contains("kind: \"issuance\"") && rows[0].contains("generation: 3"), "{}", rows[0]);
        assert!(rows[1].contains("identity: null"), "{}", rows[1]);
    }

    #[test]
    fn refuses_an_export_that_breaks_off_or_was_changed() {
        let input = export(&[ISSUANCE, NULL]);
        let error = |input: &[u8]| convert(Form::Csv, input, 64).unwrap_err().to_string();
        assert!(error(&input[..input.len() - 40]).contains("breaks off"));
        assert!(error(b"").contains("breaks off"));
        let mut changed = input.clone();
        let at = changed.windows(4).position(|window| window == b"AA==").unwrap();
        changed[at] = b'B';
        assert!(error(&changed).contains("damaged"));
        assert!(error(b"{\"error\":1}\n").contains("not an export"));
        assert!(error(&[input, b"more\n".to_vec()].concat()).contains("follows"));
    }
}
