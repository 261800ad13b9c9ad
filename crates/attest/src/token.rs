//! Join tokens: one string that an operator hands to a workload once.
//!
//! Text form: `chancery1.<id: 32 hex digits>.<secret: 43 characters base64url>[.<root: 64 hex digits>]`. The
//! id finds the record; the secret (32 random bytes) proves; the optional root fingerprint (SHA-256 of the
//! root certificate's DER) lets the holder recognise this authority on first contact. At rest there is only
//! [`JoinToken::hash`].

use std::collections::BTreeMap;

use chancery_types::{Digest, Random, RandomError, SecretBytes, SecretString, SpiffeId, Timestamp, TokenId};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::transcript::Transcript;

/// First part of every token's text: product and version of the form.
const PREFIX: &str = "chancery1";
/// Bytes of the secret.
const SECRET_LENGTH: usize = 32;
/// Longest text that is looked at: the longest valid one has 9 + 1 + 32 + 1 + 43 + 1 + 64 bytes.
const MAX_TEXT: usize = 151;

/// Why a text is not a join token. Says nothing about the text: it may be a mistyped secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a join token; one looks like chancery1.<32 hex digits>.<43 characters>[.<64 hex digits>]")]
pub struct TokenTextError;

/// A join token with its secret: what the operator sees once and the workload shows once.
#[derive(Debug, Clone)]
pub struct JoinToken {
    id: TokenId,
    secret: SecretBytes,
    root: Option<Digest>,
}

impl JoinToken {
    /// A new token.
    ///
    /// # Errors
    /// [`RandomError`] when the randomness source fails.
    pub fn generate(now: Timestamp, random: &dyn Random, root: Option<Digest>) -> Result<Self, RandomError> {
        let mut secret = Zeroizing::new(vec![0_u8; SECRET_LENGTH]);
        random.fill(&mut secret)?;
        let secret = SecretBytes::new(std::mem::take(&mut *secret));
        Ok(Self { id: TokenId::at(now, random)?, secret, root })
    }

    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// [`TokenTextError`] when it is anything else.
    pub fn parse(text: &str) -> Result<Self, TokenTextError> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(TokenTextError);
        }
        let mut parts = text.split('.');
        if parts.next() != Some(PREFIX) {
            return Err(TokenTextError);
        }
        let id = parts.next().and_then(parse_id).ok_or(TokenTextError)?;
        let secret = parts.next().and_then(parse_secret).ok_or(TokenTextError)?;
        let root = match parts.next() {
            None => None,
            Some(text) if text.len() == 64 => Some(text.parse().map_err(|_| TokenTextError)?),
            Some(_) => return Err(TokenTextError),
        };
        if parts.next().is_some() {
            return Err(TokenTextError);
        }
        Ok(Self { id, secret, root })
    }

    /// The text form, secret included.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        let secret = Zeroizing::new(BASE64URL_NOPAD.encode(self.secret.expose_secret()));
        let mut text = String::with_capacity(MAX_TEXT);
        text.extend([PREFIX, ".", &self.id.to_string(), ".", &secret]);
        if let Some(root) = self.root {
            text.extend([".", &root.to_string()]);
        }
        SecretString::new(text)
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// SHA-256 of the DER of the root certificate that the holder should find at the other end.
    #[must_use]
    pub fn root_fingerprint(&self) -> Option<Digest> {
        self.root
    }

    /// What is stored instead of the secret: SHA-256 over label, id and secret, each behind its length.
    #[must_use]
    pub fn hash(&self) -> Digest {
        let bytes = Transcript::new("chancery join token v1")
            .field(self.id.as_bytes())
            .field(self.secret.expose_secret())
            .into_bytes();
        Digest::of(&Zeroizing::new(bytes))
    }
}

fn parse_id(text: &str) -> Option<TokenId> {
    (text.len() == 32).then(|| text.parse().ok()).flatten()
}

