//! What changes look like to an agent.

use bytes::Bytes;
use chancery_api::{AgentEvent, AgentIdentity, AgentTemplate, BundleView, CertificateDer, JwksBundle};
use chancery_policy::IdentityTemplate;
use chancery_types::{Claims, HumanDuration, Identity, KeyAlgorithm, SpiffeId};

use super::history::Change;
use crate::authority::{Authority, AuthorityError, Rules};
use crate::jwk::jwt_authority;

/// One line of the stream.
pub(super) fn line(event: &AgentEvent) -> Bytes {
    let mut line = serde_json::to_vec(event).expect("an event is texts and numbers");
    line.push(b'\n');
    line.into()
}

/// What a change is to a node that has proved these claims; nothing if it does not concern it.
pub(super) fn event(
    revision: u64,
    change: &Change,
    node: &SpiffeId,
    claims: &Claims,
    bundle: &BundleView,
    rules: &Rules,
) -> Option<AgentEvent> {
    match change {
        Change::Identity { before, after, spread } => {
            let was = before.as_ref().filter(|before| before.is_served_by(node, claims));
            let is = after.as_ref().filter(|after| after.is_served_by(node, claims));
            match (was, is) {
                (_, Some(is)) => {
                    let identity = Box::new(identity(is, rules));
                    Some(AgentEvent::Changed { revision, identity, spread_milliseconds: *spread })
                }
                (Some(was), None) => Some(AgentEvent::Removed { revision, spiffe_id: was.spiffe_id.clone() }),
                (None, None) => None,
            }
        }
        Change::Revoked { node: whose, serials } => {
            (whose == node).then(|| AgentEvent::Revoked { revision, serials: serials.clone() })
        }
        Change::Renewal { renewal, identity } => {
            let concerns = renewal.concerns(node, claims, identity.as_deref());
            concerns.then(|| renewal.event(revision))
        }
        Change::Template { before, after } => {
            let was = before.as_ref().filter(|before| before.is_served_by(node, claims));
            let is = after.as_ref().filter(|after| after.is_served_by(node, claims));
            match (was, is) {
                (_, Some(is)) => {
                    Some(AgentEvent::Template { revision, template: Box::new(template(is, rules)) })
                }
                (Some(was), None) => Some(AgentEvent::TemplateRemoved { revision, name: was.name.clone() }),
                (None, None) => None,
            }
        }
        Change::Bundle => Some(AgentEvent::Bundle { revision, bundle: bundle.clone() }),
    }
}

/// An identity, as far as agents are told of it.
pub(super) fn identity(identity: &Identity, rules: &Rules) -> AgentIdentity {
    let name = identity.allowed_profiles().first().copied().unwrap_or("workload");
    let profile = rules.profile(name).ok();
    let by_profile = profile.map(|profile| profile.key_algorithms()).unwrap_or_default();
    let own = identity.key_algorithms.iter();
    let mut fitting = own.filter(|algorithm| by_profile.is_empty() || by_profile.contains(algorithm));
    let key_algorithm = fitting.next().or(by_profile.first()).copied().unwrap_or(KeyAlgorithm::P256);
    let lifetimes = [identity.max_lifetime, profile.map(|profile| HumanDuration(profile.lifetime().default))];
    AgentIdentity {
        spiffe_id: identity.spiffe_id.clone(),
        selectors: identity.selectors.clone(),
        alternatives: identity.alternatives.clone(),
        hint: (!identity.hint.is_empty()).then(|| identity.hint.clone()),
        federates_with: identity.federates_with.clone(),
        profile: name.to_owned(),
        key_algorithm,
        lifetime: lifetimes.into_iter().flatten().min_by_key(|lifetime| lifetime.0),
        dns_names: identity.dns_names.iter().map(ToString::to_string).collect(),
    }
}

/// A template for processes, as far as agents are told of it: its identities are issued to as [`identity`] says.
pub(super) fn template(template: &IdentityTemplate, rules: &Rules) -> AgentTemplate {
    let name = template.profiles.first().map_or("workload", String::as_str);
    let profile = rules.profile(name).ok();
    let algorithms = profile.map(|profile| profile.key_algorithms()).unwrap_or_default();
    let lifetimes = [template.max_lifetime, profile.map(|profile| HumanDuration(profile.lifetime().default))];
    AgentTemplate {
        name: template.name.clone(),
        path: template.path.clone(),
        selectors: template.selectors.clone(),
        profile: name.to_owned(),
        key_algorithm: algorithms.first().copied().unwrap_or(KeyAlgorithm::P256),
        lifetime: lifetimes.into_iter().flatten().min_by_key(|lifetime| lifetime.0),
    }
}

/// The bundle of this trust domain.
pub(super) async fn bundle(authority: &Authority) -> Result<BundleView, AuthorityError> {
    let (jwt, roots) = (authority.jwt_keys().await?, authority.read_roots().await?);
    let jwt = jwt.iter().map(|key| jwt_authority(key, "jwt-svid")).collect::<Result<_, _>>();
    let keys = jwt.map_err(|error| AuthorityError::invalid("keys.jwt", error))?;
    Ok(BundleView {
        trust_domain: authority.config().trust_domain.clone(),
        x509_authorities: roots.bundle().map(|root| CertificateDer::from_der(root.der().to_vec())).collect(),
        jwt_keys: JwksBundle { keys, spiffe_sequence: None, spiffe_refresh_hint: None },
        sequence: authority.bundle_sequence().await?,
        refresh_hint_seconds: authority.config().rotation.rules.refresh_hint.as_secs(),
    })
}
