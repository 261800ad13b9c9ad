//! The status feed with as many listeners as the road asks for: how soon each is told, and what they cost the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chancery_api::{FeedChange, FeedQuery, RevokeRequest, Selector};
use chancery_client::{Client, StatusFeed};
use chancery_types::{RevocationReason, SerialNumber};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::load::percentile_ms;
use super::process;
use super::wire::{Enrolled, Wire};

/// Certificates that listeners share: the server bounds how many programs of one identity may listen.
pub(crate) const HOLDERS: usize = 10;
/// Revocations, one after the other.
pub(crate) const ROUNDS: usize = 20;
/// Connections that are opened at once.
const OPENING: usize = 32;
/// How long nobody revokes anything before memory is looked at, and while idling is measured.
const REST: Duration = Duration::from_secs(15);
/// How long an event may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FeedFigures {
    /// Listeners, each on a TLS connection of its own.
    pub(crate) listeners: usize,
    /// Seconds that it took to connect them.
    pub(crate) connecting_seconds: f64,
    /// From the answer to a revocation to the event at each listener, milliseconds.
    pub(crate) p50_ms: f64,
    /// The same.
    pub(crate) p99_ms: f64,
    /// The same.
    pub(crate) most_ms: f64,
    /// How much the server's resident memory grew with all of them, in bytes: idle, and after the revocations.
    pub(crate) growth_bytes: [u64; 2],
    /// Share of one core that the server uses while only heartbeats are sent.
    pub(crate) idle_share: f64,
}

/// One event at one listener.
type Arrival = (SerialNumber, Instant);

/// Connects so many listeners, revokes certificates, and looks when each is told.
pub(crate) async fn measure(
    wire: &Wire,
    server: u32,
    listeners: usize,
    holders: &[Enrolled],
    victims: &[Enrolled],
) -> Result<FeedFigures> {
    let before = process::resident_bytes(server)?;
    let began = Instant::now();
    let (sender, mut arrivals) = mpsc::unbounded_channel();
    let mut tasks = listen(wire, listeners, holders, &sender).await?;
    let connecting_seconds = began.elapsed().as_secs_f64();
    let cpu = process::cpu_time(server)?;
    tokio::time::sleep(REST).await;
    let idle_share = (process::cpu_time(server)?.saturating_sub(cpu)).as_secs_f64() / REST.as_secs_f64();
    let idle = process::resident_bytes(server)?.saturating_sub(before);
    let admin = wire.admin()?;
    let mut delays = Vec::with_capacity(listeners * victims.len());
    for victim in victims {
        delays.extend(revoke(&admin, victim, listeners, &mut arrivals).await?);
    }
    let grown = process::resident_bytes(server)?.saturating_sub(before);
    tasks.abort_all();
    delays.sort_unstable();
    Ok(FeedFigures {
        listeners,
        connecting_seconds,
        p50_ms: percentile_ms(&delays, 0.5),
        p99_ms: percentile_ms(&delays, 0.99),
        most_ms: percentile_ms(&delays, 1.0),
        growth_bytes: [idle, grown],
        idle_share,
    })
}

/// Connects everybody; each has heard its first heartbeat.
async fn listen(
    wire: &Wire,
    listeners: usize,
    holders: &[Enrolled],
    sender: &mpsc::UnboundedSender<Arrival>,
) -> Result<JoinSet<Result<()>>> {
    let (opening, connected) = (Arc::new(Semaphore::new(OPENING)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for number in 0..listeners {
        let client = wire.listener(&holders[number % holders.len()].identity)?;
        let (sender, opening, connected) = (sender.clone(), Arc::clone(&opening), Arc::clone(&connected));
        tasks.spawn(async move {
            let mut feed = client.status_feed(FeedQuery::default());
            let permit = opening.acquire().await.context("nobody closes it")?;
            feed.next().await?;
            drop(permit);
            connected.fetch_add(1, Ordering::Relaxed);
            report(&mut feed, &sender).await
        });
    }
    while connected.load(Ordering::Relaxed) < listeners {
        if let Ok(Some(ended)) = tokio::time::timeout(Duration::from_millis(20), tasks.join_next()).await {
            ended.context("a listener ended")??;
        }
    }
    Ok(tasks)
}

async fn report(feed: &mut StatusFeed, sender: &mpsc::UnboundedSender<Arrival>) -> Result<()> {
    loop {
        if let FeedChange::Revoke { serials, .. } = feed.next().await?.change {
            let now = Instant::now();
            for serial in serials {
                // Nobody looks at it once everything is measured.
                let _ = sender.send((serial, now));
            }
        }
    }
}

/// Revokes one certificate; returns how long after the answer each listener was told.
async fn revoke(
    admin: &Client,
    victim: &Enrolled,
    listeners: usize,
    arrivals: &mut mpsc::UnboundedReceiver<Arrival>,
) -> Result<Vec<Duration>> {
    let serial = SerialNumber::from_bytes(&victim.serial)?;
    let selector = Selector::Serial(serial);
    let reason = RevocationReason::Superseded;
    let request = RevokeRequest::new(selector, reason);
    admin.revoke(&request).await?;
    let acknowledged = Instant::now();
    let mut delays = Vec::with_capacity(listeners);
    while delays.len() < listeners {
        let arrival = tokio::time::timeout(PATIENCE, arrivals.recv()).await;
        let (told, at) = arrival
            .with_context(|| format!("{} of {listeners} were told", delays.len()))?
            .context("the listeners have ended")?;
        ensure!(told == serial, "{told} was told, and {serial} revoked");
        delays.push(at.saturating_duration_since(acknowledged));
    }
    Ok(delays)
}
