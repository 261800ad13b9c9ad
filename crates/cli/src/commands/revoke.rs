//! `chancery revoke`, `hold` and `release`: taking trust away, and giving it back.

use anyhow::{Context as _, Result};
use chancery_api::{
    Base64Bytes, ChangeResponse, ChangeStatus, HoldRequest, KeyProof, PublicKeyDer, ReleaseRequest,
    RevokeRequest, Selector, Waves, key_compromise_message,
};
use chancery_client::Client;
use chancery_types::{Digest, HumanDuration, RevocationReason};
use chancery_x509::SubjectKey;
use clap::Args;
use data_encoding::BASE64URL_NOPAD;

use super::change::{ChangeCommand, radius_text};
use super::scope::{Selected, Which};
use super::watch::{Before, Waiting, watch};
use crate::ask;
use crate::connection::{Connection, OperatorIdentity, Reach};
use crate::failure::{refused, usage};
use crate::flags::Globals;
use crate::place::Place;
use crate::subject;
use crate::terminal::Terminal;

/// Revokes certificates for good.
///
/// Operators select by one or several properties, all of which a certificate then has to have. Whoever holds a
/// private key needs no role: with --key and the private key itself, possession is proved and everything with that
/// key is revoked as compromised.
///
/// An identity whose certificates are revoked may enrol again; --block holds the identity as well, until `chancery
/// identity release`. Above a share of an environment that the server is configured with, --yes-really asks for the
/// approval of a second operator.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Revoke {
    #[command(subcommand)]
    change: Option<ChangeCommand>,
    #[command(flatten)]
    which: Which,
    /// All with the key that made this proof: a text that --print-proof printed, good for two minutes.
    #[arg(long, value_name = "TOKEN", group = "selector", conflicts_with_all = PROPERTIES)]
    token_proof: Option<String>,
    /// Print the proof of possession of --key instead of revoking: for somebody else to hand in.
    #[arg(long, requires = "key_file", conflicts_with_all = &PROPERTIES[1..], conflicts_with = "token_proof")]
    print_proof: bool,
    /// Why: unspecified, key-compromise, superseded, cessation-of-operation, privilege-withdrawn, ...
    #[arg(long, value_name = "REASON", default_value_t)]
    reason: RevocationReason,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    safety: Safety,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    connection: KeylessConnection,
}

/// The flags that select by something else than a proof; the key comes first.
const PROPERTIES: [&str; 11] = [
    "key_file",
    "serial",
    "identity",
    "lineage",
    "node",
    "claim",
    "under",
    "owner",
    "team",
    "environment",
    "issuer",
];

/// Holds certificates: not valid until they are released.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Hold {
    #[command(subcommand)]
    change: Option<ChangeCommand>,
    #[command(flatten)]
    which: Which,
    /// Hold a growing part of them: percentages that rise to 100, such as 1%,10%,100%. The server goes on by itself.
    #[arg(long, value_name = "SHARES", value_delimiter = ',', value_parser = share)]
    waves: Vec<u8>,
    /// How long to wait after each wave, such as 30s or 5m.
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "waves")]
    pause: HumanDuration,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    safety: Safety,
    #[command(flatten)]
    waiting: Waiting,
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

