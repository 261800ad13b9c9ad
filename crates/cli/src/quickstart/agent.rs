//! The chapter of the agent: programs that were given nothing get what they are, another key, or nothing any more.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chancery_agent::ask_status;
use chancery_types::Digest;

use super::programs::{Listener, Program};
use crate::loopback::{Door, ServerProcess};
use crate::stage::Stage;

/// Where workloads reach the agent.
const SOCKET: &str = "agent.sock";
/// Where it says how it stands.
const STATUS_SOCKET: &str = "status.sock";
/// The machine.
const NODE: &str = "spiffe://quickstart.example/node/here";
/// How long a registration or a revocation takes at most until it holds on the machine, after the command returned.
const PROMISED: Duration = Duration::from_secs(1);
/// Between two looks at what the agent knows.
const LOOK: Duration = Duration::from_millis(5);

/// The two programs that the authority knows, and where they ask. The third is this one.
#[derive(Debug)]
struct Programs {
    billing: Program,
    mailer: Program,
    socket: PathBuf,
}

/// Tells it, with the authority at this address.
pub(crate) async fn tell(stage: &mut Stage<'_>, api: SocketAddr) -> Result<()> {
    let agent = start(stage, api).await?;
    let programs = register(stage).await?;
    let (mut billing, mailer) = ask(stage, &programs).await?;
    refuse_the_third(stage, &programs).await?;
    rotate(stage, &mut billing).await?;
    withdraw(stage, &mut billing, mailer).await?;
    drop(billing);
    agent.stop().await
}

async fn start(stage: &mut Stage<'_>, api: SocketAddr) -> Result<ServerProcess> {
    stage.begin(
        "No tokens for programs from here on: an agent on the machine vouches for them. The machine is a node; it \
         proves itself with a token of its own, once.",
    )?;
    stage
        .succeed(&[
            "identity",
            "create",
            "node/here",
            "--owner",
            "you@quickstart.example",
            "--profile",
            "node",
        ])
        .await?;
    stage.succeed_into(&["token", "create", "--identity", NODE], "node.token").await?;
    let url = format!("https://{api}");
    let arguments = ["agent", "--server", &url, "--join-token-file", "node.token"];
    let arguments = [&arguments[..], &["--socket", SOCKET, "--status-socket", STATUS_SOCKET]].concat();
    stage.show(&format!("chancery {} &", arguments.join(" ")))?;
    let (log, door) = (stage.path("agent.log"), Door::Unix(stage.path(SOCKET)));
    let agent = ServerProcess::start(stage.directory(), &arguments, &log, &[door]).await?;
    stage.done(&[
        format!("process {}: {NODE}", agent.id()),
        format!("the SPIFFE Workload API on {SOCKET}, for whoever the agent finds to be somebody"),
    ])?;
    Ok(agent)
}

async fn register(stage: &mut Stage<'_>) -> Result<Programs> {
    stage.begin(
        "Two programs of one user. Register them by what the kernel says of their processes: one by the path of its \
         executable, one by the SHA-256.",
    )?;
    // As the kernel has it: without symbolic links.
    let directory = stage.directory().canonicalize().context("the directory is gone")?;
    std::fs::create_dir(directory.join("bin")).context("cannot make bin")?;
    for line in ["mkdir bin", "cp $(which chancery) bin/billing", "cp $(which chancery) bin/mailer"] {
        stage.show(line)?;
    }
    stage.show("echo mailer >> bin/mailer")?;
    let install = |name: &str, more| Program::install(directory.join("bin").join(name), more);
    let programs = Programs {
        billing: install("billing", "")?,
        mailer: install("mailer", "mailer\n")?,
        socket: stage.path(SOCKET),
    };
    let path = format!("unix:path:{}", programs.billing.path().display());
    let executable = std::fs::read(programs.mailer.path()).context("cannot read bin/mailer")?;
    let hash = format!("unix:sha256:{}", Digest::of(&executable));
    for (name, selector, profile) in [("billing", &path, "minute"), ("mailer", &hash, "workload")] {
        let line = ["identity", "create", name, "--owner", "you@quickstart.example", "--parent", NODE];
        stage.succeed(&[&line[..], &["--selector", selector, "--profile", profile]].concat()).await?;
    }
    stage.show(&format!("chancery agent status --status-socket {STATUS_SOCKET}"))?;
    wait_until_told(stage, 2).await?;
    stage.done(&[
        "the running agent has been told of both; nothing was configured on the machine".to_owned()
    ])?;
    Ok(programs)
}

