//! Where a command's answer goes: data to standard output, for a person or as JSON; remarks to standard error.

use std::io::{self, IsTerminal as _, Write};

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::flags::Globals;

/// How to speak to whoever called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    json: bool,
    quiet: bool,
    colours: bool,
    colours_errors: bool,
    progress: bool,
    width: Option<u16>,
}

/// A colour with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// In order.
    Good,
    /// Worth a look.
    Warning,
    /// Not in order.
    Bad,
    /// A name that the eye should find.
    Strong,
}

impl Terminal {
    pub(crate) fn new(globals: &Globals) -> Self {
        // https://no-color.org
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            json: globals.json,
            quiet: globals.quiet,
            colours: allowed && out && !globals.json,
            colours_errors: allowed && err,
            progress: err && !globals.quiet,
            width: out.then(terminal_width).flatten(),
        }
    }

    /// Whether standard error takes colours.
    pub(crate) fn colours_errors(&self) -> bool {
        self.colours_errors
    }

    /// Whether data is wanted as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints data: as JSON when that was asked for, else as `human` writes it.
    pub(crate) fn data<T: Serialize>(&self, data: &T, human: impl FnOnce() -> String) -> Result<()> {
        if self.json { self.json(data) } else { self.text(&human()) }
    }

    /// Prints data as JSON.
    pub(crate) fn json<T: Serialize>(&self, data: &T) -> Result<()> {
        self.text(&serde_json::to_string_pretty(data)?)
    }

    /// Prints a text that ends with a newline.
    pub(crate) fn text(&self, text: &str) -> Result<()> {
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            output.write_all(b"\n")?;
        }
        output.flush()?;
        Ok(())
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut output = io::stdout().lock();
        output.write_all(bytes)?;
        output.flush()?;
        Ok(())
    }

    /// Says something about what is done; not under `--quiet`.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Says something that must be read.
    pub(crate) fn warn(&self, text: impl std::fmt::Display) {
        // A closed standard error is no reason to leave work half done.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// A text in a colour, where colours are seen.
    pub(crate) fn paint(&self, tone: Tone, text: impl std::fmt::Display) -> String {
        if !self.colours {
            return text.to_string();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A table that fits the terminal; piped, every row is one line.
    pub(crate) fn table(&self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
        table(self.width, header, rows)
    }

    /// Names and values under each other, empty values left out.
    pub(crate) fn fields<'a>(&self, fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
        let fields: Vec<_> = fields.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let indent = " ".repeat(width + 2);
        fields
            .iter()
            .map(|(name, value)| {
                let value = value.trim_end().replace('\n', &format!("\n{indent}"));
                format!(
                    "{}{}  {value}\n",
                    self.paint(Tone::Strong, name),
                    " ".repeat(width - name.chars().count())
                )
            })
            .collect()
    }

    /// A bar for work whose length is known; unseen when nobody watches.
    pub(crate) fn bar(&self, total: u64, what: &'static str) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(total), self.draw_target());
        let style = ProgressStyle::with_template(
            "{msg} [{bar:30}] {human_pos}/{human_len} {percent}% {per_sec} eta {eta}",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_message(what);
        bar
    }

    fn draw_target(&self) -> ProgressDrawTarget {
        if self.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
    }
}

fn terminal_width() -> Option<u16> {
    rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col).filter(|columns| *columns > 0)
}

fn table(width: Option<u16>, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(|name| name.to_uppercase()));
    match width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Terminal {
        Terminal {
            json: false,
            quiet: true,
            colours: false,
            colours_errors: false,
            progress: false,
            width: None,
        }
    }

    #[test]
    fn a_table_fits_the_terminal_and_is_one_line_a_row_when_piped() {
        let long = "spiffe://example.org/a/very/long/path/that/does/not/fit/at/all".to_owned();
        let rows = || vec![vec!["0100".to_owned(), long.clone()]];
        let narrow = table(Some(40), &["serial", "identity"], rows());
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        let piped = table(None, &["serial", "identity"], rows());
        assert_eq!(piped.lines().count(), 2, "{piped}");
        assert!(piped.starts_with("SERIAL"));
        assert!(piped.contains(&long));
    }

    #[test]
    fn fields_line_up_and_empty_ones_are_left_out() {
        let text = plain().fields([("a", "1".to_owned()), ("bcd", "2\n3".to_owned()), ("e", String::new())]);
        assert_eq!(text, "a    1\nbcd  2\n     3\n");
    }

    #[test]
    fn colours_only_where_they_are_seen() {
        assert_eq!(plain().paint(Tone::Bad, "x"), "x");
        let seen = Terminal { colours: true, ..plain() };
        assert_eq!(seen.paint(Tone::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
    }
}
