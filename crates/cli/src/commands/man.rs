//! `chancery man`: the manual, one page for each command.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Command, CommandFactory as _};

use crate::files;
use crate::flags::Cli;
use crate::terminal::Terminal;

/// Writes manual pages: `chancery.1` and one for each command.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The directory to write to; it is made if need be.
    directory: PathBuf,
}

impl Man {
    pub(crate) fn run(&self, terminal: &Terminal) -> Result<()> {
        std::fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot make {}", self.directory.display()))?;
        let mut command = Cli::command();
        command.build();
        let count = write(&command, "chancery", &self.directory)?;
        terminal.note(format_args!("{count} pages in {}", self.directory.display()));
        Ok(())
    }
}

fn write(command: &Command, name: &str, directory: &Path) -> Result<usize> {
    let mut page = Vec::new();
    let title: &'static str = Box::leak(name.to_owned().into_boxed_str());
    clap_mangen::Man::new(command.clone().name(title)).render(&mut page)?;
    files::replace(&directory.join(format!("{name}.1")), &page, files::PUBLIC)?;
    let mut count = 1;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        count += write(sub, &format!("{name}-{}", sub.get_name()), directory)?;
    }
    Ok(count)
}
