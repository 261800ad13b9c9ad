//! The stream of what a node may serve, event by event.

use bytes::BytesMut;
use chancery_api::{AgentEvent, Operation};
use serde::Deserialize;

use crate::{ByteStream, ClientError};

/// Bytes of one line at the most: everything about a hundred thousand identities.
const LINE_BYTES: usize = 64 << 20;

/// Events on their way. Dropping it ends the stream.
#[derive(Debug)]
pub struct AgentEvents {
    stream: ByteStream,
    read: BytesMut,
    /// Where in `read` the search for the end of the line goes on.
    searched: usize,
}

impl AgentEvents {
    pub(crate) fn new(stream: ByteStream) -> Self {
        Self { stream, read: BytesMut::new(), searched: 0 }
    }

    /// The next event; nothing when the server has ended the stream. Events that this version does not know are
    /// passed over.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] when not even a heartbeat comes within the request timeout, which must therefore be
    /// longer than the server's five seconds; [`ClientError::Broken`], [`ClientError::Decode`] and
    /// [`ClientError::TooLarge`].
    pub async fn next(&mut self) -> Result<Option<AgentEvent>, ClientError> {
        loop {
            while let Some(end) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(self.searched + end + 1);
                self.searched = 0;
                if let Some(event) = parse(&line)? {
                    return Ok(Some(event));
                }
            }
            self.searched = self.read.len();
            if self.read.len() > LINE_BYTES {
                return Err(ClientError::TooLarge { limit: LINE_BYTES });
            }
            match self.stream.next_chunk().await? {
                Some(chunk) => self.read.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

#[derive(Deserialize)]
struct Tag {
    event: String,
}

fn parse(line: &[u8]) -> Result<Option<AgentEvent>, ClientError> {
    let error = match serde_json::from_slice(line) {
        Ok(event) => return Ok(Some(event)),
        Err(error) => error,
    };
    match serde_json::from_slice::<Tag>(line) {
        Ok(tag) if !AgentEvent::NAMES.contains(&tag.event.as_str()) => Ok(None),
        _ => Err(ClientError::Decode { operation: Operation::AgentStream.id(), source: error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_over_what_a_newer_server_says_and_not_over_damage() {
        assert!(parse(b"{\"event\":\"weather\",\"revision\":7,\"rain\":true}\n").unwrap().is_none());
        let known = parse(b"{\"event\":\"heartbeat\",\"revision\":7}\n").unwrap();
        assert_eq!(known, Some(AgentEvent::Heartbeat { revision: 7 }));
        for damaged in [b"{\"event\":\"heartbeat\"}\n".as_slice(), b"{\"revision\":7}\n", b"half a li"] {
            assert!(matches!(parse(damaged), Err(ClientError::Decode { .. })));
        }
    }
}
