//! The HTTP interface seen from the other side of the wire: TLS, retries, typed errors.
