//! Everything that is wrong with a configuration, gathered so that it is said at once.

use std::fmt::Display;
use std::path::Path;

use serde::de::DeserializeOwned;

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} cannot be used:{}", .mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect::<String>())]
pub struct ConfigError {
    /// The file.
    pub path: String,
    /// One line each.
    pub mistakes: Vec<String>,
}

/// Mistakes found so far.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<String>);

impl Mistakes {
    pub(crate) fn add(&mut self, mistake: impl Into<String>) {
        self.0.push(mistake.into());
    }

    /// What is right, or nothing and one mistake more.
    pub(crate) fn keep<T, E: Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.0.push(format!("{field}: {error}"))).ok()
    }

    /// All of them, if there are any.
    pub(crate) fn into_result<T>(self, value: Option<T>) -> Result<T, Vec<String>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

/// Reads a file and checks it; paths in it are relative to its directory.
pub(crate) fn load<R: DeserializeOwned, C>(
    path: &Path,
    check: impl FnOnce(R, &Path) -> Result<C, Vec<String>>,
) -> Result<C, ConfigError> {
    let fail = |mistakes| ConfigError { path: path.display().to_string(), mistakes };
    let text = std::fs::read_to_string(path).map_err(|error| fail(vec![error.to_string()]))?;
    let raw = toml::from_str(&text).map_err(|error| fail(vec![error.to_string()]))?;
    // The parent of a bare file name is the empty path.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = std::path::absolute(directory).map_err(|error| fail(vec![error.to_string()]))?;
    check(raw, &directory).map_err(fail)
}
