//! RFC 5280: fields, key identifiers, usages, constraints, pointers.

use chancery_types::{KeyAlgorithm, SignatureAlgorithm};

use super::examined::Examined;
use crate::calendar::TimeForm;
use crate::certificate::repeated_extension;
use crate::extension::{self, ExtensionKind};
use crate::general_name::GeneralName;
use crate::reader::Reader;
use crate::spki::{self, Spki};
use crate::usage::{ExtendedKeyUsage, KeyUsage, purpose_text};
use crate::{TbsView, tag};

type Check = Option<String>;

pub(super) fn version_3(examined: &Examined<'_>) -> Check {
    let version = examined.tbs.version();
    (version != 3).then(|| format!("version {version}"))
}

pub(super) fn serial_positive(examined: &Examined<'_>) -> Check {
    let serial = examined.tbs.serial();
    let is_negative = serial.first().is_some_and(|byte| byte & 0x80 != 0);
    let is_zero = serial.iter().all(|byte| *byte == 0);
    (is_negative || is_zero).then(|| format!("serial {serial:02x?} is not positive"))
}

pub(super) fn serial_length(examined: &Examined<'_>) -> Check {
    let length = examined.tbs.serial().len();
    (length > 20).then(|| format!("{length} octets"))
}

/// The algorithm must be one that the issuer's key signs with: the field decides what the signature is read as.
pub(super) fn signature_algorithm(examined: &Examined<'_>) -> Check {
    let signer = examined.issuer.unwrap_or(examined.tbs);
    let Some(algorithm) = examined.tbs.signature_algorithm() else {
        return Some("not an algorithm that we sign with".to_owned());
    };
    let key = Spki::read(signer.spki_der()).ok();
    let fits = match key.map(|key| key.algorithm) {
        Some(spki::P256) => algorithm == SignatureAlgorithm::EcdsaSha256,
        Some(spki::P384) => algorithm == SignatureAlgorithm::EcdsaSha384,
        Some(spki::ED25519) => algorithm == SignatureAlgorithm::Ed25519,
        Some(spki::RSA) => algorithm == SignatureAlgorithm::RsaPkcs1Sha256,
        _ => false,
    };
    (!fits).then(|| format!("{algorithm} is not what the issuer's key signs with"))
}

pub(super) fn issuer_not_empty(examined: &Examined<'_>) -> Check {
    (examined.tbs.issuer_der() == [tag::SEQUENCE, 0]).then(|| "the issuer has no attributes".to_owned())
}

pub(super) fn issuer_name(examined: &Examined<'_>) -> Check {
    let issuer = examined.issuer?;
    (examined.tbs.issuer_der() != issuer.subject_der())
        .then(|| format!("{:?} instead of {:?}", examined.tbs.issuer_text(), issuer.subject_text()))
}

pub(super) fn issuer_may_sign(examined: &Examined<'_>) -> Check {
    let issuer = examined.issuer?;
    let may_sign = issuer.key_usages().is_none_or(|usages| usages.contains(KeyUsage::KeyCertSign));
    (!issuer.is_authority() || !may_sign)
        .then(|| format!("{:?} is not an authority with keyCertSign", issuer.subject_text()))
}

pub(super) fn validity_order(examined: &Examined<'_>) -> Check {
    let (first, last) = (examined.tbs.not_before(), examined.tbs.not_after());
    (first > last).then(|| format!("notBefore {first} is after notAfter {last}"))
}

pub(super) fn time_form(examined: &Examined<'_>) -> Check {
    examined
        .tbs
        .time_forms()
        .into_iter()
        .find(|(moment, form)| TimeForm::required_for(*moment) != *form)
        .map(|(moment, form)| format!("{moment} is written as {form:?}"))
}

pub(super) fn within_life_of_issuer(examined: &Examined<'_>) -> Check {
    let issuer = examined.issuer?;
    let tbs = &examined.tbs;
    (tbs.not_after() > issuer.not_after() || tbs.not_before() < issuer.not_before()).then(|| {
        format!(
            "{} to {} reaches beyond the issuer's {} to {}",
            tbs.not_before(),
            tbs.not_after(),
            issuer.not_before(),
            issuer.not_after()
        )
    })
}

pub(super) fn no_unique_ids(examined: &Examined<'_>) -> Check {
    examined.tbs.has_unique_ids().then(|| "issuerUniqueID or subjectUniqueID is there".to_owned())
}

pub(super) fn no_repeated_extension(examined: &Examined<'_>) -> Check {
    repeated_extension(&examined.tbs).map(|twice| format!("{twice} stands there twice"))
}

