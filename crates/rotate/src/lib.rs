//! When credentials are replaced: pure plans, made of plain values.
//!
//! [`client`] plans for the one who holds credentials and has to renew them in time; [`authority`] for the authority,
//! whose own keys and certificates follow each other. Nothing here reads a clock, draws a random number or speaks to
//! anybody: a plan is computed from what is held and from `now`, every decision in it says why, and whoever asked for
//! it carries it out. It trusts its caller's values, and the suggestions of the authority only as far as no credential
//! comes to an end by them.

pub mod authority;
pub mod client;
