//! Certificate revocation lists (RFC 5280 section 5): the exact bytes to sign, and a reader for them.
//!
//! A list is version 2, complete (no delta, no reason partition, not indirect), sorted by serial number, and
//! carries the *issuer's own* subjectKeyIdentifier as its authorityKeyIdentifier: with the issuer's issuer's
//! there, as some libraries write it, OpenSSL finds no issuer for the list and refuses every certificate.

mod view;

use chancery_types::{RevocationReason, SignatureAlgorithm, Timestamp};

pub(crate) use view::TbsCrlView;
pub use view::{CrlError, CrlView, MAX_CRL};

use crate::extension::{self, AuthorityKeyId};
use crate::writer::Writer;
use crate::{Certificate, oid, tag};

/// One revoked certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedCertificate<'a> {
    /// Its serial number: the content of the INTEGER, positive and minimal.
    pub serial: &'a [u8],
    /// When it was revoked.
    pub revoked_at: Timestamp,
    /// Why; [`RevocationReason::Unspecified`] is left out of the list (RFC 5280 section 5.3.1).
    pub reason: RevocationReason,
}

/// What a list says besides its entries.
#[derive(Debug, Clone, Copy)]
pub struct CrlSpec<'a> {
    /// Whose certificates are on it, and whose key will sign.
    pub issuer: &'a Certificate,
    /// What that key signs with.
    pub signature_algorithm: SignatureAlgorithm,
    /// cRLNumber: higher than that of every earlier list of this issuer and scope.
    pub number: u64,
    /// The moment up to which it is complete.
    pub this_update: Timestamp,
    /// When the next one will be there at the latest.
    pub next_update: Timestamp,
    /// For a list that covers only the certificates which carry one of these very URLs: issuingDistributionPoint
    /// with them as fullName. Empty for the one complete list.
    pub distribution_points: &'a [String],
}

/// Why a list cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlSpecError {
    /// A serial number that is empty, negative or padded, or longer than 20 bytes.
    #[error("entry {index}: {serial:02x?} is not a serial number of 1 to 20 bytes, positive and minimal")]
    Serial {
        /// Which entry, in the order given.
        index: usize,
        /// Its bytes.
        serial: Vec<u8>,
    },
    /// The same serial number twice.
    #[error("serial {serial:02x?} stands on the list twice")]
    Twice {
        /// The serial.
        serial: Vec<u8>,
    },
    /// The issuer's certificate has no subjectKeyIdentifier to refer to.
    #[error("the issuer's certificate has no subjectKeyIdentifier (RFC 5280 section 5.2.1)")]
    IssuerWithoutKeyId,
}

impl CrlSpec<'_> {
    /// The DER of the TBSCertList with these entries, which are sorted first. Time and memory grow linearly
    /// after the sort; a hundred thousand entries take about four megabytes.
    ///
    /// # Errors
    /// [`CrlSpecError`] when an entry has no usable serial number, or two have the same one.
    pub fn to_tbs_der(&self, mut entries: Vec<RevokedCertificate<'_>>) -> Result<Vec<u8>, CrlSpecError> {
        check_serials(&entries)?;
        entries.sort_unstable_by(|left, right| compare_serials(left.serial, right.serial));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].serial == pair[1].serial) {
            return Err(CrlSpecError::Twice { serial: pair[0].serial.to_vec() });
        }
        let issuer = self.issuer.tbs();
        let key_id = issuer.subject_key_id().ok_or(CrlSpecError::IssuerWithoutKeyId)?;
        let mut writer = Writer::with_capacity(512 + entries.len() * ENTRY_BYTES);
        writer.sequence(|list| {
            list.unsigned(&[VERSION_2]);
            list.raw(self.signature_algorithm.algorithm_identifier());
            list.raw(issuer.subject_der());
            list.time(self.this_update);
            list.time(self.next_update);
            if !entries.is_empty() {
                list.sequence(|revoked| entries.iter().for_each(|entry| write_entry(revoked, entry)));
            }
            list.nested(tag::context_constructed(0), |explicit| {
                explicit.sequence(|extensions| self.write_extensions(extensions, key_id));
            });
        });
        Ok(writer.finish())
    }

    fn write_extensions(&self, list: &mut Writer, key_id: &[u8]) {
        extension::write(list, oid::AUTHORITY_KEY_ID, false, |value| AuthorityKeyId::write(value, key_id));
        extension::write(list, oid::CRL_NUMBER, false, |value| value.unsigned(&self.number.to_be_bytes()));
        if !self.distribution_points.is_empty() {
            extension::write(list, oid::ISSUING_DISTRIBUTION_POINT, true, |value| {
                let urls = self.distribution_points.iter().map(String::as_str);
                value.sequence(|point| extension::write_full_name(point, urls));
            });
        }
    }
}

/// Serial numbers by their value.
pub(crate) fn compare_serials(left: &[u8], right: &[u8]) -> std::cmp::Ordering {
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

fn check_serials(entries: &[RevokedCertificate<'_>]) -> Result<(), CrlSpecError> {
    let is_serial = |serial: &[u8]| match serial {
        [] | [0] | [0, 0..=0x7f, ..] | [0x80..=0xff, ..] => false,
        serial => serial.len() <= 20,
    };
    match entries.iter().position(|entry| !is_serial(entry.serial)) {
        Some(index) => Err(CrlSpecError::Serial { index, serial: entries[index].serial.to_vec() }),
        None => Ok(()),
    }
}

fn write_entry(list: &mut Writer, entry: &RevokedCertificate<'_>) {
    list.sequence(|fields| {
        fields.value(tag::INTEGER, entry.serial);
        fields.time(entry.revoked_at);
        if entry.reason != RevocationReason::Unspecified {
            fields.sequence(|extensions| {
                extension::write(extensions, oid::CRL_REASON, false, |value| {
                    value.value(tag::ENUMERATED, &[entry.reason.code()]);
                });
            });
        }
    });
}

/// Version 2 is written as 1 (RFC 5280 section 5.1.2.1).
const VERSION_2: u8 = 1;
/// An entry with a serial of ours and a reason.
const ENTRY_BYTES: usize = 50;

#[cfg(test)]
mod tests;
