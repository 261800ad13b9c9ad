//! What is wrong with a profile: all of it, each with its field.

use std::fmt;

/// One mistake in a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, with its table (`lifetime.max`); empty when the file cannot be read as TOML at all.
    pub field: String,
    /// What is wrong and what would be right.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            return formatter.write_str(&self.why);
        }
        write!(formatter, "{}: {}", self.field, self.why)
    }
}

/// Everything that is wrong with one profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ProfileError {
    /// The mistakes, at least one.
    pub problems: Vec<Problem>,
}

impl ProfileError {
    pub(super) fn one(field: &str, why: impl Into<String>) -> Self {
        Self { problems: vec![Problem { field: field.to_owned(), why: why.into() }] }
    }
}

/// Everything that is wrong with a set of profiles, by file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfilesError(pub Vec<(String, ProfileError)>);

impl std::error::Error for ProfilesError {}

impl fmt::Display for ProfilesError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (file, error)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{file}: {error}")?;
        }
        Ok(())
    }
}
