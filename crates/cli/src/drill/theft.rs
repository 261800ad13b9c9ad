//! `chancery drill theft`: a key and its certificate are copied, and used at every kind of relying party while an
//! operator revokes it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use chancery_types::TrustDomain;
use chancery_verify::live::CredentialFiles;
use clap::Args;
use serde_json::json;

use super::places::Place;
use super::programs::{Home, Program, find};
use super::table::{Finding, table};
use super::thief::{Thief, Uses};
use crate::loopback::{Door, ServerProcess, free_addresses};
use crate::peers::Workload;
use crate::scratch::Where;
use crate::stage::{Stage, shown};
use crate::terminal::{Terminal, Tone};

/// The trust domain of the drill.
const DOMAIN: &str = "drill.example";
/// For how long nobody must have been let in before the thief counts as out.
const QUIET: Duration = Duration::from_millis(1500);
/// How long the thief tries at most.
const LONGEST: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long what starts here may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The exit code of what the authority refuses.
const REFUSED: i32 = 3;

/// Has a key and its certificate stolen, revokes it, and measures at every kind of relying party when the thief was last
/// let in: the library, the proxy, nginx and HAProxy as the recipes have them (where they are installed), lists and OCSP.
#[derive(Debug, Args)]
pub(crate) struct Theft {
    #[command(flatten)]
    place: Where,
}

/// A relying party with the thief in it.
struct Target {
    name: &'static str,
    learns: &'static str,
    looks: Looks,
    address: SocketAddr,
}

/// When a relying party looks whether a certificate is still good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// All the time: open connections end too.
    Always,
    /// At the beginning of a connection.
    Once,
    /// Never: it shows what happens then, and takes no part in the verdict.
    Never,
}

/// What runs while the drill does.
#[derive(Default)]
struct Running {
    places: Vec<Place>,
    programs: Vec<Program>,
    servers: Vec<ServerProcess>,
}

impl Theft {
    pub(crate) async fn run(&self, terminal: &Terminal) -> Result<()> {
        let scratch = self.place.make("drill")?;
        let mut stage = Stage::new(terminal, scratch.path());
        stage.say(&format!(
            "A theft, rehearsed in {}. Every line behind $ can be typed there.",
            terminal.paint(Tone::Strong, scratch.path().display())
        ))?;
        let findings = rehearse(&mut stage, terminal).await?;
        if terminal.is_json() {
            terminal.json(&json!({ "findings": findings, "steps": stage.steps() }))?;
        }
        let left: Vec<&str> =
            findings.iter().filter(|one| !one.is_right).map(|one| &*one.relying_party).collect();
        ensure!(
            left.is_empty(),
            "the thief was still let in after {} by {}",
            shown(LONGEST),
            left.join(", ")
        );
        Ok(())
    }
}

impl Target {
    /// Whether it has done to the thief what one of its kind does.
    fn is_done(&self, uses: Uses) -> bool {
        match self.looks {
            Looks::Always => uses.is_out(QUIET) && uses.ended.is_some(),
            Looks::Once => uses.is_out(QUIET),
            Looks::Never => true,
        }
    }
}

async fn rehearse(stage: &mut Stage<'_>, terminal: &Terminal) -> Result<Vec<Finding>> {
    let addresses = free_addresses()?;
    let server = authority(stage, addresses).await?;
    enroll(stage).await?;
    let mut running = Running::default();
    let targets = relying_parties(stage, &mut running, addresses).await?;
    let thieves = steal(stage, &targets).await?;
    let typed = revoke(stage).await?;
    let findings = watch(stage, terminal, &targets, thieves, typed).await?;
    renewal_is_refused(stage).await?;
    owner_is_back(stage, &targets).await?;
    for one in running.servers.drain(..) {
        one.stop().await?;
    }
    drop(running);
    server.stop().await?;
    Ok(findings)
}

