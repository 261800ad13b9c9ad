//! Our facts as Cedar entities and contexts. Built by hand for speed: no JSON and no parsing on the way.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use cedar_policy::{
    Context, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression as Expression,
};
use chancery_types::{AssuranceLevel, Identity, SubjectName, Timestamp};

use crate::Action;
use crate::inputs::{IssueInputs, NetworkFacts, ProfileFacts};
use crate::operator::{CallerFacts, ResourceFacts};

/// Names that are parsed once.
pub(crate) struct Vocabulary {
    actions: Vec<EntityUid>,
    identity: EntityTypeName,
    profile: EntityTypeName,
    caller: EntityTypeName,
    resource: EntityTypeName,
    evidence: EntityUid,
}

/// Why facts could not be put into Cedar's form. Cannot happen with facts of our types; it denies all the same.
pub(crate) type BuildError = String;

impl Vocabulary {
    pub(crate) fn new() -> Self {
        let kind = |name: &str| -> EntityTypeName { name.parse().expect("a plain identifier") };
        let action = kind("Action");
        let actions = Action::ALL.iter().map(|one| entity_uid(&action, one.as_str())).collect();
        Self {
            actions,
            identity: kind("Identity"),
            profile: kind("Profile"),
            caller: kind("Caller"),
            resource: kind("Resource"),
            evidence: entity_uid(&kind("Evidence"), "presented"),
        }
    }

    pub(crate) fn action(&self, action: Action) -> EntityUid {
        self.actions[action as usize].clone()
    }

