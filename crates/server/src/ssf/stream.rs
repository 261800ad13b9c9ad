//! One stream at work.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chancery_api::{EventStreamView, Operation, StreamDelivery, StreamState};
use chancery_types::{SpiffeId, Timestamp};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::facts::Facts;
use super::progress::Progress;
use super::record::{Delivery, NoticeKind, Record};
use super::store::Store;
use super::token::{Due, Name};
use super::{SsfError, VERIFICATION_INTERVAL};

/// Polls of one stream at once.
const POLLS: usize = 4;
/// Positions that an idle stream may move on before that is written down.
const UNSAVED: u64 = 65_536;

/// A stream and where it stands.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: String,
    pub(super) owner: SpiffeId,
    polls: Semaphore,
    kicked: Notify,
    /// Held while the file is written; taken before `state`.
    writing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    record: Record,
    progress: Progress,
    /// Something has arrived that the file does not know.
    has_settled: bool,
    is_removed: bool,
    last_contact: Option<Timestamp>,
    last_error: Option<String>,
    last_verified: Option<Timestamp>,
}

impl Stream {
    pub(super) fn new(record: Record) -> Self {
        let progress = Progress::at(record.position);
        Self {
            id: record.stream_id.clone(),
            owner: record.owner.clone(),
            polls: Semaphore::new(POLLS),
            kicked: Notify::new(),
            writing: Mutex::new(()),
            state: Mutex::new(State {
                record,
                progress,
                has_settled: false,
                is_removed: false,
                last_contact: None,
                last_error: None,
                last_verified: None,
            }),
        }
    }

    pub(super) fn record(&self) -> Record {
        self.state().record.clone()
    }

