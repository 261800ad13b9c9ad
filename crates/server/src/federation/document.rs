//! The bundle of another trust domain as it comes: read leniently where the standard says so, and no further.

use chancery_api::{BundleView, CertificateDer, Jwk, JwksBundle};
use chancery_types::TrustDomain;
use chancery_x509::Certificate;
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::Value;

/// Keys of one bundle.
const KEYS: usize = 256;
/// Seconds after which to look again when the bundle does not say (SPIFFE Federation, section 5.1).
const REFRESH: u64 = 300;
/// The least and the most that is heeded.
const REFRESH_BOUNDS: (u64, u64) = (10, 24 * 60 * 60);

/// A bundle that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("it is no SPIFFE bundle: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it has {0} keys, at most {KEYS} are read")]
    TooMany(usize),
    #[error("an x509-svid authority in it is not one certificate: {0}")]
    Certificate(String),
    #[error("a jwt-svid authority in it has no kid")]
    NoKeyId,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
    #[serde(default)]
    spiffe_sequence: Option<u64>,
    #[serde(default)]
    spiffe_refresh_hint: Option<u64>,
}

/// Reads a bundle (SPIFFE Trust Domain and Bundle, section 4). Keys of a use that we do not know are passed over; one
/// that we know and cannot read makes the whole unusable, so that no half of a bundle is taken for all of it.
pub(super) fn read(trust_domain: &TrustDomain, bytes: &[u8]) -> Result<BundleView, DocumentError> {
    let document: Document = serde_json::from_slice(bytes)?;
    if document.keys.len() > KEYS {
        return Err(DocumentError::TooMany(document.keys.len()));
    }
    let (mut x509_authorities, mut keys) = (Vec::new(), Vec::new());
    for key in document.keys {
        match key.get("use").and_then(Value::as_str) {
            Some("x509-svid") => x509_authorities.push(authority(&key)?),
            Some("jwt-svid") => {
                let key: Jwk = serde_json::from_value(key)?;
                if key.kid.as_deref().is_none_or(str::is_empty) {
                    return Err(DocumentError::NoKeyId);
                }
                keys.push(key);
            }
            _ => {}
        }
    }
    let refresh = document.spiffe_refresh_hint.unwrap_or(REFRESH);
    Ok(BundleView {
        trust_domain: trust_domain.clone(),
        x509_authorities,
        jwt_keys: JwksBundle { keys, spiffe_sequence: None, spiffe_refresh_hint: None },
        sequence: document.spiffe_sequence.unwrap_or(0),
        refresh_hint_seconds: refresh.clamp(REFRESH_BOUNDS.0, REFRESH_BOUNDS.1),
    })
}

fn authority(key: &Value) -> Result<CertificateDer, DocumentError> {
    let wrong = |why: &dyn std::fmt::Display| DocumentError::Certificate(why.to_string());
    let chain = key.get("x5c").and_then(Value::as_array);
    let [Value::String(text)] = chain.map(Vec::as_slice).unwrap_or_default() else {
        return Err(wrong(&"x5c has not exactly one member"));
    };
    let der = BASE64.decode(text.as_bytes()).map_err(|error| wrong(&error))?;
    Certificate::from_der(&der).map_err(|error| wrong(&error))?;
    Ok(CertificateDer::from_der(der))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use serde_json::json;

    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::parse("other.example").unwrap()
    }

    fn root() -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn read_value(value: Value) -> Result<BundleView, DocumentError> {
        read(&domain(), value.to_string().as_bytes())
    }

    #[test]
    fn what_is_known_is_taken_and_what_is_unknown_passed_over() {
        let root = root();
        let bundle = read_value(json!({
            "spiffe_sequence": 7, "spiffe_refresh_hint": 60, "more": {},
            "keys": [
                {"use": "x509-svid", "kty": "EC", "x5c": [BASE64.encode(&root)], "crv": "P-256", "x": "x", "y": "y"},
                {"use": "jwt-svid", "kty": "EC", "kid": "k", "crv": "P-256", "x": "x", "y": "y", "extra": 1},
                {"use": "wit-svid", "kty": "EC"}, {"kty": "EC"},
            ],
        }))
        .unwrap();
        assert_eq!(bundle.x509_authorities, [CertificateDer::from_der(root)]);
        assert_eq!(bundle.jwt_keys.keys[0].kid.as_deref(), Some("k"));
        assert_eq!((bundle.sequence, bundle.refresh_hint_seconds), (7, 60));
        let none = read_value(json!({"keys": []})).unwrap();
        assert!(none.x509_authorities.is_empty() && none.refresh_hint_seconds == REFRESH);
        assert_eq!(
            read_value(json!({"keys": [], "spiffe_refresh_hint": 0})).unwrap().refresh_hint_seconds,
            10
        );
    }

    #[test]
    fn half_a_bundle_is_none() {
        let root = BASE64.encode(&root());
        for wrong in [
            json!({}),
            json!({"keys": [{"use": "x509-svid", "kty": "EC"}]}),
            json!({"keys": [{"use": "x509-svid", "kty": "EC", "x5c": [root, root]}]}),
            json!({"keys": [{"use": "x509-svid", "kty": "EC", "x5c": ["AQID"]}]}),
            json!({"keys": [{"use": "jwt-svid", "kty": "EC", "crv": "P-256", "x": "x", "y": "y"}]}),
            json!({"keys": vec![json!({}); 257]}),
        ] {
            assert!(read_value(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