async fn authority(stage: &mut Stage<'_>, (api, status): (SocketAddr, SocketAddr)) -> Result<ServerProcess> {
    stage.begin("Make an authority, with a revocation list of its root, and serve.")?;
    let (api_text, status_text) = (api.to_string(), status.to_string());
    let listen = ["--listen", &api_text, "--status-listen", &status_text];
    write(&stage.path("passphrase"), "a drill protects nothing\n")?;
    let passphrase = ["--passphrase-file", "passphrase"];
    stage.succeed(&[&["init", "--yes", "--trust-domain", DOMAIN][..], &listen, &passphrase].concat()).await?;
    let list = [
        "root",
        "crl",
        "--root-dir",
        "chancery-root",
        "--out",
        "root.crl",
        "--passphrase-file",
        "passphrase",
    ];
    stage.succeed(&list).await?;
    stage.show("mv chancery-root offline-root; chancery serve &")?;
    std::fs::rename(stage.path("chancery-root"), stage.path("offline-root"))
        .context("cannot move the root")?;
    let log = stage.path("serve.log");
    let server =
        ServerProcess::start(stage.directory(), &["serve"], &log, &[Door::Tcp(api), Door::Tcp(status)])
            .await?;
    stage.done(&[format!("the API on {api}, status on {status}")])?;
    Ok(server)
}

async fn enroll(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin(
        "Let two workloads in: payroll, from which will be stolen, and api, which everybody connects to.",
    )?;
    for name in ["payroll", "api"] {
        stage
            .succeed(&["identity", "create", name, "--owner", "you@drill.example", "--dns", "localhost"])
            .await?;
        let_in(stage, name, name).await?;
    }
    stage.done(&[format!("spiffe://{DOMAIN}/payroll and spiffe://{DOMAIN}/api")])
}

async fn let_in(stage: &mut Stage<'_>, name: &str, directory: &str) -> Result<()> {
    let (identity, token) = (format!("spiffe://{DOMAIN}/{name}"), format!("{directory}.token"));
    stage.succeed_into(&["token", "create", "--identity", &identity], &token).await?;
    stage.succeed(&["enroll", "--token-file", &token, "--out", directory]).await?;
    Ok(())
}

async fn relying_parties(
    stage: &mut Stage<'_>,
    running: &mut Running,
    (api, status): (SocketAddr, SocketAddr),
) -> Result<Vec<Target>> {
    stage.begin("Start every kind of relying party, all with api's certificate.")?;
    let server = format!("https://{api}");
    let credential = stage.path("api");
    let mut targets = within(running, &server, status, &credential).await?;
    targets.push(proxy(stage, running, &server).await?);
    let mut missing = Vec::new();
    match find("nginx") {
        Some(nginx) => {
            targets.push(nginx_that_asks(stage, running, &nginx, &server, &credential).await?);
            targets.push(with_lists(stage, running, Kind::Nginx, &nginx, &server, &credential).await?);
        }
        None => missing.push("nginx"),
    }
    match find("haproxy") {
        Some(haproxy) => {
            targets.push(with_lists(stage, running, Kind::HaProxy, &haproxy, &server, &credential).await?);
        }
        None => missing.push("HAProxy"),
    }
    let mut result = vec![format!("{} of them", targets.len())];
    if !missing.is_empty() {
        result.push(format!("SKIPPED, for they are not installed: {}", missing.join(", ")));
    }
    stage.done(&result)?;
    Ok(targets)
}

/// Those of this process.
async fn within(
    running: &mut Running,
    server: &str,
    status: SocketAddr,
    credential: &Path,
) -> Result<Vec<Target>> {
    let domain: TrustDomain = DOMAIN.parse()?;
    let [chain, key, bundle] = ["tls.crt", "tls.key", "ca.crt"].map(|name| credential.join(name));
    let api = Arc::new(Workload::load(credential)?);
    let files = CredentialFiles { chain, key, bundle };
    let list = format!("http://{status}/crl/full.der");
    let (live, each_time) = (Place::live(files, server, &domain).await?, "asking each time");
    let with_ocsp = Place::with_ocsp(Arc::clone(&api)).await?;
    let with_lists = Place::with_lists(Arc::clone(&api), list).await?;
    let all = [
        ("program with chancery-verify", "feed", Looks::Always, live),
        ("program that asks OCSP", each_time, Looks::Once, with_ocsp),
        ("program that fetches lists", each_time, Looks::Once, with_lists),
        ("program that does nothing", "nothing", Looks::Never, Place::careless(api).await?),
    ];
    let targets = all.into_iter().map(|(name, learns, looks, place)| {
        let address = place.address();
        running.places.push(place);
        Target { name, learns, looks, address }
    });
    Ok(targets.collect())
}

