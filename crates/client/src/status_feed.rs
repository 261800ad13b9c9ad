//! The status feed, event by event, for as long as somebody listens.

use std::time::Duration;

use bytes::BytesMut;
use chancery_api::{
    EventStreamsResponse, FeedAcknowledgement, FeedChange, FeedEvent, FeedQuery, Operation,
    RelyingPartiesResponse, RelyingPartyView,
};
use serde::Deserialize;
use tokio::time::Instant;

use crate::exchange::Call;
use crate::{ByteStream, Client, ClientError, RetryPolicy};

/// Silence after which a stream is dead: three heartbeats, and a little.
const SILENCE: Duration = Duration::from_secs(16);
/// Bytes of one event at the most; a thousand serial numbers are a thirtieth of it.
const EVENT_BYTES: usize = 1 << 20;
/// How long to wait before connecting anew: up to the first, then up to twice as long each time.
const PATIENCE: RetryPolicy = RetryPolicy {
    attempts: u32::MAX,
    first_delay: Duration::from_millis(500),
    max_delay: Duration::from_secs(10),
    max_retry_after: Duration::from_secs(60),
};

/// The status feed. It connects by itself, and again when it is cut off, from the position that was reached; what the
/// caller has to do is to see gaps ([`FeedEvent::leaves_gap`]) and `bulk`, and to fetch the exact set then.
#[derive(Debug)]
pub struct StatusFeed {
    client: Client,
    query: FeedQuery,
    stream: Option<Events>,
    /// Attempts to connect since the last event.
    attempts: u32,
    /// Not to connect before this moment.
    not_before: Option<Instant>,
}

/// Server-sent events on their way.
#[derive(Debug)]
struct Events {
    stream: ByteStream,
    read: BytesMut,
    /// Where in `read` the search for the end of an event goes on.
    searched: usize,
}

/// The status feed and what confirms it.
impl Client {
    /// Follows the status feed, from a position or from now on.
    #[must_use]
    pub fn status_feed(&self, query: FeedQuery) -> StatusFeed {
        StatusFeed { client: self.clone(), query, stream: None, attempts: 0, not_before: None }
    }

    /// Asks once what has happened since a position, or happens within `wait` seconds, which must be less than the
    /// request timeout.
    pub async fn poll_status_feed(&self, query: &FeedQuery) -> Result<Vec<FeedEvent>, ClientError> {
        let call = Call::new(Operation::PollStatusFeed, &[]).query(query)?;
        let events: Vec<serde_json::Value> = self.call(call).await?;
        let events = events.into_iter().filter_map(|event| understood(event).transpose());
        events
            .collect::<Result<_, _>>()
            .map_err(|source| ClientError::Decode { operation: Operation::PollStatusFeed.id(), source })
    }

    /// Registers a relying party, or confirms how far it has enforced.
    pub async fn acknowledge(&self, word: &FeedAcknowledgement) -> Result<RelyingPartyView, ClientError> {
        self.call(Call::new(Operation::Acknowledge, &[]).json(word)?.repeatable()).await
    }

    /// Every relying party that is known, and what it has confirmed.
    pub async fn relying_parties(&self) -> Result<RelyingPartiesResponse, ClientError> {
        self.call(Call::new(Operation::ListRelyingParties, &[])).await
    }

    /// Every stream of security events, and how far each has come.
    pub async fn event_streams(&self) -> Result<EventStreamsResponse, ClientError> {
        self.call(Call::new(Operation::ListEventStreams, &[])).await
    }
}

