//! `chancery revoke`, `hold` and `release`: taking trust away, and giving it back.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use chancery_api::{
    Base64Bytes, ChangeResponse, HoldRequest, KeyProof, PublicKeyDer, ReleaseRequest, RevokeRequest,
    Selector, key_compromise_message,
};
use chancery_client::Client;
use chancery_types::{Digest, LineageId, RevocationReason, SerialNumber};
use chancery_x509::SubjectKey;
use clap::Args;
use data_encoding::BASE64URL_NOPAD;

use crate::ask;
use crate::connection::{Connection, OperatorIdentity, Reach};
use crate::failure::usage;
use crate::flags::Globals;
use crate::place::{self, Place};
use crate::subject::{self, NamedKey};
use crate::terminal::Terminal;

/// Revokes certificates for good.
///
/// Operators select by serial, identity, lineage or key. Whoever holds a private key needs no role: with --key
/// and the private key itself, possession is proved and everything with that key is revoked as compromised.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    which: Which,
    /// All with the key that made this proof: a text that --print-proof printed, good for two minutes.
    #[arg(long, value_name = "TOKEN", group = "selector")]
    token_proof: Option<String>,
    /// Print the proof of possession of --key instead of revoking: for somebody else to hand in.
    #[arg(long, conflicts_with_all = ["serial", "identity", "lineage", "token_proof"])]
    print_proof: bool,
    /// Why: unspecified, key-compromise, superseded, cessation-of-operation, privilege-withdrawn, ...
    #[arg(long, value_name = "REASON", default_value_t)]
    reason: RevocationReason,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    connection: KeylessConnection,
}

/// Holds certificates: not valid until they are released.
#[derive(Debug, Args)]
pub(crate) struct Hold {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    connection: KeylessConnection,
}

/// Releases certificates from hold.
#[derive(Debug, Args)]
pub(crate) struct Release {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    connection: KeylessConnection,
}

/// Which certificates: by exactly one property.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which certificates")]
#[group(id = "selector", required = true, multiple = false)]
struct Which {
    /// The one with this serial number.
    #[arg(long)]
    serial: Option<SerialNumber>,
    /// All of this identity.
    #[arg(long, value_name = "ID")]
    identity: Option<String>,
    /// All of this lineage.
    #[arg(long, value_name = "ID")]
    lineage: Option<LineageId>,
    /// All with the key in this file: a certificate, a public key, a certificate request or a private key.
    #[arg(id = "key_file", long = "key", value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct How {
    /// A word of explanation, for the log.
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    /// Only count.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask, however many there are.
    #[arg(short, long)]
    yes: bool,
}

/// The connection of commands whose --key means something else.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
struct KeylessConnection {
    /// The operator's certificate, PEM.
    #[arg(long, env = "CHANCERY_CERT", value_name = "FILE", requires = "cert_key")]
    cert: Option<PathBuf>,
    /// The operator's key, PEM.
    #[arg(long, env = "CHANCERY_KEY", value_name = "FILE", requires = "cert")]
    cert_key: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

/// What is selected, and whether somebody without a role may ask for it.
#[derive(Debug)]
enum Selected {
    /// By an operator.
    Role(Selector),
    /// By a proof that is yet to be made.
    Possession(Box<SubjectKey>),
    /// By a proof that was made elsewhere.
    Proof(KeyProof),
}

impl Revoke {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let selected = self.meaning(place.as_ref())?;
        let (client, selector, reason) = match selected {
            Selected::Role(selector) => {
                (self.connection.operator(place.as_ref()).await?, selector, self.reason)
            }
            Selected::Possession(key) => {
                let client = self.connection.reach.open(place.as_ref(), None).await?;
                let proof = prove(&client, &key).await?;
                if self.print_proof {
                    return terminal.text(&BASE64URL_NOPAD.encode(&serde_json::to_vec(&proof)?));
                }
                (client, Selector::KeyProof(proof), RevocationReason::KeyCompromise)
            }
            Selected::Proof(proof) => {
                let client = self.connection.reach.open(place.as_ref(), None).await?;
                (client, Selector::KeyProof(proof), RevocationReason::KeyCompromise)
            }
        };
        let request = |dry_run| RevokeRequest {
            selector: selector.clone(),
            reason,
            dry_run,
            note: self.how.note.clone(),
        };
        // A proof is good for one request, so nobody is asked in between.
        let proved = matches!(selector, Selector::KeyProof(_));
        if !proved && self.how.wants_to_ask(&selector) {
            let counted = client.revoke(&request(true)).await?;
            confirm("revoke for good", counted.count)?;
        }
        let changed = client.revoke(&request(self.how.dry_run)).await?;
        print(terminal, &changed, "revoked")
    }

