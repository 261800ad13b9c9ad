//! Our facts as Cedar entities and contexts. Built by hand for speed: no JSON and no parsing on the way.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use cedar_policy_core::ast::{
    Context, Eid, Entity, EntityType, EntityUID, Literal, Name, PartialValue, RestrictedExpr, Value,
};
use cedar_policy_core::evaluator::RestrictedEvaluator;
use cedar_policy_core::extensions::Extensions;
use chancery_types::{AssuranceLevel, Identity, SubjectName, Timestamp};

use crate::Action;
use crate::inputs::{IssueInputs, NetworkFacts, ProfileFacts};
use crate::operator::{CallerFacts, ResourceFacts};

/// Names that are parsed once.
pub(crate) struct Vocabulary {
    actions: Vec<EntityUID>,
    identity: EntityType,
    profile: EntityType,
    caller: EntityType,
    resource: EntityType,
    evidence: EntityUID,
    ip: Name,
}

/// Why facts could not be put into Cedar's form. Cannot happen with facts of our types; it denies all the same.
pub(crate) type BuildError = String;

impl Vocabulary {
    pub(crate) fn new() -> Self {
        let name = |name: &str| -> Name { name.parse().expect("a plain identifier") };
        let kind = |text: &str| EntityType::EntityType(name(text));
        let action = kind("Action");
        let actions = Action::ALL.iter().map(|one| entity_uid(&action, one.as_str())).collect();
        Self {
            actions,
            identity: kind("Identity"),
            profile: kind("Profile"),
            caller: kind("Caller"),
            resource: kind("Resource"),
            evidence: entity_uid(&kind("Evidence"), "presented"),
            ip: name("ip"),
        }
    }

    pub(crate) fn action(&self, action: Action) -> EntityUID {
        self.actions[action as usize].clone()
    }

    /// The types of principal and resource that every request about the action has.
    pub(crate) fn types_for(&self, action: Action) -> (&'static str, &'static str) {
        if action.is_issue() { ("Identity", "Profile") } else { ("Caller", "Resource") }
    }

    pub(crate) fn identity(&self, identity: &Identity) -> Entity {
        let id = &identity.spiffe_id;
        let mut attributes = Attributes::default();
        attributes.text("trust_domain", id.trust_domain_name());
        attributes.text("path", id.path());
        attributes.text_unless_empty("owner", &identity.owner);
        attributes.text_unless_empty("team", &identity.team);
        attributes.text_unless_empty("purpose", &identity.purpose);
        attributes.text_unless_empty("environment", &identity.environment);
        attributes.number("sensitivity", i64::from(identity.sensitivity.number()));
        let minimum = identity.minimum_assurance.map_or(0, AssuranceLevel::number);
        attributes.number("minimum_assurance", i64::from(minimum));
        if let Some(role) = identity.role {
            attributes.text("role", role.as_str());
        }
        if let Some(moment) = identity.review_by {
            attributes.moment("review_by", moment);
        }
        if let Some(moment) = identity.expires {
            attributes.moment("expires", moment);
        }
        attributes.entity(entity_uid(&self.identity, id.as_str()))
    }

    pub(crate) fn profile(&self, profile: &ProfileFacts) -> Entity {
        let mut attributes = Attributes::default();
        attributes.text("name", &profile.name);
        attributes.text("purpose", &profile.purpose);
        attributes.number("sensitivity", i64::from(profile.sensitivity.number()));
        attributes.seconds("default_lifetime", profile.default_lifetime.0);
        attributes.seconds("max_lifetime", profile.max_lifetime.0);
        attributes.entity(entity_uid(&self.profile, &profile.name))
    }

    pub(crate) fn evidence(&self, inputs: &IssueInputs) -> Entity {
        let evidence = &inputs.evidence;
        let mut attributes = Attributes::default();
        attributes.text("kind", evidence.kind.as_str());
        attributes.number("assurance", i64::from(evidence.assurance.number()));
        attributes.flag("repeatable", evidence.repeatable);
        attributes.flag("key_bound", evidence.bound_key.is_some());
        let tags = evidence.claims.iter().map(|(name, value)| (name, texts(value.texts())));
        attributes.entity_with_tags(self.evidence.clone(), tags)
    }

    /// The context of an issue decision; `lifetime` is what is left of the wish after the ceilings in code.
    pub(crate) fn issue_context(
        &self,
        inputs: &IssueInputs,
        lifetime: std::time::Duration,
    ) -> Result<Context, BuildError> {
        let context = &inputs.context;
        let names = &inputs.names.wanted;
        let mut requested = Attributes::default();
        requested.seconds("lifetime", lifetime);
        requested.put("names", texts(names.iter().map(ToString::to_string)));
        let wildcard = |name: &SubjectName| matches!(name, SubjectName::Dns(name) if name.is_wildcard());
        requested.flag("wildcard", names.iter().any(wildcard));
        requested.text("key", inputs.requested.key.algorithm.as_str());
        if !inputs.requested.audiences.is_empty() {
            requested.put("audiences", texts(inputs.requested.audiences.iter().cloned()));
        }

        let mut attributes = Attributes::default();
        attributes.moment("now", context.now);
        attributes.put("evidence", Value::new(Literal::from(self.evidence.clone()), None));
        attributes.put("requested", requested.record());
        if let Some(renewal) = &inputs.renewal {
            let mut record = Attributes::default();
            record.number("generation", i64::from(renewal.from.generation.0));
            record.seconds("age", context.now.since(renewal.enrolled_at));
            record.text("enrolled_by", renewal.enrolled_by.as_str());
            attributes.put("renewal", record.record());
        }
        if let Some(network) = &context.network {
            attributes.put("network", self.network(network)?);
        }
        if let Some(history) = &context.history {
            let mut record = Attributes::default();
            record.number("issued_last_hour", i64::from(history.issued_last_hour));
            record.number("live", i64::from(history.live));
            attributes.put("history", record.record());
        }
        if let Some(template) = &inputs.template {
            attributes.text("template", &template.name);
        }
        Ok(attributes.context())
    }

