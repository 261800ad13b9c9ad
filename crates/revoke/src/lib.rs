//! Revokes, holds and publishes status: one CRL and OCSP, from one ledger order.