    fn meaning(&self, place: Option<&Place>) -> Result<Selected> {
        if let Some(text) = &self.token_proof {
            return read_proof(text).map(Selected::Proof);
        }
        match (self.which.meaning(place)?, self.print_proof) {
            (Selected::Role(_), true) => Err(usage("only a private key makes a proof; give one with --key")),
            (selected, _) => Ok(selected),
        }
    }
}

impl Hold {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let selector = self.which.for_operators(place.as_ref())?;
        let client = self.connection.operator(place.as_ref()).await?;
        let request =
            |dry_run| HoldRequest { selector: selector.clone(), dry_run, note: self.how.note.clone() };
        if self.how.wants_to_ask(&selector) {
            confirm("hold", client.hold(&request(true)).await?.count)?;
        }
        print(terminal, &client.hold(&request(self.how.dry_run)).await?, "held")
    }
}

impl Release {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let selector = self.which.for_operators(place.as_ref())?;
        let client = self.connection.operator(place.as_ref()).await?;
        let request =
            |dry_run| ReleaseRequest { selector: selector.clone(), dry_run, note: self.how.note.clone() };
        if self.how.wants_to_ask(&selector) {
            confirm("release", client.release(&request(true)).await?.count)?;
        }
        print(terminal, &client.release(&request(self.how.dry_run)).await?, "released")
    }
}

impl Which {
    fn meaning(&self, place: Option<&Place>) -> Result<Selected> {
        if let Some(serial) = self.serial {
            return Ok(Selected::Role(Selector::Serial(serial)));
        }
        if let Some(text) = &self.identity {
            return Ok(Selected::Role(Selector::Identity(place::identity(text, place)?)));
        }
        if let Some(lineage) = self.lineage {
            return Ok(Selected::Role(Selector::Lineage(lineage)));
        }
        let Some(path) = &self.key else {
            return Err(usage("say which certificates: --serial, --identity, --lineage or --key"));
        };
        match subject::named_key(path)? {
            NamedKey::Public(source) => Ok(Selected::Role(Selector::Key(source))),
            NamedKey::Private(key) => Ok(Selected::Possession(key)),
        }
    }

    fn for_operators(&self, place: Option<&Place>) -> Result<Selector> {
        match self.meaning(place)? {
            Selected::Role(selector) => Ok(selector),
            Selected::Possession(key) => {
                let key = PublicKeyDer::from_der(key.public_key().spki_der().to_vec());
                Ok(Selector::Key(chancery_api::KeySource::PublicKey(key)))
            }
            Selected::Proof(proof) => Ok(Selector::KeyProof(proof)),
        }
    }
}

impl How {
    fn wants_to_ask(&self, selector: &Selector) -> bool {
        !self.yes && !self.dry_run && !matches!(selector, Selector::Serial(_)) && ask::can_ask()
    }
}

impl KeylessConnection {
    async fn operator(&self, place: Option<&Place>) -> Result<Client> {
        let operator = OperatorIdentity { cert: self.cert.clone(), key: self.cert_key.clone() };
        Connection { reach: self.reach.clone(), operator }.open_beside(place).await
    }
}

/// Signs a fresh nonce with the key that is to be ended.
async fn prove(client: &Client, key: &SubjectKey) -> Result<KeyProof> {
    let nonce = client.nonce().await?.nonce;
    let spki = key.public_key().spki_der();
    let trust_domain = subject::trust_domain(client).await?;
    let message = key_compromise_message(&nonce.0, &trust_domain, &Digest::of(spki));
    let signature = Base64Bytes(key.sign(&message)?);
    Ok(KeyProof { public_key: PublicKeyDer::from_der(spki.to_vec()), nonce, signature })
}