#[derive(Debug, Args)]
struct How {
    /// A word of explanation, for the log.
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    /// Only show what would be hit.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask, however many there are.
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct Safety {
    /// Hold the identities too, first: they neither enrol nor renew until `chancery identity release`.
    #[arg(long)]
    block: bool,
    /// Meant, however much it is: where approval is needed, ask for it.
    #[arg(long)]
    yes_really: bool,
    /// Run without the approval that is needed. Only over the administration socket; recorded loudly.
    #[arg(long)]
    dangerous_without_approval: bool,
}

/// The connection of commands whose --key means something else.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct KeylessConnection {
    /// The operator's certificate, PEM.
    #[arg(long, env = "CHANCERY_CERT", value_name = "FILE", requires = "cert_key")]
    cert: Option<std::path::PathBuf>,
    /// The operator's key, PEM.
    #[arg(long, env = "CHANCERY_KEY", value_name = "FILE", requires = "cert")]
    cert_key: Option<std::path::PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

impl Revoke {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        if let Some(command) = &self.change {
            return command.run(globals, terminal).await;
        }
        let place = Place::find(globals.config.as_deref())?;
        let within = self.which.within(place.as_ref())?;
        let (client, selector, reason) = match self.meaning(place.as_ref())? {
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
            within: within.clone(),
            reason,
            block: self.safety.block,
            dry_run,
            yes_really: self.safety.yes_really,
            dangerous_without_approval: self.safety.dangerous_without_approval,
            note: self.how.note.clone(),
        };
        // A proof is good for one request, so nobody is asked in between.
        let proved = matches!(selector, Selector::KeyProof(_));
        if !proved && self.how.wants_to_ask(&selector) {
            confirm(terminal, "revoke for good", &client.revoke(&request(true)).await?)?;
        }
        let is_watched = self.waiting.wait && !proved && !self.how.dry_run;
        let before = if is_watched { Some(Before::look(&client).await?) } else { None };
        let changed = client.revoke(&request(self.how.dry_run)).await?;
        print(terminal, &changed, "revoked")?;
        if matches!(selector, Selector::Identity(_)) && !self.safety.block && !changed.dry_run {
            terminal.note(
                "the identity may enrol again with fresh evidence; --block holds it, \
                 `chancery identity retire` ends it",
            );
        }
        pending(&changed)?;
        match before {
            Some(before) => watch(&client, terminal, before, &changed, self.waiting.timeout.0).await,
            None => Ok(()),
        }
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
        if let Some(command) = &self.change {
            return command.run(globals, terminal).await;
        }
        let place = Place::find(globals.config.as_deref())?;
        let (selector, within) =
            (self.which.for_operators(place.as_ref())?, self.which.within(place.as_ref())?);
        let client = self.connection.operator(place.as_ref()).await?;
        let waves = (!self.waves.is_empty()).then(|| Waves { shares: self.waves.clone(), pause: self.pause });
        let request = |dry_run| HoldRequest {
            selector: selector.clone(),
            within: within.clone(),
            waves: waves.clone(),
            block: self.safety.block,
            dry_run,
            yes_really: self.safety.yes_really,
            dangerous_without_approval: self.safety.dangerous_without_approval,
            note: self.how.note.clone(),
        };
        if self.how.wants_to_ask(&selector) {
            confirm(terminal, "hold", &client.hold(&request(true)).await?)?;
        }
        let is_watched = self.waiting.wait && !self.how.dry_run;
        let before = if is_watched { Some(Before::look(&client).await?) } else { None };
        let changed = client.hold(&request(self.how.dry_run)).await?;
        print(terminal, &changed, "held")?;
        pending(&changed)?;
        match before {
            Some(before) => watch(&client, terminal, before, &changed, self.waiting.timeout.0).await,
            None => Ok(()),
        }
    }
}

impl Release {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let (selector, within) =
            (self.which.for_operators(place.as_ref())?, self.which.within(place.as_ref())?);
        let client = self.connection.operator(place.as_ref()).await?;
        let request = |dry_run| ReleaseRequest {
            selector: selector.clone(),
            within: within.clone(),
            dry_run,
            note: self.how.note.clone(),
        };
        if self.how.wants_to_ask(&selector) {
            confirm(terminal, "release", &client.release(&request(true)).await?)?;
        }
        print(terminal, &client.release(&request(self.how.dry_run)).await?, "released")
    }
}

impl How {
    fn wants_to_ask(&self, selector: &Selector) -> bool {
        !self.yes && !self.dry_run && !matches!(selector, Selector::Serial(_)) && ask::can_ask()
    }
}

