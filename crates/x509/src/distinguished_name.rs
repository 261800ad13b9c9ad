//! Distinguished names: built from a few attributes, kept as DER, shown as RFC 4514 has them.
//!
//! Names are compared byte by byte, as path validation in practice does, so a name is written once and copied
//! ever after. Multi-valued RDNs can be read and shown but not made.

use std::fmt;
use std::str::FromStr;

use crate::reader::{DerError, Reader};
use crate::writer::Writer;
use crate::{oid, tag};

/// Why a distinguished name cannot be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DistinguishedNameError {
    /// The bytes are not a Name.
    #[error("not a distinguished name: {0}")]
    Der(#[from] DerError),
    /// A part of the text is not `TYPE=value`, or has a bad escape.
    #[error(
        "{0:?} is not TYPE=value with a comma, plus or backslash inside the value escaped by a backslash"
    )]
    Syntax(String),
    /// An attribute type that we do not write.
    #[error("{0:?} is not an attribute that we write; use CN, O, OU, C, ST, L, DC, UID or serialNumber")]
    Attribute(String),
    /// A value is empty, too long, or has characters its attribute does not allow.
    #[error("{attribute} takes {allowed}, this is {value:?}")]
    Value {
        /// The attribute.
        attribute: &'static str,
        /// What it takes.
        allowed: &'static str,
        /// The beginning of the value.
        value: String,
    },
    /// More attributes than we write or read.
    #[error("{count} attributes, at most {limit} are allowed")]
    TooMany {
        /// Attributes given.
        count: usize,
        /// Attributes allowed.
        limit: usize,
    },
}

/// A Name (RFC 5280 section 4.1.2.4) in DER. Text form: RFC 4514, most specific attribute first.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DistinguishedName(Vec<u8>);

impl DistinguishedName {
    /// Most attributes in a name.
    pub const MAX_ATTRIBUTES: usize = 16;
    /// Largest encoding that is read, in bytes.
    pub const MAX_BYTES: usize = 2048;

    /// The name without attributes: what a certificate has whose names are all in its subjectAltName.
    #[must_use]
    pub fn empty() -> Self {
        Self(vec![tag::SEQUENCE, 0])
    }

    /// `CN=` this and nothing else.
    ///
    /// # Errors
    /// [`DistinguishedNameError::Value`] when it is empty or has more than 64 characters.
    pub fn common_name(value: &str) -> Result<Self, DistinguishedNameError> {
        Self::from_attributes(&[("CN", value)])
    }

    /// A name of these attributes, the most specific first, as they are read aloud: `[("CN", ..), ("O", ..)]`.
    ///
    /// # Errors
    /// [`DistinguishedNameError`] naming the attribute that is wrong.
    pub fn from_attributes(attributes: &[(&str, &str)]) -> Result<Self, DistinguishedNameError> {
        if attributes.len() > Self::MAX_ATTRIBUTES {
            return Err(DistinguishedNameError::TooMany {
                count: attributes.len(),
                limit: Self::MAX_ATTRIBUTES,
            });
        }
        let checked: Vec<_> = attributes
            .iter()
            .map(|(name, value)| AttributeType::named(name)?.check(value).map(|kind| (kind, *value)))
            .collect::<Result<_, _>>()?;
        let mut writer = Writer::with_capacity(128);
        writer.sequence(|name| {
            for (kind, value) in checked.iter().rev() {
                name.nested(tag::SET, |set| {
                    set.sequence(|pair| {
                        pair.oid(kind.oid);
                        pair.value(kind.string, value.as_bytes());
                    });
                });
            }
        });
        Ok(Self(writer.finish()))
    }

    /// Reads a DER Name.
    ///
    /// # Errors
    /// [`DistinguishedNameError`] when it is not one, or too large.
    pub fn from_der(der: &[u8]) -> Result<Self, DistinguishedNameError> {
        check(der)?;
        Ok(Self(der.to_vec()))
    }

    /// The DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// Whether it has no attributes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [tag::SEQUENCE, 0]
    }

    /// The most specific common name, if there is one.
    #[must_use]
    pub fn common_name_text(&self) -> Option<String> {
        common_names(&self.0).pop()
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&display(&self.0))
    }
}

impl fmt::Debug for DistinguishedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DistinguishedName({self})")
    }
}

impl FromStr for DistinguishedName {
    type Err = DistinguishedNameError;

    /// Reads `CN=web,O=Example`: RFC 4514 without multi-valued RDNs and without `#` values.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::empty());
        }
        if text.len() > Self::MAX_BYTES {
            return Err(DerError::TooLong { got: text.len(), limit: Self::MAX_BYTES }.into());
        }
        let pairs: Vec<(String, String)> =
            split_unescaped(text).into_iter().map(attribute_of).collect::<Result<_, _>>()?;
        let borrowed: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Self::from_attributes(&borrowed)
    }
}

