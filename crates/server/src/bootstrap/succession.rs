//! A root that follows another: made where the key of the old one is at hand.

use std::path::Path;
use std::time::Duration;

use chancery_keys::{Protection, store};
use chancery_types::{Digest, KeyAlgorithm, Random, SecretString, Timestamp};
use chancery_x509::{Certificate, DistinguishedName, PublicKey, Validity, VouchedRoot, write_pem};

use super::InitError;
use super::layout::write_new;
use super::root::{AuthoritySpec, BACKDATE, ROOT_PATH_LENGTH, key_location, new_root, read_root};

/// A root that was made to follow another.
#[derive(Debug)]
pub struct RootRotated {
    /// Its certificate, and the one by which the root before vouches for it.
    pub root: VouchedRoot,
    /// SHA-256 of its certificate.
    pub fingerprint: Digest,
    /// Until when the root before vouches for it.
    pub vouched_until: Timestamp,
}

/// Makes a root in an empty directory, and has the one in `old` vouch for it: relying parties that know only the old
/// one believe chains under the new one. `root.crt` is its certificate, and `vouched.crt` that with the old root's word.
///
/// # Errors
/// [`InitError`]; no root is ever touched, and without its certificate a new directory holds no root.
pub fn rotate_root(
    old: (&Path, &SecretString),
    new: (&Path, &SecretString),
    algorithm: KeyAlgorithm,
    random: &dyn Random,
    now: Timestamp,
) -> Result<RootRotated, InitError> {
    let (old_directory, old_passphrase) = old;
    let (directory, passphrase) = new;
    let failed = |error: &dyn std::fmt::Display| InitError::certificate("the root certificate", error);
    let elder = read_root(old_directory)?;
    let elder_signer =
        store::open(&key_location(old_directory), &Protection::Passphrase(old_passphrase.clone()))
            .map_err(|error| InitError::Key { purpose: "old root", error })?;
    if !elder.tbs().is_valid_at(now) {
        return Err(failed(&format!("the root in {} is not valid now", old_directory.display())));
    }
    let trust_domain =
        elder.tbs().spiffe_id().ok_or_else(|| failed(&"the old root names no trust domain"))?.trust_domain();
    // The younger of two is the one that begins later, in whole seconds.
    let now = now.max(elder.tbs().not_before() + BACKDATE + Duration::from_secs(1));
    let subject = next_name(&elder)?;
    let certificate = new_root(directory, &trust_domain, &subject, algorithm, passphrase, random, now)?;
    let tbs = certificate.tbs();
    let public_key = PublicKey::from_spki_der(tbs.spki_der()).map_err(|error| failed(&error))?;
    let vouched_until = tbs.not_after().min(elder.tbs().not_after());
    let not_before = (now.whole_second() - BACKDATE).max(elder.tbs().not_before());
    let voucher = AuthoritySpec {
        subject: &subject,
        public_key: &public_key,
        trust_domain: &trust_domain,
        validity: Validity { not_before, not_after: vouched_until },
        path_length: ROOT_PATH_LENGTH - 1,
        issuer: Some(&elder),
    }
    .sign(elder_signer.as_ref(), random, now)?;
    let root = VouchedRoot::from_certificates(vec![certificate, voucher]).map_err(|error| failed(&error))?;
    root.check(&trust_domain).map_err(|error| failed(&error))?;
    root.vouched_for_by(&elder).map_err(|error| failed(&error))?;
    let pem = write_pem("CERTIFICATE", root.certificate().der());
    let vouched =
        root.vouchers().iter().fold(pem.clone(), |text, one| text + &write_pem("CERTIFICATE", one.der()));
    write_new(&directory.join("vouched.crt"), vouched.as_bytes(), 0o644)?;
    // The certificate comes last: with it the directory counts as a root.
    write_new(&directory.join("root.crt"), pem.as_bytes(), 0o644)?;
    Ok(RootRotated { fingerprint: root.certificate().fingerprint(), vouched_until, root })
}

