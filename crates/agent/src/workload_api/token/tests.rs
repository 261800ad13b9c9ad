//! Tokens, good and bad: one test for each line of the JWT-SVID standard.

use std::sync::LazyLock;

use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use rsa::pkcs8::EncodePrivateKey;
use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;
const NO_KEYS: &[u8] = br#"{"keys":[]}"#;
const SUBJECT: &str = "spiffe://example.org/web";

fn now() -> Timestamp {
    Timestamp::from_seconds(NOW)
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

/// A key, its JWK without kid, and how it signs.
struct Signer {
    jwk: Value,
    sign: Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>,
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, curve: &str) -> Signer {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
    let point = key.public_key().as_ref()[1..].to_vec();
    let (x, y) = point.split_at(point.len() / 2);
    let jwk = json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)});
    Signer { jwk, sign: Box::new(move |signed| key.sign(&random, signed).unwrap().as_ref().to_vec()) }
}

fn rsa(encoding: &'static dyn RsaEncoding) -> Signer {
    static KEY: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::UnwrapErr(getrandom::SysRng), 2048).unwrap();
        key.to_pkcs8_der().unwrap().as_bytes().to_vec()
    });
    let key = RsaKeyPair::from_pkcs8(&KEY).unwrap();
    let parts: PublicKeyComponents<Vec<u8>> = key.public().into();
    let jwk = json!({"kty": "RSA", "n": encode(&parts.n), "e": encode(&parts.e)});
    let sign = move |signed: &[u8]| {
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(encoding, &SystemRandom::new(), signed, &mut signature).unwrap();
        signature
    };
    Signer { jwk, sign: Box::new(sign) }
}

fn p256() -> Signer {
    ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")
}

impl Signer {
    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        format!("{signed}.{}", encode((self.sign)(signed.as_bytes())))
    }

    /// A JWK set in which the key has this kid and use.
    fn set(&self, extra: Value) -> Vec<u8> {
        let mut jwk = self.jwk.as_object().unwrap().clone();
        jwk.extend(extra.as_object().unwrap().clone());
        json!({"keys": [{"kty": "future", "kid": "other"}, jwk]}).to_string().into_bytes()
    }
}

fn claims() -> Value {
    json!({"sub": SUBJECT, "aud": ["reports"], "exp": NOW + 300, "iat": NOW})
}

/// Judges a token by a set of keys of example.org.
fn judge(token: &str, keys: &[u8]) -> Result<ValidatedToken, TokenError> {
    validate(token, "reports", |domain| (domain.as_str() == "example.org").then_some(keys), now())
}

