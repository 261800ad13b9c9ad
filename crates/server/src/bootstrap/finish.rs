//! From an issuer's certificate to an authority that opens: ledger, identities, first operator.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chancery_attest::{Evidence, OperatorChannel, OperatorEvidence};
use chancery_entry::{Blob, Body, Entry, Genesis, IssuerActivation};
use chancery_ledger::{Precondition, Proposal};
use chancery_types::{Clock, Digest, Identity, IssuerEpoch, KeyAlgorithm, Random, Role, SerialNumber};
use chancery_x509::{
    Certificate, DistinguishedName, RequestPurpose, RequestSpec, SubjectKey, check_chain, write_pem,
};

use super::InitError;
use super::layout::{Layout, write_new};
use crate::authority::{Authority, Enrolment, Requester, Wish, log_origin, open_keys};
use crate::config::Config;
use crate::storage::create_ledger;

/// The first issuer's epoch.
const FIRST_EPOCH: IssuerEpoch = IssuerEpoch(1);

/// An authority that is ready to serve.
#[derive(Debug)]
pub struct Finished {
    /// Its configuration file.
    pub config: PathBuf,
    /// SHA-256 of the root certificate.
    pub root_fingerprint: Digest,
    /// The first operator's certificate.
    pub operator_certificate: PathBuf,
    /// The first operator's key.
    pub operator_key: PathBuf,
    /// That certificate's serial.
    pub operator_serial: SerialNumber,
}

/// Finishes a prepared authority with the certificate that somebody signed for its issuer.
///
/// `roots` is the root certificate and whatever lies between it and the issuer, DER, the root first.
///
/// # Errors
/// [`InitError`].
pub async fn finish(
    directory: &Path,
    issuer: &[u8],
    roots: &[Vec<u8>],
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<Finished, InitError> {
    let layout = Layout::of(directory);
    if !layout.issuer_request().exists() {
        return Err(InitError::NotPrepared(directory.to_owned()));
    }
    let config = Config::load(&layout.config())?;
    let certificate = Certificate::from_der(issuer)
        .map_err(|error| InitError::certificate("the issuer certificate", error))?;
    let root =
        roots.first().ok_or_else(|| InitError::certificate("the root certificate", "none was given"))?;
    check_roots(&certificate, roots)?;
    let keys = open_keys(&config)?;
    if certificate.tbs().spki_der() != keys.issuer.public_key().spki_der() {
        let why = "it was made for another key than the one prepared here";
        return Err(InitError::certificate("the issuer certificate", why));
    }
    let pem: String = roots.iter().map(|der| write_pem("CERTIFICATE", der)).collect();
    write_new(&layout.root_certificate(), pem.as_bytes(), 0o644)?;
    write_new(&layout.issuer_certificate(), write_pem("CERTIFICATE", issuer).as_bytes(), 0o644)?;

    let ledger = create_ledger(&config.ledger, Arc::clone(&keys.log), random.as_ref()).await?;
    let genesis = Genesis {
        trust_domain: config.trust_domain.id(),
        origin: log_origin(&config.trust_domain),
        verifier_key: keys.log.verifiers()[0].vkey(),
        root: Blob(root.clone()),
    };
    let activation =
        IssuerActivation { epoch: FIRST_EPOCH, certificate: Blob(issuer.to_vec()), by: "init".into() };
    let now = clock.now();
    let entries =
        vec![Entry::new(now, Body::Genesis(genesis)), Entry::new(now, Body::IssuerActivated(activation))];
    let proposal = Proposal::new(vec![Precondition::Empty], entries)
        .map_err(|error| InitError::certificate("the root certificate", error))?;
    ledger.commit(vec![proposal]).await.map_err(crate::authority::AuthorityError::from)?;
    let authority = Authority::assemble(config, keys, ledger, Arc::clone(&clock), random).await?;
    let finished = first_operator(&authority, &layout, Digest::of(root)).await?;
    std::fs::remove_file(layout.issuer_request())
        .map_err(|error| InitError::file(&layout.issuer_request(), error))?;
    authority.ledger().close();
    Ok(finished)
}

/// The issuer must have been issued by the certificate after it, and so on up to the root.
fn check_roots(issuer: &Certificate, roots: &[Vec<u8>]) -> Result<(), InitError> {
    let failed =
        |error: &dyn std::fmt::Display| InitError::certificate("the chain from issuer to root", error);
    let mut chain = vec![issuer.clone()];
    for der in roots.iter().skip(1).rev().chain(roots.first()) {
        chain.push(Certificate::from_der(der).map_err(|error| failed(&error))?);
    }
    check_chain(&chain).map_err(|error| failed(&error))
}

/// Registers the first operator, an admin, and issues its certificate.
async fn first_operator(
    authority: &Authority,
    layout: &Layout,
    root_fingerprint: Digest,
) -> Result<Finished, InitError> {
    let name = "admin";
    let id = authority
        .config()
        .trust_domain
        .member(&format!("/operator/{name}"))
        .map_err(|error| InitError::certificate("the operator's name", error))?;
    let mut identity = Identity::new(id.clone(), name);
    identity.purpose = "the first operator, made by init".into();
    identity.profiles = vec!["operator".into()];
    identity.role = Some(Role::Admin);
    authority.register_identity(&identity, "init").await?;
    let key = SubjectKey::generate(KeyAlgorithm::P256)
        .map_err(|error| InitError::certificate("the operator's key", error))?;
    let csr = RequestSpec {
        public_key: key.public_key(),
        signature_algorithm: key.signature_algorithm(),
        subject: &DistinguishedName::empty(),
        names: &[],
        purpose: RequestPurpose::Subject,
    };
    let csr = csr
        .build(|message| key.sign(message))
        .map_err(|error| InitError::certificate("the operator's request", error))?;
    let uid = rustix::process::geteuid().as_raw();
    let enrolled = authority
        .enroll(Enrolment {
            request: authority.prove(&csr)?,
            evidence: Evidence::Operator(OperatorEvidence {
                channel: OperatorChannel::LocalSocket { uid },
                identity: id,
                approval: None,
            }),
            wish: Wish::default(),
            requester: Requester { name: "init".into(), address: None },
            idempotency: None,
        })
        .await?;
    let (operator_certificate, operator_key) = layout.operator(name);
    let chain = write_pem("CERTIFICATE", enrolled.issued.der())
        + &write_pem("CERTIFICATE", enrolled.issued.issuer_der());
    write_new(&operator_certificate, chain.as_bytes(), 0o644)?;
    write_new(&operator_key, key.to_pkcs8_pem().as_bytes(), 0o600)?;
    Ok(Finished {
        config: layout.config(),
        root_fingerprint,
        operator_certificate,
        operator_key,
        operator_serial: enrolled.issued.serial(),
    })
}
