//! Relying parties that are programs of others, as docs/RECIPES.md has them: the very files of ca-config/recipes, with
//! the paths and addresses of the drill.

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long a program may take until it accepts connections.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at whether it does.
const LOOK: Duration = Duration::from_millis(10);
/// Where programs lie that are for administrators.
const PLACES: [&str; 5] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin"];

const NGINX: &str = include_str!("../../../../ca-config/recipes/nginx.conf");
const NGINX_AUTH_REQUEST: &str = include_str!("../../../../ca-config/recipes/nginx-auth-request.conf");
const HAPROXY: &str = include_str!("../../../../ca-config/recipes/haproxy.cfg");

/// A program that runs until this is dropped, with all of its processes.
#[derive(Debug)]
pub(crate) struct Program {
    group: Pid,
    _child: Child,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

/// Where a program lies, if it is installed.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file())
}

/// What a recipe stands on in a drill.
#[derive(Debug)]
pub(crate) struct Home<'a> {
    /// A directory of its own.
    pub(crate) directory: &'a Path,
    /// Where `tls.crt`, `tls.key` and `ca.crt` lie.
    pub(crate) credential: &'a Path,
    /// Where it is to listen.
    pub(crate) address: SocketAddr,
}

impl Home<'_> {
    /// nginx that reads lists from a file.
    pub(crate) async fn nginx_with_lists(&self, program: &Path, lists: &Path) -> Result<Program> {
        let recipe = NGINX.replace("/etc/nginx/crl/lists.pem", &lists.display().to_string());
        self.nginx(program, &recipe).await
    }

    /// nginx that asks about every request, by a socket, and stands before a service.
    pub(crate) async fn nginx_that_asks(
        &self,
        program: &Path,
        socket: &Path,
        service: SocketAddr,
    ) -> Result<Program> {
        let recipe = NGINX_AUTH_REQUEST
            .replace("/run/chancery-authz/nginx.sock", &socket.display().to_string())
            .replace("127.0.0.1:8080", &service.to_string());
        self.nginx(program, &recipe).await
    }

    /// Where nginx says which process it is.
    pub(crate) fn pidfile(&self) -> PathBuf {
        self.directory.join("pid")
    }

    async fn nginx(&self, program: &Path, recipe: &str) -> Result<Program> {
        let home = self.directory.display();
        // Beside paths and addresses: what nginx otherwise writes below /var, and connections as long as a drill.
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("    {name}_temp_path {home}/{name};\n"))
            .concat();
        let text = recipe
            .replace("/run/nginx.pid", &self.pidfile().display().to_string())
            .replace("/var/log/nginx/error.log", &format!("{home}/error.log"))
            .replace("/var/log/nginx/access.log", "off")
            .replace("/etc/nginx/tls/bundle.crt", &self.file("ca.crt"))
            .replace("/etc/nginx/tls/tls.crt", &self.file("tls.crt"))
            .replace("/etc/nginx/tls/tls.key", &self.file("tls.key"))
            .replace("listen 443 ssl", &format!("listen {} ssl", self.address))
            .replace("http {\n", &format!("http {{\n{temporary}    keepalive_requests 1000000;\n"));
        let configuration = self.write("nginx.conf", &text)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(configuration).arg("-g").arg("daemon off; user root;");
        self.start(command).await
    }

    /// HAProxy that reads lists from a file.
    pub(crate) async fn haproxy(&self, program: &Path, lists: &Path) -> Result<Program> {
        let [chain, key] =
            ["tls.crt", "tls.key"].map(|name| std::fs::read_to_string(self.credential.join(name)));
        let combined = self.write("tls.pem", &(chain? + &key?))?;
        let text = HAPROXY
            .replace("/run/haproxy/admin.sock", &self.directory.join("admin.sock").display().to_string())
            .replace("/etc/haproxy/tls/tls.pem", &combined.display().to_string())
            .replace("/etc/haproxy/tls/bundle.crt", &self.file("ca.crt"))
            .replace("/etc/haproxy/crl/lists.pem", &lists.display().to_string())
            .replace("bind :8443", &format!("bind {}", self.address));
        let configuration = self.write("haproxy.cfg", &text)?;
        let mut command = Command::new(program);
        command.arg("-W").arg("-f").arg(configuration).arg("-p").arg(self.pidfile());
        self.start(command).await
    }

    fn file(&self, name: &str) -> String {
        self.credential.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        let write = || {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&path)?;
            std::io::Write::write_all(&mut file, text.as_bytes())
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    async fn start(&self, mut command: Command) -> Result<Program> {
        let log = self.directory.join("log");
        let errors =
            std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let group = group.context("the program ended before it began")?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = child.try_wait()? {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("{:?} ended at once ({status}):\n{said}", command.as_std().get_program());
            }
            if TcpStream::connect(self.address).await.is_ok() {
                return Ok(Program { group, _child: child });
            }
            tokio::time::sleep(LOOK).await;
        }
        let _ = kill_process_group(group, Signal::KILL);
        bail!("{:?} does not listen on {}", command.as_std().get_program(), self.address)
    }
}
