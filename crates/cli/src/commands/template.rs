//! `chancery template`: identities that come into being when somebody enrols.

use std::path::PathBuf;

use anyhow::Result;
use chancery_api::{PageQuery, TemplateDocument, TemplateView};
use chancery_types::{AssuranceLevel, HumanDuration, Sensitivity, SpiffeId};
use clap::{Args, Subcommand};

use crate::commands::identity::{document, selector, set_selectors, written};
use crate::commands::{pair, text_of, word};
use crate::connection::Connection;
use crate::failure::usage;
use crate::flags::Globals;
use crate::listing::Extent;
use crate::terminal::Terminal;

/// Registers templates, lists and removes them.
#[derive(Debug, Subcommand)]
pub(crate) enum Template {
    /// Register a template; --replace changes one that exists.
    Create(Box<Create>),
    /// List templates.
    List(List),
    /// Show a template.
    Show(Named),
    /// Remove a template; identities made from it stay.
    Remove(Named),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name: lower-case letters, digits and hyphens.
    #[arg(required_unless_present = "file")]
    name: Option<String>,
    /// Read it from a JSON or TOML document; flags go over it.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The path of its identities, such as /ci/{repository}/{job}.
    #[arg(long, required_unless_present = "file")]
    path: Option<String>,
    /// Values that a parameter may have, with * for any rest; repeatable, also for one parameter.
    #[arg(long = "allow", value_name = "PARAMETER=VALUE", value_parser = pair)]
    parameters: Vec<(String, String)>,
    /// Who answers for what it makes.
    #[arg(long)]
    owner: Option<String>,
    /// The owner's team.
    #[arg(long)]
    team: Option<String>,
    /// What it is for, in a sentence.
    #[arg(long)]
    purpose: Option<String>,
    /// prod, staging, ...
    #[arg(long)]
    environment: Option<String>,
    /// How bad abuse is: low, medium, high or critical.
    #[arg(long)]
    sensitivity: Option<Sensitivity>,
    /// A profile that its identities may use, the default first; repeatable.
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// A lifetime of certificates shorter than the profile's.
    #[arg(long, value_name = "DURATION")]
    max_lifetime: Option<HumanDuration>,
    /// The least assurance of evidence: AL0 to AL4.
    #[arg(long, value_name = "LEVEL", value_parser = word::<AssuranceLevel>)]
    minimum_assurance: Option<AssuranceLevel>,
    /// How long an identity made from it lives.
    #[arg(long, value_name = "DURATION")]
    identity_lifetime: Option<HumanDuration>,
    /// For processes: what one must be, such as k8s:ns:shop, to become one of its identities; repeatable.
    #[arg(long = "selector", value_name = "SELECTOR", value_parser = selector)]
    selectors: Vec<(String, String)>,
    /// For processes: a node whose agent may ask for what it makes, as SPIFFE ID; repeatable.
    #[arg(long = "parent", value_name = "ID")]
    parents: Vec<SpiffeId>,
    /// For processes: what a node must have proved for its agent to ask; repeatable.
    #[arg(long = "node-selector", value_name = "SELECTOR", value_parser = selector)]
    node_selectors: Vec<(String, String)>,
    /// Replace the template of this name.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    extent: Extent,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Its name.
    name: String,
    #[command(flatten)]
    connection: Connection,
}

impl Template {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        match self {
            Self::Create(create) => {
                let template = create.meaning()?;
                let client = create.connection.open(globals).await?;
                let view = if create.replace {
                    client.change_template(&template).await?
                } else {
                    client.register_template(&template).await?
                };
                print(terminal, &view)
            }
            Self::List(list) => list.run(globals, terminal).await,
            Self::Show(named) => {
                print(terminal, &named.connection.open(globals).await?.read_template(&named.name).await?)
            }
            Self::Remove(named) => {
                print(terminal, &named.connection.open(globals).await?.remove_template(&named.name).await?)
            }
        }
    }
}

impl List {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let client = self.connection.open(globals).await?;
        let found = self
            .extent
            .fetch(terminal, |limit, cursor| {
                let client = client.clone();
                async move { client.list_templates(&PageQuery { limit, cursor }).await }
            })
            .await?;
        terminal.data(&found, || {
            let rows = found.iter().map(|view| {
                let template = &view.template;
                vec![
                    template.name.clone(),
                    template.path.clone(),
                    template.owner.clone(),
                    template.profiles.join(","),
                ]
            });
            terminal.table(&["name", "path", "owner", "profiles"], rows)
        })
    }
}

