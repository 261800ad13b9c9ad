//! `chancery root`: the root, wherever it is kept.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chancery_types::{HumanDuration, KeyAlgorithm, RevocationReason, SecretString, TrustDomain};
use chancery_x509::{Certificate, Profile, write_pem};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::commands::init::{Passphrase, new_passphrase};
use crate::commands::root_rotate::Rotate;
use crate::credential::first_certificate;
use crate::failure::usage;
use crate::files::{self, MAX_PEM};
use crate::flags::Globals;
use crate::terminal::Terminal;
use crate::{ask, authority_side};

/// Keeps the root: for a machine of its own, or a stick in a safe.
#[derive(Debug, Subcommand)]
pub(crate) enum Root {
    /// Make a root in a directory of its own.
    Create(Create),
    /// Make a root that follows another.
    Rotate(Rotate),
    /// Sign an issuer's request.
    Sign(Sign),
    /// Sign the root's revocation list, for programs that want one from every authority of a chain.
    Crl(Crl),
    /// Show the root's certificate and fingerprint.
    Show(Show),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The directory to make it in.
    #[arg(long, value_name = "DIR")]
    root_dir: PathBuf,
    /// The trust domain, such as example.org.
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: TrustDomain,
    /// The kind of key.
    #[arg(long, value_name = "TYPE", default_value_t)]
    key_type: KeyAlgorithm,
    /// A file whose first line is the passphrase for the root's key.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The request that `chancery init --issuer-csr` wrote.
    #[arg(value_name = "CSR")]
    request: PathBuf,
    /// The root's directory.
    #[arg(long, value_name = "DIR")]
    root_dir: PathBuf,
    /// A file whose first line is the passphrase of the root's key.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The issuer profile, TOML; the reference one if absent.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// A lifetime shorter than the profile's, such as 30d.
    #[arg(long, value_name = "DURATION")]
    lifetime: Option<HumanDuration>,
    /// Where the certificate goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Crl {
    /// The root's directory; the list before is kept there as root.crl, and what stood on it stays.
    #[arg(long, value_name = "DIR")]
    root_dir: PathBuf,
    /// A file whose first line is the passphrase of the root's key.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The certificate of an issuer that is no longer to be believed; repeatable.
    #[arg(long, value_name = "FILE")]
    revoke: Vec<PathBuf>,
    /// Why.
    #[arg(long, value_name = "REASON", default_value = "ca-compromise")]
    reason: RevocationReason,
    /// How long the list is good for: make a new one before.
    #[arg(long, value_name = "DURATION", default_value = "180d")]
    validity: HumanDuration,
    /// Where a copy goes, PEM.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The root's directory, or its certificate.
    #[arg(long, value_name = "PATH")]
    root_dir: PathBuf,
}

impl Root {
    pub(crate) fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        match self {
            Self::Rotate(rotate) => rotate.run(globals, terminal),
            Self::Create(create) => create.run(terminal),
            Self::Sign(sign) => sign.run(terminal),
            Self::Crl(crl) => crl.run(terminal),
            Self::Show(show) => show_root(terminal, &certificate(&show.root_dir)?),
        }
    }
}

impl Create {
    fn run(&self, terminal: &Terminal) -> Result<()> {
        let passphrase = new_passphrase(self.passphrase_file.as_deref(), ask::can_ask())?;
        authority_side::make_root(&self.root_dir, &self.trust_domain, self.key_type, passphrase.secret())?;
        show_root(terminal, &certificate(&self.root_dir)?)?;
        if let Passphrase::Generated(secret) = &passphrase {
            terminal.warn(format_args!(
                "\nPassphrase of the root's key, shown this once: {}",
                secret.expose_secret()
            ));
        }
        Ok(())
    }
}

