//! What relying parties trust: roots, issuers, the SPIFFE bundle.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use chancery_api::{IssuerState, IssuerView, IssuersResponse, Jwk, JwksBundle};
use chancery_ledger as ledger;
use chancery_types::{Digest, KeyAlgorithm};
use chancery_x509::{CERTIFICATE, Certificate, CertificateError, PublicKey, PublicKeyError, write_pem};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::HeaderMap;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{self, Decode, Reader, SliceReader};

use super::problem_of;
use crate::authority::AuthorityError;
use crate::published::Published;
use crate::site::Site;
use crate::{HttpProblem, Json, Path};

/// How often relying parties should fetch the bundle again: `spiffe_refresh_hint`.
const REFRESH: Duration = Duration::from_secs(300);
/// The certificate of an epoch never changes.
const CERTIFICATE_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The roots, PEM. Intermediates travel with each certificate.
pub(crate) async fn bundle(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    let pem = write_pem(CERTIFICATE, site.authority.root().der());
    Published::new("application/pem-certificate-chain", pem, REFRESH).answer(&headers)
}

/// The SPIFFE trust bundle: the root, and the key of JWT-SVIDs.
pub(crate) async fn bundle_json(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let issuers = site.authority.ledger().issuers().await.map_err(problem_of)?;
    let sequence = issuers.iter().map(|issuer| issuer.index).max();
    let bundle = spiffe_bundle(site.authority.root(), site.authority.jwt_key(), sequence)
        .map_err(HttpProblem::internal)?;
    let bytes = serde_json::to_vec(&bundle).map_err(HttpProblem::internal)?;
    Ok(Published::new("application/json", bytes, REFRESH).answer(&headers))
}

/// Every issuer, the newest first.
pub(crate) async fn issuers(State(site): State<Arc<Site>>) -> Result<Json<IssuersResponse>, HttpProblem> {
    let records = site.authority.ledger().issuers().await.map_err(problem_of)?;
    let issuers = records.iter().rev().map(view).collect::<Result<_, _>>().map_err(HttpProblem::internal)?;
    Ok(Json(IssuersResponse { issuers }))
}

/// An issuer's certificate, DER: `1.der`.
pub(crate) async fn issuer_certificate(
    State(site): State<Arc<Site>>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let issuers = site.authority.ledger().issuers().await.map_err(problem_of)?;
    let found = issuers.into_iter().find(|issuer| file == format!("{}.der", issuer.epoch));
    let issuer = found.ok_or_else(|| problem_of(AuthorityError::not_found("issuer certificate", &file)))?;
    Ok(Published::new("application/pkix-cert", issuer.certificate, CERTIFICATE_AGE).answer(&headers))
}

/// What is wrong with a certificate or key of our own.
#[derive(Debug, thiserror::Error)]
enum OwnError {
    #[error("a certificate in the ledger cannot be read: {0}")]
    Certificate(#[from] CertificateError),
    #[error("the key in one of our own certificates cannot be used: {0}")]
    Key(#[from] PublicKeyError),
    #[error("one of our own RSA keys cannot be read: {0}")]
    Rsa(#[from] der::Error),
}

fn view(record: &ledger::IssuerRecord) -> Result<IssuerView, OwnError> {
    let certificate = Certificate::from_der(&record.certificate)?;
    let content = certificate.tbs();
    let key = PublicKey::from_spki_der(content.spki_der())?;
    Ok(IssuerView {
        epoch: record.epoch,
        state: match record.state {
            ledger::IssuerState::Active => IssuerState::Active,
            ledger::IssuerState::Retired => IssuerState::Retired,
        },
        subject: content.subject_text(),
        key_algorithm: key.algorithm(),
        key_fingerprint: key.fingerprint(),
        not_before: content.not_before(),
        not_after: content.not_after(),
        certificate: write_pem(CERTIFICATE, certificate.der()),
    })
}

/// SPIFFE Trust Domain and Bundle, section 4.
fn spiffe_bundle(root: &Certificate, jwt: &PublicKey, sequence: Option<u64>) -> Result<JwksBundle, OwnError> {
    let x509 = Jwk {
        x5c: Some(vec![BASE64.encode(root.der())]),
        ..jwk(&PublicKey::from_spki_der(root.tbs().spki_der())?, "x509-svid")?
    };
    let mut jwt = jwk(jwt, "jwt-svid")?;
    jwt.kid = Some(thumbprint(&jwt));
    Ok(JwksBundle {
        keys: vec![x509, jwt],
        spiffe_sequence: sequence,
        spiffe_refresh_hint: Some(REFRESH.as_secs()),
    })
}

/// A key as RFC 7518 section 6 and RFC 8037 section 2 write it.
fn jwk(key: &PublicKey, purpose: &str) -> Result<Jwk, der::Error> {
    let encode = |bytes: &[u8]| Some(BASE64URL_NOPAD.encode(bytes));
    let mut jwk = Jwk {
        kty: String::new(),
        purpose: purpose.to_owned(),
        kid: None,
        alg: None,
        x5c: None,
        crv: None,
        x: None,
        y: None,
        n: None,
        e: None,
    };
    let mut point = |curve: &str| {
        // An uncompressed point: 4, and two coordinates of equal length (SEC 1 section 2.3.3).
        let coordinates = &key.key_bytes()[1..];
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        (jwk.kty, jwk.crv) = ("EC".to_owned(), Some(curve.to_owned()));
        (jwk.x, jwk.y) = (encode(x), encode(y));
    };
    match key.algorithm() {
        KeyAlgorithm::P256 => point("P-256"),
        KeyAlgorithm::P384 => point("P-384"),
        KeyAlgorithm::Ed25519 => {
            (jwk.kty, jwk.crv) = ("OKP".to_owned(), Some("Ed25519".to_owned()));
            jwk.x = encode(key.key_bytes());
        }
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            let (modulus, exponent) = rsa_numbers(key.key_bytes())?;
            jwk.kty = "RSA".to_owned();
            (jwk.n, jwk.e) = (encode(modulus), encode(exponent));
        }
    }
    Ok(jwk)
}

/// Modulus and exponent without leading zeros (RFC 8017 appendix A.1.1).
fn rsa_numbers(key: &[u8]) -> der::Result<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(key)?;
    let numbers = reader.sequence(|fields| {
        let modulus = UintRef::decode(fields)?;
        let exponent = UintRef::decode(fields)?;
        Ok::<_, der::Error>((modulus.as_bytes(), exponent.as_bytes()))
    })?;
    reader.finish()?;
    Ok(numbers)
}

/// RFC 7638: SHA-256 over the required members, in the order of their names, without a space.
fn thumbprint(jwk: &Jwk) -> String {
    let members = [
        ("crv", jwk.crv.as_deref()),
        ("e", jwk.e.as_deref()),
        ("kty", Some(jwk.kty.as_str())),
        ("n", jwk.n.as_deref()),
        ("x", jwk.x.as_deref()),
        ("y", jwk.y.as_deref()),
    ];
    // No value has a character that JSON would escape.
    let members: Vec<String> =
        members.iter().filter_map(|(name, value)| Some(format!("\"{name}\":\"{}\"", (*value)?))).collect();
    let canonical = format!("{{{}}}", members.join(","));
    BASE64URL_NOPAD.encode(Digest::of(canonical.as_bytes()).as_bytes())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData};

