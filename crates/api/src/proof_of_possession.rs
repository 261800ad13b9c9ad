//! The exact bytes that a caller signs to prove that it holds a key.
//!
//! Form: for a label and then for each field, a 32-bit big-endian length and the bytes. The label keeps a
//! signature made for one purpose from being used for another; the trust domain keeps it from being used at
//! another authority; the key binds it to one request. The verifying side computes them by itself, and a test
//! of the server holds the two equal.

use chancery_types::{Digest, TrustDomain};

/// What the key of a foreign certificate signs so that it may enrol. `request_key` is the SHA-256 of the
/// SubjectPublicKeyInfo (DER) that the certificate is asked for.
#[must_use]
pub fn enrollment_message(nonce: &[u8], trust_domain: &TrustDomain, request_key: &Digest) -> Vec<u8> {
    message("chancery x509 proof of possession v1", nonce, trust_domain, request_key)
}

/// What a leaked key signs so that every certificate with it is revoked. `key` is the SHA-256 of its
/// SubjectPublicKeyInfo (DER).
#[must_use]
pub fn key_compromise_message(nonce: &[u8], trust_domain: &TrustDomain, key: &Digest) -> Vec<u8> {
    message("chancery proof of key compromise v1", nonce, trust_domain, key)
}

fn message(label: &str, nonce: &[u8], trust_domain: &TrustDomain, key: &Digest) -> Vec<u8> {
    let fields = [label.as_bytes(), nonce, trust_domain.as_str().as_bytes(), key.as_bytes()];
    let mut message = Vec::with_capacity(256);
    for field in fields {
        let length = u32::try_from(field.len()).expect("every field is at most a few kilobytes");
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(field);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> TrustDomain {
        TrustDomain::parse(name).unwrap()
    }

    #[test]
    fn a_proof_for_one_purpose_nonce_authority_or_key_is_none_for_another() {
        let key = Digest::from_array([1; 32]);
        let message = enrollment_message(b"nonce", &domain("example.org"), &key);
        assert_ne!(message, key_compromise_message(b"nonce", &domain("example.org"), &key));
        assert_ne!(message, enrollment_message(b"other", &domain("example.org"), &key));
        assert_ne!(message, enrollment_message(b"nonce", &domain("example.com"), &key));
        let other = Digest::from_array([2; 32]);
        assert_ne!(message, enrollment_message(b"nonce", &domain("example.org"), &other));
    }

    #[test]
    fn golden_bytes() {
        let expected = [
            b"\0\0\0\x23chancery proof of key compromise v1\0\0\0\x02no\0\0\0\x01e\0\0\0\x20".as_slice(),
            &[3; 32],
        ]
        .concat();
        let message = key_compromise_message(b"no", &domain("e"), &Digest::from_array([3; 32]));
        assert_eq!(message, expected);
    }
}
