//! A server process, and what is registered with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chancery_agent::config::{Config, RawConfig};
use chancery_api::{IdentityDocument, RevokeRequest, Selector};
use chancery_client::Client;
use chancery_types::{Identity, RevocationReason, SerialNumber};
use tokio::net::TcpStream;

use crate::program::{PATIENCE, Program};
use crate::running::{Place, id, token_for};

/// An authority with a server process, and a directory for agents.
pub(crate) struct Authority {
    place: Place,
    address: SocketAddr,
    server: Option<Program>,
    directory: tempfile::TempDir,
}

impl Authority {
    pub(crate) async fn new() -> Self {
        let place = Place::new().await;
        // One hand revokes all that there is.
        place.edit(|raw| raw.revocation.limit_share = 100);
        let address = place.config().api;
        let mut authority = Self { place, address, server: None, directory: tempfile::tempdir().unwrap() };
        authority.start().await;
        authority
    }

    /// Returns once it answers.
    pub(crate) async fn start(&mut self) {
        let log = self.file("server.log");
        let arguments = ["serve", "--quiet", "--config", "chancery.toml"];
        self.server = Some(Program::start(&arguments, self.place.directory(), &log));
        let begun = tokio::time::Instant::now();
        while TcpStream::connect(self.address).await.is_err() {
            let said = || std::fs::read_to_string(&log).unwrap();
            assert!(begun.elapsed() < PATIENCE, "{}", said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many requests a second, and how many at once, each caller may make of the server when it is started again.
    pub(crate) fn allow_each_caller(&self, per_second: u32, burst: u32) {
        self.place.edit(|raw| {
            raw.limits.requests_per_second = per_second;
            raw.limits.burst = burst;
        });
    }

    pub(crate) async fn stop(&mut self) {
        self.server.take().unwrap().stop().await;
    }

    pub(crate) fn server(&self) -> &Program {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn admin(&self) -> Client {
        self.place.client_at(self.address, Some(self.place.operator_identity()))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Registers a node and puts a token for it in a directory of its own.
    pub(crate) async fn register_node(&self, admin: &Client, name: &str) -> PathBuf {
        let mut node = Identity::new(id(name), "ada");
        node.profiles = vec!["node".into()];
        admin.register_identity(&IdentityDocument(node)).await.unwrap();
        let directory = self.file(name);
        std::fs::create_dir_all(&directory).unwrap();
        let token = admin.create_token(&token_for(name)).await.unwrap().token;
        std::fs::write(directory.join("join.token"), token.expose_secret()).unwrap();
        directory
    }

    /// Registers what processes of this user on this node are.
    pub(crate) async fn register(&self, admin: &Client, name: &str, node: &str, uid: &str) {
        let mut identity = Identity::new(id(name), "ada");
        identity.parents = vec![id(node)];
        identity.selectors = [("unix.uid", uid)].into();
        admin.register_identity(&IdentityDocument(identity)).await.unwrap();
    }

    pub(crate) async fn revoke(&self, admin: &Client, serial: SerialNumber) {
        let selector = Selector::Serial(serial);
        let reason = RevocationReason::Superseded;
        let request = RevokeRequest::new(selector, reason);
        admin.revoke(&request).await.unwrap();
    }

    /// What an agent's file in this directory says.
    pub(crate) fn agent_toml(&self) -> String {
        let server = format!("https://localhost:{}", self.address.port());
        let roots = self.place.file("certs/root.crt");
        format!(
            "server = {server:?}\ntrust_bundle = {roots:?}\n\
             [evidence]\njoin_token_file = \"join.token\"\n\
             [state]\ndirectory = \"state\"\nkeep_credential = true\n\
             [workload_api]\nsocket = \"api.sock\"\n[status]\nsocket = \"status.sock\"\n"
        )
    }

    /// The same for an agent inside of this process.
    pub(crate) fn agent_config(&self, directory: &Path) -> Config {
        let raw: RawConfig = toml::from_str(&self.agent_toml()).unwrap();
        Config::check(raw, directory).unwrap()
    }

    /// An agent process on a node that has a token or a credential; `more` is in its file too.
    pub(crate) fn start_agent(&self, directory: &Path, more: &str) -> Program {
        std::fs::write(directory.join("agent.toml"), self.agent_toml() + more).unwrap();
        Program::start(&["agent", "--quiet", "--config", "agent.toml"], directory, &directory.join("log"))
    }
}

/// The user that this runs as.
pub(crate) fn uid() -> String {
    rustix::process::geteuid().as_raw().to_string()
}
