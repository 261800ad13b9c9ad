//! Registered identities, as operators send and see them.

use chancery_types::{Identity, IdentityState, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{
    AdditionalProperties, Array, ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Schema, Type,
};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::page::paged;

/// The document that registers an identity: [`Identity`] itself, with its description for the interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentityDocument(pub Identity);

/// A registered identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdentityView {
    /// What was registered.
    pub identity: IdentityDocument,
    /// Whether it may be issued to.
    #[schema(value_type = String, example = "active")]
    pub state: IdentityState,
    /// Counts its changes from 1; a change names the version that it changes.
    pub version: u64,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    pub registered: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub changed: Timestamp,
    /// Certificates that have neither expired nor been revoked.
    pub live_certificates: u64,
}

/// Why an identity is retired, held or released.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityStateRequest {
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

/// Which identities to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct IdentityQuery {
    /// Members of a page; 100 if absent, 1000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where to go on: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only this owner's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Only this team's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// Only in this environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Only those that may use this profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Only in this state: `active`, `held` or `retired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub state: Option<IdentityState>,
}

paged!(IdentityQuery);

impl PartialSchema for IdentityDocument {
    fn schema() -> RefOr<Schema> {
        let texts = || ArrayBuilder::new().items(Object::with_type(Type::String));
        ObjectBuilder::new()
            .description(Some("Who somebody is, whose it is, and what it takes to be it."))
            .property("spiffe_id", text("The name: unique, never reused after retirement."))
            .required("spiffe_id")
            .property("dns_names", texts().description(Some("DNS names that its certificates may carry.")))
            .property("ip_addresses", texts().description(Some("IP addresses that they may carry.")))
            .property("email_addresses", texts().description(Some("Email addresses that they may carry.")))
            .property("owner", text("Who answers for it. No owner, no issuance."))
            .property("team", text("The owner's team."))
            .property("purpose", text("What it is for, in a sentence."))
            .property("environment", text("`prod`, `staging`, ...; policy keeps environments apart."))
            .property("sensitivity", choice("How bad abuse is.", ["low", "medium", "high", "critical"]))
            .property("review_by", moment("When somebody has to look at it again."))
            .property("expires", moment("When it ends; no certificate outlives it."))
            .property(
                "profiles",
                texts().description(Some("Profiles it may use, the default first; empty: `workload`.")),
            )
            .property(
                "key_algorithms",
                texts().description(Some("Key algorithms it may use; empty: what the profile allows.")),
            )
            .property("max_lifetime", text("A lifetime shorter than the profile's, such as `1h`."))
            .property(
                "minimum_assurance",
                choice("The least assurance of its evidence.", ["AL0", "AL1", "AL2", "AL3", "AL4"]),
            )
            .property(
                "selectors",
                selectors(
                    "Claims that evidence must hold to be evidence of this identity: all, and all texts of each.",
                ),
            )
            .property(
                "alternatives",
                alternatives_schema(),
            )
            .property(
                "parents",
                texts().description(Some("Nodes whose agents may ask for it for a process on them.")),
            )
            .property(
                "node_selectors",
                selectors(
                    "Claims that make any node that fulfils them a parent: all. With neither these nor parents, no agent may ask for it.",
                ),
            )
            .property("hint", text("How programs with several identities tell them apart."))
            .property(
                "federates_with",
                texts().description(Some("Other trust domains whose members it deals with.")),
            )
            .property(
                "role",
                choice("For operators: what they may do.", ["admin", "operator", "auditor", "viewer"]),
            )
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
            .into()
    }
}

impl ToSchema for IdentityDocument {}

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

fn selectors(description: &str) -> ObjectBuilder {
    let one = || ObjectBuilder::new().schema_type(Type::String);
    let several = ArrayBuilder::new().items(one()).min_items(Some(1));
    let value = OneOfBuilder::new().item(one()).item(several).build();
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(Schema::OneOf(value)))
        .description(Some(description))
}

/// A set of selectors: each claim with one text, or with a list of texts that must all hold.
pub(crate) fn selectors_schema() -> Object {
    selectors("Claims that must hold: all, and all texts of each.").build()
}

/// Sets of selectors, of which one must hold.
pub(crate) fn alternatives_schema() -> Array {
    ArrayBuilder::new()
        .items(selectors_schema())
        .description(Some("Sets of claims of which each serves as well as `selectors`."))
        .build()
}

fn moment(description: &str) -> ObjectBuilder {
    text(description).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

fn choice<const N: usize>(description: &str, values: [&str; N]) -> ObjectBuilder {
    text(description).enum_values(Some(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An identity with every field set, so that none is skipped.
    fn full() -> serde_json::Value {
        serde_json::json!({
            "spiffe_id": "spiffe://example.org/web", "dns_names": ["web.example.org"],
            "ip_addresses": ["192.0.2.1"], "email_addresses": ["web@example.org"], "owner": "o", "team": "t",
            "purpose": "p", "environment": "prod", "sensitivity": "high",
            "review_by": "2026-12-01T00:00:00Z", "expires": "2027-12-01T00:00:00Z", "profiles": ["workload"],
            "key_algorithms": ["p256"], "max_lifetime": "1h", "minimum_assurance": "AL2",
            "selectors": {"x509.cn": "web"}, "alternatives": [{"x509.cn": "www"}],
            "parents": ["spiffe://example.org/node/a"], "node_selectors": {"x509.cn": ["a", "b"]}, "hint": "main",
            "federates_with": ["elsewhere.org"], "role": "viewer",
        })
    }

    #[test]
    fn the_description_names_exactly_the_fields_that_the_document_has() {
        let document: IdentityDocument = serde_json::from_value(full()).unwrap();
        let written = serde_json::to_value(&document).unwrap();
        let schema = serde_json::to_value(IdentityDocument::schema()).unwrap();
        let described: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
        let mut fields: Vec<_> = written.as_object().unwrap().keys().collect();
        fields.sort();
        assert_eq!(described.len(), fields.len());
        assert!(fields.iter().all(|field| described.contains(field)), "{fields:?} {described:?}");
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn refuses_a_misspelt_restriction() {
        let mut document = full();
        document["minimum_asurance"] = "AL4".into();
        assert!(serde_json::from_value::<IdentityDocument>(document).is_err());
        assert!(serde_json::from_str::<IdentityStateRequest>(r#"{"notes":"x"}"#).is_err());
    }
}
