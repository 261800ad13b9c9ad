//! The textual beginning of an age file: the file key, wrapped for each recipient, and a code over it all.

use std::io::{BufRead, Read};

use data_encoding::BASE64_NOPAD;
use ring::hmac;

use super::{AgeError, derive};

/// What a header may be long: some hundred recipients.
const MAX_HEADER: u64 = 64 << 10;
const VERSION: &str = "age-encryption.org/v1";
/// Characters of a stanza's line; a shorter one ends it.
const COLUMNS: usize = 64;

/// The file key as one recipient can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stanza {
    /// Its kind, and what that needs.
    pub(super) arguments: Vec<String>,
    pub(super) body: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) stanzas: Vec<Stanza>,
}

impl Header {
    /// The whole text, with its authentication code.
    pub(super) fn seal(&self, file_key: &[u8; 16]) -> String {
        let mut text = format!("{VERSION}\n");
        for stanza in &self.stanzas {
            text += &format!("-> {}\n", stanza.arguments.join(" "));
            let body = BASE64_NOPAD.encode(&stanza.body);
            let mut rest = body.as_str();
            // The last line is shorter than the others, if need be empty.
            while rest.len() >= COLUMNS {
                let (line, after) = rest.split_at(COLUMNS);
                text += &format!("{line}\n");
                rest = after;
            }
            text += &format!("{rest}\n");
        }
        text += "---";
        let code = hmac::sign(&code_key(file_key), text.as_bytes());
        text + &format!(" {}\n", BASE64_NOPAD.encode(code.as_ref()))
    }

    /// Reads a header: what it says, the bytes that its code covers, and the code.
    pub(super) fn read(input: &mut impl BufRead) -> Result<(Self, Vec<u8>, Vec<u8>), AgeError> {
        let mut lines = Lines { input: input.take(MAX_HEADER), read: Vec::new() };
        if lines.next()? != VERSION {
            return Err(AgeError::Header("it does not begin with age-encryption.org/v1"));
        }
        let mut header = Self::default();
        loop {
            let start = lines.read.len();
            let line = lines.next()?;
            if let Some(code) = line.strip_prefix("--- ") {
                let code = decode(code)?;
                if code.len() != 32 {
                    return Err(AgeError::Header("its authentication code is malformed"));
                }
                lines.read.truncate(start + 3);
                return if header.stanzas.is_empty() {
                    Err(AgeError::Header("it has no recipients"))
                } else {
                    Ok((header, lines.read, code))
                };
            }
            let arguments = line.strip_prefix("-> ").ok_or(AgeError::Header("a line is no stanza"))?;
            let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
            let is_visible = |argument: &String| {
                !argument.is_empty() && argument.bytes().all(|byte| (33..=126).contains(&byte))
            };
            if !arguments.iter().all(is_visible) {
                return Err(AgeError::Header("a stanza's arguments are malformed"));
            }
            header.stanzas.push(Stanza { arguments, body: lines.body()? });
        }
    }
}

/// That whoever wrote the header knew the file key.
pub(super) fn verify(file_key: &[u8; 16], authenticated: &[u8], code: &[u8]) -> Result<(), AgeError> {
    hmac::verify(&code_key(file_key), authenticated, code).map_err(|_| AgeError::Altered)
}

fn code_key(file_key: &[u8; 16]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*derive(file_key, &[], b"header"))
}

fn decode(text: &str) -> Result<Vec<u8>, AgeError> {
    BASE64_NOPAD.decode(text.as_bytes()).map_err(|_| AgeError::Header("a part of it is not base64"))
}

struct Lines<R> {
    input: R,
    read: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// The next line without its newline.
    fn next(&mut self) -> Result<String, AgeError> {
        let start = self.read.len();
        self.input.read_until(b'\n', &mut self.read)?;
        let line = self.read[start..].strip_suffix(b"\n").ok_or(AgeError::Header("it ends within a line"))?;
        String::from_utf8(line.to_vec()).map_err(|_| AgeError::Header("it is not text"))
    }

    fn body(&mut self) -> Result<Vec<u8>, AgeError> {
        let mut text = String::new();
        loop {
            let line = self.next()?;
            if line.len() > COLUMNS {
                return Err(AgeError::Header("a stanza's line is too long"));
            }
            text += &line;
            if line.len() < COLUMNS {
                return decode(&text);
            }
        }
    }
}
