//! Which revocation list a certificate is on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{IssuerEpoch, SerialNumber};

/// One of the lists among which an issuer's certificates are divided by the counters in their serials.
///
/// Into how many they are divided is written into each certificate with the URL of its list, so it may be chosen
/// anew at any time: see [`Self::path`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct CrlShard {
    of: u16,
    number: u16,
}

/// Numbers that do not name a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no list {number} among {of}: they are numbered from 0")]
pub struct CrlShardError {
    of: u16,
    number: u16,
}

impl CrlShard {
    /// Most lists of one issuer.
    pub const MOST: u16 = 1024;

    /// The list of this number among so many, numbered from 0.
    ///
    /// # Errors
    /// [`CrlShardError`] when there are not so many, or too many.
    pub fn new(number: u16, of: u16) -> Result<Self, CrlShardError> {
        if number < of && of <= Self::MOST {
            Ok(Self { of, number })
        } else {
            Err(CrlShardError { of, number })
        }
    }

    /// The list that a certificate is on, among so many (at least one).
    #[must_use]
    pub fn containing(serial: SerialNumber, of: u16) -> Self {
        let of = of.clamp(1, Self::MOST);
        let number =
            u16::try_from(serial.counter() % u64::from(of)).expect("a remainder is below its divisor");
        Self { of, number }
    }

    /// All of so many lists.
    pub fn all(of: u16) -> impl Iterator<Item = Self> {
        let of = of.min(Self::MOST);
        (0..of).map(move |number| Self { of, number })
    }

    /// Among how many.
    #[must_use]
    pub fn of(self) -> u16 {
        self.of
    }

    /// Its number, from 0.
    #[must_use]
    pub fn number(self) -> u16 {
        self.number
    }

    /// Whether this certificate is on it.
    #[must_use]
    pub fn contains(self, serial: SerialNumber) -> bool {
        serial.counter() % u64::from(self.of) == u64::from(self.number)
    }

    /// Where it is published, below the base of all status URLs.
    #[must_use]
    pub fn path(self, epoch: IssuerEpoch) -> String {
        format!("/crl/{epoch}/{}/{}.crl", self.of, self.number)
    }

    /// Its URL under this base: byte for byte what stands in certificates and in the list.
    #[must_use]
    pub fn url(self, base: &str, epoch: IssuerEpoch) -> String {
        format!("{base}{}", self.path(epoch))
    }
}

impl fmt::Display for CrlShard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.of, self.number)
    }
}

#[derive(Serialize, Deserialize)]
struct Parts {
    of: u16,
    number: u16,
}

impl TryFrom<Parts> for CrlShard {
    type Error = CrlShardError;

    fn try_from(parts: Parts) -> Result<Self, Self::Error> {
        Self::new(parts.number, parts.of)
    }
}

impl From<CrlShard> for Parts {
    fn from(shard: CrlShard) -> Self {
        Self { of: shard.of, number: shard.number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_is_on_exactly_one_of_the_lists() {
        for (counter, of, number) in [(0, 1, 0), (5, 16, 5), (16, 16, 0), (1023, 16, 15), (7, 3, 1)] {
            let serial = SerialNumber::compose(IssuerEpoch(3), counter, [9; 8]).unwrap();
            let shard = CrlShard::containing(serial, of);
            assert_eq!((shard.number(), shard.of()), (number, of));
            assert_eq!(CrlShard::all(of).filter(|shard| shard.contains(serial)).collect::<Vec<_>>(), [shard]);
        }
    }

    #[test]
    fn its_url_names_issuer_division_and_number() {
        let shard = CrlShard::new(3, 16).unwrap();
        assert_eq!(shard.url("http://ca:8080", IssuerEpoch(1)), "http://ca:8080/crl/1/16/3.crl");
        assert_eq!(serde_json::to_string(&shard).unwrap(), r#"{"of":16,"number":3}"#);
        for (number, of) in [(16, 16), (0, 0), (0, CrlShard::MOST + 1)] {
            assert!(CrlShard::new(number, of).is_err(), "{number} {of}");
        }
    }
}
