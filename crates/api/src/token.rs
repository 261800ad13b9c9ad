//! Join tokens: made once, shown once, spent once.

use std::collections::BTreeMap;

use chancery_types::{Digest, HumanDuration, SecretString, SerialNumber, SpiffeId, Timestamp, TokenId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::enroll::{expose_on_the_wire, is_false};
use crate::page::paged;

/// Asks for a join token, for one identity or for one filled-in template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTokenRequest {
    /// The registered identity that it lets in. Either this or `template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "spiffe://example.org/web")]
    pub identity: Option<SpiffeId>,
    /// The template that makes the identity it lets in. Either this or `identity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The template's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// How long it may wait to be spent, such as `1h`; the server's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1h")]
    pub ttl: Option<HumanDuration>,
    /// SHA-256 of the SubjectPublicKeyInfo that alone may enrol with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key_fingerprint: Option<Digest>,
    /// Whether the token's text carries the root's fingerprint, so that it alone bootstraps trust.
    #[serde(default, skip_serializing_if = "is_false")]
    pub with_fingerprint: bool,
}

/// What a token lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSubject {
    /// A registered identity.
    Identity(SpiffeId),
    /// A template and its parameters.
    Template(String, BTreeMap<String, String>),
}

/// A request names no subject, or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenSubjectError {
    /// Neither.
    #[error("name an identity or a template")]
    None,
    /// Both.
    #[error("name either an identity or a template, not both")]
    Both,
    /// Parameters without a template.
    #[error("parameters need a template")]
    ParametersWithoutTemplate,
}

impl CreateTokenRequest {
    /// What the token is to let in.
    ///
    /// # Errors
    /// [`TokenSubjectError`] unless exactly one subject is named.
    pub fn subject(&self) -> Result<TokenSubject, TokenSubjectError> {
        match (&self.identity, &self.template) {
            (None, None) => Err(TokenSubjectError::None),
            (Some(_), Some(_)) => Err(TokenSubjectError::Both),
            (Some(_), None) if !self.parameters.is_empty() => {
                Err(TokenSubjectError::ParametersWithoutTemplate)
            }
            (Some(identity), None) => Ok(TokenSubject::Identity(identity.clone())),
            (None, Some(template)) => Ok(TokenSubject::Template(template.clone(), self.parameters.clone())),
        }
    }
}

/// A new join token. Its text is shown this once and stored nowhere.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateTokenResponse {
    /// The token's text: whoever has it can enrol.
    #[serde(serialize_with = "expose_on_the_wire")]
    #[schema(value_type = String, format = Password)]
    pub token: SecretString,
    /// Its public half: finds the record, proves nothing.
    #[schema(value_type = String)]
    pub id: TokenId,
    /// When it stops being accepted.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
}

/// The root's fingerprint that a join token's text carries as its fourth part, if it does: what the holder needs
/// to recognise the authority before it shows the token.
#[must_use]
pub fn root_fingerprint(token: &SecretString) -> Option<Digest> {
    let text = token.expose_secret().trim();
    let mut parts = text.split('.').skip(3);
    let fingerprint = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(fingerprint)
}

/// A join token as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its public half.
    #[schema(value_type = String)]
    pub id: TokenId,
    /// Whether it can still be spent.
    pub state: TokenState,
    /// The identity that it lets in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub identity: Option<SpiffeId>,
    /// The template that makes the identity that it lets in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The template's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// SHA-256 of the SubjectPublicKeyInfo that alone may enrol with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key_fingerprint: Option<Digest>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it stops being accepted.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
    /// The certificate that it was spent on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub spent_on: Option<SerialNumber>,
}

/// Whether a token can still be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    /// Yes.
    Open,
    /// It was.
    Spent,
    /// An operator withdrew it.
    Revoked,
    /// Its time is over.
    Expired,
}

/// Which tokens to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TokenQuery {
    /// Members of a page; 100 if absent, 1000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where to go on: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only tokens in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub state: Option<TokenState>,
    /// Only tokens for this identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub identity: Option<SpiffeId>,
}

paged!(TokenQuery);

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> CreateTokenRequest {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_token_has_exactly_one_subject() {
        assert_eq!(request("{}").subject(), Err(TokenSubjectError::None));
        let both = request(r#"{"identity":"spiffe://e/x","template":"ci"}"#);
        assert_eq!(both.subject(), Err(TokenSubjectError::Both));
        let stray = request(r#"{"identity":"spiffe://e/x","parameters":{"a":"b"}}"#);
        assert_eq!(stray.subject(), Err(TokenSubjectError::ParametersWithoutTemplate));
        assert!(matches!(request(r#"{"template":"ci"}"#).subject(), Ok(TokenSubject::Template(..))));
        assert!(serde_json::from_str::<CreateTokenRequest>(r#"{"identiy":"spiffe://e/x"}"#).is_err());
    }

    #[test]
    fn a_token_carries_the_fingerprint_as_its_fourth_part_or_not_at_all() {
        let fingerprint = |text: &str| root_fingerprint(&SecretString::new(text.to_owned()));
        let root = "ab".repeat(32);
        assert_eq!(fingerprint(&format!("chancery1.id.secret.{root}\n")).unwrap().to_string(), root);
        assert_eq!(fingerprint("chancery1.id.secret"), None);
        assert_eq!(fingerprint("chancery1.id.secret.abcd"), None);
        assert_eq!(fingerprint(&format!("chancery1.id.secret.{root}.x")), None);
    }

    #[test]
    fn the_text_of_a_token_is_on_the_wire_and_not_in_logs() {
        let response = CreateTokenResponse {
            token: SecretString::new("s3cret".into()),
            id: TokenId::from_array([1; 16]),
            expires: Timestamp::from_seconds(1),
        };
        assert!(serde_json::to_string(&response).unwrap().contains("s3cret"));
        assert!(!format!("{response:?}").contains("s3cret"));
    }
}
