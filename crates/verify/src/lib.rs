//! For relying parties and auditors: chains, receipts and whole logs, verified by somebody who trusts nobody.
