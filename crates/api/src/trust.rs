//! What a relying party needs to verify our certificates: roots, issuers, and the SPIFFE trust bundle.

use chancery_types::{Digest, IssuerEpoch, KeyAlgorithm, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A SPIFFE trust bundle (SPIFFE Trust Domain and Bundle, section 4): a JWK set with two members more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JwksBundle {
    /// The authorities. Empty means that nothing of this trust domain is to be trusted.
    pub keys: Vec<Jwk>,
    /// Rises whenever the bundle changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_sequence: Option<u64>,
    /// Seconds after which to fetch it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_refresh_hint: Option<u64>,
}

/// One authority (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    /// Kind of key: `EC`, `RSA` or `OKP`.
    pub kty: String,
    /// What it signs: `x509-svid` or `jwt-svid`; `sig` in the key set for OpenID Connect.
    #[serde(rename = "use")]
    pub purpose: String,
    /// Name of the key; required except for `x509-svid`, absent for `x509-svid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The algorithm that it signs with (RFC 7518), for `jwt-svid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// The root certificate as base64 of its DER; exactly one for `x509-svid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x5c: Option<Vec<String>>,
    /// Curve of an `EC` or `OKP` key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// First coordinate, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// Second coordinate, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// RSA modulus, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// RSA exponent, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
}

/// Every issuer whose certificates may still be met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuersResponse {
    /// The newest first.
    pub issuers: Vec<IssuerView>,
}

/// An issuing certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuerView {
    /// Its number; part of every serial number that it gave.
    #[schema(value_type = u16)]
    pub epoch: IssuerEpoch,
    /// What it does now.
    pub state: IssuerState,
    /// Its subject, as RFC 4514 writes it.
    pub subject: String,
    /// The kind of its key.
    #[schema(value_type = String, example = "p256")]
    pub key_algorithm: KeyAlgorithm,
    /// SHA-256 of its SubjectPublicKeyInfo.
    #[schema(value_type = String)]
    pub key_fingerprint: Digest,
    /// Start of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_before: Timestamp,
    /// End of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// The certificate, as PEM.
    pub certificate: String,
}

/// What an issuer does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IssuerState {
    /// Published, does not sign yet.
    Prepared,
    /// Signs.
    Active,
    /// Signs no certificates any more; what it signed is still valid.
    Retired,
    /// What it signed is to be replaced.
    Tainted,
    /// Nothing of it is published any more.
    Withdrawn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_x509_authority_has_no_key_id_on_the_wire() {
        let key = Jwk {
            kty: "EC".into(),
            purpose: "x509-svid".into(),
            kid: None,
            alg: None,
            x5c: Some(vec!["AQID".into()]),
            crv: Some("P-256".into()),
            x: Some("x".into()),
            y: Some("y".into()),
            n: None,
            e: None,
        };
        let bundle = JwksBundle { keys: vec![key], spiffe_sequence: Some(7), spiffe_refresh_hint: Some(300) };
        let wire = serde_json::to_value(&bundle).unwrap();
        assert_eq!(wire["keys"][0]["use"], "x509-svid");
        assert!(wire["keys"][0].get("kid").is_none());
        assert_eq!(serde_json::from_value::<JwksBundle>(wire).unwrap(), bundle);
    }
}
