//! Rules of the CA/Browser Forum's Baseline Requirements that make sense in a private authority.

use chancery_types::SerialNumber;

use super::examined::Examined;
use crate::distinguished_name;
use crate::profile::{SubjectForm, bare_text};

type Check = Option<String>;

/// Our serials hold 64 bits from a CSPRNG after prefix, issuer and counter. That these are zeros or ones only is
/// as likely as a broken generator is not.
pub(super) fn serial_structure(examined: &Examined<'_>) -> Check {
    examined.profile?;
    let serial = match SerialNumber::from_bytes(examined.tbs.serial()) {
        Ok(serial) => serial,
        Err(error) => return Some(error.to_string()),
    };
    let random = &serial.as_bytes()[9..];
    let is_constant = random.iter().all(|byte| *byte == random[0]);
    is_constant.then(|| format!("the random part of {serial} is one byte repeated"))
}

pub(super) fn not_backdated(examined: &Examined<'_>) -> Check {
    let earliest = (examined.now - examined.profile?.lifetime().backdate).whole_second();
    let first = examined.tbs.not_before();
    (first < earliest).then(|| format!("notBefore {first} is earlier than {earliest}"))
}

pub(super) fn not_in_the_future(examined: &Examined<'_>) -> Check {
    let first = examined.tbs.not_before();
    (first > examined.now).then(|| format!("notBefore {first} is later than now, {}", examined.now))
}

pub(super) fn common_name_among_names(examined: &Examined<'_>) -> Check {
    if examined.profile?.subject() == SubjectForm::Given || examined.tbs.has_empty_subject() {
        return None;
    }
    distinguished_name::common_names(examined.tbs.subject_der())
        .into_iter()
        .find(|common| {
            !examined.names.iter().filter_map(|(_, name)| name.as_ref()).any(|n| bare_text(n) == *common)
        })
        .map(|common| format!("common name {common:?} is not one of the names"))
}

pub(super) fn no_repeated_name(examined: &Examined<'_>) -> Check {
    let names = &examined.names;
    let twice = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name));
    twice.map(|(_, (name, _))| format!("{name} stands there twice"))
}

pub(super) fn aki_key_id_only(examined: &Examined<'_>) -> Check {
    let names_certificate = examined.tbs.authority_key_identifier()?.names_certificate;
    names_certificate.then(|| "authorityKeyIdentifier names the issuer's certificate".to_owned())
}

pub(super) fn no_any_purpose(examined: &Examined<'_>) -> Check {
    examined.purposes.contains(&ANY_EXTENDED_KEY_USAGE).then(|| "anyExtendedKeyUsage".to_owned())
}

/// 2.5.29.37.0
const ANY_EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37, 0];
