//! Serial numbers and the other fixed-size identifiers of the ledger.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Random, RandomError, Timestamp};

/// Which issuing key signed: one number per issuer certificate, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IssuerEpoch(pub u16);

impl fmt::Display for IssuerEpoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// How often a lineage (the chain of renewals of one enrolment) has been renewed; 0 at enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The generation that the next renewal makes.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Why a text or a run of bytes is not one of our identifiers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SerialError {
    /// Not hexadecimal of the right length.
    #[error("expected {expected} bytes as hexadecimal, got {got:?}")]
    Hex {
        /// Bytes that were expected.
        expected: usize,
        /// The beginning of what was given.
        got: String,
    },
    /// The first byte is outside 01..7f: a negative, a padded or a foreign serial.
    #[error("the first byte of a serial of this authority is 01, this one is {0:02x}")]
    Prefix(u8),
    /// The counter has used its 48 bits.
    #[error("issuer {epoch} has used up its {limit} serial numbers; rotate to a new issuer")]
    Exhausted {
        /// The issuer.
        epoch: u16,
        /// How many it had.
        limit: u64,
    },
}

/// A certificate's serial: `prefix(1) | issuer epoch(2) | counter(6) | random(8)`, 17 bytes.
///
/// The counter is dense per issuer, which makes exact revocation sets and appending index inserts possible;
/// the last 64 bits come from a CSPRNG, so the whole cannot be predicted (CA/B BR 7.1 asks for 64 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SerialNumber([u8; Self::LENGTH]);

impl SerialNumber {
    /// Bytes in a serial; RFC 5280 section 4.1.2.2 allows 20.
    pub const LENGTH: usize = 17;
    /// First byte of every serial: positive in DER and without padding.
    pub const PREFIX: u8 = 0x01;
    /// How many serials one issuer has.
    pub const COUNTER_LIMIT: u64 = 1 << 48;

    /// A serial with fresh randomness.
    ///
    /// # Errors
    /// [`SerialError::Exhausted`] past [`Self::COUNTER_LIMIT`]; the randomness source's own error is passed on.
    pub fn generate(
        epoch: IssuerEpoch,
        counter: u64,
        random: &dyn Random,
    ) -> Result<Result<Self, SerialError>, RandomError> {
        let mut unpredictable = [0_u8; 8];
        random.fill(&mut unpredictable)?;
        Ok(Self::compose(epoch, counter, unpredictable))
    }

    /// A serial of given parts.
    ///
    /// # Errors
    /// [`SerialError::Exhausted`] past [`Self::COUNTER_LIMIT`].
    pub fn compose(epoch: IssuerEpoch, counter: u64, random: [u8; 8]) -> Result<Self, SerialError> {
        if counter >= Self::COUNTER_LIMIT {
            return Err(SerialError::Exhausted { epoch: epoch.0, limit: Self::COUNTER_LIMIT });
        }
        let mut bytes = [0_u8; Self::LENGTH];
        bytes[0] = Self::PREFIX;
        bytes[1..3].copy_from_slice(&epoch.0.to_be_bytes());
        bytes[3..9].copy_from_slice(&counter.to_be_bytes()[2..]);
        bytes[9..].copy_from_slice(&random);
        Ok(Self(bytes))
    }

    /// Reads back the content bytes of a DER INTEGER or a ledger field.
    ///
    /// # Errors
    /// [`SerialError`] when the bytes were not made by [`Self::compose`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SerialError> {
        let bytes: [u8; Self::LENGTH] = bytes.try_into().map_err(|_| SerialError::Hex {
            expected: Self::LENGTH,
            got: HEXLOWER.encode(&bytes[..bytes.len().min(24)]),
        })?;
        if bytes[0] != Self::PREFIX {
            return Err(SerialError::Prefix(bytes[0]));
        }
        Ok(Self(bytes))
    }

    /// The bytes, big-endian, as they stand in the certificate.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// The issuer that the serial was made for.
    #[must_use]
    pub fn epoch(&self) -> IssuerEpoch {
        IssuerEpoch(u16::from_be_bytes([self.0[1], self.0[2]]))
    }

    /// The issuer's dense counter.
    #[must_use]
    pub fn counter(&self) -> u64 {
        let mut bytes = [0_u8; 8];
        bytes[2..].copy_from_slice(&self.0[3..9]);
        u64::from_be_bytes(bytes)
    }
}

