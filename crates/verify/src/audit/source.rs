//! Where an export is read from, one piece after the other.

use std::io::{self, BufRead, Read};

use chancery_api::{EXPORT_VERSION, ExportFooter, ExportHeader};
use chancery_merkle::leaf_hash;
use chancery_types::Digest;
use data_encoding::BASE64;
use sha2::{Digest as _, Sha256};

use super::export::ParsedLine;
use super::finding::{Check, Finding};

/// The longest entry line: an entry of 65,535 bytes in base64 and again as escaped JSON, and a signature.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// The longest header: room for revocation lists of a few million certificates.
pub const MAX_HEADER_BYTES: usize = 256 << 20;

/// Why an export cannot be audited at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Reading failed.
    #[error("the export cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The first line is not a header.
    #[error("line 1 is not the header of an export: {0}; make one with `chancery audit export`")]
    Header(String),
    /// A form that this program does not know.
    #[error("the export has form {found}, this program reads {EXPORT_VERSION}; use a newer program")]
    Version {
        /// The version found.
        found: u32,
    },
    /// A file without which there is nothing to audit is missing or unreadable.
    #[error("{path}: {error}; this directory is not an export of a log")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: String,
    },
}

/// Something to audit: a header, then entries in their order.
pub trait ExportSource {
    /// What it says it is.
    fn header(&self) -> &ExportHeader;

    /// The next entry, unparsed; nothing at the end.
    ///
    /// # Errors
    /// [`SourceError`] when reading fails.
    fn next_entry(&mut self) -> Result<Option<RawEntry>, SourceError>;

    /// After the end: what is wrong with the export as a whole.
    fn findings(&mut self) -> Vec<Finding>;

    /// Bytes read so far, for progress.
    fn bytes_read(&self) -> u64;
}

/// One entry before it is parsed; parsing is left to the auditor's threads.
#[derive(Debug, Clone)]
pub enum RawEntry {
    /// A line of the JSON form.
    Line {
        /// Counted from 1.
        number: u64,
        /// Its bytes without the newline.
        bytes: Vec<u8>,
    },
    /// An entry of a static layout.
    Leaf {
        /// The index that it has by its place.
        index: u64,
        /// Its bytes.
        leaf: Vec<u8>,
        /// What the tile of leaf hashes says.
        hash: Option<Digest>,
        /// The certificate's signature.
        signature: Option<Vec<u8>>,
    },
    /// Something stood where an entry should, and was unreadable.
    Damaged {
        /// What it was.
        detail: String,
    },
}

impl RawEntry {
    /// The entry's index, its bytes and the certificate's signature, unchecked.
    ///
    /// # Errors
    /// What is damaged, in words.
    pub fn into_leaf(self) -> Result<(u64, Vec<u8>, Option<Vec<u8>>), String> {
        let entry = ExportedEntry::parse(&self)?;
        Ok((entry.index, entry.leaf, entry.signature))
    }

    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Line { bytes, .. } => bytes.len(),
            Self::Leaf { leaf, .. } => leaf.len(),
            Self::Damaged { .. } => 0,
        }
    }
}

/// One entry, parsed and not yet decoded.
#[derive(Debug)]
pub(crate) struct ExportedEntry {
    pub(crate) index: u64,
    pub(crate) leaf: Vec<u8>,
    pub(crate) leaf_hash: Digest,
    /// As it was written: only lower-case hexadecimal is right.
    pub(crate) stated_hash: Option<String>,
    pub(crate) view: Option<String>,
    pub(crate) signature: Option<Vec<u8>>,
}

impl ExportedEntry {
    /// Takes an entry apart; an error is what to say about it.
    pub(crate) fn parse(raw: &RawEntry) -> Result<Self, String> {
        match raw {
            RawEntry::Damaged { detail } => Err(detail.clone()),
            RawEntry::Leaf { index, leaf, hash, signature } => Ok(Self {
                index: *index,
                leaf_hash: leaf_hash(leaf),
                leaf: leaf.clone(),
                stated_hash: hash.map(|hash| hash.to_string()),
                view: None,
                signature: signature.clone(),
            }),
            RawEntry::Line { number, bytes } => {
                let line: ParsedLine =
                    serde_json::from_slice(bytes).map_err(|error| format!("line {number}: {error}"))?;
                let decode = |field: &str, text: &str| {
                    let decoded = BASE64.decode(text.as_bytes());
                    decoded.map_err(|error| format!("line {number}, field {field}: not base64: {error}"))
                };
                let leaf = decode("leaf", &line.leaf)?;
                let signature = line.signature.map(|text| decode("signature", &text)).transpose()?;
                Ok(Self {
                    index: line.index,
                    leaf_hash: leaf_hash(&leaf),
                    leaf,
                    stated_hash: line.hash,
                    view: line.view.map(|view| view.get().to_owned()),
                    signature,
                })
            }
        }
    }
}

/// An export in the JSON form, read as a stream.
pub struct JsonLines<R> {
    reader: R,
    header: ExportHeader,
    hasher: Sha256,
    line: u64,
    entries: u64,
    bytes: u64,
    end: Option<End>,
}

