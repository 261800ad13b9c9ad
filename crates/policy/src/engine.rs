//! The policies in force, prepared once so that a decision is cheap.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use cedar_policy::{
    ActionConstraint, Authorizer, Context, Decision, Effect, Entities, Entity, EntityUid, Policy, PolicyId,
    PolicySet, Request, Schema, ValidationMode, Validator,
};
use chancery_types::{Digest, HumanDuration};

use crate::vocabulary::Vocabulary;
use crate::{Action, PolicyErrors, PolicyMistake, PolicySource};

/// Policies that were parsed, validated strictly against their schema, and prepared. Immutable: a change makes
/// a new engine, which is swapped in whole.
pub struct Engine {
    by_action: Vec<ActionPolicies>,
    notes: HashMap<PolicyId, Note>,
    pub(crate) vocabulary: Vocabulary,
    authorizer: Authorizer,
    hash: Digest,
    #[cfg(test)]
    schema: Schema,
}

/// The policies whose scope admits one action: only they can decide it, so only they are evaluated.
struct ActionPolicies {
    policies: PolicySet,
    entity: Entity,
}

/// What a policy's annotations say.
#[derive(Debug, Clone, Default)]
struct Note {
    message: Option<String>,
    max_lifetime: Option<Duration>,
}

/// What the policies say to one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether they permit it.
    pub(crate) permitted: bool,
    /// The policies that decided, by id, sorted: the permits, or the forbids.
    pub(crate) policies: Vec<String>,
    /// Errors while evaluating. Any error makes the verdict a denial.
    pub(crate) errors: Vec<String>,
    /// The shortest `@max_lifetime` of the permits, with the policy that says so.
    pub(crate) max_lifetime: Option<(Duration, String)>,
    /// The `@message` of the first deciding policy that has one.
    pub(crate) message: Option<String>,
}

impl Engine {
    /// Prepares policies. Every policy needs an `@id("...")`, unique over all files; `@message("...")` explains
    /// it to those whom it refuses, `@max_lifetime("15m")` on a permit shortens what it permits.
    ///
    /// # Errors
    /// [`PolicyErrors`]: every mistake in every file.
    pub fn new(schema: &PolicySource, sources: &[PolicySource]) -> Result<Self, PolicyErrors> {
        let parsed_schema = parse_schema(schema)?;
        let mut mistakes = check_actions(schema, &parsed_schema);
        let policies = collect_policies(sources, &mut mistakes);
        validate(&policies, &parsed_schema, &mut mistakes);
        let notes = read_notes(&policies, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(PolicyErrors(mistakes));
        }
        let vocabulary = Vocabulary::new();
        let by_action = partition(&policies, &parsed_schema, &vocabulary, schema)?;
        Ok(Self {
            by_action,
            notes,
            vocabulary,
            authorizer: Authorizer::new(),
            hash: hash_of(schema, sources),
            #[cfg(test)]
            schema: parsed_schema,
        })
    }

    /// SHA-256 over schema and policies: for the schema and then for each policy file in the order of their
    /// names, name and text, each behind its length as 32 bits big-endian. Receipts carry it.
    #[must_use]
    pub fn policy_hash(&self) -> Digest {
        self.hash
    }

    /// The ids of the policies that can decide this action, sorted.
    #[must_use]
    pub fn policies_for(&self, action: Action) -> Vec<String> {
        let mut ids: Vec<String> =
            self.for_action(action).policies.policies().map(|policy| policy.id().to_string()).collect();
        ids.sort_unstable();
        ids
    }

    /// The entity of an action, which goes into the entities of every request for it.
    pub(crate) fn action_entity(&self, action: Action) -> Entity {
        self.for_action(action).entity.clone()
    }

