//! A certificate and its key on disk, obtained and replaced so that a crash at any moment loses neither.
//!
//! ```text
//! 1  KEY.next and CERT.request are written: the new key, and the request under its idempotency key
//! 2  the authority answers; asked again with the same request it gives the same certificate
//! 3  CERT.next is written                          from here on the pair is complete
//! 4  CERT.next becomes CERT, KEY.next becomes KEY, CERT.request is removed
//! ```
//! Whoever comes back after a crash calls [`CredentialFiles::recover`] first: after 3 it finishes 4; before, the
//! same request is sent again. Two renames cannot be one, so a reader that finds a key that does not fit its
//! certificate must read again.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use chancery_api::{Base64Bytes, CsrDer, ProblemCode};
use chancery_client::{ClientError, IdempotencyKey};
use chancery_x509::{Certificate, SubjectKey, read_certificates};
use serde::{Deserialize, Serialize};

use crate::files::{self, MAX_PEM, PUBLIC, SECRET};

/// Where a credential is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CredentialFiles {
    /// The certificate, with its issuers behind it.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// The roots, if they are kept too.
    pub(crate) bundle: Option<PathBuf>,
}

/// A request that may have reached the authority.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The request's DER.
    pub(crate) csr: CsrDer,
    /// The name under which it is repeated.
    pub(crate) idempotency: IdempotencyKey,
}

/// What stands in `CERT.request`.
#[derive(Debug, Serialize, Deserialize)]
struct StoredRequest {
    idempotency_key: String,
    csr: Base64Bytes,
    /// What else the request says; another wish is another request.
    wish: String,
}

/// What a crash left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// Nothing.
    Nothing,
    /// A new pair, which is in place now.
    Finished,
}

impl CredentialFiles {
    /// A request for this key, to be sent and, after a crash, sent again. `new_key` says that the key is not in
    /// place yet.
    pub(crate) fn prepare(
        &self,
        key: &SubjectKey,
        new_key: bool,
        csr: Vec<u8>,
        wish: &str,
        idempotency: IdempotencyKey,
    ) -> Result<Pending> {
        if new_key {
            files::replace(&next(&self.key), key.to_pkcs8_pem().as_bytes(), SECRET)?;
        }
        let stored = StoredRequest {
            idempotency_key: idempotency.as_str().to_owned(),
            csr: Base64Bytes(csr.clone()),
            wish: wish.to_owned(),
        };
        files::replace(&self.request(), &serde_json::to_vec(&stored)?, SECRET)?;
        Ok(Pending { csr: CsrDer::from_der(csr), idempotency })
    }

    /// The request that an earlier run sent, if it asked for the same and its key is still there.
    pub(crate) fn resume(&self, wish: &str) -> Option<(SubjectKey, Pending)> {
        let text = files::read(&self.request(), MAX_PEM).ok()?;
        let stored: StoredRequest = serde_json::from_slice(&text).ok()?;
        let pem = files::read_secret(&next(&self.key), MAX_PEM).ok()?;
        let key = SubjectKey::from_pkcs8_pem(&pem).ok()?;
        let request = chancery_x509::CertificateRequest::from_der(&stored.csr.0).ok()?;
        if stored.wish != wish || request.public_key() != key.public_key() {
            return None;
        }
        let idempotency = IdempotencyKey::parse(&stored.idempotency_key)?;
        Some((key, Pending { csr: CsrDer::from_der(stored.csr.0), idempotency }))
    }

    /// Forgets a request that the authority refused.
    fn give_up(&self) -> Result<()> {
        files::remove_if_there(&self.request())?;
        files::remove_if_there(&next(&self.key))
    }

    /// What to report when a request failed. A refusal is final, so the request is forgotten; after anything else
    /// the certificate may exist, and the same request will fetch it.
    pub(crate) fn refused(&self, error: ClientError) -> anyhow::Error {
        let undecided = match &error {
            ClientError::Problem(problem) => {
                problem.retry_after.is_some()
                    || matches!(
                        problem.known_code(),
                        Some(
                            ProblemCode::Internal
                                | ProblemCode::RequestTimeout
                                | ProblemCode::IdempotencyInProgress
                                | ProblemCode::LedgerUnavailable
                                | ProblemCode::KeyUnavailable
                        )
                    )
            }
            _ => true,
        };
        if undecided {
            return error.into();
        }
        match self.give_up() {
            Ok(()) => error.into(),
            Err(left_behind) => anyhow::Error::new(error).context(left_behind.to_string()),
        }
    }

