//! Object identifiers as the content bytes of their DER encoding, ready to be compared and written.

/// id-ce-subjectKeyIdentifier, 2.5.29.14
pub(crate) const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 14];
/// id-ce-keyUsage, 2.5.29.15
pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
/// id-ce-subjectAltName, 2.5.29.17
pub(crate) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
/// id-ce-basicConstraints, 2.5.29.19
pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
/// id-ce-cRLNumber, 2.5.29.20
pub(crate) const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 20];
/// id-ce-cRLReasons, 2.5.29.21
pub(crate) const CRL_REASON: &[u8] = &[0x55, 0x1d, 21];
/// id-ce-deltaCRLIndicator, 2.5.29.27
pub(crate) const DELTA_CRL_INDICATOR: &[u8] = &[0x55, 0x1d, 27];
/// id-ce-issuingDistributionPoint, 2.5.29.28
pub(crate) const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 28];
/// id-ce-certificateIssuer, 2.5.29.29
pub(crate) const CERTIFICATE_ISSUER: &[u8] = &[0x55, 0x1d, 29];
/// id-ce-nameConstraints, 2.5.29.30
pub(crate) const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 30];
/// id-ce-cRLDistributionPoints, 2.5.29.31
pub(crate) const CRL_DISTRIBUTION_POINTS: &[u8] = &[0x55, 0x1d, 31];
/// id-ce-certificatePolicies: never written; the tests need one that is unknown, 2.5.29.32
#[cfg(test)]
pub(crate) const CERTIFICATE_POLICIES: &[u8] = &[0x55, 0x1d, 32];
/// id-ce-authorityKeyIdentifier, 2.5.29.35
pub(crate) const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 35];
/// id-ce-extKeyUsage, 2.5.29.37
pub(crate) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
/// id-ce-noRevAvail, 2.5.29.56 (RFC 9608)
pub(crate) const NO_REV_AVAIL: &[u8] = &[0x55, 0x1d, 56];
/// id-pe-authorityInfoAccess, 1.3.6.1.5.5.7.1.1
pub(crate) const AUTHORITY_INFO_ACCESS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];

/// id-ad-ocsp, 1.3.6.1.5.5.7.48.1
pub(crate) const ACCESS_OCSP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1];
/// id-ad-caIssuers, 1.3.6.1.5.5.7.48.2
pub(crate) const ACCESS_CA_ISSUERS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 2];
/// id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1
pub(crate) const OCSP_BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 1];
/// id-pkix-ocsp-nonce, 1.3.6.1.5.5.7.48.1.2
pub(crate) const OCSP_NONCE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 2];
/// id-pkix-ocsp-nocheck, 1.3.6.1.5.5.7.48.1.5
pub(crate) const OCSP_NOCHECK: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 5];

/// id-ecPublicKey, 1.2.840.10045.2.1
pub(crate) const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// id-Ed25519, 1.3.101.112
pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 112];
/// rsaEncryption, 1.2.840.113549.1.1.1
pub(crate) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];

/// id-sha1, 1.3.14.3.2.26
pub(crate) const SHA1: &[u8] = &[0x2b, 14, 3, 2, 26];
/// id-sha256, 2.16.840.1.101.3.4.2.1
pub(crate) const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];

/// The dotted form, for messages; `?` stands for bytes that are not an OBJECT IDENTIFIER.
pub(crate) fn dotted(content: &[u8]) -> String {
    let mut arcs = Vec::new();
    let mut value: u64 = 0;
    for &byte in content.iter().take(32) {
        if value >> 56 != 0 {
            return "?".to_owned();
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                let first = (value / 40).min(2);
                arcs.push(first);
                value -= first * 40;
            }
            arcs.push(value);
            value = 0;
        }
    }
    if arcs.is_empty() {
        return "?".to_owned();
    }
    arcs.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_forms_are_those_of_the_standards() {
        assert_eq!(dotted(KEY_USAGE), "2.5.29.15");
        assert_eq!(dotted(OCSP_NOCHECK), "1.3.6.1.5.5.7.48.1.5");
        assert_eq!(dotted(RSA), "1.2.840.113549.1.1.1");
        assert_eq!(dotted(SHA256), "2.16.840.1.101.3.4.2.1");
        assert_eq!(dotted(&[]), "?");
        assert_eq!(dotted(&[0xff; 20]), "?");
    }
}