/// Checks that bytes are a Name.
pub(crate) fn check(der: &[u8]) -> Result<(), DistinguishedNameError> {
    if der.len() > DistinguishedName::MAX_BYTES {
        return Err(DerError::TooLong { got: der.len(), limit: DistinguishedName::MAX_BYTES }.into());
    }
    let mut name = Reader::single(der, tag::SEQUENCE)?.reader();
    let mut count = 0;
    while !name.is_empty() {
        let set = name.expect(tag::SET)?;
        let mut attributes = set.reader();
        if attributes.is_empty() {
            return Err(set.invalid("relative distinguished name").into());
        }
        while !attributes.is_empty() {
            let mut pair = attributes.sequence()?;
            pair.oid()?;
            pair.value()?;
            pair.finish()?;
            count += 1;
        }
    }
    if count > DistinguishedName::MAX_ATTRIBUTES {
        return Err(DistinguishedNameError::TooMany { count, limit: DistinguishedName::MAX_ATTRIBUTES });
    }
    Ok(())
}

/// The RFC 4514 text of a Name.
pub(crate) fn display(der: &[u8]) -> String {
    let mut parts = relative_names(der);
    parts.reverse();
    parts.join(",")
}

/// The common names in a Name, the most general first.
pub(crate) fn common_names(der: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(value) = Reader::single(der, tag::SEQUENCE) else { return found };
    let mut name = value.reader();
    while let Ok(set) = name.expect(tag::SET) {
        let mut attributes = set.reader();
        while let Ok(mut pair) = attributes.sequence() {
            if let (Ok(COMMON_NAME), Ok(value)) = (pair.oid(), pair.value()) {
                found.push(String::from_utf8_lossy(value.content).into_owned());
            }
        }
    }
    found
}

fn relative_names(der: &[u8]) -> Vec<String> {
    let mut parts = Vec::new();
    let Ok(value) = Reader::single(der, tag::SEQUENCE) else { return parts };
    let mut name = value.reader();
    while let Ok(set) = name.expect(tag::SET) {
        let mut attributes = set.reader();
        let mut pairs = Vec::new();
        while let Ok(mut pair) = attributes.sequence() {
            if let (Ok(kind), Ok(value)) = (pair.oid(), pair.value()) {
                pairs.push(attribute_text(kind, value.tag, value.content, value.whole));
            }
        }
        parts.push(pairs.join("+"));
    }
    parts
}

fn attribute_text(kind: &[u8], string: u8, content: &[u8], whole: &[u8]) -> String {
    let known = ATTRIBUTES.iter().find(|attribute| attribute.oid == kind);
    let text = matches!(string, tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING)
        .then(|| std::str::from_utf8(content).ok())
        .flatten();
    match (known, text) {
        (Some(attribute), Some(text)) => format!("{}={}", attribute.name, escape(text)),
        _ => {
            let hex: String = whole.iter().map(|byte| format!("{byte:02x}")).collect();
            let name = known.map_or_else(|| oid::dotted(kind), |attribute| attribute.name.to_owned());
            format!("{name}=#{hex}")
        }
    }
}

fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            ' ' if index == 0 || index == last => text.push_str("\\ "),
            '#' if index == 0 => text.push_str("\\#"),
            control if control.is_control() => {
                let mut bytes = [0; 4];
                for byte in control.encode_utf8(&mut bytes).bytes() {
                    text.push_str(&format!("\\{byte:02x}"));
                }
            }
            other => text.push(other),
        }
    }
    text
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn attribute_of(part: &str) -> Result<(String, String), DistinguishedNameError> {
    let error = || DistinguishedNameError::Syntax(part.chars().take(80).collect());
    let (name, value) = part.split_once('=').ok_or_else(error)?;
    let mut bytes = Vec::with_capacity(value.len());
    // Only spaces are padding: a no-break space belongs to the value.
    let mut rest = value.trim_start_matches(' ').bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => match rest.next().ok_or_else(error)? {
                special @ (b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b' ' | b'#' | b'=') => {
                    bytes.push(special);
                }
                high => {
                    let low = rest.next().ok_or_else(error)?;
                    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(error);
                    let both = digit(high)? * 16 + digit(low)?;
                    bytes.push(u8::try_from(both).map_err(|_| error())?);
                }
            },
            b'+' | b'"' | b';' | b'<' | b'>' => return Err(error()),
            other => bytes.push(other),
        }
    }
    let value = String::from_utf8(bytes).map_err(|_| error())?;
    Ok((name.trim().to_owned(), value))
}

struct AttributeType {
    name: &'static str,
    oid: &'static [u8],
    string: u8,
    longest: usize,
    allowed: &'static str,
}

impl AttributeType {
    fn named(name: &str) -> Result<&'static Self, DistinguishedNameError> {
        ATTRIBUTES
            .iter()
            .find(|attribute| attribute.name.eq_ignore_ascii_case(name))
            .ok_or_else(|| DistinguishedNameError::Attribute(name.chars().take(40).collect()))
    }

    fn check(&'static self, value: &str) -> Result<&'static Self, DistinguishedNameError> {
        let printable = |c: char| c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(c);
        let characters_fit = match self.string {
            tag::PRINTABLE_STRING => value.chars().all(printable),
            tag::IA5_STRING => value.chars().all(|c| c.is_ascii_graphic()),
            _ => !value.chars().any(char::is_control),
        };
        let count = value.chars().count();
        let country = self.name == "C";
        let country_fits = !country || (count == 2 && value.chars().all(|c| c.is_ascii_uppercase()));
        if count == 0 || count > self.longest || !characters_fit || !country_fits {
            return Err(DistinguishedNameError::Value {
                attribute: self.name,
                allowed: self.allowed,
                value: value.chars().take(80).collect(),
            });
        }
        Ok(self)
    }
}

