//! The transmitter of security events: what becomes of certificates, told to receivers that speak the OpenID Shared
//! Signals Framework 1.0, by poll (RFC 8936) or push (RFC 8935).
//!
//! Events are facts of the log. A stream keeps the position up to which everything has arrived; what comes after it
//! is told until it is acknowledged, over restarts too, each time under the same `jti`. A stream that falls behind
//! what is remembered is paused and told so: its receiver enables it and fetches the exact set.
//!
//! A stream belongs to the identity that made it and lasts as long as that one. Nobody else sees it. It trusts the
//! ledger, and operators as to where events may be pushed; nothing that a receiver says of itself.

mod facts;
mod follow;
mod progress;
mod push;
mod record;
mod store;
mod stream;
mod token;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use chancery_api::{
    CREDENTIAL_CHANGE, EventStreamView, EventStreamsResponse, POLL_EVENTS, POLL_SECONDS, PollRequest,
    PollResponse, StreamConfiguration, StreamRequest, StreamState, StreamStatus,
};
use chancery_ledger::ModelError;
use chancery_types::{IssuerEpoch, RandomError, SpiffeId};
use chancery_x509::Certificate;
use data_encoding::HEXLOWER;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Shutdown;
use crate::authority::{Authority, AuthorityError};
use crate::config::EventPushConfig;
use facts::Facts;
use push::Pusher;
use record::{Record, text};
use store::Store;
use stream::Stream;
use token::Due;

pub(crate) use record::host_and_port;

/// Streams in all.
const STREAMS: usize = 256;
/// Streams of one identity.
const STREAMS_PER_OWNER: usize = 8;
/// Bytes of a stream's name.
const NAME_BYTES: usize = 16;
/// How long two verifications of a stream are apart at the least.
pub(super) const VERIFICATION_INTERVAL: Duration = Duration::from_secs(10);

