//! What is said over the wire: every request, response and problem document of the HTTP interface.
//!
//! The server answers in these types and every client asks in them, so the two cannot drift apart, and the
//! OpenAPI description is derived from them. What is here is shape and nothing else: a value that parses is
//! well-formed, not true, and not permitted. There is no I/O, no HTTP status (those live in the server's
//! `problem` module) and no decision. Requests refuse fields that they do not know, so that a misspelt
//! restriction is an error instead of a restriction that is not applied; responses may grow fields.
//!
//! Called by `server`, `client`, `verify` and `cli`. Everything that is read is limited by [`limits`].

mod agent;
mod audit;
mod certificate;
mod change;
mod decision;
mod encoding;
mod enroll;
mod export;
mod feed;
mod health;
mod identity;
pub mod limits;
mod log;
mod operation;
mod operator;
mod page;
mod problem;
mod proof_of_possession;
mod renewal;
mod revocation;
mod rotation;
mod ssf;
mod template;
mod token;
mod trust;

pub use agent::{
    AgentEvent, AgentIdentity, AgentJwtRequest, AgentJwtResponse, AgentStreamQuery, AgentSvidItem,
    AgentSvidsRequest, AgentTemplate, BundleView, OpenIdConfiguration,
};
pub use audit::{AuditExportQuery, AuditFormat};
pub use certificate::{
    CertificateDetail, CertificateQuery, CertificateStatus, CertificateView, RevocationView, StatusAnswer,
    StatusQuestion, StatusResponse,
};
pub use change::{
    BlastRadius, ChangeAction, ChangeLimits, ChangeQuery, ChangeStatus, ChangeStepRequest, ChangeView,
    ChangesResponse, Enforcement, EnvironmentPart, Part,
};
pub use decision::{
    DecisionView, Outcome, PolicyCheckRequest, PolicyCheckResponse, PolicyFile, PolicyView, ProfileView,
};
pub use encoding::{Base64Bytes, CertificateDer, CsrDer, EncodingError, KeySource, PublicKeyDer};
pub use enroll::{
    BatchEnrollRequest, BatchEnrollResponse, BatchItem, BatchResult, EnrollRequest, EnrollResponse, Evidence,
    Ignored, KeyMaterial, NonceResponse, Reduction, RenewRequest, TimeWindow,
};
pub use export::{EXPORT_VERSION, ExportFooter, ExportHeader, ExportLine};
pub use feed::{
    FeedAcknowledgement, FeedChange, FeedEnd, FeedEvent, FeedQuery, IssuerEvent, RelyingPartiesResponse,
    RelyingPartyKind, RelyingPartyView, WhenUnknown,
};
pub use health::{HealthCheck, HealthResponse, HealthState};
pub use identity::{IdentityDocument, IdentityQuery, IdentityStateRequest, IdentityView};
pub use log::{
    LogEntriesQuery, LogEntriesResponse, LogEntryView, LogKeyPhase, LogKeyView, LogKeyVoucher,
    LogKeysResponse, LogProofResponse,
};
pub use operation::{Audience, Method, Operation, PathParameter, percent_encode};
pub use operator::OperatorRequest;
pub use page::{Cursor, CursorError, Page, PageQuery};
pub use problem::{FieldProblem, PROBLEM_MEDIA_TYPE, Problem, ProblemCode, UnknownProblemCode};
pub use proof_of_possession::{enrollment_message, key_compromise_message};
pub use renewal::{RenewalRequest, RenewalResponse, RenewalScope};
pub use revocation::{ChangeResponse, HoldRequest, KeyProof, ReleaseRequest, RevokeRequest, Selector, Waves};
pub use rotation::{
    AddRootRequest, CaIssuer, CaKey, CaRoot, CaStatusResponse, PlannedChange, RollbackRequest, RotateRequest,
    RotationResponse, RotationSubject, TaintRequest,
};
pub use ssf::{
    AuthorizationScheme, CREDENTIAL_CHANGE, EventStreamView, EventStreamsResponse, POLL, POLL_EVENTS,
    POLL_SECONDS, PUSH, PollRequest, PollResponse, SPEC_VERSION, SSF_TEXT_CHARACTERS, SSF_URL_CHARACTERS,
    STREAM_UPDATED, SetError, StreamConfiguration, StreamDelivery, StreamQuery, StreamRequest, StreamState,
    StreamStatus, TransmitterConfiguration, VERIFICATION, VerificationRequest,
};
pub use template::{TemplateDocument, TemplateView};
pub use token::{
    CreateTokenRequest, CreateTokenResponse, TokenQuery, TokenState, TokenSubject, TokenSubjectError,
    TokenView, root_fingerprint,
};
pub use trust::{IssuerState, IssuerView, IssuersResponse, Jwk, JwksBundle};

/// Carries the caller's own name for a request, so that a retry is answered with the first result.
pub const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";
/// Names one request in the response, the problem document and the server's log.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
