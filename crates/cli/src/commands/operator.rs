//! `chancery operator`: certificates for the people who operate the authority.

use std::path::PathBuf;

use anyhow::Result;
use chancery_api::{CsrDer, OperatorRequest};
use chancery_types::{HumanDuration, KeyAlgorithm, Role};
use chancery_x509::DistinguishedName;
use clap::{Args, Subcommand};

use crate::commands::enroll::report;
use crate::connection::Connection;
use crate::credential::CredentialFiles;
use crate::failure::usage;
use crate::flags::Globals;
use crate::place::Place;
use crate::subject;
use crate::terminal::Terminal;

/// Issues certificates to operators.
#[derive(Debug, Subcommand)]
pub(crate) enum Operator {
    /// Make a key and have it certified for an operator.
    Create(Create),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The operator's name: the last part of the SPIFFE ID under /operator/.
    name: String,
    /// What the operator may do: admin, operator, auditor or viewer.
    #[arg(long)]
    role: Role,
    /// A lifetime shorter than the profile's, such as 8h.
    #[arg(long, value_name = "DURATION")]
    lifetime: Option<HumanDuration>,
    /// The kind of key to make.
    #[arg(long, value_name = "TYPE", default_value_t)]
    key_type: KeyAlgorithm,
    /// Where NAME.crt and NAME.key go; beside a configuration, its operators directory.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

impl Operator {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let Self::Create(create) = self;
        let place = Place::find(globals.config.as_deref())?;
        let files = create.files(place.as_ref())?;
        let client = create.connection.open_beside(place.as_ref()).await?;
        files.recover()?;
        let wish = format!("operator {} {} {:?}", create.name, create.role, create.lifetime);
        let (key, pending) = match files.resume(&wish) {
            Some(resumed) => resumed,
            None => {
                let key = subject::new_key(create.key_type)?;
                let csr = key.request(&DistinguishedName::empty(), &[])?;
                let pending = files.prepare(&key, true, csr, &wish, client.new_idempotency_key()?)?;
                (key, pending)
            }
        };
        let request = OperatorRequest {
            name: create.name.clone(),
            role: create.role,
            csr: CsrDer::from_der(pending.csr.as_der().to_vec()),
            lifetime: create.lifetime,
        };
        let answer = match client.create_operator(&request, &pending.idempotency).await {
            Ok(answer) => answer,
            Err(error) => return Err(files.refused(error)),
        };
        files.install(&format!("{}{}", answer.certificate, answer.chain), &key, None)?;
        report(terminal, &answer, &files)
    }
}

impl Create {
    fn files(&self, place: Option<&Place>) -> Result<CredentialFiles> {
        let simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(simple) {
            return Err(usage(format!(
                "{:?} cannot be an operator's name: use letters, digits, - _ . @",
                self.name
            )));
        }
        let directory = match (&self.out, place.and_then(|place| place.operator_key.parent())) {
            (Some(out), _) => out.clone(),
            (None, Some(operators)) => operators.to_owned(),
            (None, None) => PathBuf::from("."),
        };
        Ok(CredentialFiles {
            certificate: directory.join(format!("{}.crt", self.name)),
            key: directory.join(format!("{}.key", self.name)),
            bundle: None,
        })
    }
}
