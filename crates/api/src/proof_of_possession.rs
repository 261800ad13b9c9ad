//! The exact bytes that a caller signs to prove that it holds a key.
//!
//! Both sides compute them here. Each begins with a line of its own, so that a signature made for one purpose
//! is worth nothing for another, and each binds what the proof is used for, so that a proof that was
//! overheard cannot be used with another request.

/// What the key of a foreign certificate signs so that it may enrol: the server's nonce and the request.
///
/// `csr_sha256` is the SHA-256 of the certificate request's DER.
#[must_use]
pub fn enrollment_message(nonce: &[u8], csr_sha256: &[u8; 32]) -> Vec<u8> {
    message("chancery proof of possession for enrolment, version 1\n", nonce, csr_sha256)
}

/// What a leaked key signs so that every certificate with it is revoked.
///
/// `spki_sha256` is the SHA-256 of the key's SubjectPublicKeyInfo.
#[must_use]
pub fn key_compromise_message(nonce: &[u8], spki_sha256: &[u8; 32]) -> Vec<u8> {
    message("chancery proof of key compromise, version 1\n", nonce, spki_sha256)
}

fn message(purpose: &str, nonce: &[u8], subject: &[u8; 32]) -> Vec<u8> {
    let length = u32::try_from(nonce.len()).expect("a nonce is at most a few kilobytes");
    let mut message = Vec::with_capacity(purpose.len() + 4 + nonce.len() + subject.len());
    message.extend_from_slice(purpose.as_bytes());
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(nonce);
    message.extend_from_slice(subject);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_for_one_purpose_nonce_or_subject_is_none_for_another() {
        let message = enrollment_message(b"nonce", &[1; 32]);
        assert_ne!(message, key_compromise_message(b"nonce", &[1; 32]));
        assert_ne!(message, enrollment_message(b"other", &[1; 32]));
        assert_ne!(message, enrollment_message(b"nonce", &[2; 32]));
    }

    #[test]
    fn golden_bytes() {
        let expected =
            [b"chancery proof of key compromise, version 1\n".as_slice(), &[0, 0, 0, 2], b"no", &[3; 32]]
                .concat();
        assert_eq!(key_compromise_message(b"no", &[3; 32]), expected);
    }
}
