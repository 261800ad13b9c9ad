//! Bringing an authority into the world: root, issuer, keys, configuration, ledger, first operator.
//!
//! ```text
//! one machine:   prepare -> make the root -> sign the issuer -> finish
//! two machines:  prepare (writes issuer.csr) ... root sign, elsewhere ... finish (imports the certificate)
//! ```
//! Nothing is ever overwritten. A step that fails leaves what it made, says what that is, and can be run again
//! after it was removed.

mod finish;
mod layout;
mod root;
mod root_crl;
mod spares;
mod succession;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use chancery_keys::KeyLocation;
use chancery_types::{Clock, Digest, KeyAlgorithm, Random, SecretString, TrustDomain};

pub use finish::{Finished, finish};
pub use layout::{Layout, Prepared, generated_passphrase, prepare};
pub(crate) use layout::{issuer_request, replace};
pub(crate) use root::ROOT_KEY;
pub use root::{RootMade, make_root, sign_issuer};
pub use root_crl::{RevokedIssuer, RootCrl, make_root_crl, read_list};
pub use spares::{SpareMade, add_spares};
pub(crate) use spares::{known_issuers, number as issuer_number};
pub use succession::{RootRotated, rotate_root};

use crate::config::{RawPostgres, ServerName};

/// What is asked of `chancery init`.
#[derive(Debug, Clone)]
pub struct InitPlan {
    /// Where the authority lives.
    pub directory: PathBuf,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// What the server answers to.
    pub names: Vec<ServerName>,
    /// The algorithm of root and issuer.
    pub algorithm: KeyAlgorithm,
    /// A PKCS#11 URI without `object` for the issuing keys; `None`: encrypted files.
    pub token: Option<String>,
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where status is served.
    pub status: SocketAddr,
    /// The URL under which others reach the API, where a balancer stands before it; `None`: by the first name.
    pub url: Option<String>,
    /// The base of the URLs that go into certificates, likewise.
    pub status_url: Option<String>,
    /// The database that holds the ledger, and more about it; `None`: a directory does.
    pub database: Option<(String, RawPostgres)>,
    /// Where the root's key is (to be) made, for the configuration to watch.
    pub root_key: Option<KeyLocation>,
}

/// Why an authority did not come into the world.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one already.
    #[error("{0} holds an authority already; init never runs twice: choose another directory")]
    Exists(PathBuf),
    /// The directory has no prepared authority.
    #[error(
        "{0} holds no authority that waits for its issuer certificate; run `chancery init --issuer-csr` first"
    )]
    NotPrepared(PathBuf),
    /// A file cannot be written or read.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        why: String,
    },
    /// A key cannot be made or opened.
    #[error("{purpose} key: {error}")]
    Key {
        /// Which.
        purpose: &'static str,
        /// Why not.
        error: chancery_keys::KeyError,
    },
    /// A key did not sign.
    #[error(transparent)]
    Sign(#[from] chancery_keys::SignError),
    /// A certificate or request cannot be used.
    #[error("{what} cannot be used: {why}")]
    Certificate {
        /// Which.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// No randomness.
    #[error(transparent)]
    Random(#[from] chancery_types::RandomError),
    /// The configuration that was written does not pass its own check.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The authority was made and does not open.
    #[error(transparent)]
    Open(#[from] crate::authority::OpenError),
    /// The first certificates were not made.
    #[error(transparent)]
    Authority(#[from] crate::authority::AuthorityError),
}

impl InitError {
    pub(crate) fn file(path: &std::path::Path, error: impl std::fmt::Display) -> Self {
        Self::File { path: path.display().to_string(), why: error.to_string() }
    }

    pub(crate) fn certificate(what: &'static str, error: impl std::fmt::Display) -> Self {
        Self::Certificate { what, why: error.to_string() }
    }
}

/// What an `init` on one machine made.
#[derive(Debug)]
pub struct InitReport {
    /// SHA-256 of the root certificate: what clients are given.
    pub root_fingerprint: Digest,
    /// The root's directory, meant to be carried away.
    pub root_directory: PathBuf,
    /// What was finished.
    pub finished: Finished,
}

/// Does it all on one machine.
///
/// # Errors
/// [`InitError`].
pub async fn init(
    plan: &InitPlan,
    root_directory: &std::path::Path,
    root_passphrase: &SecretString,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<InitReport, InitError> {
    let prepared = prepare(plan, random.as_ref())?;
    let now = clock.now();
    let root =
        make_root(root_directory, &plan.trust_domain, plan.algorithm, root_passphrase, random.as_ref(), now)?;
    let profile = prepared.layout.issuer_profile(&plan.trust_domain)?;
    let issuer =
        sign_issuer(root_directory, root_passphrase, &prepared.csr, &profile, None, random.as_ref(), now)?;
    let finished = finish(&plan.directory, &issuer, &[root.certificate], clock, random).await?;
    Ok(InitReport { root_fingerprint: root.fingerprint, root_directory: root_directory.to_owned(), finished })
}
