//! An event as each transport writes it: made once, shared by all who are told.

use bytes::Bytes;
use chancery_api::{FeedChange, FeedEvent};

use super::grpc;

/// One event in every form.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    /// As a server-sent event (HTML, section 9.2), with the blank line that ends it.
    pub(crate) sse: Bytes,
    /// As JSON: a part of the former.
    pub(crate) json: Bytes,
    /// As a message of gRPC.
    pub(crate) message: Bytes,
    /// The position that is reached with it.
    pub(super) sequence: u64,
    /// Whether nothing has happened.
    pub(super) is_heartbeat: bool,
}

impl Encoded {
    pub(super) fn new(event: &FeedEvent) -> Self {
        let head = format!("id: {}\nevent: {}\ndata: ", event.sequence, event.change.name());
        let mut text = head.clone().into_bytes();
        serde_json::to_writer(&mut text, event).expect("an event is texts and numbers");
        let end = text.len();
        text.extend_from_slice(b"\n\n");
        let sse = Bytes::from(text);
        let json = sse.slice(head.len()..end);
        let is_heartbeat = event.change == FeedChange::Heartbeat;
        Self { sse, json, message: grpc::encode(event), sequence: event.sequence, is_heartbeat }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_sent_event_has_its_position_its_name_and_one_line_of_json() {
        let event = FeedEvent { after: 7, sequence: 9, change: FeedChange::Bulk { count: Some(3) } };
        let encoded = Encoded::new(&event);
        let text =
            "id: 9\nevent: bulk\ndata: {\"after\":7,\"sequence\":9,\"event\":\"bulk\",\"count\":3}\n\n";
        assert_eq!(encoded.sse, text);
        assert_eq!(serde_json::from_slice::<FeedEvent>(&encoded.json).unwrap(), event);
    }
}
