//! Numbers and hashes as the C2SP texts spell them: one spelling for each value.

use chancery_types::Digest;
use data_encoding::BASE64;

/// A decimal number without sign, leading zero or anything else around it, or nothing.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || text.bytes().next().is_some_and(|first| matches!(first, b'1'..=b'9'));
    // `u64::from_str` alone would also take a plus sign and leading zeros.
    if canonical && text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Standard base64 in its one spelling: padded at the end alone, unused bits zero.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    // The decoder takes concatenated padded blocks (`AAA=AAA=`), which would be a second spelling.
    (BASE64.encode(&bytes) == text).then_some(bytes)
}

/// A hash in base64.
pub(crate) fn hash(text: &str) -> Option<Digest> {
    // 32 bytes are 44 characters; longer texts need not be decoded.
    if text.len() != 44 {
        return None;
    }
    base64(text)?.try_into().ok().map(Digest::from_array)
}

/// The base64 of a hash.
pub(crate) fn print_hash(hash: &Digest) -> String {
    BASE64.encode(hash.as_bytes())
}

/// The beginning of a hostile text, fit for an error message.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_the_canonical_spelling_of_a_number() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for refused in
            ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "0x1", "1.0", "١", "18446744073709551616"]
        {
            assert_eq!(decimal(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn takes_only_the_canonical_spelling_of_a_hash() {
        let text = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(hash(text).map(|found| print_hash(&found)).as_deref(), Some(text));
        let trailing_bits = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=";
        let unpadded = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
        let url_safe = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=";
        let short = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hS";
        let spaced = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuF =";
        for refused in [trailing_bits, unpadded, url_safe, short, spaced, ""] {
            assert_eq!(hash(refused), None, "{refused:?}");
        }
    }
}
