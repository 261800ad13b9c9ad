//! What code refuses before policy is asked, and no policy can permit.

use std::time::Duration;

use chancery_attest::Subject;
use chancery_types::{HumanDuration, Identity, IdentityState, SubjectName, Timestamp};

use crate::inputs::IssueInputs;
use crate::{Reduction, Refusal, RefusalCode};

/// What is left of the wish after every ceiling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ceiling {
    /// The lifetime, in whole seconds.
    pub(crate) lifetime: Duration,
    /// Where the wish was cut.
    pub(crate) reductions: Vec<Reduction>,
}

/// Applies every rule.
///
/// # Errors
/// [`Refusal`] for the first rule that is broken.
pub(crate) fn apply(inputs: &IssueInputs) -> Result<Ceiling, Refusal> {
    evidence_serves(inputs)?;
    names_are_the_identitys(inputs)?;
    names_fit_the_profile(inputs)?;
    key_is_allowed(inputs)?;
    ceiling(inputs)
}

/// Applies the rules for a JWT-SVID, which has neither a key of the workload's nor names of its own.
///
/// # Errors
/// [`Refusal`] for the first rule that is broken.
pub(crate) fn apply_to_jwt(inputs: &IssueInputs) -> Result<Ceiling, Refusal> {
    evidence_serves(inputs)?;
    let (limit, why) = lowest_limit(inputs);
    let limit = whole_seconds(limit);
    let asked = inputs.requested.lifetime.map_or(limit, |lifetime| whole_seconds(lifetime.0));
    let lifetime = asked.min(limit);
    if lifetime.is_zero() {
        return Err(Refusal::new(RefusalCode::IdentityExpired, format!("{why} leaves no time")));
    }
    let cut = (asked > lifetime).then(|| lifetime_reduction(asked, lifetime, why.to_owned()));
    Ok(Ceiling { lifetime, reductions: cut.into_iter().collect() })
}

/// The rules about identity and evidence, which hold for whatever is asked for.
fn evidence_serves(inputs: &IssueInputs) -> Result<(), Refusal> {
    identity_is_active(inputs)?;
    identity_has_an_owner(inputs)?;
    evidence_is_the_identitys(inputs)?;
    evidence_is_for_the_key(inputs)?;
    evidence_is_worth_enough(inputs)?;
    profile_is_allowed(inputs)
}

fn identity_is_active(inputs: &IssueInputs) -> Result<(), Refusal> {
    let id = &inputs.identity.spiffe_id;
    match inputs.identity_state {
        IdentityState::Active => {}
        IdentityState::Held => {
            return Err(Refusal::new(RefusalCode::IdentityHeld, format!("{id} is held")));
        }
        IdentityState::Retired => {
            let reason = format!("{id} is retired; its name is never used again");
            return Err(Refusal::new(RefusalCode::IdentityRetired, reason));
        }
    }
    match inputs.identity.expires {
        Some(end) if end <= inputs.context.now => {
            Err(Refusal::new(RefusalCode::IdentityExpired, format!("{id} expired at {end}")))
        }
        _ => Ok(()),
    }
}

fn identity_has_an_owner(inputs: &IssueInputs) -> Result<(), Refusal> {
    if !inputs.profile.requires_owner || !inputs.identity.owner.trim().is_empty() {
        return Ok(());
    }
    let reason = format!("{} has no owner; nobody answers for it", inputs.identity.spiffe_id);
    Err(Refusal::new(RefusalCode::NoOwner, reason))
}

fn evidence_is_the_identitys(inputs: &IssueInputs) -> Result<(), Refusal> {
    let identity = &inputs.identity;
    let refuse = |reason: String| Err(Refusal::new(RefusalCode::EvidenceOfAnother, reason));
    match &inputs.evidence.subject {
        Subject::Named(named) if *named == identity.spiffe_id => Ok(()),
        Subject::Named(named) => {
            refuse(format!("the evidence is for {named}, not for {}", identity.spiffe_id))
        }
        Subject::Template { name, parameters } => match &inputs.template {
            Some(template) if template.name == *name => {
                match template.expand(&identity.spiffe_id.trust_domain(), parameters, inputs.context.now) {
                    Ok(made) if is_made_by(identity, &made) => Ok(()),
                    Ok(made) if made.spiffe_id == identity.spiffe_id => refuse(format!(
                        "{} is not as template {name} makes it; somebody registered or changed it otherwise",
                        identity.spiffe_id
                    )),
                    Ok(made) => {
                        refuse(format!("the evidence makes {}, not {}", made.spiffe_id, identity.spiffe_id))
                    }
                    Err(error) => refuse(error.to_string()),
                }
            }
            _ => refuse(format!("the evidence is for template {name}, which does not exist")),
        },
        Subject::ByClaims { wanted } => {
            if wanted.as_ref().is_some_and(|wanted| *wanted != identity.spiffe_id) {
                return refuse(format!("another identity than {} was asked for", identity.spiffe_id));
            }
            if !identity.matches(&inputs.evidence.claims) {
                return refuse(format!("the claims do not fulfil the selectors of {}", identity.spiffe_id));
            }
            Ok(())
        }
    }
}

/// An identity lives from the moment it was made; its end is therefore not the template's.
fn is_made_by(identity: &Identity, made: &Identity) -> bool {
    let mut identity = identity.clone();
    identity.expires = made.expires;
    identity == *made
}

fn evidence_is_for_the_key(inputs: &IssueInputs) -> Result<(), Refusal> {
    match inputs.evidence.bound_key {
        Some(key) if key != inputs.requested.key.fingerprint => {
            let reason = format!("the evidence is good for key {key} only");
            Err(Refusal::new(RefusalCode::KeyNotBound, reason))
        }
        _ => Ok(()),
    }
}