fn parse_secret(text: &str) -> Option<SecretBytes> {
    let secret = SecretBytes::new(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?);
    (secret.expose_secret().len() == SECRET_LENGTH).then_some(secret)
}

/// Whom a token lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenBinding {
    /// This identity and no other.
    Identity(SpiffeId),
    /// The identity that a template makes of these parameters.
    Template {
        /// The template's name.
        name: String,
        /// Values for its placeholders.
        #[serde(default)]
        parameters: BTreeMap<String, String>,
    },
}

/// What has become of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    /// Nobody has used it.
    Unspent,
    /// A certificate was issued for it.
    Spent,
    /// An operator withdrew it.
    Revoked,
}

/// A token at rest: everything but the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The public half.
    pub id: TokenId,
    /// [`JoinToken::hash`].
    pub hash: Digest,
    /// Whom it lets in.
    pub binding: TokenBinding,
    /// The only key that it is good for: SHA-256 of its SubjectPublicKeyInfo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// The moment from which it is refused.
    pub expires: Timestamp,
    /// What has become of it.
    pub state: TokenState,
}

#[cfg(test)]
mod tests {
    use chancery_types::FixedRandom;

    use super::*;

    fn token(root: Option<Digest>) -> JoinToken {
        JoinToken::generate(Timestamp::default(), &FixedRandom::dangerous_seeded(1), root).unwrap()
    }

    #[test]
    fn texts_round_trip_with_and_without_a_root() {
        for root in [None, Some(Digest::of(b"root"))] {
            let token = token(root);
            let text = token.to_text();
            let read = JoinToken::parse(&format!(" {}\n", text.expose_secret())).unwrap();
            assert_eq!(read.id(), token.id());
            assert_eq!(read.hash(), token.hash());
            assert_eq!(read.root_fingerprint(), root);
        }
    }

    #[test]
    fn the_longest_text_fits_the_limit_exactly() {
        assert_eq!(token(Some(Digest::of(b"root"))).to_text().expose_secret().len(), MAX_TEXT);
    }

    #[test]
    fn refuses_texts_that_are_not_tokens() {
        let text = token(Some(Digest::of(b"root"))).to_text();
        let text = text.expose_secret();
        let parts: Vec<&str> = text.split('.').collect();
        let bad = [
            String::new(),
            "chancery1".to_owned(),
            text.replace("chancery1", "chancery2"),
            format!("{text}.more"),
            text[..text.len() - 1].to_owned(),
            parts[..2].join("."),
            format!("{}.{}.{}", parts[0], &parts[1][1..], parts[2]),
            format!("{}.{}.{}", parts[0], parts[1], &parts[2][1..]),
            format!("{}.{}.{}=", parts[0], parts[1], parts[2]),
            format!("{}.{}.{}", parts[0], parts[1], "é".repeat(21)),
            format!("chancery1.{}.x", "a".repeat(10_000)),
        ];
        for text in bad {
            assert!(JoinToken::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn neither_debug_output_nor_errors_show_the_secret() {
        let token = token(None);
        let text = token.to_text();
        let secret = text.expose_secret().rsplit('.').next().unwrap().to_owned();
        assert!(!format!("{token:?}").contains(&secret));
        let error = JoinToken::parse(&format!("{}x", text.expose_secret())).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret));
    }

    #[test]
    fn the_hash_covers_id_and_secret_but_not_the_root() {
        let first = token(None);
        let with_root = JoinToken { root: Some(Digest::of(b"root")), ..first.clone() };
        let other_id = JoinToken { id: TokenId::from_array([1; 16]), ..first.clone() };
        let other_secret = JoinToken { secret: SecretBytes::new(vec![1; 32]), ..first.clone() };
        assert_eq!(first.hash(), with_root.hash());
        assert_ne!(first.hash(), other_id.hash());
        assert_ne!(first.hash(), other_secret.hash());
    }
}
