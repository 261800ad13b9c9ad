//! `chancery bench`: how fast this machine issues, beside the floor that cryptography and disk set.
//!
//! In process the workflow is called as the server calls it, on the real ledger on a real disk. Over the wire a
//! server runs as a process of its own, so that its CPU time can be told from that of its clients, which share
//! the machine with it. What is spent (keys, tokens, certificates to renew) is made before the clock starts.

mod bare;
mod core_share;
mod feed;
mod floor;
mod load;
mod process;
mod replicas;
mod report;
mod supply;
mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chancery_types::TrustDomain;
use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::authority_side::Database;
use crate::authority_side::in_process::InProcess;
use crate::commands::database::DatabaseFlags;
use crate::failure::usage;
use crate::loopback::free_addresses;
use crate::terminal::Terminal;
use bare::Bare;
use feed::FeedFigures;
use floor::Floor;
use load::{Load, drive};
use replicas::{GrowthFigures, Replicas, WARM_UP};
use report::{Report, Row};
use supply::{Intent, Subject, Supply};
use wire::{BATCH, Proof, Wire};

/// Measures how fast this machine issues, in process and over the wire, beside the floor that its cryptography and
/// its disk set.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// How long each line is measured.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Clients at once over the wire, at each server.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: u16,
    /// Enrolments at once in process.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=8192))]
    in_flight: u16,
    /// Programs that follow the status feed.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    listeners: u32,
    /// Only these parts; repeatable.
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Replicas of one authority in the database, when that part is named: one is measured, then two, up to so many.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    replicas: u8,
    /// Hold each replica to this share of a core, in percent, as if it had a small machine of its own; needs root.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u16).range(5..=1600))]
    core_share: Option<u16>,
    /// A directory on the disk to be measured; the current one if absent.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    database: DatabaseFlags,
}

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The workflow by function calls.
    InProcess,
    /// Enrolment over connections that stay open.
    Enroll,
    /// Enrolment over a new connection each.
    Handshake,
    /// Renewal.
    Renew,
    /// Batches.
    Batch,
    /// OCSP.
    Ocsp,
    /// One client alone.
    Lone,
    /// The status feed; only when it is named, for it takes ten thousand connections.
    Feed,
    /// Servers on one database, one more after the other; only when it is named, with a database.
    Replicas,
}

/// Certificates that are renewed over connections that were opened before.
const RENEWALS: usize = 2000;
/// Enrolments of one client alone.
const LONE: usize = 1000;

/// Where the ledger of a line in process is.
#[derive(Debug, Clone, Copy)]
enum Place {
    Directory,
    Database,
}

impl Place {
    fn label(self) -> &'static str {
        match self {
            Self::Directory => "in process",
            Self::Database => "in PostgreSQL",
        }
    }
}

/// A run.
#[derive(Debug)]
struct Run<'a> {
    bench: &'a Bench,
    terminal: &'a Terminal,
    floor: Floor,
    trust_domain: TrustDomain,
    authority: PathBuf,
    rows: Vec<Row>,
}

impl Bench {
    pub(crate) async fn run(&self, terminal: &Terminal) -> Result<()> {
        let database = self.database_of_parts()?;
        let scratch = Scratch::new(&self.dir)?;
        terminal.note("measuring the floor of this machine");
        let floor = Floor::measure(&scratch.0)?;
        let mut run = Run {
            bench: self,
            terminal,
            floor,
            trust_domain: TrustDomain::parse("bench.example").context("a trust domain")?,
            authority: scratch.0.join("authority"),
            rows: Vec::new(),
        };
        let report = run.all(database.as_ref()).await?;
        terminal.data(&report, || report.text(terminal))
    }

    /// The database, if one was named and is wanted.
    fn database_of_parts(&self) -> Result<Option<Database>> {
        let database = self.database.chosen()?;
        let (in_process, replicas) = (self.wants(Part::InProcess), self.wants(Part::Replicas));
        match &database {
            None if replicas => Err(usage("replicas share a database: name one with --database")),
            Some(_) if in_process && replicas => Err(usage(
                "a schema of a database holds one authority: measure in-process or replicas, not both",
            )),
            Some(_) if !in_process && !replicas => {
                Err(usage("a database is measured by --only in-process or --only replicas"))
            }
            _ => Ok(database),
        }
    }

