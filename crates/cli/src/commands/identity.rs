//! `chancery identity`: who may have certificates, and whose they are.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chancery_api::{IdentityDocument, IdentityQuery, IdentityStateRequest, IdentityView};
use chancery_client::Client;
use chancery_types::{
    AssuranceLevel, DnsName, EmailAddress, HumanDuration, Identity, IdentityState, KeyAlgorithm, Role,
    Selector, Selectors, Sensitivity, SpiffeId, Timestamp, TrustDomain,
};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;

use crate::commands::renewal::Renewal;
use crate::commands::{pair, text_of, word};
use crate::connection::Connection;
use crate::failure::usage;
use crate::files;
use crate::flags::Globals;
use crate::listing::Extent;
use crate::place::{self, Place};
use crate::terminal::{Terminal, Tone};

/// Registers identities, and holds, releases or retires them.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Register an identity.
    Create(Create),
    /// List identities.
    List(List),
    /// Show an identity.
    Show(Show),
    /// Change an identity: only what is said changes.
    Update(Update),
    /// Retire an identity for ever and revoke its certificates.
    Retire(Change),
    /// Hold an identity: no enrolment, no renewal.
    Hold(Change),
    /// Release an identity from hold.
    Release(Change),
    /// Have its certificates, or all, replaced before their time by the agents that hold them.
    Renew(Renewal),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its SPIFFE ID, or the path alone beside a configuration.
    #[arg(value_name = "ID", required_unless_present = "file")]
    id: Option<String>,
    #[command(flatten)]
    properties: Properties,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Its SPIFFE ID, or the path alone beside a configuration.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    properties: Properties,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its SPIFFE ID, or the path alone beside a configuration.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    /// Its SPIFFE ID, or the path alone beside a configuration.
    #[arg(value_name = "ID")]
    id: String,
    /// Why, for the log.
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this owner's.
    #[arg(long)]
    owner: Option<String>,
    /// Only this team's.
    #[arg(long)]
    team: Option<String>,
    /// Only in this environment.
    #[arg(long)]
    environment: Option<String>,
    /// Only those that may use this profile.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Only in this state: active, held or retired.
    #[arg(long, value_parser = word::<IdentityState>)]
    state: Option<IdentityState>,
    #[command(flatten)]
    extent: Extent,
    #[command(flatten)]
    connection: Connection,
}

