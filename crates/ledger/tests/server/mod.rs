//! A PostgreSQL of the tests' own: unprivileged, in a temporary directory, as Debian ships it.
//!
//! `CHANCERY_TEST_POSTGRES` names one that is there already; `scripts/test` starts one for all tests.

#![allow(dead_code, reason = "each includer uses its part")]

mod port;

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use port::free_port;

/// Names the database that tests may use.
const ADDRESS: &str = "CHANCERY_TEST_POSTGRES";

/// A database server; stopped on drop when it was started here.
pub(crate) struct Server {
    own: Option<Own>,
    address: String,
}

struct Own {
    programs: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// The one that is there, or one that is started; nothing where PostgreSQL is not installed.
    pub(crate) fn find() -> Option<Self> {
        if let Ok(address) = std::env::var(ADDRESS) {
            return Some(Self { own: None, address });
        }
        Self::start()
    }

    /// One of the caller's own, which may be killed.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(|_| String::new())
    }

    /// With more lines of configuration, made when its directory is known.
    pub(crate) fn start_with(more: impl FnOnce(&Path) -> String) -> Option<Self> {
        let Some(programs) = programs() else {
            println!("SKIPPED the ledger in PostgreSQL: it is not installed (Debian package postgresql)");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        give(directory.path());
        let data = directory.path().join("data");
        let made = unprivileged(&programs.join("initdb"))
            .args(["--auth=trust", "--no-sync", "--no-instructions", "--username=chancery", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n\
             max_connections = 300\nshared_buffers = 256MB\nmax_wal_size = 4GB\nlog_min_duration_statement = 2s\n"
        );
        let path = data.join("postgresql.conf");
        let settings = settings + &more(directory.path());
        fs::write(&path, fs::read_to_string(&path).unwrap() + &settings).unwrap();
        let child = spawn(&programs, &data);
        let own = Own { programs, directory, port, child };
        own.wait();
        let address = format!("postgres://chancery@127.0.0.1:{port}/postgres");
        Some(Self { own: Some(own), address })
    }

    /// Its address.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The port of one that was started here.
    pub(crate) fn port(&self) -> u16 {
        self.own.as_ref().expect("started here").port
    }

    /// Kills it as the kernel would: every process, with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.own.as_mut().expect("started here").kill();
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self) {
        let own = self.own.as_mut().expect("started here");
        own.child = spawn(&own.programs, &own.data());
        own.wait();
    }

    /// A backup of it as it stands, made while it works: `pg_basebackup`.
    pub(crate) fn back_up(&self) {
        let own = self.own.as_ref().expect("started here");
        let made = unprivileged(&own.programs.join("pg_basebackup"))
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "chancery",
                "--checkpoint=fast",
                "-p",
                &own.port.to_string(),
                "-D",
            ])
            .arg(own.directory.path().join("backup"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// A streaming standby of it, by `pg_basebackup`.
    pub(crate) fn standby(&self) -> Self {
        let primary = self.own.as_ref().expect("started here");
        let directory = tempfile::tempdir().unwrap();
        give(directory.path());
        let data = directory.path().join("data");
        let made = unprivileged(&primary.programs.join("pg_basebackup"))
            .args(["-h", "127.0.0.1", "-U", "chancery", "--checkpoint=fast", "-R", "-p"])
            .arg(primary.port.to_string())
            .arg("-D")
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let settings = data.join("postgresql.auto.conf");
        fs::write(&settings, fs::read_to_string(&settings).unwrap() + &format!("port = {port}\n")).unwrap();
        let child = spawn(&primary.programs, &data);
        let own = Own { programs: primary.programs.clone(), directory, port, child };
        own.wait();
        let address = format!("postgres://chancery@127.0.0.1:{port}/postgres");
        Self { own: Some(own), address }
    }

    /// Has it do something.
    pub(crate) fn tell(&self, statement: &str) {
        let own = self.own.as_ref().expect("started here");
        let mut psql = unprivileged(&own.programs.join("psql"));
        let told = psql
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement, &self.address])
            .output()
            .unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    }

    /// Lets a standby go on by itself.
    pub(crate) fn promote(&self) {
        let own = self.own.as_ref().expect("started here");
        let mut promote = unprivileged(&own.programs.join("pg_ctl"));
        let promoted = promote.args(["promote", "-w", "-D"]).arg(own.data()).output().unwrap();
        assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
    }

    /// Kills it and starts what was backed up in its place.
    pub(crate) fn restore(&mut self) {
        self.kill();
        let own = self.own.as_ref().expect("started here");
        fs::rename(own.data(), own.directory.path().join("lost")).unwrap();
        fs::rename(own.directory.path().join("backup"), own.data()).unwrap();
        self.restart();
    }

    /// The directory of its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.own.as_ref().expect("started here").data()
    }
}

