//! Which service a call is for, and what every call of it must carry.

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic_reflection::server as reflection;
use tower::Service;
use tower::util::BoxCloneSyncService;

use super::config::Profile;
use super::shares::Metered;
use super::visit::Desk;
use crate::proto::DESCRIPTORS;
use crate::proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use crate::proto::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use crate::sds::Secrets;
use crate::workload_api::WorkloadApi;

/// A server of reflection, whose type cannot be named.
type Reflection = BoxCloneSyncService<Request<Metered>, Response<Body>, Infallible>;

/// The services of the doors.
#[derive(Clone)]
pub(crate) struct Router {
    desk: Arc<Desk>,
    workload_api: SpiffeWorkloadApiServer<WorkloadApi>,
    secrets: SecretDiscoveryServiceServer<Secrets>,
    reflection: Reflection,
    old_reflection: Reflection,
}

impl Router {
    pub(crate) fn new(desk: Arc<Desk>) -> Self {
        let reflection =
            || reflection::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
        let built = "the definitions are checked in";
        Self {
            workload_api: SpiffeWorkloadApiServer::new(WorkloadApi::new(Arc::clone(&desk)))
                .max_decoding_message_size(WORKLOAD_API_REQUEST),
            secrets: SecretDiscoveryServiceServer::new(Secrets::new(Arc::clone(&desk)))
                .max_decoding_message_size(SDS_REQUEST),
            reflection: BoxCloneSyncService::new(
                reflection().build_v1().expect(built).max_decoding_message_size(REFLECTION_REQUEST),
            ),
            old_reflection: BoxCloneSyncService::new(
                reflection().build_v1alpha().expect(built).max_decoding_message_size(REFLECTION_REQUEST),
            ),
            desk,
        }
    }

    pub(crate) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    pub(crate) async fn call(mut self, request: Request<Metered>) -> Response<Body> {
        let service = request.uri().path().rsplit_once('/').map_or("", |(service, _)| service);
        let answer = match service {
            "/SpiffeWorkloadAPI" => {
                if let Err(status) = check_security_header(request.headers()) {
                    return status.into_http();
                }
                self.workload_api.call(request).await
            }
            "/envoy.service.secret.v3.SecretDiscoveryService" => self.secrets.call(request).await,
            "/grpc.reflection.v1.ServerReflection" if self.offers_reflection() => {
                self.reflection.call(request).await
            }
            "/grpc.reflection.v1alpha.ServerReflection" if self.offers_reflection() => {
                self.old_reflection.call(request).await
            }
            _ => return Status::unimplemented("there is no such service here").into_http(),
        };
        answer.unwrap_or_else(|never| match never {})
    }

    fn offers_reflection(&self) -> bool {
        self.desk.config.profiles.contains(&Profile::Reflection)
    }
}

/// SPIFFE Workload Endpoint section 3: a header that no web page and no server tricked into a request can set.
fn check_security_header(headers: &HeaderMap) -> Result<(), Status> {
    let mut values = headers.get_all(SECURITY_HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument("security header missing from request: workload.spiffe.io: true")),
    }
}

const SECURITY_HEADER: &str = "workload.spiffe.io";
/// The largest request is a token to validate, or a list of audiences.
const WORKLOAD_API_REQUEST: usize = 64 * 1024;
/// Envoy describes itself in its first request, with the names of all its extensions.
const SDS_REQUEST: usize = 256 * 1024;
const REFLECTION_REQUEST: usize = 4 * 1024;