/// What an identity is. Flags go over the file.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Properties")]
pub(crate) struct Properties {
    /// Read it from a JSON or TOML document; `-` reads JSON from standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Who answers for it. No owner, no issuance.
    #[arg(long)]
    owner: Option<String>,
    /// The owner's team.
    #[arg(long)]
    team: Option<String>,
    /// What it is for, in a sentence.
    #[arg(long)]
    purpose: Option<String>,
    /// prod, staging, ...; policy keeps environments apart.
    #[arg(long)]
    environment: Option<String>,
    /// How bad abuse is: low, medium, high or critical.
    #[arg(long)]
    sensitivity: Option<Sensitivity>,
    /// A DNS name that its certificates may carry; repeatable.
    #[arg(long = "dns", value_name = "NAME", value_parser = DnsName::parse)]
    dns_names: Vec<DnsName>,
    /// An IP address that they may carry; repeatable.
    #[arg(long = "ip", value_name = "ADDRESS")]
    ip_addresses: Vec<IpAddr>,
    /// An email address that they may carry; repeatable.
    #[arg(long = "email", value_name = "ADDRESS", value_parser = EmailAddress::parse)]
    email_addresses: Vec<EmailAddress>,
    /// A profile that it may use, the default first; repeatable.
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// A key algorithm that it may use; repeatable.
    #[arg(long = "key-type", value_name = "TYPE")]
    key_algorithms: Vec<KeyAlgorithm>,
    /// A lifetime of certificates shorter than the profile's, such as 1h.
    #[arg(long, value_name = "DURATION")]
    max_lifetime: Option<HumanDuration>,
    /// The least assurance of its evidence: AL0 to AL4.
    #[arg(long, value_name = "LEVEL", value_parser = word::<AssuranceLevel>)]
    minimum_assurance: Option<AssuranceLevel>,
    /// What evidence must hold to be evidence of this identity, such as unix:uid:1000 or x509.cn=web; repeatable,
    /// also for one claim.
    #[arg(long = "selector", value_name = "SELECTOR", value_parser = selector)]
    selectors: Vec<(String, String)>,
    /// Selectors, separated by commas, that serve as well as those of --selector; repeatable.
    #[arg(long = "alternative", value_name = "SELECTORS", value_parser = selectors)]
    alternatives: Vec<Selectors>,
    /// A node whose agent may ask for it, as SPIFFE ID; repeatable.
    #[arg(long = "parent", value_name = "ID")]
    parents: Vec<SpiffeId>,
    /// What a node must have proved for its agent to ask for it, such as token.parameter.rack=r1; repeatable.
    #[arg(long = "node-selector", value_name = "SELECTOR", value_parser = selector)]
    node_selectors: Vec<(String, String)>,
    /// How programs with several identities tell them apart.
    #[arg(long)]
    hint: Option<String>,
    /// Another trust domain whose members it deals with; repeatable.
    #[arg(long = "federates-with", value_name = "DOMAIN", value_parser = TrustDomain::parse)]
    federates_with: Vec<TrustDomain>,
    /// For operators: admin, operator, auditor or viewer.
    #[arg(long)]
    role: Option<Role>,
    /// When somebody has to look at it again (RFC 3339).
    #[arg(long, value_name = "TIME")]
    review_by: Option<Timestamp>,
    /// When it ends (RFC 3339); no certificate outlives it.
    #[arg(long, value_name = "TIME")]
    expires: Option<Timestamp>,
}

impl IdentityCommand {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let place = place.as_ref();
        match self {
            Self::Renew(renewal) => renewal.run(place, terminal).await,
            Self::Create(create) => create.run(place, terminal).await,
            Self::List(list) => list.run(place, terminal).await,
            Self::Show(show) => {
                let id = place::identity(&show.id, place)?;
                let view = show.connection.open_beside(place).await?.read_identity(&id).await?;
                print(terminal, &view)
            }
            Self::Update(update) => update.run(place, terminal).await,
            Self::Retire(change) => {
                let (id, note) = change.meaning(place)?;
                let view = change.connection.open_beside(place).await?.retire_identity(&id, &note).await?;
                terminal.note(format_args!("{id} is retired for ever, and its certificates are revoked"));
                print(terminal, &view)
            }
            Self::Hold(change) => {
                let (id, note) = change.meaning(place)?;
                let view = change.connection.open_beside(place).await?.hold_identity(&id, &note).await?;
                terminal.note(format_args!("{id} cannot enrol or renew until `chancery identity release`"));
                print(terminal, &view)
            }
            Self::Release(change) => {
                let (id, note) = change.meaning(place)?;
                let view = change.connection.open_beside(place).await?.release_identity(&id, &note).await?;
                print(terminal, &view)
            }
        }
    }
}

impl Create {
    async fn run(&self, place: Option<&Place>, terminal: &Terminal) -> Result<()> {
        let id = self.id.as_deref().map(|text| place::identity(text, place)).transpose()?;
        let identity = self.properties.new_identity(id)?;
        let client = self.connection.open_beside(place).await?;
        let view = client.register_identity(&IdentityDocument(identity)).await?;
        print(terminal, &view)?;
        if !terminal.is_json() {
            let id = &view.identity.0.spiffe_id;
            terminal.note(format_args!("\nNext: chancery token create --identity {id}"));
        }
        Ok(())
    }
}

impl Update {
    async fn run(&self, place: Option<&Place>, terminal: &Terminal) -> Result<()> {
        let id = place::identity(&self.id, place)?;
        let client = self.connection.open_beside(place).await?;
        let current = client.read_identity(&id).await?;
        let changed = self.properties.changed(current.identity.0)?;
        if changed.spiffe_id != id {
            return Err(usage(format!(
                "the file is about {}, not {id}; a name never changes",
                changed.spiffe_id
            )));
        }
        let view = client.change_identity(&IdentityDocument(changed), current.version).await?;
        print(terminal, &view)
    }
}