    /// A place among those who poll.
    pub(super) fn turn(&self) -> Result<SemaphorePermit<'_>, SsfError> {
        self.polls.try_acquire().map_err(|_| SsfError::Busy(POLLS))
    }

    /// What is to be sent next, at most so many, and whether there is more. Messages about the stream go first, and
    /// while it is paused alone.
    pub(super) fn due(&self, most: usize, facts: &Facts) -> (Vec<Due>, bool) {
        let state = self.state();
        let runs = state.record.status == StreamState::Enabled && !state.is_removed;
        let notices = state.record.notices.iter().cloned().map(Due::Notice);
        let waiting = state.progress.waiting(facts).filter(|_| runs && state.record.delivers());
        let mut due: Vec<Due> = notices.chain(waiting.map(|fact| Due::Fact(*fact))).take(most + 1).collect();
        let more = due.len() > most;
        due.truncate(most);
        (due, more)
    }

    /// These have arrived.
    pub(super) fn settle(&self, names: &[&str], facts: &Facts) {
        let names: Vec<Name> = names.iter().filter_map(|name| Name::parse(&self.id, name)).collect();
        if names.is_empty() {
            return;
        }
        let mut state = self.state();
        let (mut notices, mut arrived) = (BTreeSet::new(), BTreeSet::new());
        for name in names {
            match name {
                Name::Notice(number) => drop(notices.insert(number)),
                Name::Fact(position, serial) => drop(arrived.insert((position, serial))),
            }
        }
        state.record.notices.retain(|notice| !notices.contains(&notice.number));
        state.progress.settle(&arrived, facts);
        state.has_settled = true;
    }

    /// Takes in that the log has grown. One that runs and has fallen behind what is remembered is paused; returns
    /// whether this is so now.
    pub(super) fn look(&self, facts: &Facts, now: Timestamp) -> bool {
        let mut state = self.state();
        if state.record.fell_behind || state.record.status == StreamState::Disabled {
            return false;
        }
        if facts.covers(state.progress.position()) {
            // What a receiver does not want has arrived when it has happened.
            if !state.record.delivers() {
                state.progress = Progress::at(facts.head().max(state.progress.position()));
            }
            state.progress.advance(facts);
            return false;
        }
        let reason = "more has happened than is remembered for a stream; enable it, then fetch the exact set"
            .to_owned();
        state.record.fell_behind = true;
        state.record.status = StreamState::Paused;
        state.record.reason = Some(reason.clone());
        state.record.notify(NoticeKind::Updated { status: StreamState::Paused, reason }, now);
        state.has_settled = true;
        true
    }

    /// Changes the record; it is on disk before it is in force. Writes to disk: not for a thread that others wait for.
    pub(super) fn edit(
        &self,
        store: &Store,
        change: impl FnOnce(&mut Record) -> Result<(), SsfError>,
    ) -> Result<Record, SsfError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = self.snapshot().ok_or_else(|| SsfError::NotFound(self.id.clone()))?;
        let (position, first_new) = (record.position, record.next_notice);
        change(&mut record)?;
        store.save(&record)?;
        let mut state = self.state();
        if record.position != position {
            state.progress = Progress::at(record.position);
        }
        let is_open = |number| state.record.notices.iter().any(|notice| notice.number == number);
        record.notices.retain(|notice| notice.number >= first_new || is_open(notice.number));
        state.record = record.clone();
        Ok(record)
    }

    /// Writes down how far it has come, where that is worth it. Writes to disk, as above.
    pub(super) fn save(&self, store: &Store) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut state = self.state();
            let is_old = state.progress.position().saturating_sub(state.record.position) > UNSAVED;
            if !(state.has_settled || is_old) {
                return Ok(());
            }
            state.has_settled = false;
        }
        let Some(record) = self.snapshot() else { return Ok(()) };
        self.state().record.position = record.position;
        let saved = store.save(&record);
        if saved.is_err() {
            self.state().has_settled = true;
        }
        saved
    }

    /// The record with the position reached; nothing once the stream is removed.
    fn snapshot(&self) -> Option<Record> {
        let state = self.state();
        let reached = state.progress.position();
        let position = if state.record.fell_behind { state.record.position } else { reached };
        (!state.is_removed).then(|| Record { position, ..state.record.clone() })
    }

    /// Removes it, from disk too.
    pub(super) fn remove(&self, store: &Store) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.state().is_removed = true;
        store.remove(&self.id)
    }

    pub(super) fn is_removed(&self) -> bool {
        self.state().is_removed
    }

    /// Whether it may be verified now; if so it has been.
    pub(super) fn may_verify(&self, now: Timestamp) -> Result<(), SsfError> {
        let mut state = self.state();
        if state.record.status != StreamState::Enabled {
            return Err(SsfError::NotEnabled);
        }
        if state.last_verified.is_some_and(|last| now.since(last) < VERIFICATION_INTERVAL) {
            return Err(SsfError::TooSoon);
        }
        state.last_verified = Some(now);
        Ok(())
    }

    pub(super) fn contacted(&self, now: Timestamp) {
        self.state().last_contact = Some(now);
    }

    /// Takes note of what went wrong, for operators.
    pub(super) fn failed(&self, error: String) {
        self.state().last_error = Some(error.chars().take(chancery_api::SSF_TEXT_CHARACTERS).collect());
    }

    /// Nothing is wrong any more.
    pub(super) fn succeeded(&self, now: Timestamp) {
        let mut state = self.state();
        (state.last_contact, state.last_error) = (Some(now), None);
    }

    /// Wakes who waits before trying again.
    pub(super) fn kick(&self) {
        self.kicked.notify_one();
    }

    /// Resolves when [`Self::kick`] was called.
    pub(super) async fn kicked(&self) {
        self.kicked.notified().await;
    }

    /// As operators see it.
    pub(super) fn view(&self, facts: &Facts) -> EventStreamView {
        let state = self.state();
        let record = &state.record;
        let waiting = state.progress.waiting(facts).count() + record.notices.len();
        EventStreamView {
            stream_id: self.id.clone(),
            owner: self.owner.clone(),
            aud: record.aud.clone(),
            method: record.delivery.method().to_owned(),
            endpoint_url: match &record.delivery {
                Delivery::Push { url, .. } => Some(url.clone()),
                Delivery::Poll => None,
            },
            status: record.status,
            reason: record.reason.clone(),
            position: state.progress.position(),
            waiting: waiting as u64,
            last_contact: state.last_contact,
            last_error: state.last_error.clone(),
            description: record.description.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How events get to the receiver, without the secret.
pub(super) fn delivery(record: &Record, own_url: &str) -> StreamDelivery {
    let endpoint = match &record.delivery {
        Delivery::Poll => format!("{own_url}{}", Operation::PollStream.fill(&[&record.stream_id])),
        Delivery::Push { url, .. } => url.clone(),
    };
    StreamDelivery {
        method: record.delivery.method().to_owned(),
        endpoint_url: Some(endpoint),
        authorization_header: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chancery_api::StreamRequest;

    use super::super::facts::Fact;
    use super::super::facts::tests::fact;
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_seconds(1_700_000_000)
    }

    fn stream(request: StreamRequest) -> Stream {
        let owner = "spiffe://example.org/siem".parse().unwrap();
        Stream::new(Record::new("ab".into(), owner, request, 10, &BTreeSet::new()).unwrap())
    }

    fn names(stream: &Stream, most: usize, facts: &Facts) -> (Vec<String>, bool) {
        let (due, more) = stream.due(most, facts);
        (due.iter().map(|due| due.name("ab")).collect(), more)
    }

    #[test]
    fn one_that_falls_behind_is_paused_and_says_so_before_anything_else() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_owned()).unwrap();
        let mut facts = Facts::from(10);
        let stream = stream(StreamRequest::default());
        facts.add(vec![fact(12, 1), fact(13, 2)], 20);
        assert!(!stream.look(&facts, now()));
        assert_eq!(names(&stream, 1, &facts).0, [Due::Fact(fact(12, 1)).name("ab")]);
        assert!(names(&stream, 1, &facts).1 && !names(&stream, 2, &facts).1);

        let later = Facts::from(1000);
        assert!(stream.look(&later, now()) && !stream.look(&later, now()), "told once");
        assert_eq!(names(&stream, 9, &later), (vec!["ab-n0".into()], false));
        stream.save(&store).unwrap();
        let [kept] = store.load().unwrap().try_into().unwrap();
        assert!(kept.fell_behind && kept.status == StreamState::Paused && kept.notices.len() == 1);

        // After a restart, and until its receiver enables it.
        let stream = Stream::new(kept);
        assert!(!stream.look(&later, now()));
        stream.settle(&["ab-n0", "ab-n7", "cd-n0"], &later);
        assert_eq!(names(&stream, 9, &later).0, [""; 0]);
        let enable = |record: &mut Record| {
            (record.status, record.fell_behind, record.position) = (StreamState::Enabled, false, 1000);
            Ok(())
        };
        stream.edit(&store, enable).unwrap();
        let mut later = later;
        later.add(vec![fact(1001, 3)], 1001);
        assert!(!stream.look(&later, now()));
        assert_eq!(names(&stream, 9, &later).0, [Due::Fact(fact(1001, 3)).name("ab")]);
        stream.remove(&store).unwrap();
        assert!(store.load().unwrap().is_empty() && stream.edit(&store, |_| Ok(())).is_err());
    }

    #[test]
    fn what_a_receiver_does_not_want_does_not_keep_it_behind() {
        let events = Some(vec!["urn:example:something-else".to_owned()]);
        let stream = stream(StreamRequest { events_requested: events, ..StreamRequest::default() });
        let mut facts = Facts::from(10);
        let told: Vec<Fact> = (11..=20).map(|number| fact(number, number)).collect();
        facts.add(told, 20);
        assert!(!stream.look(&facts, now()));
        assert_eq!(names(&stream, 9, &facts).0, [""; 0]);
        assert_eq!(stream.view(&facts).position, 20);
    }
}