fn evidence_is_worth_enough(inputs: &IssueInputs) -> Result<(), Refusal> {
    let shown = inputs.evidence.assurance;
    let profile = inputs.profile.minimum_assurance;
    let needed = inputs.identity.minimum_assurance.map_or(profile, |level| level.max(profile));
    if shown >= needed {
        return Ok(());
    }
    let reason = format!(
        "the evidence has assurance {shown}, {} under profile {} needs {needed}",
        inputs.identity.spiffe_id, inputs.profile.name
    );
    Err(Refusal::new(RefusalCode::AssuranceTooLow, reason))
}

fn profile_is_allowed(inputs: &IssueInputs) -> Result<(), Refusal> {
    let profile = &inputs.profile;
    let allowed = inputs.identity.allowed_profiles();
    if !allowed.contains(&profile.name.as_str()) {
        let reason = format!(
            "{} may not use profile {}, only {}",
            inputs.identity.spiffe_id,
            profile.name,
            allowed.join(", ")
        );
        return Err(Refusal::new(RefusalCode::ProfileNotAllowed, reason));
    }
    let for_the_authority = matches!(profile.purpose.as_str(), "issuer" | "ocsp-responder");
    if for_the_authority && !inputs.evidence.claims.holds("operator.channel", "authority") {
        let reason = format!("profile {} is for the authority itself", profile.name);
        return Err(Refusal::new(RefusalCode::ProfileNotAllowed, reason));
    }
    if inputs.renewal.is_some() && !profile.renewable {
        let reason = format!("certificates of profile {} are not renewed", profile.name);
        return Err(Refusal::new(RefusalCode::NotRenewable, reason));
    }
    Ok(())
}

/// The wanted names that are not the identity's.
pub(crate) fn foreign_names(inputs: &IssueInputs) -> Vec<SubjectName> {
    let owned = inputs.identity.subject_names();
    inputs.names.wanted.iter().filter(|name| !owned.contains(name)).cloned().collect()
}

fn names_are_the_identitys(inputs: &IssueInputs) -> Result<(), Refusal> {
    let foreign = foreign_names(inputs);
    if foreign.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = foreign.iter().map(ToString::to_string).collect();
    let reason = format!("not registered for {}: {}", inputs.identity.spiffe_id, names.join(", "));
    Err(Refusal::new(RefusalCode::NameNotOwned, reason))
}

fn names_fit_the_profile(inputs: &IssueInputs) -> Result<(), Refusal> {
    if inputs.names.refusals.is_empty() {
        return Ok(());
    }
    let reason = format!("profile {}: {}", inputs.profile.name, inputs.names.refusals.join("; "));
    Err(Refusal::new(RefusalCode::NameNotInProfile, reason))
}

fn key_is_allowed(inputs: &IssueInputs) -> Result<(), Refusal> {
    let asked = inputs.requested.key.algorithm;
    let identity = &inputs.identity.key_algorithms;
    let profile = &inputs.profile.key_algorithms;
    if profile.contains(&asked) && (identity.is_empty() || identity.contains(&asked)) {
        return Ok(());
    }
    let allowed = profile.iter().filter(|algorithm| identity.is_empty() || identity.contains(algorithm));
    let allowed: Vec<&str> = allowed.map(|algorithm| algorithm.as_str()).collect();
    let reason = format!("{asked} keys are not allowed here, only {}", allowed.join(", "));
    Err(Refusal::new(RefusalCode::KeyNotAllowed, reason))
}

/// The wish, or the profile's default, below every ceiling. Only a wish that was cut counts as reduced.
fn ceiling(inputs: &IssueInputs) -> Result<Ceiling, Refusal> {
    let profile = &inputs.profile;
    let wish = inputs.requested.lifetime.map(|lifetime| whole_seconds(lifetime.0));
    if let Some(wish) = wish.filter(|wish| *wish < profile.min_lifetime.0) {
        let (wish, least) = (HumanDuration(wish), profile.min_lifetime);
        let reason = format!("{wish} was asked for, profile {} gives at least {least}", profile.name);
        return Err(Refusal::new(RefusalCode::LifetimeTooShort, reason));
    }
    let (limit, why) = lowest_limit(inputs);
    let asked = wish.unwrap_or(profile.default_lifetime.0);
    let lifetime = asked.min(whole_seconds(limit));
    if lifetime < profile.min_lifetime.0 {
        let (left, least) = (HumanDuration(lifetime), profile.min_lifetime);
        let reason = format!("{why} leaves {left}, profile {} gives at least {least}", profile.name);
        return Err(Refusal::new(RefusalCode::IdentityExpired, reason));
    }
    let cut = wish.filter(|wish| *wish > lifetime);
    let reductions = cut.map(|wish| lifetime_reduction(wish, lifetime, why.to_owned()));
    Ok(Ceiling { lifetime, reductions: reductions.into_iter().collect() })
}

fn lowest_limit(inputs: &IssueInputs) -> (Duration, &'static str) {
    let identity = &inputs.identity;
    let until = |end: Timestamp| end.since(inputs.context.now);
    let limits = [
        Some((inputs.profile.max_lifetime.0, "the profile's maximum")),
        identity.max_lifetime.map(|limit| (limit.0, "the identity's maximum")),
        identity.expires.map(|end| (until(end), "the identity's end")),
    ];
    limits.into_iter().flatten().min().expect("the profile always has a maximum")
}

/// How a shorter lifetime than asked for is reported.
pub(crate) fn lifetime_reduction(asked: Duration, granted: Duration, because: String) -> Reduction {
    Reduction {
        what: "lifetime".to_owned(),
        asked: HumanDuration(asked).to_string(),
        granted: HumanDuration(granted).to_string(),
        because,
    }
}

/// Certificates have a resolution of a second.
pub(crate) fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
