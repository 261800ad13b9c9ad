//! `chancery profile`: the profiles in force, under which certificates are issued.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::connection::Connection;
use crate::failure::usage;
use crate::flags::Globals;
use crate::terminal::Terminal;

/// Shows the profiles in force.
#[derive(Debug, Subcommand)]
pub(crate) enum Profile {
    /// List the profiles.
    List(List),
    /// Show a profile, TOML.
    Show(Show),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its name.
    name: String,
    #[command(flatten)]
    connection: Connection,
}

impl Profile {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        match self {
            Self::List(List { connection }) => {
                let profiles = connection.open(globals).await?.read_policy().await?.profiles;
                terminal.data(&profiles, || {
                    let rows =
                        profiles.iter().map(|profile| vec![profile.name.clone(), profile.hash.to_string()]);
                    terminal.table(&["profile", "hash"], rows)
                })
            }
            Self::Show(Show { name, connection }) => {
                let profiles = connection.open(globals).await?.read_policy().await?.profiles;
                let Some(profile) = profiles.iter().find(|profile| profile.name == *name) else {
                    let names: Vec<&str> = profiles.iter().map(|profile| profile.name.as_str()).collect();
                    return Err(usage(format!(
                        "there is no profile {name:?}; there are {}",
                        names.join(", ")
                    )));
                };
                terminal.data(profile, || profile.text.clone())
            }
        }
    }
}