impl Change {
    fn meaning(&self, place: Option<&Place>) -> Result<(SpiffeId, IdentityStateRequest)> {
        Ok((place::identity(&self.id, place)?, IdentityStateRequest { note: self.note.clone() }))
    }
}

impl List {
    async fn run(&self, place: Option<&Place>, terminal: &Terminal) -> Result<()> {
        let client = self.connection.open_beside(place).await?;
        let query = IdentityQuery {
            limit: None,
            cursor: None,
            owner: self.owner.clone(),
            team: self.team.clone(),
            environment: self.environment.clone(),
            profile: self.profile.clone(),
            state: self.state,
        };
        let found = list(self.extent, terminal, &client, &query).await?;
        terminal.data(&found, || {
            let rows = found.iter().map(|view| {
                let identity = &view.identity.0;
                vec![
                    identity.spiffe_id.to_string(),
                    text_of(&view.state),
                    identity.owner.clone(),
                    identity.environment.clone(),
                    identity.allowed_profiles().join(","),
                    view.live_certificates.to_string(),
                ]
            });
            terminal.table(&["identity", "state", "owner", "environment", "profiles", "live"], rows)
        })
    }
}

/// The identities that are meant, as many as the extent allows.
pub(super) async fn list(
    extent: Extent,
    terminal: &Terminal,
    client: &Client,
    query: &IdentityQuery,
) -> Result<Vec<IdentityView>> {
    extent
        .fetch(terminal, |limit, cursor| {
            let (client, query) = (client.clone(), IdentityQuery { limit, cursor, ..query.clone() });
            async move { client.list_identities(&query).await }
        })
        .await
}

impl Properties {
    /// A new identity: the file's, or one with this name, with the flags over it.
    fn new_identity(&self, id: Option<SpiffeId>) -> Result<Identity> {
        let base = match (self.document()?, id) {
            (Some(document), Some(id)) if document.spiffe_id != id => {
                return Err(usage(format!(
                    "the file is about {}, the command about {id}",
                    document.spiffe_id
                )));
            }
            (Some(document), _) => document,
            (None, Some(id)) => Identity::new(id, ""),
            (None, None) => return Err(usage("name the identity, or give --file")),
        };
        let identity = self.over(base)?;
        if identity.owner.is_empty() {
            return Err(usage("say who answers for it with --owner; without an owner nothing is issued"));
        }
        identity.check()?;
        Ok(identity)
    }

    /// A changed identity: the file's whole, or the current one, with the flags over it.
    fn changed(&self, current: Identity) -> Result<Identity> {
        let identity = self.over(self.document()?.unwrap_or(current))?;
        identity.check()?;
        Ok(identity)
    }

    fn document(&self) -> Result<Option<Identity>> {
        self.file.as_deref().map(document).transpose()
    }

    fn over(&self, mut identity: Identity) -> Result<Identity> {
        set(&mut identity.owner, &self.owner);
        set(&mut identity.team, &self.team);
        set(&mut identity.purpose, &self.purpose);
        set(&mut identity.environment, &self.environment);
        set(&mut identity.sensitivity, &self.sensitivity);
        set_list(&mut identity.dns_names, &self.dns_names);
        set_list(&mut identity.ip_addresses, &self.ip_addresses);
        set_list(&mut identity.email_addresses, &self.email_addresses);
        set_list(&mut identity.profiles, &self.profiles);
        set_list(&mut identity.key_algorithms, &self.key_algorithms);
        identity.max_lifetime = self.max_lifetime.or(identity.max_lifetime);
        identity.minimum_assurance = self.minimum_assurance.or(identity.minimum_assurance);
        identity.role = self.role.or(identity.role);
        identity.review_by = self.review_by.or(identity.review_by);
        identity.expires = self.expires.or(identity.expires);
        set_selectors(&mut identity.selectors, &self.selectors);
        set_list(&mut identity.alternatives, &self.alternatives);
        set_list(&mut identity.parents, &self.parents);
        set_selectors(&mut identity.node_selectors, &self.node_selectors);
        set(&mut identity.hint, &self.hint);
        set_list(&mut identity.federates_with, &self.federates_with);
        Ok(identity)
    }
}

