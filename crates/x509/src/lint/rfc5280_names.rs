//! RFC 5280: subject, subjectAltName and name constraints.

use chancery_types::SubjectName;

use super::examined::{Examined, is_spiffe};
use super::rfc5280::criticality;
use crate::extension::ExtensionKind;
use crate::general_name::GeneralName;

type Check = Option<String>;

pub(super) fn name_somewhere(examined: &Examined<'_>) -> Check {
    let has_san = examined.tbs.extension(ExtensionKind::SubjectAltName).is_some();
    (examined.tbs.has_empty_subject() && !has_san).then(|| "neither subject nor subjectAltName".to_owned())
}

pub(super) fn ca_subject_not_empty(examined: &Examined<'_>) -> Check {
    (examined.is_authority() && examined.tbs.has_empty_subject())
        .then(|| "an authority without a subject cannot be named as an issuer".to_owned())
}

pub(super) fn san_critical(examined: &Examined<'_>) -> Check {
    let is_critical = criticality(&examined.tbs, ExtensionKind::SubjectAltName)?;
    (examined.tbs.has_empty_subject() && !is_critical)
        .then(|| "the subject is empty and subjectAltName is not critical".to_owned())
}

pub(super) fn san_not_critical(examined: &Examined<'_>) -> Check {
    let is_critical = criticality(&examined.tbs, ExtensionKind::SubjectAltName)?;
    (!examined.tbs.has_empty_subject() && is_critical)
        .then(|| "there is a subject and subjectAltName is critical".to_owned())
}

pub(super) fn san_not_empty(examined: &Examined<'_>) -> Check {
    let is_there = examined.tbs.extension(ExtensionKind::SubjectAltName).is_some();
    let has_empty = examined.names.iter().any(|(name, _)| match name {
        GeneralName::Email(text) | GeneralName::Dns(text) | GeneralName::Uri(text) => text.is_empty(),
        GeneralName::Ip(bytes) => bytes.is_empty(),
        GeneralName::Directory(_) | GeneralName::Other { .. } => false,
    });
    (is_there && (examined.names.is_empty() || has_empty)).then(|| "an empty name, or none".to_owned())
}

pub(super) fn dns_syntax(examined: &Examined<'_>) -> Check {
    malformed(examined, |name| matches!(name, GeneralName::Dns(text) if !text.is_empty()))
}

pub(super) fn ip_length(examined: &Examined<'_>) -> Check {
    malformed(examined, |name| matches!(name, GeneralName::Ip(bytes) if !bytes.is_empty()))
}

pub(super) fn uri_absolute(examined: &Examined<'_>) -> Check {
    malformed(examined, |name| matches!(name, GeneralName::Uri(text) if !text.is_empty() && !is_spiffe(text)))
}

pub(super) fn email_syntax(examined: &Examined<'_>) -> Check {
    malformed(examined, |name| matches!(name, GeneralName::Email(text) if !text.is_empty()))
}

/// The first name of a form whose checked form does not exist, or is written differently.
fn malformed(examined: &Examined<'_>, is_of_form: impl Fn(&GeneralName<'_>) -> bool) -> Check {
    let of_form = examined.names.iter().filter(|(name, _)| is_of_form(name));
    let mut faulty = of_form.filter(|(name, checked)| match (name, checked) {
        (_, None) => true,
        (GeneralName::Dns(text), Some(SubjectName::Dns(checked))) => checked.as_str() != *text,
        (GeneralName::Email(text), Some(SubjectName::Email(checked))) => checked.as_str() != *text,
        (_, Some(_)) => false,
    });
    faulty.next().map(|(name, _)| format!("{name} is malformed or not in its normal form"))
}

pub(super) fn constraints_need_ca(examined: &Examined<'_>) -> Check {
    let is_there = examined.tbs.extension(ExtensionKind::NameConstraints).is_some();
    (is_there && !examined.is_authority()).then(|| "nameConstraints on a leaf".to_owned())
}

pub(super) fn constraints_critical(examined: &Examined<'_>) -> Check {
    let is_critical = criticality(&examined.tbs, ExtensionKind::NameConstraints)?;
    (!is_critical).then(|| "nameConstraints is not critical".to_owned())
}

pub(super) fn constraints_not_empty(examined: &Examined<'_>) -> Check {
    let constraints = examined.tbs.name_constraints()?;
    let count = constraints.permitted().count() + constraints.excluded().count();
    (count == 0).then(|| "neither permitted nor excluded subtrees".to_owned())
}

pub(super) fn permitted_by_issuer(examined: &Examined<'_>) -> Check {
    let constraints = examined.issuer?.name_constraints()?;
    let subject = examined.tbs.subject_der();
    let subject = (!examined.tbs.has_empty_subject()).then_some(GeneralName::Directory(subject));
    let mut names = examined.names.iter().map(|(name, _)| *name).chain(subject);
    names
        .find(|name| !constraints.permit(name))
        .map(|name| format!("{name} lies outside the issuer's name constraints"))
}
