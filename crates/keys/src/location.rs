//! Where a key is kept, as a configuration file or a command line says it.

use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::uri::{Pkcs11Uri, UriError, is_unreserved, percent_decode, percent_encode};

/// A text names no place where a key can be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Nothing.
    #[error(
        "a key location is a path, file:/path or pkcs11:token=...;object=...?module-path=..., not nothing"
    )]
    Empty,
    /// `file:` without an absolute path on this machine (RFC 8089).
    #[error("a file location is file:/path or file:///path, with other bytes than letters and digits as %XX")]
    File,
    /// A scheme without a custodian.
    #[error("keys are not kept in {0:?}; use file: or pkcs11: (write ./{0}... for a file of that name)")]
    UnknownScheme(String),
    /// A `pkcs11:` URI that cannot be used.
    #[error("{0}")]
    Pkcs11(#[from] UriError),
}

/// Where a private key is kept.
///
/// Written as a path, as `file:/path` (RFC 8089), or as `pkcs11:...` (RFC 7512, see [`Pkcs11Uri`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyLocation {
    /// A PKCS#8 file.
    File(PathBuf),
    /// A key in a PKCS#11 token.
    Pkcs11(Pkcs11Uri),
}

impl KeyLocation {
    /// The file, where it is one.
    #[must_use]
    pub fn file(&self) -> Option<&std::path::Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Pkcs11(_) => None,
        }
    }
}

impl FromStr for KeyLocation {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            _ if text.is_empty() => Err(LocationError::Empty),
            Some(("pkcs11", _)) => Ok(Self::Pkcs11(text.parse()?)),
            Some(("file", path)) => file(path).map(Self::File),
            Some((scheme, _)) if is_scheme(scheme) => Err(LocationError::UnknownScheme(format!("{scheme}:"))),
            _ => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

impl fmt::Display for KeyLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pkcs11(uri) => uri.fmt(formatter),
            Self::File(path) if path.is_absolute() => {
                formatter.write_str("file:")?;
                percent_encode(formatter, path.as_os_str().as_encoded_bytes(), is_path_character)
            }
            // A relative path has no URI; it is written so that it reads back as a path.
            Self::File(path) if path.to_string_lossy().contains(':') && !path.starts_with(".") => {
                write!(formatter, "./{}", path.display())
            }
            Self::File(path) => path.display().fmt(formatter),
        }
    }
}

impl From<PathBuf> for KeyLocation {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl Serialize for KeyLocation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyLocation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn file(path: &str) -> Result<PathBuf, LocationError> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') || path.starts_with("//") {
        return Err(LocationError::File);
    }
    let bytes = percent_decode(path, is_path_character).ok_or(LocationError::File)?;
    if bytes.contains(&0) {
        return Err(LocationError::File);
    }
    Ok(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

fn is_path_character(byte: u8) -> bool {
    is_unreserved(byte) || b"/:@!$&'()*+,;=".contains(&byte)
}

/// RFC 3986 section 3.1; a path such as `keys/a:b` or `./a:b` is none.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_files() {
        for (text, path, printed) in [
            ("/etc/chancery/root.key", "/etc/chancery/root.key", "file:/etc/chancery/root.key"),
            ("file:/a%20b", "/a b", "file:/a%20b"),
            ("file:///a", "/a", "file:/a"),
            ("keys/issuer.key", "keys/issuer.key", "keys/issuer.key"),
            ("./odd:name", "./odd:name", "./odd:name"),
            ("keys/a:b", "keys/a:b", "./keys/a:b"),
        ] {
            let location: KeyLocation = text.parse().unwrap();
            assert_eq!(location, KeyLocation::File(PathBuf::from(path)), "{text}");
            assert_eq!(location.to_string(), printed);
            let again: KeyLocation = printed.parse().unwrap();
            assert_eq!(again.to_string(), printed);
        }
    }

    #[test]
    fn reads_pkcs11_uris() {
        let text = "pkcs11:token=hsm;object=issuer?module-path=/usr/lib/p11.so";
        let location: KeyLocation = text.parse().unwrap();
        assert!(matches!(&location, KeyLocation::Pkcs11(uri) if uri.object.as_deref() == Some("issuer")));
        assert_eq!(location.to_string(), text);
    }

    #[test]
    fn refuses_what_is_no_place_for_a_key() {
        for (text, error) in [
            ("", LocationError::Empty),
            ("file:relative", LocationError::File),
            ("file://host/path", LocationError::File),
            ("file:/a b", LocationError::File),
            ("file:/a%00b", LocationError::File),
            ("awskms:alias/root", LocationError::UnknownScheme("awskms:".to_owned())),
            ("pkcs11:pin-value=1", LocationError::Pkcs11(UriError::Unsupported("pin-value".to_owned()))),
            ("pkcs11:?pin-value=1", LocationError::Pkcs11(UriError::PinValue)),
        ] {
            assert_eq!(text.parse::<KeyLocation>().unwrap_err(), error, "{text}");
        }
    }
}
