//! The OpenAPI description, made from the list of operations and the types that they carry.

use std::sync::OnceLock;

use chancery_api::{
    AddRootRequest, AgentEvent, AgentJwtRequest, AgentJwtResponse, AgentStreamQuery, AgentSvidsRequest,
    Audience, AuditExportQuery, BatchEnrollRequest, BatchEnrollResponse, CaStatusResponse, CertificateDetail,
    CertificateQuery, CertificateView, ChangeQuery, ChangeResponse, ChangeStepRequest, ChangeView,
    ChangesResponse, CreateTokenRequest, CreateTokenResponse, DecisionView, EnrollRequest, EnrollResponse,
    EventStreamsResponse, FeedAcknowledgement, FeedEvent, FeedQuery, HealthResponse, HoldRequest,
    IDEMPOTENCY_KEY_HEADER, IdentityDocument, IdentityQuery, IdentityStateRequest, IdentityView,
    IssuersResponse, JwksBundle, LogEntriesQuery, LogEntriesResponse, LogKeysResponse, LogProofResponse,
    Method, NonceResponse, OpenIdConfiguration, Operation, OperatorRequest, PROBLEM_MEDIA_TYPE, Page,
    PageQuery, PolicyCheckRequest, PolicyCheckResponse, PolicyView, PollRequest, PollResponse, Problem,
    ReleaseRequest, RelyingPartiesResponse, RelyingPartyView, RenewRequest, RenewalRequest, RenewalResponse,
    RevokeRequest, RollbackRequest, RotateRequest, RotationResponse, StatusAnswer, StatusQuestion,
    StatusResponse, StreamConfiguration, StreamQuery, StreamRequest, StreamStatus, TaintRequest,
    TemplateDocument, TemplateView, TokenQuery, TokenView, TransmitterConfiguration, VerificationRequest,
};
use http::StatusCode;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::security::{SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder,
    PathItem, PathsBuilder, Ref, RefOr, Required, ResponseBuilder, ResponsesBuilder,
};
use utoipa::{IntoParams, ToSchema};

/// The description.
#[must_use]
pub fn document() -> OpenApi {
    let mut components = Components::default();
    let problem = json_as::<Problem>(PROBLEM_MEDIA_TYPE);
    let mut paths = PathsBuilder::new();
    for &operation in Operation::ALL {
        let item = PathItem::new(method(operation.method()), describe(operation, &problem, &mut components));
        paths = paths.path(operation.path().replace("{*", "{"), item);
    }
    components.add(&problem);
    let schemes = ComponentsBuilder::new()
        .security_scheme(
            CERTIFICATE,
            SecurityScheme::MutualTls {
                description: Some(CERTIFICATE_TEXT.into()),
                deprecated: None,
                extensions: None,
            },
        )
        .schemas_from_iter(components.0);
    let info = InfoBuilder::new()
        .title("Chancery")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("A private certificate authority and short-lived credential issuer."))
        .license(Some(LicenseBuilder::new().name("Apache-2.0 OR MIT").build()));
    OpenApiBuilder::new().info(info.build()).paths(paths).components(Some(schemes.build())).build()
}

/// The description as it is committed and served.
#[must_use]
pub fn document_text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = document().to_pretty_json().expect("the description is strings and maps");
        text.push('\n');
        text
    })
}

/// The shape of an operation's parameters, body and answer.
struct Shape {
    query: Vec<Parameter>,
    request: Option<Content>,
    response: Content,
}

/// A body, and the named schemas that it refers to.
struct Content {
    media_type: &'static str,
    schema: RefOr<Schema>,
    components: Vec<(String, RefOr<Schema>)>,
}

#[derive(Default)]
struct Components(std::collections::BTreeMap<String, RefOr<Schema>>);

impl Components {
    fn add(&mut self, content: &Content) {
        for (name, schema) in &content.components {
            let known = self.0.entry(name.clone()).or_insert_with(|| schema.clone());
            assert!(known == schema, "two types are called {name} in the description");
        }
    }
}

/// One JSON value a line.
pub(crate) const NDJSON: &str = "application/x-ndjson";
/// Server-sent events (HTML, section 9.2).
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// What gRPC calls itself.
const GRPC: &str = "application/grpc";
const CERTIFICATE: &str = "clientCertificate";
const CERTIFICATE_TEXT: &str = "A certificate that this authority issued, shown in the TLS handshake.";

