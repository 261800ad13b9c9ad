//! What our own profile says, exactly.

use super::examined::Examined;
use crate::distinguished_name;
use crate::extension::ExtensionKind;
use crate::oid;
use crate::profile::{NameForm, SubjectForm};
use crate::usage::{ExtendedKeyUsage, purpose_text};

type Check = Option<String>;

pub(super) fn key_algorithm(examined: &Examined<'_>) -> Check {
    let Some(algorithm) = examined.key_algorithm else {
        return Some("the key is of a kind that we do not certify".to_owned());
    };
    (!examined.profile?.allows_key(algorithm)).then(|| format!("{algorithm} is not allowed"))
}

pub(super) fn key_usage(examined: &Examined<'_>) -> Check {
    let expected = examined.profile?.key_usages();
    let found = examined.key_usages.unwrap_or_default();
    (found != expected).then(|| format!("{found} instead of {expected}"))
}

pub(super) fn extended_key_usage(examined: &Examined<'_>) -> Check {
    let expected = examined.profile?.extended_key_usages();
    let is_equal = examined.purposes.len() == expected.len()
        && examined.purposes.iter().zip(expected).all(|(found, usage)| *found == usage.oid());
    let is_critical = examined.tbs.extension(ExtensionKind::ExtendedKeyUsage).is_some_and(|eku| eku.critical);
    (!is_equal || is_critical).then(|| {
        let found: Vec<_> = examined.purposes.iter().map(|purpose| purpose_text(purpose)).collect();
        let expected: Vec<_> = expected.iter().map(|usage: &ExtendedKeyUsage| usage.as_str()).collect();
        format!("[{}], critical: {is_critical}, instead of [{}]", found.join(", "), expected.join(", "))
    })
}

/// The time that lies ahead, and the whole with its backdating: neither may pass the profile's maximum.
pub(super) fn lifetime(examined: &Examined<'_>) -> Check {
    let lifetime = examined.profile?.lifetime();
    let tbs = &examined.tbs;
    let latest = examined.now.whole_second() + lifetime.max;
    let whole = tbs.not_after().since(tbs.not_before());
    (tbs.not_after() > latest || whole > lifetime.max + lifetime.backdate)
        .then(|| format!("notAfter {} is later than {latest}", tbs.not_after()))
}

pub(super) fn subject(examined: &Examined<'_>) -> Check {
    let tbs = &examined.tbs;
    let is_right = match examined.profile?.subject() {
        SubjectForm::Empty => tbs.has_empty_subject(),
        SubjectForm::CommonName => tbs.has_empty_subject() || is_one_common_name(tbs.subject_der()),
        SubjectForm::Given => {
            examined.expected_subject.is_some_and(|expected| expected.der() == tbs.subject_der())
        }
    };
    (!is_right).then(|| format!("subject {:?} is not what the profile asks for", tbs.subject_text()))
}

fn is_one_common_name(subject: &[u8]) -> bool {
    let common = distinguished_name::common_names(subject).pop();
    let rebuilt = common.and_then(|common| crate::DistinguishedName::common_name(&common).ok());
    rebuilt.is_some_and(|rebuilt| rebuilt.der() == subject)
}

pub(super) fn names(examined: &Examined<'_>) -> Check {
    let rules = examined.profile?.names();
    if let Some((name, _)) = examined.names.iter().find(|(_, checked)| checked.is_none()) {
        return Some(format!("{name} is not a name that we issue"));
    }
    let names: Vec<_> = examined.names.iter().filter_map(|(_, checked)| checked.clone()).collect();
    let allowed_none = rules.is_empty() && !names.is_empty();
    let refusals = rules.refusals(&names);
    let form = |name: &chancery_types::SubjectName| NameForm::of(name).as_str();
    match (allowed_none, refusals.first()) {
        (_, Some(refusal)) => Some(refusal.to_string()),
        (true, None) => names.first().map(|name| format!("a {} name where none is allowed", form(name))),
        (false, None) => None,
    }
}

pub(super) fn basic_constraints(examined: &Examined<'_>) -> Check {
    let expected = examined.profile?.authority().map(|rules| rules.basic_constraints);
    let found = examined.basic_constraints;
    (found != expected).then(|| format!("{found:?} instead of {expected:?}"))
}

pub(super) fn name_constraints(examined: &Examined<'_>) -> Check {
    let expected = examined.profile?.authority().map(|rules| &rules.name_constraints);
    let expected = expected.filter(|constraints| !constraints.is_empty()).map(|c| c.to_der());
    let found = examined.tbs.extension(ExtensionKind::NameConstraints).map(|extension| extension.value);
    (found != expected.as_deref()).then(|| "nameConstraints are not those of the profile".to_owned())
}

/// Exactly the extensions that the profile leads to, no other and none of them missing.
pub(super) fn extension_set(examined: &Examined<'_>) -> Check {
    use ExtensionKind as Kind;
    let profile = examined.profile?;
    let status = profile.status();
    let authority = profile.authority();
    let expected = |kind: Kind| match kind {
        Kind::AuthorityKeyId | Kind::SubjectKeyId | Kind::KeyUsage => true,
        Kind::ExtendedKeyUsage => !profile.extended_key_usages().is_empty(),
        Kind::BasicConstraints => authority.is_some(),
        Kind::NameConstraints => authority.is_some_and(|rules| !rules.name_constraints.is_empty()),
        Kind::SubjectAltName => !profile.names().is_empty(),
        Kind::CrlDistributionPoints => status.crl_distribution_point,
        Kind::AuthorityInfoAccess => status.ocsp || status.ca_issuers,
        Kind::OcspNoCheck => status.ocsp_nocheck,
        Kind::NoRevAvail => status.no_rev_avail,
    };
    if let Some(unknown) = examined.tbs.extensions().find(|extension| extension.kind().is_none()) {
        return Some(format!("unknown extension {}", oid::dotted(unknown.oid)));
    }
    Kind::ALL
        .into_iter()
        .find(|kind| expected(*kind) != examined.tbs.extension(*kind).is_some())
        .map(|kind| format!("{} is {}", kind.as_str(), if expected(kind) { "missing" } else { "too many" }))
}

pub(super) fn crl_url(examined: &Examined<'_>) -> Check {
    let wanted = examined.profile?.status().crl_distribution_point;
    expect_url(wanted.then_some(examined.urls.crl).flatten(), examined.tbs.crl_urls())
}

pub(super) fn ocsp_url(examined: &Examined<'_>) -> Check {
    let wanted = examined.profile?.status().ocsp;
    expect_url(wanted.then_some(examined.urls.ocsp).flatten(), examined.tbs.ocsp_urls())
}

pub(super) fn ca_issuers_url(examined: &Examined<'_>) -> Check {
    let wanted = examined.profile?.status().ca_issuers;
    expect_url(wanted.then_some(examined.urls.ca_issuers).flatten(), examined.tbs.ca_issuers_urls())
}

fn expect_url<'a>(expected: Option<&str>, found: impl Iterator<Item = &'a str>) -> Check {
    let found: Vec<&str> = found.collect();
    let is_right = found.iter().copied().eq(expected);
    (!is_right).then(|| format!("{found:?} instead of {expected:?}"))
}

/// A root, which alone has no issuer above it, is its own issuer and an authority.
pub(super) fn root_self_issued(examined: &Examined<'_>) -> Check {
    let tbs = &examined.tbs;
    let is_root = tbs.issuer_der() == tbs.subject_der() && examined.is_authority();
    (examined.issuer.is_none() && !is_root).then(|| "a root is an authority and its own issuer".to_owned())
}
