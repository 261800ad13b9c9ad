//! Which certificates a command is about.

use std::path::PathBuf;

use anyhow::Result;
use chancery_api::{KeyProof, KeySource, PublicKeyDer, Selector};
use chancery_types::{IssuerEpoch, LineageId, Selector as ClaimSelector, SerialNumber};
use chancery_x509::SubjectKey;
use clap::Args;

use crate::failure::usage;
use crate::place::{self, Place};
use crate::subject::{self, NamedKey};

/// Which certificates: those that have all of the properties given.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which certificates (all that is given must hold)")]
#[group(id = "selector", required = true, multiple = true)]
pub(super) struct Which {
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
    /// All that the agent of this node asked for on behalf of processes; not the node's own.
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// All whose evidence had this claim, such as unix:sha256:... or k8s:sa:shop; repeatable.
    #[arg(id = "claim", long = "selector", value_name = "KIND:NAME:TEXT")]
    claims: Vec<ClaimSelector>,
    /// All of this identity and of those below it in the path.
    #[arg(long, value_name = "ID")]
    under: Option<String>,
    /// All of this owner's identities.
    #[arg(long)]
    owner: Option<String>,
    /// All of this team's identities.
    #[arg(long)]
    team: Option<String>,
    /// All of this environment's identities.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// All of the issuer with this number.
    #[arg(long, value_name = "EPOCH")]
    issuer: Option<u16>,
}

/// What is selected, and whether somebody without a role may ask for it.
#[derive(Debug)]
pub(super) enum Selected {
    /// By an operator.
    Role(Selector),
    /// By a proof that is yet to be made.
    Possession(Box<SubjectKey>),
    /// By a proof that was made elsewhere.
    Proof(KeyProof),
}

impl Which {
    /// What is selected; a private key alone needs no operator.
    pub(super) fn meaning(&self, place: Option<&Place>) -> Result<Selected> {
        let mut selectors = self.selectors(place)?.into_iter();
        match (selectors.next(), &self.key) {
            (None, Some(path)) => match subject::named_key(path)? {
                NamedKey::Public(source) => Ok(Selected::Role(Selector::Key(source))),
                NamedKey::Private(key) => Ok(Selected::Possession(key)),
            },
            (Some(first), _) => Ok(Selected::Role(first)),
            (None, None) => Err(usage("say which certificates: --identity, --node, --selector, ...")),
        }
    }

    /// What operators select first.
    pub(super) fn for_operators(&self, place: Option<&Place>) -> Result<Selector> {
        match self.meaning(place)? {
            Selected::Role(selector) => Ok(selector),
            Selected::Possession(key) => Ok(Selector::Key(public(&key))),
            Selected::Proof(proof) => Ok(Selector::KeyProof(proof)),
        }
    }

    /// What must hold besides that.
    pub(super) fn within(&self, place: Option<&Place>) -> Result<Vec<Selector>> {
        let mut selectors = self.selectors(place)?;
        if selectors.is_empty() {
            return Ok(selectors);
        }
        selectors.remove(0);
        if let Some(path) = &self.key {
            selectors.push(Selector::Key(match subject::named_key(path)? {
                NamedKey::Public(source) => source,
                NamedKey::Private(key) => public(&key),
            }));
        }
        Ok(selectors)
    }

    /// Everything but the key, the narrowest first.
    fn selectors(&self, place: Option<&Place>) -> Result<Vec<Selector>> {
        let id = |text: &Option<String>| text.as_deref().map(|text| place::identity(text, place)).transpose();
        let mut selectors = Vec::new();
        selectors.extend(self.serial.map(Selector::Serial));
        selectors.extend(id(&self.identity)?.map(Selector::Identity));
        selectors.extend(self.lineage.map(Selector::Lineage));
        selectors.extend(id(&self.node)?.map(Selector::Node));
        selectors.extend(self.claims.iter().cloned().map(Selector::Claim));
        selectors.extend(id(&self.under)?.map(Selector::Under));
        selectors.extend(self.owner.clone().map(Selector::Owner));
        selectors.extend(self.team.clone().map(Selector::Team));
        selectors.extend(self.environment.clone().map(Selector::Environment));
        selectors.extend(self.issuer.map(|epoch| Selector::Issuer(IssuerEpoch(epoch))));
        Ok(selectors)
    }
}

fn public(key: &SubjectKey) -> KeySource {
    KeySource::PublicKey(PublicKeyDer::from_der(key.public_key().spki_der().to_vec()))
}