pub(super) fn aki_present(examined: &Examined<'_>) -> Check {
    examined.issuer?;
    examined
        .tbs
        .authority_key_id()
        .is_none()
        .then(|| "no authorityKeyIdentifier with a keyIdentifier".to_owned())
}

pub(super) fn aki_of_issuer(examined: &Examined<'_>) -> Check {
    let expected = examined.issuer.unwrap_or(examined.tbs).subject_key_id()?;
    let found = examined.tbs.authority_key_id()?;
    (found != expected).then(|| format!("{found:02x?} is not the issuer's {expected:02x?}"))
}

pub(super) fn aki_not_critical(examined: &Examined<'_>) -> Check {
    critical(examined, ExtensionKind::AuthorityKeyId)
}

pub(super) fn ski_present(examined: &Examined<'_>) -> Check {
    examined.tbs.subject_key_id().is_none().then(|| "no subjectKeyIdentifier".to_owned())
}

pub(super) fn ski_not_critical(examined: &Examined<'_>) -> Check {
    critical(examined, ExtensionKind::SubjectKeyId)
}

pub(super) fn ski_of_key(examined: &Examined<'_>) -> Check {
    let found = examined.tbs.subject_key_id()?;
    let digest = chancery_types::Digest::of(examined.key_bytes);
    (found != &digest.as_bytes()[..20]).then(|| format!("{found:02x?} is not the digest of the key"))
}

pub(super) fn key_usage_present(examined: &Examined<'_>) -> Check {
    examined.key_usages.is_none().then(|| "no keyUsage".to_owned())
}

pub(super) fn key_usage_critical(examined: &Examined<'_>) -> Check {
    not_critical(examined, ExtensionKind::KeyUsage)
}

pub(super) fn key_usage_not_empty(examined: &Examined<'_>) -> Check {
    examined.key_usages.is_some_and(|usages| usages.is_empty()).then(|| "no bit is set".to_owned())
}

pub(super) fn key_usage_fits_key(examined: &Examined<'_>) -> Check {
    use KeyUsage as Usage;
    let wrong: &[KeyUsage] = match examined.key_algorithm? {
        KeyAlgorithm::P256 | KeyAlgorithm::P384 => &[Usage::KeyEncipherment, Usage::DataEncipherment],
        KeyAlgorithm::Ed25519 => &[Usage::KeyEncipherment, Usage::DataEncipherment, Usage::KeyAgreement],
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => &[Usage::KeyAgreement],
    };
    let usage = wrong.iter().find(|usage| examined.uses(**usage))?;
    Some(format!("{} on a key of the kind {}", usage.as_str(), examined.key_algorithm?))
}

pub(super) fn only_bits(examined: &Examined<'_>) -> Check {
    let only = examined.uses(KeyUsage::EncipherOnly) || examined.uses(KeyUsage::DecipherOnly);
    (only && !examined.uses(KeyUsage::KeyAgreement)).then(|| "encipherOnly or decipherOnly alone".to_owned())
}

pub(super) fn cert_sign_needs_ca(examined: &Examined<'_>) -> Check {
    (examined.uses(KeyUsage::KeyCertSign) && !examined.is_authority())
        .then(|| "keyCertSign without basicConstraints cA".to_owned())
}

pub(super) fn ca_needs_cert_sign(examined: &Examined<'_>) -> Check {
    (examined.is_authority() && examined.key_usages.is_some() && !examined.uses(KeyUsage::KeyCertSign))
        .then(|| "an authority without keyCertSign".to_owned())
}

pub(super) fn basic_constraints_critical(examined: &Examined<'_>) -> Check {
    examined.is_authority().then(|| not_critical(examined, ExtensionKind::BasicConstraints)).flatten()
}

pub(super) fn path_length_needs_ca(examined: &Examined<'_>) -> Check {
    let constraints = examined.basic_constraints?;
    (constraints.path_length.is_some() && !constraints.is_authority)
        .then(|| "pathLenConstraint without cA".to_owned())
}

pub(super) fn path_length_of_issuer(examined: &Examined<'_>) -> Check {
    let allowed = examined.issuer?.basic_constraints()?.path_length?;
    if !examined.is_authority() {
        return None;
    }
    let own = examined.basic_constraints?.path_length;
    let fits = allowed > 0 && own.is_some_and(|own| own < allowed);
    (!fits).then(|| format!("path length {own:?} below an issuer with {allowed}"))
}

pub(super) fn eku_not_empty(examined: &Examined<'_>) -> Check {
    let is_there = examined.tbs.extension(ExtensionKind::ExtendedKeyUsage).is_some();
    (is_there && examined.purposes.is_empty()).then(|| "extKeyUsage without a purpose".to_owned())
}