/// Reads `unix:uid:1000`, as users of SPIRE write it, or `unix.uid=1000`.
pub(super) fn selector(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((claim, _)) if !claim.contains(':') => pair(text),
        _ => {
            let selector: Selector = text.parse().map_err(|error| format!("{error}, or CLAIM=VALUE"))?;
            Ok((selector.claim().to_owned(), selector.text().to_owned()))
        }
    }
}

/// Reads a set of selectors that hold together.
fn selectors(text: &str) -> Result<Selectors, String> {
    text.split(',').map(selector).collect()
}

pub(super) fn set_selectors(target: &mut Selectors, pairs: &[(String, String)]) {
    if !pairs.is_empty() {
        *target = pairs.iter().cloned().collect();
    }
}

/// Reads a JSON or TOML document, by its ending.
pub(super) fn document<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = files::read_text(path, 1 << 20)?;
    if path.extension().is_some_and(|extension| extension == "toml") {
        return toml::from_str(&text).with_context(|| format!("{} cannot be used", path.display()));
    }
    serde_json::from_str(&text).with_context(|| format!("{} cannot be used", path.display()))
}

fn set<T: Clone>(target: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        target.clone_from(value);
    }
}

fn set_list<T: Clone>(target: &mut Vec<T>, values: &[T]) {
    if !values.is_empty() {
        *target = values.to_vec();
    }
}

/// As users of SPIRE write it, where it can be written so and is a fact about a process.
fn spelled(claim: &str, value: &str) -> String {
    match Selector::new(claim, value) {
        Ok(selector) if !claim.starts_with("x509.") && !claim.starts_with("token.") => selector.to_string(),
        _ => format!("{claim}={value}"),
    }
}

/// A set of selectors for people.
pub(super) fn written(set: &Selectors, between: &str) -> String {
    let pairs: Vec<String> = set.iter().map(|(name, value)| spelled(name, value)).collect();
    pairs.join(between)
}

fn print(terminal: &Terminal, view: &IdentityView) -> Result<()> {
    terminal.data(view, || describe(terminal, view))
}

