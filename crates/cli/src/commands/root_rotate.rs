//! `chancery root rotate`: a root that follows another.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use chancery_types::KeyAlgorithm;
use clap::Args;
use serde_json::json;

use crate::commands::init::{Passphrase, new_passphrase};
use crate::commands::root::existing_passphrase;
use crate::flags::Globals;
use crate::place::Place;
use crate::terminal::Terminal;
use crate::{ask, authority_side, files};

/// Makes a root in a directory of its own, for which the one before vouches, and issuers in reserve below it.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// The directory of the root that is trusted now.
    #[arg(long, value_name = "DIR")]
    root_dir: PathBuf,
    /// A file whose first line is the passphrase of its key.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The directory to make the new root in.
    #[arg(long, value_name = "DIR")]
    new_root_dir: PathBuf,
    /// A file whose first line is the passphrase for the new root's key.
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// The kind of key.
    #[arg(long, value_name = "TYPE", default_value_t)]
    key_type: KeyAlgorithm,
    /// Issuers in reserve that the new root signs at once, where the authority's configuration is at hand.
    #[arg(long, value_name = "COUNT", default_value_t = 6, value_parser = clap::value_parser!(u16).range(0..=60))]
    spares: u16,
    /// Where the certificates go that `chancery ca root add` takes: the root's, and the one by which the old root vouches
    /// for it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Rotate {
    pub(crate) fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let old = existing_passphrase(self.passphrase_file.as_deref(), &self.root_dir)?;
        let new = new_passphrase(self.new_passphrase_file.as_deref(), ask::can_ask())?;
        let made = authority_side::rotate_root(
            (&self.root_dir, &old),
            (&self.new_root_dir, new.secret()),
            self.key_type,
        )?;
        files::replace(&self.out, made.pem.as_bytes(), files::PUBLIC)?;
        let spares = match place.filter(|_| self.spares > 0) {
            Some(place) => authority_side::add_spares(
                &place.file,
                &self.new_root_dir,
                new.secret(),
                self.spares,
            )
            .context(
                "the root is made, and issuers in reserve below it are not; run `chancery ca spare add`",
            )?
            .len(),
            None => 0,
        };
        let data = json!({
            "fingerprint": made.fingerprint, "not_after": made.not_after, "vouched_until": made.vouched_until,
            "certificates": self.out, "issuers": spares,
        });
        terminal.data(&data, || {
            terminal.fields([
                ("root", made.subject.clone()),
                ("fingerprint", made.fingerprint.to_string()),
                ("valid until", made.not_after.to_string()),
                ("vouched for until", made.vouched_until.to_string()),
                ("issuers in reserve", spares.to_string()),
                ("certificates", self.out.display().to_string()),
            ])
        })?;
        if !terminal.is_json() {
            let mut next = format!("\nNext:\n  chancery ca root add {}", self.out.display());
            if spares == 0 {
                next.push_str(&format!(
                    "\nand, where the authority's configuration is:\n  chancery ca spare add --root-dir {}",
                    self.new_root_dir.display()
                ));
            }
            next.push_str(
                "\nThen carry the directory of the new root away. Keep the old one until it is withdrawn.",
            );
            terminal.note(format_args!("{next}"));
        }
        if let Passphrase::Generated(secret) = &new {
            terminal.warn(format_args!(
                "\nPassphrase of the new root's key, shown this once: {}",
                secret.expose_secret()
            ));
        }
        Ok(())
    }
}
