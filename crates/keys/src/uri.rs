//! PKCS#11 URIs (RFC 7512): which token, which key, which module, and where the PIN is.
//!
//! Read strictly: an attribute that we would have to pass over is refused, because a URI that selects less than
//! its author meant selects the wrong key. The PIN itself never stands in a URI; URIs end up in process lists,
//! logs and version control.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A text is not a PKCS#11 URI that we use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Another scheme.
    #[error("a PKCS#11 URI begins with \"pkcs11:\"")]
    Scheme,
    /// Not `name=value`.
    #[error("{0:?} is not of the form name=value")]
    NotAnAttribute(String),
    /// The same attribute twice (RFC 7512 section 2.3 forbids it).
    #[error("attribute {0:?} is given twice")]
    Repeated(String),
    /// A character that must be written `%XX`, or a `%` without two hexadecimal digits.
    #[error(
        "attribute {0:?} has a character that must be written %XX, or a % that is not followed by two hexadecimal digits"
    )]
    Encoding(String),
    /// Bytes that are not text where text is expected.
    #[error("attribute {0:?} is not UTF-8")]
    NotText(String),
    /// An empty value.
    #[error("attribute {0:?} is empty")]
    Empty(String),
    /// The PIN in the URI.
    #[error(
        "the PIN does not belong in the URI, where others see it; put it in a file of mode 600 and write \
         pin-source=/path/to/file, or give it as the passphrase"
    )]
    PinValue,
    /// `pin-source=|command`, which RFC 7512 allows and we do not run.
    #[error("pin-source must be a file (an absolute path or file:/path), this is {0:?}")]
    PinSource(String),
    /// A module by name, which needs p11-kit's configuration to find.
    #[error("module-name is not supported; write module-path=/path/to/module.so")]
    ModuleName,
    /// A module path that depends on the working directory.
    #[error("module-path must be absolute, this is {0:?}")]
    ModulePath(String),
    /// `slot-id` that is no number.
    #[error("slot-id must be a decimal number, this is {0:?}")]
    SlotId(String),
    /// `type` other than `private`.
    #[error("type must be \"private\" or left out, this is {0:?}")]
    Type(String),
    /// An attribute of RFC 7512 that we do not select by, or one that does not exist.
    #[error(
        "attribute {0:?} is not supported; use token, serial, manufacturer, model, slot-id, object, id, type \
         before the \"?\" and module-path, pin-source after it"
    )]
    Unsupported(String),
}

/// Which key in which token of which module.
///
/// Every attribute that is present must match. A key is found by `object` (its label), `id`, or both; at least
/// one is needed to open or make one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Pkcs11Uri {
    /// The token's label (`CK_TOKEN_INFO.label`).
    pub token: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// The token's manufacturer.
    pub manufacturer: Option<String>,
    /// The token's model.
    pub model: Option<String>,
    /// The slot's number; it changes on some modules from start to start, so prefer `token` or `serial`.
    pub slot_id: Option<u64>,
    /// The key's label (`CKA_LABEL`).
    pub object: Option<String>,
    /// The key's identifier (`CKA_ID`).
    pub id: Option<Vec<u8>>,
    /// The shared library to load.
    pub module_path: Option<PathBuf>,
    /// A file whose only line is the PIN.
    pub pin_source: Option<PathBuf>,
}

impl Pkcs11Uri {
    fn set(&mut self, name: &str, value: &str, query: bool) -> Result<(), UriError> {
        match (query, name) {
            (true, "pin-value") => return Err(UriError::PinValue),
            (true, "module-name") => return Err(UriError::ModuleName),
            _ => {}
        }
        let bytes = decode(name, value)?;
        if bytes.is_empty() {
            return Err(UriError::Empty(name.to_owned()));
        }
        if !query && name == "id" {
            return fill(&mut self.id, name, bytes);
        }
        let text = String::from_utf8(bytes).map_err(|_| UriError::NotText(name.to_owned()))?;
        match (query, name) {
            (false, "token") => fill(&mut self.token, name, text),
            (false, "serial") => fill(&mut self.serial, name, text),
            (false, "manufacturer") => fill(&mut self.manufacturer, name, text),
            (false, "model") => fill(&mut self.model, name, text),
            (false, "object") => fill(&mut self.object, name, text),
            (false, "slot-id") => {
                let number = text.parse().map_err(|_| UriError::SlotId(text))?;
                fill(&mut self.slot_id, name, number)
            }
            (false, "type") if text == "private" => Ok(()),
            (false, "type") => Err(UriError::Type(text)),
            (true, "module-path") if text.starts_with('/') => {
                fill(&mut self.module_path, name, PathBuf::from(text))
            }
            (true, "module-path") => Err(UriError::ModulePath(text)),
            (true, "pin-source") => fill(&mut self.pin_source, name, pin_file(text)?),
            _ => Err(UriError::Unsupported(name.to_owned())),
        }
    }

