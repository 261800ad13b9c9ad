//! What comes out of a decision about a certificate.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chancery_attest::Attested;
use chancery_types::{HumanDuration, Identity, SubjectName};
use chancery_x509::Profile;
use serde::{Deserialize, Serialize};

use crate::{DecisionReceipt, RequestedKey};

/// Grant, reduce or deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As asked.
    Grant,
    /// Less than asked.
    Reduce,
    /// Nothing.
    Deny,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Grant => "grant",
            Self::Reduce => "reduce",
            Self::Deny => "deny",
        })
    }
}

/// A decision about a certificate.
#[derive(Debug)]
pub enum Decision {
    /// It may be made, exactly so.
    Approved(Box<Approved>),
    /// It may not.
    Refused(Box<Refused>),
}

/// What was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The names, all of them the identity's.
    pub names: Vec<SubjectName>,
    /// How long.
    pub lifetime: HumanDuration,
    /// What is less than was asked for, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reductions: Vec<Reduction>,
}

/// Something that was granted in part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduction {
    /// What: `lifetime`.
    pub what: String,
    /// What was asked for.
    pub asked: String,
    /// What was granted.
    pub granted: String,
    /// Who decided: the profile, the identity, or a policy by its id.
    pub because: String,
}

/// Leave to make one certificate: for this evidence, identity, profile, key, these names and this lifetime.
///
/// Only [`crate::Engine::decide_issue`] makes one. It cannot be cloned, so one decision makes at most one
/// certificate.
#[derive(Debug)]
pub struct Approved {
    attested: Attested,
    identity: Arc<Identity>,
    profile: Arc<Profile>,
    grant: Grant,
    receipt: DecisionReceipt,
}

impl Approved {
    pub(crate) fn new(
        attested: Attested,
        identity: Arc<Identity>,
        profile: Arc<Profile>,
        grant: Grant,
        receipt: DecisionReceipt,
    ) -> Self {
        Self { attested, identity, profile, grant, receipt }
    }

    /// What was proved; its obligations (a token to spend, a lineage to continue) are to be committed together
    /// with the certificate.
    #[must_use]
    pub fn attested(&self) -> &Attested {
        &self.attested
    }

    /// Whose certificate it is.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The profile that it is made under.
    #[must_use]
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// The names that it carries: these, in this order, and no others.
    #[must_use]
    pub fn names(&self) -> &[SubjectName] {
        &self.grant.names
    }

    /// How long it lives from now, in whole seconds.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.grant.lifetime.0
    }

    /// The only key that it may be made for.
    #[must_use]
    pub fn key(&self) -> RequestedKey {
        self.receipt.inputs.requested.key
    }

    /// What is less than was asked for, for the reply.
    #[must_use]
    pub fn reductions(&self) -> &[Reduction] {
        &self.grant.reductions
    }

    /// The receipt, which the ledger keeps beside the certificate.
    #[must_use]
    pub fn receipt(&self) -> &DecisionReceipt {
        &self.receipt
    }
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The stable code.
    pub code: RefusalCode,
    /// For people.
    pub reason: String,
    /// The smallest change that would permit it, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smallest_change: Option<String>,
    /// Whether the policies could not be evaluated: somebody should be woken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alarm: bool,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), smallest_change: None, alarm: false }
    }
}

/// A refused request.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The receipt, which the ledger keeps.
    pub receipt: DecisionReceipt,
}

macro_rules! refusal_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a certificate was refused, in a form for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum RefusalCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl RefusalCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The text form.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

refusal_codes! {
    /// The identity is held.
    IdentityHeld = "identity-held",
    /// The identity is retired.
    IdentityRetired = "identity-retired",
    /// The identity has expired, or would before the shortest lifetime is over.
    IdentityExpired = "identity-expired",
    /// The identity has no owner.
    NoOwner = "no-owner",
    /// The evidence is evidence of another identity, or of none.
    EvidenceOfAnother = "evidence-of-another",
    /// The evidence is good for another key only.
    KeyNotBound = "key-not-bound",
    /// The evidence is worth less than the identity or the profile demands.
    AssuranceTooLow = "assurance-too-low",
    /// The identity may not use the profile.
    ProfileNotAllowed = "profile-not-allowed",
    /// Certificates of this profile are not renewed.
    NotRenewable = "not-renewable",
    /// A name is not the identity's.
    NameNotOwned = "name-not-owned",
    /// The profile does not take the names.
    NameNotInProfile = "name-not-in-profile",
    /// Identity or profile does not allow keys of this kind.
    KeyNotAllowed = "key-not-allowed",
    /// The lifetime asked for is shorter than the profile gives.
    LifetimeTooShort = "lifetime-too-short",
    /// The policies do not permit it.
    PolicyDenied = "policy-denied",
    /// The policies could not be evaluated.
    PolicyError = "policy-error",
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
