//! What the lints look at, taken from the bytes once.

use chancery_types::{KeyAlgorithm, SpiffeId, SubjectName, Timestamp, TrustDomain};

use super::LintContext;
use crate::extension::BasicConstraints;
use crate::general_name::GeneralName;
use crate::profile::Purpose;
use crate::reader::Reader;
use crate::spki::{self, Spki};
use crate::usage::{ExtendedKeyUsage, KeyUsage, KeyUsages};
use crate::{DistinguishedName, Profile, StatusUrls, TbsView, tag};

/// A TBSCertificate, its names and usages, and what it is held against.
pub(crate) struct Examined<'a> {
    pub(super) tbs: TbsView<'a>,
    /// Each name as it stands there, and as a checked name if it is well formed.
    pub(super) names: Vec<(GeneralName<'a>, Option<SubjectName>)>,
    pub(super) purposes: Vec<&'a [u8]>,
    pub(super) key_usages: Option<KeyUsages>,
    pub(super) basic_constraints: Option<BasicConstraints>,
    /// The kind of the subject's key, if it is one of ours.
    pub(super) key_algorithm: Option<KeyAlgorithm>,
    /// The content of the subject's key.
    pub(super) key_bytes: &'a [u8],
    /// None for a root.
    pub(super) issuer: Option<TbsView<'a>>,
    /// None for a root.
    pub(super) profile: Option<&'a Profile>,
    /// The first SPIFFE ID that is one.
    pub(super) spiffe_id: Option<SpiffeId>,
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) now: Timestamp,
    pub(super) urls: StatusUrls<'a>,
    pub(super) expected_subject: Option<&'a DistinguishedName>,
}

impl<'a> Examined<'a> {
    pub(super) fn issued(tbs: TbsView<'a>, context: &LintContext<'a>) -> Self {
        Self {
            issuer: Some(context.issuer.tbs()),
            profile: Some(context.profile),
            urls: context.urls,
            expected_subject: context.subject,
            ..Self::root(tbs, context.trust_domain, context.now)
        }
    }

    pub(super) fn root(tbs: TbsView<'a>, trust_domain: &'a TrustDomain, now: Timestamp) -> Self {
        let spki = Spki::read(tbs.spki_der()).ok();
        let names: Vec<_> = tbs.names().map(|name| (name, name.subject_name())).collect();
        let spiffe_id = names.iter().find_map(|(_, checked)| match checked {
            Some(SubjectName::Uri(uri)) => uri.spiffe_id(),
            _ => None,
        });
        Self {
            names,
            spiffe_id,
            purposes: tbs.purposes().collect(),
            key_usages: tbs.key_usages(),
            basic_constraints: tbs.basic_constraints(),
            key_algorithm: spki.and_then(|spki| key_algorithm(&spki)),
            key_bytes: spki.map_or(&[], |spki| spki.key),
            tbs,
            issuer: None,
            profile: None,
            trust_domain,
            now,
            urls: StatusUrls::default(),
            expected_subject: None,
        }
    }

    pub(super) fn is_authority(&self) -> bool {
        self.basic_constraints.is_some_and(|constraints| constraints.is_authority)
    }

    pub(super) fn is_for(&self, purpose: Purpose) -> bool {
        self.profile.is_some_and(|profile| profile.purpose() == purpose)
    }

    pub(super) fn uses(&self, usage: KeyUsage) -> bool {
        self.key_usages.is_some_and(|usages| usages.contains(usage))
    }

    pub(super) fn uris(&self) -> impl Iterator<Item = &'a str> {
        self.names.iter().filter_map(|(name, _)| match name {
            GeneralName::Uri(uri) => Some(*uri),
            _ => None,
        })
    }

    /// The URIs that mean to be SPIFFE IDs.
    pub(super) fn spiffe_uris(&self) -> impl Iterator<Item = &'a str> {
        self.uris().filter(|uri| is_spiffe(uri))
    }

    pub(super) fn has_purpose(&self, usage: ExtendedKeyUsage) -> bool {
        self.purposes.contains(&usage.oid())
    }
}

pub(super) fn is_spiffe(uri: &str) -> bool {
    uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"))
}

/// What kind of key it is, by its AlgorithmIdentifier and size; whether it is a good key was judged when the
/// request came in.
fn key_algorithm(key: &Spki<'_>) -> Option<KeyAlgorithm> {
    match (key.algorithm, key.key) {
        (spki::P256, [4, point @ ..]) if point.len() == 64 => Some(KeyAlgorithm::P256),
        (spki::P384, [4, point @ ..]) if point.len() == 96 => Some(KeyAlgorithm::P384),
        (spki::ED25519, key) if key.len() == 32 => Some(KeyAlgorithm::Ed25519),
        (spki::RSA, key) => {
            let modulus = Reader::single(key, tag::SEQUENCE).ok()?.reader().integer().ok()?;
            let [0, top @ 0x80..=0xff, rest @ ..] = modulus else { return None };
            let bits = 8 * (rest.len() + 1) - top.leading_zeros() as usize;
            match bits {
                2048 => Some(KeyAlgorithm::Rsa2048),
                3072 => Some(KeyAlgorithm::Rsa3072),
                4096 => Some(KeyAlgorithm::Rsa4096),
                _ => None,
            }
        }
        _ => None,
    }
}
