//! The decision about a certificate: rules in code, then policy, then a receipt.

use std::sync::Arc;
use std::time::Duration;

use cedar_policy_core::ast::{Context, EntityUID};
use cedar_policy_core::entities::Entities;
use chancery_attest::Attested;
use chancery_types::{HumanDuration, Identity, IdentityState};
use chancery_x509::Profile;

use crate::engine::{Verdict, entities_of};
use crate::inputs::{EvidenceFacts, IssueInputs, NameFacts, ProfileFacts, RenewalFacts};
use crate::receipt::Ruling;
use crate::rules::{self, Ceiling};
use crate::{
    Action, Approved, Decision, DecisionReceipt, Engine, Grant, IdentityTemplate, IssueContext, Refusal,
    RefusalCode, Refused, Requested, counterfactual,
};

/// What `issue_reduced` gives when the permitting policies do not say.
const REDUCED_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Everything that a decision about a certificate is made from.
#[derive(Debug)]
pub struct IssueRequest<'a> {
    /// What was proved. Goes into the approval, and is gone after a refusal.
    pub attested: Attested,
    /// The registered identity that the certificate would be for.
    pub identity: Arc<Identity>,
    /// How it stands.
    pub identity_state: IdentityState,
    /// The template that the evidence names, where it names one and the template exists.
    pub template: Option<Arc<IdentityTemplate>>,
    /// The profile that was asked for, or the identity's first.
    pub profile: Arc<Profile>,
    /// What is asked for.
    pub requested: Requested,
    /// The circumstances.
    pub context: IssueContext,
    /// The identity's other profiles, so that a refusal can name one that would do. May be empty.
    pub alternatives: &'a [Arc<Profile>],
}

/// A request that nobody made: what would be decided if somebody proved this?
#[derive(Debug)]
pub struct Supposition<'a> {
    /// The identity.
    pub identity: Arc<Identity>,
    /// How it stands.
    pub identity_state: IdentityState,
    /// The template, where the supposed evidence names one.
    pub template: Option<Arc<IdentityTemplate>>,
    /// What somebody would have proved.
    pub evidence: EvidenceFacts,
    /// For renewals: what would be continued.
    pub renewal: Option<RenewalFacts>,
    /// The profile.
    pub profile: Arc<Profile>,
    /// What would be asked for.
    pub requested: Requested,
    /// The circumstances.
    pub context: IssueContext,
    /// The identity's other profiles.
    pub alternatives: &'a [Arc<Profile>],
}

impl Engine {
    /// Decides whether the certificate may be made, and how.
    #[must_use]
    pub fn decide_issue(&self, request: IssueRequest<'_>) -> Decision {
        let IssueRequest {
            attested,
            identity,
            identity_state,
            template,
            profile,
            requested,
            context,
            alternatives,
        } = request;
        let supposition = Supposition {
            identity: Arc::clone(&identity),
            identity_state,
            template,
            evidence: EvidenceFacts::of(&attested),
            renewal: RenewalFacts::of(&attested),
            profile: Arc::clone(&profile),
            requested,
            context,
            alternatives,
        };
        let (result, receipt) = self.decide(supposition);
        match result {
            Ok(grant) => {
                Decision::Approved(Box::new(Approved::new(attested, identity, profile, grant, receipt)))
            }
            Err(refusal) => Decision::Refused(Box::new(Refused { refusal, receipt })),
        }
    }

    /// What would be decided. Gives no approval, whatever comes out.
    #[must_use]
    pub fn consider(&self, supposition: Supposition<'_>) -> DecisionReceipt {
        self.decide(supposition).1
    }

    pub(crate) fn decide(&self, supposition: Supposition<'_>) -> (Result<Grant, Refusal>, DecisionReceipt) {
        let profiles = counterfactual::Profiles::new(&supposition.profile, supposition.alternatives);
        let names =
            NameFacts::choose(&supposition.identity, &supposition.requested.names, &supposition.profile);
        let inputs = IssueInputs {
            names,
            profile: ProfileFacts::of(&supposition.profile),
            identity: supposition.identity,
            identity_state: supposition.identity_state,
            template: supposition.template,
            evidence: supposition.evidence,
            renewal: supposition.renewal,
            requested: supposition.requested,
            context: supposition.context,
        };
        let mut ruling = self.rule(&inputs);
        if let Err(refusal) = &mut ruling.result
            && !refusal.alarm
        {
            refusal.smallest_change = counterfactual::smallest_change(self, &inputs, &profiles);
        }
        let receipt = DecisionReceipt::new(inputs, &ruling, self.policy_hash());
        (ruling.result, receipt)
    }

    /// What the rules and the policies say to these inputs. A pure function of inputs and policies.
    pub(crate) fn rule(&self, inputs: &IssueInputs) -> Ruling {
        if !inputs.requested.audiences.is_empty() {
            return self.rule_jwt(inputs);
        }
        let ceiling = match rules::apply(inputs) {
            Ok(ceiling) => ceiling,
            Err(refusal) => return Ruling::refused(refusal),
        };
        match Question::new(self, inputs, &ceiling) {
            Ok(question) => question.rule(ceiling),
            Err(error) => deny(Verdict::failed(error), Vec::new()),
        }
    }
}

