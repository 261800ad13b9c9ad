//! The SPIFFE Workload API: the X.509-SVID and JWT-SVID profiles as the standards word them.
//!
//! [`client`] is its other end, for the command line and for tests.

pub mod client;
mod follow;
mod message;
mod token;
mod verify;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chancery_types::{SpiffeId, TrustDomain};
use tonic::{Request, Response, Status};

use crate::doors::{DoorDesk, Messages, Profile, Subscription, View, Visit};
use crate::identities::JwtError;
use crate::proto::workload as proto;
use proto::spiffe_workload_api_server::SpiffeWorkloadApi;

pub use follow::follow;
pub use token::TokenError;

/// Answers the calls of the service.
#[derive(Clone)]
pub(crate) struct WorkloadApi {
    desk: Arc<DoorDesk>,
}

impl WorkloadApi {
    pub(crate) fn new(desk: Arc<DoorDesk>) -> Self {
        Self { desk }
    }

    fn visit<T>(
        &self,
        request: &Request<T>,
        profile: Profile,
        method: &'static str,
    ) -> Result<Visit, Status> {
        Visit::begin(&self.desk, request, profile, method)
    }
}

#[async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Messages<proto::X509svidResponse>;
    type FetchX509BundlesStream = Messages<proto::X509BundlesResponse>;
    type FetchJWTBundlesStream = Messages<proto::JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<proto::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let visit = self.visit(&request, Profile::X509, "FetchX509SVID")?;
        let subscription = Subscription::open(visit, View::Svids).await?;
        Ok(Response::new(subscription.messages(message::x509_svids).await?))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<proto::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let visit = self.visit(&request, Profile::X509, "FetchX509Bundles")?;
        let subscription = Subscription::open(visit, View::Bundles).await?;
        Ok(Response::new(subscription.messages(message::x509_bundles).await?))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<proto::JwtsvidRequest>,
    ) -> Result<Response<proto::JwtsvidResponse>, Status> {
        let visit = self.visit(&request, Profile::Jwt, "FetchJWTSVID")?;
        let (audiences, identity) = wanted(request.into_inner())?;
        let workload = visit.attest(visit.depth()).await?;
        let made = self.desk.identities.jwt(&workload, &audiences, identity.as_ref());
        match visit.unless_changed(&workload, made).await? {
            Ok(svids) if svids.is_empty() => Err(visit.no_identity()),
            Ok(svids) => Ok(Response::new(message::jwt_svids(svids))),
            Err(JwtError::NoIdentity) => Err(visit.no_identity()),
            Err(error @ JwtError::Refused(_)) => Err(visit.denied("refused", &error.to_string())),
            Err(error @ JwtError::Unavailable(_)) => Err(Status::unavailable(error.to_string())),
        }
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<proto::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let visit = self.visit(&request, Profile::Jwt, "FetchJWTBundles")?;
        let subscription = Subscription::open(visit, View::Bundles).await?;
        Ok(Response::new(subscription.messages(message::jwt_bundles).await?))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<proto::ValidateJwtsvidRequest>,
    ) -> Result<Response<proto::ValidateJwtsvidResponse>, Status> {
        let visit = self.visit(&request, Profile::Jwt, "ValidateJWTSVID")?;
        let proto::ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        if audience.is_empty() || svid.is_empty() {
            return Err(Status::invalid_argument("both audience and svid must be specified"));
        }
        let state = Subscription::open(visit, View::Bundles).await?.current().await?;
        let keys = |domain: &TrustDomain| state.bundles.get(domain).map(|bundle| bundle.jwt_keys.as_slice());
        let token = token::validate(&svid, &audience, keys, self.desk.clock.now())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(message::validated(token)))
    }
}

/// Which tokens a request asks for.
fn wanted(request: proto::JwtsvidRequest) -> Result<(Vec<String>, Option<SpiffeId>), Status> {
    let mut seen = HashMap::new();
    let mut audiences = request.audience;
    audiences.retain(|audience| seen.insert(audience.clone(), ()).is_none());
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        return Err(Status::invalid_argument("audience must be specified, and no audience may be empty"));
    }
    if audiences.len() > MOST_AUDIENCES || audiences.iter().any(|audience| audience.len() > LONGEST_AUDIENCE)
    {
        return Err(Status::invalid_argument(format!(
            "at most {MOST_AUDIENCES} audiences of at most {LONGEST_AUDIENCE} bytes"
        )));
    }
    let identity = match request.spiffe_id.as_str() {
        "" => None,
        text => Some(SpiffeId::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))?),
    };
    Ok((audiences, identity))
}

/// A token for more than a few audiences is a mistake: each of them can use it at all others (JWT-SVID 6.2).
const MOST_AUDIENCES: usize = 32;
const LONGEST_AUDIENCE: usize = 2048;
