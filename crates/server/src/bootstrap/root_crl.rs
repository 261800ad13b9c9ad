//! The root's revocation list: made by hand where the root's key is, and carried to the servers.
//!
//! Some verifiers want a list from every authority of a chain (nginx, HAProxy, `openssl verify -crl_check_all`). The
//! list before is kept beside the root: a new one has a higher number and everything that stood on that one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chancery_keys::{Protection, store};
use chancery_types::{RevocationReason, SecretString, Timestamp};
use chancery_x509::crl::{CrlSpec, CrlView, RevokedCertificate};
use chancery_x509::lint::{CrlLintContext, check_crl};
use chancery_x509::{Certificate, read_pem_one, write_pem};

use super::InitError;
use super::layout::replace;
use super::root::{key_location, read_root, sign};

/// For clocks that are late.
const BACKDATE: Duration = Duration::from_secs(300);
/// What lists are called in PEM (RFC 7468 section 6).
const LABEL: &str = "X509 CRL";

/// A list of the root's.
#[derive(Debug, Clone)]
pub struct RootCrl {
    /// DER.
    pub der: Vec<u8>,
    /// Its number.
    pub number: u64,
    /// Certificates on it.
    pub entries: usize,
    /// nextUpdate.
    pub next_update: Timestamp,
    /// Where it is kept beside the root, PEM.
    pub path: PathBuf,
}

/// An issuer that is no longer to be believed.
#[derive(Debug, Clone)]
pub struct RevokedIssuer {
    /// Its certificate.
    pub certificate: Certificate,
    /// Why.
    pub reason: RevocationReason,
}

/// Signs a list with the root in this directory: what stood on the one before, and these issuers.
///
/// # Errors
/// [`InitError`], also when one of them is not the root's; the list before stays.
pub fn make_root_crl(
    directory: &Path,
    passphrase: &SecretString,
    issuers: &[RevokedIssuer],
    validity: Duration,
    now: Timestamp,
) -> Result<RootCrl, InitError> {
    let root = read_root(directory)?;
    let path = directory.join("root.crl");
    let before = read_list(&path, &root)?;
    let view = before.as_deref().and_then(|der| CrlView::from_der(der).ok());
    let mut entries: Vec<RevokedCertificate<'_>> =
        view.iter().flat_map(|view| view.entries().collect::<Vec<_>>()).collect();
    for issuer in issuers {
        add(&mut entries, issuer, &root, now)?;
    }
    let previous_number = view.and_then(|view| view.number_u64());
    let clock = u64::try_from(now.millis()).unwrap_or(0);
    let number = previous_number.map_or(clock, |previous| clock.max(previous + 1));
    let next_update = (now + validity).whole_second().min(root.tbs().not_after());
    let signer = store::open(&key_location(directory), &Protection::Passphrase(passphrase.clone()))
        .map_err(|error| InitError::Key { purpose: "root", error })?;
    let failed = |error: &dyn std::fmt::Display| InitError::certificate("the root's revocation list", error);
    let count = entries.len();
    let spec = CrlSpec {
        issuer: &root,
        signature_algorithm: signer.algorithm(),
        number,
        this_update: now.whole_second() - BACKDATE,
        next_update,
        distribution_points: &[],
    };
    let tbs = spec.to_tbs_der(entries).map_err(|error| failed(&error))?;
    let context = CrlLintContext { issuer: &root, now, previous_number, distribution_points: &[] };
    if let Some(finding) = check_crl(&tbs, &context).iter().find(|finding| finding.is_error()) {
        return Err(failed(finding));
    }
    let der = sign(&tbs, signer.as_ref())?;
    replace(&path, write_pem(LABEL, &der).as_bytes(), 0o644)?;
    Ok(RootCrl { der, number, entries: count, next_update, path })
}

/// The list in a file, PEM or DER, if there is one: the root has to have signed it.
///
/// # Errors
/// [`InitError`] when what is there is none of the root's.
pub fn read_list(path: &Path, root: &Certificate) -> Result<Option<Vec<u8>>, InitError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(InitError::file(path, error)),
    };
    let der = match bytes.first() {
        Some(b'-') => {
            read_pem_one(&bytes, &[LABEL]).map_err(|error| InitError::file(path, error))?.der.to_vec()
        }
        _ => bytes,
    };
    let list = CrlView::from_der(&der).map_err(|error| InitError::file(path, error))?;
    list.verify(root.tbs().spki_der()).map_err(|error| InitError::file(path, error))?;
    Ok(Some(der))
}

fn add<'a>(
    entries: &mut Vec<RevokedCertificate<'a>>,
    issuer: &'a RevokedIssuer,
    root: &Certificate,
    now: Timestamp,
) -> Result<(), InitError> {
    let certificate = issuer.certificate.tbs();
    let is_ours = issuer.certificate.is_issued_in_the_name_of(root) && issuer.certificate.der() != root.der();
    if !is_ours {
        let why = format!("{:?} was not issued by this root", certificate.subject_text());
        return Err(InitError::certificate("the issuer certificate", why));
    }
    match entries.iter_mut().find(|entry| entry.serial == certificate.serial()) {
        Some(entry) => entry.reason = issuer.reason,
        None => entries.push(RevokedCertificate {
            serial: certificate.serial(),
            revoked_at: now.whole_second(),
            reason: issuer.reason,
        }),
    }
    Ok(())
}
