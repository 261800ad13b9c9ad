//! Recipients and identities: X25519 keys as age writes them, and the file key wrapped to one.

use std::fmt;
use std::str::FromStr;

use chancery_types::{Random, RandomError};
use data_encoding::BASE64_NOPAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
use zeroize::{Zeroize, Zeroizing};

use super::{AgeError, Stanza, bech32, derive};

/// Somebody whom a file can be encrypted to: `age1...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

/// The secret that opens what was encrypted to its recipient: `AGE-SECRET-KEY-1...`.
pub struct Identity(Zeroizing<[u8; 32]>);

/// A text is no key of age.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgeKeyError {
    /// It is no recipient.
    #[error("{0:?} is no recipient: it begins with age1, as `age-keygen` prints it")]
    Recipient(String),
    /// It is no identity; it is not repeated, because it may be nearly one.
    #[error("line {0} is no identity: it begins with AGE-SECRET-KEY-1, as `age-keygen` writes it")]
    Identity(usize),
    /// A file has none.
    #[error(
        "there is no identity in it: a line that begins with AGE-SECRET-KEY-1, as `age-keygen` writes it"
    )]
    NoIdentity,
}

impl FromStr for Recipient {
    type Err = AgeKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let key = bech32::decode("age", text).filter(|_| is_lower).map(Self);
        key.ok_or_else(|| AgeKeyError::Recipient(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&bech32::encode("age", &self.0))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity of {}", self.recipient())
    }
}

impl Identity {
    /// Makes one.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn generate(random: &dyn Random) -> Result<Self, RandomError> {
        let mut secret = Zeroizing::new([0; 32]);
        random.fill(&mut *secret)?;
        Ok(Self(secret))
    }

    /// Whom one encrypts to, to be read by this identity.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient(x25519(*self.0, X25519_BASEPOINT_BYTES))
    }

    /// The text of an identity file, as `age-keygen` writes it.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut secret = bech32::encode("age-secret-key-", &self.0);
        secret.make_ascii_uppercase();
        let text = Zeroizing::new(format!("# public key: {}\n{secret}\n", self.recipient()));
        secret.zeroize();
        text
    }
}

/// The identities in a file: one a line, empty lines and those that begin with `#` left out.
///
/// # Errors
/// [`AgeKeyError`].
pub fn read_identities(text: &str) -> Result<Vec<Identity>, AgeKeyError> {
    let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
    let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    let identity = |(line, number): (&str, usize)| {
        let is_upper = !line.bytes().any(|byte| byte.is_ascii_lowercase());
        let key = bech32::decode("age-secret-key-", line).filter(|_| is_upper);
        key.map(|key| Identity(Zeroizing::new(key))).ok_or(AgeKeyError::Identity(number))
    };
    let identities: Vec<Identity> = lines.map(identity).collect::<Result<_, _>>()?;
    if identities.is_empty() { Err(AgeKeyError::NoIdentity) } else { Ok(identities) }
}

const KIND: &str = "X25519";
const INFO: &[u8] = b"age-encryption.org/v1/X25519";

/// The file key, for this recipient's eyes.
pub(super) fn wrap(
    recipient: &Recipient,
    file_key: &[u8; 16],
    random: &dyn Random,
) -> Result<Stanza, RandomError> {
    let once = Identity::generate(random)?;
    let share = once.recipient().0;
    let secret = Zeroizing::new(x25519(*once.0, recipient.0));
    let mut body = file_key.to_vec();
    let sealed =
        cipher(&secret, &share, &recipient.0).seal_in_place_append_tag(NO_NONCE(), Aad::empty(), &mut body);
    sealed.expect("16 bytes are not too long for ChaCha20-Poly1305");
    Ok(Stanza { arguments: vec![KIND.to_owned(), BASE64_NOPAD.encode(&share)], body })
}

/// The file key, if this is a stanza for this identity.
pub(super) fn unwrap(identity: &Identity, stanza: &Stanza) -> Result<Option<Zeroizing<[u8; 16]>>, AgeError> {
    let [kind, arguments @ ..] = stanza.arguments.as_slice() else { return Ok(None) };
    if kind != KIND {
        return Ok(None);
    }
    let malformed = || AgeError::Header("a recipient's stanza is malformed");
    let [share] = arguments else { return Err(malformed()) };
    let share = BASE64_NOPAD.decode(share.as_bytes()).map_err(|_| malformed())?;
    let share: [u8; 32] = share.try_into().map_err(|_| malformed())?;
    let mut body: [u8; 32] = stanza.body.as_slice().try_into().map_err(|_| malformed())?;
    let secret = Zeroizing::new(x25519(*identity.0, share));
    if *secret == [0; 32] {
        return Err(AgeError::Header("a recipient's share is of low order"));
    }
    let cipher = cipher(&secret, &share, &identity.recipient().0);
    let opened = cipher.open_in_place(NO_NONCE(), Aad::empty(), &mut body);
    let key = opened.ok().and_then(|key| <[u8; 16]>::try_from(&*key).ok()).map(Zeroizing::new);
    body.zeroize();
    Ok(key)
}

/// Every key is used once, so the nonce may always be the same.
const NO_NONCE: fn() -> Nonce = || Nonce::assume_unique_for_key([0; 12]);

fn cipher(secret: &[u8; 32], share: &[u8; 32], recipient: &[u8; 32]) -> LessSafeKey {
    let key = derive(secret, &[*share, *recipient].concat(), INFO);
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &*key).expect("the key has 32 bytes"))
}