async fn proxy(stage: &mut Stage<'_>, running: &mut Running, server: &str) -> Result<Target> {
    let behind = Place::plain().await?;
    let (address, _) = free_addresses()?;
    let (listen, to) = (address.to_string(), behind.address().to_string());
    let allowed = format!("spiffe://{DOMAIN}/*");
    let arguments = [
        "proxy",
        "--server",
        server,
        "--cert",
        "api/tls.crt",
        "--key",
        "api/tls.key",
        "--trust-bundle",
        "api/ca.crt",
        "--listen",
        &listen,
        "--to",
        &to,
        "--allow-client",
        &allowed,
    ];
    child(stage, running, &arguments, "proxy.log", &[Door::Tcp(address)]).await?;
    running.places.push(behind);
    Ok(Target { name: "chancery proxy", learns: "feed", looks: Looks::Always, address })
}

async fn nginx_that_asks(
    stage: &mut Stage<'_>,
    running: &mut Running,
    nginx: &Path,
    server: &str,
    credential: &Path,
) -> Result<Target> {
    let socket = stage.path("authz.sock");
    let text = format!(
        "allow = [\"spiffe://{DOMAIN}/*\"]\n\
         [authority]\nserver = \"{server}\"\n\
         [identity]\ncertificate = \"api/tls.crt\"\nkey = \"api/tls.key\"\ntrust_bundle = \"api/ca.crt\"\n\
         [nginx]\nlisten = \"unix:{}\"\n",
        socket.display()
    );
    write(&stage.path("authz.toml"), &text)?;
    let arguments = ["authz", "--config", "authz.toml"];
    child(stage, running, &arguments, "authz.log", &[Door::Unix(socket.clone())]).await?;
    let (home, address) = room(stage, "nginx-authz")?;
    let home = Home { directory: &home, credential, address };
    let behind = Place::plain().await?;
    running.programs.push(home.nginx_that_asks(nginx, &socket, behind.address()).await?);
    running.places.push(behind);
    Ok(Target {
        name: "nginx, auth_request",
        learns: "feed, of chancery authz",
        looks: Looks::Always,
        address,
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Nginx,
    HaProxy,
}

impl Kind {
    /// Its directory, its name, and what tells it to read its files again.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Nginx => ("nginx-lists", "nginx, ssl_crl", "HUP"),
            Self::HaProxy => ("haproxy-lists", "HAProxy, crl-file", "USR2"),
        }
    }
}

async fn with_lists(
    stage: &mut Stage<'_>,
    running: &mut Running,
    kind: Kind,
    program: &Path,
    server: &str,
    credential: &Path,
) -> Result<Target> {
    let (directory, name, signal) = kind.words();
    let (home, address) = room(stage, directory)?;
    let lists = home.join("lists.pem");
    let home = Home { directory: &home, credential, address };
    let text = |hook: &str| {
        format!(
            "server = \"{server}\"\ntrust_bundle = \"api/ca.crt\"\nalso = [\"root.crl\"]\n\
             [identity]\ncertificate = \"api/tls.crt\"\nkey = \"api/tls.key\"\n\
             [[outputs]]\nname = \"{directory}\"\nfile = \"{}\"\n{hook}",
            lists.display()
        )
    };
    let configuration = format!("{directory}.toml");
    write(&stage.path(&configuration), &text(""))?;
    stage.succeed(&["crl-sync", "--once", "--config", &configuration]).await?;
    running.programs.push(match kind {
        Kind::Nginx => home.nginx_with_lists(program, &lists).await?,
        Kind::HaProxy => home.haproxy(program, &lists).await?,
    });
    let hook = format!(
        "hook = {{ pidfile = \"{}\", executable = \"{}\", signal = \"{signal}\" }}\n",
        home.pidfile().display(),
        program.display()
    );
    write(&stage.path(&configuration), &text(&hook))?;
    let log = format!("{directory}.log");
    child(stage, running, &["crl-sync", "--config", &configuration], &log, &[]).await?;
    Ok(Target { name, learns: "feed, of chancery crl-sync", looks: Looks::Always, address })
}

async fn child(
    stage: &mut Stage<'_>,
    running: &mut Running,
    arguments: &[&str],
    log: &str,
    doors: &[Door],
) -> Result<()> {
    stage.show(&format!("chancery {} &", arguments.join(" ")))?;
    let server = ServerProcess::start(stage.directory(), arguments, &stage.path(log), doors).await?;
    running.servers.push(server);
    Ok(())
}

