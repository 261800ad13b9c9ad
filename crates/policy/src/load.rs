//! Reads schema and policies, finds every mistake, and prepares what is left for evaluation.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cedar_policy::{
    ActionConstraint, Effect, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, PrincipalConstraint,
    ResourceConstraint, Schema, ValidationMode, Validator,
};
use cedar_policy_core::ast::{Entity, Expr};
use chancery_types::HumanDuration;

use crate::engine::{ActionPolicies, Prepared};
use crate::vocabulary::Vocabulary;
use crate::{Action, PolicyErrors, PolicyMistake, PolicySource};

/// Policies without mistakes.
pub(crate) struct Loaded {
    /// By the number of the action.
    pub(crate) by_action: Vec<ActionPolicies>,
    #[cfg(test)]
    pub(crate) schema: Schema,
}

/// What a policy's annotations say.
#[derive(Debug, Clone, Default)]
struct Note {
    message: Option<String>,
    max_lifetime: Option<Duration>,
}

/// Parses, validates strictly, and prepares.
///
/// # Errors
/// [`PolicyErrors`]: every mistake in every file.
pub(crate) fn load(
    schema: &PolicySource,
    sources: &[PolicySource],
    vocabulary: &Vocabulary,
) -> Result<Loaded, PolicyErrors> {
    let parsed_schema = parse_schema(schema)?;
    let mut mistakes = check_actions(schema, &parsed_schema);
    let mut policies = collect_policies(sources, &mut mistakes);
    policies.sort_by(|a, b| a.policy.id().cmp(b.policy.id()));
    validate(&policies, &parsed_schema, &mut mistakes);
    let notes = read_notes(&policies, &mut mistakes);
    if !mistakes.is_empty() {
        return Err(PolicyErrors(mistakes));
    }
    let groups = groups_of_actions(&parsed_schema)
        .map_err(|message| PolicyErrors(vec![PolicyMistake::at(schema, None, message)]))?;
    let prepare = |action: &Action| prepare_action(*action, &policies, &notes, &groups, vocabulary);
    Ok(Loaded {
        by_action: Action::ALL.iter().map(prepare).collect(),
        #[cfg(test)]
        schema: parsed_schema,
    })
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

/// The groups that each action is in, at any depth.
fn groups_of_actions(schema: &Schema) -> Result<HashMap<EntityUid, HashSet<EntityUid>>, String> {
    let actions = schema.action_entities().map_err(|error| error.to_string())?;
    let groups = |uid: &EntityUid| actions.ancestors(uid).into_iter().flatten().cloned().collect();
    Ok(schema.actions().map(|uid| (uid.clone(), groups(uid))).collect())
}

/// The policies whose scope admits the action, and its entity with all its groups.
fn prepare_action(
    action: Action,
    policies: &[Located<'_>],
    notes: &HashMap<PolicyId, Note>,
    groups: &HashMap<EntityUid, HashSet<EntityUid>>,
    vocabulary: &Vocabulary,
) -> ActionPolicies {
    let uid = EntityUid::from(vocabulary.action(action));
    let groups = groups.get(&uid).cloned().unwrap_or_default();
    let admitted: Vec<&Policy> = policies
        .iter()
        .map(|located| &located.policy)
        .filter(|policy| admits(&policy.action_constraint(), &uid, &groups))
        .collect();
    let parents = groups.into_iter().map(Into::into).collect();
    let entity = Entity::new_with_attr_partial_value(uid.into(), [], HashSet::new(), parents, []);
    ActionPolicies::new(
        admitted.iter().map(|policy| prepare(policy, action, notes, vocabulary)).collect(),
        Arc::new(entity),
        #[cfg(test)]
        PolicySet::from_policies(admitted.into_iter().cloned()).expect("ids are unique"),
    )
}

fn prepare(
    policy: &Policy,
    action: Action,
    notes: &HashMap<PolicyId, Note>,
    vocabulary: &Vocabulary,
) -> Prepared {
    let note = notes.get(policy.id()).cloned().unwrap_or_default();
    Prepared {
        id: policy.id().to_string(),
        effect: policy.effect(),
        condition: condition(policy, action, vocabulary),
        message: note.message,
        max_lifetime: note.max_lifetime,
    }
}

/// The policy's condition. Where its scope says no more than what is true of every request about the action
/// (the policy was admitted for it, and principal and resource have the only types it applies to), its scope
/// is left out.
fn condition(policy: &Policy, action: Action, vocabulary: &Vocabulary) -> Expr {
    let whole: &cedar_policy_core::ast::Policy = policy.as_ref();
    let (principal, resource) = vocabulary.types_for(action);
    let is = |kind: &EntityTypeName, expected: &str| kind.to_string() == expected;
    let any_principal = match policy.principal_constraint() {
        PrincipalConstraint::Any => true,
        PrincipalConstraint::Is(kind) => is(&kind, principal),
        _ => false,
    };
    let any_resource = match policy.resource_constraint() {
        ResourceConstraint::Any => true,
        ResourceConstraint::Is(kind) => is(&kind, resource),
        _ => false,
    };
    if any_principal && any_resource {
        return whole.non_scope_constraints().cloned().unwrap_or_else(|| Expr::val(true));
    }
    whole.condition()
}

fn admits(constraint: &ActionConstraint, action: &EntityUid, groups: &HashSet<EntityUid>) -> bool {
    match constraint {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(one) => one == action,
        ActionConstraint::In(several) => several.iter().any(|one| one == action || groups.contains(one)),
    }
}
