//! `chancery backup`: the log and what belongs to it, encrypted, while the server runs.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;
use chancery_types::{Clock as _, SystemClock, Timestamp};
use clap::Args;
use serde_json::json;

use crate::authority_side::{self, BackupOrder};
use crate::connection::Reach;
use crate::failure::usage;
use crate::files::{self, Staged};
use crate::flags::Globals;
use crate::place::{self, Place};
use crate::terminal::{Terminal, Tone};

/// Backs the authority up while it runs: the whole log, configuration, rules and certificates, encrypted in the age
/// format to somebody who is not here. Run it on the server's host as the server's user.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Backup {
    /// Who can open it: a recipient as `age-keygen` prints it; repeatable.
    #[arg(long = "to", value_name = "age1...")]
    recipients: Vec<String>,
    /// A file with one recipient a line; lines that begin with # are left out.
    #[arg(long, value_name = "FILE")]
    recipients_file: Option<PathBuf>,
    /// Where it goes: a file, or a directory that gets chancery-TIME.age; - is standard output.
    #[arg(long, value_name = "PATH", default_value = ".")]
    out: PathBuf,
    /// Put the keys that lie in files into it too: whoever opens it can then issue in the authority's name.
    #[arg(long)]
    with_keys: bool,
}

const EXAMPLES: &str = "\
Examples:
  age-keygen -o backup.key                    keep this elsewhere; it prints the recipient
  chancery backup --to age1... --out /backup
  age -d -i backup.key chancery-....age | tar tv";

impl Backup {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let config = place::required(globals.config.as_deref())?;
        let to_stdout = self.out == Path::new("-");
        if to_stdout && terminal.is_json() {
            return Err(usage("--json and a backup to standard output would mix; name a file with --out"));
        }
        let now = SystemClock.now();
        let order = BackupOrder {
            config: &config,
            recipients: self.recipients()?,
            with_keys: self.with_keys,
            checkpoint: checkpoint(globals, terminal).await?,
            now,
        };
        let bar = terminal.bar(0, "backing up");
        let mut progress = |done, of| {
            bar.set_length(of);
            bar.set_position(done);
        };
        let target = self.target(now);
        let made = tokio::task::block_in_place(|| {
            if to_stdout {
                return authority_side::backup(&order, &mut io::stdout().lock(), &mut progress);
            }
            let mut staged = Staged::begin(&target, files::SECRET)?;
            let made = authority_side::backup(&order, staged.file(), &mut progress)?;
            staged.put_in_place()?;
            Ok(made)
        });
        bar.finish_and_clear();
        let made = made?;
        if to_stdout {
            return Ok(());
        }
        let bytes = std::fs::metadata(&target).map(|found| found.len()).unwrap_or_default();
        let data = json!({ "file": target, "bytes": bytes, "backup": made });
        terminal.data(&data, || {
            let verdict = format!("{} entries, {bytes} bytes in {}", made.entries, target.display());
            let left_out = made.left_out.join("\n");
            format!("{}\n", terminal.paint(Tone::Good, verdict))
                + &terminal.fields([
                    ("root", made.root.to_string()),
                    ("certificates", made.issued.to_string()),
                    ("revocations", made.revocations.to_string()),
                    ("not in it", left_out),
                ])
        })
    }

    fn recipients(&self) -> Result<Vec<String>> {
        let mut recipients = self.recipients.clone();
        if let Some(file) = &self.recipients_file {
            let text = files::read_text(file, files::MAX_PEM)?;
            let lines = text.lines().map(str::trim);
            recipients
                .extend(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Into::into));
        }
        if recipients.is_empty() {
            return Err(usage(
                "nobody could open it: say --to RECIPIENT; `age-keygen -o FILE` makes a key and prints its recipient",
            ));
        }
        Ok(recipients)
    }

    fn target(&self, now: Timestamp) -> PathBuf {
        if !self.out.is_dir() {
            return self.out.clone();
        }
        let moment = now.whole_second().to_string().replace([':', '-'], "");
        self.out.join(format!("chancery-{moment}.age"))
    }
}

/// The checkpoint of the server that runs here; nothing when none runs.
async fn checkpoint(globals: &Globals, terminal: &Terminal) -> Result<Option<String>> {
    let Some(place) = Place::find(globals.config.as_deref())? else { return Ok(None) };
    if !place.admin_socket.exists() {
        return Ok(None);
    }
    let reach = Reach { admin_socket: Some(place.admin_socket.clone()), ..Reach::default() };
    match reach.open(None, None).await?.log_checkpoint().await {
        Ok(note) => Ok(Some(String::from_utf8_lossy(&note).into_owned())),
        Err(error) => {
            terminal.note(format_args!("the server does not answer on its admin socket: {error}"));
            Ok(None)
        }
    }
}