    /// The schema, for tests that prove that the requests we build conform to it.
    #[cfg(test)]
    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Asks the policies. `entities` must hold the action's entity.
    pub(crate) fn ask(
        &self,
        action: Action,
        principal: EntityUid,
        resource: EntityUid,
        context: Context,
        entities: &Entities,
    ) -> Verdict {
        let uid = self.vocabulary.action(action);
        let request = match Request::new(principal, uid, resource, context, None) {
            Ok(request) => request,
            Err(error) => return Verdict::failed(error.to_string()),
        };
        let response = self.authorizer.is_authorized(&request, &self.for_action(action).policies, entities);
        let diagnostics = response.diagnostics();
        let mut errors: Vec<String> = diagnostics.errors().map(ToString::to_string).collect();
        errors.sort_unstable();
        let mut deciding: Vec<&PolicyId> = diagnostics.reason().collect();
        deciding.sort_unstable();
        let permitted = response.decision() == Decision::Allow && errors.is_empty();
        let notes = || deciding.iter().filter_map(|id| self.notes.get(*id).map(|note| (*id, note)));
        Verdict {
            permitted,
            max_lifetime: notes()
                .filter_map(|(id, note)| note.max_lifetime.map(|lifetime| (lifetime, id.to_string())))
                .min(),
            message: notes().find_map(|(_, note)| note.message.clone()),
            policies: deciding.iter().map(ToString::to_string).collect(),
            errors,
        }
    }

    fn for_action(&self, action: Action) -> &ActionPolicies {
        &self.by_action[action as usize]
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("policy_hash", &self.hash).finish_non_exhaustive()
    }
}

impl Verdict {
    /// A verdict that could not be reached: a denial with an alarm.
    pub(crate) fn failed(error: String) -> Self {
        Self {
            permitted: false,
            policies: Vec::new(),
            errors: vec![error],
            max_lifetime: None,
            message: None,
        }
    }
}

fn parse_schema(source: &PolicySource) -> Result<Schema, PolicyErrors> {
    match Schema::from_cedarschema_str(&source.text) {
        Ok((schema, _warnings)) => Ok(schema),
        Err(error) => Err(PolicyErrors(vec![PolicyMistake::of(source, &error)])),
    }
}

/// The schema's actions must be exactly those that the program asks about.
fn check_actions(source: &PolicySource, schema: &Schema) -> Vec<PolicyMistake> {
    let applicable: HashSet<String> =
        schema.request_envs().map(|environment| environment.action().id().unescaped().to_owned()).collect();
    let missing = Action::ALL.iter().filter(|action| !applicable.contains(action.as_str()));
    let missing = missing.map(|action| format!("action {action} is missing; the server asks about it"));
    let unknown = applicable.iter().filter(|name| name.parse::<Action>().is_err());
    let unknown = unknown.map(|name| format!("action {name:?} is never asked about; remove it"));
    let mut messages: Vec<String> = missing.chain(unknown).collect();
    messages.sort_unstable();
    messages.into_iter().map(|message| PolicyMistake::at(source, None, message)).collect()
}

/// A policy with the place that it came from.
struct Located<'a> {
    source: &'a PolicySource,
    policy: Policy,
}

fn collect_policies<'a>(sources: &'a [PolicySource], mistakes: &mut Vec<PolicyMistake>) -> Vec<Located<'a>> {
    let mut collected: Vec<Located<'a>> = Vec::new();
    let mut homes: BTreeMap<String, &str> = BTreeMap::new();
    for source in sources {
        let set = match source.text.parse::<PolicySet>() {
            Ok(set) => set,
            Err(errors) => {
                mistakes.extend(errors.iter().map(|error| PolicyMistake::of(source, error)));
                continue;
            }
        };
        if set.num_of_templates() > 0 {
            let message = "templates (?principal, ?resource) are not supported; write the policies out";
            mistakes.push(PolicyMistake::at(source, None, message.to_owned()));
        }
        for policy in set.policies() {
            let Some(id) = policy.annotation("id").filter(|id| !id.is_empty()) else {
                let message = "the policy needs an @id(\"...\")".to_owned();
                mistakes.push(PolicyMistake::at(source, line_of(source, policy), message));
                continue;
            };
            if let Some(home) = homes.insert(id.to_owned(), &source.name) {
                let message = format!("policy id {id:?} is used twice, first in {home}; ids are unique");
                mistakes.push(PolicyMistake::at(source, line_of(source, policy), message));
                continue;
            }
            collected.push(Located { source, policy: policy.new_id(PolicyId::new(id)) });
        }
    }
    collected
}