    pub(crate) fn caller(&self, caller: &CallerFacts) -> Entity {
        let mut attributes = Attributes::default();
        attributes.text("id", &caller.id);
        attributes.put("roles", texts(caller.roles.iter().map(ToString::to_string)));
        attributes.text("factor", caller.factor.as_str());
        if let Some(profile) = &caller.profile {
            attributes.text("profile", profile);
        }
        attributes.entity(entity_uid(&self.caller, &caller.id))
    }

    pub(crate) fn resource(&self, resource: &ResourceFacts) -> Entity {
        let mut attributes = Attributes::default();
        attributes.text("kind", &resource.kind);
        if let Some(identity) = &resource.identity {
            attributes.text("identity", identity.as_str());
        }
        attributes.text_unless_empty("owner", &resource.owner);
        attributes.text_unless_empty("team", &resource.team);
        attributes.text_unless_empty("environment", &resource.environment);
        if let Some(sensitivity) = resource.sensitivity {
            attributes.number("sensitivity", i64::from(sensitivity.number()));
        }
        if let Some(role) = resource.role {
            attributes.text("role", role.as_str());
        }
        attributes.entity(entity_uid(&self.resource, &resource.id))
    }

    fn network(&self, network: &NetworkFacts) -> Result<Value, BuildError> {
        // An IPv4 client on a dual-stack socket has an IPv4-mapped address; policies speak of IPv4 ranges.
        let address: IpAddr = network.address.to_canonical();
        let constructor =
            RestrictedExpr::call_extension_fn(self.ip.clone(), [RestrictedExpr::val(address.to_string())]);
        let address = RestrictedEvaluator::new(Extensions::all_available())
            .interpret(constructor.as_borrowed())
            .map_err(|error| error.to_string())?;
        let mut record = Attributes::default();
        record.put("address", address);
        if let Some(zone) = &network.zone {
            record.text("zone", zone);
        }
        Ok(record.record())
    }

    pub(crate) fn call_context(
        &self,
        now: Timestamp,
        approval: Option<&str>,
        affected: Option<u64>,
        network: Option<&NetworkFacts>,
    ) -> Result<Context, BuildError> {
        let mut attributes = Attributes::default();
        attributes.moment("now", now);
        if let Some(approval) = approval {
            attributes.text("approval", approval);
        }
        if let Some(affected) = affected {
            attributes.number("affected", i64::try_from(affected).unwrap_or(i64::MAX));
        }
        if let Some(network) = network {
            attributes.put("network", self.network(network)?);
        }
        Ok(attributes.context())
    }
}

fn entity_uid(kind: &EntityType, id: &str) -> EntityUID {
    EntityUID::from_components(kind.clone(), Eid::new(id), None)
}

fn texts(texts: impl IntoIterator<Item = String>) -> Value {
    Value::set_of_lits(texts.into_iter().map(Literal::from), None)
}

/// Attributes of an entity, a record or a context under construction. The values are built as values: they come
/// from our types, so there is nothing to evaluate in them.
#[derive(Default)]
struct Attributes(Vec<(&'static str, Value)>);

impl Attributes {
    fn put(&mut self, name: &'static str, value: Value) {
        self.0.push((name, value));
    }

    fn text(&mut self, name: &'static str, text: &str) {
        self.put(name, Value::new(Literal::from(text), None));
    }

    fn text_unless_empty(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    fn number(&mut self, name: &'static str, number: i64) {
        self.put(name, Value::new(Literal::from(number), None));
    }

    fn flag(&mut self, name: &'static str, flag: bool) {
        self.put(name, Value::new(Literal::from(flag), None));
    }

    fn moment(&mut self, name: &'static str, moment: Timestamp) {
        self.number(name, moment.seconds());
    }

    fn seconds(&mut self, name: &'static str, duration: std::time::Duration) {
        self.number(name, i64::try_from(duration.as_secs()).unwrap_or(i64::MAX));
    }

    fn record(self) -> Value {
        Value::record(self.0, None)
    }

    fn context(self) -> Context {
        let attributes: BTreeMap<_, _> =
            self.0.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Context::Value(Arc::new(attributes))
    }

    fn entity(self, uid: EntityUID) -> Entity {
        self.entity_with_tags(uid, [])
    }

    fn entity_with_tags<'a>(
        self,
        uid: EntityUID,
        tags: impl IntoIterator<Item = (&'a str, Value)>,
    ) -> Entity {
        let attributes = self.0.into_iter().map(|(name, value)| (name.into(), PartialValue::Value(value)));
        let tags = tags.into_iter().map(|(name, value)| (name.into(), PartialValue::Value(value)));
        Entity::new_with_attr_partial_value(uid, attributes, HashSet::new(), HashSet::new(), tags)
    }
}
