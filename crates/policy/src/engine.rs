//! The policies in force, prepared once so that a decision is cheap.
//!
//! Cedar's own authorizer builds the condition of every policy anew for every request, and its public
//! constructors compute the transitive closure of the entities each time; both together cost several times the
//! evaluation itself. Here the conditions are taken from the parsed policies once, and Cedar's evaluator is
//! asked directly. What remains to be done by us is Cedar's rule of combination (a forbid wins, without a permit
//! it is a denial) and our stricter one for errors. In test builds every verdict is compared with that of
//! Cedar's authorizer.

use std::sync::Arc;
use std::time::Duration;

use cedar_policy_core::ast::{
    Context, Entity, EntityUID, EntityUIDEntry, Expr, ExprKind, Literal, Request, SlotEnv, Value, ValueKind,
};
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;
use chancery_types::Digest;

use crate::load::load;
use crate::vocabulary::Vocabulary;
use crate::{Action, PolicyErrors, PolicySource};

/// Policies that were parsed, validated strictly against their schema, and prepared. Immutable: a change makes
/// a new engine, which is swapped in whole.
pub struct Engine {
    by_action: Vec<ActionPolicies>,
    pub(crate) vocabulary: Vocabulary,
    hash: Digest,
    #[cfg(test)]
    schema: cedar_policy::Schema,
}

/// The policies whose scope admits one action, in the order of their ids: only they can decide it.
pub(crate) struct ActionPolicies {
    pub(crate) policies: Vec<Prepared>,
    permits_everybody: bool,
    /// The action with all its groups.
    pub(crate) entity: Arc<Entity>,
    /// The same policies as Cedar's authorizer takes them.
    #[cfg(test)]
    pub(crate) official: cedar_policy::PolicySet,
}

impl ActionPolicies {
    pub(crate) fn new(
        policies: Vec<Prepared>,
        entity: Arc<Entity>,
        #[cfg(test)] official: cedar_policy::PolicySet,
    ) -> Self {
        let is_permit = |policy: &Prepared| policy.effect == cedar_policy::Effect::Permit;
        let permits_everybody = policies.iter().all(is_permit) && policies.iter().any(Prepared::always_holds);
        Self {
            policies,
            permits_everybody,
            entity,
            #[cfg(test)]
            official,
        }
    }
}

/// One policy, ready to be evaluated.
pub(crate) struct Prepared {
    pub(crate) id: String,
    pub(crate) effect: cedar_policy::Effect,
    /// What has to hold, apart from what holds for every request about the action.
    pub(crate) condition: Expr,
    /// `@message`
    pub(crate) message: Option<String>,
    /// `@max_lifetime`
    pub(crate) max_lifetime: Option<Duration>,
}

impl Prepared {
    fn always_holds(&self) -> bool {
        matches!(self.condition.expr_kind(), ExprKind::Lit(Literal::Bool(true)))
    }
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
        let vocabulary = Vocabulary::new();
        let loaded = load(schema, sources, &vocabulary)?;
        Ok(Self {
            by_action: loaded.by_action,
            vocabulary,
            hash: hash_of(schema, sources),
            #[cfg(test)]
            schema: loaded.schema,
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
        self.for_action(action).policies.iter().map(|policy| policy.id.clone()).collect()
    }

    /// Whether an action is permitted whoever asks, about whatever, and whenever: one policy permits it without a
    /// condition and none could forbid it. Then nobody needs to be asked.
    #[must_use]
    pub fn permits_everybody(&self, action: Action) -> bool {
        self.for_action(action).permits_everybody
    }

    /// The entity of an action, which goes into the entities of every request for it.
    pub(crate) fn action_entity(&self, action: Action) -> Arc<Entity> {
        Arc::clone(&self.for_action(action).entity)
    }

    /// The schema, for tests that prove that the requests we build conform to it.
    #[cfg(test)]
    pub(crate) fn schema(&self) -> &cedar_policy::Schema {
        &self.schema
    }

    pub(crate) fn for_action(&self, action: Action) -> &ActionPolicies {
        &self.by_action[action as usize]
    }

    /// Asks the policies. Principal and resource must be of the types that the action applies to, and
    /// `entities` must hold them and the action's entity.
    pub(crate) fn ask(
        &self,
        action: Action,
        principal: EntityUID,
        resource: EntityUID,
        context: Context,
        entities: &Entities,
    ) -> Verdict {
        let request = Request::new_unchecked(
            EntityUIDEntry::known(principal, None),
            EntityUIDEntry::known(self.vocabulary.action(action), None),
            EntityUIDEntry::known(resource, None),
            Some(context),
        );
        let policies = &self.for_action(action).policies;
        let verdict =
            combine(policies, &Evaluator::new(request.clone(), entities, Extensions::all_available()));
        #[cfg(test)]
        tests::compare_with_cedar(&verdict, request, &self.for_action(action).official, entities);
        verdict
    }
}

/// The entities of a request. None of ours has ancestors but the actions, and those have all of theirs.
pub(crate) fn entities_of(entities: impl IntoIterator<Item = Arc<Entity>>) -> Result<Entities, String> {
    Entities::new()
        .add_entities(
            entities,
            None::<&NoEntitiesSchema>,
            TCComputation::AssumeAlreadyComputed,
            Extensions::all_available(),
        )
        .map_err(|error| error.to_string())
}

/// Cedar's rule: a forbid wins; without a permit it is a denial. Ours: an error is a denial, whatever else.
fn combine(policies: &[Prepared], evaluator: &Evaluator<'_>) -> Verdict {
    let slots = SlotEnv::new();
    let (mut permits, mut forbids, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for policy in policies {
        match evaluator.interpret(&policy.condition, &slots) {
            Ok(value) => match (truth(&value), policy.effect) {
                (Some(true), cedar_policy::Effect::Permit) => permits.push(policy),
                (Some(true), cedar_policy::Effect::Forbid) => forbids.push(policy),
                (Some(false), _) => {}
                (None, _) => errors.push(format!("policy {}: its condition is not true or false", policy.id)),
            },
            Err(error) => errors.push(format!("policy {}: {error}", policy.id)),
        }
    }
    let permitted = errors.is_empty() && forbids.is_empty() && !permits.is_empty();
    let deciding = if forbids.is_empty() { permits } else { forbids };
    let limits = deciding.iter().filter_map(|one| one.max_lifetime.map(|limit| (limit, &one.id)));
    Verdict {
        permitted,
        max_lifetime: limits.min().map(|(limit, id)| (limit, id.clone())),
        message: deciding.iter().find_map(|policy| policy.message.clone()),
        policies: deciding.iter().map(|policy| policy.id.clone()).collect(),
        errors,
    }
}

fn truth(value: &Value) -> Option<bool> {
    match value.value_kind() {
        ValueKind::Lit(Literal::Bool(truth)) => Some(*truth),
        _ => None,
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
pub(crate) use tests::check_conformity;

#[cfg(test)]
mod tests;
