//! One conversation with Envoy: subscriptions and acknowledgements in, secrets out, as the state-of-the-world
//! variant of the xDS protocol has it.

use futures_util::stream;
use tonic::{Status, Streaming};

use super::secrets::{Names, Offer};
use crate::doors::{Charge, Messages, Subscription};
use crate::proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

/// A stream of secrets and what was said on it.
pub(super) struct Conversation {
    subscription: Subscription,
    requests: Streaming<DiscoveryRequest>,
    charge: Charge,
    /// What Envoy wants; nothing before its first request.
    names: Option<Names>,
    sent: Option<Sent>,
}

/// The last response.
struct Sent {
    version: String,
    nonce: u64,
}

impl Conversation {
    pub(super) fn new(
        subscription: Subscription,
        requests: Streaming<DiscoveryRequest>,
        charge: Charge,
    ) -> Self {
        Self { subscription, requests, charge, names: None, sent: None }
    }

    pub(super) fn messages(self) -> Messages<DiscoveryResponse> {
        Box::pin(stream::unfold(Some(self), |conversation| async move {
            let mut conversation = conversation?;
            match conversation.next().await {
                Ok(Some(response)) => Some((Ok(response), Some(conversation))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        }))
    }

    /// The next response; nothing when Envoy has hung up.
    async fn next(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        loop {
            let event = tokio::select! {
                biased;
                moved = self.subscription.moved() => { moved?; None }
                request = self.requests.message() => match request {
                    Ok(Some(request)) => Some(request),
                    Ok(None) => return Ok(None),
                    Err(status) => return Err(status),
                }
            };
            let response = match event {
                Some(request) => self.hear(&request).await?,
                None => {
                    self.subscription.renew().await?;
                    self.offer(Reason::Changed).await?
                }
            };
            if response.is_some() {
                self.subscription.pushed();
                return Ok(response);
            }
        }
    }

    async fn hear(&mut self, request: &DiscoveryRequest) -> Result<Option<DiscoveryResponse>, Status> {
        self.charge.settle();
        let stale = |sent: &Sent| {
            !request.response_nonce.is_empty() && request.response_nonce != sent.nonce.to_string()
        };
        if self.sent.as_ref().is_some_and(stale) {
            // It answers a response that another has overtaken; Envoy will answer that one too.
            return Ok(None);
        }
        if let Some(error) = &request.error_detail {
            let why: String = error.message.chars().take(300).collect();
            tracing::debug!(why, "Envoy refused secrets; it keeps what it has until they change");
            self.subscription.visit().desk.metrics.reject();
        }
        let names = Names::asked_for(request)?;
        if self.names.as_ref() == Some(&names) {
            return Ok(None);
        }
        self.names = Some(names);
        // What a process asks for anew is given to what it is now, not to what it was when the stream began.
        self.subscription.renew().await?;
        self.offer(Reason::Asked).await
    }

    async fn offer(&mut self, reason: Reason) -> Result<Option<DiscoveryResponse>, Status> {
        let state = self.subscription.current().await?;
        let Some(names) = &self.names else { return Ok(None) };
        let offer = Offer::of(&state, &self.subscription.visit().desk.config.trust_domain, names);
        let known = self.sent.as_ref().is_some_and(|sent| sent.version == offer.version);
        let nothing_yet = self.sent.is_none() && offer.is_empty();
        // A secret that does not exist yet is left out; it comes as soon as it does.
        if nothing_yet || (known && reason == Reason::Changed) {
            return Ok(None);
        }
        let nonce = self.sent.as_ref().map_or(1, |sent| sent.nonce + 1);
        self.sent = Some(Sent { version: offer.version.clone(), nonce });
        Ok(Some(offer.response(nonce.to_string())))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// Envoy wants other secrets than before.
    Asked,
    /// The caller's state is another.
    Changed,
}
