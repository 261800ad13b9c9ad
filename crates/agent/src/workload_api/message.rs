//! States in, messages out; pure.

use std::collections::{HashMap, HashSet};

use chancery_types::TrustDomain;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use super::token::ValidatedToken;
use crate::identities::{Bundle, Bundles, JwtSvid, X509State};
use crate::proto::workload as proto;

pub(super) fn x509_svids(state: &X509State) -> proto::X509svidResponse {
    let mut hints = Hints::default();
    let own: HashSet<TrustDomain> = state.svids.iter().map(|svid| svid.spiffe_id.trust_domain()).collect();
    let svids = state.svids.iter().map(|svid| proto::X509svid {
        spiffe_id: svid.spiffe_id.to_string(),
        x509_svid: svid.chain.concat(),
        x509_svid_key: svid.key.expose_secret().to_vec(),
        bundle: state
            .bundles
            .get(&svid.spiffe_id.trust_domain())
            .map(|bundle| der(bundle))
            .unwrap_or_default(),
        hint: hints.unique(&svid.hint),
    });
    let federated = state.bundles.iter().filter(|(domain, _)| !own.contains(domain));
    proto::X509svidResponse {
        svids: svids.collect(),
        crl: state.crls.clone(),
        federated_bundles: by_id(federated.map(|(domain, bundle)| (domain, der(bundle)))),
    }
}

pub(super) fn x509_bundles(state: &X509State) -> proto::X509BundlesResponse {
    let bundles = state.bundles.iter().map(|(domain, bundle)| (domain, der(bundle)));
    proto::X509BundlesResponse { crl: state.crls.clone(), bundles: by_id(bundles) }
}

pub(super) fn jwt_bundles(state: &X509State) -> proto::JwtBundlesResponse {
    proto::JwtBundlesResponse { bundles: jwk_sets(&state.bundles) }
}

fn jwk_sets(bundles: &Bundles) -> HashMap<String, Vec<u8>> {
    // No keys are a set too: it says that no token of this trust domain is to be believed.
    let keys = |bundle: &Bundle| match bundle.jwt_keys.as_slice() {
        [] => EMPTY_JWK_SET.to_vec(),
        keys => keys.to_vec(),
    };
    by_id(bundles.iter().map(|(domain, bundle)| (domain, keys(bundle))))
}

pub(super) fn jwt_svids(svids: Vec<JwtSvid>) -> proto::JwtsvidResponse {
    let mut hints = Hints::default();
    let message = |svid: JwtSvid| proto::Jwtsvid {
        spiffe_id: svid.spiffe_id.to_string(),
        svid: svid.token,
        hint: hints.unique(&svid.hint),
    };
    proto::JwtsvidResponse { svids: svids.into_iter().map(message).collect() }
}

pub(super) fn validated(token: ValidatedToken) -> proto::ValidateJwtsvidResponse {
    let fields = token.claims.into_iter().map(|(name, claim)| (name, value(claim)));
    proto::ValidateJwtsvidResponse {
        spiffe_id: token.spiffe_id.to_string(),
        claims: Some(Struct { fields: fields.collect() }),
    }
}

fn value(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(flag) => Kind::BoolValue(flag),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(value).collect() })
        }
        serde_json::Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(name, field)| (name, value(field))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

fn der(bundle: &Bundle) -> Vec<u8> {
    bundle.x509_authorities.concat()
}

fn by_id<'a>(bundles: impl Iterator<Item = (&'a TrustDomain, Vec<u8>)>) -> HashMap<String, Vec<u8>> {
    bundles.map(|(domain, bundle)| (domain.id().to_string(), bundle)).collect()
}

/// The standard wants hints to be unique in a message and at most 1024 bytes long. Of two equal ones the first is
/// kept: it is the one that clients would take.
#[derive(Default)]
struct Hints(HashSet<String>);

impl Hints {
    fn unique(&mut self, hint: &str) -> String {
        if hint.is_empty() {
            return String::new();
        }
        if hint.len() > LONGEST_HINT || !self.0.insert(hint.to_owned()) {
            let start: String = hint.chars().take(60).collect();
            tracing::debug!(hint = start, "a hint is too long or is not unique, and is left out");
            return String::new();
        }
        hint.to_owned()
    }
}

const LONGEST_HINT: usize = 1024;
const EMPTY_JWK_SET: &[u8] = br#"{"keys":[]}"#;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keeps_the_first_of_equal_hints_and_drops_overlong_ones() {
        let mut hints = Hints::default();
        let long = "x".repeat(1025);
        let asked = ["a", "b", "a", "", "", &long, &long[1..]];
        let kept: Vec<String> = asked.iter().map(|hint| hints.unique(hint)).collect();
        assert_eq!(kept, ["a", "b", "", "", "", "", &long[1..]]);
    }

    #[test]
    fn claims_keep_their_types() {
        let kinds = [
            (json!(null), Kind::NullValue(0)),
            (json!(true), Kind::BoolValue(true)),
            (json!(1.5), Kind::NumberValue(1.5)),
            (json!(1_900_000_000), Kind::NumberValue(1_900_000_000.0)),
            (json!("text"), Kind::StringValue("text".into())),
        ];
        for (json, kind) in kinds {
            assert_eq!(value(json).kind, Some(kind));
        }
        let nested = value(json!({"list": ["a"]}));
        let Some(Kind::StructValue(fields)) = nested.kind else { panic!("not an object") };
        assert!(matches!(&fields.fields["list"].kind, Some(Kind::ListValue(list)) if list.values.len() == 1));
    }

    #[test]
    fn a_bundle_without_jwt_keys_is_an_empty_set() {
        let domain = TrustDomain::parse("example.org").unwrap();
        let bundles = Bundles::from([(domain, Bundle::default().into())]);
        assert_eq!(jwk_sets(&bundles)["spiffe://example.org"], br#"{"keys":[]}"#);
    }
}
