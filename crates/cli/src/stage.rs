//! The stage of a quickstart: a directory, commands that run in it, and what is told about them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::loopback::this_program;
use crate::terminal::{Terminal, Tone};

/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Characters of a line on a terminal.
const WIDTH: usize = 96;

/// Where it happens and how it is told.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    terminal: &'a Terminal,
    directory: PathBuf,
    steps: Vec<Step>,
    began: Instant,
    current: Option<Current>,
}

/// A step that was done.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    /// What and why.
    pub(crate) title: String,
    /// As a user would type them.
    pub(crate) commands: Vec<String>,
    /// What came of it.
    pub(crate) result: Vec<String>,
    /// How long it took.
    pub(crate) milliseconds: f64,
}

#[derive(Debug)]
struct Current {
    title: String,
    commands: Vec<String>,
    began: Instant,
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) output: String,
    /// Standard error.
    pub(crate) errors: String,
}

impl<'a> Stage<'a> {
    /// A stage in this directory, which exists.
    pub(crate) fn new(terminal: &'a Terminal, directory: &Path) -> Self {
        let directory = directory.to_owned();
        Self { terminal, directory, steps: Vec::new(), began: Instant::now(), current: None }
    }

    /// Where it is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The whole directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What was done so far.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How long it has taken so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The step that is under way.
    pub(crate) fn under_way(&self) -> Option<&str> {
        self.current.as_ref().map(|current| current.title.as_str())
    }

    /// Says something between steps.
    pub(crate) fn say(&self, text: &str) -> Result<()> {
        if self.terminal.is_json() { Ok(()) } else { self.terminal.text(text) }
    }

    /// Begins a step: what happens, and why.
    pub(crate) fn begin(&mut self, title: &str) -> Result<()> {
        let number = self.steps.len() + 1;
        let mark = self.terminal.paint(Tone::Strong, format_args!("{number:>2}"));
        self.say(&format!("\n{mark}  {}", wrapped(title, "    ")))?;
        self.current = Some(Current { title: title.to_owned(), commands: Vec::new(), began: Instant::now() });
        Ok(())
    }

    /// Shows a command that a user would type, without running it.
    pub(crate) fn show(&mut self, line: &str) -> Result<()> {
        self.say(&format!("    $ {}", self.terminal.paint(Tone::Strong, line)))?;
        if let Some(current) = &mut self.current {
            current.commands.push(line.to_owned());
        }
        Ok(())
    }

    /// Shows and runs a command of this program; whatever it says is handed back.
    pub(crate) async fn run(&mut self, arguments: &[&str]) -> Result<Said> {
        self.show(&line(arguments))?;
        self.quietly(arguments).await
    }

    /// Shows and runs a command that must succeed; returns its standard output.
    pub(crate) async fn succeed(&mut self, arguments: &[&str]) -> Result<String> {
        let said = self.run(arguments).await?;
        said.succeeded(&line(arguments))
    }

    /// The same with its output in a file.
    pub(crate) async fn succeed_into(&mut self, arguments: &[&str], file: &str) -> Result<()> {
        let shown = format!("{} > {file}", line(arguments));
        self.show(&shown)?;
        let output = self.quietly(arguments).await?.succeeded(&shown)?;
        std::fs::write(self.path(file), output).with_context(|| format!("cannot write {file}"))
    }

    /// Ends a step that went as it should.
    pub(crate) fn done(&mut self, result: &[String]) -> Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let took = current.began.elapsed();
        let tick = self.terminal.paint(Tone::Good, "✓");
        for (place, text) in result.iter().enumerate() {
            let (mark, time) = if place == 0 { (tick.as_str(), shown(took)) } else { (" ", String::new()) };
            self.say(&format!("    {mark} {time:>6}  {}", wrapped(text, &" ".repeat(14))))?;
        }
        self.steps.push(Step {
            title: current.title,
            commands: current.commands,
            result: result.to_vec(),
            milliseconds: took.as_secs_f64() * 1000.0,
        });
        Ok(())
    }

    async fn quietly(&self, arguments: &[&str]) -> Result<Said> {
        let mut command = this_program()?;
        command.args(arguments).current_dir(&self.directory).env("NO_COLOR", "1");
        let output = tokio::time::timeout(PATIENCE, command.output())
            .await
            .with_context(|| format!("`{}` did not end within {} s", line(arguments), PATIENCE.as_secs()))?
            .with_context(|| format!("`{}` did not run", line(arguments)))?;
        Ok(Said {
            code: output.status.code(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

impl Said {
    fn succeeded(self, line: &str) -> Result<String> {
        match self.code {
            Some(0) => Ok(self.output),
            _ => bail!("`{line}` failed:\n{}{}", self.output, self.errors),
        }
    }

    /// What it refused, when it ended with this exit code.
    pub(crate) fn refused(&self, code: i32, what: &str) -> Result<String> {
        if self.code != Some(code) {
            bail!(
                "{what} should have been refused with exit code {code}, and ended with {:?}:\n{}{}",
                self.code,
                self.output,
                self.errors
            );
        }
        let line = self.errors.lines().find_map(|line| line.strip_prefix("error: "));
        Ok(line.unwrap_or(self.errors.trim()).to_owned())
    }
}

/// A command as a user types it.
fn line(arguments: &[&str]) -> String {
    let quoted = arguments.iter().map(|argument| match argument.contains([' ', '\'']) {
        true => format!("'{}'", argument.replace('\'', "'\\''")),
        false => (*argument).to_owned(),
    });
    std::iter::once("chancery".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}

/// A duration for people.
pub(crate) fn shown(duration: Duration) -> String {
    match duration.as_millis() {
        0..1000 => format!("{} ms", duration.as_millis()),
        _ => format!("{:.2} s", duration.as_secs_f64()),
    }
}

/// A text on lines that fit, all but the first behind an indent.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH - indent.len() {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join(&format!("\n{indent}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_printed_as_it_can_be_typed() {
        assert_eq!(
            line(&["identity", "create", "web", "--purpose", "it's it"]),
            r"chancery identity create web --purpose 'it'\''s it'"
        );
    }

    #[test]
    fn long_texts_are_broken_between_words() {
        let text = "word ".repeat(40);
        let broken = wrapped(&text, "    ");
        assert!(broken.lines().count() > 1);
        assert!(broken.lines().all(|line| line.len() <= WIDTH && !line.ends_with(' ')), "{broken}");
    }

    #[test]
    fn a_refusal_needs_its_exit_code_and_is_told_without_label() {
        let said = |code| Said { code: Some(code), output: String::new(), errors: "error: no\n".into() };
        assert_eq!(said(3).refused(3, "it").unwrap(), "no");
        assert!(said(0).refused(3, "it").unwrap_err().to_string().contains("should have been refused"));
        assert!(said(1).succeeded("chancery x").unwrap_err().to_string().contains("error: no"));
    }
}
