//! What facts are made of, besides numbers and texts.

use chancery_types::{LineageId, SerialNumber, SpiffeId};
use serde::{Serialize, Serializer};

use crate::codec::{DecodeError, Field, Reader, Writer};

/// A JSON text, kept to the letter because its bytes are what the log commits to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document(pub String);

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<serde_json::Value>(&self.0) {
            Ok(value) => value.serialize(serializer),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

impl Field for Document {
    fn write(&self, writer: &mut Writer) {
        self.0.write(writer);
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        String::read(reader, field).map(Self)
    }
}

/// What a hold is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldTarget {
    /// One certificate.
    Certificate(SerialNumber),
    /// An enrolment with all its living certificates.
    Lineage(LineageId),
}

impl Field for HoldTarget {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Certificate(serial) => {
                writer.u8(0);
                serial.write(writer);
            }
            Self::Lineage(lineage) => {
                writer.u8(1);
                lineage.write(writer);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        match reader.u8(field)? {
            0 => SerialNumber::read(reader, field).map(Self::Certificate),
            1 => LineageId::read(reader, field).map(Self::Lineage),
            other => {
                Err(DecodeError::Value { field, offset: 0, why: format!("{other} where 0 or 1 stands") })
            }
        }
    }
}

/// Enums that are written as the number of their variant. Numbers are for ever: new variants come last.
macro_rules! numbered {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            const ALL: &[Self] = &[$(Self::$variant,)*];
        }

        impl Field for $name {
            fn write(&self, writer: &mut Writer) {
                writer.u8(*self as u8);
            }

            fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
                let number = reader.u8(field)?;
                Self::ALL.get(usize::from(number)).copied().ok_or_else(|| DecodeError::Value {
                    field,
                    offset: 0,
                    why: format!("{number} where 0 to {} stands", Self::ALL.len() - 1),
                })
            }
        }
    )*};
}

numbered! {
    /// A step that a change takes.
    Step {
        /// It runs, because it is small enough to need no approval.
        Begun,
        /// It runs, because another operator has approved it.
        Approved,
        /// It runs, because the local administrator has dispensed with approval.
        Overridden,
        /// One of its waves is done.
        Wave,
        /// It rests.
        Paused,
        /// It runs on.
        Resumed,
        /// It is given up; what it did stays.
        Withdrawn,
        /// What it held is to be released.
        Undone,
        /// There is nothing left to do.
        Ended,
    }

    /// What was done about an issuer that is not to be trusted.
    TaintStep {
        /// Somebody said so.
        Marked,
        /// Agents were asked to replace what it signed.
        Renewing,
        /// What was left of it was revoked.
        Distrusted,
    }

    /// What a root or a key is for.
    KeyPurpose {
        /// It signs JWT-SVIDs.
        Jwt,
        /// It signs issuers.
        Root,
        /// It signs the log's checkpoints, and what else is signed as the log.
        Log,
    }

    /// Where in its life a root or a key is.
    KeyPhase {
        /// In the bundle, and not used.
        Published,
        /// In use.
        Active,
        /// In the bundle for what it signed; a key of the log signs beside the next one.
        Retired,
        /// Out of the bundle; a key of the log signs no more.
        Withdrawn,
    }

    /// What an operator wants of a rotation.
    Wanted {
        /// The next one, as soon as everybody could know it.
        Now,
        /// No other one.
        Pause,
        /// Whatever the rules say.
        Nothing,
    }
}

/// What a join token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenBinding {
    /// One registered identity.
    Identity(SpiffeId),
    /// A template, with the values of its placeholders as a JSON object.
    Template {
        /// The template's name.
        name: String,
        /// Values by placeholder.
        parameters: Document,
    },
}

impl Field for TokenBinding {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Identity(identity) => {
                writer.u8(0);
                identity.write(writer);
            }
            Self::Template { name, parameters } => {
                writer.u8(1);
                name.write(writer);
                parameters.write(writer);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        match reader.u8(field)? {
            0 => SpiffeId::read(reader, field).map(Self::Identity),
            1 => Ok(Self::Template {
                name: String::read(reader, field)?,
                parameters: Document::read(reader, field)?,
            }),
            other => {
                Err(DecodeError::Value { field, offset: 0, why: format!("{other} where 0 or 1 stands") })
            }
        }
    }
}
