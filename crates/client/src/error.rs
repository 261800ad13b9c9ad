//! What can go wrong between asking and having the answer, by whose fault it is.

use std::time::Duration;

use chancery_api::{Problem, ProblemCode};
use chancery_types::{Digest, RandomError};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server answered, and refuses.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// Nobody listens, or the way there is closed.
    #[error("cannot connect to {endpoint}: {source}; check the address and that the server runs")]
    Connect {
        /// Where to.
        endpoint: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no secure connection: the server is not who it should be, or does not accept who we are.
    #[error("cannot make a secure connection to {endpoint}: {source}; check the trust bundle and the names")]
    Tls {
        /// Where to.
        endpoint: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("no {what} from {endpoint} within {after:?}")]
    Timeout {
        /// Where from.
        endpoint: String,
        /// What did not come.
        what: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection broke while the request was on its way.
    #[error("the connection to {endpoint} broke: {source}")]
    Broken {
        /// Where to.
        endpoint: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// Something answered that is not this server: a proxy, another program.
    #[error(
        "{endpoint} answered {status} without a problem document: {excerpt:?}; is this the right address?"
    )]
    Unexpected {
        /// Who.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// How the body begins.
        excerpt: String,
    },
    /// The answer is larger than we are willing to hold.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The answer is not what this version understands.
    #[error("cannot read the answer to {operation}: {source}; the server may be of another version")]
    Decode {
        /// The operation's name.
        operation: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The request cannot be written down: a mistake in the program that calls.
    #[error("cannot write the request for {operation}: {detail}")]
    Encode {
        /// The operation's name.
        operation: &'static str,
        /// Why.
        detail: String,
    },
    /// What to trust is unusable.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No randomness for a key or a delay.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl ClientError {
    /// The problem's code, when the server refused with one that this version knows.
    #[must_use]
    pub fn code(&self) -> Option<ProblemCode> {
        match self {
            Self::Problem(problem) => problem.known_code(),
            _ => None,
        }
    }

    /// One word for traces and counters.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Problem(_) => self.code().map_or("problem", ProblemCode::as_str),
            Self::Connect { .. } => "connect",
            Self::Tls { .. } => "tls",
            Self::Timeout { .. } => "timeout",
            Self::Broken { .. } => "broken",
            Self::Unexpected { .. } => "unexpected",
            Self::TooLarge { .. } => "too-large",
            Self::Decode { .. } => "decode",
            Self::Encode { .. } => "encode",
            Self::Trust(_) => "trust",
            Self::Random(_) => "random",
        }
    }
}

/// Why trust anchors or a client identity cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The PEM cannot be read.
    #[error("the {what} is not readable PEM: {detail}")]
    Pem {
        /// Which file.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// The PEM has nothing of the kind.
    #[error("the {0} has no certificate in it")]
    Empty(&'static str),
    /// A root is not a certificate that can be an anchor.
    #[error("a root in the trust bundle cannot be used: {0}")]
    Anchor(rustls::Error),
    /// The key does not fit the certificate, or is of a kind that is not supported.
    #[error("the client certificate and its key cannot be used together: {0}")]
    Identity(rustls::Error),
    /// The server's bundle has no root with the fingerprint that we were given.
    #[error(
        "none of the {count} roots that the server shows has the fingerprint {expected}; \
         this is not the authority you were told about, or its root was replaced: ask for the new fingerprint"
    )]
    Fingerprint {
        /// What we were given.
        expected: Digest,
        /// How many roots were shown.
        count: usize,
    },
    /// A fingerprint pins a TLS connection; a socket has none.
    #[error("a root fingerprint makes sense for https:// only")]
    FingerprintOnSocket,
}
