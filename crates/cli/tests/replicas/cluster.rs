//! PostgreSQL, three replicas with a network each, and a balancer before them.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chancery_api::{CreateTokenRequest, IdentityDocument};
use chancery_client::{Client, RetryPolicy, TlsIdentity, TrustAnchors};
use chancery_types::{Identity, SpiffeId};
use tokio::net::{TcpListener, TcpStream};

use crate::network::Proxy;
use crate::process::{command, free_port, run};
use crate::server::Server;

pub(crate) const REPLICAS: usize = 3;
/// The root's, in a file beside the replicas.
pub(crate) const PASSPHRASE: &str = "root.passphrase";

/// The identity that everybody enrols as.
pub(crate) fn web() -> SpiffeId {
    "spiffe://example.org/web".parse().unwrap()
}

pub(crate) struct Cluster {
    pub(crate) database: Server,
    /// Between each replica and the database.
    pub(crate) networks: Vec<Proxy>,
    directory: tempfile::TempDir,
    /// Where each replica listens.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Where the balancer does.
    pub(crate) balancer: SocketAddr,
    replicas: Vec<Option<Child>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..REPLICAS).for_each(|which| self.kill(which));
        if std::thread::panicking() {
            for which in 0..REPLICAS {
                let log = std::fs::read_to_string(self.log(which)).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("--- replica {which}");
                end.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

impl Cluster {
    /// Makes an authority on a new database and serves it three times.
    pub(crate) async fn start(database: Server) -> Self {
        Self::begin(database, &[], |_| {}).await
    }

    /// The same, made with these flags, of one that rotates within seconds and whose replicas share keys and certificates.
    pub(crate) async fn start_rotating(database: Server, flags: &[&str]) -> Self {
        Self::start_sharing(database, flags, &["keys", "certs"]).await
    }

    /// The same of replicas that share these directories.
    pub(crate) async fn start_sharing(database: Server, flags: &[&str], shared: &[&str]) -> Self {
        let soon = |cluster: &Self| {
            shared.iter().for_each(|name| cluster.share(name));
            (0..REPLICAS).for_each(|which| rotate_soon(&cluster.path(which).join("chancery.toml")));
        };
        Self::begin(database, flags, soon).await
    }

    async fn begin(database: Server, flags: &[&str], prepare: impl Fn(&Self)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut networks = Vec::new();
        for _ in 0..REPLICAS {
            networks.push(Proxy::start(database.address()).await);
        }
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let addresses: Vec<SocketAddr> = (0..REPLICAS).map(|_| local(free_port())).collect();
        let balancer = balance(addresses.clone()).await;
        let mut cluster = Self { database, networks, directory, addresses, balancer, replicas: Vec::new() };
        tokio::task::block_in_place(|| cluster.make(flags));
        prepare(&cluster);
        for which in 0..REPLICAS {
            cluster.replicas.push(None);
            cluster.spawn(which);
        }
        cluster.each_serves().await;
        cluster
    }

    /// `chancery init` on the database, and a copy of the directory for each replica with addresses of its own.
    fn make(&self, flags: &[&str]) {
        let (listen, status) = (self.addresses[0].to_string(), format!("127.0.0.1:{}", free_port()));
        let url = format!("https://localhost:{}", self.balancer.port());
        let database = &self.networks[0].address;
        std::fs::write(self.beside().join(PASSPHRASE), "a long passphrase of the root\n").unwrap();
        let init = [
            "init",
            "--yes",
            "--trust-domain",
            "example.org",
            "--dir",
            "replica-0",
            "--root-dir",
            "root",
            "--passphrase-file",
            PASSPHRASE,
            "--listen",
            &listen,
            "--status-listen",
            &status,
            "--url",
            &url,
            "--database",
            database,
        ];
        run(self.directory.path(), &[&init, flags].concat()).success();
        let first = self.path(0);
        (1..REPLICAS).for_each(|which| copy(&first, &self.path(which)));
        for which in 0..REPLICAS {
            let file = self.path(which).join("chancery.toml");
            let own_status = format!("127.0.0.1:{}", free_port());
            let text = std::fs::read_to_string(&file).unwrap();
            let floor = text.lines().find(|line| line.starts_with("limit_floor")).unwrap().to_owned();
            let text = text
                .replace(&floor, "limit_floor = 1000000")
                .replace(&listen, &self.addresses[which].to_string())
                .replace(&status, &own_status)
                .replace(database.as_str(), &self.networks[which].address);
            std::fs::write(&file, text).unwrap();
        }
    }

    /// From here on this directory of the first replica is that of all.
    fn share(&self, name: &str) {
        let shared = self.beside().join(name);
        std::fs::rename(self.path(0).join(name), &shared).unwrap();
        (1..REPLICAS).for_each(|which| std::fs::remove_dir_all(self.path(which).join(name)).unwrap());
        (0..REPLICAS).for_each(|which| symlink(&shared, self.path(which).join(name)).unwrap());
    }

    pub(crate) fn path(&self, which: usize) -> PathBuf {
        self.directory.path().join(format!("replica-{which}"))
    }

    fn log(&self, which: usize) -> PathBuf {
        self.directory.path().join(format!("replica-{which}.log"))
    }

    /// What is beside the replicas.
    pub(crate) fn beside(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn spawn(&mut self, which: usize) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(which)).unwrap();
        let child = command(self.directory.path())
            .args(["serve", "--allow-online-root", "--config"])
            .arg(self.path(which).join("chancery.toml"))
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.replicas[which] = Some(child);
    }

    /// Starts a replica that must not come up; what it said.
    pub(crate) fn refuses_to_serve(&self, which: usize) -> String {
        let config = self.path(which).join("chancery.toml");
        let serve = ["serve", "--allow-online-root", "--config", config.to_str().unwrap()];
        run(self.directory.path(), &serve).code(1)
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, which: usize) {
        if let Some(mut child) = self.replicas.get_mut(which).and_then(Option::take) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// A client that sends everything once and is not patient.
    pub(crate) fn client(&self, address: SocketAddr, identity: Option<TlsIdentity>) -> Client {
        client(&self.path(0), address, identity)
    }

    pub(crate) fn operator(&self, address: SocketAddr) -> Client {
        self.client(address, Some(operator(&self.path(0))))
    }

    /// Waits until something is recorded through the balancer.
    pub(crate) async fn serves(&self) {
        self.records(self.balancer).await;
    }

    /// Waits until each replica records something.
    pub(crate) async fn each_serves(&self) {
        for address in &self.addresses {
            self.records(*address).await;
        }
    }

    async fn records(&self, address: SocketAddr) {
        let until = Instant::now() + Duration::from_secs(40);
        let identity = IdentityDocument(Identity::new(web(), "ada"));
        loop {
            // A new connection each time: one that hangs is nobody's service.
            let client = self.operator(address);
            let recorded = async {
                let _ = client.register_identity(&identity).await;
                client.create_token(&token()).await
            };
            match tokio::time::timeout(Duration::from_millis(1500), recorded).await {
                Ok(Ok(_)) => return,
                failed => assert!(Instant::now() < until, "{address} does not serve: {failed:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Four seconds of notice instead of many minutes.
fn rotate_soon(config: &Path) {
    let mut text = std::fs::read_to_string(config).unwrap();
    let times = [
        ("refresh_hint", "5m", "1s"),
        ("margin", "5m", "0s"),
        ("settle", "1h", "0s"),
        ("log_overlap", "30days", "8s"),
    ];
    for (name, usual, soon) in times {
        let (usual, soon) = (format!("{name} = \"{usual}\""), format!("{name} = \"{soon}\""));
        assert!(text.contains(&usual), "{text}");
        text = text.replace(&usual, &soon);
    }
    std::fs::write(config, text).unwrap();
}

pub(crate) fn token() -> CreateTokenRequest {
    serde_json::from_value(serde_json::json!({ "identity": web() })).unwrap()
}

pub(crate) fn operator(directory: &Path) -> TlsIdentity {
    let read = |name: &str| std::fs::read(directory.join("operators").join(name)).unwrap();
    TlsIdentity::from_pem(&read("admin.crt"), &read("admin.key")).unwrap()
}

pub(crate) fn client(directory: &Path, address: SocketAddr, identity: Option<TlsIdentity>) -> Client {
    client_of(&directory.join("certs/root.crt"), address, identity)
}

/// One that believes this root, and nothing else.
pub(crate) fn client_of(root: &Path, address: SocketAddr, identity: Option<TlsIdentity>) -> Client {
    let anchors = TrustAnchors::from_pem(&std::fs::read(root).unwrap()).unwrap();
    let url = format!("https://localhost:{}", address.port());
    let mut builder = Client::builder(url.parse().unwrap())
        .trust(anchors)
        .retry(RetryPolicy::never())
        .connect_timeout(Duration::from_secs(1))
        .request_timeout(Duration::from_secs(4));
    if let Some(identity) = identity {
        builder = builder.identity(identity);
    }
    builder.build().unwrap()
}

/// Sends each connection to the next replica that accepts it; knows nothing else of them.
async fn balance(behind: Vec<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let turn = AtomicUsize::new(0);
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let first = turn.fetch_add(1, Ordering::Relaxed);
            let behind = behind.clone();
            tokio::spawn(async move {
                for next in first..first + behind.len() {
                    if let Ok(mut replica) = TcpStream::connect(behind[next % behind.len()]).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut replica).await;
                        return;
                    }
                }
            });
        }
    });
    address
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => std::fs::copy(entry.path(), &target).map(|_| ()).unwrap(),
        }
    }
    let mode = std::fs::metadata(from).unwrap().permissions();
    std::fs::set_permissions(to, mode).unwrap();
}