impl Own {
    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        let ready = || {
            let mut question = unprivileged(&self.programs.join("pg_isready"));
            question.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]).status().unwrap().success()
        };
        while !ready() {
            let log = || fs::read_to_string(self.directory.path().join("data.log")).unwrap_or_default();
            assert!(Instant::now() < until, "PostgreSQL does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        // The children stand in its process group.
        let group = rustix::process::Pid::from_child(&self.child);
        let children = children(group.as_raw_nonzero().get());
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in children.iter().filter_map(|child| rustix::process::Pid::from_raw(*child)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        // Whoever starts it again finds it in use as long as one of them is there.
        let until = Instant::now() + Duration::from_secs(10);
        while children.iter().any(|child| is_alive(*child)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether a process is there and has not ended.
fn is_alive(process: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
}

/// The processes that this one started.
fn children(parent: i32) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn spawn(programs: &Path, data: &Path) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(data.with_extension("log")).unwrap();
    unprivileged(&programs.join("postgres"))
        .arg("-D")
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Run as somebody else than root, whom PostgreSQL refuses.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C");
    if let Some((user, group)) = nobody() {
        command.uid(user).gid(group);
    }
    command
}

/// Gives a file or directory to whom the server runs as.
pub(crate) fn give(directory: &Path) {
    if let Some((user, group)) = nobody() {
        chown(directory, Some(user), Some(group)).unwrap();
    }
}

/// Whom root runs it as.
fn nobody() -> Option<(u32, u32)> {
    rustix::process::geteuid().is_root().then(|| {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let entry = |name: &str| {
            let line = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
            let mut fields = line.split(':').skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        entry("postgres").or_else(|| entry("nobody")).expect("there is a user nobody")
    })
}

/// The newest PostgreSQL of this machine.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let newest =
        versions.filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse::<u32>().ok()).max()?;
    Some(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin")))
}

/// A pooler that gives each transaction another connection: what is left in a session goes astray.
pub(crate) struct Pooler {
    child: Child,
    _directory: tempfile::TempDir,
    pub(crate) address: String,
}

impl Pooler {
    /// In front of a server; nothing where pgbouncer is not installed.
    pub(crate) fn start(server: &Server) -> Option<Self> {
        let program = Path::new("/usr/sbin/pgbouncer");
        if !program.exists() {
            println!(
                "SKIPPED the ledger behind a pooler: pgbouncer is not installed (Debian package pgbouncer)"
            );
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        give(directory.path());
        let port = free_port();
        let host = server.address().split('@').nth(1).unwrap().split('/').next().unwrap();
        let (host, server_port) = host.split_once(':').unwrap();
        let users = directory.path().join("users");
        fs::write(&users, "\"chancery\" \"\"\n").unwrap();
        let settings = directory.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\npostgres = host={host} port={server_port} dbname=postgres\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             auth_file = {}\npool_mode = transaction\ndefault_pool_size = 6\nmax_client_conn = 200\n",
            users.display()
        );
        let text = text.replace("dbname=postgres", "dbname=postgres user=chancery");
        fs::write(&settings, text).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = unprivileged(program).arg(&settings).stderr(log).stdin(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "pgbouncer does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let address = format!("postgres://chancery@127.0.0.1:{port}/postgres");
        Some(Self { child, _directory: directory, address })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A schema that nobody else uses.
pub(crate) fn schema() -> String {
    let mut number = [0; 8];
    chancery_types::Random::fill(&chancery_types::SystemRandom, &mut number).unwrap();
    format!("test_{:016x}", u64::from_be_bytes(number))
}
