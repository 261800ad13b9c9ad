//! RFC 9608 (noRevAvail) and RFC 6960 (delegated OCSP responders).

use super::examined::Examined;
use super::rfc5280::criticality;
use crate::extension::ExtensionKind;
use crate::usage::ExtendedKeyUsage;

type Check = Option<String>;

pub(super) fn no_rev_avail_not_on_ca(examined: &Examined<'_>) -> Check {
    (examined.tbs.has_no_rev_avail() && examined.is_authority())
        .then(|| "noRevAvail on an authority".to_owned())
}

pub(super) fn no_rev_avail_without_crldp(examined: &Examined<'_>) -> Check {
    let points = examined.tbs.extension(ExtensionKind::CrlDistributionPoints)?;
    examined
        .tbs
        .has_no_rev_avail()
        .then(|| format!("noRevAvail beside cRLDistributionPoints of {} bytes", points.value.len()))
}

pub(super) fn no_rev_avail_without_ocsp(examined: &Examined<'_>) -> Check {
    let url = examined.tbs.ocsp_urls().next()?;
    examined.tbs.has_no_rev_avail().then(|| format!("noRevAvail beside the OCSP responder {url}"))
}

pub(super) fn no_rev_avail_not_critical(examined: &Examined<'_>) -> Check {
    let is_critical = criticality(&examined.tbs, ExtensionKind::NoRevAvail)?;
    is_critical.then(|| "noRevAvail is critical".to_owned())
}

pub(super) fn nocheck_on_responders_only(examined: &Examined<'_>) -> Check {
    let is_responder = examined.has_purpose(ExtendedKeyUsage::OcspSigning);
    (examined.tbs.has_ocsp_nocheck() && !is_responder).then(|| "ocsp-nocheck without OCSPSigning".to_owned())
}

pub(super) fn nocheck_not_critical(examined: &Examined<'_>) -> Check {
    let is_critical = criticality(&examined.tbs, ExtensionKind::OcspNoCheck)?;
    is_critical.then(|| "ocsp-nocheck is critical".to_owned())
}

pub(super) fn ocsp_signing_alone(examined: &Examined<'_>) -> Check {
    let is_responder = examined.has_purpose(ExtendedKeyUsage::OcspSigning);
    (is_responder && (examined.purposes.len() > 1 || examined.is_authority()))
        .then(|| "OCSPSigning beside another purpose, or on an authority".to_owned())
}
