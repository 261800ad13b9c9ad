//! Issuers in reserve: signed while the root is at hand, so that rotation needs nobody for a long time.
//!
//! Each is valid for as long as any issuer, and begins a third of a life after the one before it: at any time one is in
//! reserve, one signs, and one lives on for what it signed.

use std::path::Path;

use chancery_types::{IssuerEpoch, Random, SecretString, Timestamp};
use chancery_x509::{Certificate, Profile, read_certificates, write_pem};

use super::layout::{issuer_request, replace};
use super::root::read_root;
use super::{InitError, sign_issuer};
use crate::authority::Keyring;
use crate::config::Config;

/// Issuers that can be added at once.
const MOST: u16 = 60;

/// An issuer in reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpareMade {
    /// Its number.
    pub epoch: IssuerEpoch,
    /// From when it may sign.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

/// Makes so many issuers in reserve for the authority of this configuration, with the root in this directory. The server
/// may run: it finds them by itself.
///
/// # Errors
/// [`InitError`]; those that were made before it stay, and are good.
pub fn add_spares(
    config: &Config,
    root_directory: &Path,
    passphrase: &SecretString,
    count: u16,
    random: &dyn Random,
    now: Timestamp,
) -> Result<Vec<SpareMade>, InitError> {
    let profile = config.profiles.join("issuer.toml");
    let text = std::fs::read_to_string(&profile).map_err(|error| InitError::file(&profile, error))?;
    let profile =
        Profile::from_toml(&text, &config.trust_domain).map_err(|error| InitError::file(&profile, error))?;
    let keyring = Keyring::new(config, Vec::new());
    let known = known_issuers(keyring.certificates())?;
    let algorithm = known.last().map_or(Ok(chancery_types::KeyAlgorithm::P256), |(_, issuer)| {
        chancery_x509::PublicKey::from_spki_der(issuer.tbs().spki_der())
            .map(|key| key.algorithm())
            .map_err(|error| InitError::certificate("an issuer's certificate", error))
    })?;
    let mut epoch = known.last().map_or(0, |(epoch, _)| epoch.0);
    let mut start = now;
    // The first issuer of all begins at once, and so does the first in reserve; under a root that is to take the place
    // of another, both do.
    let root = read_root(root_directory)?;
    let under: Vec<&Certificate> = known
        .iter()
        .map(|(_, issuer)| issuer)
        .filter(|issuer| issuer.is_issued_in_the_name_of(&root))
        .collect();
    if let [_, .., last] = under.as_slice() {
        let life = last.tbs().not_after().since(last.tbs().not_before());
        start = start.max(last.tbs().not_before() + life / 3);
    }
    let mut made = Vec::new();
    for _ in 0..count.min(MOST) {
        epoch =
            epoch.checked_add(1).ok_or_else(|| InitError::certificate("the issuer", "no number is left"))?;
        let number = IssuerEpoch(epoch);
        let key = keyring
            .make_issuer(number, algorithm)
            .map_err(|error| InitError::Key { purpose: "issuer", error })?;
        let csr = issuer_request(&config.trust_domain, number, key.as_ref())?;
        let der = sign_issuer(root_directory, passphrase, &csr, &profile, None, random, start)?;
        let certificate = Certificate::from_der(&der)
            .map_err(|error| InitError::certificate("the issuer certificate", error))?;
        let path = keyring.certificates().join(format!("issuer-{number}.crt"));
        replace(&path, write_pem("CERTIFICATE", &der).as_bytes(), 0o644)?;
        let (not_before, not_after) = (certificate.tbs().not_before(), certificate.tbs().not_after());
        made.push(SpareMade { epoch: number, not_before, not_after });
        start = start + not_after.since(start) / 3;
    }
    Ok(made)
}

/// The issuers whose certificates lie in this directory, by number.
pub(crate) fn known_issuers(directory: &Path) -> Result<Vec<(IssuerEpoch, Certificate)>, InitError> {
    let entries = std::fs::read_dir(directory).map_err(|error| InitError::file(directory, error))?;
    let mut known = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let Some(epoch) = name.to_str().and_then(|name| number(name, ".crt")) else { continue };
        let path = entry.path();
        let pem = std::fs::read(&path).map_err(|error| InitError::file(&path, error))?;
        let der = read_certificates(&pem, 1).ok().and_then(|mut found| found.pop());
        match der.and_then(|der| Certificate::from_der(&der).ok()) {
            Some(certificate) => known.push((epoch, certificate)),
            None => return Err(InitError::file(&path, "there is no certificate in it")),
        }
    }
    known.sort_by_key(|(epoch, _)| *epoch);
    Ok(known)
}

/// The number in `issuer-3.crt`.
pub(crate) fn number(name: &str, ending: &str) -> Option<IssuerEpoch> {
    let text = name.strip_prefix("issuer-")?.strip_suffix(ending)?;
    text.parse::<u16>().ok().filter(|number| number.to_string() == text).map(IssuerEpoch)
}
