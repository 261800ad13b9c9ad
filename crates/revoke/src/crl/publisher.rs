//! Keeps every list up to date: rebuilds those on which something changed, and the others before they run out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use chancery_entry::{Body, CrlPublished, CrlShardPublished, Entry};
use chancery_ledger::{Ledger, Outcome, Precondition, Proposal, RevokedCertificate, Turn};
use chancery_telemetry::step;
use chancery_types::{Clock, CrlShard, IssuerEpoch, Timestamp};
use tokio::sync::Mutex;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tracing::Instrument as _;

use super::file;
use super::make::Draft;
use super::place::Place;
use super::{CrlRules, PublishError, PublishedCrl, StatusIssuer};
use crate::board::{StatusBoard, StatusNews};

/// What the leases of parts and of full lists are called.
const WORKS: [&str; 2] = ["crl-parts", "crl-full"];
/// How long to wait after lists could not be published.
const RETRY: Duration = Duration::from_secs(2);
/// The longest sleep: the clock may have been set meanwhile.
const NAP: Duration = Duration::from_secs(30);
/// A clock that goes back by more than this was set.
const SET_BACK: Duration = Duration::from_secs(60);
/// The longest time that changes are gathered.
const MOST_GATHERED: Duration = Duration::from_secs(10);
/// Lists that are built together: bounds the memory for what they say.
const TOGETHER: usize = 64;

/// Publishes the lists of every issuer.
pub struct CrlPublisher {
    pub(super) ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    board: Arc<StatusBoard>,
    rules: CrlRules,
    directory: PathBuf,
    places: ArcSwap<Places>,
    /// One publication of full lists, and one of parts at a time.
    publishing: [Mutex<()>; 2],
    /// Among the processes on one ledger one makes the lists of a kind; the others put them in place too.
    turns: [Turn; 2],
    published: AtomicU64,
    failures: AtomicU64,
}

/// Where lists are published.
#[derive(Debug, Default)]
struct Places {
    full: Vec<Arc<Place>>,
    parts: BTreeMap<(IssuerEpoch, CrlShard), Arc<Place>>,
}

impl Places {
    /// Those of these issuers; a place that was there before, and is for the same URLs, stays.
    fn of(issuers: Vec<StatusIssuer>, directory: &Path, before: &Self) -> Self {
        let mut places = Self::default();
        for issuer in issuers.into_iter().map(Arc::new) {
            let has_key = |place: &&Arc<Place>| place.issuer().signer.is_some() == issuer.signer.is_some();
            let known = before.full.iter().find(|place| place.epoch() == issuer.epoch).filter(has_key);
            places.full.push(known.cloned().unwrap_or_else(|| Arc::new(Place::full(&issuer, directory))));
            for place in parts_of(&issuer, directory) {
                let known = before.parts.get(&key(&place)).filter(has_key);
                let known = known.filter(|known| known.urls() == place.urls()).cloned();
                places.parts.insert(key(&place), known.unwrap_or_else(|| Arc::new(place)));
            }
        }
        places
    }
}

/// Full lists are slow where there is much to say, so they do not hold up the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    Parts,
}

impl std::fmt::Debug for CrlPublisher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CrlPublisher").field("places", &self.places().count()).finish_non_exhaustive()
    }
}