    use super::*;

    fn public_key(key: &KeyPair) -> PublicKey {
        PublicKey::from_spki_der(&key.subject_public_key_info()).unwrap()
    }

    fn root(key: &KeyPair) -> Certificate {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Certificate::from_der(params.self_signed(key).unwrap().der()).unwrap()
    }

    /// The example of RFC 7638 section 3.1.
    #[test]
    fn the_thumbprint_is_that_of_the_specification() {
        let jwk = Jwk {
            kty: "RSA".into(),
            purpose: "jwt-svid".into(),
            kid: Some("2011-04-29".into()),
            alg: None,
            x5c: None,
            crv: None,
            x: None,
            y: None,
            n: Some(
                "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWK\
                 RXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMic\
                 AtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3\
                 XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
                    .into(),
            ),
            e: Some("AQAB".into()),
        };
        assert_eq!(thumbprint(&jwk), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn the_bundle_has_the_root_and_the_jwt_key() {
        let (root_key, jwt_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = root(&root_key);
        let jwt = public_key(&jwt_key);
        let bundle = spiffe_bundle(&root, &jwt, Some(1)).unwrap();
        let [x509, jwt_svid] = bundle.keys.as_slice() else { panic!("two keys") };
        assert_eq!((x509.purpose.as_str(), jwt_svid.purpose.as_str()), ("x509-svid", "jwt-svid"));
        assert_eq!(x509.x5c.as_deref(), Some([BASE64.encode(root.der())].as_slice()));
        assert_eq!((&x509.kid, &jwt_svid.x5c), (&None, &None));
        assert_eq!(jwt_svid.kid.as_deref(), Some(thumbprint(jwt_svid).as_str()));
        let decode =
            |text: &Option<String>| BASE64URL_NOPAD.decode(text.as_ref().unwrap().as_bytes()).unwrap();
        let point = [vec![4], decode(&jwt_svid.x), decode(&jwt_svid.y)].concat();
        assert_eq!(point, jwt.key_bytes());
        assert_eq!((bundle.spiffe_sequence, bundle.spiffe_refresh_hint), (Some(1), Some(300)));
    }

    #[test]
    fn every_kind_of_key_has_its_members() {
        let ed25519 = public_key(&KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
        let found = jwk(&ed25519, "jwt-svid").unwrap();
        assert_eq!((found.kty.as_str(), found.crv.as_deref(), &found.y), ("OKP", Some("Ed25519"), &None));
        let p384 = public_key(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap());
        let found = jwk(&p384, "jwt-svid").unwrap();
        assert_eq!((found.kty.as_str(), found.crv.as_deref()), ("EC", Some("P-384")));
        assert_eq!(found.x.unwrap().len(), 64);
    }

    #[test]
    fn rsa_numbers_have_no_leading_zero_and_nothing_behind_them() {
        let key = [0x30, 9, 2, 2, 0, 0x81, 2, 3, 1, 0, 1];
        assert_eq!(rsa_numbers(&key).unwrap(), ([0x81].as_slice(), [1, 0, 1].as_slice()));
        assert!(rsa_numbers(&[key.as_slice(), &[0]].concat()).is_err());
        assert!(rsa_numbers(&key[..7]).is_err());
    }
}