fn read_proof(text: &str) -> Result<KeyProof> {
    let json = BASE64URL_NOPAD
        .decode(text.trim().as_bytes())
        .context("not a proof; `chancery revoke --key PRIVATE-KEY --print-proof` prints one")?;
    serde_json::from_slice(&json)
        .context("not a proof; `chancery revoke --key PRIVATE-KEY --print-proof` prints one")
}

fn confirm(what: &str, count: u64) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let certificates = if count == 1 { "certificate" } else { "certificates" };
    let agreed =
        ask::ask(&format!("{count} {certificates}: {what}? (yes or no)"), "no", |answer| {
            match answer.to_ascii_lowercase().as_str() {
                "y" | "yes" => Ok(true),
                "n" | "no" => Ok(false),
                _ => Err("yes or no".to_owned()),
            }
        })?;
    if agreed { Ok(()) } else { Err(usage("nothing was changed")) }
}

fn print(terminal: &Terminal, changed: &ChangeResponse, verb: &str) -> Result<()> {
    terminal.data(changed, || {
        let would = if changed.dry_run { "would be " } else { "" };
        let plural = if changed.count == 1 { "" } else { "s" };
        let mut text = format!("{} certificate{plural} {would}{verb}\n", changed.count);
        for serial in &changed.serials {
            text.push_str(&format!("  {serial}\n"));
        }
        let unlisted = changed.count.saturating_sub(changed.serials.len() as u64);
        if unlisted > 0 {
            text.push_str(&format!("  and {unlisted} more\n"));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use chancery_types::KeyAlgorithm;
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Cli, Command};

    fn parse(arguments: &[&str]) -> Result<Revoke, clap::Error> {
        let line = ["chancery", "revoke"].iter().chain(arguments);
        Cli::try_parse_from(line).map(|cli| match cli.command {
            Command::Revoke(revoke) => revoke,
            _ => panic!("not a revocation"),
        })
    }

    #[test]
    fn certificates_are_selected_by_exactly_one_property() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--identity", "spiffe://e/x", "--lineage", &"0".repeat(32)]).is_err());
        assert!(parse(&["--identity", "spiffe://e/x", "--token-proof", "x"]).is_err());
        assert!(parse(&["--token-proof", "x"]).is_ok());
        assert!(parse(&["--identity", "spiffe://e/x", "--print-proof"]).is_err());
    }

    #[test]
    fn a_public_key_needs_an_operator_and_a_private_key_needs_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
        let selected = |text: &str| {
            std::fs::write(&path, text).unwrap();
            parse(&["--key", path.to_str().unwrap()]).unwrap().meaning(None).unwrap()
        };
        let public = chancery_x509::write_pem("PUBLIC KEY", key.public_key().spki_der());
        assert!(matches!(selected(&public), Selected::Role(Selector::Key(_))));
        assert!(matches!(selected(&key.to_pkcs8_pem()), Selected::Possession(_)));
        std::fs::write(&path, public).unwrap();
        let printing = parse(&["--key", path.to_str().unwrap(), "--print-proof"]).unwrap();
        assert!(printing.meaning(None).unwrap_err().to_string().contains("private key"));
    }

    #[test]
    fn a_proof_survives_being_handed_on_and_other_texts_are_refused() {
        let proof = KeyProof {
            public_key: PublicKeyDer::from_der(vec![1]),
            nonce: Base64Bytes(vec![2]),
            signature: Base64Bytes(vec![3]),
        };
        let text = BASE64URL_NOPAD.encode(&serde_json::to_vec(&proof).unwrap());
        assert_eq!(read_proof(&format!("{text}\n")).unwrap(), proof);
        assert!(read_proof("nonsense").unwrap_err().to_string().contains("--print-proof"));
    }

    #[test]
    fn a_reason_is_read_as_people_write_it() {
        let reason = |text| parse(&["--token-proof", "x", "--reason", text]).map(|revoke| revoke.reason);
        assert_eq!(reason("keyCompromise").unwrap(), RevocationReason::KeyCompromise);
        assert!(reason("whim").unwrap_err().to_string().contains("superseded"));
    }
}
