//! Key custody: the private keys of the authority behind one [`Signer`] trait.
//!
//! A signing key is made, found or brought in through [`store`], which turns a [`KeyLocation`] and a
//! [`Protection`] into an `Arc<dyn Signer>`. Behind it stand three custodians: an encrypted PKCS#8 file whose
//! key is held in this process, a PKCS#11 token whose key never leaves it, and [`EphemeralSigner`], a
//! throw-away key in memory for lints and tests.
//!
//! What this crate is not: it does not decide what may be signed, does not know certificates, and does not
//! remember what it signed; `issue` and `revoke` do, and call it. It trusts the file system's owner and
//! permission bits, the PKCS#11 module that the operator names (code that runs in this process), *ring* for
//! every signature in software, and the operating system's random source. Nothing secret implements `Display`
//! or serialisation, and `Debug` of a signer shows its public half alone.

pub mod age;
mod envelope;
mod ephemeral;
mod file;
mod location;
mod material;
mod pem;
mod pkcs11;
mod secret_file;
mod signer;
mod software;
pub mod store;
mod uri;

pub use envelope::{EnvelopeError, Protection};
pub use ephemeral::EphemeralSigner;
pub use file::FileError;
pub use location::{KeyLocation, LocationError};
pub use material::KeyFormatError;
pub use pem::PemError;
pub use pkcs11::TokenError;
pub use secret_file::{SecretFileError, read as read_secret_file, read_secret};
pub use signer::{Custody, SignError, SignErrorKind, Signer};
pub use store::KeyError;
pub use uri::{Pkcs11Uri, UriError};