/// Waits until the agent knows so many identities.
async fn wait_until_told(stage: &Stage<'_>, identities: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let status = ask_status(&stage.path(STATUS_SOCKET)).await.context("the agent's status")?;
        if status.identities.len() == identities {
            return Ok(());
        }
        ensure!(begun.elapsed() < PROMISED, "the agent knows {} identities", status.identities.len());
        tokio::time::sleep(LOOK).await;
    }
}

async fn ask(stage: &mut Stage<'_>, programs: &Programs) -> Result<(Listener, Listener)> {
    stage.begin("Both ask over the same socket, with nothing in their hands, and go on listening.")?;
    stage.show(&format!("export SPIFFE_ENDPOINT_SOCKET=unix://{}", programs.socket.display()))?;
    let mut result = Vec::new();
    let mut listen = async |name: &str, program: &Program| -> Result<Listener> {
        stage.show(&format!("bin/{name} fetch x509 --watch &"))?;
        let mut listener = program.listen(&programs.socket)?;
        let process = listener.id()?;
        let identity = listener.next().await.with_context(|| format!("bin/{name}"))?;
        let expected = format!("spiffe://quickstart.example/{name}");
        ensure!(identity.spiffe_id == expected, "{name} became {}", identity.spiffe_id);
        result.push(format!("process {process} is {expected}, serial {}", identity.serial));
        Ok(listener)
    };
    let billing = listen("billing", &programs.billing).await?;
    let mailer = listen("mailer", &programs.mailer).await?;
    stage.done(&result)?;
    Ok((billing, mailer))
}

async fn refuse_the_third(stage: &mut Stage<'_>, programs: &Programs) -> Result<()> {
    stage.begin("A third program of the same user asks in the same words, and is nobody: this one.")?;
    let socket = programs.socket.display().to_string();
    let said = stage.run(&["fetch", "x509", "--socket", &socket]).await?;
    let why = said.refused(1, "the third program")?;
    ensure!(why.contains("PermissionDenied"), "the third program was refused for another reason: {why}");
    stage.done(&[format!("exit code 1: {why}")])
}

async fn rotate(stage: &mut Stage<'_>, billing: &mut Listener) -> Result<()> {
    stage.begin(
        "The agent replaces a certificate before half of its life is over; when the identity changes, within a \
         fiftieth. billing lives by the minute, and gets a DNS name.",
    )?;
    let before = billing.identity()?;
    let before = (before.serial.clone(), before.key_fingerprint);
    let asked = Instant::now();
    stage.succeed(&["identity", "update", "billing", "--dns", "billing.quickstart.example"]).await?;
    let after = billing.next().await.context("billing")?;
    let took = asked.elapsed();
    ensure!(before.0 != after.serial, "the stream brought the old certificate again");
    ensure!(before.1 != after.key_fingerprint, "the rotation kept the key");
    stage.done(&[
        format!(
            "{} ms after the command was typed, on the stream that was open: serial {}",
            took.as_millis(),
            after.serial
        ),
        "another key; the old one was served until the new one had been verified".to_owned(),
    ])
}

async fn withdraw(stage: &mut Stage<'_>, billing: &mut Listener, mailer: Listener) -> Result<()> {
    stage.begin(
        "mailer has had its day: retire it, which revokes what it holds. Its process still runs and listens.",
    )?;
    let asked = Instant::now();
    stage.succeed(&["identity", "retire", "mailer"]).await?;
    let returned = Instant::now();
    let said = mailer.ended().await.context("mailer")?;
    let took = asked.elapsed();
    ensure!(returned.elapsed() < PROMISED, "mailer kept what was revoked for {} ms", took.as_millis());
    let why = said.refused(1, "mailer")?;
    ensure!(why.contains("PermissionDenied"), "mailer's stream ended for another reason: {why}");
    ensure!(billing.is_there()?, "billing lost its stream too");
    stage.done(&[
        format!("its stream was withdrawn {} ms after the command was typed: {why}", took.as_millis()),
        "billing noticed nothing".to_owned(),
    ])
}
