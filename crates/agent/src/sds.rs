//! Envoy's secret discovery service, version 3, so that a proxy gets its certificates without a file.
//!
//! `default` is the caller's first identity, `ROOTCA` the bundle of the agent's trust domain, `ALL` every bundle; an
//! identity and a trust domain can also be asked for by their SPIFFE IDs. Peers are judged by Envoy's SPIFFE
//! validator, so that no trust domain can vouch for members of another. Revocation lists are not passed on: that
//! validator does not look at them.

mod secrets;
mod stream;

use std::sync::Arc;

use async_trait::async_trait;
use tonic::{Request, Response, Status, Streaming};

use crate::doors::{DoorDesk, Messages, Profile, Subscription, View, Visit};
use crate::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use crate::proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use secrets::{Names, Offer};
use stream::Conversation;

/// Answers the calls of the service.
#[derive(Clone)]
pub(crate) struct Secrets {
    desk: Arc<DoorDesk>,
}

impl Secrets {
    pub(crate) fn new(desk: Arc<DoorDesk>) -> Self {
        Self { desk }
    }
}

#[async_trait]
impl SecretDiscoveryService for Secrets {
    type DeltaSecretsStream = Messages<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Messages<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("use StreamSecrets: api_type GRPC instead of DELTA_GRPC"))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let visit = Visit::begin(&self.desk, &request, Profile::Sds, "StreamSecrets")?;
        let charge = visit.caller.charge.clone();
        let mut subscription = Subscription::open(visit, View::Svids).await?;
        // Whoever has nothing is told so before it asks.
        subscription.current().await?;
        let conversation = Conversation::new(subscription, request.into_inner(), charge);
        Ok(Response::new(conversation.messages()))
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let visit = Visit::begin(&self.desk, &request, Profile::Sds, "FetchSecrets")?;
        let request = request.into_inner();
        let names = Names::asked_for(&request)?;
        let state = Subscription::open(visit, View::Svids).await?.current().await?;
        let offer = Offer::of(&state, &self.desk.config.trust_domain, &names);
        if let Some(missing) = names.missing(&offer) {
            return Err(Status::not_found(format!("this process has no secret named {missing:?}")));
        }
        Ok(Response::new(offer.response(String::new())))
    }
}
