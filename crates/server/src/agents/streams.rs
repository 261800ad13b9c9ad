//! The open streams: so many, and none that waits for a slow reader.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chancery_types::{Claims, LineageId, SerialNumber, SpiffeId};
use tokio::sync::mpsc;

/// Bounds of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamLimits {
    /// All streams together.
    pub(crate) total: usize,
    /// Streams of one node; with one more, the oldest of them ends. An agent that reconnects is not kept out by
    /// a connection that nobody has noticed to be dead.
    pub(crate) per_node: usize,
    /// Events that may wait for a reader; with one more, its stream ends, and it resumes when it likes.
    pub(crate) buffer: usize,
    /// Time without news after which a stream shows that it lives.
    pub(crate) heartbeat: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { total: 16_384, per_node: 2, buffer: 256, heartbeat: Duration::from_secs(5) }
    }
}

/// Nodes whose latest lineage is remembered: a node that is forgotten is told everything anew.
const NODES: usize = 65_536;

/// There are too many streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} agents are connected, which is all that is allowed")]
pub(crate) struct Full(pub(crate) usize);

/// One open stream, from this side.
#[derive(Debug)]
pub(super) struct Stream {
    /// The certificate that it was opened with.
    pub(super) serial: SerialNumber,
    /// That certificate's lineage.
    pub(super) lineage: LineageId,
    /// What the node proved.
    pub(super) claims: Arc<Claims>,
    /// Where its lines go.
    pub(super) sender: mpsc::Sender<Bytes>,
}

/// Which streams of a node end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All.
    All,
    /// Those that were opened with this certificate.
    Certificate(SerialNumber),
    /// Those that were opened with a certificate of this lineage.
    Lineage(LineageId),
}

/// All of them, by node.
#[derive(Debug, Default)]
pub(super) struct Streams {
    by_node: HashMap<SpiffeId, Vec<(u64, Stream)>>,
    /// The lineage with which each node opened its latest stream, whether that is still open or not.
    lineages: HashMap<SpiffeId, LineageId>,
    count: usize,
    opened: u64,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Takes a stream in; returns the number under which it is removed.
    pub(super) fn add(&mut self, node: &SpiffeId, stream: Stream, limits: StreamLimits) -> Result<u64, Full> {
        let of_node = self.by_node.get(node).map_or(0, Vec::len);
        if of_node < limits.per_node && self.count >= limits.total {
            return Err(Full(self.count));
        }
        let streams = self.by_node.entry(node.clone()).or_default();
        while streams.len() >= limits.per_node.max(1) {
            streams.remove(0);
            self.count -= 1;
        }
        if self.lineages.len() >= NODES {
            self.lineages.clear();
        }
        self.lineages.insert(node.clone(), stream.lineage);
        self.opened += 1;
        self.count += 1;
        streams.push((self.opened, stream));
        Ok(self.opened)
    }

    /// The lineage of the certificate with which a node opened its latest stream.
    pub(super) fn last_lineage(&self, node: &SpiffeId) -> Option<LineageId> {
        self.lineages.get(node).copied()
    }

    /// Removes a stream, if it is still there.
    pub(super) fn remove(&mut self, node: &SpiffeId, number: u64) {
        self.retain(node, |one, _| one != number);
    }

    /// Ends streams of a node: what was sent to them is still read, and then there is no more.
    pub(super) fn end(&mut self, node: &SpiffeId, which: Ending) {
        self.retain(node, |_, stream| match which {
            Ending::All => false,
            Ending::Certificate(serial) => stream.serial != serial,
            Ending::Lineage(lineage) => stream.lineage != lineage,
        });
    }

    /// Sends to the streams of one node what `line` makes for them.
    pub(super) fn send_to(&mut self, node: &SpiffeId, mut line: impl FnMut(&Stream) -> Option<Bytes>) {
        self.retain(node, |_, stream| line(stream).is_none_or(|line| deliver(node, stream, line)));
    }

    /// Sends to all streams what `line` makes for them.
    pub(super) fn send_to_all(&mut self, mut line: impl FnMut(&SpiffeId, &Stream) -> Option<Bytes>) {
        let nodes: Vec<SpiffeId> = self.by_node.keys().cloned().collect();
        for node in nodes {
            self.send_to(&node, |stream| line(&node, stream));
        }
    }