    /// The URI without module and PIN source: the name of the key for messages.
    #[must_use]
    pub fn key_name(&self) -> String {
        Self { module_path: None, pin_source: None, ..self.clone() }.to_string()
    }
}

impl FromStr for Pkcs11Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix(SCHEME).ok_or(UriError::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self::default();
        for (attributes, separator, in_query) in [(path, ';', false), (query, '&', true)] {
            for attribute in attributes.split(separator).filter(|_| !attributes.is_empty()) {
                // Not shown whole: what has no name may be a PIN.
                let (name, value) = attribute
                    .split_once('=')
                    .ok_or_else(|| UriError::NotAnAttribute(attribute.chars().take(8).collect()))?;
                uri.set(name, value, in_query)?;
            }
        }
        Ok(uri)
    }
}

impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot_id = self.slot_id.map(|slot| slot.to_string());
        let path = [
            ("token", self.token.as_deref().map(str::as_bytes)),
            ("serial", self.serial.as_deref().map(str::as_bytes)),
            ("manufacturer", self.manufacturer.as_deref().map(str::as_bytes)),
            ("model", self.model.as_deref().map(str::as_bytes)),
            ("slot-id", slot_id.as_deref().map(str::as_bytes)),
            ("object", self.object.as_deref().map(str::as_bytes)),
            ("id", self.id.as_deref()),
        ];
        let query = [
            ("module-path", self.module_path.as_deref().map(|path| path.as_os_str().as_encoded_bytes())),
            ("pin-source", self.pin_source.as_deref().map(|path| path.as_os_str().as_encoded_bytes())),
        ];
        formatter.write_str(SCHEME)?;
        write_attributes(formatter, &path, "", ";")?;
        write_attributes(formatter, &query, "?", "&")
    }
}

fn fill<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), UriError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(UriError::Repeated(name.to_owned())),
    }
}

fn pin_file(text: String) -> Result<PathBuf, UriError> {
    let path = text.strip_prefix("file:").unwrap_or(&text);
    let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    if path.starts_with('/') && !path.starts_with("//") {
        Ok(PathBuf::from(path))
    } else {
        Err(UriError::PinSource(text))
    }
}

fn decode(name: &str, value: &str) -> Result<Vec<u8>, UriError> {
    percent_decode(value, is_uri_character).ok_or_else(|| UriError::Encoding(name.to_owned()))
}

/// Decodes `%XX`; every other byte must be one that this position allows.
pub(crate) fn percent_decode(text: &str, allowed: fn(u8) -> bool) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = hex(bytes.next()?)?;
                let low = hex(bytes.next()?)?;
                decoded.push(high << 4 | low);
            }
            other if allowed(other) => decoded.push(other),
            _ => return None,
        }
    }
    Some(decoded)
}

/// Writes bytes so that [`percent_decode`] gives them back.
pub(crate) fn percent_encode(
    formatter: &mut fmt::Formatter<'_>,
    bytes: &[u8],
    plain: fn(u8) -> bool,
) -> fmt::Result {
    for &byte in bytes {
        if plain(byte) {
            write!(formatter, "{}", char::from(byte))?;
        } else {
            write!(formatter, "%{byte:02X}")?;
        }
    }
    Ok(())
}

