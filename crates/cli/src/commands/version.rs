//! `chancery version`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::terminal::Terminal;

/// Prints the version.
#[derive(Debug, Args)]
pub(crate) struct Version {}

impl Version {
    pub(crate) fn run(&self, terminal: &Terminal) -> Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        let data = json!({ "name": "chancery", "version": version, "parquet": cfg!(feature = "parquet") });
        terminal.data(&data, || format!("chancery {version}"))
    }
}
