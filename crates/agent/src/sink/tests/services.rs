//! nginx and PostgreSQL as Debian ships them, rotated while clients keep coming.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::*;
use crate::probe::StartTls;

/// A service in a process group of its own, all of which ends with the test: the workers of nginx outlive a master
/// that is killed.
struct Daemon(rustix::process::Pid, #[expect(dead_code, reason = "waited for while this is there")] Child);

impl Daemon {
    fn start(command: &mut Command) -> std::io::Result<Self> {
        let child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
        Ok(Self(pid, child))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process_group(self.0, rustix::process::Signal::KILL);
    }
}

/// Clients that do nothing but shake hands, one after the other, and verify what they are shown.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn begin(authority: &Authority, address: SocketAddr, starttls: Option<StartTls>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.root.clone())).unwrap();
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        let connector = TlsConnector::from(Arc::new(config));
        let stop = Arc::new(AtomicBool::new(false));
        let good = Arc::new(AtomicUsize::new(0));
        let failures: Arc<Mutex<Vec<String>>> = Arc::default();
        let clients = (0..4).map(|_| {
            let (connector, stop, good, failures) =
                (connector.clone(), stop.clone(), good.clone(), failures.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    match handshake(&connector, address, starttls).await {
                        Ok(()) => drop(good.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => failures.lock().unwrap().push(error.to_string()),
                    }
                }
            })
        });
        Self { clients: clients.collect(), stop, good, failures }
    }

    /// Waits for this many more good handshakes.
    async fn more(&self, count: usize) {
        let wanted = self.good.load(Ordering::SeqCst) + count;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while self.good.load(Ordering::SeqCst) < wanted {
            assert!(tokio::time::Instant::now() < deadline, "{:?}", self.failures.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it and returns how many handshakes there were; none may have failed.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{} handshakes failed: {:?}", failures.len(), failures.first());
        self.good.load(Ordering::SeqCst)
    }
}

async fn handshake(
    connector: &TlsConnector,
    address: SocketAddr,
    starttls: Option<StartTls>,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    if starttls == Some(StartTls::Postgres) {
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
        assert_eq!(stream.read_u8().await?, b'S');
    }
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, stream).await?.shutdown().await
}

/// A port that was free a moment ago: neither service can be asked for any port.
async fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Rotates three times under load; the service has to serve every certificate.
async fn rotate_under_load(
    authority: &Authority,
    states: &watch::Sender<Arc<X509State>>,
    status: &mut watch::Receiver<SinkStatus>,
    address: SocketAddr,
    starttls: Option<StartTls>,
) -> Load {
    let load = Load::begin(authority, address, starttls);
    load.more(20).await;
    for _ in 0..3 {
        let state = authority.issue(Duration::from_secs(600));
        states.send_replace(state.clone());
        served(status, &state).await;
        load.more(20).await;
    }
    load
}

async fn served(status: &mut watch::Receiver<SinkStatus>, state: &X509State) {
    let serial = svid(state).serial.to_string();
    until(status, |status| {
        let is_it = status.in_place.as_ref().is_some_and(|certificate| certificate.serial == serial);
        status.phase == Phase::Current && is_it
    })
    .await;
}

fn nginx_configuration(home: &Path, tls: &Path, address: SocketAddr) -> PathBuf {
    let (home, tls) = (home.display(), tls.display());
    let text = format!(
        "daemon off; worker_processes 2; pid {home}/nginx.pid; error_log {home}/error.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off;\n\
           client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;\n\
           uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5;\n\
           server {{ listen {address} ssl; ssl_certificate {tls}/tls.crt; ssl_certificate_key {tls}/tls.key;\n\
             location / {{ return 204; }} }} }}\n"
    );
    let path = PathBuf::from(format!("{home}/nginx.conf"));
    fs::write(&path, text).unwrap();
    path
}

