//! The text that the ledger's key signs for a set.

use std::fmt;
use std::str::FromStr;

use chancery_types::{Digest, TrustDomain};
use data_encoding::BASE64;

use crate::set::ExactSet;

/// The first line. No checkpoint has it, whose first line is the name of the key; nothing else that the key signs does.
const FIRST_LINE: &str = "chancery-status-set/v1";

/// A signed text is not that of a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signed text is not that of a status set: line {line} is not {expected}")]
pub struct StatusNoteError {
    /// Counted from 1.
    pub line: usize,
    /// What should stand there.
    pub expected: &'static str,
}

/// What is signed: four lines, `chancery-status-set/v1`, the trust domain, the sequence in decimal, SHA-256 in base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusNote {
    /// Whose certificates.
    pub trust_domain: TrustDomain,
    /// Position in the log.
    pub sequence: u64,
    /// SHA-256 of the set.
    pub hash: Digest,
}

impl StatusNote {
    /// The note of a set.
    #[must_use]
    pub fn of(set: &ExactSet, trust_domain: &TrustDomain) -> Self {
        Self { trust_domain: trust_domain.clone(), sequence: set.sequence(), hash: set.hash() }
    }
}

impl fmt::Display for StatusNote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{FIRST_LINE}\n{}\n{}", self.trust_domain.as_str(), self.sequence)?;
        writeln!(formatter, "{}", BASE64.encode(self.hash.as_bytes()))
    }
}

impl FromStr for StatusNote {
    type Err = StatusNoteError;

    /// Reads exactly what is written by [`fmt::Display`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unexpected = |line, expected| StatusNoteError { line, expected };
        let mut lines = text.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err(unexpected(1, FIRST_LINE));
        }
        let trust_domain = lines.next().and_then(|line| TrustDomain::parse(line).ok());
        let trust_domain = trust_domain.ok_or(unexpected(2, "a trust domain"))?;
        let sequence = lines.next().and_then(|line| line.parse().ok());
        let sequence = sequence.ok_or(unexpected(3, "a sequence in decimal"))?;
        let hash = lines.next().and_then(|line| BASE64.decode(line.as_bytes()).ok());
        let hash = hash.and_then(|hash| hash.try_into().ok()).map(Digest::from_array);
        let hash = hash.ok_or(unexpected(4, "a SHA-256 hash in base64"))?;
        let note = Self { trust_domain, sequence, hash };
        // One spelling: no leading zeros or plus, no other case, nothing behind.
        if note.to_string() == text {
            Ok(note)
        } else {
            Err(unexpected(5, "the end, after lines in their one spelling"))
        }
    }
}
