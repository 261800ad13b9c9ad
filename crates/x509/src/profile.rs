//! Certificate profiles: the ceilings of every kind of certificate that this authority issues.
//!
//! A profile is a TOML file that a person wrote and reviewed. It says how long such a certificate may live, what
//! keys and names it may have and which extensions it carries; policy may give less, nothing gives more. The
//! exact text is kept, because its hash is what the ledger records beside every certificate issued under it.
//!
//! [`Profile::from_toml`] reports every mistake in the file at once. There is no I/O here: whoever reads the
//! directory hands in texts.

mod names;
mod problem;
mod raw;
mod specify;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chancery_types::{
    AssuranceLevel, Digest, KeyAlgorithm, Sensitivity, SubjectName, Timestamp, TrustDomain,
};

pub use names::{NameForm, NameRefusal, NameRules, UriKind};
pub use problem::{Problem, ProfileError, ProfilesError};
pub(crate) use specify::bare_text;
pub use specify::{Issuance, SpecifyError, StatusUrls};

use crate::extension::BasicConstraints;
use crate::name_constraints::NameConstraints;
use crate::spec::Validity;
use crate::usage::{ExtendedKeyUsage, KeyUsages};

/// What a certificate is for. The profile's name is the operator's choice, the purpose is what the code asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A workload's X509-SVID, for both ends of mTLS.
    Workload,
    /// A TLS server, this authority's own included.
    Server,
    /// A TLS client.
    Client,
    /// A device.
    Device,
    /// A person who operates the authority.
    Operator,
    /// A delegated OCSP responder of one of our issuers.
    OcspResponder,
    /// An issuing authority below the root.
    Issuer,
}

impl Purpose {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Workload, "workload"),
        (Self::Server, "server"),
        (Self::Client, "client"),
        (Self::Device, "device"),
        (Self::Operator, "operator"),
        (Self::OcspResponder, "ocsp-responder"),
        (Self::Issuer, "issuer"),
    ];

    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text is not a purpose.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a purpose; use {list}", list = Purpose::ALL.map(|(_, text)| text).join(", "))]
pub struct UnknownPurpose(String);

impl FromStr for Purpose {
    type Err = UnknownPurpose;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|(_, known)| *known == text)
            .map(|(purpose, _)| purpose)
            .ok_or_else(|| UnknownPurpose(text.chars().take(40).collect()))
    }
}

/// How long certificates live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// When nobody asks for anything else.
    pub default: Duration,
    /// The ceiling.
    pub max: Duration,
    /// The shortest that is worth issuing.
    pub min: Duration,
    /// How far notBefore lies before the moment of issuance, for relying parties whose clocks are slow.
    pub backdate: Duration,
}

/// What stands in the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectForm {
    /// Nothing: the names say who it is, and subjectAltName is critical.
    Empty,
    /// A common name that repeats one of the names; nothing when none fits in its 64 characters.
    CommonName,
    /// What the authority puts there: for its own issuers and responders, which have no other name.
    Given,
}

/// How relying parties learn the status of such a certificate, by the extensions that say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusChoice {
    /// For people: the sentence that reports and the console show.
    pub description: String,
    /// cRLDistributionPoints.
    pub crl_distribution_point: bool,
    /// The responder in authorityInfoAccess.
    pub ocsp: bool,
    /// The issuer's certificate in authorityInfoAccess.
    pub ca_issuers: bool,
    /// noRevAvail (RFC 9608).
    pub no_rev_avail: bool,
    /// id-pkix-ocsp-nocheck.
    pub ocsp_nocheck: bool,
}

/// For issuers: what they may issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityRules {
    /// basicConstraints.
    pub basic_constraints: BasicConstraints,
    /// nameConstraints; may be empty.
    pub name_constraints: NameConstraints,
}

/// A checked profile.
#[derive(Clone, PartialEq, Eq)]
pub struct Profile {
    text: String,
    hash: Digest,
    name: String,
    description: String,
    purpose: Purpose,
    sensitivity: Sensitivity,
    requires_owner: bool,
    minimum_assurance: AssuranceLevel,
    is_renewable: bool,
    subject: SubjectForm,
    lifetime: Lifetime,
    key_algorithms: Vec<KeyAlgorithm>,
    key_usages: KeyUsages,
    extended_key_usages: Vec<ExtendedKeyUsage>,
    names: NameRules,
    status: StatusChoice,
    authority: Option<AuthorityRules>,
}

impl Profile {
    /// Largest profile that is read, in bytes.
    pub const MAX_TEXT: usize = 64 * 1024;

    /// Reads a profile; `{trust-domain}` in its patterns stands for the trust domain.
    ///
    /// # Errors
    /// [`ProfileError`] with every mistake in the file.
    pub fn from_toml(text: &str, trust_domain: &TrustDomain) -> Result<Self, ProfileError> {
        raw::read(text, trust_domain)
    }