    /// How many streams of these nodes there are.
    pub(super) fn of<'a>(&self, nodes: impl IntoIterator<Item = &'a SpiffeId>) -> usize {
        nodes.into_iter().filter_map(|node| self.by_node.get(node)).map(Vec::len).sum()
    }

    /// Ends all of them.
    pub(super) fn clear(&mut self) {
        self.by_node.clear();
        self.lineages.clear();
        self.count = 0;
    }

    fn retain(&mut self, node: &SpiffeId, mut stays: impl FnMut(u64, &Stream) -> bool) {
        let Some(streams) = self.by_node.get_mut(node) else { return };
        let before = streams.len();
        streams.retain(|(number, stream)| stays(*number, stream));
        self.count -= before - streams.len();
        if streams.is_empty() {
            self.by_node.remove(node);
        }
    }
}

/// Whether a stream has room; one without is dropped.
fn deliver(node: &SpiffeId, stream: &Stream, line: Bytes) -> bool {
    let sent = stream.sender.try_send(line);
    if let Err(mpsc::error::TrySendError::Full(_)) = &sent {
        tracing::warn!(%node, "an agent does not read its stream, which ends here; it can resume");
    }
    sent.is_ok()
}

#[cfg(test)]
mod tests {
    use chancery_types::IssuerEpoch;

    use super::*;

    const LIMITS: StreamLimits =
        StreamLimits { total: 3, per_node: 2, buffer: 1, heartbeat: Duration::from_secs(5) };

    fn id(name: &str) -> SpiffeId {
        format!("spiffe://example.org/{name}").parse().unwrap()
    }

    fn stream(number: u64) -> (Stream, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(LIMITS.buffer);
        let serial = SerialNumber::compose(IssuerEpoch(1), number, [7; 8]).unwrap();
        let lineage = LineageId::from_array([3; 16]);
        (Stream { serial, lineage, claims: Arc::new(Claims::new()), sender }, receiver)
    }

    #[test]
    fn the_newest_streams_of_a_node_win_and_all_together_are_bounded() {
        let mut streams = Streams::default();
        let (one, mut first) = stream(1);
        streams.add(&id("a"), one, LIMITS).unwrap();
        streams.add(&id("a"), stream(2).0, LIMITS).unwrap();
        streams.add(&id("a"), stream(3).0, LIMITS).unwrap();
        assert_eq!(streams.len(), 2);
        assert!(matches!(first.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        streams.add(&id("b"), stream(4).0, LIMITS).unwrap();
        assert_eq!(streams.add(&id("c"), stream(5).0, LIMITS), Err(Full(3)));
        streams.add(&id("a"), stream(6).0, LIMITS).unwrap();
        assert_eq!(streams.len(), 3);
    }

    #[test]
    fn a_reader_that_does_not_read_is_dropped_and_the_others_are_not() {
        let mut streams = Streams::default();
        let (slow, mut slow_lines) = stream(1);
        let (quick, mut quick_lines) = stream(2);
        streams.add(&id("slow"), slow, LIMITS).unwrap();
        streams.add(&id("quick"), quick, LIMITS).unwrap();
        for text in ["1", "2"] {
            streams.send_to_all(|_, _| Some(Bytes::from_static(text.as_bytes())));
            assert_eq!(quick_lines.try_recv().unwrap(), text);
        }
        assert_eq!(streams.len(), 1);
        assert_eq!(slow_lines.try_recv().unwrap(), "1");
        assert!(matches!(slow_lines.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }

    #[test]
    fn ends_the_streams_that_are_meant() {
        let mut streams = Streams::default();
        let numbers = [1, 2].map(|number| streams.add(&id("a"), stream(number).0, LIMITS).unwrap());
        let serial = SerialNumber::compose(IssuerEpoch(1), 2, [7; 8]).unwrap();
        streams.end(&id("a"), Ending::Certificate(serial));
        assert_eq!(streams.len(), 1);
        streams.remove(&id("a"), numbers[1]);
        assert_eq!(streams.len(), 1);
        streams.end(&id("b"), Ending::All);
        streams.end(&id("a"), Ending::Lineage(LineageId::from_array([3; 16])));
        assert_eq!(streams.len(), 0);
        assert!(streams.by_node.is_empty());
    }
}
