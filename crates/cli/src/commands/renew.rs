//! `chancery renew`: the next certificate of a lineage, with a new key, in place of the current pair.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use chancery_api::RenewRequest;
use chancery_client::Client;
use chancery_types::{HumanDuration, KeyAlgorithm};
use chancery_x509::{DistinguishedName, SubjectKey};
use clap::Args;

use crate::commands::enroll::{report, write_receipt};
use crate::connection::{IdentityFiles, Reach};
use crate::credential::{CredentialFiles, Pending, Recovered, first_certificate};
use crate::failure::usage;
use crate::files::{self, MAX_PEM};
use crate::flags::Globals;
use crate::place::Place;
use crate::subject;
use crate::terminal::Terminal;

/// Replaces a certificate and its key by the next ones.
///
/// The current certificate authenticates the request. Interrupted, it is simply run again.
#[derive(Debug, Args)]
pub(crate) struct Renew {
    /// The directory that `chancery enroll --out` wrote: tls.crt, tls.key and ca.crt.
    #[arg(long = "in", value_name = "DIR", conflicts_with_all = ["cert", "key"])]
    directory: Option<PathBuf>,
    /// The current certificate, which is replaced.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key, which is replaced.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The kind of the new key; that of the current one if absent.
    #[arg(long, value_name = "TYPE")]
    key_type: Option<KeyAlgorithm>,
    /// A new key that was made elsewhere, PKCS #8 PEM.
    #[arg(long, value_name = "FILE", conflicts_with = "key_type")]
    new_key: Option<PathBuf>,
    /// Keep the key, where the authority allows it.
    #[arg(long, conflicts_with_all = ["key_type", "new_key"])]
    same_key: bool,
    /// A lifetime shorter than the profile's, such as 15m.
    #[arg(long, value_name = "DURATION")]
    lifetime: Option<HumanDuration>,
    /// The proof that the certificate stands in the log, for `chancery verify`.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

impl Renew {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let files = self.files()?;
        if files.recover()? == Recovered::Finished {
            terminal
                .note("an earlier renewal was interrupted after its certificate came; it is in place now");
        }
        if let Some(warning) = files::exposure(&files.key) {
            terminal.warn(warning);
        }
        let reach = self.reach_with(&files);
        let current = IdentityFiles { certificate: files.certificate.clone(), key: files.key.clone() };
        let client = reach.open(place.as_ref(), Some(current)).await?;
        let (key, pending) = self.request(&files, &client)?;
        let request = RenewRequest { csr: pending.csr.clone(), lifetime: self.lifetime, receipt: false };
        let answer = match client.renew(&request, &pending.idempotency).await {
            Ok(answer) => answer,
            Err(error) => return Err(files.refused(error)),
        };
        let bundle = match &files.bundle {
            Some(_) => Some(client.bundle().await?),
            None => None,
        };
        files.install(&format!("{}{}", answer.certificate, answer.chain), &key, bundle.as_deref())?;
        if let Some(path) = &self.receipt {
            write_receipt(path, &reach, place.as_ref(), &files, &answer).await?;
        }
        report(terminal, &answer, &files)
    }

    fn files(&self) -> Result<CredentialFiles> {
        match (&self.directory, &self.cert, &self.key) {
            (Some(directory), ..) => Ok(CredentialFiles {
                certificate: directory.join("tls.crt"),
                key: directory.join("tls.key"),
                bundle: Some(directory.join("ca.crt")),
            }),
            (None, Some(certificate), Some(key)) => {
                Ok(CredentialFiles { certificate: certificate.clone(), key: key.clone(), bundle: None })
            }
            _ => Err(usage("say what to renew: --in DIR, or --cert FILE and --key FILE")),
        }
    }

    /// The roots that came with the enrolment are trusted unless something else was said.
    fn reach_with(&self, files: &CredentialFiles) -> Reach {
        let mut reach = self.reach.clone();
        if reach.trust_bundle.is_none() && reach.fingerprint.is_none() {
            reach.trust_bundle = files.bundle.clone().filter(|path| path.exists());
        }
        reach
    }

    /// The key and the request: those of an interrupted run, or new ones.
    fn request(&self, files: &CredentialFiles, client: &Client) -> Result<(SubjectKey, Pending)> {
        let wish = self.wish(files)?;
        if let Some(resumed) = files.resume(&wish) {
            return Ok(resumed);
        }
        let key = self.next_key(files)?;
        let csr = key.request(&DistinguishedName::empty(), &[])?;
        let pending = files.prepare(&key, !self.same_key, csr, &wish, client.new_idempotency_key()?)?;
        Ok((key, pending))
    }

    /// What makes two requests the same: the certificate that is renewed, and the lifetime.
    fn wish(&self, files: &CredentialFiles) -> Result<String> {
        let pem = files::read(&files.certificate, MAX_PEM)?;
        let current = first_certificate(&pem, &files.certificate.display().to_string())?;
        Ok(format!(
            "renew {} {:?} {:?} {:?}",
            current.fingerprint(),
            self.lifetime,
            self.key_type,
            self.new_key
        ))
    }

    fn next_key(&self, files: &CredentialFiles) -> Result<SubjectKey> {
        if let Some(path) = &self.new_key {
            return subject::private_key(path);
        }
        let current = subject::private_key(&files.key)?;
        if self.same_key {
            return Ok(current);
        }
        let algorithm = self.key_type.unwrap_or(current.public_key().algorithm());
        subject::new_key(algorithm)
            .context("bring the new key with --new-key FILE, or choose another --key-type")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Cli, Command};

    fn parse(arguments: &[&str]) -> Result<Renew, clap::Error> {
        let line = ["chancery", "renew"].iter().chain(arguments);
        Cli::try_parse_from(line).map(|cli| match cli.command {
            Command::Renew(renew) => renew,
            _ => panic!("not a renewal"),
        })
    }

    #[test]
    fn a_pair_is_named_by_its_directory_or_by_both_files() {
        let files = parse(&["--in", "d"]).unwrap().files().unwrap();
        assert_eq!(files.certificate, std::path::Path::new("d/tls.crt"));
        assert!(parse(&["--cert", "c"]).is_err());
        assert!(parse(&["--in", "d", "--cert", "c", "--key", "k"]).is_err());
        let refused = parse(&[]).unwrap().files().unwrap_err().to_string();
        assert!(refused.contains("--in DIR"), "{refused}");
    }

    #[test]
    fn one_source_of_the_new_key() {
        assert!(parse(&["--in", "d", "--same-key", "--key-type", "p384"]).is_err());
        assert!(parse(&["--in", "d", "--new-key", "k", "--key-type", "p384"]).is_err());
        assert!(parse(&["--in", "d", "--key-type", "p384"]).is_ok());
    }
}
