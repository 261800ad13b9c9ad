//! JWT-SVIDs: decided like certificates, signed with a key of their own (SPIFFE JWT-SVID).

use std::sync::Arc;

use chancery_attest::{AttestContext, Evidence, Subject};
use chancery_entry::Body;
use chancery_keys::SignError;
use chancery_ledger::Precondition;
use chancery_policy::{ApprovedJwt, IssueContext, JwtDecision, JwtRequest, NetworkFacts, RequestedKey};
use chancery_types::{HumanDuration, KeyAlgorithm, SecretString, SpiffeId, Timestamp};
use chancery_x509::PublicKey;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::Serialize;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{self, Decode, Reader, SliceReader};

use super::enrolment::Found;
use super::{Authority, AuthorityError, Requester};
use crate::jwk;

/// How long a token lives, unless somebody says shorter.
const LIFETIME: std::time::Duration = std::time::Duration::from_secs(5 * 60);
/// Bytes of a name of a token: enough that no two meet.
const NAME_BYTES: usize = 16;

/// A request for a JWT-SVID.
#[derive(Debug)]
pub struct TokenWish {
    /// What proves for whom it is.
    pub evidence: Evidence,
    /// Who is to accept it; one at least.
    pub audiences: Vec<String>,
    /// Who asks.
    pub requester: Requester,
}

/// A JWT-SVID.
#[derive(Debug)]
pub struct SignedJwt {
    /// JWS compact form.
    pub token: SecretString,
    /// Whom it names.
    pub spiffe_id: SpiffeId,
    /// When it ends.
    pub expires: Timestamp,
}

/// Why a token was not signed.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// SPIFFE knows no such signatures (JWT-SVID section 2.1).
    #[error(
        "the JWT key is {0}, which JWT-SVIDs are not signed with; make a P-256 key and name it in keys.jwt"
    )]
    Algorithm(KeyAlgorithm),
    /// The key cannot be used.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The key signs something that is no signature.
    #[error("the signature cannot be read: {0}")]
    Signature(#[from] der::Error),
}

/// The claims of every token (JWT-SVID section 3; RFC 7519).
#[derive(Serialize)]
struct TokenClaims<'a> {
    sub: &'a SpiffeId,
    aud: &'a [String],
    exp: i64,
    iat: i64,
    jti: &'a str,
    iss: &'a str,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

impl Authority {
    /// Evidence in, token out. Decided anew for each.
    ///
    /// # Errors
    /// [`AuthorityError`] by the step that failed. A refusal by policy is recorded before it is returned.
    pub async fn sign_jwt(&self, wish: TokenWish) -> Result<SignedJwt, AuthorityError> {
        let now = self.clock.now();
        let jwt = self.jwt.load_full();
        let key = jwt.signing.public_key();
        let context = AttestContext {
            now,
            request_key: key.fingerprint(),
            server_name: self.config.trust_domain.as_str(),
        };
        let attested = self.verifiers.verify(wish.evidence, &context).await?;
        let (Subject::Named(_) | Subject::ByClaims { wanted: Some(_) }) = attested.subject() else {
            return Err(AuthorityError::NoIdentity);
        };
        let found = self.find(&attested, now).await?;
        let rules = self.rules.load_full();
        let profile = found.identity.allowed_profiles().first().copied().unwrap_or("workload");
        let network = wish.requester.address.map(|address| NetworkFacts { address, zone: None });
        let decision = rules.engine().decide_jwt(JwtRequest {
            attested,
            profile: Arc::clone(rules.profile(profile)?),
            identity: Arc::clone(&found.identity),
            identity_state: found.state,
            audiences: wish.audiences,
            lifetime: HumanDuration(LIFETIME),
            key: RequestedKey { algorithm: key.algorithm(), fingerprint: key.fingerprint() },
            context: IssueContext { now, network, history: None },
        });
        match decision {
            JwtDecision::Approved(approved) => {
                if let Some(made) = &found.registers {
                    let requires = vec![Precondition::IdentityUnused(made.identity.clone())];
                    self.commit(requires, Body::IdentityRegistered(made.clone())).await?;
                }
                self.sign_approved(&approved, &found, &wish.requester, now)
            }
            JwtDecision::Refused(refused) => Err(self.refuse(refused, &found, &wish.requester, now).await),
        }
    }