/// A sink whose first certificate is written before the service is there, as at the start of a machine.
async fn first_files(config: SinkConfig, state: &Arc<X509State>) {
    let sink = open(config);
    let mut status = sink.status();
    let (states, receiver) = watch::channel(state.clone());
    let running = tokio::spawn(sink.run(receiver));
    served(&mut status, state).await;
    drop(states);
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_is_rotated_under_load_without_a_failed_handshake() {
    let (home, path) = place();
    let address = free_port().await;
    let authority = Authority::new();
    let first = authority.issue(Duration::from_secs(600));
    first_files(configure(&path, serde_json::json!({})), &first).await;
    let configuration = nginx_configuration(home.path(), &path, address);
    let mut nginx = Command::new("/usr/sbin/nginx");
    let Ok(_nginx) = Daemon::start(nginx.arg("-c").arg(configuration).stderr(Stdio::null())) else {
        println!("SKIPPED nginx_is_rotated_under_load_without_a_failed_handshake: nginx is not installed");
        return;
    };
    let probe = serde_json::json!({ "address": address.to_string(), "server_name": "localhost" });
    let hook =
        serde_json::json!({ "pidfile": home.path().join("nginx.pid"), "executable": "/usr/sbin/nginx" });
    // nginx writes its pid before it listens; what it says is kept.
    let is_up = crate::probe::Probe::try_from(
        serde_json::from_value::<crate::probe::ProbeSettings>(probe.clone()).unwrap(),
    )
    .unwrap();
    assert_eq!(is_up.wait_for(&svid(&first).chain[0]).await, crate::probe::ProbeOutcome::Serving);

    let sink = open(configure(&path, serde_json::json!({ "hook": hook, "probe": probe })));
    let mut status = sink.status();
    let (states, receiver) = watch::channel(first);
    let running = tokio::spawn(sink.run(receiver));
    let load = rotate_under_load(&authority, &states, &mut status, address, None).await;

    // A hook that is broken on purpose: reported within this rotation, and nobody loses a connection.
    drop(states);
    running.await.unwrap();
    let broken = serde_json::json!({
        "hook": { "command": ["/bin/false"] },
        "probe": { "address": address.to_string(), "server_name": "localhost", "patience": "100ms" },
    });
    let sink = open(configure(&path, broken));
    let mut status = sink.status();
    let (_states, receiver) = watch::channel(authority.issue(Duration::from_secs(600)));
    tokio::spawn(sink.run(receiver));
    let failing = until(&mut status, |status| status.phase == Phase::HookFailed).await;
    // Which other one is not said: workers that end may still answer with the certificate before the last.
    assert!(matches!(&failing.probe, Some(crate::probe::ProbeOutcome::ServingAnother { .. })), "{failing:?}");
    println!("nginx: {} handshakes, none failed", load.end().await);
}

/// The newest PostgreSQL of this machine.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let newest =
        versions.filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse::<u32>().ok()).max()?;
    Some(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin")))
}

async fn start_postgres(
    programs: &Path,
    data: &Path,
    tls: &Path,
    address: SocketAddr,
    user: (u32, u32),
) -> Daemon {
    let initdb = Command::new(programs.join("initdb"))
        .args(["--auth=trust", "--no-sync", "--no-instructions", "--username=postgres", "-D"])
        .arg(data)
        .current_dir("/")
        .uid(user.0)
        .gid(user.1)
        .output()
        .await
        .unwrap();
    assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
    let tls = tls.display();
    let lines = format!(
        "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nssl = on\n\
         ssl_cert_file = '{tls}/tls.crt'\nssl_key_file = '{tls}/tls.key'\n",
        address.port()
    );
    let path = data.join("postgresql.conf");
    fs::write(&path, fs::read_to_string(&path).unwrap() + &lines).unwrap();
    let mut postgres = Command::new(programs.join("postgres"));
    postgres.arg("-D").arg(data).current_dir("/").uid(user.0).gid(user.1);
    Daemon::start(postgres.stderr(Stdio::from(fs::File::create(data.with_extension("log")).unwrap())))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_rotated_under_load_without_a_failed_handshake() {
    let skip = |why: &str| {
        println!("SKIPPED postgresql_is_rotated_under_load_without_a_failed_handshake: {why}");
    };
    let Some(programs) = postgres_programs() else { return skip("PostgreSQL is not installed") };
    if !rustix::process::geteuid().is_root() {
        return skip("only root gives files to the user postgres");
    }
    let Ok(user) = super::super::owner::resolve(Some("postgres"), Some("postgres")) else {
        return skip("there is no user postgres");
    };
    let user = (user.uid.unwrap(), user.gid.unwrap());
    let (_home, path) = place();
    let database = tempfile::tempdir().unwrap();
    chown(database.path(), Some(user.0), Some(user.1)).unwrap();
    let data = database.path().join("data");
    let address = free_port().await;
    let authority = Authority::new();
    let first = authority.issue(Duration::from_secs(600));
    let owner = serde_json::json!({ "owner": "postgres", "group": "postgres" });
    first_files(configure(&path, owner), &first).await;

    let _postgres = start_postgres(&programs, &data, &path, address, user).await;
    let sink = open(configure(
        &path,
        serde_json::json!({
            "owner": "postgres",
            "group": "postgres",
            "hook": { "pidfile": data.join("postmaster.pid"), "executable": programs.join("postgres") },
            "probe": {
                "address": address.to_string(), "server_name": "localhost", "starttls": "postgres", "patience": "30s",
            },
        }),
    ));
    let mut status = sink.status();
    let (states, receiver) = watch::channel(first.clone());
    tokio::spawn(sink.run(receiver));
    served(&mut status, &first).await;
    let load = rotate_under_load(&authority, &states, &mut status, address, Some(StartTls::Postgres)).await;
    println!("PostgreSQL: {} handshakes, none failed", load.end().await);
}
