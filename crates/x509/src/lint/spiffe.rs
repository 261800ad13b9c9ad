//! SPIFFE: X509-SVID.

use chancery_types::SpiffeId;

use super::examined::Examined;
use crate::profile::Purpose;
use crate::usage::{ExtendedKeyUsage, KeyUsage};

type Check = Option<String>;

pub(super) fn id_valid(examined: &Examined<'_>) -> Check {
    examined.spiffe_uris().find_map(|uri| match &examined.spiffe_id {
        Some(id) if id.as_str() == uri => None,
        _ => Some(match SpiffeId::parse(uri) {
            Ok(id) if id.as_str() == uri => return None,
            Ok(id) => format!("{uri:?} is not normalised, that would be {id}"),
            Err(error) => error.to_string(),
        }),
    })
}

pub(super) fn one_uri(examined: &Examined<'_>) -> Check {
    let count = examined.uris().count();
    (count > 1 && examined.spiffe_uris().next().is_some()).then(|| format!("{count} URIs"))
}

pub(super) fn trust_domain(examined: &Examined<'_>) -> Check {
    let id = examined.spiffe_id.as_ref()?;
    (id.trust_domain_name() != examined.trust_domain.as_str())
        .then(|| format!("{id} is not of the trust domain {}", examined.trust_domain))
}

pub(super) fn leaf_has_path(examined: &Examined<'_>) -> Check {
    let id = examined.spiffe_id.as_ref()?;
    (!examined.is_authority() && id.path().is_empty()).then(|| format!("{id} on a leaf"))
}

pub(super) fn authority_has_no_path(examined: &Examined<'_>) -> Check {
    let id = examined.spiffe_id.as_ref()?;
    (examined.is_authority() && !id.path().is_empty()).then(|| format!("{id} on an authority"))
}

pub(super) fn leaf_digital_signature(examined: &Examined<'_>) -> Check {
    examined.spiffe_id.as_ref()?;
    let lacks_it = examined.key_usages.is_some_and(|usages| !usages.contains(KeyUsage::DigitalSignature));
    (!examined.is_authority() && lacks_it).then(|| "a leaf without digitalSignature".to_owned())
}

pub(super) fn leaf_no_crl_sign(examined: &Examined<'_>) -> Check {
    (!examined.is_authority() && examined.uses(KeyUsage::CrlSign)).then(|| "cRLSign on a leaf".to_owned())
}

/// Asked of the profiles that promise an X509-SVID; the client and operator profiles name their subjects by
/// SPIFFE ID too, but must not be able to pose as servers.
pub(super) fn both_tls_purposes(examined: &Examined<'_>) -> Check {
    if !examined.is_for(Purpose::Workload) || examined.purposes.is_empty() {
        return None;
    }
    [ExtendedKeyUsage::ServerAuth, ExtendedKeyUsage::ClientAuth]
        .into_iter()
        .find(|usage| !examined.has_purpose(*usage))
        .map(|usage| format!("extKeyUsage lacks {usage}"))
}
