//! Binary values in JSON: base64, or PEM where people paste from files.

use std::borrow::Cow;
use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{KnownFormat, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::limits;

/// A text is not the binary value that the field wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// Not base64 (RFC 4648 section 4, with padding).
    #[error("not base64 with padding")]
    Base64,
    /// PEM of something else.
    #[error("expected PEM of a {expected}, found a {found:?}; send the right file, or base64 of the DER")]
    Label {
        /// What the field wants.
        expected: &'static str,
        /// What the PEM header says, shortened.
        found: String,
    },
    /// PEM without its end line, or with something after it.
    #[error("the PEM block is damaged or not alone; send exactly one block")]
    Pem,
    /// Too long.
    #[error("{bytes} bytes, at most {limit} are read")]
    TooLong {
        /// Bytes after decoding, or of text when it was not decoded.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Nothing.
    #[error("empty")]
    Empty,
}

/// Bytes as base64: nonces, signatures, log entries.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Base64Bytes(pub Vec<u8>);

impl Base64Bytes {
    /// Reads base64 of at most [`limits::BINARY_FIELD_BYTES`] bytes.
    ///
    /// # Errors
    /// [`EncodingError`].
    pub fn parse(text: &str) -> Result<Self, EncodingError> {
        decode_base64(text, limits::BINARY_FIELD_BYTES).map(Self)
    }
}

impl fmt::Debug for Base64Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Base64Bytes({})", BASE64.encode(&self.0))
    }
}

impl Serialize for Base64Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl PartialSchema for Base64Bytes {
    fn schema() -> RefOr<Schema> {
        text_schema("Base64 with padding (RFC 4648 section 4).")
    }
}

impl ToSchema for Base64Bytes {}

macro_rules! der_type {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $labels:expr, $limit:expr, $description:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $name(Vec<u8>);

        impl $name {
            /// Takes DER as it is.
            #[must_use]
            pub fn from_der(der: Vec<u8>) -> Self {
                Self(der)
            }

            /// Reads PEM, or base64 of the DER. The DER itself is not looked at.
            ///
            /// # Errors
            /// [`EncodingError`].
            pub fn parse(text: &str) -> Result<Self, EncodingError> {
                match decode_pem(text, $limit)? {
                    Some((label, der)) if $labels.contains(&label) => Ok(Self(der)),
                    Some((label, _)) => Err(EncodingError::Label { expected: $expected, found: shorten(label) }),
                    None => decode_base64(text, $limit).map(Self),
                }
            }

            /// The DER.
            #[must_use]
            pub fn as_der(&self) -> &[u8] {
                &self.0
            }

            /// The DER, taken out.
            #[must_use]
            pub fn into_der(self) -> Vec<u8> {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({} bytes)", stringify!($name), self.0.len())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&BASE64.encode(&self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                text_schema($description)
            }
        }

        impl ToSchema for $name {}
    };
}

der_type! {
    /// A certificate request (RFC 2986).
    CsrDer, "certificate request", ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"], limits::CSR_BYTES,
    "A certificate request (RFC 2986): PEM, or base64 of the DER."
}

der_type! {
    /// A certificate (RFC 5280).
    CertificateDer, "certificate", ["CERTIFICATE"], limits::CERTIFICATE_BYTES,
    "A certificate (RFC 5280): PEM, or base64 of the DER."
}

der_type! {
    /// A SubjectPublicKeyInfo (RFC 5280 section 4.1).
    PublicKeyDer, "public key", ["PUBLIC KEY"], limits::PUBLIC_KEY_BYTES,
    "A SubjectPublicKeyInfo (RFC 5280 section 4.1): PEM, or base64 of the DER."
}

/// Where a public key is to be taken from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// The key itself.
    PublicKey(PublicKeyDer),
    /// A certificate that has it.
    Certificate(CertificateDer),
}

impl KeySource {
    /// Reads PEM of a public key or a certificate, or base64 of a SubjectPublicKeyInfo's DER.
    ///
    /// # Errors
    /// [`EncodingError`].
    pub fn parse(text: &str) -> Result<Self, EncodingError> {
        match decode_pem(text, limits::CERTIFICATE_BYTES)? {
            Some(("CERTIFICATE", der)) => Ok(Self::Certificate(CertificateDer(der))),
            Some(("PUBLIC KEY", der)) => Ok(Self::PublicKey(PublicKeyDer(der))),
            Some((label, _)) => {
                Err(EncodingError::Label { expected: "public key or certificate", found: shorten(label) })
            }
            None => {
                decode_base64(text, limits::PUBLIC_KEY_BYTES).map(|der| Self::PublicKey(PublicKeyDer(der)))
            }
        }
    }
}

impl Serialize for KeySource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::PublicKey(key) => key.serialize(serializer),
            Self::Certificate(certificate) => {
                serializer.serialize_str(&encode_pem("CERTIFICATE", certificate.as_der()))
            }
        }
    }
}