impl KeylessConnection {
    pub(super) async fn operator(&self, place: Option<&Place>) -> Result<Client> {
        let operator = OperatorIdentity { cert: self.cert.clone(), key: self.cert_key.clone() };
        Connection { reach: self.reach.clone(), operator }.open_beside(place).await
    }
}

/// A percentage, with its sign or without.
fn share(text: &str) -> Result<u8, String> {
    let number = text.trim().trim_end_matches('%').parse::<u8>().ok();
    number
        .filter(|share| (1..=100).contains(share))
        .ok_or_else(|| format!("{text:?} is no percentage from 1 to 100"))
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

fn confirm(terminal: &Terminal, what: &str, counted: &ChangeResponse) -> Result<()> {
    if counted.count == 0 {
        return Ok(());
    }
    if let Some(radius) = &counted.radius {
        terminal.warn(radius_text(terminal, radius));
    }
    let certificates = if counted.count == 1 { "certificate" } else { "certificates" };
    agree(&format!("{} {certificates}: {what}?", counted.count))
}

/// Asks; no is a misuse that changes nothing.
pub(super) fn agree(question: &str) -> Result<()> {
    let agreed = ask::ask(&format!("{question} (yes or no)"), "no", |answer| {
        match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err("yes or no".to_owned()),
        }
    })?;
    if agreed { Ok(()) } else { Err(usage("nothing was changed")) }
}

/// What waits for approval has not happened, and no script should go on as if it had.
pub(super) fn pending(changed: &ChangeResponse) -> Result<()> {
    match &changed.change {
        Some(change) if change.status == ChangeStatus::Pending => Err(refused(format!(
            "nothing was changed yet: another operator has to run `chancery revoke approve {}` before {}",
            change.change, change.expires
        ))),
        _ => Ok(()),
    }
}

pub(super) fn print(terminal: &Terminal, changed: &ChangeResponse, verb: &str) -> Result<()> {
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
        if let Some(radius) = changed.radius.as_ref().filter(|_| changed.dry_run || changed.change.is_some())
        {
            text.push_str(&radius_text(terminal, radius));
        }
        if let Some(change) = &changed.change {
            text.push_str(&format!("change {}: {}\n", change.change, change.status));
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
    fn certificates_are_selected_by_one_property_or_several() {
        assert!(parse(&[]).is_err());
        let both = parse(&["--identity", "spiffe://e/x", "--lineage", &"0".repeat(32)]).unwrap();
        assert!(matches!(both.meaning(None).unwrap(), Selected::Role(Selector::Identity(_))));
        assert!(matches!(both.which.within(None).unwrap().as_slice(), [Selector::Lineage(_)]));
        let claim = parse(&["--selector", "unix:sha256:00", "--environment", "prod"]).unwrap();
        assert!(matches!(claim.meaning(None).unwrap(), Selected::Role(Selector::Claim(_))));
        assert!(matches!(claim.which.within(None).unwrap().as_slice(), [Selector::Environment(_)]));
        assert!(parse(&["--selector", "nonsense"]).is_err());
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
    fn waves_are_percentages() {
        for (text, expected) in
            [("1", Some(1)), ("10%", Some(10)), ("100 %", None), ("0", None), ("101", None)]
        {
            assert_eq!(share(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_step_of_a_change_needs_no_selector_and_takes_none() {
        assert!(parse(&["approve", "12"]).unwrap().change.is_some());
        assert!(parse(&["pending"]).unwrap().change.is_some());
        assert!(parse(&["--identity", "spiffe://e/x", "approve", "12"]).is_err());
    }

    #[test]
    fn a_reason_is_read_as_people_write_it() {
        let reason = |text| parse(&["--token-proof", "x", "--reason", text]).map(|revoke| revoke.reason);
        assert_eq!(reason("keyCompromise").unwrap(), RevocationReason::KeyCompromise);
        assert!(reason("whim").unwrap_err().to_string().contains("superseded"));
    }
}
