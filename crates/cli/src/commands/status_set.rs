//! `chancery status set`: the exact set of certificates that are not good, fetched, verified, shown.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use chancery_merkle::{LogKeys, NoteError};
use chancery_status::{ExactSet, OpenError, SignedSet, Standing, map_file, replace_file};
use chancery_types::{Clock as _, SerialNumber, SystemClock, TrustDomain};
use chancery_verify::log_keys::follow_log_keys;
use clap::Args;
use serde_json::{Value, json};

use crate::commands::verify::log_key;
use crate::connection::Reach;
use crate::failure::{usage, verification};
use crate::flags::Globals;
use crate::place::Place;
use crate::terminal::{Terminal, Tone};

/// Fetches the exact set of certificates that are not good, verifies it, and shows it. Anybody may.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Says how this certificate stands by the set; may be given several times.
    #[arg(long, value_name = "SERIAL")]
    check: Vec<SerialNumber>,
    /// Writes the set with its signature to this file, once it is verified.
    #[arg(long, value_name = "FILE", alias = "out")]
    output: Option<PathBuf>,
    /// The key that must have signed it, as `chancery log key` prints it, or a file with keys; a fetched set may be signed
    /// by one that these lead to. By default the server is asked.
    #[arg(long, value_name = "VKEY")]
    log_key: Option<String>,
    /// Reads the set from this file instead of fetching it.
    #[arg(long, value_name = "FILE", requires = "log_key")]
    from: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

impl Set {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let signed = self.obtain(globals).await?;
        if let Some(path) = &self.output {
            let written = replace_file(path, &signed.to_bytes());
            written.with_context(|| format!("cannot write {}", path.display()))?;
        }
        let set = signed.set();
        terminal.data(&self.view(set), || self.show(set, terminal))
    }

    async fn obtain(&self, globals: &Globals) -> Result<SignedSet> {
        let known = self.log_key.as_deref().map(log_key).transpose()?;
        if let (Some(path), Some(keys)) = (&self.from, &known) {
            let bytes = map_file(path).with_context(|| format!("cannot read {}", path.display()))?;
            return SignedSet::open(bytes, &trust_domain(keys)?, keys.as_slice()).map_err(verification);
        }
        let place = Place::find(globals.config.as_deref())?;
        let client = self.reach.open(place.as_ref(), None).await?;
        let keys = match known {
            Some(keys) => keys,
            None => log_key(&String::from_utf8_lossy(&client.log_key().await?))?,
        };
        let (bytes, domain) = (client.status_set().await?, trust_domain(&keys)?);
        match SignedSet::open(bytes.clone(), &domain, keys.as_slice()) {
            Err(OpenError::Note(NoteError::Unsigned { .. })) => {
                let keys = follow_log_keys(&keys, &client.log_keys().await?).map_err(verification)?;
                SignedSet::open(bytes, &domain, keys.as_slice()).map_err(verification)
            }
            opened => opened.map_err(verification),
        }
    }

    fn view(&self, set: &ExactSet) -> Value {
        let issuers: Vec<Value> = set
            .issuers()
            .map(|epoch| {
                json!({ "issuer": epoch, "not_good": set.counters(epoch).map_or(0, |list| list.len()) })
            })
            .collect();
        let checked: Vec<Value> = self
            .check
            .iter()
            .map(|serial| json!({ "serial": serial, "standing": word(set.standing(*serial)) }))
            .collect();
        json!({
            "sequence": set.sequence(),
            "made": set.made(),
            "hash": set.hash(),
            "bytes": set.bytes().len(),
            "not_good": set.len(),
            "issuers": issuers,
            "checked": checked,
        })
    }

    fn show(&self, set: &ExactSet, terminal: &Terminal) -> String {
        let age = SystemClock.now().since(set.made());
        let mut text = terminal.fields([
            ("not good", set.len().to_string()),
            ("issuers", set.issuers().map(|epoch| epoch.to_string()).collect::<Vec<_>>().join(", ")),
            ("sequence", set.sequence().to_string()),
            ("made", format!("{} ({} s ago)", set.made(), age.as_secs())),
            ("bytes", set.bytes().len().to_string()),
            ("SHA-256", set.hash().to_string()),
        ]);
        for serial in &self.check {
            let standing = set.standing(*serial);
            let tone = match standing {
                Standing::Good => Tone::Good,
                Standing::NotGood => Tone::Bad,
                Standing::UnknownIssuer => Tone::Warning,
            };
            text.push_str(&format!("\n{serial} {}", terminal.paint(tone, word(standing))));
        }
        text
    }
}

/// The log of a trust domain is named after it, and so is its key.
fn trust_domain(keys: &LogKeys) -> Result<TrustDomain> {
    let name = keys.name().strip_suffix("/chancery-log").and_then(|name| TrustDomain::parse(name).ok());
    name.ok_or_else(|| usage(format!("{:?} is not the key of a log of ours", keys.name())))
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Good => "good",
        Standing::NotGood => "not-good",
        Standing::UnknownIssuer => "unknown-issuer",
    }
}