impl<'de> Deserialize<'de> for KeySource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl PartialSchema for KeySource {
    fn schema() -> RefOr<Schema> {
        text_schema("PEM of a public key or a certificate, or base64 of a SubjectPublicKeyInfo's DER.")
    }
}

impl ToSchema for KeySource {}

fn decode_base64(text: &str, limit: usize) -> Result<Vec<u8>, EncodingError> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(EncodingError::Empty);
    }
    let most = BASE64.encode_len(limit);
    if text.len() > most {
        return Err(EncodingError::TooLong { bytes: text.len(), limit: most });
    }
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| EncodingError::Base64)?;
    if bytes.len() > limit {
        return Err(EncodingError::TooLong { bytes: bytes.len(), limit });
    }
    Ok(bytes)
}

/// The label and content of a text that is one PEM block; nothing when it is not PEM at all (RFC 7468).
fn decode_pem(text: &str, limit: usize) -> Result<Option<(&str, Vec<u8>)>, EncodingError> {
    let Some(rest) = text.trim_ascii().strip_prefix("-----BEGIN ") else { return Ok(None) };
    let (label, rest) = rest.split_once("-----").ok_or(EncodingError::Pem)?;
    let rest = rest.strip_suffix("-----").ok_or(EncodingError::Pem)?;
    let rest = rest.strip_suffix(label).ok_or(EncodingError::Pem)?;
    let body = rest.strip_suffix("-----END ").ok_or(EncodingError::Pem)?;
    // Line ends add one byte in 64, or two; a quarter more is generous.
    let most = BASE64.encode_len(limit) / 4 * 5;
    if body.len() > most {
        return Err(EncodingError::TooLong { bytes: body.len(), limit: most });
    }
    let digits: String = body.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    decode_base64(&digits, limit).map(|der| Some((label, der)))
}

/// PEM as RFC 7468 section 2 writes it.
fn encode_pem(label: &str, der: &[u8]) -> String {
    let digits = BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for start in (0..digits.len()).step_by(64) {
        text.push_str(&digits[start..digits.len().min(start + 64)]);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn shorten(label: &str) -> String {
    label.chars().take(40).collect()
}

fn text_schema(description: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Byte)))
        .description(Some(description))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE REQUEST-----\r\nAQID\r\n-----END CERTIFICATE REQUEST-----\r\n";

    #[test]
    fn reads_a_request_as_pem_or_base64_and_writes_base64() {
        let from_pem = CsrDer::parse(PEM).unwrap();
        assert_eq!(from_pem.as_der(), [1, 2, 3]);
        assert_eq!(CsrDer::parse("AQID").unwrap(), from_pem);
        assert_eq!(serde_json::to_string(&from_pem).unwrap(), "\"AQID\"");
        assert_eq!(serde_json::from_str::<CsrDer>("\"AQID\"").unwrap(), from_pem);
    }

    #[test]
    fn refuses_pem_of_another_kind() {
        assert_eq!(
            CertificateDer::parse(PEM),
            Err(EncodingError::Label { expected: "certificate", found: "CERTIFICATE REQUEST".into() })
        );
        let private = "-----BEGIN PRIVATE KEY-----\nAQID\n-----END PRIVATE KEY-----";
        assert!(matches!(KeySource::parse(private), Err(EncodingError::Label { .. })));
    }

    #[test]
    fn refuses_damaged_blocks_and_second_blocks() {
        for text in [
            "-----BEGIN CERTIFICATE REQUEST-----\nAQID",
            "-----BEGIN CERTIFICATE REQUEST-----\nAQID\n-----END CERTIFICATE-----",
            "-----BEGIN CERTIFICATE REQUEST",
            "-----BEGIN -----",
        ] {
            assert_eq!(CsrDer::parse(text), Err(EncodingError::Pem), "{text}");
        }
        assert_eq!(CsrDer::parse(&format!("{PEM}{PEM}")), Err(EncodingError::Base64));
    }

    #[test]
    fn refuses_what_is_empty_too_long_or_not_base64() {
        assert_eq!(CsrDer::parse("  "), Err(EncodingError::Empty));
        assert_eq!(CsrDer::parse("A&ID"), Err(EncodingError::Base64));
        assert_eq!(CsrDer::parse("AQI"), Err(EncodingError::Base64));
        let long = BASE64.encode(&vec![0; limits::CSR_BYTES + 3]);
        assert!(matches!(CsrDer::parse(&long), Err(EncodingError::TooLong { .. })));
        let long = BASE64.encode(&vec![0; limits::CSR_BYTES + 1]);
        assert!(matches!(CsrDer::parse(&long), Err(EncodingError::TooLong { .. })));
    }

    #[test]
    fn a_key_source_survives_the_wire() {
        let sources = [
            KeySource::PublicKey(PublicKeyDer::from_der(vec![7; 100])),
            KeySource::Certificate(CertificateDer::from_der(vec![8; 100])),
        ];
        for source in sources {
            let text = serde_json::to_string(&source).unwrap();
            assert_eq!(serde_json::from_str::<KeySource>(&text).unwrap(), source);
        }
    }
}
