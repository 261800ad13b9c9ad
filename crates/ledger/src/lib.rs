//! The one way to change durable state: an append-only, provable ledger and the read model over it.
