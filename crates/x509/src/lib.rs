//! X.509 in and out as exact DER: requests, certificates, revocation lists, OCSP, profiles and lints.