const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// Upper bounds: RFC 5280 appendix A.1.
const ATTRIBUTES: &[AttributeType] = &[
    AttributeType {
        name: "CN",
        oid: COMMON_NAME,
        string: tag::UTF8_STRING,
        longest: 64,
        allowed: "1 to 64 characters",
    },
    AttributeType {
        name: "O",
        oid: &[0x55, 4, 10],
        string: tag::UTF8_STRING,
        longest: 64,
        allowed: "1 to 64 characters",
    },
    AttributeType {
        name: "OU",
        oid: &[0x55, 4, 11],
        string: tag::UTF8_STRING,
        longest: 64,
        allowed: "1 to 64 characters",
    },
    AttributeType {
        name: "C",
        oid: &[0x55, 4, 6],
        string: tag::PRINTABLE_STRING,
        longest: 2,
        allowed: "two capital letters",
    },
    AttributeType {
        name: "ST",
        oid: &[0x55, 4, 8],
        string: tag::UTF8_STRING,
        longest: 128,
        allowed: "1 to 128 characters",
    },
    AttributeType {
        name: "L",
        oid: &[0x55, 4, 7],
        string: tag::UTF8_STRING,
        longest: 128,
        allowed: "1 to 128 characters",
    },
    AttributeType {
        name: "DC",
        oid: &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25],
        string: tag::IA5_STRING,
        longest: 63,
        allowed: "1 to 63 characters of ASCII",
    },
    AttributeType {
        name: "UID",
        oid: &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1],
        string: tag::UTF8_STRING,
        longest: 256,
        allowed: "1 to 256 characters",
    },
    AttributeType {
        name: "serialNumber",
        oid: &[0x55, 4, 5],
        string: tag::PRINTABLE_STRING,
        longest: 64,
        allowed: "1 to 64 letters, digits, spaces and '()+,-./:=?",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_most_specific_attribute_is_encoded_last_and_shown_first() {
        let name: DistinguishedName = "CN=web,O=Example".parse().unwrap();
        let der = [
            0x30, 0x20, 0x31, 0x10, 0x30, 0x0e, 6, 3, 0x55, 4, 10, 0x0c, 7, b'E', b'x', b'a', b'm', b'p',
            b'l', b'e', 0x31, 0x0c, 0x30, 0x0a, 6, 3, 0x55, 4, 3, 0x0c, 3, b'w', b'e', b'b',
        ];
        assert_eq!(name.der(), der);
        assert_eq!(name.to_string(), "CN=web,O=Example");
        assert_eq!(name.common_name_text().as_deref(), Some("web"));
        assert_eq!(DistinguishedName::from_der(&der).unwrap(), name);
    }

    #[test]
    fn special_characters_are_escaped_and_read_back() {
        let name = DistinguishedName::from_attributes(&[("CN", " #a,b+c\\ é "), ("O", "#x\"")]).unwrap();
        assert_eq!(name.to_string(), "CN=\\ #a\\,b\\+c\\\\ é\\ ,O=\\#x\\\"");
        assert_eq!(name.to_string().parse::<DistinguishedName>().unwrap(), name);
        let spaces = DistinguishedName::common_name("\u{a0}").unwrap();
        assert_eq!(spaces.to_string().parse::<DistinguishedName>().unwrap(), spaces);
    }

    #[test]
    fn refuses_names_outside_the_bounds_of_rfc_5280() {
        for text in ["CN=", "C=USA", "C=us", "X=1", "CN", "CN=a\\", "CN=a\\zz", "CN=a+O=b", "DC=é"] {
            assert!(text.parse::<DistinguishedName>().is_err(), "{text}");
        }
        assert!(DistinguishedName::common_name(&"a".repeat(65)).is_err());
        assert!(DistinguishedName::from_attributes(&[("CN", "a"); 17]).is_err());
        assert!(DistinguishedName::from_der(&[0x30, 2, 0x31, 0]).is_err());
        assert!(DistinguishedName::empty().is_empty());
    }

    proptest! {
        #[test]
        fn any_text_and_bytes_are_read_without_panic(
            text in "\\PC{0,60}",
            der in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Ok(name) = text.parse::<DistinguishedName>() {
                prop_assert!(DistinguishedName::from_der(name.der()).is_ok());
            }
            let _ = (DistinguishedName::from_der(&der), display(&der), common_names(&der));
        }

        #[test]
        fn what_is_shown_reads_back(common in "[^\\p{C}]{1,40}", organisation in "[^\\p{C}]{1,40}") {
            let name = DistinguishedName::from_attributes(&[("CN", &common), ("O", &organisation)]).unwrap();
            prop_assert_eq!(name.to_string().parse::<DistinguishedName>().unwrap(), name);
        }
    }
}
