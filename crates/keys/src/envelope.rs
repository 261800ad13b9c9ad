//! The key file's format: PKCS#8 in PEM, encrypted or not, with a few lines before it that say what it is.
//!
//! Encryption is PBES2 (RFC 8018 section 6.2) with scrypt (RFC 7914) N = 2^14, r = 8, p = 1 and AES-256-CBC: the
//! parameters that `openssl pkcs8 -topk8 -scrypt` uses and the largest N that OpenSSL opens without being told
//! a memory limit. One guess costs 16 MiB and some 40 ms of one core. Files from elsewhere may also use
//! PBKDF2 with HMAC-SHA-2 and AES-GCM.
//!
//! PBES2 with CBC does not authenticate, so decryption alone cannot tell a wrong passphrase from a damaged
//! file, and an Ed25519 seed with one bit flipped is another good key. The lines before the PEM block
//! (RFC 7468 section 2 lets readers pass over them) therefore carry the SHA-256 of the block's content and the
//! key's identifier. They find accidents, not attackers: whoever can write the file can write them too.

use std::fmt::Write as _;

use chancery_types::{Digest, Random, SecretString};
use der::{Decode, Encode};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::pbes2::{self, Kdf};
use pkcs8::pkcs5::{self, EncryptionScheme};
use zeroize::Zeroizing;

use crate::material::{KeyFormatError, PrivateKey};
use crate::pem::{self, PemError, PemLabel, PrivateKeyPem};

/// How a private key is kept where it rests. For a PKCS#11 key the passphrase is the token's PIN.
#[derive(Debug, Clone)]
pub enum Protection {
    /// Encrypted under this passphrase.
    Passphrase(SecretString),
    /// Not encrypted: file permissions are all that stands before it. An operator says so explicitly.
    Plain,
}

/// A key file's content cannot be used, or not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not the PEM of a private key.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A private key that is damaged or not supported.
    #[error(transparent)]
    Format(#[from] KeyFormatError),
    /// A private key, but not PKCS#8.
    #[error("a {0:?} block is not PKCS#8; import the key, which rewrites it")]
    ImportFirst(&'static str),
    /// The content is whole and this passphrase does not open it.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// Does not decrypt, and the file carries no digest that would tell why.
    #[error("wrong passphrase, or the file is damaged")]
    WrongPassphraseOrDamaged,
    /// The content is not what was written.
    #[error(
        "the file is damaged: its content does not match the SHA-256 that it carries; restore it from a copy"
    )]
    Damaged,
    /// The key is whole but not the one that the file says.
    #[error("the file says it holds key {expected} and it holds {actual}; restore it from a copy")]
    OtherKey {
        /// The identifier before the PEM block, hexadecimal.
        expected: String,
        /// The key's own identifier.
        actual: String,
    },
    /// Encrypted, and no passphrase was given.
    #[error("the key is encrypted; give its passphrase")]
    PassphraseNeeded,
    /// Not encrypted, and a passphrase was given: somebody believes it to be protected.
    #[error(
        "a passphrase was given but the key is not encrypted; encrypt it with \
         `openssl pkcs8 -topk8 -scrypt -in KEY -out NEW`, or say that it is plain"
    )]
    NotEncrypted,
    /// Too short a passphrase for a new file.
    #[error(
        "the passphrase has {0} characters; {MIN_PASSPHRASE} is the least, and a generated one is better"
    )]
    ShortPassphrase(usize),
    /// Encrypted in a way that we do not read.
    #[error(
        "the encryption is not supported ({0}); rewrite it with `openssl pkcs8 -topk8 -scrypt -in KEY -out NEW`"
    )]
    UnsupportedEncryption(String),
    /// The key derivation would take more than we give it.
    #[error("opening it would take {0}; such a file is refused")]
    TooCostly(String),
    /// No randomness for salt and initialisation vector.
    #[error("{0}")]
    Random(String),
}

/// A key taken out of its file.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) key: PrivateKey,
    /// The identifier that the file claims, when it claims one.
    identifier: Option<String>,
}