/// Where a policy begins. Cedar keeps the text that a policy was read from.
fn line_of(source: &PolicySource, policy: &Policy) -> Option<usize> {
    let text = policy.to_string();
    source.text.find(text.trim()).map(|offset| source.line_at(offset))
}

fn validate(policies: &[Located<'_>], schema: &Schema, mistakes: &mut Vec<PolicyMistake>) {
    let validator = Validator::new(schema.clone());
    for located in policies {
        let set = PolicySet::from_policies([located.policy.clone()]).expect("one policy has no namesake");
        let result = validator.validate(&set, ValidationMode::Strict);
        mistakes.extend(result.validation_errors().map(|error| PolicyMistake::of(located.source, error)));
    }
}

fn read_notes(policies: &[Located<'_>], mistakes: &mut Vec<PolicyMistake>) -> HashMap<PolicyId, Note> {
    let mut notes = HashMap::new();
    for Located { source, policy } in policies {
        let mut note = Note::default();
        for (key, value) in policy.annotations() {
            let problem = match key {
                "id" => None,
                "message" => {
                    note.message = Some(value.to_owned());
                    None
                }
                "max_lifetime" if policy.effect() == Effect::Forbid => {
                    Some("@max_lifetime means nothing on a forbid".to_owned())
                }
                "max_lifetime" => match value.parse::<HumanDuration>() {
                    Ok(HumanDuration(lifetime)) => {
                        note.max_lifetime = Some(lifetime);
                        None
                    }
                    Err(error) => Some(format!("@max_lifetime: {error}")),
                },
                other => Some(format!("@{other} is not known; use @id, @message and @max_lifetime")),
            };
            if let Some(problem) = problem {
                let message = format!("policy {}: {problem}", policy.id());
                mistakes.push(PolicyMistake::at(source, line_of(source, policy), message));
            }
        }
        notes.insert(policy.id().clone(), note);
    }
    notes
}

/// For each action the policies whose scope admits it, and its entity with all its groups.
fn partition(
    policies: &[Located<'_>],
    schema: &Schema,
    vocabulary: &Vocabulary,
    source: &PolicySource,
) -> Result<Vec<ActionPolicies>, PolicyErrors> {
    let mistake = |error: String| PolicyErrors(vec![PolicyMistake::at(source, None, error)]);
    let actions = schema.action_entities().map_err(|error| mistake(error.to_string()))?;
    let prepare = |action: &Action| {
        let uid = vocabulary.action(*action);
        let groups: HashSet<EntityUid> = actions.ancestors(&uid).into_iter().flatten().cloned().collect();
        let admitted = policies.iter().map(|located| &located.policy);
        let admitted = admitted.filter(|policy| admits(&policy.action_constraint(), &uid, &groups)).cloned();
        let policies = PolicySet::from_policies(admitted).map_err(|error| mistake(error.to_string()))?;
        Ok(ActionPolicies { policies, entity: Entity::new_no_attrs(uid, groups) })
    };
    Action::ALL.iter().map(prepare).collect()
}

fn admits(constraint: &ActionConstraint, action: &EntityUid, groups: &HashSet<EntityUid>) -> bool {
    match constraint {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(one) => one == action,
        ActionConstraint::In(several) => several.iter().any(|one| one == action || groups.contains(one)),
    }
}

fn hash_of(schema: &PolicySource, sources: &[PolicySource]) -> Digest {
    let mut sorted: Vec<&PolicySource> = sources.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut bytes = Vec::new();
    for source in std::iter::once(&schema).chain(&sorted) {
        for text in [&source.name, &source.text] {
            let length = u32::try_from(text.len()).expect("a policy file is far below 4 GiB");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    Digest::of(&bytes)
}

#[cfg(test)]
mod tests;
