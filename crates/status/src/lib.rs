//! The exact set: which certificates are not good, in a byte or two each, signed, with deltas between versions.
//!
//! Written by the authority, read by relying parties, who look serial numbers up in the bytes as they lie. Pure:
//! no network, no clock, no files. What it reads is hostile until its signature was verified.