/// The name of the root that follows: `example.org Root` is followed by `example.org Root 2`.
///
/// A root that allows one authority below it, as early ones do, has no room for two names: the new one then has the
/// name of the old one, because a certificate whose issuer has its subject's name does not count (RFC 5280 section
/// 4.2.1.9).
fn next_name(elder: &Certificate) -> Result<DistinguishedName, InitError> {
    let tbs = elder.tbs();
    let failed = |error: &dyn std::fmt::Display| InitError::certificate("the root's name", error);
    let subject = DistinguishedName::from_der(tbs.subject_der()).map_err(|error| failed(&error))?;
    let is_narrow = tbs.basic_constraints().and_then(|constraints| constraints.path_length) == Some(1);
    let Some(name) = subject.common_name_text().filter(|_| !is_narrow) else { return Ok(subject) };
    let (stem, number) = match name.rsplit_once(' ') {
        Some((stem, number)) if number.parse::<u16>().is_ok() => (stem, number.parse().unwrap_or(1)),
        _ => (name.as_str(), 1_u16),
    };
    let ending = format!(" {}", number.saturating_add(1));
    let stem: String = stem.chars().take(64 - ending.len()).collect();
    DistinguishedName::common_name(&format!("{stem}{ending}")).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use chancery_types::{Clock as _, SystemClock, SystemRandom, TrustDomain};

    use super::super::make_root;
    use super::*;

    fn rotate(around: &Path, from: &str, to: &str) -> RootRotated {
        let passphrase = SecretString::new("a long passphrase".into());
        let (from, to) = (around.join(from), around.join(to));
        let (old, new) = ((from.as_path(), &passphrase), (to.as_path(), &passphrase));
        rotate_root(old, new, KeyAlgorithm::P256, &SystemRandom, SystemClock.now()).unwrap()
    }

    fn make(around: &Path) -> TrustDomain {
        let (trust_domain, passphrase) =
            ("example.org".parse().unwrap(), SecretString::new("a long passphrase".into()));
        let (random, now) = (SystemRandom, SystemClock.now());
        make_root(&around.join("1"), &trust_domain, KeyAlgorithm::P256, &passphrase, &random, now).unwrap();
        trust_domain
    }

    #[test]
    fn each_root_has_the_next_number_begins_later_and_keeps_the_word_for_it() {
        let around = tempfile::tempdir().unwrap();
        make(around.path());
        let mut before = read_root(&around.path().join("1")).unwrap();
        for number in 2..4 {
            let made = rotate(around.path(), &(number - 1).to_string(), &number.to_string());
            let root = made.root.certificate();
            assert_eq!(root.tbs().subject_text(), format!("CN=example.org Root {number}"));
            assert!(root.tbs().not_before() > before.tbs().not_before());
            assert!(made.root.vouched_for_by(&before).is_ok());
            let kept = std::fs::read(around.path().join(format!("{number}/vouched.crt"))).unwrap();
            let kept = chancery_x509::read_certificates(&kept, 2).unwrap().concat();
            assert_eq!(VouchedRoot::from_der(&kept).unwrap(), made.root);
            before = root.clone();
        }
    }

    #[test]
    fn a_root_without_room_is_followed_by_one_of_its_name() {
        let around = tempfile::tempdir().unwrap();
        let trust_domain = make(around.path());
        let directory = around.path().join("1");
        let wide = read_root(&directory).unwrap();
        let protection = Protection::Passphrase(SecretString::new("a long passphrase".into()));
        let signer = store::open(&key_location(&directory), &protection).unwrap();
        let tbs = wide.tbs();
        let narrow = AuthoritySpec {
            subject: &DistinguishedName::from_der(tbs.subject_der()).unwrap(),
            public_key: signer.public_key(),
            trust_domain: &trust_domain,
            validity: Validity { not_before: tbs.not_before(), not_after: tbs.not_after() },
            path_length: 1,
            issuer: None,
        };
        let narrow = narrow.sign(signer.as_ref(), &SystemRandom, SystemClock.now()).unwrap();
        std::fs::write(directory.join("root.crt"), write_pem("CERTIFICATE", narrow.der())).unwrap();
        let made = rotate(around.path(), "1", "2");
        assert_eq!(made.root.certificate().tbs().subject_der(), tbs.subject_der());
        assert!(made.root.vouched_for_by(&narrow).is_ok());
    }
}