/// An identity for people.
pub(super) fn describe(terminal: &Terminal, view: &IdentityView) -> String {
    let identity = &view.identity.0;
    let state = match view.state {
        IdentityState::Active => Tone::Good,
        IdentityState::Held => Tone::Warning,
        IdentityState::Retired => Tone::Bad,
    };
    let names: Vec<String> = identity.subject_names().iter().skip(1).map(ToString::to_string).collect();
    let keys: Vec<&str> = identity.key_algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
    let alternatives: Vec<String> = identity.alternatives.iter().map(|set| written(set, ",")).collect();
    let parents: Vec<&str> = identity.parents.iter().map(SpiffeId::as_str).collect();
    let federates: Vec<&str> = identity.federates_with.iter().map(TrustDomain::as_str).collect();
    let optional = |value: Option<String>| value.unwrap_or_default();
    terminal.fields([
        ("identity", identity.spiffe_id.to_string()),
        ("state", terminal.paint(state, text_of(&view.state))),
        ("owner", identity.owner.clone()),
        ("team", identity.team.clone()),
        ("purpose", identity.purpose.clone()),
        ("environment", identity.environment.clone()),
        ("sensitivity", text_of(&identity.sensitivity)),
        ("other names", names.join("\n")),
        ("profiles", identity.allowed_profiles().join(", ")),
        ("key types", keys.join(", ")),
        ("max lifetime", optional(identity.max_lifetime.map(|value| value.to_string()))),
        ("minimum assurance", optional(identity.minimum_assurance.map(|value| value.to_string()))),
        ("selectors", written(&identity.selectors, "\n")),
        ("alternatives", alternatives.join("\n")),
        ("parents", parents.join("\n")),
        ("node selectors", written(&identity.node_selectors, "\n")),
        ("hint", identity.hint.clone()),
        ("federates with", federates.join(", ")),
        ("role", optional(identity.role.map(|value| value.to_string()))),
        ("review by", optional(identity.review_by.map(|value| value.to_string()))),
        ("expires", optional(identity.expires.map(|value| value.to_string()))),
        ("version", view.version.to_string()),
        ("changed", view.changed.whole_second().to_string()),
        ("live certificates", view.live_certificates.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SpiffeId {
        "spiffe://example.org/web".parse().unwrap()
    }

    #[test]
    fn flags_make_an_identity_and_an_owner_is_required() {
        let mut properties = Properties::default();
        let refused = properties.new_identity(Some(id())).unwrap_err().to_string();
        assert!(refused.contains("--owner"), "{refused}");
        properties.owner = Some("ada".into());
        properties.dns_names = vec!["web.example.org".parse().unwrap()];
        properties.selectors = vec![("x509.cn".into(), "web".into())];
        let identity = properties.new_identity(Some(id())).unwrap();
        assert_eq!((identity.owner.as_str(), identity.dns_names.len()), ("ada", 1));
        assert_eq!(identity.selectors, Selectors::from([("x509.cn", "web")]));
    }

    #[test]
    fn selectors_are_read_in_either_spelling_and_gather() {
        let read = |text: &str| selector(text).map(|(claim, value)| format!("{claim} {value}"));
        for (text, expected) in [
            ("unix:uid:1000", "unix.uid 1000"),
            ("unix.uid=1000", "unix.uid 1000"),
            ("unix:path:/opt/a=b", "unix.path /opt/a=b"),
            ("k8s:pod-label:app:web", "k8s.pod_label app:web"),
            ("x509.cn=a:b", "x509.cn a:b"),
        ] {
            assert_eq!(read(text).unwrap(), expected);
        }
        assert!(read("unix:uid").unwrap_err().contains("unix:uid:1000"));
        let set = selectors("unix:uid:1000,unix:gid:100").unwrap();
        assert_eq!(set, Selectors::from([("unix.gid", "100"), ("unix.uid", "1000")]));
        let labels = selectors("k8s:pod-label:tier:front,k8s:pod-label:app:web").unwrap();
        let read_back = serde_json::to_value(&labels).unwrap();
        assert_eq!(read_back, serde_json::json!({"k8s.pod_label": ["app:web", "tier:front"]}));
        assert_eq!(spelled("unix.uid", "1000"), "unix:uid:1000");
        assert_eq!(spelled("x509.cn", "web"), "x509.cn=web");
    }

    #[test]
    fn flags_go_over_the_file_and_both_must_name_the_same_identity() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.toml");
        std::fs::write(&path, "spiffe_id = \"spiffe://example.org/web\"\nowner = \"ada\"\nteam = \"t\"\n")
            .unwrap();
        let properties = Properties { file: Some(path), owner: Some("bob".into()), ..Properties::default() };
        let identity = properties.new_identity(None).unwrap();
        assert_eq!((identity.owner.as_str(), identity.team.as_str()), ("bob", "t"));
        let other = "spiffe://example.org/db".parse().unwrap();
        assert!(properties.new_identity(Some(other)).is_err());
    }

    #[test]
    fn a_misspelt_restriction_in_a_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.json");
        std::fs::write(&path, r#"{"spiffe_id":"spiffe://e/x","minimum_asurance":"AL4"}"#).unwrap();
        assert!(document::<Identity>(&path).is_err());
    }

    #[test]
    fn an_update_changes_only_what_is_said() {
        let mut current = Identity::new(id(), "ada");
        current.team = "t".into();
        current.profiles = vec!["server".into()];
        let properties = Properties { team: Some("u".into()), ..Properties::default() };
        let changed = properties.changed(current.clone()).unwrap();
        assert_eq!(changed, Identity { team: "u".into(), ..current });
    }
}
