//! What the tests share: an authority with short lifetimes, an agent, and this process's view of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chancery_agent::attest::LinuxAttestor;
use chancery_agent::config::{Config, RawConfig};
use chancery_agent::doors::Doors;
use chancery_agent::identities::X509State;
use chancery_agent::workload_api::follow;
use chancery_agent::{Agent, AgentError, Environment};
use chancery_api::{IdentityDocument, RevokeRequest, Selector};
use chancery_client::Client;
use chancery_server::Server;
use chancery_types::{Identity, RevocationReason, SerialNumber, SystemClock, SystemRandom};
use tokio::sync::watch;

use crate::running::{Place, free_address, id, token_for};

/// How soon a change has to be there.
pub(crate) const SOON: Duration = Duration::from_secs(1);
/// How long a test waits for what takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An authority, and a directory for an agent.
pub(crate) struct World {
    place: Place,
    server: Option<Server>,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

/// An agent whose doors are open.
pub(crate) struct Serving {
    pub(crate) agent: Agent,
    pub(crate) doors: Doors,
}

impl Serving {
    pub(crate) async fn stop(self) {
        self.doors.close(PATIENCE).await;
        self.agent.stop().await;
    }
}

impl World {
    /// An authority whose certificates live a minute, with one node that has a token.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same; `edit` changes what the authority is made of before it begins.
    pub(crate) async fn with(edit: impl FnOnce(&Place)) -> Self {
        let place = Place::new().await;
        edit(&place);
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
        let address = server.api_address();
        let world = Self { place, server: Some(server), address, directory: tempfile::tempdir().unwrap() };
        let mut node = Identity::new(id("node/a"), "ada");
        node.profiles = vec!["node".into()];
        world.admin().register_identity(&IdentityDocument(node)).await.unwrap();
        world.renew_token().await;
        world
    }

    /// The authority's directory.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where the authority is reached.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// An operator's client.
    pub(crate) fn admin(&self) -> Client {
        self.place.client_at(self.address, Some(self.place.operator_identity()))
    }

    /// Stops the authority.
    pub(crate) async fn stop_server(&mut self) {
        self.server.take().unwrap().stop().await;
    }

    /// Starts it again, at the same address.
    pub(crate) async fn start_server(&mut self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        self.server = loop {
            match self.place.serve().await {
                Ok(server) => break Some(server),
                // The last of its tasks still has the ledger open.
                Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
    }

    /// Revokes a certificate while the agent cannot reach the authority, which stays stopped; what its streams would
    /// have told is forgotten.
    pub(crate) async fn revoke_behind_closed_doors(&mut self, serial: SerialNumber) {
        self.stop_server().await;
        let (public, elsewhere) = (self.address, free_address());
        self.place.edit(|raw| raw.listen.api = elsewhere.to_string());
        self.start_server().await;
        self.address = elsewhere;
        self.revoke(serial).await;
        self.stop_server().await;
        self.place.edit(|raw| raw.listen.api = public.to_string());
        self.address = public;
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a new join token in place.
    pub(crate) async fn renew_token(&self) {
        let token = self.admin().create_token(&token_for("node/a")).await.unwrap().token;
        std::fs::write(self.file("join.token"), token.expose_secret()).unwrap();
    }

    /// The configuration of the node's agent, with these lines more.
    pub(crate) fn config(&self, more: &str) -> Config {
        self.config_with("join_token_file = \"join.token\"", more)
    }

    /// The same with other evidence.
    pub(crate) fn config_with(&self, evidence: &str, more: &str) -> Config {
        let server = self.url();
        let roots = self.place.file("certs/root.crt");
        let text = format!(
            "server = {server:?}\ntrust_bundle = {roots:?}\n{more}\n\
             [evidence]\n{evidence}\n\
             [workload_api]\nsocket = \"api.sock\"\n[status]\nsocket = \"status.sock\"\n"
        );
        let raw: RawConfig = toml::from_str(&text).unwrap();
        Config::check(raw, self.directory.path()).unwrap()
    }

    /// Begins an agent and opens its doors.
    pub(crate) async fn serve(&self, more: &str) -> Result<Serving, AgentError> {
        self.serve_as(self.config(more)).await
    }

    /// The same with this configuration.
    pub(crate) async fn serve_as(&self, config: Config) -> Result<Serving, AgentError> {
        let attestor = Arc::new(LinuxAttestor::new(config.attestor.clone()));
        let sinks = config.sinks.clone();
        let mut agent = Agent::begin(config, environment()).await?;
        let doors = match agent.open_doors(attestor).await {
            Ok(doors) => doors,
            Err(error) => {
                agent.stop().await;
                return Err(error);
            }
        };
        agent.run_sinks(sinks).await?;
        Ok(Serving { agent, doors })
    }

    /// Registers what this process is, as this name.
    pub(crate) async fn register(&self, name: &str) {
        self.register_with(name, |_| {}).await;
    }

    /// Revokes one certificate.
    pub(crate) async fn revoke(&self, serial: SerialNumber) {
        let selector = Selector::Serial(serial);
        let reason = RevocationReason::KeyCompromise;
        let request = RevokeRequest::new(selector, reason);
        self.admin().revoke(&request).await.unwrap();
    }

    pub(crate) async fn register_with(&self, name: &str, edit: impl FnOnce(&mut Identity)) {
        let mut identity = Identity::new(id(name), "ada");
        identity.parents = vec![id("node/a")];
        identity.selectors = [("unix.uid", uid())].into();
        edit(&mut identity);
        self.admin().register_identity(&IdentityDocument(identity)).await.unwrap();
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
