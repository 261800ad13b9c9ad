//! Processes that connect to a socket and do as they are told: this test program itself, copied and started anew.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tokio::net::{UnixListener, UnixStream};

/// A socket that processes connect to, in a directory for their programs.
pub(crate) struct Door {
    directory: tempfile::TempDir,
    path: PathBuf,
    listener: UnixListener,
}

/// A process, before its connection is accepted.
pub(crate) struct Started {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// A process with its connection.
pub(crate) struct Running {
    pub(crate) socket: UnixStream,
    started: Started,
    pid: u32,
}

impl Door {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Others have to run programs in it, and to connect.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        Self { directory, path, listener }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) async fn accept(&self) -> UnixStream {
        self.listener.accept().await.unwrap().0
    }

    pub(crate) async fn start(&self, program: &Path) -> Running {
        self.admit(Started::spawn(program, &self.path)).await
    }

    pub(crate) async fn start_as(&self, program: &Path, user: u32) -> Running {
        let mut command = workload(program, &self.path);
        command.uid(user).gid(user);
        self.admit(Started::of(&mut command)).await
    }

    /// A shell script in a mount namespace of its own; its arguments make a program of it.
    pub(crate) async fn start_in_own_mounts(&self, script: &str) -> Option<Running> {
        if !succeeds(Command::new("unshare").args(["--mount", "true"])) {
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]);
        self.admit(Started::of(as_workload(&mut command, &self.path))).await.into()
    }

    pub(crate) async fn start_on_terminal(&self, program: &Path) -> Option<Running> {
        let has = |tool: &str| succeeds(Command::new(tool).arg("--version"));
        if !has("script") || !has("setsid") {
            return None;
        }
        let line = format!("exec {} {}", program.display(), ARGUMENTS.join(" "));
        let mut command = Command::new("script");
        command.args(["--quiet", "--command", &line, "/dev/null"]);
        self.admit(Started::of(with_variables(&mut command, &self.path))).await.into()
    }

    pub(crate) async fn start_without_terminal(&self, program: &Path) -> Running {
        let mut command = Command::new("setsid");
        command.arg("--wait").arg(program);
        self.admit(Started::of(as_workload(&mut command, &self.path))).await
    }

    async fn admit(&self, started: Started) -> Running {
        let socket = self.accept().await;
        let pid = socket.peer_cred().unwrap().pid().and_then(|pid| u32::try_from(pid).ok()).unwrap();
        Running { socket, started, pid }
    }
}

/// A group below `system.slice`, as the service manager would make one. Goes when it is dropped.
pub(crate) struct ControlGroup {
    made: Vec<PathBuf>,
    root: PathBuf,
    member: u32,
}

impl ControlGroup {
    /// Puts a process into a new group, if this machine lets us.
    pub(crate) fn around(running: &Running, name: &str) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let root = PathBuf::from(mount.split(' ').nth(4)?);
        let mut group = Self { made: Vec::new(), root: root.clone(), member: running.pid };
        let slice = root.join("system.slice");
        for directory in [slice.clone(), slice.join(name)] {
            if !directory.exists() {
                std::fs::create_dir(&directory).ok()?;
                group.made.push(directory);
            }
        }
        std::fs::write(slice.join(name).join("cgroup.procs"), running.pid.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = std::fs::write(self.root.join("cgroup.procs"), self.member.to_string());
        for directory in self.made.iter().rev() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

impl Started {
    pub(crate) fn spawn(program: &Path, socket: &Path) -> Self {
        Self::of(&mut workload(program, socket))
    }

    fn of(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, commands, answers }
    }

    /// Reads what it says until it says this.
    pub(crate) fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while self.answers.read_line(&mut line).unwrap() > 0 {
            if line.contains(word) {
                return;
            }
            line.clear();
        }
        panic!("it ended without saying {word}");
    }

    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.end();
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Makes it another program, which keeps the connection.
    pub(crate) async fn exec(&mut self, program: &Path) {
        self.started.tell(&format!("exec {}", program.display()));
        // The descriptor that it said all this on is closed by the exec: the end of its words is the proof.
        let mut rest = String::new();
        self.started.answers.read_to_string(&mut rest).unwrap();
        assert!(self.started.child.try_wait().unwrap().is_none(), "exec failed: {rest}");
    }

    pub(crate) async fn become_user(&mut self, user: u32) {
        self.started.tell(&format!("user {user}"));
        self.started.wait_for("done");
    }

    pub(crate) fn end(&mut self) {
        self.started.end();
    }
}

/// A copy of this test program. Programs are written by other processes only: while this one has a file open for
/// writing, a child that another thread just forked has it open too, and then it cannot be run.
pub(crate) fn program(directory: &Path, name: &str) -> PathBuf {
    copy(&std::env::current_exe().unwrap(), directory, name)
}

/// Makes another file of a program without making another program of it.
pub(crate) fn append(program: &Path, text: &str) {
    assert!(succeeds(Command::new("sh").args(["-c", "printf %s \"$1\" >> \"$0\""]).arg(program).arg(text)));
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn copy(from: &Path, directory: &Path, name: &str) -> PathBuf {
    let to = directory.join(name);
    assert!(succeeds(Command::new("cp").arg(from).arg(&to)));
    std::fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
    to
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn workload(program: &Path, socket: &Path) -> Command {
    let mut command = Command::new(program);
    as_workload(&mut command, socket);
    command
}

fn as_workload<'a>(command: &'a mut Command, socket: &Path) -> &'a mut Command {
    with_variables(command.args(ARGUMENTS), socket)
}

fn with_variables<'a>(command: &'a mut Command, socket: &Path) -> &'a mut Command {
    command.env(SOCKET, socket)
}

/// Not a test: what the copies of this program do. Does nothing when the tests are run.
#[test]
fn process_that_does_as_it_is_told() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    if socket.is_empty() {
        // What it became: does nothing until the test lets go of it.
        let _ = std::io::stdin().lines().last();
        return;
    }
    let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    println!("connected");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match line.split_once(' ') {
            Some(("exec", program)) => {
                // Keeps the connection, and closes what it speaks to the test on.
                rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::empty()).unwrap();
                rustix::io::fcntl_setfd(std::io::stdout(), rustix::io::FdFlags::CLOEXEC).unwrap();
                panic!("{}", Command::new(program).args(ARGUMENTS).env(SOCKET, "").exec());
            }
            Some(("user", user)) => {
                nix::unistd::setuid(user.parse::<u32>().unwrap().into()).unwrap();
                println!("done");
            }
            _ => panic!("it was told {line:?}"),
        }
    }
}

const SOCKET: &str = "CHANCERY_TEST_WORKLOAD_SOCKET";

/// Run that one test and hide nothing.
const ARGUMENTS: [&str; 3] = ["--exact", "workload_process::process_that_does_as_it_is_told", "--nocapture"];