    fn sign_approved(
        &self,
        approved: &ApprovedJwt,
        found: &Found,
        requester: &Requester,
        now: Timestamp,
    ) -> Result<SignedJwt, AuthorityError> {
        let mut name = [0; NAME_BYTES];
        self.random.fill(&mut name)?;
        let (issued, name) = (now.whole_second(), HEXLOWER.encode(&name));
        let expires = issued + approved.lifetime();
        let claims = TokenClaims {
            sub: approved.spiffe_id(),
            aud: approved.audiences(),
            exp: expires.seconds(),
            iat: issued.seconds(),
            jti: &name,
            iss: &self.config.url,
        };
        let token = SecretString::new(self.signed("JWT", &claims)?);
        // A token is no certificate: it has no serial and cannot be revoked, so the log of the server holds it.
        tracing::info!(
            jti = name,
            sub = %found.identity.spiffe_id,
            aud = ?approved.audiences(),
            requester = %requester.name,
            %expires,
            decision = %approved.receipt().hash(),
            "JWT-SVID signed"
        );
        Ok(SignedJwt { token, spiffe_id: found.identity.spiffe_id.clone(), expires })
    }

    /// A token of another type than JWT-SVIDs, with these claims.
    ///
    /// # Errors
    /// [`AuthorityError::Jwt`].
    pub(crate) fn sign_claims(&self, kind: &str, claims: &impl Serialize) -> Result<String, AuthorityError> {
        Ok(self.signed(kind, claims)?)
    }

    /// JWS compact form (RFC 7515 section 7.1).
    fn signed(&self, kind: &str, claims: &impl Serialize) -> Result<String, JwtError> {
        let jwt = self.jwt.load_full();
        let key = jwt.signing.public_key();
        if key.algorithm() == KeyAlgorithm::Ed25519 {
            return Err(JwtError::Algorithm(key.algorithm()));
        }
        let kid = jwk::thumbprint(&jwk::jwk(key, "jwt-svid")?);
        let header = Header { alg: jwk::jws_algorithm(key.algorithm()), kid: &kid, typ: kind };
        let part = |json: Result<Vec<u8>, _>| {
            BASE64URL_NOPAD.encode(&json.expect("header and claims are texts and numbers"))
        };
        let mut token = format!("{}.{}", part(serde_json::to_vec(&header)), part(serde_json::to_vec(claims)));
        let signature = jws_signature(key, jwt.signing.sign(token.as_bytes())?)?;
        token.push('.');
        BASE64URL_NOPAD.encode_append(&signature, &mut token);
        Ok(token)
    }
}

/// What X.509 writes as two integers, JWS writes as two numbers of fixed length (RFC 7518 section 3.4).
fn jws_signature(key: &PublicKey, signature: Vec<u8>) -> Result<Vec<u8>, der::Error> {
    let length = match key.algorithm() {
        KeyAlgorithm::P256 => 32,
        KeyAlgorithm::P384 => 48,
        _ => return Ok(signature),
    };
    let mut reader = SliceReader::new(&signature)?;
    let fixed = reader.sequence(|fields| {
        let mut fixed = vec![0; 2 * length];
        for half in fixed.chunks_exact_mut(length) {
            let number = UintRef::decode(fields)?;
            let start = length.checked_sub(number.as_bytes().len()).ok_or(der::ErrorKind::Overlength)?;
            half[start..].copy_from_slice(number.as_bytes());
        }
        Ok::<_, der::Error>(fixed)
    })?;
    reader.finish()?;
    Ok(fixed)
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData;

    use super::*;

    #[test]
    fn short_and_long_integers_become_numbers_of_fixed_length() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = PublicKey::from_spki_der(&pair.subject_public_key_info()).unwrap();
        // r has a leading zero for its sign, s is a single byte.
        let mut der = vec![0x30, 38, 0x02, 33, 0x00, 0xff];
        der.extend([0x11; 31]);
        der.extend([0x02, 0x01, 0x07]);
        let raw = jws_signature(&key, der).unwrap();
        assert_eq!((raw.len(), raw[0], raw[31], raw[32], raw[63]), (64, 0xff, 0x11, 0, 7));
        let mut long = vec![0x30, 38, 0x02, 33, 0x01, 0xff];
        long.extend([0x11; 31]);
        long.extend([0x02, 0x01, 0x07]);
        assert!(jws_signature(&key, long).is_err());
        assert!(jws_signature(&key, vec![0x30, 0]).is_err());
    }
}
