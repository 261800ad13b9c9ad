//! As much of DER as a key store needs: tag, length, value, nested.

/// One value of a tag, whose content is these parts one after the other.
pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(length + 6);
    bytes.push(tag);
    if length < 0x80 {
        bytes.push(u8::try_from(length).expect("below 128"));
    } else {
        let octets: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|octet| *octet == 0).collect();
        bytes.push(0x80 | u8::try_from(octets.len()).expect("a length has at most eight octets"));
        bytes.extend(octets);
    }
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

pub(super) fn set(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x31, parts)
}

pub(super) fn octets(content: &[u8]) -> Vec<u8> {
    tlv(0x04, &[content])
}

/// `[0] EXPLICIT`.
pub(super) fn explicit(content: &[u8]) -> Vec<u8> {
    tlv(0xa0, &[content])
}

pub(super) fn oid(content: &[u8]) -> Vec<u8> {
    tlv(0x06, &[content])
}

pub(super) fn integer(value: u32) -> Vec<u8> {
    let mut content: Vec<u8> = value.to_be_bytes().into_iter().skip_while(|octet| *octet == 0).collect();
    if content.first().is_none_or(|octet| octet & 0x80 != 0) {
        content.insert(0, 0);
    }
    tlv(0x02, &[&content])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_integers_are_minimal() {
        assert_eq!(integer(0), [2, 1, 0]);
        assert_eq!(integer(128), [2, 2, 0, 128]);
        assert_eq!(octets(&[7; 127])[..2], [4, 127]);
        assert_eq!(octets(&[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(octets(&[7; 256])[..4], [4, 0x82, 1, 0]);
    }
}
