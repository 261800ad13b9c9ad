//! Replicas of one authority on one database, each a process of its own: how the rate grows with them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chancery_client::Client;
use serde::Serialize;

use super::core_share::CoreShare;
use super::process::{self, MachineTime};
use super::supply::Intent;
use super::wire::{Prepared, Wire};
use crate::authority_side::listen_at;
use crate::loopback::{ServerProcess, free_addresses};

/// How long each number of replicas is at work before it is measured.
pub(crate) const WARM_UP: Duration = Duration::from_secs(2);

/// What was found with so many replicas.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GrowthFigures {
    /// Servers at work.
    pub(crate) replicas: usize,
    /// Certificates a second, of all.
    pub(crate) per_second: f64,
    /// Latency, milliseconds.
    pub(crate) p50_ms: f64,
    /// Latency, milliseconds.
    pub(crate) p99_ms: f64,
    /// CPU microseconds of the replicas for each certificate.
    pub(crate) cpu_us: f64,
    /// The share of one core that each replica used, in the mean.
    pub(crate) core_share: f64,
    /// The share of the machine's cores that nobody used: neither replicas, nor clients, nor the database.
    pub(crate) idle_share: f64,
}

/// Servers that are started one by one, each held to so many percent of a core if it shall be.
#[derive(Debug)]
pub(crate) struct Replicas {
    places: Vec<Place>,
    core_share: Option<u16>,
    running: Vec<Replica>,
}

/// Where a replica lives and listens.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    addresses: (SocketAddr, SocketAddr),
}

/// A server that runs, within its share of a core if it has one.
#[derive(Debug)]
struct Replica {
    wire: Wire,
    server: ServerProcess,
    _limit: Option<CoreShare>,
}

impl Replicas {
    /// Copies the directory of an authority whose ledger is in a database, for each replica but the first.
    pub(crate) fn new(
        first: &Path,
        addresses: (SocketAddr, SocketAddr),
        count: usize,
        core_share: Option<u16>,
    ) -> Result<Self> {
        let mut places = vec![Place { directory: first.to_owned(), addresses }];
        for number in 1..count {
            let addresses = free_addresses()?;
            let directory = first.with_extension(format!("{}", number + 1));
            copy(first, &directory).with_context(|| format!("cannot copy {}", first.display()))?;
            listen_at(&directory.join("chancery.toml"), addresses)?;
            places.push(Place { directory, addresses });
        }
        Ok(Self { places, core_share, running: Vec::with_capacity(count) })
    }

    /// Starts one more.
    pub(crate) async fn start_next(&mut self) -> Result<()> {
        let place = self.places.get(self.running.len()).context("all replicas run")?;
        let (server, wire) = Wire::serve(&place.directory, place.addresses).await?;
        let limit = self.core_share.map(|share| CoreShare::hold(server.id(), share)).transpose()?;
        self.running.push(Replica { wire, server, _limit: limit });
        Ok(())
    }

    /// Enrols at all that run, over so many open connections to each, until the time is over.
    async fn enroll(
        &self,
        clients: usize,
        intents: Vec<Intent>,
        limit: Duration,
    ) -> Result<Prepared<Client, Intent>> {
        let mut workers = Vec::with_capacity(self.running.len() * clients);
        for replica in &self.running {
            workers.extend(replica.wire.connected(clients, None).await?);
        }
        Ok(Prepared { workers, items: intents, limit })
    }

    /// The same, which nobody measures: what has just been started is slow.
    pub(crate) async fn warm_up(&self, clients: usize, intents: Vec<Intent>) -> Result<()> {
        self.enroll(clients, intents, WARM_UP).await?.run().await.map(|_| ())
    }

    /// The same, measured.
    pub(crate) async fn measure(
        &self,
        clients: usize,
        intents: Vec<Intent>,
        limit: Duration,
    ) -> Result<GrowthFigures> {
        let prepared = self.enroll(clients, intents, limit).await?;
        let (cpu, machine, began) = (self.cpu_time()?, MachineTime::now()?, Instant::now());
        let load = prepared.run().await?;
        let (cpu, idle_share) = (self.cpu_time()?.saturating_sub(cpu), machine.idle_share_since()?);
        Ok(GrowthFigures {
            replicas: self.running.len(),
            per_second: load.rate(),
            p50_ms: load.percentile_ms(0.5),
            p99_ms: load.percentile_ms(0.99),
            cpu_us: load.each_us(cpu),
            core_share: cpu.as_secs_f64() / began.elapsed().as_secs_f64() / self.running.len() as f64,
            idle_share,
        })
    }

    /// Stops all.
    pub(crate) async fn stop(self) -> Result<()> {
        for replica in self.running {
            replica.server.stop().await?;
        }
        Ok(())
    }

    fn cpu_time(&self) -> Result<Duration> {
        self.running.iter().map(|replica| process::cpu_time(replica.server.id())).sum()
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() => copy(&entry.path(), &target)?,
            kind if kind.is_file() => fs::copy(entry.path(), &target).map(|_| ())?,
            // A socket is made anew.
            _ => {}
        }
    }
    Ok(())
}
