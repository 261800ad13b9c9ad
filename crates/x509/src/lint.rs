//! Lints over the exact bytes that are about to be signed.
//!
//! Everything before this point (policy, profile, the encoder) may have a fault; what the authority must not do
//! is sign its result. So the TBSCertificate is read back from its bytes, as a relying party will read it, and
//! held against the standards and against the profile it was made under. An error-level finding stops issuance.
//! The auditor runs the same lints over what the ledger recorded.
//!
//! [`ALL`] is the catalogue: every rule has an id, a source and a test that breaks it.

mod baseline;
mod canonical;
mod catalog;
mod crl;
mod examined;
mod own;
mod rfc5280;
mod rfc5280_names;
mod spiffe;
mod status;

use std::fmt;

use chancery_types::{Timestamp, TrustDomain};

pub use catalog::ALL;
pub use crl::{CRL_LINTS, CrlLint, CrlLintContext, check_crl};
use examined::Examined;

use crate::{Certificate, DistinguishedName, Profile, StatusUrls};

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A standard says SHOULD, or relying parties are known to differ: issued, and counted.
    Warning,
    /// Must not be signed.
    Error,
}

/// One rule.
pub struct Lint {
    /// Its name in reports and in the ledger: `source_rule`, never reused.
    pub id: &'static str,
    /// Where the rule stands.
    pub source: &'static str,
    /// What breaking it means.
    pub severity: Severity,
    /// Says how the certificate breaks the rule, if it does.
    check: fn(&Examined<'_>) -> Option<String>,
}

impl fmt::Debug for Lint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.id)
    }
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule's id.
    pub id: &'static str,
    /// Where the rule stands.
    pub source: &'static str,
    /// What breaking it means.
    pub severity: Severity,
    /// How it is broken.
    pub detail: String,
}

impl Finding {
    fn of(lint: &Lint, detail: String) -> Self {
        Self { id: lint.id, source: lint.source, severity: lint.severity, detail }
    }

    /// Whether it forbids signing.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}): {}", self.id, self.source, self.detail)
    }
}

/// What a certificate is held against.
#[derive(Debug, Clone, Copy)]
pub struct LintContext<'a> {
    /// The profile it is made under.
    pub profile: &'a Profile,
    /// The certificate of the key that will sign.
    pub issuer: &'a Certificate,
    /// The trust domain of this authority.
    pub trust_domain: &'a TrustDomain,
    /// The moment of issuance; for an audit, the moment that the ledger recorded.
    pub now: Timestamp,
    /// The URLs that it must carry, where its profile asks for them.
    pub urls: StatusUrls<'a>,
    /// The subject it must have, under a profile whose subject is given.
    pub subject: Option<&'a DistinguishedName>,
}

/// Runs every lint over a TBSCertificate; an empty answer means that it may be signed.
#[must_use]
pub fn check(tbs_der: &[u8], context: &LintContext<'_>) -> Vec<Finding> {
    run(tbs_der, |tbs| Examined::issued(tbs, context))
}

/// Runs the lints that make sense for a root, which has neither an issuer above it nor a profile.
#[must_use]
pub fn check_root(tbs_der: &[u8], trust_domain: &TrustDomain, now: Timestamp) -> Vec<Finding> {
    run(tbs_der, |tbs| Examined::root(tbs, trust_domain, now))
}

fn run<'a>(tbs_der: &'a [u8], examine: impl FnOnce(crate::TbsView<'a>) -> Examined<'a>) -> Vec<Finding> {
    let tbs = match crate::TbsView::from_der(tbs_der) {
        Ok(tbs) => tbs,
        Err(error) => return vec![Finding::of(catalog::STRUCTURE, error.to_string())],
    };
    let examined = examine(tbs);
    let broken = |lint: &'static Lint| (lint.check)(&examined).map(|detail| Finding::of(lint, detail));
    ALL.iter().filter_map(broken).collect()
}

#[cfg(test)]
pub(crate) mod tests;