    pub(crate) fn identity(&self, identity: &Identity) -> Result<Entity, BuildError> {
        let id = &identity.spiffe_id;
        let mut attributes = Attributes::with_capacity(12);
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

    pub(crate) fn profile(&self, profile: &ProfileFacts) -> Result<Entity, BuildError> {
        let mut attributes = Attributes::with_capacity(5);
        attributes.text("name", &profile.name);
        attributes.text("purpose", &profile.purpose);
        attributes.number("sensitivity", i64::from(profile.sensitivity.number()));
        attributes.seconds("default_lifetime", profile.default_lifetime.0);
        attributes.seconds("max_lifetime", profile.max_lifetime.0);
        attributes.entity(entity_uid(&self.profile, &profile.name))
    }

    pub(crate) fn evidence(&self, inputs: &IssueInputs) -> Result<Entity, BuildError> {
        let evidence = &inputs.evidence;
        let mut attributes = Attributes::with_capacity(4);
        attributes.text("kind", evidence.kind.as_str());
        attributes.number("assurance", i64::from(evidence.assurance.number()));
        attributes.flag("repeatable", evidence.repeatable);
        attributes.flag("key_bound", evidence.bound_key.is_some());
        let tags = evidence.claims.iter().map(|(name, value)| (name.to_owned(), texts(value.texts())));
        Entity::new_with_tags(self.evidence.clone(), attributes.0, [], tags)
            .map_err(|error| error.to_string())
    }

    /// The context of an issue decision; `lifetime` is what is left of the wish after the ceilings in code.
    pub(crate) fn issue_context(
        &self,
        inputs: &IssueInputs,
        lifetime: std::time::Duration,
    ) -> Result<Context, BuildError> {
        let context = &inputs.context;
        let names = &inputs.names.wanted;
        let mut requested = Attributes::with_capacity(4);
        requested.seconds("lifetime", lifetime);
        requested.put("names", texts(names.iter().map(ToString::to_string)));
        let wildcard = |name: &SubjectName| matches!(name, SubjectName::Dns(name) if name.is_wildcard());
        requested.flag("wildcard", names.iter().any(wildcard));
        requested.text("key", inputs.requested.key.algorithm.as_str());

        let mut attributes = Attributes::with_capacity(8);
        attributes.moment("now", context.now);
        attributes.put("evidence", Expression::new_entity_uid(self.evidence.clone()));
        attributes.put("requested", requested.record()?);
        if let Some(renewal) = &inputs.renewal {
            let mut record = Attributes::with_capacity(3);
            record.number("generation", i64::from(renewal.from.generation.0));
            record.seconds("age", context.now.since(renewal.enrolled_at));
            record.text("enrolled_by", renewal.enrolled_by.as_str());
            attributes.put("renewal", record.record()?);
        }
        if let Some(network) = &context.network {
            attributes.put("network", network_record(network)?);
        }
        if let Some(history) = &context.history {
            let mut record = Attributes::with_capacity(2);
            record.number("issued_last_hour", i64::from(history.issued_last_hour));
            record.number("live", i64::from(history.live));
            attributes.put("history", record.record()?);
        }
        if let Some(template) = &inputs.template {
            attributes.text("template", &template.name);
        }
        attributes.context()
    }

    pub(crate) fn caller(&self, caller: &CallerFacts) -> Result<Entity, BuildError> {
        let mut attributes = Attributes::with_capacity(3);
        attributes.text("id", &caller.id);
        attributes.put("roles", texts(caller.roles.iter().map(ToString::to_string)));
        attributes.text("factor", caller.factor.as_str());
        attributes.entity(entity_uid(&self.caller, &caller.id))
    }

    pub(crate) fn resource(&self, resource: &ResourceFacts) -> Result<Entity, BuildError> {
        let mut attributes = Attributes::with_capacity(7);
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

    pub(crate) fn call_context(
        &self,
        now: Timestamp,
        approval: Option<&str>,
        affected: Option<u64>,
        network: Option<&NetworkFacts>,
    ) -> Result<Context, BuildError> {
        let mut attributes = Attributes::with_capacity(4);
        attributes.moment("now", now);
        if let Some(approval) = approval {
            attributes.text("approval", approval);
        }
        if let Some(affected) = affected {
            attributes.number("affected", i64::try_from(affected).unwrap_or(i64::MAX));
        }
        if let Some(network) = network {
            attributes.put("network", network_record(network)?);
        }
        attributes.context()
    }
}

fn entity_uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn texts(texts: impl IntoIterator<Item = String>) -> Expression {
    Expression::new_set(texts.into_iter().map(Expression::new_string))
}

fn network_record(network: &NetworkFacts) -> Result<Expression, BuildError> {
    let mut record = Attributes::with_capacity(2);
    record.put("address", address(network.address));
    if let Some(zone) = &network.zone {
        record.text("zone", zone);
    }
    record.record()
}

fn address(address: IpAddr) -> Expression {
    // An IPv4 client on a dual-stack socket has an IPv4-mapped address; policies speak of IPv4 ranges.
    Expression::new_ip(address.to_canonical().to_string())
}

/// Attributes of an entity, a record or a context under construction.
struct Attributes(HashMap<String, Expression>);

impl Attributes {
    fn with_capacity(capacity: usize) -> Self {
        Self(HashMap::with_capacity(capacity))
    }

    fn put(&mut self, name: &'static str, value: Expression) {
        self.0.insert(name.to_owned(), value);
    }

    fn text(&mut self, name: &'static str, text: &str) {
        self.put(name, Expression::new_string(text.to_owned()));
    }

    fn text_unless_empty(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    fn number(&mut self, name: &'static str, number: i64) {
        self.put(name, Expression::new_long(number));
    }

    fn flag(&mut self, name: &'static str, flag: bool) {
        self.put(name, Expression::new_bool(flag));
    }

    fn moment(&mut self, name: &'static str, moment: Timestamp) {
        self.number(name, moment.seconds());
    }

    fn seconds(&mut self, name: &'static str, duration: std::time::Duration) {
        self.number(name, i64::try_from(duration.as_secs()).unwrap_or(i64::MAX));
    }

    fn record(self) -> Result<Expression, BuildError> {
        Expression::new_record(self.0).map_err(|error| error.to_string())
    }

    fn context(self) -> Result<Context, BuildError> {
        Context::from_pairs(self.0).map_err(|error| error.to_string())
    }

    fn entity(self, uid: EntityUid) -> Result<Entity, BuildError> {
        Entity::new(uid, self.0, HashSet::new()).map_err(|error| error.to_string())
    }
}