    /// Puts a new pair in place: `chain` is the certificate with its issuers, PEM; `key` is the one it is for.
    pub(crate) fn install(&self, chain: &str, key: &SubjectKey, bundle: Option<&[u8]>) -> Result<()> {
        let certificate = first_certificate(chain.as_bytes(), "the authority's answer")?;
        if certificate.tbs().spki_der() != key.public_key().spki_der() {
            bail!("the authority sent a certificate for another key; nothing was written");
        }
        if let (Some(path), Some(pem)) = (&self.bundle, bundle) {
            files::replace(path, pem, PUBLIC)?;
        }
        files::replace(&next(&self.certificate), chain.as_bytes(), PUBLIC)?;
        self.finish()
    }

    /// Finishes what a crash interrupted between receiving a certificate and putting it in place.
    pub(crate) fn recover(&self) -> Result<Recovered> {
        let (new_certificate, new_key) = (next(&self.certificate), next(&self.key));
        let newest = if new_certificate.exists() { &new_certificate } else { &self.certificate };
        if !new_certificate.exists() && !new_key.exists() {
            return Ok(Recovered::Nothing);
        }
        let key = if new_key.exists() { &new_key } else { &self.key };
        if fits(newest, key) {
            self.finish()?;
            return Ok(Recovered::Finished);
        }
        // A key without its certificate is a request that is under way; a certificate without its key is useless.
        if !new_key.exists() {
            files::remove_if_there(&new_certificate)?;
        }
        Ok(Recovered::Nothing)
    }

    /// Whether the pair is in place and fits.
    #[cfg(test)]
    fn is_complete(&self) -> bool {
        fits(&self.certificate, &self.key)
    }

    fn finish(&self) -> Result<()> {
        for target in [&self.certificate, &self.key] {
            let source = next(target);
            if source.exists() {
                fs::rename(&source, target).with_context(|| format!("cannot write {}", target.display()))?;
                files::sync_directory(target)?;
            }
        }
        files::remove_if_there(&self.request())?;
        files::sync_directory(&self.certificate)
    }

    fn request(&self) -> PathBuf {
        beside(&self.certificate, ".request")
    }
}

/// The first certificate of a PEM text.
pub(crate) fn first_certificate(pem: &[u8], what: &str) -> Result<Certificate> {
    let certificates = read_certificates(pem, 16).with_context(|| what.to_owned())?;
    let first = certificates.first().with_context(|| format!("{what} holds no certificate"))?;
    Certificate::from_der(first).with_context(|| what.to_owned())
}

fn fits(certificate: &Path, key: &Path) -> bool {
    let check = || -> Result<bool> {
        let certificate = first_certificate(&files::read(certificate, MAX_PEM)?, "")?;
        let key = SubjectKey::from_pkcs8_pem(&files::read_secret(key, MAX_PEM)?)?;
        Ok(certificate.tbs().spki_der() == key.public_key().spki_der())
    };
    check().unwrap_or(false)
}

