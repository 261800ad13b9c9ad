//! What the tests share: an authority with a list of its root, certificates in files, clients that count, programs
//! that end with the test.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chancery_api::{IdentityDocument, RevokeRequest, Selector};
use chancery_proxy::crl_sync::{CrlSync, CrlSyncConfig, RawCrlSync};
use chancery_types::{Identity, RevocationReason, SerialNumber, SystemClock};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::running::{Held, Running, id};

/// How long a test waits for what takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) running: Running,
    directory: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let running = Running::start().await;
        let world = Self { running, directory: tempfile::tempdir().unwrap() };
        std::fs::copy(world.running.place.file("certs/root.crt"), world.file("bundle.crt")).unwrap();
        world.make_root_list();
        world
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A directory for one program.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        let path = self.file(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// What an operator does at the root, once in a year.
    fn make_root_list(&self) {
        let root = self.running.place.beside("root");
        let text = format!(
            "[ca]\ndefault_ca = root\n[root]\ndatabase = {0}/index\ncrlnumber = {0}/number\ndefault_md = sha256\n\
             default_crl_days = 30\ncrl_extensions = crl\n[crl]\nauthorityKeyIdentifier = keyid:always\n",
            self.directory.path().display()
        );
        for (name, content) in [("root.cnf", text.as_str()), ("index", ""), ("number", "01\n")] {
            std::fs::write(self.file(name), content).unwrap();
        }
        let made = std::process::Command::new("openssl")
            .args(["ca", "-gencrl", "-passin", "pass:a long passphrase", "-config"])
            .arg(self.file("root.cnf"))
            .arg("-keyfile")
            .arg(root.join("root.key"))
            .arg("-cert")
            .arg(root.join("root.crt"))
            .arg("-out")
            .arg(self.file("root.crl"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Registers an identity that may be called localhost, enrols it, and puts it in files of this directory.
    pub(crate) async fn server_files(&self, home: &Path, name: &str) -> Held {
        let mut identity = Identity::new(id(name), "ada");
        identity.dns_names = vec!["localhost".parse().unwrap()];
        self.running.admin().register_identity(&IdentityDocument(identity)).await.unwrap();
        let held = self.running.enroll_again(name).await;
        write_files(home, &held);
        std::fs::copy(self.file("bundle.crt"), home.join("bundle.crt")).unwrap();
        held
    }

    pub(crate) async fn revoke(&self, held: &Held) {
        let request = RevokeRequest {
            selector: Selector::Serial(serial(held)),
            reason: RevocationReason::KeyCompromise,
            dry_run: false,
            note: String::new(),
        };
        self.running.admin().revoke(&request).await.unwrap();
    }

    pub(crate) fn server_url(&self) -> String {
        format!("https://localhost:{}", self.running.server.api_address().port())
    }

    /// The recipe's configuration with only this output, and paths of this test.
    pub(crate) fn crl_sync_config(&self, output: &str, replaced: &[(&str, &Path)]) -> CrlSyncConfig {
        let mut text = recipe("crl-sync.toml");
        for (path, by) in replaced {
            assert!(text.contains(path), "{path} is not in the recipe");
            text = text.replace(path, by.to_str().unwrap());
        }
        let mut raw: RawCrlSync = toml::from_str(&text).unwrap();
        raw.server = self.server_url();
        raw.trust_bundle = self.file("bundle.crt");
        raw.also = vec![self.file("root.crl")];
        raw.poll = Some("1s".parse().unwrap());
        raw.identity = None;
        raw.outputs.retain(|candidate| candidate.name == output);
        CrlSyncConfig::check(raw, self.directory.path()).unwrap()
    }

    pub(crate) async fn crl_sync(&self, config: CrlSyncConfig) -> CrlSync {
        CrlSync::new(config, Arc::new(SystemClock)).await.unwrap()
    }

    /// A client that shows this certificate, or none.
    pub(crate) fn client(&self, held: Option<&Held>) -> Client {
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(self.file("bundle.crt")).unwrap();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).map(Result::unwrap));
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match held {
            None => builder.with_no_client_auth(),
            Some(held) => {
                let chain = held.chain();
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(held.key.to_pkcs8_pem().as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.resumption = rustls::client::Resumption::disabled();
        Client(Arc::new(config))
    }
}

/// A recipe, as it is shipped.
pub(crate) fn recipe(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ca-config/recipes").join(name);
    std::fs::read_to_string(&path).unwrap()
}

pub(crate) fn serial(held: &Held) -> SerialNumber {
    held.response.serial
}

pub(crate) fn write_files(home: &Path, held: &Held) {
    let (chain, key) = (held.chain(), held.key.to_pkcs8_pem());
    std::fs::write(home.join("tls.pem"), format!("{}{chain}", key.as_str())).unwrap();
    std::fs::write(home.join("tls.crt"), chain).unwrap();
    std::fs::write(home.join("tls.key"), key.as_bytes()).unwrap();
}

/// A TLS client that begins anew each time.
#[derive(Clone)]
pub(crate) struct Client(Arc<ClientConfig>);

impl Client {
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        self.over(stream, &[]).await
    }

    /// Over a connection that is there, offering these protocols.
    pub(crate) async fn over(
        &self,
        stream: TcpStream,
        alpn: &[&str],
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    /// The status of the answer to a request.
    pub(crate) async fn get(&self, address: SocketAddr) -> io::Result<u16> {
        let mut stream = self.connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        // Servers often end without saying so.
        if let Err(error) = stream.read_to_end(&mut answer).await
            && answer.is_empty()
        {
            return Err(error);
        }
        let line = String::from_utf8_lossy(&answer);
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("no answer: {line:?}")))
    }

    /// Waits until requests are answered as they should be, and says how long that took.
    pub(crate) async fn until(
        &self,
        address: SocketAddr,
        right: impl Fn(&io::Result<u16>) -> bool,
    ) -> Duration {
        let began = Instant::now();
        loop {
            let answer = self.get(address).await;
            if right(&answer) {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "{answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Clients that ask one after the other, and are all answered.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub(crate) fn begin(client: &Client, address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let good = Arc::new(AtomicUsize::new(0));
        let failures: Arc<Mutex<Vec<String>>> = Arc::default();
        let clients = (0..4).map(|_| {
            let (client, stop, good, failures) =
                (client.clone(), stop.clone(), good.clone(), failures.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    match client.get(address).await {
                        Ok(200) => drop(good.fetch_add(1, Ordering::SeqCst)),
                        other => failures.lock().unwrap().push(format!("{other:?}")),
                    }
                }
            })
        });
        Self { clients: clients.collect(), stop, good, failures }
    }

    /// Waits for this many more good answers.
    pub(crate) async fn more(&self, count: usize) {
        let wanted = self.good.load(Ordering::SeqCst) + count;
        let deadline = Instant::now() + PATIENCE;
        while self.good.load(Ordering::SeqCst) < wanted {
            assert!(Instant::now() < deadline, "{:?}", self.failures.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it and returns how many answers there were; all must have been good.
    pub(crate) async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), failures.first());
        self.good.load(Ordering::SeqCst)
    }
}

/// A program in a process group of its own, all of which ends with the test.
pub(crate) struct Program {
    group: rustix::process::Pid,
    _child: tokio::process::Child,
}

impl Program {
    pub(crate) fn start(command: &mut tokio::process::Command) -> io::Result<Self> {
        let child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let group = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
        Ok(Self { group, _child: child })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process_group(self.group, rustix::process::Signal::KILL);
    }
}