    fn wants(&self, part: Part) -> bool {
        self.only.contains(&part) || self.only.is_empty() && part != Part::Feed && part != Part::Replicas
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl Run<'_> {
    async fn all(&mut self, database: Option<&Database>) -> Result<Report> {
        let addresses = free_addresses()?;
        let mut report = Report {
            floor: self.floor,
            clients: self.bench.clients.into(),
            in_flight: self.bench.in_flight.into(),
            rows: Vec::new(),
            certificate_bytes: None,
            disk_bytes_per_entry: None,
            entries: None,
            server_resident_bytes: None,
            feed: None,
            growth: Vec::new(),
        };
        if let Some(database) = database
            && self.bench.wants(Part::Replicas)
        {
            report.growth = self.growth(database, addresses).await?;
        }
        if self.bench.wants(Part::InProcess) || self.wants_server() || self.bench.wants(Part::Feed) {
            self.in_directory(database, addresses, &mut report).await?;
        }
        report.rows = std::mem::take(&mut self.rows);
        Ok(report)
    }

    /// Everything about an authority whose ledger is in a directory, and beside it one in a database.
    async fn in_directory(
        &mut self,
        database: Option<&Database>,
        addresses: (SocketAddr, SocketAddr),
        report: &mut Report,
    ) -> Result<()> {
        let config = InProcess::make(&self.authority, &self.trust_domain, addresses, None).await?;
        let authority = InProcess::open(&config).await?;
        self.terminal.note(format_args!("making keys, identities and {} tokens", self.tokens()));
        let mut supply = Supply::make(&authority, &self.trust_domain, self.tokens()).await?;
        // The index follows the journal; what it still owes for the supply is not to be measured.
        authority.close();
        let authority = InProcess::open(&config).await?;
        if self.bench.wants(Part::InProcess) {
            let bytes = self.in_process(Place::Directory, &authority, &mut supply).await?;
            report.certificate_bytes = Some(bytes);
            let entries = authority.entries();
            report.entries = Some(entries);
            report.disk_bytes_per_entry =
                Some(process::bytes_in(&self.authority.join("ledger"))? / entries.max(1));
        }
        authority.close();
        if let Some(database) = database
            && self.bench.wants(Part::InProcess)
        {
            self.in_database(database, addresses).await?;
        }
        if self.wants_server() {
            report.server_resident_bytes = Some(self.over_the_wire(&mut supply, addresses).await?);
        }
        if self.bench.wants(Part::Feed) {
            raise_descriptors(self.bench.listeners)?;
            report.feed = Some(self.feed(&mut supply, addresses).await?);
        }
        Ok(())
    }

    fn wants_server(&self) -> bool {
        let parts = [Part::Enroll, Part::Handshake, Part::Renew, Part::Batch, Part::Ocsp, Part::Lone];
        parts.into_iter().any(|part| self.bench.wants(part))
    }

    /// Enrolments that all cores could make in the time of one line.
    fn most(&self, floor_us: f64) -> usize {
        most(self.floor.cores as f64, self.bench.limit(), floor_us)
    }

    /// Tokens for everything.
    fn tokens(&self) -> usize {
        let bench = self.bench;
        let most = self.most(self.floor.enrolment_us());
        let of = |part, count| if bench.wants(part) { count } else { 0 };
        of(Part::InProcess, most + self.most(self.floor.vouched_us()))
            + of(Part::Enroll, most)
            + of(Part::Handshake, most / 2)
            + of(Part::Renew, RENEWALS)
            + of(Part::Lone, LONE)
            + of(Part::Feed, 2 * (feed::HOLDERS + feed::ROUNDS))
            + usize::from(bench.clients) * 3
            + 16
    }

    /// The same by an authority whose ledger is in a database.
    async fn in_database(&mut self, database: &Database, addresses: (SocketAddr, SocketAddr)) -> Result<()> {
        let tokens = self.most(self.floor.enrolment_us()) + self.most(self.floor.vouched_us());
        let directory = self.authority.with_file_name("beside-a-database");
        let (authority, mut supply) = self.supplied(&directory, addresses, database, tokens).await?;
        self.in_process(Place::Database, &authority, &mut supply).await?;
        authority.close();
        self.note_schema();
        Ok(())
    }

    /// An authority in a database, with so many tokens.
    async fn supplied(
        &self,
        directory: &Path,
        addresses: (SocketAddr, SocketAddr),
        database: &Database,
        tokens: usize,
    ) -> Result<(InProcess, Supply)> {
        let config = InProcess::make(directory, &self.trust_domain, addresses, Some(database)).await?;
        let authority = InProcess::open(&config).await?;
        self.terminal.note(format_args!("making keys, identities and {tokens} tokens in the database"));
        let supply = Supply::make(&authority, &self.trust_domain, tokens).await?;
        Ok((authority, supply))
    }

    fn note_schema(&self) {
        self.terminal.note("what was recorded stays in the schema: drop it when it is not needed any more");
    }

    /// One server after the other on one database.
    async fn growth(
        &self,
        database: &Database,
        addresses: (SocketAddr, SocketAddr),
    ) -> Result<Vec<GrowthFigures>> {
        let (bench, count) = (self.bench, usize::from(self.bench.replicas));
        let most_of = |running: usize, time| {
            let all = self.floor.cores as f64;
            let of_share = |percent| f64::from(percent) / 100.0 * running as f64;
            most(bench.core_share.map_or(all, of_share).min(all), time, self.floor.enrolment_us())
        };
        let tokens =
            (1..=count).map(|running| most_of(running, WARM_UP) + most_of(running, bench.limit())).sum();
        let directory = self.authority.with_file_name("replica");
        let (authority, mut supply) = self.supplied(&directory, addresses, database, tokens).await?;
        authority.close();
        let mut replicas = Replicas::new(&directory, addresses, count, bench.core_share)?;
        let mut figures = Vec::with_capacity(count);
        for running in 1..=count {
            replicas.start_next().await?;
            self.terminal.note(format_args!("measuring: {running} of {count} replicas"));
            replicas.warm_up(bench.clients.into(), supply.take(most_of(running, WARM_UP))).await?;
            let intents = supply.take(most_of(running, bench.limit()));
            figures.push(replicas.measure(bench.clients.into(), intents, bench.limit()).await?);
        }
        replicas.stop().await?;
        self.note_schema();
        Ok(figures)
    }

    /// By function calls; returns the bytes of a certificate.
    async fn in_process(&mut self, place: Place, authority: &InProcess, supply: &mut Supply) -> Result<u64> {
        let bytes = Arc::new(std::sync::atomic::AtomicU64::new(0));
        for proof in [Proof::Request, Proof::Vouched] {
            let (what, floor) = match proof {
                Proof::Request => ("certificate request", self.floor.enrolment_us()),
                Proof::Vouched => ("vouched key", self.floor.vouched_us()),
            };
            let intents = supply.take(self.most(floor));
            let workers = vec![(authority.clone(), Arc::clone(&bytes)); self.bench.in_flight.into()];
            let limit = self.bench.limit();
            let load = drive(workers, intents, limit, move |(authority, bytes), intent: Intent| async move {
                let length = match proof {
                    Proof::Request => authority.enroll(&intent.subject.csr, intent.token).await?,
                    Proof::Vouched => {
                        let key = intent.subject.key.public_key().spki_der();
                        authority.enroll_vouched(key, intent.token).await?
                    }
                };
                bytes.store(length as u64, std::sync::atomic::Ordering::Relaxed);
                Ok(((authority, bytes), 1))
            });
            let own = std::process::id();
            let what = format!("{}, {what}", place.label());
            self.measure(&what, Some(floor), own, Some(&Syncs::Own(authority.clone())), load).await?;
        }
        Ok(bytes.load(std::sync::atomic::Ordering::Relaxed))
    }

    /// Against a server process; returns its resident memory in the end.
    async fn over_the_wire(
        &mut self,
        supply: &mut Supply,
        addresses: (SocketAddr, SocketAddr),
    ) -> Result<u64> {
        let (server, wire) = Wire::serve(&self.authority, addresses).await?;
        self.enrolments(&wire, supply, server.id()).await?;
        self.renewals(&wire, supply, server.id()).await?;
        self.batches(&wire, supply, server.id()).await?;
        self.status(&wire, supply, server.id()).await?;
        let resident = process::resident_bytes(server.id())?;
        server.stop().await?;
        Ok(resident)
    }

    /// The feed, with a server that has done nothing else.
    async fn feed(&self, supply: &mut Supply, addresses: (SocketAddr, SocketAddr)) -> Result<FeedFigures> {
        let (server, wire) = Wire::serve(&self.authority, addresses).await?;
        let holders = wire.enroll_all(supply.take(feed::HOLDERS)).await?;
        let victims = wire.enroll_all(supply.take(feed::ROUNDS)).await?;
        let listeners = usize::try_from(self.bench.listeners).unwrap_or(usize::MAX);
        self.terminal.note(format_args!("measuring: {listeners} programs that follow the status feed"));
        let found = feed::measure(&wire, server.id(), listeners, &holders, &victims).await?;
        server.stop().await?;
        Ok(found)
    }

    async fn enrolments(&mut self, wire: &Wire, supply: &mut Supply, server: u32) -> Result<()> {
        let (clients, limit) = (usize::from(self.bench.clients), self.bench.limit());
        let floor = self.floor.enrolment_us();
        let holder = wire.enroll_all(supply.take(1)).await?.pop().context("an enrolment has a result")?;
        let syncs = Syncs::Of(wire.clone());
        if self.bench.wants(Part::Lone) {
            let lone = wire.enroll(1, Some(&holder.identity), supply.take(LONE), limit).await?;
            self.measure("enrol, one client alone, mTLS", Some(floor), server, Some(&syncs), lone.run())
                .await?;
        }
        if self.bench.wants(Part::Enroll) {
            let each = self.most(floor) / 2;
            for (what, identity) in
                [("enrol, keep-alive TLS", None), ("enrol, keep-alive mTLS", Some(&holder.identity))]
            {
                let load = wire.enroll(clients, identity, supply.take(each), limit).await?;
                self.measure(what, Some(floor), server, Some(&syncs), load.run()).await?;
            }
        }
        if self.bench.wants(Part::Handshake) {
            let identities = vec![holder.identity.clone(); clients];
            let intents = supply.take(self.most(floor) / 2);
            let load = wire::enroll_afresh(wire, identities, intents, limit);
            self.measure("enrol, new mTLS handshake each", Some(floor), server, Some(&syncs), load).await?;
        }
        Ok(())
    }

    async fn renewals(&mut self, wire: &Wire, supply: &mut Supply, server: u32) -> Result<()> {
        if !self.bench.wants(Part::Renew) {
            return Ok(());
        }
        let (clients, limit) = (usize::from(self.bench.clients), self.bench.limit());
        let floor = self.floor.enrolment_us();
        let syncs = Syncs::Of(wire.clone());
        let enrolled = wire.enroll_all(supply.take(RENEWALS)).await?;
        let open = wire.connect_all(&enrolled).await?;
        let open = open.into_iter().map(|client| Ok((client, Arc::new(Subject::new()?))));
        let load = wire::renew_open(clients, open.collect::<Result<_>>()?, limit);
        self.measure("renew, open mTLS connection", Some(floor), server, Some(&syncs), load).await?;
        let enrolled = wire.enroll_all(supply.take(clients)).await?;
        // A renewal wants a new key, and the stock takes turns.
        let subjects =
            (0..self.most(floor) / 3).map(|_| Subject::new().map(Arc::new)).collect::<Result<_>>()?;
        let load = wire::renew_afresh(wire, enrolled, subjects, limit);
        self.measure("renew, new mTLS handshake each", Some(floor), server, Some(&syncs), load).await
    }

    async fn batches(&mut self, wire: &Wire, supply: &mut Supply, server: u32) -> Result<()> {
        if !self.bench.wants(Part::Batch) {
            return Ok(());
        }
        let limit = self.bench.limit();
        for (proof, what, floor) in [
            (Proof::Request, "batch of 100, certificate requests", self.floor.enrolment_us()),
            (Proof::Vouched, "batch of 100, vouched keys", self.floor.vouched_us()),
        ] {
            let clients = wire.operators(usize::from(self.bench.clients).min(8)).await?;
            let batches = (0..self.most(floor) / BATCH)
                .map(|_| wire.batch(proof, &mut || (supply.identity(), supply.subject())))
                .collect();
            let load = wire::enroll_batches(clients, batches, limit);
            self.measure(what, Some(floor), server, Some(&Syncs::Of(wire.clone())), load).await?;
        }
        Ok(())
    }

    async fn status(&mut self, wire: &Wire, supply: &mut Supply, server: u32) -> Result<()> {
        if !self.bench.wants(Part::Ocsp) {
            return Ok(());
        }
        let (clients, limit) = (usize::from(self.bench.clients), self.bench.limit());
        let serials = wire.enroll_all(supply.take(clients)).await?;
        for (by_get, what) in [(true, "OCSP by GET"), (false, "OCSP by POST")] {
            let requests = serials.iter().cycle().take(self.most(10.0));
            let requests = requests.map(|one| wire.ocsp_request(&one.serial)).collect();
            let ports = wire.status_ports(clients).await?;
            self.measure(what, None, server, None, wire::ask_status(ports, requests, by_get, limit)).await?;
        }
        let request = wire.ocsp_request(&serials.first().context("nobody was enrolled")?.serial);
        let mut port = wire.status_ports(1).await?.pop().context("one was asked for")?;
        let bare = Bare::serve(port.post_ocsp("/ocsp", &request).await?).await?;
        let (ports, requests) = (bare.ports(clients).await?, vec![request; self.most(10.0)]);
        let load = wire::ask_status(ports, requests, true, limit);
        self.measure("bare axum, the same bytes", None, std::process::id(), None, load).await
    }

    /// One line.
    async fn measure(
        &mut self,
        what: &str,
        floor_us: Option<f64>,
        process: u32,
        syncs: Option<&Syncs>,
        load: impl Future<Output = Result<Load>>,
    ) -> Result<()> {
        self.terminal.note(format_args!("measuring: {what}"));
        let count = async || match syncs {
            Some(syncs) => syncs.count().await,
            None => Ok(None),
        };
        let (cpu, synced) = (process::cpu_time(process)?, count().await?);
        let load = load.await.with_context(|| what.to_owned())?;
        let cpu = process::cpu_time(process)?.saturating_sub(cpu);
        let synced = count().await?.zip(synced).map(|(after, before)| after - before);
        self.rows.push(Row::new(what, &load, cpu, (floor_us, self.floor.cores), synced));
        Ok(())
    }
}

/// What so many cores could do in this time if each took this many microseconds.
fn most(cores: f64, time: Duration, each_us: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "far below 2^53, and positive"
    )]
    let most = (cores * time.as_secs_f64() * 1e6 / each_us) as usize;
    most
}

/// Has enough connections for the listeners, in this process and in those that it starts.
fn raise_descriptors(listeners: u32) -> Result<()> {
    let (limit, needed) = (getrlimit(Resource::Nofile), u64::from(listeners) + 1000);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)
        .with_context(|| format!("{needed} files have to be open at once; raise the limit (ulimit -Hn)"))
}

/// Where syncs of the ledger are counted.
enum Syncs {
    /// In this process.
    Own(InProcess),
    /// In a server, which says so in its metrics.
    Of(Wire),
}

impl Syncs {
    async fn count(&self) -> Result<Option<u64>> {
        match self {
            Self::Own(authority) => Ok(Some(authority.syncs())),
            Self::Of(wire) => {
                let metrics = wire.admin()?.metrics().await?;
                let text = String::from_utf8_lossy(&metrics);
                let line = text.lines().find_map(|line| line.strip_prefix("chancery_ledger_syncs_total "));
                Ok(line.and_then(|count| count.trim().parse().ok()))
            }
        }
    }
}

/// A directory that is removed in the end.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new(within: &Path) -> Result<Self> {
        let path = std::path::absolute(within)?.join(format!("chancery-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is found by its name.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
