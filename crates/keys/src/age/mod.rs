//! Files encrypted to a recipient in the age format, version 1 (<https://age-encryption.org/v1>), so that `age` and
//! its kin open what is written here, and the other way round.
//!
//! What for: a backup is encrypted to somebody who is not there, so that whoever takes it learns nothing and cannot
//! change it unseen. Recipients are X25519 keys alone: no passphrases, no plugins, no armour. The primitives are
//! *ring*'s and `x25519-dalek`'s; what is here is the format, judged by the vectors of C2SP and by `age` itself.

mod bech32;
mod header;
mod key;
mod stream;

use std::io::{self, BufReader, Read, Write};

use chancery_types::{Random, RandomError};
use zeroize::Zeroizing;

pub use key::{AgeKeyError, Identity, Recipient, read_identities};
pub use stream::{Decryptor, Encryptor};

use header::{Header, Stanza};
use stream::NONCE;

/// Why a file is not decrypted.
#[derive(Debug, thiserror::Error)]
pub enum AgeError {
    /// Its beginning is not that of an age file.
    #[error("not an age file, or a damaged one: {0}")]
    Header(&'static str),
    /// None of the identities is one that it was encrypted to.
    #[error(
        "it was encrypted to another key ({recipients} recipients, none of them is ours); name the right identity file"
    )]
    NotForUs {
        /// How many it names.
        recipients: usize,
    },
    /// Somebody changed its beginning.
    #[error("its header was altered: the authentication code does not fit")]
    Altered,
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Encrypts to each of these recipients; what is written to the result goes encrypted to `output`, and is whole once
/// [`Encryptor::finish`] was called.
///
/// # Errors
/// [`AgeError::Io`], [`AgeError::Random`].
pub fn encrypt<W: Write>(
    recipients: &[Recipient],
    random: &dyn Random,
    mut output: W,
) -> Result<Encryptor<W>, AgeError> {
    let mut file_key = Zeroizing::new([0; 16]);
    random.fill(&mut *file_key)?;
    let mut header = Header::default();
    for recipient in recipients {
        header.stanzas.push(key::wrap(recipient, &file_key, random)?);
    }
    output.write_all(header.seal(&file_key).as_bytes())?;
    let mut nonce = [0; NONCE];
    random.fill(&mut nonce)?;
    output.write_all(&nonce)?;
    Ok(Encryptor::new(&file_key, &nonce, output))
}

/// Opens a file with the first of these identities that it was encrypted to. What is read from the result is
/// authentic, and whole once it ended without an error.
///
/// # Errors
/// [`AgeError`].
pub fn decrypt<R: Read>(identities: &[Identity], input: R) -> Result<Decryptor<BufReader<R>>, AgeError> {
    let mut input = BufReader::with_capacity(128 << 10, input);
    let (header, authenticated, code) = Header::read(&mut input)?;
    let mut file_key = None;
    for identity in identities {
        for stanza in &header.stanzas {
            file_key = match file_key {
                None => key::unwrap(identity, stanza)?,
                found => found,
            };
        }
    }
    let recipients = header.stanzas.len();
    let file_key = file_key.ok_or(AgeError::NotForUs { recipients })?;
    header::verify(&file_key, &authenticated, &code)?;
    let mut nonce = [0; NONCE];
    let cut = |_| AgeError::Header("it ends before its content");
    input.read_exact(&mut nonce).map_err(cut)?;
    Ok(Decryptor::new(&file_key, &nonce, input)?)
}

/// HKDF-SHA-256 with 32 bytes of output.
fn derive(secret: &[u8], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    use ring::hkdf::{HKDF_SHA256, Salt};
    let mut key = Zeroizing::new([0; 32]);
    let extracted = Salt::new(HKDF_SHA256, salt).extract(secret);
    let info = [info];
    let expanded = extracted.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(&mut *key));
    expanded.expect("32 bytes are what HKDF-SHA-256 gives at least");
    key
}
