//! From recorded to issued: the one place where the issuing key signs certificates.

use chancery_types::SignatureAlgorithm;
use chancery_x509::{Certificate, FrequentKey, assemble};

use crate::error::SigningError;
use crate::issued::Issued;
use crate::issuer::Issuer;
use crate::record::Recorded;

/// Signs, compares with what was recorded, verifies.
///
/// # Errors
/// [`SigningError`]; the record stands, and counts as issued.
pub(crate) fn sign(recorded: Recorded, issuer: &Issuer) -> Result<Issued, SigningError> {
    let Recorded { issuance, index } = recorded;
    let signature = issuer.signer().sign(&issuance.tbs.0)?;
    verify(issuer.public_key(), issuer.signer().algorithm(), &issuance.tbs.0, &signature)?;
    let der = assemble(&issuance.tbs.0, issuer.signer().algorithm(), &signature);
    compare(&der, &issuance.tbs.0)?;
    Ok(Issued {
        serial: issuance.serial,
        identity: issuance.identity,
        lineage: issuance.lineage,
        generation: issuance.generation,
        not_before: issuance.not_before,
        not_after: issuance.not_after,
        profile: issuance.profile,
        index,
        der,
        signature,
        issuer: issuer.certificate().der().to_vec(),
    })
}

/// A signature from a faulty key, memory or token never leaves the process.
fn verify(
    key: &FrequentKey,
    algorithm: SignatureAlgorithm,
    tbs: &[u8],
    signature: &[u8],
) -> Result<(), SigningError> {
    key.verify(algorithm, tbs, signature).map_err(|_| SigningError::Invalid)
}

/// The certificate as a stranger would parse it holds exactly the recorded bytes.
fn compare(der: &[u8], tbs: &[u8]) -> Result<(), SigningError> {
    let certificate = Certificate::from_der(der).map_err(|_| SigningError::Differs)?;
    if certificate.tbs_der() == tbs { Ok(()) } else { Err(SigningError::Differs) }
}