impl StatusFeed {
    /// The position that was reached; nothing before the first event unless one was given.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.query.after
    }

    /// Goes on from another position when it connects again: that of an exact set, which may be later.
    pub fn stand_at(&mut self, position: u64) {
        self.query.after = Some(position);
    }

    /// The next event, heartbeats too. After an error the next call waits for a while, longer each time and never
    /// all for the same time, and connects anew. May be dropped at any point; a connection that was being opened is
    /// then opened again.
    ///
    /// # Errors
    /// [`ClientError`]: the feed is cut off, refused, damaged, or silent for three heartbeats
    /// ([`ClientError::Timeout`]). When nothing but a later try helps, that is made; so every error may pass.
    pub async fn next(&mut self) -> Result<FeedEvent, ClientError> {
        loop {
            match self.try_next().await {
                Ok(Some(event)) => {
                    self.attempts = 0;
                    self.query.after = Some(match (&event.change, self.query.after) {
                        // What is told after a restore from a backup may be lower than what was told before.
                        (FeedChange::Bulk { .. }, _) | (_, None) => event.sequence,
                        (_, Some(position)) => position.max(event.sequence),
                    });
                    return Ok(event);
                }
                Ok(None) => self.wait(None)?,
                Err(error) => {
                    self.wait(Some(&error))?;
                    return Err(error);
                }
            }
        }
    }

    /// The next event of the stream that is open, or of a new one; nothing at its end.
    async fn try_next(&mut self) -> Result<Option<FeedEvent>, ClientError> {
        if self.stream.is_none() {
            if let Some(moment) = self.not_before {
                tokio::time::sleep_until(moment).await;
            }
            let call = Call::new(Operation::StatusFeed, &[]).query(&self.query)?.once().alone();
            let stream = self.client.call_stream(call).await?;
            self.stream = Some(Events { stream, read: BytesMut::new(), searched: 0 });
        }
        let Some(events) = &mut self.stream else { return Ok(None) };
        self.client.within(SILENCE, "event of the status feed", events.next()).await
    }

    fn wait(&mut self, error: Option<&ClientError>) -> Result<(), ClientError> {
        self.stream = None;
        self.attempts = self.attempts.saturating_add(1).min(16);
        let delay = PATIENCE.pause(self.attempts, error, &*self.client.0.random)?;
        self.not_before = Some(Instant::now() + delay);
        Ok(())
    }
}

impl Events {
    async fn next(&mut self) -> Result<Option<FeedEvent>, ClientError> {
        loop {
            while let Some(event) = self.take() {
                if let Some(event) = parse(&event)? {
                    return Ok(Some(event));
                }
            }
            if self.read.len() > EVENT_BYTES {
                return Err(ClientError::TooLarge { limit: EVENT_BYTES });
            }
            match self.stream.next_chunk().await? {
                Some(chunk) => self.read.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// The lines up to the next empty one, if they are there.
    fn take(&mut self) -> Option<BytesMut> {
        while let Some(offset) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') {
            let end = self.searched + offset;
            let line = &self.read[..end];
            let start = line.iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
            self.searched = end + 1;
            if matches!(&line[start..], b"" | b"\r") {
                self.searched = 0;
                return Some(self.read.split_to(end + 1));
            }
        }
        None
    }
}

#[derive(Deserialize)]
struct Tag {
    event: String,
}

/// An event of the stream (HTML, section 9.2.6); nothing for comments and for what this version does not know.
fn parse(event: &[u8]) -> Result<Option<FeedEvent>, ClientError> {
    let mut data = Vec::new();
    for line in event.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(value) = line.strip_prefix(b"data:") {
            data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            data.push(b'\n');
        }
    }
    if data.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&data)
        .and_then(understood)
        .map_err(|source| ClientError::Decode { operation: Operation::StatusFeed.id(), source })
}

/// What a newer server says beyond what this version knows is passed over.
fn understood(event: serde_json::Value) -> Result<Option<FeedEvent>, serde_json::Error> {
    let tag = Tag::deserialize(&event)?;
    if FeedChange::NAMES.contains(&tag.event.as_str()) {
        serde_json::from_value(event).map(Some)
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_server_sent_events_as_others_may_write_them() {
        let beat = FeedEvent { after: 7, sequence: 9, change: FeedChange::Heartbeat };
        for text in [
            "id: 9\nevent: heartbeat\ndata: {\"after\":7,\"sequence\":9,\"event\":\"heartbeat\"}\n\n",
            "data:{\"after\":7,\"sequence\":9,\r\ndata:\"event\":\"heartbeat\"}\r\n\r\n",
            ": a comment\ndata: {\"after\":7,\"sequence\":9,\"event\":\"heartbeat\"}\nretry: 7\n\n",
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().as_ref(), Some(&beat), "{text}");
        }
        assert_eq!(parse(b": nothing but a comment\n\n").unwrap(), None);
    }

    #[test]
    fn passes_over_what_a_newer_server_says_and_not_over_damage() {
        let newer = b"data: {\"after\":1,\"sequence\":2,\"event\":\"weather\",\"rain\":true}\n\n";
        assert_eq!(parse(newer).unwrap(), None);
        for damaged in
            [b"data: {\"event\":\"heartbeat\"}\n\n".as_slice(), b"data: {\"after\":1}\n\n", b"data: x\n\n"]
        {
            assert!(matches!(parse(damaged), Err(ClientError::Decode { .. })));
        }
    }
}
