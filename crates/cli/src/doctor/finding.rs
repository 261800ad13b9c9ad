//! What was found, how bad it is, and what to do.

use serde::Serialize;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// In order.
    Good,
    /// It could not be looked at.
    Unknown,
    /// It works, and will not for ever.
    Warning,
    /// It does not work, or somebody can misuse it.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What.
    pub(super) check: &'static str,
    /// How it is.
    pub(super) state: State,
    /// What was found.
    pub(super) found: String,
    /// What to do; empty when there is nothing to do.
    pub(super) advice: String,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn good(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, State::Good, found.into(), "");
    }

    pub(super) fn unknown(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, State::Unknown, found.into(), "");
    }

    pub(super) fn warn(&mut self, check: &'static str, found: impl Into<String>, advice: &str) {
        self.add(check, State::Warning, found.into(), advice);
    }

    pub(super) fn bad(&mut self, check: &'static str, found: impl Into<String>, advice: &str) {
        self.add(check, State::Bad, found.into(), advice);
    }

    pub(super) fn count(&self, state: State) -> usize {
        self.0.iter().filter(|finding| finding.state == state).count()
    }

    fn add(&mut self, check: &'static str, state: State, found: String, advice: &str) {
        self.0.push(Finding { check, state, found, advice: advice.to_owned() });
    }
}