fn describe(
    operation: Operation,
    problem: &Content,
    components: &mut Components,
) -> utoipa::openapi::path::Operation {
    let shape = shape(operation);
    components.add(&shape.response);
    let answer = ResponseBuilder::new().description("Done.").content(
        shape.response.media_type,
        ContentBuilder::new().schema(Some(shape.response.schema)).build(),
    );
    let refusal = ResponseBuilder::new()
        .description("Refused or failed; docs/ERRORS.md lists the codes.")
        .content(problem.media_type, ContentBuilder::new().schema(Some(problem.schema.clone())).build());
    let mut description = OperationBuilder::new()
        .operation_id(Some(operation.id()))
        .summary(Some(operation.summary()))
        .tag(tag(operation))
        .responses(
            ResponsesBuilder::new()
                .response(StatusCode::OK.as_str(), answer)
                .response("default", refusal)
                .build(),
        );
    if let Some(request) = shape.request {
        components.add(&request);
        let content = ContentBuilder::new().schema(Some(request.schema)).build();
        let body = RequestBodyBuilder::new().required(Some(Required::True));
        description = description.request_body(Some(body.content(request.media_type, content).build()));
    }
    for parameter in path_parameters(operation).into_iter().chain(shape.query).chain(headers(operation)) {
        description = description.parameter(parameter);
    }
    match operation.audience() {
        Audience::Anybody | Audience::Evidence => description.build(),
        Audience::Holder | Audience::Operator => {
            description.security(SecurityRequirement::new::<_, [&str; 0], &str>(CERTIFICATE, [])).build()
        }
    }
}

