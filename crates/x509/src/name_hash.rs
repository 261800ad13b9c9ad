//! The hash of a name by which OpenSSL finds files in a directory (`-CApath`): what `openssl crl -hash` prints.

use sha1::{Digest as _, Sha1};

use crate::reader::{DerError, Reader};
use crate::tag;
use crate::writer::Writer;

/// The first four bytes of the SHA-1 of a name in OpenSSL's canonical form, little-endian: `{:08x}.r0` is the file.
///
/// The canonical form has no outer SEQUENCE, and text in it is UTF-8 in lower case (ASCII alone), without spaces
/// around it and with one where there were several.
///
/// # Errors
/// [`DerError`] when it is not a Name.
pub fn openssl_name_hash(name_der: &[u8]) -> Result<u32, DerError> {
    let mut names = Reader::single(name_der, tag::SEQUENCE)?.reader();
    let mut canonical = Writer::with_capacity(name_der.len());
    while !names.is_empty() {
        let mut attributes = names.expect(tag::SET)?.reader();
        let mut set = Vec::new();
        while !attributes.is_empty() {
            let mut attribute = attributes.expect(tag::SEQUENCE)?.reader();
            let kind = attribute.oid()?;
            let value = attribute.value()?;
            attribute.finish()?;
            let mut encoded = Writer::with_capacity(value.whole.len() + 16);
            encoded.sequence(|sequence| {
                sequence.oid(kind);
                if TEXT.contains(&value.tag) {
                    sequence.value(tag::UTF8_STRING, &canonical_text(value.content));
                } else {
                    sequence.raw(value.whole);
                }
            });
            set.push(encoded.finish());
        }
        set.sort();
        canonical.value(tag::SET, &set.concat());
    }
    let hash = Sha1::digest(canonical.finish());
    Ok(u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]))
}

fn canonical_text(text: &[u8]) -> Vec<u8> {
    let words = text.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    words.map(<[u8]>::to_ascii_lowercase).collect::<Vec<_>>().join(&b' ')
}

/// The kinds of text in names that Chancery reads; those of two and four bytes a character are compared as they are.
const TEXT: [u8; 3] = [tag::UTF8_STRING, tag::PRINTABLE_STRING, tag::IA5_STRING];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DistinguishedName;

    #[test]
    fn case_and_spaces_do_not_matter() {
        let hash =
            |text: &str| openssl_name_hash(DistinguishedName::common_name(text).unwrap().der()).unwrap();
        assert_eq!(hash("Example Root"), hash("example  ROOT"));
        assert_ne!(hash("Example Root"), hash("Example Boot"));
        assert!(openssl_name_hash(&[0x30, 2, 0x31, 1]).is_err());
    }
}
