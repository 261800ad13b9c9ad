//! Certificates for the people who operate the authority.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use chancery_api::{EnrollResponse, OperatorRequest, ProblemCode};
use chancery_attest::{Evidence, OperatorChannel, OperatorEvidence};
use chancery_policy::{Action, ResourceFacts};
use chancery_types::{Identity, IdentityState};

use super::access::Who;
use super::enrolment::{prove, requester, response};
use super::problem_of;
use crate::authority::{Enrolment, Wish};
use crate::site::Site;
use crate::{HttpProblem, Json, Peer};

pub(super) async fn create(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<OperatorRequest>,
) -> Result<Json<EnrollResponse>, HttpProblem> {
    let path = format!("/operator/{}", request.name);
    let id = site.authority.config().trust_domain.member(&path).map_err(|error| {
        HttpProblem::new(ProblemCode::InvalidIdentity, error.to_string()).field("/name", "not usable")
    })?;
    let mut identity = Identity::new(id.clone(), &request.name);
    identity.purpose = "operates this authority".into();
    identity.profiles = vec!["operator".into()];
    identity.role = Some(request.role);
    let resource = ResourceFacts::of("operator", id.as_str(), &identity);
    site.permit(&who, Action::OperatorCreate, resource, None).await?;
    match site.authority.ledger().identity(&id).await.map_err(problem_of)? {
        None => {
            site.authority.register_identity(&identity, &who.name()).await.map_err(problem_of)?;
        }
        Some(record) if record.state != IdentityState::Active => {
            let detail = format!("{id} is held or retired; release it, or use another name");
            return Err(HttpProblem::new(ProblemCode::NotInThisState, detail));
        }
        Some(record) if record.identity.role != Some(request.role) => {
            let detail = format!("{id} is registered with another role; change the identity first");
            return Err(HttpProblem::new(ProblemCode::AlreadyExists, detail).field("/role", "another role"));
        }
        Some(_) => {}
    }
    let channel = match &who.peer {
        Peer::Admin { uid } => OperatorChannel::LocalSocket { uid: *uid },
        Peer::Network { .. } => OperatorChannel::Mtls {
            certificate: who.certificate().unwrap_or_default().to_vec(),
            peer: who.address,
        },
    };
    let enrolment = Enrolment {
        request: prove(&site, &request.csr)?,
        evidence: Evidence::Operator(OperatorEvidence { channel, identity: id, approval: None }),
        wish: Wish { profile: Some("operator".into()), lifetime: request.lifetime, identity: None },
        requester: requester(&who),
        idempotency: None,
    };
    let enrolled = site.authority.enroll(enrolment).await.map_err(problem_of)?;
    response(&site, enrolled, false).await.map(Json)
}