impl Sign {
    fn run(&self, terminal: &Terminal) -> Result<()> {
        let request = files::read(&self.request, MAX_PEM)?;
        let root = certificate(&self.root_dir)?;
        let trust_domain = root
            .tbs()
            .spiffe_id()
            .context("the root certificate names no trust domain, so it is not one of Chancery's")?
            .trust_domain();
        let text = match &self.profile {
            Some(path) => files::read_text(path, MAX_PEM)?,
            None => ISSUER_PROFILE.to_owned(),
        };
        let profile = Profile::from_toml(&text, &trust_domain).context("the issuer profile")?;
        let passphrase = existing_passphrase(self.passphrase_file.as_deref(), &self.root_dir)?;
        let lifetime = self.lifetime.map(|lifetime| lifetime.0);
        let issuer = authority_side::sign_issuer(&self.root_dir, &passphrase, &request, &profile, lifetime)?;
        files::replace(&self.out, write_pem("CERTIFICATE", &issuer).as_bytes(), files::PUBLIC)?;
        let issuer = Certificate::from_der(&issuer)?;
        let data = json!({
            "certificate": self.out, "subject": issuer.tbs().subject_text(), "not_after": issuer.tbs().not_after(),
            "fingerprint": issuer.fingerprint(),
        });
        terminal.data(&data, || {
            terminal.fields([
                ("issuer", issuer.tbs().subject_text()),
                ("valid until", issuer.tbs().not_after().to_string()),
                ("certificate", self.out.display().to_string()),
            ])
        })?;
        if !terminal.is_json() {
            terminal.note(format_args!(
                "\nCarry {} and root.crt back. Next, there:\n  chancery init --dir DIR --import {} \
                 --root-certificate root.crt",
                self.out.display(),
                self.out.display()
            ));
        }
        Ok(())
    }
}

impl Crl {
    fn run(&self, terminal: &Terminal) -> Result<()> {
        let read =
            |path: &PathBuf| first_certificate(&files::read(path, MAX_PEM)?, &path.display().to_string());
        let issuers = self.revoke.iter().map(read).collect::<Result<Vec<_>>>()?;
        let passphrase = existing_passphrase(self.passphrase_file.as_deref(), &self.root_dir)?;
        let list = authority_side::make_root_crl(
            &self.root_dir,
            &passphrase,
            issuers,
            self.reason,
            self.validity.0,
        )?;
        files::replace(&self.out, write_pem("X509 CRL", &list.der).as_bytes(), files::PUBLIC)?;
        let data = json!({
            "crl": self.out, "number": list.number, "entries": list.entries, "next_update": list.next_update,
        });
        terminal.data(&data, || {
            terminal.fields([
                ("list", self.out.display().to_string()),
                ("number", list.number.to_string()),
                ("issuers on it", list.entries.to_string()),
                ("good until", list.next_update.to_string()),
            ])
        })?;
        if !terminal.is_json() {
            terminal.note(format_args!(
                "\nPut it beside the root's certificate of every server, as certs/root.crl, or as certs/root-2.crl if it is \
                 that of another root: it is served at once under that name below /crl/ and in /crl/chain.pem."
            ));
        }
        Ok(())
    }
}

fn show_root(terminal: &Terminal, root: &Certificate) -> Result<()> {
    let tbs = root.tbs();
    let data = json!({
        "subject": tbs.subject_text(), "fingerprint": root.fingerprint(), "not_before": tbs.not_before(),
        "not_after": tbs.not_after(),
    });
    terminal.data(&data, || {
        terminal.fields([
            ("root", tbs.subject_text()),
            ("fingerprint", root.fingerprint().to_string()),
            ("valid", format!("{} to {}", tbs.not_before(), tbs.not_after())),
        ])
    })
}

fn certificate(path: &Path) -> Result<Certificate> {
    let file = if path.is_dir() { path.join("root.crt") } else { path.to_owned() };
    first_certificate(&files::read(&file, MAX_PEM)?, &file.display().to_string())
}

pub(crate) fn existing_passphrase(file: Option<&Path>, directory: &Path) -> Result<SecretString> {
    match file {
        Some(path) => Ok(SecretString::new(files::read_secret_line(path)?.to_string())),
        None if ask::can_ask() => ask::passphrase(&format!("the root in {}", directory.display())),
        None => Err(usage("give the root's passphrase with --passphrase-file FILE")),
    }
}

/// The reference profile, for a machine that has no configuration.
const ISSUER_PROFILE: &str = include_str!("../../../../ca-config/profiles/issuer.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_profile_is_in_order() {
        let trust_domain = "example.org".parse().unwrap();
        assert_eq!(Profile::from_toml(ISSUER_PROFILE, &trust_domain).unwrap().name(), "issuer");
    }
}
