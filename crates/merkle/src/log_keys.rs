//! The keys of one log: a log that lives for long is signed by one after another.

use std::fmt;
use std::str::FromStr;

use crate::key::{NoteKeyKind, NoteVerifier, VkeyError};
use crate::text::excerpt;

/// The most keys that are read: a log with a new key every month has as many after eight years.
pub const MAX_LOG_KEYS: usize = 100;

/// Why keys are not those of one log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogKeysError {
    /// One of them cannot be read.
    #[error(transparent)]
    Vkey(#[from] VkeyError),
    /// There is none.
    #[error("no verifier key was given; a log's is <name>+<8 hexadecimal digits>+<base64>")]
    None,
    /// They belong to different logs.
    #[error("the keys are of two logs, {expected:?} and {found:?}; give those of one")]
    Name {
        /// Name of the first.
        expected: String,
        /// Name of another.
        found: String,
    },
    /// A log signs with type 01; a key of another kind was given.
    #[error("{0:?} is the key of a witness; give the log's own verifier key")]
    NotALogKey(String),
    /// More than are read.
    #[error("at most {MAX_LOG_KEYS} keys of a log are read")]
    TooMany,
}

/// The keys of one log that somebody believes, the oldest first; there is one at least. What any of them has signed
/// is the log's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogKeys {
    keys: Vec<NoteVerifier>,
}

impl LogKeys {
    /// Believes these, the oldest first; one that is there twice is believed once.
    ///
    /// # Errors
    /// [`LogKeysError`] when there are none, too many, or not those of one log.
    pub fn new(keys: impl IntoIterator<Item = NoteVerifier>) -> Result<Self, LogKeysError> {
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(LogKeysError::None)?;
        can_sign_a_log(&first)?;
        let mut believed = Self::from(first);
        for key in keys {
            believed.add(key)?;
        }
        Ok(believed)
    }

    /// Believes one more key; `false` when it was believed already.
    ///
    /// # Errors
    /// [`LogKeysError`] when it is no key of this log; those that were believed stay.
    pub fn add(&mut self, key: NoteVerifier) -> Result<bool, LogKeysError> {
        if key.name() != self.name() {
            let (expected, found) = (self.name().to_owned(), excerpt(key.name()));
            return Err(LogKeysError::Name { expected, found });
        }
        can_sign_a_log(&key)?;
        if self.keys.contains(&key) {
            return Ok(false);
        }
        if self.keys.len() == MAX_LOG_KEYS {
            return Err(LogKeysError::TooMany);
        }
        self.keys.push(key);
        Ok(true)
    }

    /// Those of them for which this is true, if there are any.
    #[must_use]
    pub fn only(&self, is_meant: impl Fn(&NoteVerifier) -> bool) -> Option<Self> {
        let keys: Vec<NoteVerifier> = self.keys.iter().filter(|key| is_meant(key)).cloned().collect();
        (!keys.is_empty()).then_some(Self { keys })
    }

    /// The log's name: its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        self.newest().name()
    }

    /// The one that was believed last.
    #[must_use]
    pub fn newest(&self) -> &NoteVerifier {
        self.keys.last().expect("there is one at least")
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[NoteVerifier] {
        &self.keys
    }
}

fn can_sign_a_log(key: &NoteVerifier) -> Result<(), LogKeysError> {
    match key.kind() {
        NoteKeyKind::Ed25519 => Ok(()),
        _ => Err(LogKeysError::NotALogKey(excerpt(key.name()))),
    }
}

impl From<NoteVerifier> for LogKeys {
    fn from(key: NoteVerifier) -> Self {
        Self { keys: vec![key] }
    }
}

/// One verifier key a line.
impl fmt::Display for LogKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keys.iter().enumerate().try_for_each(|(place, key)| {
            let separator = if place == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{key}")
        })
    }
}

impl FromStr for LogKeys {
    type Err = LogKeysError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Self::new(lines.map(str::parse).collect::<Result<Vec<NoteVerifier>, _>>()?)
    }
}
