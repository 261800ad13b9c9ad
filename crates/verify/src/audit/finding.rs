//! What an audit found: each thing by its kind, its place and, where there is one, its certificate.

use std::collections::BTreeMap;
use std::fmt;

use chancery_types::SerialNumber;
use serde::{Serialize, Serializer};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing, and nothing wrong: a promised certificate that was never signed, say.
    Notice,
    /// Something could not be checked, or is unusual.
    Warning,
    /// The log, or the export of it, is not what it claims to be.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// The enum of checks: variant, stable name, severity of a finding, meaning.
macro_rules! checks {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $severity:ident;)*) => {
        /// What was checked. The names are stable: scripts may depend on them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Check {
            $($(#[$doc])* $variant,)*
        }

        impl Check {
            /// All of them, in the order in which they are documented.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What a finding of this check weighs.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$variant => Severity::$severity,)*
                }
            }
        }
    };
}

checks! {
    /// A line or file of the export cannot be read.
    ExportDamaged = "export-damaged", Error;
    /// The export's bytes are not those that were written.
    ExportDigest = "export-digest", Error;
    /// The export has no end, or is a selection: what is missing could not be checked.
    ExportIncomplete = "export-incomplete", Error;
    /// The export's header does not say what the log says.
    HeaderMismatch = "header-mismatch", Error;
    /// The readable view beside an entry does not say what the entry says.
    ViewMismatch = "view-mismatch", Error;
    /// An entry does not have the leaf hash that stands beside it.
    LeafHash = "leaf-hash", Error;
    /// Indexes are not dense: an entry is missing, repeated or out of place.
    Index = "index", Error;
    /// An entry's bytes are not an entry.
    Entry = "entry", Error;
    /// The checkpoint is not signed by the log's key.
    CheckpointSignature = "checkpoint-signature", Error;
    /// A key of the log follows another without being vouched for by it.
    LogKey = "log-key", Error;
    /// The log's key came with the export instead of from the auditor.
    KeyNotPinned = "key-not-pinned", Warning;
    /// The checkpoint covers another number of entries than the export has.
    TreeSize = "tree-size", Error;
    /// The entries do not hash to the checkpoint's root.
    TreeRoot = "tree-root", Error;
    /// The log is not an extension of the one that the auditor saw earlier.
    Consistency = "consistency", Error;
    /// The log does not begin as a log of this authority does.
    Genesis = "genesis", Error;
    /// An entry is dated before earlier ones.
    TimeOrder = "time-order", Warning;
    /// A root was brought for which no root before it vouches, or that is none of this trust domain.
    RootUnvouched = "root-unvouched", Error;
    /// An issuer's certificate cannot be read, repeats an epoch, or is not signed by the root.
    IssuerCertificate = "issuer-certificate", Error;
    /// An issuer's certificate was not issued by the root itself; its chain was not checked.
    IssuerChain = "issuer-chain", Warning;
    /// A certificate was promised for an issuer that did not sign at that time.
    IssuerInactive = "issuer-inactive", Error;
    /// A TBSCertificate cannot be read.
    Tbs = "tbs", Error;
    /// A TBSCertificate does not say what its entry says.
    TbsMismatch = "tbs-mismatch", Error;
    /// A profile's text does not have the hash under which it is recorded.
    ProfileHash = "profile-hash", Error;
    /// A profile's text cannot be read by this program: certificates under it are not linted.
    ProfileText = "profile-text", Warning;
    /// A certificate was promised under a profile that was not in force before.
    ProfileUnknown = "profile-unknown", Error;
    /// A TBSCertificate breaks a rule of its profile or of RFC 5280.
    Lint = "lint", Error;
    /// A TBSCertificate is not as a standard advises.
    LintAdvice = "lint-advice", Warning;
    /// A signature does not belong to the recorded TBSCertificate and issuer.
    CertificateSignature = "certificate-signature", Error;
    /// A certificate was promised, and no signature is known: a crash, a refusal by the key, or a secret.
    Unsigned = "unsigned", Notice;
    /// Two certificates have the same serial or counter.
    SerialReuse = "serial-reuse", Error;
    /// A join token was spent that did not exist, was spent already, was withdrawn, or had ended.
    TokenSpend = "token-spend", Error;
    /// A spent join token and the certificate that it bought do not belong together.
    TokenBinding = "token-binding", Error;
    /// The generations of a lineage do not rise one by one.
    LineageGeneration = "lineage-generation", Error;
    /// A held lineage was renewed, or a lineage changed its identity.
    LineageState = "lineage-state", Error;
    /// A certificate was promised to an identity that was held or retired.
    IdentityInactive = "identity-inactive", Error;
    /// A certificate was promised to an identity that was never registered.
    IdentityUnknown = "identity-unknown", Error;
    /// A certificate or lineage was revoked, held or released that does not exist or was not in that state.
    Revocation = "revocation", Error;
    /// A certificate was tidied away that was never issued, or had not ended.
    Tidied = "tidied", Error;
    /// A change to many certificates is recorded in a way that cannot be read, or goes on without having been asked for.
    ChangeRecord = "change-record", Error;
    /// A change to many certificates ran without the approval that it needed, or did more than was approved.
    ChangeUnapproved = "change-unapproved", Error;
    /// A local administrator dispensed with the approval that a change needed.
    ChangeOverridden = "change-overridden", Warning;
    /// Very many certificates were revoked or held by one hand, and not as a change.
    ChangeOutside = "change-outside", Warning;
    /// A revocation list cannot be read or is not signed by its issuer.
    CrlSignature = "crl-signature", Error;
    /// The numbers of an issuer's revocation lists do not rise, or a list is not the one that is recorded.
    CrlRecord = "crl-record", Error;
    /// A version of the exact set does not follow the one recorded before it, or does not say what the log said.
    StatusSetRecord = "status-set-record", Error;
    /// A version of the exact set cannot be made from the log, which moved on while it was made.
    StatusSetUnclear = "status-set-unclear", Warning;
    /// No revocation list came with the export for an issuer that has certificates to check.
    CrlAbsent = "crl-absent", Warning;
    /// A revoked certificate is not on its issuer's list.
    CrlMissing = "crl-missing", Error;
    /// A certificate is on the list that the log does not know as revoked or held.
    CrlExtra = "crl-extra", Error;
    /// The list states another reason or date than the log.
    CrlMismatch = "crl-mismatch", Error;
    /// A list and the log differ because a certificate changed its state while the list was made.
    CrlLag = "crl-lag", Notice;
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// What was checked.
    pub check: Check,
    /// The entry, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The certificate, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<SerialNumber>,
    /// What is wrong, with the field or byte where that is known.
    pub detail: String,
}

