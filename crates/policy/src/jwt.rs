//! The decision about a JWT-SVID: the rules that do not speak of keys and names, then policy, then a receipt.

use std::sync::Arc;
use std::time::Duration;

use chancery_attest::Attested;
use chancery_types::{HumanDuration, Identity, IdentityState, SpiffeId};
use chancery_x509::Profile;

use crate::engine::{Verdict, entities_of};
use crate::inputs::{EvidenceFacts, IssueInputs};
use crate::issue::deny;
use crate::receipt::Ruling;
use crate::rules::{self, Ceiling};
use crate::{
    Action, DecisionReceipt, Engine, Grant, IssueContext, Refused, Requested, RequestedKey, Supposition,
};

/// Everything that a decision about a JWT-SVID is made from.
#[derive(Debug)]
pub struct JwtRequest {
    /// What was proved.
    pub attested: Attested,
    /// The registered identity that the token would be for.
    pub identity: Arc<Identity>,
    /// How it stands.
    pub identity_state: IdentityState,
    /// The identity's first profile: its ceilings hold for tokens too.
    pub profile: Arc<Profile>,
    /// Who is to accept the token; one at least.
    pub audiences: Vec<String>,
    /// How long it is to live.
    pub lifetime: HumanDuration,
    /// The key that signs it.
    pub key: RequestedKey,
    /// The circumstances.
    pub context: IssueContext,
}

/// Leave to sign one JWT-SVID. Only [`Engine::decide_jwt`] makes one; it is no leave to make a certificate.
#[derive(Debug)]
pub struct ApprovedJwt {
    identity: Arc<Identity>,
    lifetime: Duration,
    receipt: DecisionReceipt,
}

/// A decision about a JWT-SVID.
#[derive(Debug)]
pub enum JwtDecision {
    /// It may be signed, exactly so.
    Approved(Box<ApprovedJwt>),
    /// It may not.
    Refused(Box<Refused>),
}

impl ApprovedJwt {
    /// Whom it names.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.identity.spiffe_id
    }

    /// Who is to accept it.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.receipt.inputs.requested.audiences
    }

    /// How long it lives from now, in whole seconds.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Why.
    #[must_use]
    pub fn receipt(&self) -> &DecisionReceipt {
        &self.receipt
    }
}

impl Engine {
    /// Decides whether the token may be signed, and for how long. Without an audience it is refused: such a token
    /// would be good for everybody.
    #[must_use]
    pub fn decide_jwt(&self, request: JwtRequest) -> JwtDecision {
        let supposition = Supposition {
            identity: Arc::clone(&request.identity),
            identity_state: request.identity_state,
            template: None,
            evidence: EvidenceFacts::of(&request.attested),
            renewal: None,
            profile: request.profile,
            requested: Requested {
                names: Vec::new(),
                lifetime: Some(request.lifetime),
                key: request.key,
                audiences: request.audiences,
            },
            context: request.context,
            alternatives: &[],
        };
        let is_for_somebody = !supposition.requested.audiences.is_empty();
        let (result, receipt) = self.decide(supposition);
        match result {
            Ok(grant) if is_for_somebody => JwtDecision::Approved(Box::new(ApprovedJwt {
                identity: request.identity,
                lifetime: grant.lifetime.0,
                receipt,
            })),
            Ok(_) => {
                let reason = "a JWT-SVID names at least one audience".to_owned();
                let refusal = crate::Refusal::new(crate::RefusalCode::PolicyDenied, reason);
                JwtDecision::Refused(Box::new(Refused { refusal, receipt }))
            }
            Err(refusal) => JwtDecision::Refused(Box::new(Refused { refusal, receipt })),
        }
    }

    /// What the rules and the policies say to inputs with audiences.
    pub(crate) fn rule_jwt(&self, inputs: &IssueInputs) -> Ruling {
        let Ceiling { mut lifetime, mut reductions } = match rules::apply_to_jwt(inputs) {
            Ok(ceiling) => ceiling,
            Err(refusal) => return Ruling::refused(refusal),
        };
        let verdict = self.ask_jwt(inputs, lifetime).unwrap_or_else(Verdict::failed);
        if !verdict.permitted {
            return deny(verdict, Vec::new());
        }
        if let Some((limit, policy)) = verdict.max_lifetime.filter(|(limit, _)| *limit < lifetime) {
            reductions.push(rules::lifetime_reduction(lifetime, limit, format!("policy {policy}")));
            lifetime = rules::whole_seconds(limit);
        }
        let names = vec![inputs.identity.spiffe_id.clone().into()];
        let grant = Grant { names, lifetime: HumanDuration(lifetime), reductions };
        Ruling { result: Ok(grant), policies: verdict.policies }
    }

    fn ask_jwt(&self, inputs: &IssueInputs, lifetime: Duration) -> Result<Verdict, String> {
        let vocabulary = &self.vocabulary;
        let identity = vocabulary.identity(&inputs.identity);
        let profile = vocabulary.profile(&inputs.profile);
        let (principal, resource) = (identity.uid().clone(), profile.uid().clone());
        let context = vocabulary.issue_context(inputs, lifetime)?;
        let entities = entities_of([
            Arc::new(identity),
            Arc::new(profile),
            Arc::new(vocabulary.evidence(inputs)),
            self.action_entity(Action::IssueJwt),
        ])?;
        Ok(self.ask(Action::IssueJwt, principal, resource, context, &entities))
    }
}