    /// The text it was read from, to the byte: what the ledger keeps.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of [`Self::text`].
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The name that identities and requests use.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For people: what it is for.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// For the code: what it is for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// How bad abuse of such a certificate is; policy reads it.
    #[must_use]
    pub fn sensitivity(&self) -> Sensitivity {
        self.sensitivity
    }

    /// Whether an identity without an owner is refused.
    #[must_use]
    pub fn requires_owner(&self) -> bool {
        self.requires_owner
    }

    /// The least assurance that evidence must reach.
    #[must_use]
    pub fn minimum_assurance(&self) -> AssuranceLevel {
        self.minimum_assurance
    }

    /// Whether the certificate itself is evidence for the next one.
    #[must_use]
    pub fn is_renewable(&self) -> bool {
        self.is_renewable
    }

    /// What stands in the subject.
    #[must_use]
    pub fn subject(&self) -> SubjectForm {
        self.subject
    }

    /// How long certificates live.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// The keys that may be certified, the preferred one first.
    #[must_use]
    pub fn key_algorithms(&self) -> &[KeyAlgorithm] {
        &self.key_algorithms
    }

    /// Whether such keys may be certified.
    #[must_use]
    pub fn allows_key(&self, algorithm: KeyAlgorithm) -> bool {
        self.key_algorithms.contains(&algorithm)
    }

    /// keyUsage, exactly.
    #[must_use]
    pub fn key_usages(&self) -> KeyUsages {
        self.key_usages
    }

    /// extKeyUsage, exactly and in this order.
    #[must_use]
    pub fn extended_key_usages(&self) -> &[ExtendedKeyUsage] {
        &self.extended_key_usages
    }

    /// Which names may be certified.
    #[must_use]
    pub fn names(&self) -> &NameRules {
        &self.names
    }

    /// Everything that is wrong with these names under this profile; nothing when they are allowed.
    #[must_use]
    pub fn refusals(&self, names: &[SubjectName]) -> Vec<NameRefusal> {
        self.names.refusals(names)
    }

    /// How relying parties learn of revocation.
    #[must_use]
    pub fn status(&self) -> &StatusChoice {
        &self.status
    }

    /// For issuers: what they may issue. `None` for leaves.
    #[must_use]
    pub fn authority(&self) -> Option<&AuthorityRules> {
        self.authority.as_ref()
    }

    /// Whether it makes certificate authorities.
    #[must_use]
    pub fn is_authority(&self) -> bool {
        self.authority.is_some()
    }

    /// The lifetime for a wish: the default without one, never above the maximum, never below the minimum.
    #[must_use]
    pub fn clamp_lifetime(&self, wish: Option<Duration>) -> Duration {
        wish.unwrap_or(self.lifetime.default).clamp(self.lifetime.min, self.lifetime.max)
    }

    /// The validity of a certificate issued now for this long: backdated, and never beyond `end` (the issuer's
    /// own end, or the identity's) nor before `start` (the issuer's beginning).
    #[must_use]
    pub fn validity(&self, now: Timestamp, lifetime: Duration, start: Timestamp, end: Timestamp) -> Validity {
        let now = now.whole_second();
        Validity {
            not_before: (now - self.lifetime.backdate).max(start),
            not_after: (now + lifetime).whole_second().min(end),
        }
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Profile({} {})", self.name, self.hash)
    }
}

/// All the profiles of an authority, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profiles(BTreeMap<String, Profile>);

impl Profiles {
    /// Most profiles that an authority can have.
    pub const MAX: usize = 256;

    /// Reads profiles from `(file name, text)` pairs.
    ///
    /// # Errors
    /// [`ProfilesError`] with the mistakes of every file, and with names that stand in two.
    pub fn from_texts<'a>(
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
        trust_domain: &TrustDomain,
    ) -> Result<Self, ProfilesError> {
        let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
        let mut errors = Vec::new();
        for (file, text) in texts {
            match Profile::from_toml(text, trust_domain) {
                Ok(profile) if profiles.contains_key(profile.name()) => {
                    let why = format!("{:?} is the name of another profile too", profile.name());
                    errors.push((file.to_owned(), ProfileError::one("name", why)));
                }
                Ok(_) if profiles.len() >= Self::MAX => {
                    let why = format!("there are more than {} profiles", Self::MAX);
                    errors.push((file.to_owned(), ProfileError::one("name", why)));
                    break;
                }
                Ok(profile) => {
                    profiles.insert(profile.name().to_owned(), profile);
                }
                Err(error) => errors.push((file.to_owned(), error)),
            }
        }
        if errors.is_empty() { Ok(Self(profiles)) } else { Err(ProfilesError(errors)) }
    }

    /// The profile of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests;
