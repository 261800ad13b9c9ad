//! A certificate, at last.

use chancery_types::{Generation, LineageId, SerialNumber, SpiffeId, Timestamp};

/// A signed certificate and where it stands in the log.
#[derive(Debug, Clone)]
pub struct Issued {
    pub(crate) serial: SerialNumber,
    pub(crate) identity: SpiffeId,
    pub(crate) lineage: LineageId,
    pub(crate) generation: Generation,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) profile: String,
    pub(crate) index: u64,
    pub(crate) der: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
}

impl Issued {
    /// Its serial.
    #[must_use]
    pub fn serial(&self) -> SerialNumber {
        self.serial
    }

    /// Whom it names.
    #[must_use]
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// The enrolment that it descends from.
    #[must_use]
    pub fn lineage(&self) -> LineageId {
        self.lineage
    }

    /// Its place in the lineage.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// notBefore.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// notAfter.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The profile's name.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// Index of its entry in the log.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The certificate, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The issuer's certificate, DER: what a TLS server or client sends after its own.
    #[must_use]
    pub fn issuer_der(&self) -> &[u8] {
        &self.issuer
    }
}