fn next(path: &Path) -> PathBuf {
    beside(path, ".next")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use chancery_types::{Clock as _, KeyAlgorithm, SystemClock};
    use chancery_x509::{CertificateSpec, DistinguishedName, KeyUsages, Validity, assemble, write_pem};

    use super::*;

    fn key() -> SubjectKey {
        SubjectKey::generate(KeyAlgorithm::P256).unwrap()
    }

    /// A certificate for this key, signed by itself.
    fn certificate(key: &SubjectKey) -> String {
        let subject = DistinguishedName::common_name("test").unwrap();
        let now = SystemClock.now().whole_second();
        let names = ["spiffe://example.org/web".parse::<chancery_types::SpiffeId>().unwrap().into()];
        let tbs = CertificateSpec {
            serial: &[1; 16],
            signature_algorithm: key.signature_algorithm(),
            issuer: subject.der(),
            validity: Validity { not_before: now, not_after: now + std::time::Duration::from_secs(60) },
            subject: subject.clone(),
            public_key: key.public_key(),
            authority_key_id: None,
            names: &names,
            key_usages: KeyUsages::default(),
            extended_key_usages: &[],
            authority: None,
            name_constraints: None,
            crl_url: None,
            ocsp_url: None,
            ca_issuers_url: None,
            no_rev_avail: false,
            ocsp_nocheck: false,
        }
        .to_tbs_der();
        write_pem("CERTIFICATE", &assemble(&tbs, key.signature_algorithm(), &key.sign(&tbs).unwrap()))
    }

    fn files(directory: &tempfile::TempDir) -> CredentialFiles {
        CredentialFiles {
            certificate: directory.path().join("tls.crt"),
            key: directory.path().join("tls.key"),
            bundle: Some(directory.path().join("ca.crt")),
        }
    }

    fn prepare(files: &CredentialFiles, key: &SubjectKey) -> Pending {
        let csr = key.request(&DistinguishedName::empty(), &[]).unwrap();
        files.prepare(key, true, csr, "renew", IdempotencyKey::parse("k1").unwrap()).unwrap()
    }

    #[test]
    fn a_pair_is_installed_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let (files, key) = (files(&directory), key());
        prepare(&files, &key);
        files.install(&certificate(&key), &key, Some(b"roots")).unwrap();
        assert!(files.is_complete());
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["ca.crt", "tls.crt", "tls.key"]);
    }

    #[test]
    fn a_request_is_repeated_after_a_crash_only_if_it_asks_for_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let (files, key) = (files(&directory), key());
        let sent = prepare(&files, &key);
        let (again, pending) = files.resume("renew").unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(pending.csr.as_der(), sent.csr.as_der());
        assert_eq!(pending.idempotency, sent.idempotency);
        assert!(files.resume("renew for longer").is_none());
        files.give_up().unwrap();
        assert!(files.resume("renew").is_none());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_a_refusal_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let (files, key) = (files(&directory), key());
        prepare(&files, &key);
        let problem = |code| ClientError::Problem(Box::new(chancery_api::Problem::new(code, "")));
        files.refused(problem(ProblemCode::Internal));
        assert!(files.resume("renew").is_some());
        files.refused(problem(ProblemCode::CertificateRevoked));
        assert!(files.resume("renew").is_none());
    }

    #[test]
    fn a_crash_between_the_two_renames_is_mended_at_either_point() {
        for renamed in [0, 1] {
            let directory = tempfile::tempdir().unwrap();
            let files = files(&directory);
            let old = key();
            prepare(&files, &old);
            files.install(&certificate(&old), &old, None).unwrap();
            let new = key();
            prepare(&files, &new);
            files::replace(&next(&files.certificate), certificate(&new).as_bytes(), PUBLIC).unwrap();
            if renamed == 1 {
                fs::rename(next(&files.certificate), &files.certificate).unwrap();
                assert!(!files.is_complete());
            }
            assert_eq!(files.recover().unwrap(), Recovered::Finished);
            assert!(files.is_complete());
            let pem = fs::read(&files.key).unwrap();
            assert_eq!(SubjectKey::from_pkcs8_pem(&pem).unwrap().public_key(), new.public_key());
        }
    }

    #[test]
    fn a_request_under_way_leaves_the_old_pair_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(&directory);
        let old = key();
        prepare(&files, &old);
        files.install(&certificate(&old), &old, None).unwrap();
        prepare(&files, &key());
        assert_eq!(files.recover().unwrap(), Recovered::Nothing);
        assert!(files.is_complete());
        assert!(files.resume("renew").is_some());
    }

    #[test]
    fn refuses_a_certificate_for_another_key() {
        let directory = tempfile::tempdir().unwrap();
        let (files, key) = (files(&directory), key());
        prepare(&files, &key);
        let refused = files.install(&certificate(&self::key()), &key, None).unwrap_err().to_string();
        assert!(refused.contains("another key"), "{refused}");
        assert!(!files.certificate.exists());
    }
}
