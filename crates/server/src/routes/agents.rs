//! What the agent of a node asks for: the stream of what it may serve, certificates and tokens for processes.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chancery_api::{
    AgentJwtRequest, AgentJwtResponse, AgentStreamQuery, AgentSvidItem, AgentSvidsRequest,
    BatchEnrollResponse, ProblemCode, limits,
};
use chancery_attest::{Evidence, NODE_PROFILE, WorkloadEvidence};
use chancery_ledger::CertificateRecord;
use chancery_types::Digest;
use chancery_x509::{Certificate, ProvenRequest};
use futures_util::stream;
use http::header::CONTENT_TYPE;

use super::access::Who;
use super::enrolment::{check_batch, issue_each, requester};
use super::problem_of;
use crate::agents::{Node, OpenStreamError, Subscription};
use crate::authority::{Enrolment, TokenWish, Wish};
use crate::openapi::NDJSON;
use crate::site::Site;
use crate::{HttpProblem, Json, Query, Shutdown};

/// Follows what the caller's node may serve.
pub(super) async fn stream(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Query(query): Query<AgentStreamQuery>,
) -> Result<Response, HttpProblem> {
    let certificate = node_certificate(&who)?;
    let node = node(&site, certificate).await?;
    let subscription = site.agents.open(node, query.after).await.map_err(|error| match error {
        OpenStreamError::Full(full) => {
            HttpProblem::new(ProblemCode::Overloaded, full.to_string()).retry_after(5)
        }
        ended @ OpenStreamError::Ended => {
            HttpProblem::new(ProblemCode::NotReady, ended.to_string()).retry_after(5)
        }
        OpenStreamError::Authority(error) => problem_of(error),
    })?;
    // What was revoked before the stream was open is not told by it.
    if site.authority.caller(certificate).await.map_err(problem_of)?.is_none() {
        let detail = "the certificate was revoked while the stream was opened";
        return Err(HttpProblem::new(ProblemCode::CertificateNotAccepted, detail));
    }
    let lines = Lines { subscription, waiting: None, shutdown: site.chassis.shutdown().clone() };
    let body = Body::from_stream(stream::unfold(lines, Lines::next));
    Ok(([(CONTENT_TYPE, NDJSON)], body).into_response())
}

/// Issues certificates for processes on the caller's node, with one commit.
pub(super) async fn svids(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<AgentSvidsRequest>,
) -> Result<Json<BatchEnrollResponse>, HttpProblem> {
    check_batch(request.items.len())?;
    let certificate = node_certificate(&who)?;
    let items = request.items.into_iter();
    let items = items.map(|item| (enrolment(&site, &who, certificate, item), false)).collect();
    Ok(Json(issue_each(&site, items).await))
}

/// Signs a JWT-SVID for a process on the caller's node.
pub(super) async fn jwt(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<AgentJwtRequest>,
) -> Result<Json<AgentJwtResponse>, HttpProblem> {
    check_audiences(&request.audiences)?;
    let node = node_certificate(&who)?.to_vec();
    let evidence = WorkloadEvidence { node, identity: request.identity, claims: request.claims };
    let wish = TokenWish {
        evidence: Evidence::Workload(evidence),
        audiences: request.audiences,
        requester: requester(&who),
    };
    let signed = site.authority.sign_jwt(wish).await.map_err(problem_of)?;
    Ok(Json(AgentJwtResponse { token: signed.token, expires: signed.expires }))
}

fn enrolment(
    site: &Site,
    who: &Who,
    certificate: &[u8],
    item: AgentSvidItem,
) -> Result<Enrolment, HttpProblem> {
    let key = site.authority.vouched_key(item.key.as_der()).map_err(problem_of)?;
    // What stands for possession is the node's certificate, which the evidence records.
    let vouched = Digest::of(certificate);
    Ok(Enrolment {
        request: ProvenRequest::dangerous_key_vouched_by_attested_agent(key, Vec::new(), vouched),
        evidence: Evidence::Workload(WorkloadEvidence {
            node: certificate.to_vec(),
            identity: item.identity,
            claims: item.claims,
        }),
        wish: Wish::default(),
        requester: requester(who),
        idempotency: None,
    })
}

/// The certificate on the connection, if it is a node's, whomever else policy lets through.
fn node_certificate(who: &Who) -> Result<&[u8], HttpProblem> {
    match (who.certificate(), who.facts.profile.as_deref()) {
        (Some(certificate), Some(NODE_PROFILE)) => Ok(certificate),
        _ => {
            let detail = "only a node asks for this: connect with a certificate of the node profile";
            Err(HttpProblem::new(ProblemCode::NotPermitted, detail))
        }
    }
}

/// What is on record of a certificate that was accepted on a connection.
pub(super) async fn record_of(site: &Site, certificate: &[u8]) -> Result<CertificateRecord, HttpProblem> {
    let certificate = Certificate::from_der(certificate).map_err(HttpProblem::internal)?;
    let record = match certificate.serial_number() {
        Some(serial) => site.authority.ledger().certificate(serial).await.map_err(problem_of)?,
        None => None,
    };
    record.ok_or_else(|| HttpProblem::internal("an accepted certificate is not on record"))
}

async fn node(site: &Site, certificate: &[u8]) -> Result<Node, HttpProblem> {
    let record = record_of(site, certificate).await?;
    Ok(Node {
        id: record.identity,
        serial: record.serial,
        lineage: record.lineage,
        not_after: record.not_after,
    })
}

fn check_audiences(audiences: &[String]) -> Result<(), HttpProblem> {
    let limit = limits::AUDIENCE_CHARACTERS;
    let fits = |audience: &String| {
        let length = audience.chars().count();
        (1..=limit).contains(&length) && !audience.chars().any(char::is_control)
    };
    if (1..=limits::AUDIENCES).contains(&audiences.len()) && audiences.iter().all(fits) {
        return Ok(());
    }
    let detail = format!(
        "a token has 1 to {} audiences of 1 to {limit} characters, none of them a control character",
        limits::AUDIENCES
    );
    Err(HttpProblem::new(ProblemCode::MalformedRequest, &detail).field("/audiences", detail))
}

/// The body of a stream.
struct Lines {
    subscription: Subscription,
    waiting: Option<std::vec::IntoIter<Bytes>>,
    shutdown: Shutdown,
}

impl Lines {
    async fn next(mut self) -> Option<(Result<Bytes, std::convert::Infallible>, Self)> {
        let first = std::mem::take(&mut self.subscription.first);
        let waiting = self.waiting.get_or_insert_with(|| first.into_iter());
        if let Some(line) = waiting.next() {
            return Some((Ok(line), self));
        }
        let line = tokio::select! {
            line = self.subscription.next() => line?,
            () = self.shutdown.begun() => return None,
        };
        Some((Ok(line), self))
    }
}
