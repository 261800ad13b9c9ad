//! The catalogue of lints.

use super::{Lint, Severity, baseline, canonical, own, rfc5280, rfc5280_names as names, spiffe, status};
use crate::lint::examined::Examined;

type Check = fn(&Examined<'_>) -> Option<String>;

const fn error(id: &'static str, source: &'static str, check: Check) -> Lint {
    Lint { id, source, severity: Severity::Error, check }
}

const fn warning(id: &'static str, source: &'static str, check: Check) -> Lint {
    Lint { id, source, severity: Severity::Warning, check }
}

/// What cannot be read breaks this one, and cannot be held against the others.
pub(super) const STRUCTURE: &Lint = &ALL[0];

/// Every lint, in the order of their sources.
pub const ALL: &[Lint] = &[
    // Found by reading, before any check runs.
    error("x690_structure", "X.690 10, RFC 5280 4.1", |_| None),
    error("x690_canonical", "X.690 10 and 11", canonical::reencodes_to_the_same_bytes),
    error("rfc5280_version_3", "RFC 5280 4.1.2.1", rfc5280::version_3),
    error("rfc5280_serial_positive", "RFC 5280 4.1.2.2", rfc5280::serial_positive),
    error("rfc5280_serial_at_most_20_octets", "RFC 5280 4.1.2.2", rfc5280::serial_length),
    error("rfc5280_signature_fits_issuer_key", "RFC 5280 4.1.1.2", rfc5280::signature_algorithm),
    error("rfc5280_issuer_not_empty", "RFC 5280 4.1.2.4", rfc5280::issuer_not_empty),
    error("rfc5280_issuer_is_subject_of_issuer", "RFC 5280 4.1.2.4, 6.1.3", rfc5280::issuer_name),
    error("rfc5280_issuer_may_sign", "RFC 5280 4.2.1.3, 4.2.1.9", rfc5280::issuer_may_sign),
    error("rfc5280_validity_order", "RFC 5280 4.1.2.5", rfc5280::validity_order),
    error("rfc5280_time_form", "RFC 5280 4.1.2.5", rfc5280::time_form),
    error("rfc5280_within_life_of_issuer", "RFC 5280 6.1.3 (shell model)", rfc5280::within_life_of_issuer),
    error("rfc5280_no_unique_ids", "RFC 5280 4.1.2.8", rfc5280::no_unique_ids),
    error("rfc5280_no_repeated_extension", "RFC 5280 4.2", rfc5280::no_repeated_extension),
    error("rfc5280_aki_present", "RFC 5280 4.2.1.1", rfc5280::aki_present),
    error("rfc5280_aki_is_ski_of_issuer", "RFC 5280 4.2.1.1", rfc5280::aki_of_issuer),
    error("rfc5280_aki_not_critical", "RFC 5280 4.2.1.1", rfc5280::aki_not_critical),
    error("rfc5280_ski_present", "RFC 5280 4.2.1.2", rfc5280::ski_present),
    error("rfc5280_ski_not_critical", "RFC 5280 4.2.1.2", rfc5280::ski_not_critical),
    error("rfc7093_ski_of_key", "RFC 7093 2 (method 1)", rfc5280::ski_of_key),
    error("rfc5280_key_usage_present", "RFC 5280 4.2.1.3, X509-SVID 4.3", rfc5280::key_usage_present),
    error("rfc5280_key_usage_critical", "RFC 5280 4.2.1.3, X509-SVID 4.3", rfc5280::key_usage_critical),
    error("rfc5280_key_usage_not_empty", "RFC 5280 4.2.1.3", rfc5280::key_usage_not_empty),
    error("rfc5280_key_usage_fits_key", "RFC 3279 2.3, RFC 8813 3, RFC 8410 5", rfc5280::key_usage_fits_key),
    error("rfc5280_only_bits_need_key_agreement", "RFC 5280 4.2.1.3", rfc5280::only_bits),
    error("rfc5280_cert_sign_needs_ca", "RFC 5280 4.2.1.3, 4.2.1.9", rfc5280::cert_sign_needs_ca),
    error("rfc5280_ca_needs_cert_sign", "RFC 5280 4.2.1.3, 4.2.1.9", rfc5280::ca_needs_cert_sign),
    error("rfc5280_basic_constraints_critical", "RFC 5280 4.2.1.9", rfc5280::basic_constraints_critical),
    error("rfc5280_path_length_needs_ca", "RFC 5280 4.2.1.9", rfc5280::path_length_needs_ca),
    error("rfc5280_path_length_of_issuer", "RFC 5280 4.2.1.9, 6.1.4", rfc5280::path_length_of_issuer),
    error("rfc5280_eku_not_empty", "RFC 5280 4.2.1.12", rfc5280::eku_not_empty),
    error("rfc5280_eku_fits_key_usage", "RFC 5280 4.2.1.12", rfc5280::eku_fits_key_usage),
    error("rfc5280_name_somewhere", "RFC 5280 4.1.2.6", names::name_somewhere),
    error("rfc5280_ca_subject_not_empty", "RFC 5280 4.1.2.6", names::ca_subject_not_empty),
    error("rfc5280_san_critical_if_subject_empty", "RFC 5280 4.2.1.6", names::san_critical),
    warning("rfc5280_san_not_critical_beside_subject", "RFC 5280 4.2.1.6", names::san_not_critical),
    error("rfc5280_san_not_empty", "RFC 5280 4.2.1.6", names::san_not_empty),
    error("rfc5280_san_dns_syntax", "RFC 5280 4.2.1.6, RFC 1034 3.5", names::dns_syntax),
    error("rfc5280_san_ip_length", "RFC 5280 4.2.1.6", names::ip_length),
    error("rfc5280_san_uri_absolute", "RFC 5280 4.2.1.6, RFC 3986 4.3", names::uri_absolute),
    error("rfc5280_san_email_syntax", "RFC 5280 4.2.1.6, RFC 5321 4.1.2", names::email_syntax),
    error("rfc5280_name_constraints_need_ca", "RFC 5280 4.2.1.10", names::constraints_need_ca),
    error("rfc5280_name_constraints_critical", "RFC 5280 4.2.1.10", names::constraints_critical),
    error("rfc5280_name_constraints_not_empty", "RFC 5280 4.2.1.10", names::constraints_not_empty),
    error("rfc5280_names_permitted_by_issuer", "RFC 5280 4.2.1.10, 6.1.4", names::permitted_by_issuer),
    error("rfc5280_crldp_not_critical", "RFC 5280 4.2.1.13", rfc5280::crldp_not_critical),
    error("rfc5280_crldp_full_name", "RFC 5280 4.2.1.13", rfc5280::crldp_full_name),
    error("rfc5280_crldp_http", "RFC 5280 4.2.1.13", rfc5280::crldp_http),
    error("rfc5280_aia_not_critical", "RFC 5280 4.2.2.1", rfc5280::aia_not_critical),
    error("rfc5280_aia_http", "RFC 5280 4.2.2.1", rfc5280::aia_http),
    error("spiffe_id_valid", "SPIFFE-ID 2", spiffe::id_valid),
    error("spiffe_one_uri", "X509-SVID 2", spiffe::one_uri),
    error("spiffe_trust_domain", "X509-SVID 3.2, 5.2", spiffe::trust_domain),
    error("spiffe_leaf_has_path", "X509-SVID 3.1, 5.2", spiffe::leaf_has_path),
    error("spiffe_issuer_has_no_path", "X509-SVID 3.2", spiffe::authority_has_no_path),
    error("spiffe_leaf_digital_signature", "X509-SVID 4.3", spiffe::leaf_digital_signature),
    error("spiffe_leaf_no_crl_sign", "X509-SVID 4.3", spiffe::leaf_no_crl_sign),
    error("spiffe_both_tls_purposes", "X509-SVID 4.4", spiffe::both_tls_purposes),
    error("cabf_serial_entropy", "CA/B BR 7.1 (64 bits from a CSPRNG)", baseline::serial_structure),
    error("cabf_not_backdated", "CA/B BR 7.1.2.7 (validity), profile", baseline::not_backdated),
    error("cabf_not_in_the_future", "CA/B BR 7.1.2.7 (validity)", baseline::not_in_the_future),
    error("cabf_common_name_among_names", "CA/B BR 7.1.4.3", baseline::common_name_among_names),
    error("cabf_no_repeated_name", "CA/B BR 7.1.2.7.12", baseline::no_repeated_name),
    error("cabf_aki_key_id_only", "CA/B BR 7.1.2.11.1", baseline::aki_key_id_only),
    error("cabf_no_any_purpose", "CA/B BR 7.1.2.7.10", baseline::no_any_purpose),
    error("rfc9608_not_on_ca", "RFC 9608 2", status::no_rev_avail_not_on_ca),
    error("rfc9608_no_crldp_beside", "RFC 9608 2", status::no_rev_avail_without_crldp),
    error("rfc9608_no_ocsp_beside", "RFC 9608 2", status::no_rev_avail_without_ocsp),
    error("rfc9608_not_critical", "RFC 9608 2", status::no_rev_avail_not_critical),
    error("rfc6960_nocheck_on_responders_only", "RFC 6960 4.2.2.2.1", status::nocheck_on_responders_only),
    warning("rfc6960_nocheck_not_critical", "RFC 6960 4.2.2.2.1", status::nocheck_not_critical),
    error("rfc6960_ocsp_signing_alone", "RFC 6960 4.2.2.2, CA/B BR 7.1.2.8.5", status::ocsp_signing_alone),
    error("own_key_algorithm", "profile keys.algorithms", own::key_algorithm),
    error("own_key_usage", "profile keys.usage", own::key_usage),
    error("own_extended_key_usage", "profile keys.extended_usage", own::extended_key_usage),
    error("own_lifetime", "profile lifetime.max", own::lifetime),
    error("own_subject", "profile subject", own::subject),
    error("own_names", "profile names", own::names),
    error("own_basic_constraints", "profile authority", own::basic_constraints),
    error("own_name_constraints", "profile authority", own::name_constraints),
    error("own_extension_set", "profile status", own::extension_set),
    error("own_crl_url", "profile status.crl_distribution_point", own::crl_url),
    error("own_ocsp_url", "profile status.ocsp", own::ocsp_url),
    error("own_ca_issuers_url", "profile status.ca_issuers", own::ca_issuers_url),
    error("own_root_self_issued", "RFC 5280 3.2 (self-issued)", own::root_self_issued),
];
