//! The smallest change that would have permitted a request: the same policies asked again with one thing
//! changed, then with two.
//!
//! A suggestion never weakens a demand (a lower minimum assurance, a lower sensitivity): it says what the
//! requester or an operator could do, not which bar to lower.

use std::sync::Arc;
use std::time::Duration;

use chancery_types::{AssuranceLevel, HumanDuration, IdentityState, SubjectName};
use chancery_x509::Profile;

use crate::Engine;
use crate::inputs::{IssueInputs, NameFacts, ProfileFacts};
use crate::rules::foreign_names;

/// Lifetimes that are tried when the one asked for is too long.
const SHORTER: [Duration; 3] =
    [Duration::from_secs(24 * 3600), Duration::from_secs(3600), Duration::from_secs(15 * 60)];

/// The profile that was asked for, and the others that the identity could have asked for.
pub(crate) struct Profiles<'a> {
    asked: &'a Arc<Profile>,
    others: &'a [Arc<Profile>],
}

impl<'a> Profiles<'a> {
    pub(crate) fn new(asked: &'a Arc<Profile>, others: &'a [Arc<Profile>]) -> Self {
        Self { asked, others }
    }

    fn named(&self, name: &str) -> &Profile {
        self.others.iter().find(|profile| profile.name() == name).unwrap_or(self.asked)
    }
}

/// One thing that somebody could change.
struct Change<'a> {
    text: String,
    apply: Box<dyn Fn(&mut IssueInputs) + 'a>,
}

/// The first single change, else the first pair, after which a certificate is granted, in part or in full.
pub(crate) fn smallest_change(
    engine: &Engine,
    inputs: &IssueInputs,
    profiles: &Profiles<'_>,
) -> Option<String> {
    let changes = candidates(inputs, profiles);
    let permits = |applied: &[&Change<'_>]| {
        let mut changed = inputs.clone();
        applied.iter().for_each(|change| (change.apply)(&mut changed));
        let profile = profiles.named(&changed.profile.name);
        if changed.requested.names != inputs.requested.names
            || changed.identity != inputs.identity
            || changed.profile != inputs.profile
        {
            changed.names = NameFacts::choose(&changed.identity, &changed.requested.names, profile);
        }
        engine.rule(&changed).result.is_ok()
    };
    if let Some(change) = changes.iter().find(|change| permits(&[change])) {
        return Some(change.text.clone());
    }
    for (index, first) in changes.iter().enumerate() {
        for second in &changes[index + 1..] {
            if permits(&[first, second]) {
                return Some(format!("{}, and {}", first.text, second.text));
            }
        }
    }
    None
}

/// What could be changed, the easiest first: by the requester, then in the evidence, then by an operator.
fn candidates<'a>(inputs: &'a IssueInputs, profiles: &'a Profiles<'_>) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    requests(inputs, profiles, &mut changes);
    evidence(inputs, &mut changes);
    registrations(inputs, &mut changes);
    changes
}

fn change<'a>(text: impl Into<String>, apply: impl Fn(&mut IssueInputs) + 'a) -> Change<'a> {
    Change { text: text.into(), apply: Box::new(apply) }
}

fn requests<'a>(inputs: &'a IssueInputs, profiles: &'a Profiles<'_>, changes: &mut Vec<Change<'a>>) {
    let rules = profiles.named(&inputs.profile.name).names();
    let foreign = foreign_names(inputs);
    let misfit = |name: &&SubjectName| foreign.contains(name) || rules.refusal(name).is_some();
    let bad: Vec<SubjectName> = inputs.requested.names.iter().filter(misfit).cloned().collect();
    if !bad.is_empty() {
        let text = format!("leave out {}", listed(&bad));
        changes.push(change(text, move |inputs| inputs.requested.names.retain(|name| !bad.contains(name))));
    }
    let wildcards: Vec<SubjectName> =
        inputs.names.wanted.iter().filter(|name| is_wildcard(name)).cloned().collect();
    if !wildcards.is_empty() {
        let text = format!("leave out {}", listed(&wildcards));
        changes.push(change(text, move |inputs| {
            inputs.requested.names = inputs.names.wanted.clone();
            inputs.requested.names.retain(|name| !is_wildcard(name));
        }));
    }
    let asked = inputs.requested.lifetime.unwrap_or(inputs.profile.default_lifetime);
    let least = inputs.profile.min_lifetime;
    if asked < least {
        changes
            .push(change(format!("ask for {least}"), move |inputs| inputs.requested.lifetime = Some(least)));
    }
    for shorter in SHORTER.map(HumanDuration).into_iter().filter(|shorter| *shorter < asked) {
        let apply = move |inputs: &mut IssueInputs| inputs.requested.lifetime = Some(shorter);
        changes.push(change(format!("ask for at most {shorter}"), apply));
    }
    for &algorithm in
        inputs.profile.key_algorithms.iter().filter(|one| **one != inputs.requested.key.algorithm)
    {
        let apply = move |inputs: &mut IssueInputs| inputs.requested.key.algorithm = algorithm;
        changes.push(change(format!("use a {algorithm} key"), apply));
    }
    for profile in profiles.others.iter().filter(|profile| profile.name() != inputs.profile.name) {
        let facts = ProfileFacts::of(profile);
        let apply = move |inputs: &mut IssueInputs| inputs.profile = facts.clone();
        changes.push(change(format!("ask for profile {}", profile.name()), apply));
    }
}

