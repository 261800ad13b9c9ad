//! What relying parties trust: roots, issuers, the SPIFFE bundle.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use chancery_api::{IssuerState, IssuerView, IssuersResponse, Jwk, JwksBundle};
use chancery_ledger as ledger;
use chancery_x509::{CERTIFICATE, Certificate, CertificateError, PublicKey, PublicKeyError, write_pem};
use data_encoding::BASE64;
use http::HeaderMap;
use x509_cert::der;

use super::problem_of;
use crate::authority::AuthorityError;
use crate::jwk::{jwk, jwt_authority};
use crate::published::Published;
use crate::site::Site;
use crate::{HttpProblem, Json, Path};

/// The certificate of an epoch never changes.
const CERTIFICATE_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The roots, PEM. Intermediates travel with each certificate.
pub(crate) async fn bundle(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let pem = site.authority.read_roots().await.map_err(problem_of)?.to_pem();
    let refresh = site.authority.config().rotation.rules.refresh_hint;
    Ok(Published::new("application/pem-certificate-chain", pem, refresh).answer(&headers))
}

/// The SPIFFE trust bundle: the roots, and the keys of JWT-SVIDs.
pub(crate) async fn bundle_json(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let sequence = site.authority.bundle_sequence().await.map_err(problem_of)?;
    let keys = site.authority.jwt_keys().await.map_err(problem_of)?;
    let refresh = site.authority.config().rotation.rules.refresh_hint;
    let roots = site.authority.read_roots().await.map_err(problem_of)?;
    let bundle = spiffe_bundle(roots.bundle(), &keys, sequence, refresh).map_err(HttpProblem::internal)?;
    let bytes = serde_json::to_vec(&bundle).map_err(HttpProblem::internal)?;
    Ok(Published::new("application/json", bytes, refresh).answer(&headers))
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
            ledger::IssuerState::Retired if record.taint.is_some() => IssuerState::Tainted,
            ledger::IssuerState::Retired => IssuerState::Retired,
            ledger::IssuerState::Prepared => IssuerState::Prepared,
            ledger::IssuerState::Withdrawn => IssuerState::Withdrawn,
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
fn spiffe_bundle<'a>(
    roots: impl Iterator<Item = &'a Certificate>,
    jwt: &[PublicKey],
    sequence: u64,
    refresh: Duration,
) -> Result<JwksBundle, OwnError> {
    let mut keys = Vec::new();
    for root in roots {
        let key = jwk(&PublicKey::from_spki_der(root.tbs().spki_der())?, "x509-svid")?;
        keys.push(Jwk { x5c: Some(vec![BASE64.encode(root.der())]), ..key });
    }
    for key in jwt {
        keys.push(jwt_authority(key, "jwt-svid")?);
    }
    Ok(JwksBundle { keys, spiffe_sequence: Some(sequence), spiffe_refresh_hint: Some(refresh.as_secs()) })
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL_NOPAD;
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

    #[test]
    fn the_bundle_has_the_root_and_the_jwt_key() {
        let (root_key, jwt_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = root(&root_key);
        let jwt = public_key(&jwt_key);
        let bundle =
            spiffe_bundle([&root].into_iter(), std::slice::from_ref(&jwt), 1, Duration::from_mins(5))
                .unwrap();
        let [x509, jwt_svid] = bundle.keys.as_slice() else { panic!("two keys") };
        assert_eq!((x509.purpose.as_str(), jwt_svid.purpose.as_str()), ("x509-svid", "jwt-svid"));
        assert_eq!(x509.x5c.as_deref(), Some([BASE64.encode(root.der())].as_slice()));
        assert_eq!((&x509.kid, &jwt_svid.x5c), (&None, &None));
        assert_eq!(jwt_svid.kid.as_deref(), Some(crate::jwk::thumbprint(jwt_svid).as_str()));
        let decode =
            |text: &Option<String>| BASE64URL_NOPAD.decode(text.as_ref().unwrap().as_bytes()).unwrap();
        let point = [vec![4], decode(&jwt_svid.x), decode(&jwt_svid.y)].concat();
        assert_eq!(point, jwt.key_bytes());
        assert_eq!((bundle.spiffe_sequence, bundle.spiffe_refresh_hint), (Some(1), Some(300)));
    }
}
