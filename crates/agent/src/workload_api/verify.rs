//! Signatures of tokens, by the keys of a JWK set.

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{
    self, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// How a token is signed: those of JWT-SVID section 2.1 without ES512, whose curve ring does not have.
#[derive(Clone, Copy)]
pub(super) enum Algorithm {
    Ecdsa { curve: &'static str, verification: &'static EcdsaVerificationAlgorithm },
    Rsa(&'static RsaParameters),
}

impl Algorithm {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "ES256" => Self::Ecdsa { curve: "P-256", verification: &signature::ECDSA_P256_SHA256_FIXED },
            "ES384" => Self::Ecdsa { curve: "P-384", verification: &signature::ECDSA_P384_SHA384_FIXED },
            "RS256" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            _ => return None,
        })
    }
}

/// No key of the set made the signature.
#[derive(Debug)]
pub(super) struct NoKeyFits;

/// Checks a signature with the key that is named, or, without a name, with every key that the algorithm suits.
pub(super) fn verify(
    keys: &[u8],
    kid: Option<&str>,
    algorithm: Algorithm,
    signed: &[u8],
    signature: &[u8],
) -> Result<(), NoKeyFits> {
    let set: JwkSet = serde_json::from_slice(keys).map_err(|error| {
        tracing::debug!(%error, "a bundle's JWT keys are not a JWK set");
        NoKeyFits
    })?;
    // One key that is not understood does not spoil the others.
    let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let named = keys.filter(|key| key.is_for_tokens() && (kid.is_none() || key.kid.as_deref() == kid));
    let mut tried = named.filter_map(|key| key.check(algorithm, signed, signature)).take(MOST_TRIED);
    if tried.any(|good| good) { Ok(()) } else { Err(NoKeyFits) }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl Jwk {
    /// In a SPIFFE bundle the use says so; plain JWK sets say nothing.
    fn is_for_tokens(&self) -> bool {
        matches!(self.purpose.as_deref(), None | Some("jwt-svid"))
    }

    /// Whether it made the signature; nothing if it cannot have.
    fn check(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> Option<bool> {
        match algorithm {
            Algorithm::Ecdsa { curve, verification } => {
                if self.kty != "EC" || self.crv.as_deref() != Some(curve) {
                    return None;
                }
                let point = [vec![UNCOMPRESSED], number(self.x.as_deref())?, number(self.y.as_deref())?];
                let key = UnparsedPublicKey::new(verification, point.concat());
                Some(key.verify(signed, signature).is_ok())
            }
            Algorithm::Rsa(parameters) => {
                if self.kty != "RSA" {
                    return None;
                }
                let key =
                    RsaPublicKeyComponents { n: number(self.n.as_deref())?, e: number(self.e.as_deref())? };
                Some(key.verify(parameters, signed, signature).is_ok())
            }
        }
    }
}

fn number(text: Option<&str>) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text?.as_bytes()).ok()
}

/// The first byte of an elliptic curve point with both coordinates (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;
/// Keys that are tried when a token does not name its own.
const MOST_TRIED: usize = 16;
