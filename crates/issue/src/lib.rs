//! The one issuance workflow: prepare, lint, record, sign, compare.
