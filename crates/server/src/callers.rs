//! Whether a client certificate counts at this moment, asked of the ledger's read model.

use std::fmt;
use std::sync::Arc;

use chancery_api::{Operation, ProblemCode};
use futures_util::FutureExt;

use crate::authority::Authority;
use crate::{CallerStatus, ClientCertificate, HttpProblem};

/// Asks the authority about every certificate that an operator shows. Holders are asked about where their
/// evidence is verified, which says more precisely what is wrong.
pub(crate) struct LedgerCallers(Arc<Authority>);

impl LedgerCallers {
    pub(crate) fn new(authority: Arc<Authority>) -> Self {
        Self(authority)
    }
}

impl fmt::Debug for LedgerCallers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LedgerCallers")
    }
}

impl CallerStatus for LedgerCallers {
    fn refusal(&self, certificate: &ClientCertificate, operation: Operation) -> Option<HttpProblem> {
        if operation == Operation::Renew {
            return None;
        }
        let leaf = certificate.chain().first()?;
        // The embedded read model answers at once; one that has to wait, or fails, is asked behind the gate, before any
        // handler.
        match self.0.caller(leaf).now_or_never() {
            Some(Ok(None)) => Some(not_accepted()),
            Some(Ok(Some(_)) | Err(_)) | None => None,
        }
    }
}

/// For a certificate that does not count.
pub(crate) fn not_accepted() -> HttpProblem {
    HttpProblem::new(
        ProblemCode::CertificateNotAccepted,
        "the client certificate is revoked or held, its identity is not active, or it was not issued here",
    )
}