impl Create {
    fn meaning(&self) -> Result<TemplateDocument> {
        let mut template: TemplateDocument = match (&self.file, &self.name, &self.path) {
            (Some(file), ..) => document(file)?,
            (None, Some(name), Some(path)) => {
                serde_json::from_value(serde_json::json!({ "name": name, "path": path }))?
            }
            _ => return Err(usage("name the template and its --path, or give --file")),
        };
        if let Some(name) = self.name.as_ref().filter(|name| **name != template.name) {
            return Err(usage(format!("the file is about {}, the command about {name}", template.name)));
        }
        if let Some(path) = &self.path {
            template.path.clone_from(path);
        }
        if !self.parameters.is_empty() {
            template.parameters.clear();
            for (name, value) in &self.parameters {
                template.parameters.entry(name.clone()).or_default().push(value.clone());
            }
        }
        for (target, value) in [
            (&mut template.owner, &self.owner),
            (&mut template.team, &self.team),
            (&mut template.purpose, &self.purpose),
            (&mut template.environment, &self.environment),
        ] {
            if let Some(value) = value {
                target.clone_from(value);
            }
        }
        template.sensitivity = self.sensitivity.unwrap_or(template.sensitivity);
        if !self.profiles.is_empty() {
            template.profiles.clone_from(&self.profiles);
        }
        template.max_lifetime = self.max_lifetime.or(template.max_lifetime);
        template.minimum_assurance = self.minimum_assurance.or(template.minimum_assurance);
        template.identity_lifetime = self.identity_lifetime.or(template.identity_lifetime);
        set_selectors(&mut template.selectors, &self.selectors);
        if !self.parents.is_empty() {
            template.parents.clone_from(&self.parents);
        }
        set_selectors(&mut template.node_selectors, &self.node_selectors);
        if template.owner.is_empty() {
            return Err(usage(
                "say who answers for what it makes with --owner; without an owner nothing is issued",
            ));
        }
        Ok(template)
    }
}

fn print(terminal: &Terminal, view: &TemplateView) -> Result<()> {
    terminal.data(view, || {
        let template = &view.template;
        let parameters: Vec<String> = template
            .parameters
            .iter()
            .map(|(name, values)| format!("{name}: {}", values.join(", ")))
            .collect();
        let parents: Vec<&str> = template.parents.iter().map(SpiffeId::as_str).collect();
        let optional = |value: Option<String>| value.unwrap_or_default();
        terminal.fields([
            ("template", template.name.clone()),
            ("path", template.path.clone()),
            ("parameters", parameters.join("\n")),
            ("owner", template.owner.clone()),
            ("team", template.team.clone()),
            ("purpose", template.purpose.clone()),
            ("environment", template.environment.clone()),
            ("sensitivity", text_of(&template.sensitivity)),
            ("profiles", template.profiles.join(", ")),
            ("max lifetime", optional(template.max_lifetime.map(|value| value.to_string()))),
            ("minimum assurance", optional(template.minimum_assurance.map(|value| value.to_string()))),
            ("selectors", written(&template.selectors, "\n")),
            ("parents", parents.join("\n")),
            ("node selectors", written(&template.node_selectors, "\n")),
            ("identities live", optional(template.identity_lifetime.map(|value| value.to_string()))),
            ("changed", view.changed.whole_second().to_string()),
        ])
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Cli, Command};

    fn meaning(arguments: &[&str]) -> Result<TemplateDocument> {
        let line = ["chancery", "template", "create"].iter().chain(arguments);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Template(Template::Create(create)) => create.meaning(),
            _ => panic!("not a template"),
        }
    }

    #[test]
    fn allowed_values_of_a_parameter_gather() {
        let flags = ["ci", "--path", "/ci/{job}", "--owner", "ada", "--allow", "job=a*", "--allow", "job=b"];
        let template = meaning(&flags).unwrap();
        assert_eq!(template.parameters["job"], ["a*", "b"]);
        assert_eq!(template.path, "/ci/{job}");
    }

    #[test]
    fn an_owner_is_required() {
        assert!(meaning(&["ci", "--path", "/ci/{job}"]).unwrap_err().to_string().contains("--owner"));
    }
}
