//! Key custody: the Signer trait and its backends.