macro_rules! hex_type {
    ($name:ident, $length:expr, $from:expr) => {
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = SerialError;

            /// Reads hexadecimal, in either case, with or without colons.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let error = || SerialError::Hex { expected: $length, got: text.chars().take(48).collect() };
                if text.len() > 3 * $length {
                    return Err(error());
                }
                let digits: String =
                    text.chars().filter(|&c| c != ':').map(|c| c.to_ascii_lowercase()).collect();
                let bytes = HEXLOWER.decode(digits.as_bytes()).map_err(|_| error())?;
                if bytes.len() != $length {
                    return Err(error());
                }
                $from(&bytes)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_type!(SerialNumber, SerialNumber::LENGTH, SerialNumber::from_bytes);

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// A fresh one.
            ///
            /// # Errors
            /// When the randomness source fails.
            pub fn generate(random: &dyn Random) -> Result<Self, RandomError> {
                let mut bytes = [0_u8; 16];
                random.fill(&mut bytes)?;
                Ok(Self(bytes))
            }

            /// A fresh one that sorts by the moment it was made: 48 bits of milliseconds, 80 random bits. An
            /// index over such ids grows at one end, which costs a third of what scattered ids cost
            /// (docs/adr/0001), and what was made together is read together.
            ///
            /// # Errors
            /// When the randomness source fails.
            pub fn at(now: Timestamp, random: &dyn Random) -> Result<Self, RandomError> {
                let mut id = Self::generate(random)?;
                id.0[..6].copy_from_slice(&now.millis().to_be_bytes()[2..]);
                Ok(id)
            }

            /// From stored bytes.
            #[must_use]
            pub fn from_array(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        hex_type!($name, 16, |bytes: &[u8]| {
            let mut array = [0_u8; 16];
            array.copy_from_slice(bytes);
            Ok::<_, SerialError>($name(array))
        });
    };
}

random_id! {
    /// One enrolment and all its renewals.
    LineageId
}

random_id! {
    /// The public half of a join token: finds the record, proves nothing.
    TokenId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_gives_its_parts_back() {
        let serial = SerialNumber::compose(IssuerEpoch(7), 0x0102_0304_0506, [9; 8]).unwrap();
        assert_eq!(serial.epoch(), IssuerEpoch(7));
        assert_eq!(serial.counter(), 0x0102_0304_0506);
        assert_eq!(serial.to_string(), "0100070102030405060909090909090909");
        assert_eq!(serial.to_string().parse::<SerialNumber>().unwrap(), serial);
        assert_eq!(
            "01:00:07:01:02:03:04:05:06:09:09:09:09:09:09:09:09".parse::<SerialNumber>().unwrap(),
            serial
        );
    }

    #[test]
    fn random_ids_sort_by_the_moment_they_were_made() {
        let random = crate::FixedRandom::dangerous_seeded(1);
        let early = LineageId::at(Timestamp::from_millis(1_000), &random).unwrap();
        let late = LineageId::at(Timestamp::from_millis(1_001), &random).unwrap();
        assert!(early < late);
        assert_ne!(early, LineageId::at(Timestamp::from_millis(1_000), &random).unwrap());
    }

    #[test]
    fn refuses_foreign_and_malformed_serials() {
        assert!(matches!(SerialNumber::from_bytes(&[0x81; 17]), Err(SerialError::Prefix(0x81))));
        assert!(SerialNumber::from_bytes(&[1; 16]).is_err());
        assert!("xyz".parse::<SerialNumber>().is_err());
        assert!("é".repeat(17).parse::<SerialNumber>().is_err());
        assert!(SerialNumber::compose(IssuerEpoch(1), 1 << 48, [0; 8]).is_err());
    }

    #[test]
    fn serials_of_one_issuer_sort_by_counter() {
        let low = SerialNumber::compose(IssuerEpoch(1), 5, [255; 8]).unwrap();
        let high = SerialNumber::compose(IssuerEpoch(1), 6, [0; 8]).unwrap();
        assert!(low < high);
    }
}