/// RFC 3986 section 2.3.
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// `pk11-pchar` and `pk11-qchar` of RFC 7512 section 2.3, less the separators of either side.
fn is_uri_character(byte: u8) -> bool {
    is_unreserved(byte) || b":[]@!$'()*+,=/|".contains(&byte)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn write_attributes(
    formatter: &mut fmt::Formatter<'_>,
    attributes: &[(&str, Option<&[u8]>)],
    first: &str,
    next: &str,
) -> fmt::Result {
    let mut separator = first;
    for (name, value) in attributes {
        let Some(value) = value else { continue };
        write!(formatter, "{separator}{name}=")?;
        percent_encode(formatter, value, |byte| is_unreserved(byte) || byte == b'/')?;
        separator = next;
    }
    Ok(())
}

const SCHEME: &str = "pkcs11:";

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> UriError {
        text.parse::<Pkcs11Uri>().unwrap_err()
    }

    #[test]
    fn reads_what_rfc_7512_shows() {
        let uri: Pkcs11Uri =
            "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;\
             object=my-certificate;type=private;id=%69%95%3E%5C%F4%BD%EC%91;serial=;slot-id=7\
             ?module-path=/usr/lib/p11.so&pin-source=file:/etc/token_pin"
                .replace("serial=;", "serial=1;")
                .parse()
                .unwrap();
        assert_eq!(uri.token.as_deref(), Some("The Software PKCS#11 Softtoken"));
        assert_eq!(uri.manufacturer.as_deref(), Some("Snake Oil, Inc."));
        assert_eq!(uri.id.as_deref(), Some([0x69, 0x95, 0x3e, 0x5c, 0xf4, 0xbd, 0xec, 0x91].as_slice()));
        assert_eq!(uri.slot_id, Some(7));
        assert_eq!(uri.module_path.as_deref(), Some(std::path::Path::new("/usr/lib/p11.so")));
        assert_eq!(uri.pin_source.as_deref(), Some(std::path::Path::new("/etc/token_pin")));
        assert_eq!(uri.to_string().parse::<Pkcs11Uri>().unwrap(), uri);
    }

    #[test]
    fn refuses_a_pin_in_the_uri_without_repeating_it() {
        let refusal = error("pkcs11:token=a;object=b?pin-value=123456");
        assert_eq!(refusal, UriError::PinValue);
        assert!(!refusal.to_string().contains("123456"));
        assert!(refusal.to_string().contains("pin-source"));
    }

    #[test]
    fn refuses_what_it_would_have_to_pass_over() {
        assert_eq!(error("pkcs11:library-version=3"), UriError::Unsupported("library-version".to_owned()));
        assert_eq!(error("pkcs11:slot-description=x"), UriError::Unsupported("slot-description".to_owned()));
        assert_eq!(error("pkcs11:module-path=/a"), UriError::Unsupported("module-path".to_owned()));
        assert_eq!(error("pkcs11:?token=a"), UriError::Unsupported("token".to_owned()));
        assert_eq!(error("pkcs11:?module-name=softhsm2"), UriError::ModuleName);
        assert_eq!(error("pkcs11:type=cert"), UriError::Type("cert".to_owned()));
    }

    #[test]
    fn refuses_malformed_attributes() {
        assert_eq!(error("pkcs:token=a"), UriError::Scheme);
        assert_eq!(error("pkcs11:token=a;token=a"), UriError::Repeated("token".to_owned()));
        assert_eq!(error("pkcs11:token=a b"), UriError::Encoding("token".to_owned()));
        assert_eq!(error("pkcs11:token=a%2"), UriError::Encoding("token".to_owned()));
        assert_eq!(error("pkcs11:token=a%zz"), UriError::Encoding("token".to_owned()));
        assert_eq!(error("pkcs11:token=%ff"), UriError::NotText("token".to_owned()));
        assert_eq!(error("pkcs11:token="), UriError::Empty("token".to_owned()));
        assert_eq!(error("pkcs11:token"), UriError::NotAnAttribute("token".to_owned()));
        assert_eq!(error("pkcs11:token=a;;object=b"), UriError::NotAnAttribute(String::new()));
        assert_eq!(error("pkcs11:slot-id=x"), UriError::SlotId("x".to_owned()));
    }

    #[test]
    fn refuses_relative_modules_and_pin_commands() {
        assert_eq!(error("pkcs11:?module-path=p11.so"), UriError::ModulePath("p11.so".to_owned()));
        assert_eq!(error("pkcs11:?pin-source=%7Ccat%20pin"), UriError::PinSource("|cat pin".to_owned()));
        assert_eq!(
            error("pkcs11:?pin-source=file://host/pin"),
            UriError::PinSource("file://host/pin".to_owned())
        );
        let uri: Pkcs11Uri = "pkcs11:?pin-source=file:///run/pin".parse().unwrap();
        assert_eq!(uri.pin_source, Some(PathBuf::from("/run/pin")));
    }

    #[test]
    fn names_the_key_without_module_and_pin_source() {
        let uri: Pkcs11Uri = "pkcs11:token=a;object=b?module-path=/m&pin-source=/p".parse().unwrap();
        assert_eq!(uri.key_name(), "pkcs11:token=a;object=b");
    }
}
