//! Join tokens as evidence: assurance AL0, because whoever holds the text passes.

use std::sync::Arc;

use async_trait::async_trait;
use chancery_types::{AssuranceLevel, Claims, Digest, EvidenceKind};

use crate::transcript::Transcript;
use crate::{
    AttestContext, AttestError, Attested, Evidence, JoinToken, Subject, TokenBinding, TokenError,
    TokenRecord, TokenRecords, TokenState, Verifier,
};

/// Verifies join tokens against their records.
///
/// That a token is used only once is not decided here, where two requests can be on their way at the same
/// time, but by the ledger: [`Attested::spends`] is the obligation.
#[derive(Clone)]
pub struct JoinTokenVerifier {
    records: Arc<dyn TokenRecords>,
}

impl JoinTokenVerifier {
    /// A verifier over these records.
    #[must_use]
    pub fn new(records: Arc<dyn TokenRecords>) -> Self {
        Self { records }
    }
}

#[async_trait]
impl Verifier for JoinTokenVerifier {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::JoinToken
    }

    async fn verify(&self, evidence: Evidence, context: &AttestContext<'_>) -> Result<Attested, AttestError> {
        let Evidence::JoinToken(evidence) = evidence else {
            return Err(AttestError::WrongKind { expected: self.kind(), got: evidence.kind() });
        };
        let token = JoinToken::parse(evidence.token.expose_secret()).map_err(|_| TokenError::Refused)?;
        let record = self.records.token(token.id()).await?;
        let record = with_right_secret(record, &token)?;
        check_usable(&record, context)?;
        Ok(accept(record, context))
    }
}

/// The record, if there is one and the secret is its. Does the same work in every case.
fn with_right_secret(record: Option<TokenRecord>, token: &JoinToken) -> Result<TokenRecord, TokenError> {
    let stored = record.as_ref().map_or_else(Digest::default, |record| record.hash);
    let matches = equal_in_constant_time(&stored, &token.hash());
    record.filter(|_| matches).ok_or(TokenError::Refused)
}

fn check_usable(record: &TokenRecord, context: &AttestContext<'_>) -> Result<(), TokenError> {
    match record.state {
        TokenState::Unspent => {}
        TokenState::Spent => return Err(TokenError::Spent),
        TokenState::Revoked => return Err(TokenError::Revoked),
    }
    if context.now >= record.expires {
        return Err(TokenError::Expired { expired: record.expires });
    }
    if record.key.is_some_and(|key| key != context.request_key) {
        return Err(TokenError::OtherKey);
    }
    Ok(())
}

fn accept(record: TokenRecord, context: &AttestContext<'_>) -> Attested {
    let mut claims = Claims::new();
    claims.insert("token.id", record.id.to_string());
    let subject = match record.binding {
        TokenBinding::Identity(identity) => {
            claims.insert("token.identity", identity.to_string());
            Subject::Named(identity)
        }
        TokenBinding::Template { name, parameters } => {
            claims.insert("token.template", name.as_str());
            for (parameter, value) in &parameters {
                claims.insert(format!("token.parameter.{parameter}"), value.as_str());
            }
            Subject::Template { name, parameters }
        }
    };
    let hash = Transcript::new("chancery evidence join-token v1")
        .field(record.id.as_bytes())
        .field(record.hash.as_bytes())
        .field(context.request_key.as_bytes())
        .digest();
    Attested::new(EvidenceKind::JoinToken, subject, claims, AssuranceLevel::SharedSecret, hash)
        .bound_to(record.key)
        .spending(record.id)
}

/// Compares all 32 bytes, whatever they are.
fn equal_in_constant_time(left: &Digest, right: &Digest) -> bool {
    let difference =
        left.as_bytes().iter().zip(right.as_bytes()).fold(0_u8, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests;