/// How the stream ended.
enum End {
    Footer { footer: ExportFooter, computed: Digest, trailing: bool },
    Missing,
}

impl<R: BufRead> JsonLines<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`SourceError`] when there is none, or none of ours.
    pub fn open(mut reader: R) -> Result<Self, SourceError> {
        let mut line = Vec::new();
        let read = (&mut reader).take(MAX_HEADER_BYTES as u64).read_until(b'\n', &mut line)?;
        let Some(text) = line.strip_suffix(b"\n") else {
            return Err(SourceError::Header(format!("it does not end within {read} bytes")));
        };
        // The version first: a later form may have other fields.
        #[derive(serde::Deserialize)]
        struct Version {
            chancery_export: u32,
        }
        let unreadable = |error: serde_json::Error| SourceError::Header(error.to_string());
        let version: Version = serde_json::from_slice(text).map_err(unreadable)?;
        if version.chancery_export != EXPORT_VERSION {
            return Err(SourceError::Version { found: version.chancery_export });
        }
        let header = serde_json::from_slice(text).map_err(unreadable)?;
        let mut hasher = Sha256::new();
        hasher.update(&line);
        Ok(Self { reader, header, hasher, line: 1, entries: 0, bytes: read as u64, end: None })
    }

    /// The next line without its newline; nothing at the end of the input.
    fn read_line(&mut self) -> Result<Option<Line>, SourceError> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.bytes += read as u64;
        if bytes.last() == Some(&b'\n') {
            return Ok(Some(Line::Whole(bytes)));
        }
        self.hasher.update(&bytes);
        // Either the input ends here, or the line is longer than any that we write: skip to its end.
        let mut skipped = 0;
        loop {
            let mut more = Vec::new();
            let read = (&mut self.reader).take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut more)?;
            self.hasher.update(&more);
            self.bytes += read as u64;
            skipped += read;
            if read == 0 || more.last() == Some(&b'\n') {
                break;
            }
        }
        let problem = if skipped == 0 {
            format!("line {}: the export ends within it", self.line)
        } else {
            format!("line {}: longer than {MAX_LINE_BYTES} bytes", self.line)
        };
        Ok(Some(Line::Broken(problem)))
    }
}

enum Line {
    /// With its newline.
    Whole(Vec<u8>),
    Broken(String),
}

impl<R: BufRead> ExportSource for JsonLines<R> {
    fn header(&self) -> &ExportHeader {
        &self.header
    }

    fn next_entry(&mut self) -> Result<Option<RawEntry>, SourceError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let mut bytes = match self.read_line()? {
            None => {
                self.end = Some(End::Missing);
                return Ok(None);
            }
            Some(Line::Broken(detail)) => {
                self.entries += 1;
                return Ok(Some(RawEntry::Damaged { detail }));
            }
            Some(Line::Whole(bytes)) => bytes,
        };
        if bytes.starts_with(FOOTER)
            && let Ok(footer) = serde_json::from_slice::<ExportFooter>(&bytes)
        {
            let computed = Digest::from_array(self.hasher.clone().finalize().into());
            let trailing = self.read_line()?.is_some();
            self.end = Some(End::Footer { footer, computed, trailing });
            return Ok(None);
        }
        self.hasher.update(&bytes);
        self.entries += 1;
        bytes.pop();
        Ok(Some(RawEntry::Line { number: self.line, bytes }))
    }

    fn findings(&mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(selection) = &self.header.selection {
            let detail =
                format!("a selection ({selection}): its tree cannot be checked; export the whole log");
            findings.push(Finding::new(Check::ExportIncomplete, detail));
        }
        match &self.end {
            Some(End::Footer { footer, computed, trailing }) => {
                if footer.chancery_export_end != EXPORT_VERSION {
                    let detail = format!("the last line has form {}", footer.chancery_export_end);
                    findings.push(Finding::new(Check::ExportDamaged, detail));
                }
                if footer.entries != self.entries {
                    let detail = format!(
                        "the last line counts {} entries, there are {}",
                        footer.entries, self.entries
                    );
                    findings.push(Finding::new(Check::ExportIncomplete, detail));
                }
                if footer.sha256 != computed.to_string() {
                    let detail =
                        format!("the last line states {:?}, the bytes have {computed}", footer.sha256);
                    findings.push(Finding::new(Check::ExportDigest, detail));
                }
                if *trailing {
                    let detail = format!("something follows the last line, from line {}", self.line);
                    findings.push(Finding::new(Check::ExportDamaged, detail));
                }
            }
            Some(End::Missing) | None => {
                let detail = format!("it breaks off after line {}; export it again", self.line);
                findings.push(Finding::new(Check::ExportIncomplete, detail));
            }
        }
        findings
    }

    fn bytes_read(&self) -> u64 {
        self.bytes
    }
}

/// How the last line begins.
const FOOTER: &[u8] = b"{\"chancery_export_end\"";
