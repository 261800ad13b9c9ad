//! TLS in and TLS out for programs that cannot: who a peer is, whether it may, and whether it still may.
//!
//! The proxy takes its credentials from a Workload API or from files, and its knowledge of what is revoked from the
//! status feed, as `chancery-verify` does for programs that can. It ends connections of peers that are not good any
//! more. It never sees the authority's keys.
