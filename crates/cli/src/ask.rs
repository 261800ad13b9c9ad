//! Questions to whoever sits at the terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use chancery_types::SecretString;

use crate::failure::usage;

/// Whether there is somebody to ask.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks until the answer parses; nothing typed means the default.
pub(crate) fn ask<T>(question: &str, default: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T> {
    loop {
        let hint = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        let mut output = io::stderr().lock();
        write!(output, "{question}{hint}: ")?;
        output.flush()?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            return Err(usage("the questions were not answered; give the answers as flags, with --yes"));
        }
        let answer = if line.trim().is_empty() { default } else { line.trim() };
        match parse(answer) {
            Ok(value) => return Ok(value),
            Err(problem) => writeln!(output, "  {problem}")?,
        }
    }
}

/// Asks for a new passphrase, twice; nothing typed means that one is to be generated.
pub(crate) fn new_passphrase(what: &str) -> Result<Option<SecretString>> {
    loop {
        let first = prompt(&format!("Passphrase for {what} (empty: generate one): "))?;
        if first.expose_secret().is_empty() {
            return Ok(None);
        }
        if first.expose_secret().chars().count() < MIN_PASSPHRASE {
            writeln!(io::stderr(), "  at least {MIN_PASSPHRASE} characters; a few words do best")?;
            continue;
        }
        let second = prompt("The same again: ")?;
        if first.expose_secret() == second.expose_secret() {
            return Ok(Some(first));
        }
        writeln!(io::stderr(), "  the two differ")?;
    }
}

/// Asks for an existing passphrase.
pub(crate) fn passphrase(what: &str) -> Result<SecretString> {
    prompt(&format!("Passphrase of {what}: "))
}

fn prompt(text: &str) -> Result<SecretString> {
    rpassword::prompt_password(text).map(SecretString::new).context("cannot ask for a passphrase")
}

/// Characters of a passphrase that somebody makes up.
const MIN_PASSPHRASE: usize = 12;