fn shape(operation: Operation) -> Shape {
    match operation {
        Operation::Enroll => exchange(json::<EnrollRequest>(), json::<EnrollResponse>()),
        Operation::EnrollBatch => exchange(json::<BatchEnrollRequest>(), json::<BatchEnrollResponse>()),
        Operation::Nonce => answer(json::<NonceResponse>()),
        Operation::Renew => exchange(json::<RenewRequest>(), json::<EnrollResponse>()),
        Operation::AgentStream => search::<AgentStreamQuery>(json_as::<AgentEvent>(NDJSON)),
        Operation::AgentSvids => exchange(json::<AgentSvidsRequest>(), json::<BatchEnrollResponse>()),
        Operation::AgentJwt => exchange(json::<AgentJwtRequest>(), json::<AgentJwtResponse>()),
        Operation::OpenIdConfiguration => answer(json::<OpenIdConfiguration>()),
        Operation::JwtKeys => answer(json::<JwksBundle>()),
        Operation::CreateToken => exchange(json::<CreateTokenRequest>(), json::<CreateTokenResponse>()),
        Operation::ListTokens => search::<TokenQuery>(page::<TokenView>()),
        Operation::RevokeToken => answer(json::<TokenView>()),
        Operation::RegisterIdentity | Operation::ChangeIdentity => {
            exchange(json::<IdentityDocument>(), json::<IdentityView>())
        }
        Operation::ListIdentities => search::<IdentityQuery>(page::<IdentityView>()),
        Operation::ReadIdentity => answer(json::<IdentityView>()),
        Operation::RetireIdentity | Operation::HoldIdentity | Operation::ReleaseIdentity => {
            exchange(json::<IdentityStateRequest>(), json::<IdentityView>())
        }
        Operation::RegisterTemplate | Operation::ChangeTemplate => {
            exchange(json::<TemplateDocument>(), json::<TemplateView>())
        }
        Operation::ListTemplates => search::<PageQuery>(page::<TemplateView>()),
        Operation::ReadTemplate | Operation::RemoveTemplate => answer(json::<TemplateView>()),
        Operation::ListCertificates => search::<CertificateQuery>(page::<CertificateView>()),
        Operation::ReadCertificate => answer(json::<CertificateDetail>()),
        Operation::Revoke => exchange(json::<RevokeRequest>(), json::<ChangeResponse>()),
        Operation::Hold => exchange(json::<HoldRequest>(), json::<ChangeResponse>()),
        Operation::Release => exchange(json::<ReleaseRequest>(), json::<ChangeResponse>()),
        Operation::ListChanges => search::<ChangeQuery>(json::<ChangesResponse>()),
        Operation::ReadChange => answer(json::<ChangeView>()),
        Operation::ApproveChange
        | Operation::WithdrawChange
        | Operation::PauseChange
        | Operation::ResumeChange
        | Operation::UndoChange => exchange(json::<ChangeStepRequest>(), json::<ChangeView>()),
        Operation::AskRenewal => exchange(json::<RenewalRequest>(), json::<RenewalResponse>()),
        Operation::CaStatus => answer(json::<CaStatusResponse>()),
        Operation::CaRotate => exchange(json::<RotateRequest>(), json::<RotationResponse>()),
        Operation::CaRollback => exchange(json::<RollbackRequest>(), json::<RotationResponse>()),
        Operation::CaAddRoot => exchange(json::<AddRootRequest>(), json::<RotationResponse>()),
        Operation::CaTaint => exchange(json::<TaintRequest>(), json::<RotationResponse>()),
        Operation::StatusOfMany => exchange(json::<StatusQuestion>(), json::<StatusAnswer>()),
        Operation::Status => answer(json::<StatusResponse>()),
        Operation::StatusSet => answer(binary(crate::routes::SET_MEDIA_TYPE)),
        Operation::StatusDelta => answer(binary(crate::routes::DELTA_MEDIA_TYPE)),
        Operation::StatusFeed => search::<FeedQuery>(json_as::<FeedEvent>(EVENT_STREAM)),
        Operation::PollStatusFeed => search::<FeedQuery>(json::<Vec<FeedEvent>>()),
        Operation::FollowStatus => exchange(binary(GRPC), binary(GRPC)),
        Operation::Acknowledge => exchange(json::<FeedAcknowledgement>(), json::<RelyingPartyView>()),
        Operation::ListRelyingParties => answer(json::<RelyingPartiesResponse>()),
        Operation::SsfConfiguration => answer(json::<TransmitterConfiguration>()),
        Operation::CreateStream | Operation::UpdateStream | Operation::ReplaceStream => {
            exchange(json::<StreamRequest>(), json::<StreamConfiguration>())
        }
        Operation::ReadStream => search::<StreamQuery>(json::<StreamConfiguration>()),
        Operation::DeleteStream => search::<StreamQuery>(any_json()),
        Operation::ReadStreamStatus => search::<StreamQuery>(json::<StreamStatus>()),
        Operation::SetStreamStatus => exchange(json::<StreamStatus>(), json::<StreamStatus>()),
        Operation::VerifyStream => exchange(json::<VerificationRequest>(), any_json()),
        Operation::PollStream => exchange(json::<PollRequest>(), json::<PollResponse>()),
        Operation::ListEventStreams => answer(json::<EventStreamsResponse>()),
        Operation::Why => answer(json::<DecisionView>()),
        Operation::Bundle => answer(text("application/pem-certificate-chain")),
        Operation::BundleJson => answer(json::<JwksBundle>()),
        Operation::Issuers => answer(json::<IssuersResponse>()),
        Operation::IssuerCertificate => answer(binary("application/pkix-cert")),
        Operation::CrlDer | Operation::IssuerCrl | Operation::ShardCrl => {
            answer(binary("application/pkix-crl"))
        }
        Operation::CrlPem => answer(text("application/x-pem-file")),
        Operation::OcspGet => answer(binary("application/ocsp-response")),
        Operation::OcspPost => {
            exchange(binary("application/ocsp-request"), binary("application/ocsp-response"))
        }
        Operation::LogCheckpoint | Operation::LogKey => answer(text("text/plain; charset=utf-8")),
        Operation::LogTile => answer(binary("application/octet-stream")),
        Operation::LogEntries => search::<LogEntriesQuery>(json::<LogEntriesResponse>()),
        Operation::LogKeys => answer(json::<LogKeysResponse>()),
        Operation::LogProof => answer(json::<LogProofResponse>()),
        Operation::ExportAudit => search::<AuditExportQuery>(text("application/jsonl")),
        Operation::ReadPolicy => answer(json::<PolicyView>()),
        Operation::CheckPolicy => exchange(json::<PolicyCheckRequest>(), json::<PolicyCheckResponse>()),
        Operation::CreateOperator => exchange(json::<OperatorRequest>(), json::<EnrollResponse>()),
        Operation::Healthz | Operation::Readyz => answer(json::<HealthResponse>()),
        Operation::Metrics => answer(text(crate::metrics::METRICS_MEDIA_TYPE)),
        Operation::OpenApi => answer(any_json()),
    }
}