pub(super) fn eku_fits_key_usage(examined: &Examined<'_>) -> Check {
    use KeyUsage as Usage;
    examined.key_usages?;
    let unfit = |purpose: &&[u8]| {
        let needed: &[KeyUsage] = match ExtendedKeyUsage::from_oid(purpose) {
            Some(ExtendedKeyUsage::ServerAuth) => {
                &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::KeyAgreement]
            }
            Some(ExtendedKeyUsage::ClientAuth) => &[Usage::DigitalSignature, Usage::KeyAgreement],
            Some(ExtendedKeyUsage::CodeSigning) => &[Usage::DigitalSignature],
            Some(ExtendedKeyUsage::OcspSigning) => &[Usage::DigitalSignature, Usage::ContentCommitment],
            Some(ExtendedKeyUsage::EmailProtection) | None => return false,
        };
        !needed.iter().any(|usage| examined.uses(*usage))
    };
    let purpose = examined.purposes.iter().find(|purpose| unfit(purpose))?;
    Some(format!("{} without a key usage for it", purpose_text(purpose)))
}

pub(super) fn crldp_not_critical(examined: &Examined<'_>) -> Check {
    critical(examined, ExtensionKind::CrlDistributionPoints)
}

/// Every point has a fullName of URIs and nothing else: no reasons, no cRLIssuer, no relative name.
pub(super) fn crldp_full_name(examined: &Examined<'_>) -> Check {
    let value = examined.tbs.extension(ExtensionKind::CrlDistributionPoints)?.value;
    let urls: Vec<&str> = extension::distribution_urls(value).collect();
    let mut points = Reader::single(value, tag::SEQUENCE).ok()?.reader();
    let mut count = 0;
    while let Ok(mut point) = points.sequence() {
        count += 1;
        let name = point.optional(tag::context_constructed(0)).ok().flatten();
        if name.is_none() || !point.is_empty() {
            return Some(format!("point {count} is not a fullName alone"));
        }
    }
    (count == 0 || urls.len() < count).then(|| format!("{count} points with {} URLs", urls.len()))
}

pub(super) fn crldp_http(examined: &Examined<'_>) -> Check {
    examined.tbs.crl_urls().find_map(url_fault)
}

pub(super) fn aia_not_critical(examined: &Examined<'_>) -> Check {
    critical(examined, ExtensionKind::AuthorityInfoAccess)
}

pub(super) fn aia_http(examined: &Examined<'_>) -> Check {
    let value = examined.tbs.extension(ExtensionKind::AuthorityInfoAccess)?.value;
    let mut items = Reader::single(value, tag::SEQUENCE).ok()?.reader();
    if items.is_empty() {
        return Some("no access description".to_owned());
    }
    while let Ok((_, location)) = extension::read_access(&mut items) {
        let fault = match location {
            GeneralName::Uri(url) => url_fault(url),
            other => Some(format!("{other} is not a URL")),
        };
        if fault.is_some() {
            return fault;
        }
    }
    None
}

/// Plain HTTP with a host: over TLS, checking the status of one certificate would need the status of another.
fn url_fault(url: &str) -> Option<String> {
    let host = url.strip_prefix("http://").and_then(|rest| rest.split(['/', '?', '#']).next());
    let host = host.map(|authority| authority.rsplit_once(':').map_or(authority, |(host, _)| host));
    let printable = |byte: u8| {
        byte.is_ascii_graphic()
            && !matches!(byte, b'<' | b'>' | b'"' | b'{' | b'}' | b'|' | b'\\' | b'^' | b'`')
    };
    let is_fine = host.is_some_and(|host| !host.is_empty() && !host.contains('@'));
    (!is_fine || !url.bytes().all(printable)).then(|| format!("{:?} is not an http URL", url.escape_debug()))
}

fn critical(examined: &Examined<'_>, kind: ExtensionKind) -> Check {
    let extension = examined.tbs.extension(kind)?;
    extension.critical.then(|| format!("{} is critical", kind.as_str()))
}

fn not_critical(examined: &Examined<'_>, kind: ExtensionKind) -> Check {
    let extension = examined.tbs.extension(kind)?;
    (!extension.critical).then(|| format!("{} is not critical", kind.as_str()))
}

/// Whether an extension is there and critical, for the other families of lints.
pub(super) fn criticality(tbs: &TbsView<'_>, kind: ExtensionKind) -> Option<bool> {
    tbs.extension(kind).map(|extension| extension.critical)
}
