//! The feed as gRPC writes it. The messages are those of `proto/status_feed.proto`; `tests/generated.rs` holds the
//! code that is checked in equal to it.

use bytes::{BufMut, Bytes};
use chancery_api::{FeedChange, FeedEnd, FeedEvent, IssuerEvent};
use chancery_types::{SerialNumber, Timestamp};
use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use prost::Message as _;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::server::{Grpc, ServerStreamingService};
use tonic::{Request, Response, Status};

use super::Subscription;

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
mod proto {
    include!("../../proto/generated/chancery.status.v1.rs");
}

use proto::event::Change;
pub(crate) use proto::{Event, FollowRequest};

/// Bytes of one stream's buffer to begin with: a heartbeat, or an event about a few certificates. There are ten
/// thousand of them.
const BUFFER: usize = 256;
/// Bytes of a request: a position and a name.
const REQUEST_BYTES: usize = 1024;
/// Bytes after which a stream is sent on.
const ENOUGH: usize = 32 * 1024;

/// An event as a message.
pub(super) fn encode(event: &FeedEvent) -> Bytes {
    let change = match &event.change {
        FeedChange::Revoke { serials, reason, at } => Change::Revoke(proto::Revoke {
            serials: numbers(serials),
            reason: u32::from(reason.code()),
            at: seconds(*at),
        }),
        FeedChange::Hold { serials, at } => {
            Change::Hold(proto::Hold { serials: numbers(serials), at: seconds(*at) })
        }
        FeedChange::Release { serials } => Change::Release(proto::Release { serials: numbers(serials) }),
        FeedChange::Issuer { epoch, change } => Change::Issuer(proto::Issuer {
            epoch: u32::from(epoch.0),
            change: match change {
                IssuerEvent::Activated => proto::IssuerChange::Activated,
                IssuerEvent::Retired => proto::IssuerChange::Retired,
                IssuerEvent::Tainted => proto::IssuerChange::Tainted,
            }
            .into(),
        }),
        FeedChange::Bulk { count } => Change::Bulk(proto::Bulk { count: *count }),
        FeedChange::Heartbeat => Change::Heartbeat(proto::Heartbeat {}),
        FeedChange::End { reason } => Change::End(proto::End {
            reason: match reason {
                FeedEnd::TooSlow => proto::EndReason::TooSlow,
                FeedEnd::Certificate => proto::EndReason::Certificate,
                FeedEnd::Replaced => proto::EndReason::Replaced,
                FeedEnd::Stopping => proto::EndReason::Stopping,
            }
            .into(),
        }),
    };
    let event = Event { after: event.after, sequence: event.sequence, change: Some(change) };
    event.encode_to_vec().into()
}

/// Answers a call with the subscription that `open` makes of its request.
pub(crate) async fn answer<F, Opening>(
    request: http::Request<axum::body::Body>,
    open: F,
) -> http::Response<axum::body::Body>
where
    F: FnOnce(FollowRequest) -> Opening + Send + 'static,
    Opening: Future<Output = Result<Subscription, Status>> + Send + 'static,
{
    let mut grpc = Grpc::new(EncodedEvents::default()).max_decoding_message_size(REQUEST_BYTES);
    grpc.server_streaming(Follow(Some(open)), request).await.map(axum::body::Body::new)
}

/// The one method, for the one call of a request.
struct Follow<F>(Option<F>);

impl<F, Opening> ServerStreamingService<FollowRequest> for Follow<F>
where
    F: FnOnce(FollowRequest) -> Opening + Send + 'static,
    Opening: Future<Output = Result<Subscription, Status>> + Send + 'static,
{
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<FollowRequest>) -> Self::Future {
        let open = self.0.take();
        Box::pin(async move {
            let open = open.ok_or_else(|| Status::internal("a request is one call"))?;
            Ok(Response::new(messages(open(request.into_inner()).await?).boxed()))
        })
    }
}

/// What a subscription is told, and in the end why it is over.
fn messages(subscription: Subscription) -> impl Stream<Item = Result<Bytes, Status>> {
    stream::unfold(Some(subscription), |subscription| async move {
        let mut subscription = subscription?;
        match subscription.next().await {
            Some(event) => Some((Ok(event.message), Some(subscription))),
            None => Some((Err(status(subscription.ended()?)), None)),
        }
    })
}

/// How a stream ends.
fn status(reason: FeedEnd) -> Status {
    match reason {
        FeedEnd::TooSlow => Status::resource_exhausted("too far behind; follow again from the last position"),
        FeedEnd::Certificate => Status::unauthenticated(
            "the client certificate is revoked, held or expired; renew it or enrol anew",
        ),
        FeedEnd::Replaced => Status::aborted("this instance has connected anew"),
        FeedEnd::Stopping => Status::unavailable("the server stops; follow again from the last position"),
    }
}

fn numbers(serials: &[SerialNumber]) -> Vec<Vec<u8>> {
    serials.iter().map(|serial| serial.as_bytes().to_vec()).collect()
}

fn seconds(at: Timestamp) -> i64 {
    at.seconds()
}

/// Sends messages that were encoded before.
#[derive(Debug, Default)]
struct EncodedEvents(tonic_prost::ProstCodec<Event, FollowRequest>);

impl Codec for EncodedEvents {
    type Encode = Bytes;
    type Decode = FollowRequest;
    type Encoder = Copying;
    type Decoder = <tonic_prost::ProstCodec<Event, FollowRequest> as Codec>::Decoder;

    fn encoder(&mut self) -> Copying {
        Copying
    }

    fn decoder(&mut self) -> Self::Decoder {
        self.0.decoder()
    }
}

/// Puts the bytes of a message where the frame is made.
#[derive(Debug)]
struct Copying;

impl Encoder for Copying {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, ENOUGH)
    }
}
