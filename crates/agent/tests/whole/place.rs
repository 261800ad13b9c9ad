//! What the tests share: an authority with short lifetimes, an agent, and this process's view of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chancery_agent::attest::LinuxAttestor;
use chancery_agent::config::{Config, RawConfig};
use chancery_agent::doors::Doors;
use chancery_agent::identities::X509State;
use chancery_agent::workload_api::follow;
use chancery_agent::{Agent, AgentError, Environment};
use chancery_api::IdentityDocument;
use chancery_types::{Identity, SystemClock, SystemRandom};
use tokio::sync::watch;

use crate::running::{Place, Running, id, token_for};

/// How soon a change has to be there.
pub(crate) const SOON: Duration = Duration::from_secs(1);
/// How long a test waits for what takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An authority, and a directory for an agent.
pub(crate) struct World {
    pub(crate) running: Running,
    pub(crate) directory: tempfile::TempDir,
}

/// An agent whose doors are open.
pub(crate) struct Serving {
    pub(crate) agent: Agent,
    pub(crate) doors: Doors,
}

impl World {
    /// An authority whose certificates live a minute, with one node that has a token.
    pub(crate) async fn new() -> Self {
        let place = Place::new().await;
        for profile in ["profiles/workload.toml", "profiles/node.toml"] {
            let path = place.file(profile);
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text
                .replace("default = \"1h\"", "default = \"60s\"")
                .replace("min = \"5m\"", "min = \"60s\"")
                .replace("backdate = \"60s\"", "backdate = \"5s\"");
            std::fs::write(&path, text).unwrap();
        }
        let server = place.serve().await.unwrap();
        let running = Running { place, server };
        let mut node = Identity::new(id("node/a"), "ada");
        node.profiles = vec!["node".into()];
        running.admin().register_identity(&IdentityDocument(node)).await.unwrap();
        let world = Self { running, directory: tempfile::tempdir().unwrap() };
        world.renew_token().await;
        world
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a new join token in place.
    pub(crate) async fn renew_token(&self) {
        let token = self.running.admin().create_token(&token_for("node/a")).await.unwrap().token;
        std::fs::write(self.file("join.token"), token.expose_secret()).unwrap();
    }

    /// The configuration of the node's agent, with these lines more.
    pub(crate) fn config(&self, more: &str) -> Config {
        let server = format!("https://localhost:{}", self.running.server.api_address().port());
        let roots = self.running.place.file("certs/root.crt");
        let text = format!(
            "server = {server:?}\ntrust_bundle = {roots:?}\n{more}\n\
             [evidence]\njoin_token_file = \"join.token\"\n\
             [workload_api]\nsocket = \"api.sock\"\n[status]\nsocket = \"status.sock\"\n"
        );
        let raw: RawConfig = toml::from_str(&text).unwrap();
        Config::check(raw, self.directory.path()).unwrap()
    }

    /// Begins an agent and opens its doors.
    pub(crate) async fn serve(&self, more: &str) -> Result<Serving, AgentError> {
        let config = self.config(more);
        let attestor = Arc::new(LinuxAttestor::new(config.attestor.clone()));
        let sinks = config.sinks.clone();
        let mut agent = Agent::begin(config, environment()).await?;
        let doors = agent.open_doors(attestor).await?;
        agent.run_sinks(sinks).await?;
        Ok(Serving { agent, doors })
    }

    /// Registers what this process is, as this name.
    pub(crate) async fn register(&self, name: &str) {
        self.register_with(name, |_| {}).await;
    }

    pub(crate) async fn register_with(&self, name: &str, edit: impl FnOnce(&mut Identity)) {
        let mut identity = Identity::new(id(name), "ada");
        identity.parents = vec![id("node/a")];
        identity.selectors = BTreeMap::from([("unix.uid".into(), uid())]);
        edit(&mut identity);
        self.running.admin().register_identity(&IdentityDocument(identity)).await.unwrap();
    }

    /// What this process is given, now and at every change.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<X509State>> {
        let (sender, receiver) = watch::channel(Arc::default());
        tokio::spawn(follow(self.file("api.sock"), sender));
        receiver
    }
}

pub(crate) fn environment() -> Environment {
    Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) }
}

/// The user that this runs as.
pub(crate) fn uid() -> String {
    rustix::process::geteuid().as_raw().to_string()
}

/// Waits until a state is as it should be.
pub(crate) async fn wait(
    states: &mut watch::Receiver<Arc<X509State>>,
    within: Duration,
    is_right: impl FnMut(&Arc<X509State>) -> bool,
) -> Arc<X509State> {
    let waited = tokio::time::timeout(within, states.wait_for(is_right)).await;
    let state = waited.expect("it comes in time").unwrap();
    Arc::clone(&state)
}

pub(crate) fn names(state: &X509State) -> Vec<String> {
    state.svids.iter().map(|svid| svid.spiffe_id.path().trim_start_matches('/').to_owned()).collect()
}