/// Judges a well signed token with this header and these claims.
fn judge_signed(header: Value, claims: Value) -> Result<ValidatedToken, TokenError> {
    let signer = p256();
    judge(&signer.token(&header, &claims), &signer.set(json!({"kid": "k1", "use": "jwt-svid"})))
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k1"})
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

#[test]
fn accepts_every_algorithm_of_the_standard_that_ring_has() {
    let signers: [(&str, Signer); 8] = [
        ("ES256", p256()),
        ("ES384", ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")),
        ("RS256", rsa(&RSA_PKCS1_SHA256)),
        ("RS384", rsa(&RSA_PKCS1_SHA384)),
        ("RS512", rsa(&RSA_PKCS1_SHA512)),
        ("PS256", rsa(&RSA_PSS_SHA256)),
        ("PS384", rsa(&RSA_PSS_SHA384)),
        ("PS512", rsa(&RSA_PSS_SHA512)),
    ];
    for (name, signer) in &signers {
        let token = signer.token(&json!({"alg": name, "kid": "k1", "typ": "JWT"}), &claims());
        let validated = judge(&token, &signer.set(json!({"kid": "k1", "use": "jwt-svid"}))).unwrap();
        assert_eq!(validated.spiffe_id.as_str(), SUBJECT);
        assert_eq!(validated.claims["iat"], json!(NOW), "{name}");
    }
    // A key is good for its own algorithms only.
    let (_, p384) = &signers[1];
    let token = p384.token(&header(), &claims());
    assert_eq!(judge(&token, &p384.set(json!({"kid": "k1"}))).unwrap_err(), TokenError::Signature);
    let (_, pss) = &signers[5];
    let token = pss.token(&json!({"alg": "RS256", "kid": "k1"}), &claims());
    assert_eq!(judge(&token, &pss.set(json!({"kid": "k1"}))).unwrap_err(), TokenError::Signature);
}

#[test]
fn refuses_other_algorithms() {
    for name in ["none", "None", "HS256", "HS512", "ES512", "EdDSA", "es256", ""] {
        let refused = judge_signed(with(header(), "alg", json!(name)), claims()).unwrap_err();
        assert_eq!(refused, TokenError::Algorithm(name.to_owned()));
    }
    let unsigned = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(claims().to_string()));
    assert_eq!(judge(&unsigned, NO_KEYS).unwrap_err(), TokenError::Algorithm("none".to_owned()));
}

#[test]
fn takes_no_type_or_jwt_or_jose() {
    for name in ["JWT", "JOSE"] {
        judge_signed(with(header(), "typ", json!(name)), claims()).unwrap();
    }
    for name in ["jwt", "at+jwt", "wit+jwt"] {
        let refused = judge_signed(with(header(), "typ", json!(name)), claims()).unwrap_err();
        assert_eq!(refused, TokenError::Type(name.to_owned()));
    }
    let critical = judge_signed(with(header(), "crit", json!(["b64"])), claims()).unwrap_err();
    assert_eq!(critical, TokenError::Critical);
}

#[test]
fn refuses_everything_but_compact_serialisation() {
    let signer = p256();
    let token = signer.token(&header(), &claims());
    let parts: Vec<&str> = token.split('.').collect();
    let json_form = json!({"payload": parts[1], "protected": parts[0], "signature": parts[2]}).to_string();
    let encrypted = format!("{token}.{}.{}", parts[1], parts[2]);
    let padded = format!("{}=.{}.{}", parts[0], parts[1], parts[2]);
    let keys = signer.set(json!({"kid": "k1"}));
    for wrong in ["", ".", "..", "a.b", "a.b.c", &json_form, &encrypted, &padded, &token[..token.len() - 1]] {
        assert_eq!(judge(wrong, &keys).unwrap_err(), TokenError::Form, "{wrong}");
    }
}

#[test]
fn wants_a_spiffe_id_as_subject() {
    assert_eq!(judge_signed(header(), without(claims(), "sub")).unwrap_err(), TokenError::Claim("sub"));
    assert_eq!(
        judge_signed(header(), with(claims(), "sub", json!(7))).unwrap_err(),
        TokenError::Claim("sub")
    );
    let refused = judge_signed(header(), with(claims(), "sub", json!("https://example.org"))).unwrap_err();
    assert!(matches!(refused, TokenError::Subject(_)));
}

#[test]
fn wants_the_callers_audience() {
    judge_signed(header(), with(claims(), "aud", json!("reports"))).unwrap();
    judge_signed(header(), with(claims(), "aud", json!(["other", "reports"]))).unwrap();
    for missing in [json!([]), json!(7), json!(null)] {
        let refused = judge_signed(header(), with(claims(), "aud", missing)).unwrap_err();
        assert_eq!(refused, TokenError::Claim("aud"));
    }
    assert_eq!(judge_signed(header(), without(claims(), "aud")).unwrap_err(), TokenError::Claim("aud"));
    for other in [json!("Reports"), json!(["reports2"]), json!([["reports"]])] {
        let refused = judge_signed(header(), with(claims(), "aud", other)).unwrap_err();
        assert_eq!(refused, TokenError::Audience("reports".to_owned()));
    }
}

#[test]
fn wants_an_end_that_is_not_past_but_for_a_minute_of_leeway() {
    assert_eq!(judge_signed(header(), without(claims(), "exp")).unwrap_err(), TokenError::Claim("exp"));
    for odd in [json!("soon"), json!(null)] {
        let refused = judge_signed(header(), with(claims(), "exp", odd)).unwrap_err();
        assert_eq!(refused, TokenError::Claim("exp"));
    }
    judge_signed(header(), with(claims(), "exp", json!(NOW - 59))).unwrap();
    judge_signed(header(), with(claims(), "exp", json!(NOW as f64 - 58.5))).unwrap();
    judge_signed(header(), with(claims(), "exp", json!(1e300))).unwrap();
    for end in [NOW - 60, NOW - 3600, 0, i64::MIN] {
        let refused = judge_signed(header(), with(claims(), "exp", json!(end))).unwrap_err();
        assert_eq!(refused, TokenError::Expired(Timestamp::from_seconds(end)));
    }
    judge_signed(header(), with(claims(), "nbf", json!(NOW + 60))).unwrap();
    let early = judge_signed(header(), with(claims(), "nbf", json!(NOW + 61))).unwrap_err();
    assert_eq!(early, TokenError::NotYet(Timestamp::from_seconds(NOW + 61)));
}

#[test]
fn uses_keys_of_the_subjects_own_trust_domain_only() {
    let foreign = with(claims(), "sub", json!("spiffe://other.org/web"));
    assert_eq!(
        judge_signed(header(), foreign).unwrap_err(),
        TokenError::UnknownTrustDomain(TrustDomain::parse("other.org").unwrap())
    );
}

#[test]
fn takes_the_key_that_is_named_or_tries_all_if_none_is() {
    let signer = p256();
    let named = signer.token(&header(), &claims());
    let nameless = signer.token(&json!({"alg": "ES256"}), &claims());
    for (token, extra, good) in [
        (&named, json!({"kid": "k1"}), true),
        (&named, json!({"kid": "k2"}), false),
        (&named, json!({}), false),
        (&nameless, json!({"kid": "k1"}), true),
        (&nameless, json!({}), true),
        (&named, json!({"kid": "k1", "use": "x509-svid"}), false),
        (&named, json!({"kid": "k1", "use": "sig"}), false),
        (&named, json!({"kid": "k1", "use": "JWT-SVID"}), false),
    ] {
        assert_eq!(judge(token, &signer.set(extra.clone())).is_ok(), good, "{extra}");
    }
}

#[test]
fn refuses_a_signature_that_no_key_made() {
    let (signer, other) = (p256(), p256());
    let token = signer.token(&header(), &claims());
    for keys in [other.set(json!({"kid": "k1"})), NO_KEYS.to_vec(), b"nonsense".to_vec(), vec![]] {
        assert_eq!(judge(&token, &keys).unwrap_err(), TokenError::Signature);
    }
    let keys = signer.set(json!({"kid": "k1"}));
    let (rest, signature) = token.rsplit_once('.').unwrap();
    let (head, _) = rest.split_once('.').unwrap();
    let forged = with(claims(), "sub", json!("spiffe://example.org/admin")).to_string();
    let forged = format!("{head}.{}.{signature}", encode(forged));
    assert_eq!(judge(&forged, &keys).unwrap_err(), TokenError::Signature);
    assert_eq!(judge(&format!("{rest}."), &keys).unwrap_err(), TokenError::Signature);
    judge(&token, &keys).unwrap();
}

proptest! {
    #[test]
    fn nothing_that_a_stranger_sends_stops_it(
        text in "[A-Za-z0-9_.-]{0,200}",
        header in "[{}\\[\\]\",:a-z0-9.]{0,60}",
        claims in "[{}\\[\\]\",:a-z0-9.]{0,60}",
    ) {
        let first = judge(&text, NO_KEYS);
        prop_assert!(first.is_err());
        let token = format!("{}.{}.AAAA", encode(header), encode(claims));
        let second = judge(&token, NO_KEYS);
        prop_assert!(second.is_err());
    }
}