impl Opened {
    /// Compares the key's identifier with what the file says.
    pub(crate) fn check_identifier(&self, actual: &str) -> Result<(), EnvelopeError> {
        match &self.identifier {
            Some(expected) if expected != actual => {
                Err(EnvelopeError::OtherKey { expected: expected.clone(), actual: actual.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// The text of a new key file.
pub(crate) fn seal(
    key: &PrivateKey,
    algorithm: &str,
    identifier: &str,
    protection: &Protection,
    random: &dyn Random,
) -> Result<Zeroizing<String>, EnvelopeError> {
    let (label, body) = match protection {
        Protection::Passphrase(passphrase) => {
            (PemLabel::EncryptedPkcs8, encrypt(key.as_pkcs8_der(), passphrase, random)?)
        }
        Protection::Plain => (PemLabel::Pkcs8, Zeroizing::new(key.as_pkcs8_der().to_vec())),
    };
    let block = pem::encode(label, &body);
    let mut text = Zeroizing::new(String::with_capacity(block.len() + 512));
    write!(
        text,
        "Chancery private key\n{ALGORITHM}{algorithm}\n{IDENTIFIER}{identifier}\n{DIGEST}{}\n{}",
        Digest::of(&body),
        *block
    )
    .expect("writing to a string does not fail");
    Ok(text)
}

/// Takes the key out of a file that [`seal`] or another tool wrote as PKCS#8.
pub(crate) fn open(text: &[u8], protection: &Protection) -> Result<Opened, EnvelopeError> {
    let pem = PrivateKeyPem::parse(text)?;
    match pem.label {
        PemLabel::Pkcs8 | PemLabel::EncryptedPkcs8 => {}
        other => return Err(EnvelopeError::ImportFirst(other.as_str())),
    }
    unwrap(&pem, protection)
}

/// Takes the key out of any encoding that other tools write: PKCS#8, SEC 1, PKCS#1.
pub(crate) fn open_foreign(
    text: &[u8],
    passphrase: Option<&SecretString>,
) -> Result<PrivateKey, EnvelopeError> {
    let pem = PrivateKeyPem::parse(text)?;
    let protection = passphrase.cloned().map_or(Protection::Plain, Protection::Passphrase);
    Ok(unwrap(&pem, &protection)?.key)
}

fn unwrap(pem: &PrivateKeyPem<'_>, protection: &Protection) -> Result<Opened, EnvelopeError> {
    let digest = preamble_line(pem.preamble, DIGEST);
    if digest.is_some_and(|digest| digest != Digest::of(&pem.der).to_string()) {
        return Err(EnvelopeError::Damaged);
    }
    let key = match (pem.label, protection) {
        (PemLabel::EncryptedPkcs8, Protection::Passphrase(passphrase)) => decrypt(&pem.der, passphrase)
            .map_err(|error| match error {
                EnvelopeError::WrongPassphraseOrDamaged if digest.is_some() => EnvelopeError::WrongPassphrase,
                other => other,
            })?,
        (PemLabel::EncryptedPkcs8, Protection::Plain) => return Err(EnvelopeError::PassphraseNeeded),
        (_, Protection::Passphrase(_)) => return Err(EnvelopeError::NotEncrypted),
        (PemLabel::Pkcs8, Protection::Plain) => PrivateKey::from_pkcs8_der(&pem.der)?,
        (PemLabel::Sec1, Protection::Plain) => PrivateKey::from_sec1_der(&pem.der)?,
        (PemLabel::Pkcs1, Protection::Plain) => PrivateKey::from_pkcs1_der(&pem.der)?,
    };
    Ok(Opened { key, identifier: preamble_line(pem.preamble, IDENTIFIER).map(str::to_owned) })
}

fn encrypt(
    plain: &[u8],
    passphrase: &SecretString,
    random: &dyn Random,
) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    let characters = passphrase.expose_secret().chars().count();
    if characters < MIN_PASSPHRASE {
        return Err(EnvelopeError::ShortPassphrase(characters));
    }
    let mut salt = [0; 16];
    let mut iv = [0; 16];
    for buffer in [&mut salt, &mut iv] {
        random.fill(buffer).map_err(|error| EnvelopeError::Random(error.to_string()))?;
    }
    let parameters = pbes2::Parameters {
        kdf: Kdf::Scrypt(pbes2::ScryptParams {
            salt: pbes2::Salt::new(salt).expect("16 bytes are below the limit of 32"),
            cost_parameter: SCRYPT_N,
            block_size: SCRYPT_R,
            parallelization: SCRYPT_P,
            key_length: None,
        }),
        encryption: pbes2::EncryptionScheme::Aes256Cbc { iv },
    };
    let encrypted = parameters
        .encrypt(passphrase.expose_secret(), plain)
        .map_err(|error| EnvelopeError::UnsupportedEncryption(error.to_string()))?;
    let info = EncryptedPrivateKeyInfoRef {
        encryption_algorithm: EncryptionScheme::Pbes2(parameters),
        encrypted_data: der::asn1::OctetStringRef::new(&encrypted).expect("a key is a few kilobytes"),
    };
    Ok(Zeroizing::new(info.to_der().expect("a key is a few kilobytes")))
}

fn decrypt(der: &[u8], passphrase: &SecretString) -> Result<PrivateKey, EnvelopeError> {
    let info = EncryptedPrivateKeyInfoRef::from_der(der).map_err(|error| match error.kind() {
        der::ErrorKind::OidUnknown { oid } => {
            EnvelopeError::UnsupportedEncryption(format!("algorithm {oid}"))
        }
        _ => KeyFormatError::Malformed(error.to_string()).into(),
    })?;
    let EncryptionScheme::Pbes2(parameters) = info.encryption_algorithm else {
        return Err(EnvelopeError::UnsupportedEncryption("PBES1".to_owned()));
    };
    check_cost(&parameters.kdf)?;
    let mut buffer = Zeroizing::new(info.encrypted_data.as_bytes().to_vec());
    let plain =
        parameters.decrypt_in_place(passphrase.expose_secret(), &mut buffer).map_err(
            |error| match error {
                pkcs5::Error::DecryptFailed => EnvelopeError::WrongPassphraseOrDamaged,
                other => EnvelopeError::UnsupportedEncryption(other.to_string()),
            },
        )?;
    // A wrong passphrase leaves good padding behind once in 256 tries; what follows it is then noise.
    PrivateKey::from_pkcs8_der(plain).map_err(|error| match error {
        KeyFormatError::Malformed(_) => EnvelopeError::WrongPassphraseOrDamaged,
        other => other.into(),
    })
}

/// Refuses parameters that would hold the process for long or exhaust its memory, and those that the
/// derivation itself does not survive.
fn check_cost(kdf: &Kdf) -> Result<(), EnvelopeError> {
    match kdf {
        Kdf::Scrypt(scrypt) => {
            let n = scrypt.cost_parameter;
            if n < 2 || !n.is_power_of_two() || scrypt.block_size == 0 || scrypt.parallelization == 0 {
                return Err(EnvelopeError::UnsupportedEncryption(
                    "scrypt parameters that RFC 7914 forbids".to_owned(),
                ));
            }
            let memory = n.saturating_mul(u64::from(scrypt.block_size)).saturating_mul(128);
            let work = memory.saturating_mul(u64::from(scrypt.parallelization));
            if memory > MAX_SCRYPT_MEMORY || work > MAX_SCRYPT_WORK {
                return Err(EnvelopeError::TooCostly(format!(
                    "{} MiB of memory {} times (limits: {} MiB at once, {} MiB in all)",
                    memory >> 20,
                    scrypt.parallelization,
                    MAX_SCRYPT_MEMORY >> 20,
                    MAX_SCRYPT_WORK >> 20
                )));
            }
            Ok(())
        }
        Kdf::Pbkdf2(pbkdf2) if pbkdf2.iteration_count > MAX_PBKDF2_ITERATIONS => {
            Err(EnvelopeError::TooCostly(format!(
                "{} PBKDF2 iterations (limit: {MAX_PBKDF2_ITERATIONS})",
                pbkdf2.iteration_count
            )))
        }
        Kdf::Pbkdf2(_) => Ok(()),
        _ => Err(EnvelopeError::UnsupportedEncryption(format!("key derivation {}", kdf.oid()))),
    }
}

fn preamble_line<'a>(preamble: &'a str, name: &str) -> Option<&'a str> {
    preamble.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

const ALGORITHM: &str = "Key-Algorithm: ";
const IDENTIFIER: &str = "Key-Identifier: ";
const DIGEST: &str = "Content-SHA256: ";

const SCRYPT_N: u64 = 1 << 14;
const SCRYPT_R: u16 = 8;
const SCRYPT_P: u16 = 1;
/// 64 times the memory that our own files take.
const MAX_SCRYPT_MEMORY: u64 = 1 << 30;
/// Some ten seconds of one core.
const MAX_SCRYPT_WORK: u64 = 1 << 32;
/// More than ten times what OWASP asks of PBKDF2 with HMAC-SHA-256 (600,000).
const MAX_PBKDF2_ITERATIONS: u32 = 10_000_000;
/// NIST SP 800-63B section 5.1.1.2 asks for this many of a memorised secret.
const MIN_PASSPHRASE: usize = 8;
