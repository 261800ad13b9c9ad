//! Bech32 as BIP 173 has it, without its limit of 90 characters: how age writes keys.

const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM: usize = 6;

/// Writes 32 bytes under a prefix, in lower case.
pub(super) fn encode(prefix: &str, key: &[u8; 32]) -> String {
    let mut digits = regroup(key, 8, 5, true).expect("every byte has eight bits");
    let mut checked = expand(prefix.as_bytes());
    checked.extend_from_slice(&digits);
    checked.extend([0; CHECKSUM]);
    let sum = polymod(&checked) ^ 1;
    digits.extend((0..CHECKSUM).map(|at| (sum >> (5 * (CHECKSUM - 1 - at)) & 31) as u8));
    let digits = digits.iter().map(|digit| char::from(CHARSET[usize::from(*digit)]));
    format!("{prefix}1{}", digits.collect::<String>())
}

/// The bytes of a text in one case with this prefix; nothing when it is anything else.
pub(super) fn decode(prefix: &str, text: &str) -> Option<[u8; 32]> {
    let is_mixed = text.bytes().any(|byte| byte.is_ascii_lowercase())
        && text.bytes().any(|byte| byte.is_ascii_uppercase());
    let text = text.to_ascii_lowercase();
    let (found, digits) = text.rsplit_once('1')?;
    if is_mixed || found != prefix || digits.len() < CHECKSUM {
        return None;
    }
    let digit =
        |byte: u8| CHARSET.iter().position(|known| *known == byte).and_then(|at| u8::try_from(at).ok());
    let digits: Vec<u8> = digits.bytes().map(digit).collect::<Option<_>>()?;
    let mut checked = expand(prefix.as_bytes());
    checked.extend_from_slice(&digits);
    if polymod(&checked) != 1 {
        return None;
    }
    regroup(&digits[..digits.len() - CHECKSUM], 5, 8, false)?.try_into().ok()
}

/// The prefix as the checksum sees it.
fn expand(prefix: &[u8]) -> Vec<u8> {
    let high = prefix.iter().map(|byte| byte >> 5);
    high.chain([0]).chain(prefix.iter().map(|byte| byte & 31)).collect()
}

fn polymod(digits: &[u8]) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    digits.iter().fold(1, |sum, digit| {
        let (top, mut sum) = (sum >> 25, (sum & 0x1ff_ffff) << 5 ^ u32::from(*digit));
        for (at, word) in GENERATOR.iter().enumerate() {
            if top >> at & 1 == 1 {
                sum ^= word;
            }
        }
        sum
    })
}

/// The same bits in groups of another length. What is left over is filled with zeros, or has to be zeros.
fn regroup(groups: &[u8], from: u32, to: u32, fill: bool) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut regrouped) = (0_u32, 0, Vec::new());
    for group in groups {
        bits = (bits << from | u32::from(*group)) & 0xfff;
        count += from;
        while count >= to {
            count -= to;
            regrouped.push(u8::try_from(bits >> count & ((1 << to) - 1)).ok()?);
        }
    }
    let rest = bits & ((1 << count) - 1);
    if fill && count > 0 {
        regrouped.push(u8::try_from(rest << (to - count)).ok()?);
    } else if rest != 0 || count >= from {
        return None;
    }
    Some(regrouped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_and_every_changed_character_noticed() {
        let key: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7 % 251).unwrap());
        let text = encode("age", &key);
        assert_eq!(decode("age", &text), Some(key));
        assert_eq!(decode("age", &text.to_uppercase()), Some(key));
        assert_eq!(decode("agee", &text), None);
        for at in 4..text.len() {
            for other in ["q", "p", "7", "b", "é"] {
                if &text[at..=at] != other {
                    let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                    assert_eq!(decode("age", &changed), None, "{changed}");
                }
            }
            assert_eq!(decode("age", &text[..at]), None);
        }
        let mixed = format!("AGE{}", &text[3..]);
        assert_eq!(decode("age", &mixed), None);
    }
}
