//! Judges a JWT-SVID as the JWT-SVID standard says: appendix A of it, line by line.

use std::time::Duration;

use chancery_types::{SpiffeId, SpiffeIdError, Timestamp, TrustDomain};
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::verify::{Algorithm, verify};

/// A token that passed.
#[derive(Debug)]
pub(super) struct ValidatedToken {
    pub(super) spiffe_id: SpiffeId,
    pub(super) claims: Map<String, Value>,
}

/// Why a token is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not three parts of base64url with JSON in the first two.
    #[error("the token is not a JWS in compact serialisation")]
    Form,
    /// Its `alg` is none that JWT-SVIDs may have, or ES512, which is not supported.
    #[error(
        "the token is signed with {0:?}; expected RS, PS or ES with 256, 384 or 512 (ES512 is not supported)"
    )]
    Algorithm(String),
    /// Its `typ` is neither `JWT` nor `JOSE`.
    #[error("the token is of type {0:?}; a JWT-SVID is JWT, JOSE, or says nothing")]
    Type(String),
    /// Its header wants something understood that is not.
    #[error("the token has critical headers, which a JWT-SVID may not have")]
    Critical,
    /// A claim is missing or of another type.
    #[error("the token has no usable claim {0}")]
    Claim(&'static str),
    /// Its subject is not a SPIFFE ID.
    #[error("the subject of the token: {0}")]
    Subject(#[from] SpiffeIdError),
    /// Its subject is of a trust domain whose keys the caller does not have.
    #[error("there is no bundle of trust domain {0}")]
    UnknownTrustDomain(TrustDomain),
    /// It is for others.
    #[error("the token is not for audience {0:?}")]
    Audience(String),
    /// Its time is over.
    #[error("the token ended at {0}")]
    Expired(Timestamp),
    /// Its time has not come.
    #[error("the token is valid from {0} only")]
    NotYet(Timestamp),
    /// No key of the trust domain made its signature.
    #[error("no key of the bundle made the signature of the token")]
    Signature,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

/// Judges a token; `keys` gives the JWK set of a trust domain.
pub(super) fn validate<'a>(
    token: &str,
    audience: &str,
    keys: impl Fn(&TrustDomain) -> Option<&'a [u8]>,
    now: Timestamp,
) -> Result<ValidatedToken, TokenError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenError::Form)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Form)?;
    let algorithm = check_header(&header)?;
    let claims: Map<String, Value> =
        serde_json::from_slice(&decode(payload)?).map_err(|_| TokenError::Form)?;
    let spiffe_id = SpiffeId::parse(text(&claims, "sub").ok_or(TokenError::Claim("sub"))?)?;
    let domain = spiffe_id.trust_domain();
    let keys = keys(&domain).ok_or(TokenError::UnknownTrustDomain(domain))?;
    verify(keys, header.kid.as_deref(), algorithm, signed.as_bytes(), &decode(signature)?)
        .map_err(|_| TokenError::Signature)?;
    check_claims(&claims, audience, now)?;
    Ok(ValidatedToken { spiffe_id, claims })
}

fn check_header(header: &Header) -> Result<Algorithm, TokenError> {
    let shown = |text: &str| text.chars().take(20).collect();
    if header.crit.is_some() {
        return Err(TokenError::Critical);
    }
    match header.typ.as_deref() {
        None | Some("JWT" | "JOSE") => {}
        Some(other) => return Err(TokenError::Type(shown(other))),
    }
    Algorithm::parse(&header.alg).ok_or_else(|| TokenError::Algorithm(shown(&header.alg)))
}

fn check_claims(claims: &Map<String, Value>, audience: &str, now: Timestamp) -> Result<(), TokenError> {
    let is_for = |value: &Value| value.as_str() == Some(audience);
    let meant = match claims.get("aud") {
        Some(Value::Array(audiences)) if !audiences.is_empty() => audiences.iter().any(is_for),
        Some(value @ Value::String(_)) => is_for(value),
        _ => return Err(TokenError::Claim("aud")),
    };
    if !meant {
        return Err(TokenError::Audience(audience.chars().take(80).collect()));
    }
    let end = moment(claims, "exp")?.ok_or(TokenError::Claim("exp"))?;
    if now >= end + LEEWAY {
        return Err(TokenError::Expired(end));
    }
    match moment(claims, "nbf")? {
        Some(start) if now + LEEWAY < start => Err(TokenError::NotYet(start)),
        _ => Ok(()),
    }
}

/// RFC 7519 NumericDate: seconds, perhaps with a fraction.
fn moment(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = match (value.as_i64(), value.as_f64()) {
        (Some(seconds), _) => seconds,
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the fraction does not matter; the range saturates"
        )]
        (None, Some(seconds)) if seconds.is_finite() => seconds.floor() as i64,
        _ => return Err(TokenError::Claim(name)),
    };
    Ok(Some(Timestamp::from_seconds(seconds)))
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| TokenError::Form)
}

/// How far clocks may differ. The standard allows "a small amount"; this is what other implementations take.
const LEEWAY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
