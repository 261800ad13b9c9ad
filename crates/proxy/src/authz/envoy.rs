//! Envoy's side: gRPC.

use async_trait::async_trait;
use tonic::{Request, Response, Status};

use super::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use super::proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use super::proto::envoy::service::auth::v3::authorization_server::Authorization;
use super::proto::envoy::service::auth::v3::check_response::HttpResponse;
use super::proto::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use super::proto::envoy::r#type::v3::{HttpStatus, StatusCode};
use super::proto::google::rpc;
use super::{Decider, Verdict};

#[async_trait]
impl Authorization for Decider {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let source =
            request.into_inner().attributes.and_then(|attributes| attributes.source).unwrap_or_default();
        Ok(Response::new(answer(self.decide(&source.certificate))))
    }
}

fn answer(verdict: Verdict) -> CheckResponse {
    let (code, message, response) = match verdict {
        Verdict::Allowed(id) => {
            let header = HeaderValue { key: super::nginx::HEADER.to_owned(), value: id.to_string() };
            let headers = vec![HeaderValueOption {
                header: Some(header),
                append: Some(false),
                append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
            }];
            (tonic::Code::Ok, String::new(), HttpResponse::OkResponse(OkHttpResponse { headers }))
        }
        Verdict::Denied(why) => (tonic::Code::PermissionDenied, why, denied(StatusCode::Forbidden)),
        Verdict::Unknown(why) => (tonic::Code::Unavailable, why, denied(StatusCode::ServiceUnavailable)),
    };
    // The reason is for Envoy's log, not for the client.
    tracing::debug!(?code, message, "answered Envoy");
    CheckResponse { status: Some(rpc::Status { code: code.into(), message }), http_response: Some(response) }
}

fn denied(code: StatusCode) -> HttpResponse {
    HttpResponse::DeniedResponse(DeniedHttpResponse {
        status: Some(HttpStatus { code: code.into() }),
        headers: Vec::new(),
        body: String::new(),
    })
}