/// Why a request about a stream is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SsfError {
    /// The caller has no such stream, whoever else may.
    #[error("you have no stream {0:?}")]
    NotFound(String),
    /// A part of the request does not do.
    #[error("{}: {why}", field.trim_start_matches('/'))]
    Invalid {
        /// JSON pointer.
        field: &'static str,
        /// Why not.
        why: String,
    },
    /// There are too many streams.
    #[error("{0} streams are all that {1} may have; remove one that nobody reads")]
    TooMany(usize, &'static str),
    /// It has to run for this.
    #[error("the stream is not enabled; enable it first")]
    NotEnabled,
    /// It is pushed.
    #[error("the events of this stream are pushed, so they cannot be polled for")]
    IsPushed,
    /// Somebody else waits for its events.
    #[error("{0} polls wait for events of this stream already")]
    Busy(usize),
    /// Verified a moment ago.
    #[error("the stream was verified less than {} s ago", VERIFICATION_INTERVAL.as_secs())]
    TooSoon,
    /// It cannot be kept.
    #[error("the stream cannot be written to disk: {0}")]
    Store(#[from] io::Error),
    /// The ledger cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A token cannot be signed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// What a token would be about is not on record.
    #[error("the log has no certificate {0}, which it says something of")]
    Record(String),
}

/// All streams.
pub(crate) struct Transmitter {
    authority: Arc<Authority>,
    shutdown: Shutdown,
    store: Store,
    pusher: Option<Pusher>,
    streams: RwLock<BTreeMap<String, Arc<Stream>>>,
    facts: Mutex<Facts>,
    /// Told when there may be something to deliver.
    changed: watch::Sender<()>,
    /// The names of issuers, as RFC 4514 has them.
    issuers: Mutex<HashMap<IssuerEpoch, Arc<str>>>,
}

impl std::fmt::Debug for Transmitter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Transmitter").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Transmitter {
    /// Reads the streams that there are.
    ///
    /// # Errors
    /// When they cannot be read, or the trust anchors of pushes cannot.
    pub(crate) fn load(authority: Arc<Authority>, shutdown: Shutdown) -> io::Result<Arc<Self>> {
        let config = authority.config();
        let store = Store::open(config.directory.join("ssf"))?;
        let pusher = config.event_push.as_ref().map(pusher).transpose()?;
        let head = authority.ledger().head().size;
        let mut start = head;
        let mut streams = BTreeMap::new();
        for record in store.load()? {
            if record.status != StreamState::Disabled && !record.fell_behind {
                start = start.min(record.position);
            }
            streams.insert(record.stream_id.clone(), Arc::new(Stream::new(record)));
        }
        let start = start.max(head.saturating_sub(follow::SCAN));
        let transmitter = Self {
            authority,
            shutdown,
            store,
            pusher,
            streams: RwLock::new(streams),
            facts: Mutex::new(Facts::from(start)),
            changed: watch::Sender::new(()),
            issuers: Mutex::default(),
        };
        Ok(Arc::new(transmitter))
    }

    /// Makes a stream, from now on.
    pub(crate) fn create(
        self: &Arc<Self>,
        owner: SpiffeId,
        request: StreamRequest,
    ) -> Result<StreamConfiguration, SsfError> {
        self.check_issuer(&request)?;
        if request.stream_id.is_some() {
            return Err(record::invalid("/stream_id", "the name of a stream is ours to choose"));
        }
        let mut name = [0; NAME_BYTES];
        self.authority.random().fill(&mut name)?;
        let position = self.authority.ledger().head().size;
        let record = Record::new(HEXLOWER.encode(&name), owner, request, position, self.push_hosts())?;
        let stream = {
            let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
            let of_owner = streams.values().filter(|one| one.owner == record.owner).count();
            if of_owner >= STREAMS_PER_OWNER {
                return Err(SsfError::TooMany(STREAMS_PER_OWNER, "one identity"));
            }
            if streams.len() >= STREAMS {
                return Err(SsfError::TooMany(STREAMS, "this server"));
            }
            self.store.save(&record)?;
            let stream = Arc::new(Stream::new(record));
            streams.insert(stream.id.clone(), Arc::clone(&stream));
            stream
        };
        let record = stream.record();
        tracing::info!(stream = record.stream_id, owner = %record.owner, method = record.delivery.method(), "a stream of security events was made");
        self.start_pushing(stream);
        Ok(self.view(&record))
    }

    /// A stream of this owner.
    pub(crate) fn read(&self, owner: &SpiffeId, stream_id: &str) -> Result<StreamConfiguration, SsfError> {
        Ok(self.view(&self.own(owner, stream_id)?.record()))
    }

    /// All streams of this owner.
    pub(crate) fn read_all(&self, owner: &SpiffeId) -> Vec<StreamConfiguration> {
        let own = self.all().into_iter().filter(|stream| stream.owner == *owner);
        own.map(|stream| self.view(&stream.record())).collect()
    }

    /// Changes what a request names, or replaces all that its owner chose.
    pub(crate) fn change(
        &self,
        owner: &SpiffeId,
        request: StreamRequest,
        whole: bool,
    ) -> Result<StreamConfiguration, SsfError> {
        self.check_issuer(&request)?;
        let missing = || record::invalid("/stream_id", "name the stream");
        let stream = self.own(owner, request.stream_id.as_deref().ok_or_else(missing)?)?;
        let hosts = self.push_hosts();
        let record = self.edit(&stream, |record| {
            if whole { record.replace(request, hosts) } else { record.change(request, hosts) }
        })?;
        Ok(self.view(&record))
    }

    /// Removes a stream.
    pub(crate) fn delete(&self, owner: &SpiffeId, stream_id: &str) -> Result<(), SsfError> {
        let stream = self.own(owner, stream_id)?;
        self.remove(&stream)?;
        Ok(())
    }

    /// Whether a stream runs.
    pub(crate) fn status(&self, owner: &SpiffeId, stream_id: &str) -> Result<StreamStatus, SsfError> {
        Ok(status(&self.own(owner, stream_id)?.record()))
    }

    /// Enables, pauses or disables a stream, as its owner wants. One that had fallen behind, or kept nothing, begins
    /// where the log is now.
    pub(crate) fn set_status(&self, owner: &SpiffeId, wish: StreamStatus) -> Result<StreamStatus, SsfError> {
        let stream = self.own(owner, &wish.stream_id)?;
        let reason = wish.reason.map(|reason| text("/reason", reason)).transpose()?;
        let head = self.authority.ledger().head().size;
        let record = self.edit(&stream, |record| {
            let begins_anew = record.fell_behind || record.status == StreamState::Disabled;
            record.reason = reason;
            if wish.status != StreamState::Disabled && begins_anew {
                record.position = head;
                record.fell_behind = false;
                record.reason = Some(format!(
                    "events go on from position {head}: fetch the exact set of that position or later, it has what came before"
                ));
            }
            record.status = wish.status;
            Ok(())
        })?;
        Ok(status(&record))
    }

    /// Has a message sent that shows that the stream works.
    pub(crate) fn verify(
        &self,
        owner: &SpiffeId,
        stream_id: &str,
        state: Option<String>,
    ) -> Result<(), SsfError> {
        let stream = self.own(owner, stream_id)?;
        let state = state.map(|state| text("/state", state)).transpose()?;
        let now = self.authority.clock().now();
        stream.may_verify(now)?;
        self.edit(&stream, |record| {
            record.notify(record::NoticeKind::Verification { state }, now);
            Ok(())
        })?;
        Ok(())
    }

    /// Takes acknowledgements, and hands out what is due, or waits for it.
    pub(crate) async fn poll(
        &self,
        owner: &SpiffeId,
        stream_id: &str,
        request: PollRequest,
    ) -> Result<PollResponse, SsfError> {
        let stream = self.own(owner, stream_id)?;
        let _turn = stream.turn()?;
        if stream.record().delivery.is_push() {
            return Err(SsfError::IsPushed);
        }
        for (jti, error) in &request.set_errs {
            let error = format!("{}: {}", error.err, error.description);
            tracing::warn!(stream = stream_id, jti, error, "a receiver cannot read a security event");
            stream.failed(error);
        }
        let arrived: Vec<&str> =
            request.ack.iter().chain(request.set_errs.keys()).map(String::as_str).collect();
        stream.contacted(self.authority.clock().now());
        stream.settle(&arrived, &self.facts());
        let most =
            request.max_events.map_or(POLL_EVENTS, |most| usize::try_from(most).unwrap_or(POLL_EVENTS));
        let most = most.min(POLL_EVENTS);
        let wait = if request.return_immediately || most == 0 { 0 } else { POLL_SECONDS };
        let (due, more_available) = self.wait_for(&stream, most, Duration::from_secs(wait)).await;
        let record = stream.record();
        let mut sets = BTreeMap::new();
        for one in due {
            sets.insert(one.name(stream_id), self.sign(&record, &one).await?);
        }
        Ok(PollResponse { sets, more_available })
    }

    /// Every stream, for operators.
    pub(crate) fn list(&self) -> EventStreamsResponse {
        let sequence = self.authority.ledger().head().size;
        let mut streams: Vec<EventStreamView> =
            self.all().into_iter().map(|stream| stream.view(&self.facts())).collect();
        streams.sort_by(|left, right| (&left.owner, &left.stream_id).cmp(&(&right.owner, &right.stream_id)));
        EventStreamsResponse { sequence, streams }
    }

    /// Whether events can be pushed to anybody.
    pub(crate) fn pushes(&self) -> bool {
        self.pusher.is_some()
    }

    /// How many streams there are, and how many of them do not run though nobody has asked for that.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let streams = self.all();
        let behind = streams.iter().filter(|stream| stream.record().fell_behind).count();
        (streams.len(), behind)
    }

    async fn wait_for(&self, stream: &Stream, most: usize, wait: Duration) -> (Vec<Due>, bool) {
        let end = Instant::now() + wait;
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let found = stream.due(most, &self.facts());
            if !found.0.is_empty() || Instant::now() >= end || stream.is_removed() {
                return found;
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(end) => {}
                () = self.shutdown.begun() => return found,
            }
        }
    }

    /// Changes a stream: durable before it is in force.
    fn edit(
        &self,
        stream: &Stream,
        change: impl FnOnce(&mut Record) -> Result<(), SsfError>,
    ) -> Result<Record, SsfError> {
        let record = stream.edit(&self.store, change)?;
        self.changed.send_replace(());
        stream.kick();
        Ok(record)
    }

    fn remove(&self, stream: &Stream) -> io::Result<()> {
        self.streams.write().unwrap_or_else(PoisonError::into_inner).remove(&stream.id);
        let removed = stream.remove(&self.store);
        self.changed.send_replace(());
        stream.kick();
        tracing::info!(stream = stream.id, owner = %stream.owner, "a stream of security events was removed");
        removed
    }

    async fn sign(&self, record: &Record, due: &Due) -> Result<String, SsfError> {
        let issuer = &self.authority.config().url;
        let claims = match due {
            Due::Notice(notice) => token::about_stream(issuer, record, notice),
            Due::Fact(fact) => {
                let known = self.authority.ledger().certificate(fact.serial).await?;
                let known = known.ok_or_else(|| SsfError::Record(fact.serial.to_string()))?;
                let x509_issuer = self.issuer(fact.serial.epoch()).await?;
                token::about_certificate(issuer, record, fact, &known.identity, &x509_issuer)
            }
        };
        Ok(self.authority.sign_claims(token::TYPE, &claims)?)
    }

    /// The name of an issuer as RFC 4514 has it.
    async fn issuer(&self, epoch: IssuerEpoch) -> Result<Arc<str>, SsfError> {
        let known = || self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known().get(&epoch) {
            return Ok(Arc::clone(name));
        }
        let issuers = self.authority.ledger().issuers().await?;
        let found = issuers.iter().find(|issuer| issuer.epoch == epoch);
        let certificate = found.and_then(|issuer| Certificate::from_der(&issuer.certificate).ok());
        let certificate = certificate.ok_or_else(|| SsfError::Record(format!("of issuer {epoch}")))?;
        let name: Arc<str> = certificate.tbs().subject_text().into();
        known().insert(epoch, Arc::clone(&name));
        Ok(name)
    }

    fn view(&self, record: &Record) -> StreamConfiguration {
        let supported = vec![CREDENTIAL_CHANGE.to_owned()];
        StreamConfiguration {
            stream_id: record.stream_id.clone(),
            iss: self.authority.config().url.clone(),
            aud: record.aud.clone(),
            delivery: stream::delivery(record, &self.authority.config().url),
            events_requested: record.events_requested.clone().unwrap_or_else(|| supported.clone()),
            events_delivered: if record.delivers() { supported.clone() } else { Vec::new() },
            events_supported: supported,
            min_verification_interval: VERIFICATION_INTERVAL.as_secs(),
            description: record.description.clone(),
        }
    }

    fn check_issuer(&self, request: &StreamRequest) -> Result<(), SsfError> {
        let own = &self.authority.config().url;
        match &request.iss {
            Some(issuer) if issuer != own => {
                Err(record::invalid("/iss", &format!("the issuer of our tokens is {own}")))
            }
            _ => Ok(()),
        }
    }

    fn push_hosts(&self) -> &BTreeSet<String> {
        static NOWHERE: BTreeSet<String> = BTreeSet::new();
        self.pusher.as_ref().map_or(&NOWHERE, |pusher| &pusher.hosts)
    }

    fn own(&self, owner: &SpiffeId, stream_id: &str) -> Result<Arc<Stream>, SsfError> {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        let own = streams.get(stream_id).filter(|stream| stream.owner == *owner);
        own.cloned().ok_or_else(|| SsfError::NotFound(stream_id.chars().take(2 * NAME_BYTES).collect()))
    }

    fn all(&self) -> Vec<Arc<Stream>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status(record: &Record) -> StreamStatus {
    StreamStatus { stream_id: record.stream_id.clone(), status: record.status, reason: record.reason.clone() }
}

fn pusher(config: &EventPushConfig) -> io::Result<Pusher> {
    let tls = crate::federation::web(&config.roots).map_err(io::Error::other)?;
    Ok(Pusher { hosts: config.hosts.clone(), tls: Arc::new(tls) })
}
