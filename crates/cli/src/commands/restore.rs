//! `chancery restore`: an authority from a backup, unless that would go back behind what was published.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chancery_verify::audit::ExportSource;
use clap::Args;
use serde_json::json;

use super::audit::open_source;
use super::database::DatabaseFlags;
use crate::authority_side::{self, Known, RestoreOrder};
use crate::connection::Connection;
use crate::files;
use crate::flags::Globals;
use crate::status_port::StatusPort;
use crate::terminal::{Terminal, Tone};

/// Makes an authority's directory from a backup, and puts its log into a database where --database names one: into a
/// fresh schema, or behind the beginning of the log that an older copy of the database has. It must not go back behind
/// what was published: whoever was revoked since would be good again. So it asks for the last checkpoint that anybody
/// has, takes what is missing from --log, and else refuses.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Restore {
    /// The backup; - is standard input.
    backup: PathBuf,
    /// The identity file that opens it, as `age-keygen` wrote it.
    #[arg(long, short, value_name = "FILE")]
    identity: PathBuf,
    /// Where the authority's directory is to be; nothing may be there.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// A checkpoint that was published: a file, http://..., or https://host:port of a server that still runs; repeatable.
    #[arg(long = "checkpoint", value_name = "FILE|URL")]
    checkpoints: Vec<String>,
    /// An exact set that was published (status/exact.set, or a relying party's): a file or http://...; repeatable.
    #[arg(long = "status-set", value_name = "FILE|URL")]
    sets: Vec<String>,
    /// Where entries come from that the backup does not have: an export, a mirror's directory, the log/ of a newer
    /// backup, or https://host:port.
    #[arg(long, value_name = "FILE|DIR|URL")]
    log: Option<String>,
    /// Restore although nobody says how far the log had come. Certificates that were revoked since the backup are good
    /// again, and nobody will know.
    #[arg(long)]
    dangerous_without_checkpoint: bool,
    #[command(flatten)]
    database: DatabaseFlags,
    #[command(flatten)]
    connection: Connection,
}

const EXAMPLES: &str = "\
Examples:
  chancery restore b.age -i backup.key --into chancery --checkpoint https://log-mirror.example.org/checkpoint
  chancery restore b.age -i backup.key --into chancery --checkpoint kept --log export.jsonl
  chancery restore b.age -i backup.key --into replica --checkpoint kept --database postgres://chancery@db/chancery";

impl Restore {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let mut more = match &self.log {
            Some(source) => {
                Some((source.clone(), open_source(source, &self.connection, globals, terminal).await?))
            }
            None => None,
        };
        let mut checkpoints = self.known(&self.checkpoints).await?;
        if let Some((name, source)) = &more {
            checkpoints
                .push(Known { name: name.clone(), bytes: source.header().checkpoint.clone().into_bytes() });
        }
        let bar = terminal.bar(0, "restoring");
        let mut next = || next_entry(more.as_mut().map(|(_, source)| source));
        let order = RestoreOrder {
            target: &self.into,
            identities: files::read_secret(&self.identity, files::MAX_PEM)?,
            checkpoints,
            sets: self.known(&self.sets).await?,
            dangerous_without_checkpoint: self.dangerous_without_checkpoint,
            database: self.database.chosen()?,
            more: self.log.clone().map(|name| (name, &mut next as _)),
        };
        let input = self.open()?;
        let restored = tokio::task::block_in_place(|| {
            authority_side::restore(order, input, &mut |done, of| {
                bar.set_length(of);
                bar.set_position(done);
            })
        });
        bar.finish_and_clear();
        let restored = restored?;
        terminal.data(&json!({ "directory": self.into, "restored": restored }), || {
            let verdict =
                format!("{} holds the authority of {}.", self.into.display(), restored.trust_domain);
            let published =
                restored.published.map_or_else(|| "not known".to_owned(), |size| size.to_string());
            format!("{}\n", terminal.paint(Tone::Good, verdict))
                + &terminal.fields([
                    ("made", restored.made.to_string()),
                    ("entries", restored.entries.to_string()),
                    ("of them added", restored.added.to_string()),
                    ("published", published),
                    ("root", restored.root.to_string()),
                    ("revocations", restored.revocations.to_string()),
                    ("not in it", restored.left_out.join("\n")),
                ])
        })?;
        if !terminal.is_json() {
            terminal.note(next_steps(&restored));
        }
        Ok(())
    }

    fn open(&self) -> Result<Box<dyn Read>> {
        if self.backup == Path::new("-") {
            return Ok(Box::new(io::stdin().lock()));
        }
        let file =
            File::open(&self.backup).with_context(|| format!("cannot open {}", self.backup.display()))?;
        Ok(Box::new(file))
    }

    /// Fetches what was published.
    async fn known(&self, sources: &[String]) -> Result<Vec<Known>> {
        let mut known = Vec::new();
        for source in sources {
            let bytes = if source.starts_with("https://") || source.starts_with("unix:") {
                let mut reach = self.connection.reach.clone();
                reach.server = Some(source.clone());
                reach.open(None, None).await?.log_checkpoint().await?.to_vec()
            } else if source.starts_with("http://") {
                StatusPort::fetch(source).await?.to_vec()
            } else {
                files::read(Path::new(source), MAX_KNOWN)?
            };
            known.push(Known { name: source.clone(), bytes });
        }
        Ok(known)
    }
}

/// The next entry of an export.
fn next_entry(
    source: Option<&mut Box<dyn ExportSource>>,
) -> Result<Option<(u64, Vec<u8>, Option<Vec<u8>>)>, String> {
    let Some(source) = source else { return Ok(None) };
    match source.next_entry().map_err(|error| error.to_string())? {
        Some(entry) => entry.into_leaf().map(Some),
        None => Ok(None),
    }
}

fn next_steps(restored: &authority_side::RestoredAuthority) -> String {
    let keys = match restored.keys {
        true => "",
        false => "put the keys and their passphrase back (chancery.toml, [keys]), ",
    };
    let settings = restored.settings.as_ref();
    let settings = settings.map_or_else(String::new, |settings| {
        format!("put this in the place of [storage] in the configuration:\n\n{settings}\n")
    });
    let index = match Path::new(&restored.ledger).is_dir() {
        true => "; the index is made anew at the first start",
        false => "",
    };
    format!(
        "Next: make sure that the old server never starts again, {keys}{settings}then `chancery --config {} serve`\
         {index}. Then audit: `chancery audit verify URL --checkpoint FILE`.",
        restored.config.display()
    )
}

/// The largest exact set.
const MAX_KNOWN: u64 = 256 << 20;
