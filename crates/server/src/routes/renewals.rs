//! Asking the agents to renew before their time.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use chancery_api::{ProblemCode, RenewalRequest, RenewalResponse, RenewalScope, limits};
use chancery_policy::{Action, ResourceFacts};
use chancery_types::HumanDuration;

use super::access::Who;
use super::identities::{note, record};
use super::problem_of;
use crate::agents::renewal_asked;
use crate::authority::AuthorityError;
use crate::site::Site;
use crate::{HttpProblem, Json};

/// Enough for a fleet of thousands, and soon enough for one.
const OVER: Duration = Duration::from_mins(5);

pub(super) async fn ask(
    State(site): State<Arc<Site>>,
    Extension(who): Extension<Who>,
    Json(request): Json<RenewalRequest>,
) -> Result<Json<RenewalResponse>, HttpProblem> {
    let note = note(&request.note)?;
    let over = over(request.over)?;
    let resource = resource(&site, &request.scope).await?;
    site.permit(&who, Action::CertificateAskRenewal, resource, None).await?;
    let until = site.authority.clock().now() + over;
    let wish = renewal_asked(who.name(), request.scope, until, note);
    let index = site.authority.record(wish).await.map_err(problem_of)?;
    let connected_agents = site.agents.open_streams() as u64;
    Ok(Json(RenewalResponse { recorded_before: index + 1, until, connected_agents }))
}

/// What is meant, which has to be there.
async fn resource(site: &Site, scope: &RenewalScope) -> Result<ResourceFacts, HttpProblem> {
    let id = scope.to_string();
    match scope {
        RenewalScope::All => Ok(ResourceFacts { kind: "certificate".into(), id, ..Default::default() }),
        RenewalScope::Identity(identity) | RenewalScope::Node(identity) => {
            let record = record(site, identity).await?;
            Ok(ResourceFacts::of("certificate", &id, &record.identity))
        }
        RenewalScope::Issuer(epoch) => {
            let issuers = site.authority.ledger().issuers().await.map_err(problem_of)?;
            if !issuers.iter().any(|issuer| issuer.epoch == *epoch) {
                return Err(problem_of(AuthorityError::not_found("issuer", epoch.0)));
            }
            Ok(ResourceFacts { kind: "certificate".into(), id, ..Default::default() })
        }
        RenewalScope::Profile(name) => {
            site.authority.rules().profile(name).map_err(problem_of)?;
            Ok(ResourceFacts { kind: "certificate".into(), id, ..Default::default() })
        }
    }
}

fn over(wanted: Option<HumanDuration>) -> Result<Duration, HttpProblem> {
    let over = wanted.map_or(OVER, |over| over.0);
    if over > Duration::from_hours(limits::RENEWAL_HOURS) {
        let detail = format!("renewals are spread over {} hours at most", limits::RENEWAL_HOURS);
        return Err(HttpProblem::new(ProblemCode::MalformedRequest, &detail).field("/over", detail));
    }
    Ok(over)
}