/// The inputs in Cedar's form, ready to be asked about with several actions.
struct Question<'a> {
    engine: &'a Engine,
    inputs: &'a IssueInputs,
    principal: EntityUID,
    resource: EntityUID,
    context: Context,
    entities: Entities,
}

impl<'a> Question<'a> {
    fn new(engine: &'a Engine, inputs: &'a IssueInputs, ceiling: &Ceiling) -> Result<Self, String> {
        let vocabulary = &engine.vocabulary;
        let identity = vocabulary.identity(&inputs.identity);
        let profile = vocabulary.profile(&inputs.profile);
        let (principal, resource) = (identity.uid().clone(), profile.uid().clone());
        let mut entities = vec![
            Arc::new(identity),
            Arc::new(profile),
            Arc::new(vocabulary.evidence(inputs)),
            engine.action_entity(Action::IssueFull),
            engine.action_entity(Action::IssueReduced),
        ];
        if inputs.renewal.is_some() {
            entities.push(engine.action_entity(Action::Renew));
        }
        Ok(Self {
            engine,
            inputs,
            principal,
            resource,
            context: vocabulary.issue_context(inputs, ceiling.lifetime)?,
            entities: entities_of(entities)?,
        })
    }

    fn ask(&self, action: Action) -> Verdict {
        let (principal, resource) = (self.principal.clone(), self.resource.clone());
        self.engine.ask(action, principal, resource, self.context.clone(), &self.entities)
    }

    /// The tiers in their order.
    fn rule(&self, ceiling: Ceiling) -> Ruling {
        let mut policies = Vec::new();
        let mut limits = Vec::new();
        if self.inputs.renewal.is_some() {
            let renew = self.ask(Action::Renew);
            if !renew.permitted {
                return deny(renew, policies);
            }
            limits.extend(renew.max_lifetime);
            policies.extend(renew.policies);
        }
        let full = self.ask(Action::IssueFull);
        if full.permitted {
            limits.extend(full.max_lifetime);
            policies.extend(full.policies);
            return self.grant(ceiling, limits, None, policies);
        }
        if !full.errors.is_empty() {
            return deny(full, policies);
        }
        let reduced = self.ask(Action::IssueReduced);
        if reduced.permitted {
            let limit = reduced.max_lifetime.clone();
            let first = || reduced.policies.first().cloned().unwrap_or_default();
            limits.push(limit.unwrap_or_else(|| (REDUCED_LIFETIME, first())));
            policies.extend(reduced.policies);
            return self.grant(ceiling, limits, full.message.or(reduced.message), policies);
        }
        // The tier that was asked for is the one whose refusal says something, unless only the other spoke.
        let telling = if full.message.is_none() && reduced.message.is_some() { reduced } else { full };
        deny(telling, policies)
    }

    /// The ceiling, cut to the shortest limit that a permitting policy sets.
    fn grant(
        &self,
        ceiling: Ceiling,
        limits: Vec<(Duration, String)>,
        message: Option<String>,
        mut policies: Vec<String>,
    ) -> Ruling {
        let Ceiling { mut lifetime, mut reductions } = ceiling;
        if let Some((limit, policy)) = limits.into_iter().min().filter(|(limit, _)| *limit < lifetime) {
            let limit = rules::whole_seconds(limit);
            let least = self.inputs.profile.min_lifetime;
            if limit < least.0 {
                let reason = format!(
                    "policy {policy} permits at most {}, profile {} gives at least {least}",
                    HumanDuration(limit),
                    self.inputs.profile.name
                );
                return Ruling { result: Err(Refusal::new(RefusalCode::PolicyDenied, reason)), policies };
            }
            let because = match message {
                Some(message) => format!("policy {policy}: {message}"),
                None => format!("policy {policy}"),
            };
            reductions.push(rules::lifetime_reduction(lifetime, limit, because));
            lifetime = limit;
        }
        policies.sort_unstable();
        policies.dedup();
        let grant =
            Grant { names: self.inputs.names.wanted.clone(), lifetime: HumanDuration(lifetime), reductions };
        Ruling { result: Ok(grant), policies }
    }
}

pub(crate) fn deny(verdict: Verdict, mut policies: Vec<String>) -> Ruling {
    if !verdict.errors.is_empty() {
        let reason = format!("the policies could not be evaluated: {}", verdict.errors.join("; "));
        let refusal = Refusal { alarm: true, ..Refusal::new(RefusalCode::PolicyError, reason) };
        return Ruling { result: Err(refusal), policies: verdict.policies };
    }
    let reason = match (verdict.message, verdict.policies.is_empty()) {
        (Some(message), _) => message,
        (None, true) => "no policy permits it".to_owned(),
        (None, false) => format!("policy {} forbids it", verdict.policies.join(", ")),
    };
    policies.clear();
    policies.extend(verdict.policies);
    Ruling { result: Err(Refusal::new(RefusalCode::PolicyDenied, reason)), policies }
}

#[cfg(test)]
mod tests;