fn evidence<'a>(inputs: &IssueInputs, changes: &mut Vec<Change<'a>>) {
    let evidence = &inputs.evidence;
    if evidence.bound_key.is_some_and(|key| key != inputs.requested.key.fingerprint) {
        changes.push(change("request a certificate for the key that the evidence is bound to", |inputs| {
            inputs.evidence.bound_key = None;
        }));
    }
    if let Some(renewal) = &inputs.renewal {
        let kind = renewal.enrolled_by;
        changes.push(change("enrol again instead of renewing", move |inputs| {
            inputs.renewal = None;
            inputs.evidence.kind = kind;
        }));
    }
    if !evidence.repeatable {
        let apply = |inputs: &mut IssueInputs| inputs.evidence.repeatable = true;
        changes.push(change("show evidence that can be shown again at every renewal", apply));
    }
    for number in evidence.assurance.number() + 1..=4 {
        let Some(level) = AssuranceLevel::from_number(number) else { break };
        changes.push(change(format!("show evidence of assurance {level} or more"), move |inputs| {
            inputs.evidence.assurance = level;
            inputs.evidence.repeatable |= level >= AssuranceLevel::Repeatable;
        }));
    }
}

fn registrations<'a>(inputs: &'a IssueInputs, changes: &mut Vec<Change<'a>>) {
    let identity = &inputs.identity;
    let id = &identity.spiffe_id;
    if identity.owner.trim().is_empty() {
        changes.push(change(format!("have an operator set an owner for {id}"), |inputs| {
            Arc::make_mut(&mut inputs.identity).owner = "somebody".to_owned();
        }));
    }
    if inputs.identity_state == IdentityState::Held {
        changes.push(change(format!("have an operator release {id}"), |inputs| {
            inputs.identity_state = IdentityState::Active;
        }));
    }
    if identity.review_by.is_some_and(|review| review < inputs.context.now) {
        changes.push(change(format!("have {id} reviewed and its review_by set anew"), |inputs| {
            Arc::make_mut(&mut inputs.identity).review_by = None;
        }));
    }
    if identity.expires.is_some() {
        changes.push(change(format!("have an operator extend {id}"), |inputs| {
            Arc::make_mut(&mut inputs.identity).expires = None;
        }));
    }
    let profile = &inputs.profile.name;
    if !identity.allowed_profiles().contains(&profile.as_str()) {
        changes.push(change(format!("have an operator allow profile {profile} for {id}"), move |inputs| {
            let identity = Arc::make_mut(&mut inputs.identity);
            identity.profiles = identity.allowed_profiles().into_iter().map(str::to_owned).collect();
            identity.profiles.push(profile.clone());
        }));
    }
    let foreign = foreign_names(inputs);
    if !foreign.is_empty() {
        let text = format!("have an operator register {} for {id}", listed(&foreign));
        changes.push(change(text, move |inputs| register(inputs, &foreign)));
    }
}

fn register(inputs: &mut IssueInputs, names: &[SubjectName]) {
    let identity = Arc::make_mut(&mut inputs.identity);
    for name in names.iter().cloned() {
        match name {
            SubjectName::Dns(name) => identity.dns_names.push(name),
            SubjectName::Ip(address) => identity.ip_addresses.push(address),
            SubjectName::Email(address) => identity.email_addresses.push(address),
            // An identity has one URI, its SPIFFE ID; another one cannot be registered for it.
            SubjectName::Uri(_) => {}
        }
    }
}

fn is_wildcard(name: &SubjectName) -> bool {
    matches!(name, SubjectName::Dns(name) if name.is_wildcard())
}

fn listed(names: &[SubjectName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
