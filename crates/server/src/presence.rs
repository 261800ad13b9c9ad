//! What a replica says of itself in the database, every few seconds, so that whoever looks after all of them sees who is
//! there, how far it has come, and whether it works by the same rules.

use std::sync::Arc;
use std::time::Duration;

use chancery_ledger::Ledger;
use chancery_ledger::postgres::survey;
pub use chancery_ledger::postgres::{LeaseSeen, Survey, Writer};
use chancery_types::{Clock as _, Digest, SystemClock};
use serde::{Deserialize, Serialize};

use crate::authority::{Authority, OpenError, Rules};
use crate::config::{Config, LedgerPlace};
use crate::storage::{postgres_options, replica_name};

/// How often it is said.
const EVERY: Duration = Duration::from_secs(5);
/// How long it is remembered of a replica that falls silent.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Under which keys of the scratch table.
const PREFIX: &str = "replica/";

/// What one replica says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// What it is called.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// Hash over what replicas of one authority have in common in their configurations.
    pub configuration: String,
    /// Hash over the policy and the profiles in force.
    pub rules: String,
    /// Entries of the log that it knows of.
    pub position: u64,
    /// Connections to the database that it takes at most.
    pub connections: usize,
    /// Seconds since it started.
    pub uptime: u64,
}

/// Hash over what must be the same everywhere: addresses, paths and limits may differ.
fn configuration_hash(config: &Config) -> String {
    let common = (
        (&config.trust_domain, &config.names, &config.url, &config.status_url, config.tls12),
        (config.crl_validity, config.crl_shards, config.ocsp_validity, config.set_refresh),
        (config.change_limits, config.approval_lifetime, config.renew_same_key, &config.rotation),
        config.x509_pop.iter().map(|foreign| (&foreign.name, &foreign.purposes)).collect::<Vec<_>>(),
    );
    Digest::of(format!("{common:?}").as_bytes()).to_string()
}

fn rules_hash(rules: &Rules) -> String {
    let profiles: Vec<String> =
        rules.profiles().map(|profile| format!("{}={}", profile.name(), profile.hash())).collect();
    let text = format!("{}\n{}", rules.engine().policy_hash(), profiles.join("\n"));
    Digest::of(text.as_bytes()).to_string()
}

/// Says it for as long as it is polled; nothing where there are no replicas.
pub(crate) async fn keep(authority: Arc<Authority>) {
    let LedgerPlace::Postgres(place) = &authority.config().ledger else { return };
    let name = replica_name(place);
    let began = std::time::Instant::now();
    let key = key(&name);
    let said = Presence {
        name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        configuration: configuration_hash(authority.config()),
        rules: String::new(),
        position: 0,
        // Beside those for reading: one that writes and one that listens.
        connections: place.connections + 2,
        uptime: 0,
    };
    loop {
        let now = Presence {
            rules: rules_hash(&authority.rules()),
            position: authority.ledger().head().size,
            uptime: began.elapsed().as_secs(),
            ..said.clone()
        };
        say(authority.ledger().as_ref(), &key, &now, REMEMBERED).await;
        tokio::time::sleep(EVERY).await;
    }
}

/// A replica that stops in order is not missed.
pub(crate) async fn end(authority: &Authority) {
    if let LedgerPlace::Postgres(place) = &authority.config().ledger
        && let Some(scratch) = authority.ledger().scratch()
    {
        let key = key(&replica_name(place));
        let _ = scratch.replace(0, &key, b"{}", Duration::ZERO).await;
    }
}

async fn say(ledger: &dyn Ledger, key: &[u8], presence: &Presence, lifetime: Duration) {
    let Some(scratch) = ledger.scratch() else { return };
    let value = serde_json::to_vec(presence).expect("words and numbers are JSON");
    if let Err(error) = scratch.replace(0, key, &value, lifetime).await {
        tracing::debug!(%error, "the other replicas are not told of this one");
    }
}

fn key(name: &str) -> Vec<u8> {
    format!("{PREFIX}{}", Digest::of(name.as_bytes())).into_bytes()
}

/// A replica as the database knows it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What it said.
    pub presence: Presence,
    /// Seconds since it said so.
    pub ago: f64,
}

/// How the replicas of an authority and their database stand.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The database.
    pub database: Survey,
    /// Seconds by which its clock is ahead of this machine's.
    pub ahead: f64,
    /// Replicas that have said something in the last ten minutes.
    pub replicas: Vec<Seen>,
    /// What this directory's own would say.
    pub own: Presence,
    /// Where its checkpoint is kept.
    pub checkpoints: std::path::PathBuf,
}

impl Standing {
    /// Leases.
    #[must_use]
    pub fn leases(&self) -> &[LeaseSeen] {
        &self.database.leases
    }

    /// Who has written entries.
    #[must_use]
    pub fn writers(&self) -> &[Writer] {
        &self.database.writers
    }
}

/// Looks at the replicas of an authority; nothing when its ledger is in a directory.
///
/// # Errors
/// What cannot be read, or reached.
pub async fn look(config: &Config) -> Result<Option<Standing>, OpenError> {
    let LedgerPlace::Postgres(place) = &config.ledger else { return Ok(None) };
    let options = postgres_options(place)?;
    let rules = Rules::load(&config.profiles, &config.policy, &config.trust_domain)?;
    let database = survey(&options, PREFIX.as_bytes()).await?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of this age")]
    let here = SystemClock.now().millis() as f64 / 1000.0;
    let said = database.said.iter().filter_map(|said| {
        let presence = serde_json::from_slice(&said.value).ok()?;
        Some(Seen { presence, ago: REMEMBERED.as_secs_f64() - said.left })
    });
    Ok(Some(Standing {
        replicas: said.collect(),
        ahead: database.clock - here,
        own: Presence {
            name: replica_name(place),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            configuration: configuration_hash(config),
            rules: rules_hash(&rules),
            position: database.size,
            connections: place.connections + 2,
            uptime: 0,
        },
        checkpoints: place.checkpoints.clone(),
        database,
    }))
}
