//! What is wrong with a set of policies, all at once and with line numbers.

use std::fmt;

use miette::Diagnostic;

/// One file of the policy configuration: its name for messages, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySource {
    /// The file's name.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl PolicySource {
    /// A file with this name and text.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// The line that this byte stands in, from 1.
    pub(crate) fn line_at(&self, offset: usize) -> usize {
        let end = offset.min(self.text.len());
        1 + self.text.as_bytes()[..end].iter().filter(|&&byte| byte == b'\n').count()
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyMistake {
    /// The file.
    pub file: String,
    /// The line, from 1, where the mistake has one.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl PolicyMistake {
    /// A mistake at the place that Cedar's diagnostic points to.
    pub(crate) fn of(source: &PolicySource, diagnostic: &dyn Diagnostic) -> Self {
        let offset = diagnostic.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
        let help = diagnostic.help().map(|help| format!(" ({help})")).unwrap_or_default();
        Self {
            file: source.name.clone(),
            line: offset.map(|offset| source.line_at(offset)),
            message: format!("{diagnostic}{help}"),
        }
    }

    /// A mistake of ours to find.
    pub(crate) fn at(source: &PolicySource, line: Option<usize>, message: String) -> Self {
        Self { file: source.name.clone(), line, message }
    }
}

impl fmt::Display for PolicyMistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(formatter, "{}:{line}: {}", self.file, self.message),
            None => write!(formatter, "{}: {}", self.file, self.message),
        }
    }
}

/// Every mistake in a set of policies. Nothing of such a set is put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyErrors(pub Vec<PolicyMistake>);

impl fmt::Display for PolicyErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the policies have {} mistake(s) and are not put in force", self.0.len())?;
        self.0.iter().try_for_each(|mistake| write!(formatter, "\n  {mistake}"))
    }
}

impl std::error::Error for PolicyErrors {}