/// The part of the interface that an operation is listed under: the first word of its path.
fn tag(operation: Operation) -> &'static str {
    let path = operation.path();
    let rest = path.strip_prefix("/v1/").unwrap_or(&path[1..]);
    let rest = rest.strip_prefix("chancery.").unwrap_or(rest);
    rest.split(['/', '.']).next().unwrap_or(rest)
}

fn path_parameters(operation: Operation) -> Vec<Parameter> {
    operation
        .parameters()
        .into_iter()
        .map(|parameter| {
            ParameterBuilder::new()
                .name(parameter.name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(parameter.rest.then_some("Takes the rest of the path, slashes included."))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
                .build()
        })
        .collect()
}

fn headers(operation: Operation) -> Vec<Parameter> {
    let header = |name: &str, description: &str| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some(description))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .build()
    };
    match operation {
        Operation::Enroll | Operation::EnrollBatch | Operation::Renew | Operation::CreateOperator => {
            let text = "The caller's own name for the request; a repetition with it has the first answer.";
            vec![header(IDEMPOTENCY_KEY_HEADER, text)]
        }
        Operation::ChangeIdentity => vec![header("if-match", "The version that is changed, such as \"7\".")],
        _ => Vec::new(),
    }
}

fn method(method: Method) -> HttpMethod {
    match method {
        Method::Get => HttpMethod::Get,
        Method::Post => HttpMethod::Post,
        Method::Put => HttpMethod::Put,
        Method::Patch => HttpMethod::Patch,
        Method::Delete => HttpMethod::Delete,
    }
}

fn answer(response: Content) -> Shape {
    Shape { query: Vec::new(), request: None, response }
}

fn exchange(request: Content, response: Content) -> Shape {
    Shape { query: Vec::new(), request: Some(request), response }
}

fn search<Q: IntoParams>(response: Content) -> Shape {
    Shape { query: Q::into_params(|| Some(ParameterIn::Query)), request: None, response }
}

fn json<T: ToSchema>() -> Content {
    json_as::<T>("application/json")
}

fn json_as<T: ToSchema>(media_type: &'static str) -> Content {
    let mut components = Vec::new();
    T::schemas(&mut components);
    components.push((T::name().into_owned(), T::schema()));
    Content { media_type, schema: Ref::from_schema_name(T::name()).into(), components }
}

/// A page of one kind of thing; the generic type alone would be described once for all of them.
fn page<T: ToSchema>() -> Content {
    let mut content = json::<Page<T>>();
    let name = format!("{}Page", T::name());
    content.schema = Ref::from_schema_name(&name).into();
    if let Some((last, _)) = content.components.last_mut() {
        *last = name;
    }
    content
}

fn any_json() -> Content {
    let schema = ObjectBuilder::new().schema_type(Type::Object).into();
    Content { media_type: "application/json", schema, components: Vec::new() }
}

fn text(media_type: &'static str) -> Content {
    let schema = ObjectBuilder::new().schema_type(Type::String).into();
    Content { media_type, schema, components: Vec::new() }
}

fn binary(media_type: &'static str) -> Content {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
        .into();
    Content { media_type, schema, components: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::testing::compare_or_rewrite;

    #[test]
    fn the_committed_description_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        compare_or_rewrite(&path, document_text());
    }

    #[test]
    fn every_operation_is_described_and_every_reference_leads_somewhere() {
        let document: serde_json::Value = serde_json::from_str(document_text()).unwrap();
        let described: usize =
            document["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len()).sum();
        assert_eq!(described, Operation::ALL.len());
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let mut references = BTreeSet::new();
        collect_references(&document, &mut references);
        assert!(references.len() > 30);
        for reference in references {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(schemas.contains_key(name), "{name} is not described");
        }
    }

    fn collect_references(value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str() {
                        Some(reference) if name == "$ref" => {
                            found.insert(reference.to_owned());
                        }
                        _ => collect_references(value, found),
                    }
                }
            }
            serde_json::Value::Array(members) => {
                members.iter().for_each(|member| collect_references(member, found));
            }
            _ => {}
        }
    }
}