/// A directory, and an address on loopback.
fn room(stage: &Stage<'_>, name: &str) -> Result<(PathBuf, SocketAddr)> {
    let directory = stage.path(name);
    std::fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok((directory, free_addresses()?.0))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

async fn steal(stage: &mut Stage<'_>, targets: &[Target]) -> Result<Vec<Thief>> {
    stage.begin(
        "Copy payroll's key and certificate. The thief keeps a connection open to each relying party, and makes new ones \
         a hundred times a second.",
    )?;
    stage.show("cp -r payroll stolen")?;
    std::fs::create_dir(stage.path("stolen"))?;
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        std::fs::copy(stage.path("payroll").join(name), stage.path("stolen").join(name))?;
    }
    let connector = Workload::load(&stage.path("stolen"))?.connector(None)?;
    let mut thieves = Vec::with_capacity(targets.len());
    for target in targets {
        let thief = Thief::begin(&connector, target.address).await;
        thieves.push(thief.with_context(|| format!("{} is not as it should be", target.name))?);
    }
    let all_in = async {
        while !thieves.iter().all(|thief| thief.uses().let_in > 0) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_in)
        .await
        .context("the thief is not let in while the certificate is good")?;
    stage.done(&["let in by all of them: to them it is payroll".to_owned()])?;
    Ok(thieves)
}

async fn revoke(stage: &mut Stage<'_>) -> Result<Instant> {
    let serial = Workload::load(&stage.path("stolen"))?.certificate().serial_number();
    let serial = serial.context("the serial number is not one of ours")?.to_string();
    stage.begin("Revoke it, and wait until every relying party that registered has confirmed.")?;
    let typed = Instant::now();
    stage
        .succeed(&[
            "revoke",
            "--serial",
            &serial,
            "--reason",
            "key-compromise",
            "--yes",
            "--wait",
            "--timeout",
            "20s",
        ])
        .await?;
    stage.done(&[format!("confirmed by all {} after the command was typed", shown(typed.elapsed()))])?;
    Ok(typed)
}

async fn watch(
    stage: &mut Stage<'_>,
    terminal: &Terminal,
    targets: &[Target],
    thieves: Vec<Thief>,
    typed: Instant,
) -> Result<Vec<Finding>> {
    stage.begin("See who lets the thief in after that.")?;
    let is_done = || thieves.iter().zip(targets).all(|(thief, target)| target.is_done(thief.uses()));
    while typed.elapsed() < LONGEST && !is_done() {
        tokio::time::sleep(LOOK).await;
    }
    let findings: Vec<Finding> = thieves
        .iter()
        .zip(targets)
        .map(|(thief, target)| {
            let uses = thief.uses();
            Finding {
                relying_party: target.name.to_owned(),
                learns: target.learns.to_owned(),
                new_until_ms: uses.new.filter(|_| uses.is_out(QUIET)).map(|new| milliseconds(typed, new)),
                open_until_ms: uses
                    .open
                    .filter(|_| uses.ended.is_some())
                    .map(|open| milliseconds(typed, open)),
                is_right: target.is_done(uses),
            }
        })
        .collect();
    drop(thieves);
    stage.say(&format!("\n{}", table(terminal, &findings)))?;
    stage.done(&[
        "times since the command was typed; open connection: until when it was answered".to_owned()
    ])?;
    Ok(findings)
}

fn milliseconds(since: Instant, moment: Instant) -> f64 {
    moment.saturating_duration_since(since).as_secs_f64() * 1000.0
}

async fn renewal_is_refused(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin("The thief tries to get the next certificate, while there is time.")?;
    let why =
        stage.run(&["renew", "--in", "stolen"]).await?.refused(REFUSED, "renewing with what was stolen")?;
    stage.done(&[format!("refused: {why}")])
}

async fn owner_is_back(stage: &mut Stage<'_>, targets: &[Target]) -> Result<()> {
    stage.begin("payroll itself comes back with a new key, and everybody lets it in.")?;
    let_in(stage, "payroll", "payroll-again").await?;
    let connector = Workload::load(&stage.path("payroll-again"))?.connector(None)?;
    for target in targets {
        match Thief::begin(&connector, target.address).await {
            Ok(owner) => drop(owner),
            Err(error) => bail!("{} does not let the owner in: {error:#}", target.name),
        }
    }
    stage.done(&[
        "with another serial number and another key: it was never its name that was revoked".to_owned()
    ])
}