impl CrlPublisher {
    /// A publisher that writes below a directory and serves from memory; what the directory holds is served at once.
    #[must_use]
    pub fn new(
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        board: Arc<StatusBoard>,
        rules: CrlRules,
        issuers: Vec<StatusIssuer>,
        directory: &Path,
    ) -> Self {
        let places = Places::of(issuers, directory, &Places::default());
        Self {
            places: ArcSwap::from_pointee(places),
            directory: directory.to_owned(),
            turns: WORKS.map(|work| Turn::new(Arc::clone(&ledger), work)),
            ledger,
            clock,
            board,
            rules,
            publishing: [Mutex::new(()), Mutex::new(())],
            published: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Publishes for these issuers from here on, and for no others; what is missing is published before this returns.
    pub async fn use_issuers(&self, issuers: Vec<StatusIssuer>) {
        let places = Places::of(issuers, &self.directory, &self.places.load());
        self.places.store(Arc::new(places));
        self.begin().await;
    }

    /// Every place, those of full lists first.
    pub fn places(&self) -> impl Iterator<Item = Arc<Place>> + use<> {
        let places = self.places.load_full();
        let all: Vec<Arc<Place>> = places.full.iter().chain(places.parts.values()).cloned().collect();
        all.into_iter()
    }

    /// The place of an issuer's full list.
    #[must_use]
    pub fn full(&self, epoch: IssuerEpoch) -> Option<Arc<Place>> {
        self.places.load().full.iter().find(|place| place.epoch() == epoch).cloned()
    }

    /// The place of one part of an issuer's certificates.
    #[must_use]
    pub fn part(&self, epoch: IssuerEpoch, shard: CrlShard) -> Option<Arc<Place>> {
        self.places.load().parts.get(&(epoch, shard)).cloned()
    }

    /// When lists are made.
    #[must_use]
    pub fn rules(&self) -> &CrlRules {
        &self.rules
    }

    /// Lists published by this process.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Attempts to publish a list that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Publishes what is missing or due, once: before doors open, so that nobody meets a certificate whose list is not
    /// there. What fails is tried again by [`Self::run`].
    pub async fn begin(&self) {
        self.adopt_all().await;
        for kind in [Kind::Full, Kind::Parts] {
            if self.turn(kind).ask().await.is_some() {
                self.look(kind).await;
                report(&self.publish(kind).await);
            }
        }
    }

    /// Publishes after every change and in time before lists run out, until it is dropped. A failure is tried again;
    /// the list in place stays meanwhile.
    pub async fn run(&self) {
        let [parts, full] = &self.turns;
        let lists = async { tokio::join!(self.keep(Kind::Full), self.keep(Kind::Parts), self.follow()) };
        tokio::select! {
            _ = lists => {}
            _ = async { tokio::join!(parts.keep(), full.keep()) } => {}
        }
    }

    /// Lets another process make the lists at once: this one stops.
    pub async fn give_up(&self) {
        for turn in &self.turns {
            turn.give_up().await;
        }
    }

    fn turn(&self, kind: Kind) -> &Turn {
        &self.turns[usize::from(kind == Kind::Full)]
    }

    /// Waits for this process's turn. What is on the board is tidied meanwhile: each has its own.
    async fn wait(&self, kind: Kind, latest: &mut Timestamp) {
        loop {
            tokio::select! {
                fence = self.turn(kind).mine() => {
                    tracing::info!(?kind, fence, "this process makes the revocation lists");
                    return;
                }
                () = tokio::time::sleep(NAP) => {}
            }
            if kind == Kind::Parts {
                self.tidy(latest, self.clock.now()).await;
            }
        }
    }

    async fn keep(&self, kind: Kind) {
        let mut news = self.board.news();
        let mut latest = self.clock.now();
        let mut took = Duration::ZERO;
        let mut is_mine = false;
        loop {
            if !is_mine || self.turn(kind).fence().is_none() {
                self.wait(kind, &mut latest).await;
                news = self.board.news();
                self.look(kind).await;
                is_mine = true;
            }
            let now = self.clock.now();
            if kind == Kind::Parts {
                self.tidy(&mut latest, now).await;
            }
            if self.work(kind, now).is_empty() {
                tokio::select! {
                    heard = news.recv() => match heard {
                        Ok(heard) => self.mark(kind, &heard),
                        Err(RecvError::Lagged(_)) => self.mark_all(kind),
                        Err(RecvError::Closed) => return,
                    },
                    () = self.turn(kind).lost() => {}
                    () = tokio::time::sleep(self.nap(kind, now)) => {}
                }
                continue;
            }
            // Lists that take long are made less often, so that they take a fifth of a processor at the most.
            tokio::time::sleep(self.rules.gather.max(took * 4).min(MOST_GATHERED)).await;
            loop {
                match news.try_recv() {
                    Ok(heard) => self.mark(kind, &heard),
                    Err(TryRecvError::Lagged(_)) => self.mark_all(kind),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            let begun = Instant::now();
            let failures = self.publish(kind).await;
            took = begun.elapsed();
            report(&failures);
            if !failures.is_empty() {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Publishes what is dirty or due; what fails stays dirty.
    async fn publish(&self, kind: Kind) -> Vec<(Arc<Place>, PublishError)> {
        let _turn = self.publishing[usize::from(kind == Kind::Full)].lock().await;
        let mut failures = Vec::new();
        if self.turn(kind).fence().is_none() {
            return failures;
        }
        for places in self.work(kind, self.clock.now()).chunks(TOGETHER) {
            places.iter().for_each(|place| place.set_dirty(false));
            let step = step!("publish", chancery.what = "lists", chancery.lists = places.len());
            let results = self.publish_together(places).instrument(step).await;
            for (place, result) in places.iter().zip(results) {
                place.set_trouble(result.as_ref().err().map(ToString::to_string));
                match result {
                    Ok(()) => _ = self.published.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        place.set_dirty(true);
                        self.failures.fetch_add(1, Ordering::Relaxed);
                        failures.push((Arc::clone(place), error));
                    }
                }
            }
        }
        failures
    }

    async fn publish_together(&self, places: &[Arc<Place>]) -> Vec<Result<(), PublishError>> {
        let now = self.clock.now();
        let mut drafts = Vec::with_capacity(places.len());
        for (place, lines) in places.iter().zip(self.lines(places, now)) {
            drafts.push(self.draft(place, lines, now).await);
        }
        let made = tokio::task::spawn_blocking(move || {
            let make = |draft: Draft| draft.make().map(|list| (draft, Arc::new(list)));
            drafts.into_iter().map(|draft| draft.and_then(make)).collect::<Vec<_>>()
        });
        let Ok(made) = made.await else { return broken_off(places.len()) };
        let recorded = self.record(made).await;
        let put = tokio::task::spawn_blocking(move || put_all(recorded));
        put.await.unwrap_or_else(|_| broken_off(places.len()))
    }

    /// A list is made only from a board that has seen everything that the last list could say.
    async fn draft(
        &self,
        place: &Arc<Place>,
        lines: Vec<RevokedCertificate>,
        now: Timestamp,
    ) -> Result<Draft, PublishError> {
        let previous = self.ledger.last_crl(place.epoch(), place.shard()).await?;
        let own = place.current().map(|list| list.hash);
        let position = self.board.read().position();
        match previous {
            Some(last) if own != Some(last.hash) && position <= last.index => {
                Err(PublishError::Elsewhere(last.number))
            }
            _ => Ok(Draft { place: Arc::clone(place), lines, previous, now, validity: self.rules.validity }),
        }
    }

    /// What each of these lists must say now, in one walk over the board for each issuer.
    fn lines(&self, places: &[Arc<Place>], now: Timestamp) -> Vec<Vec<RevokedCertificate>> {
        let since = now - self.rules.keep();
        let mut lists = vec![Vec::new(); places.len()];
        let board = self.board.read();
        let epochs: BTreeSet<IssuerEpoch> = places.iter().map(|place| place.epoch()).collect();
        for epoch in epochs {
            let tables = tables(places, epoch);
            for line in board.of_issuer(epoch).filter(|line| line.not_after >= since) {
                for table in &tables {
                    let of = u16::try_from(table.len()).unwrap_or(u16::MAX);
                    let number = CrlShard::containing(line.serial, of).number();
                    if let Some(list) = table[usize::from(number)] {
                        lists[list].push(*line);
                    }
                }
            }
        }
        lists
    }

    /// Hands all of them to the other processes, and records them in one commit.
    async fn record(&self, mut made: Vec<Result<(Draft, Arc<PublishedCrl>), PublishError>>) -> Vec<Made> {
        for one in &mut made {
            if let Ok((draft, list)) = one
                && let Err(error) = self.share(&draft.place, list).await
            {
                *one = Err(error);
            }
        }
        let proposals = made.iter().flatten().map(|(draft, list)| proposal(draft, list)).collect::<Vec<_>>();
        let outcomes = match proposals.is_empty() {
            true => Ok(Vec::new()),
            false => self.ledger.commit(proposals).instrument(step!("commit")).await,
        };
        let mut outcomes = outcomes.map(Vec::into_iter);
        let made = made.into_iter().map(|made| {
            let (draft, list) = made?;
            match outcomes.as_mut().map(Iterator::next) {
                Ok(Some(Outcome::Accepted { .. })) => Ok((draft.place, list)),
                Ok(_) => Err(PublishError::Elsewhere(list.number)),
                Err(error) => Err(error.clone().into()),
            }
        });
        made.collect()
    }

    pub(super) fn turn_of(&self, place: &Place) -> &Turn {
        &self.turns[usize::from(place.shard().is_none())]
    }

    pub(super) fn publishing_of(&self, place: &Place) -> &Mutex<()> {
        &self.publishing[usize::from(place.shard().is_none())]
    }

    fn kind(&self, kind: Kind) -> impl Iterator<Item = Arc<Place>> + use<> {
        self.places().filter(move |place| place.shard().is_some() == (kind == Kind::Parts))
    }

    fn work(&self, kind: Kind, now: Timestamp) -> Vec<Arc<Place>> {
        self.kind(kind).filter(|place| place.wants_work(&self.rules, now)).collect()
    }

    fn nap(&self, kind: Kind, now: Timestamp) -> Duration {
        let alive = self.kind(kind).filter(|place| place.is_alive(now));
        let due = alive.map(|place| place.due(&self.rules).since(now)).min();
        due.map_or(NAP, |due| due.clamp(self.rules.gather, NAP))
    }

    /// Finds out which of the lists that an earlier process left say what they should.
    async fn look(&self, kind: Kind) {
        let now = self.clock.now();
        let places: Vec<_> = self.kind(kind).collect();
        for places in places.chunks(TOGETHER) {
            let lists = self.lines(places, now);
            let (places, least) = (places.to_vec(), self.rules.validity / 2);
            let looked = tokio::task::spawn_blocking(move || {
                for (place, lines) in places.iter().zip(lists) {
                    place.set_dirty(!place.says(&lines, now, least));
                }
            });
            if looked.await.is_err() {
                self.mark_all(kind);
            }
        }
    }

    fn mark(&self, kind: Kind, news: &StatusNews) {
        let StatusNews::Changes { certificates, .. } = news else { return self.mark_all(kind) };
        for place in self.kind(kind) {
            if certificates.iter().any(|change| place.covers(change.serial)) {
                place.set_dirty(true);
            }
        }
    }

    fn mark_all(&self, kind: Kind) {
        self.kind(kind).for_each(|place| place.set_dirty(true));
    }

    /// Forgets what no list has any more. After the clock was set back, what was forgotten is read again.
    async fn tidy(&self, latest: &mut Timestamp, now: Timestamp) {
        if now + SET_BACK < *latest {
            tracing::warn!(%now, before = %latest, "the clock was set back; status is read anew");
            if let Err(error) = self.board.renew().await {
                tracing::error!(%error, "the status of certificates cannot be read; what is published stays");
                return;
            }
        } else if now.since(*latest) < self.rules.period() {
            return;
        }
        *latest = now;
        self.board.forget(now - self.rules.keep());
    }
}

/// A list that is recorded, for its place.
type Made = Result<(Arc<Place>, Arc<PublishedCrl>), PublishError>;

fn key(place: &Place) -> (IssuerEpoch, CrlShard) {
    let whole = CrlShard::new(0, 1).expect("one is enough");
    (place.epoch(), place.shard().unwrap_or(whole))
}

/// A place for each part of each division that certificates may name. Where the same division was named under several
/// bases, its lists are for all of these URLs.
fn parts_of(issuer: &Arc<StatusIssuer>, directory: &Path) -> Vec<Place> {
    let mut bases: BTreeMap<u16, Vec<(u64, &str)>> = BTreeMap::new();
    for division in &issuer.divisions {
        bases.entry(division.shards).or_default().push((division.index, &division.base));
    }
    let mut places = Vec::new();
    for (shards, mut bases) in bases {
        bases.sort_unstable_by(|left, right| right.cmp(left));
        for shard in CrlShard::all(shards) {
            let urls = bases.iter().map(|(_, base)| shard.url(base, issuer.epoch)).collect();
            places.push(Place::part(issuer, shard, urls, directory));
        }
    }
    places
}

/// For each division, and for the full list as one of its own: which of these places is the one of each remainder.
fn tables(places: &[Arc<Place>], epoch: IssuerEpoch) -> Vec<Vec<Option<usize>>> {
    let mut tables: BTreeMap<Option<u16>, Vec<Option<usize>>> = BTreeMap::new();
    for (index, place) in places.iter().enumerate().filter(|(_, place)| place.epoch() == epoch) {
        let (of, number) = place.shard().map_or((1, 0), |shard| (shard.of(), shard.number()));
        let table = tables.entry(place.shard().map(CrlShard::of));
        table.or_insert_with(|| vec![None; of.into()])[usize::from(number)] = Some(index);
    }
    tables.into_values().collect()
}

fn report(failures: &[(Arc<Place>, PublishError)]) {
    for (place, error) in failures {
        let file = place.file().display();
        tracing::error!(%error, epoch = %place.epoch(), %file, "NO NEW CRL; the one before stays in place");
    }
}

fn proposal(draft: &Draft, list: &PublishedCrl) -> Proposal {
    let (epoch, shard) = (draft.place.epoch(), draft.place.shard());
    let (number, entries, hash) = (list.number, list.entries, list.hash);
    let (this_update, next_update) = (draft.this_update(), list.next_update);
    let body = match shard {
        None => Body::CrlPublished(CrlPublished { epoch, number, this_update, next_update, entries, hash }),
        Some(shard) => Body::CrlShardPublished(CrlShardPublished {
            epoch,
            shard,
            number,
            this_update,
            next_update,
            entries,
            hash,
        }),
    };
    let previous = draft.previous.map(|previous| previous.number);
    let requires = vec![Precondition::CrlFollows { epoch, shard, previous, number }];
    Proposal::new(requires, vec![Entry::new(list.made, body)]).expect("a list's record is short")
}

/// Puts lists in place, then makes that durable with one sync of each directory.
fn put_all(recorded: Vec<Made>) -> Vec<Result<(), PublishError>> {
    let put = |made: Made| {
        let (place, list) = made?;
        place.put(list).map(|()| place)
    };
    let put: Vec<Result<Arc<Place>, PublishError>> = recorded.into_iter().map(put).collect();
    let mut synced: BTreeMap<PathBuf, Option<std::io::ErrorKind>> = BTreeMap::new();
    let sync = |put: Result<Arc<Place>, PublishError>| {
        let place = put?;
        let directory = place.file().parent().unwrap_or(Path::new("/"));
        let failed = synced
            .entry(directory.to_owned())
            .or_insert_with(|| file::sync_directory(directory).err().map(|error| error.kind()));
        failed.map_or(Ok(()), |kind| Err(place.failed(kind.into())))
    };
    put.into_iter().map(sync).collect()
}

fn broken_off(count: usize) -> Vec<Result<(), PublishError>> {
    std::iter::repeat_with(|| Err(PublishError::BrokenOff)).take(count).collect()
}