impl Finding {
    pub(crate) fn new(check: Check, detail: impl Into<String>) -> Self {
        Self { severity: check.severity(), check, index: None, serial: None, detail: detail.into() }
    }

    pub(crate) fn at(self, index: u64) -> Self {
        Self { index: Some(index), ..self }
    }

    pub(crate) fn of(self, serial: SerialNumber) -> Self {
        Self { serial: Some(serial), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.severity, self.check)?;
        if let Some(index) = self.index {
            write!(formatter, " entry {index}")?;
        }
        if let Some(serial) = self.serial {
            write!(formatter, " serial {serial}")?;
        }
        write!(formatter, ": {}", self.detail)
    }
}

/// All that was found: counted without end, kept up to a limit for each check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Findings {
    counts: BTreeMap<Check, u64>,
    kept: Vec<Finding>,
    #[serde(skip)]
    limit: usize,
}

impl Findings {
    pub(crate) fn with_limit(limit: usize) -> Self {
        Self { counts: BTreeMap::new(), kept: Vec::new(), limit }
    }

    pub(crate) fn push(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.check).or_default();
        *count += 1;
        if *count <= self.limit as u64 {
            self.kept.push(finding);
        }
    }

    /// Findings in the order of the log; those about no entry come first.
    pub(crate) fn sort(&mut self) {
        self.kept.sort_by_key(|finding| (finding.index, std::cmp::Reverse(finding.severity)));
    }

    /// The findings that were kept.
    #[must_use]
    pub fn list(&self) -> &[Finding] {
        &self.kept
    }

    /// How often each check found something, also beyond what was kept.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<Check, u64> {
        &self.counts
    }

    /// How many findings have this weight.
    #[must_use]
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts.iter().filter(|(check, _)| check.severity() == severity).map(|(_, count)| count).sum()
    }

    /// How many findings were counted and not kept.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        self.counts.values().sum::<u64>() - self.kept.len() as u64
    }

    /// Whether nothing is wrong: no error.
    #[must_use]
    pub fn are_clean(&self) -> bool {
        self.count(Severity::Error) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_checks_are_unique_and_kebab_case() {
        let mut names: Vec<&str> = Check::ALL.iter().map(|check| check.as_str()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Check::ALL.len());
    }

    #[test]
    fn counts_everything_and_keeps_up_to_the_limit_of_each_check() {
        let mut findings = Findings::with_limit(2);
        for index in (0..5).rev() {
            findings.push(Finding::new(Check::Unsigned, "x").at(index));
        }
        assert!(findings.are_clean());
        findings.push(Finding::new(Check::TreeRoot, "y"));
        findings.sort();
        assert_eq!((findings.list().len(), findings.suppressed(), findings.are_clean()), (3, 3, false));
        assert_eq!(findings.list()[0].check, Check::TreeRoot);
        assert_eq!(findings.counts()[&Check::Unsigned], 5);
    }
}
