//! Receipts: whether a certificate stands in the log, proved offline with the log's verifier key alone.

use chancery_entry::{Body, DecodeError, Entry, Issuance};
use chancery_merkle::{LogKeys, NoteVerifier, Receipt, ReceiptError, ReceiptProblem, VerifiedCheckpoint};
use chancery_types::SerialNumber;
use chancery_x509::{Certificate, CertificateError};

/// Why a receipt is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptRefusal {
    /// Its text is damaged.
    #[error("the receipt cannot be read: {0}; fetch it again")]
    Text(#[from] ReceiptError),
    /// It proves nothing about this entry.
    #[error(transparent)]
    Proof(#[from] ReceiptProblem),
    /// Fewer witnesses than the relying party asks for have seen the checkpoint.
    #[error("{found} of the known witnesses have cosigned the checkpoint, {required} are required")]
    Witnesses {
        /// Known witnesses that have.
        found: usize,
        /// How many must.
        required: usize,
    },
    /// The entry is in the log and is nothing that this program can read.
    #[error("the entry is in the log, but cannot be read: {0}")]
    Entry(#[from] DecodeError),
    /// The entry is in the log and is about something else.
    #[error(
        "the entry is in the log, but it is of kind {0} and no issuance; give the entry of the certificate"
    )]
    NotAnIssuance(&'static str),
    /// The certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Certificate(#[from] CertificateError),
    /// The log promised another certificate.
    #[error(
        "the log promised certificate {promised}, which is not this one: byte {offset} of the signed part differs"
    )]
    OtherCertificate {
        /// The serial of the promised one.
        promised: SerialNumber,
        /// First byte of the TBSCertificate that differs, or where the shorter ends.
        offset: usize,
    },
}

/// Whom a relying party believes about the log: its keys, and how many of which witnesses.
#[derive(Debug, Clone)]
pub struct LogTrust {
    log: LogKeys,
    witnesses: Vec<NoteVerifier>,
    required: usize,
}

/// An entry that was proved to be in the log.
#[derive(Debug, Clone)]
pub struct ProvenEntry {
    index: u64,
    entry: Entry,
    checkpoint: VerifiedCheckpoint,
}

/// A certificate whose issuance was proved to be in the log.
///
/// The log holds what was promised before it was signed. That the signature is the issuer's, that the chain ends
/// at a trusted root, and that it is not revoked are questions of their own.
#[derive(Debug, Clone)]
pub struct ProvenCertificate {
    proven: ProvenEntry,
    issuance: Box<Issuance>,
}

impl LogTrust {
    /// Believes the log's own keys, or its only one.
    #[must_use]
    pub fn new(log: impl Into<LogKeys>) -> Self {
        Self { log: log.into(), witnesses: Vec::new(), required: 0 }
    }

    /// Believes the log only in what at least `required` of these witnesses have cosigned, so that it cannot
    /// show different trees to different people.
    #[must_use]
    pub fn with_witnesses(self, witnesses: Vec<NoteVerifier>, required: usize) -> Self {
        Self { witnesses, required, ..self }
    }

    /// Checks that a receipt proves these bytes to be an entry of the log.
    ///
    /// # Errors
    /// [`ReceiptRefusal`] when it does not.
    pub fn verify_entry(&self, receipt: &str, entry: &[u8]) -> Result<ProvenEntry, ReceiptRefusal> {
        let receipt: Receipt = receipt.parse()?;
        let checkpoint = receipt.verify(entry, &self.log, &self.witnesses)?;
        let found = checkpoint.cosignatures().len();
        if found < self.required {
            return Err(ReceiptRefusal::Witnesses { found, required: self.required });
        }
        Ok(ProvenEntry { index: receipt.index, entry: Entry::decode(entry)?, checkpoint })
    }

    /// Checks that a receipt proves this certificate, DER, to have been promised by this entry of the log.
    ///
    /// # Errors
    /// [`ReceiptRefusal`] when it does not.
    pub fn verify_certificate(
        &self,
        receipt: &str,
        entry: &[u8],
        certificate: &[u8],
    ) -> Result<ProvenCertificate, ReceiptRefusal> {
        let proven = self.verify_entry(receipt, entry)?;
        let Body::Issuance(issuance) = &proven.entry.body else {
            return Err(ReceiptRefusal::NotAnIssuance(proven.entry.body.kind()));
        };
        let issuance = issuance.clone();
        let certificate = Certificate::from_der(certificate)?;
        match first_difference(&issuance.tbs.0, certificate.tbs_der()) {
            Some(offset) => Err(ReceiptRefusal::OtherCertificate { promised: issuance.serial, offset }),
            None => Ok(ProvenCertificate { proven, issuance }),
        }
    }
}

impl ProvenEntry {
    /// Its index in the log.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// What it says.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The checkpoint that covers it.
    #[must_use]
    pub fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }
}

impl ProvenCertificate {
    /// The entry that promised it.
    #[must_use]
    pub fn entry(&self) -> &ProvenEntry {
        &self.proven
    }

    /// What was promised, to whom, and why.
    #[must_use]
    pub fn issuance(&self) -> &Issuance {
        &self.issuance
    }
}

/// Where two byte strings begin to differ.
fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    if left == right {
        return None;
    }
    let common = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    Some(common)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{Authority, witness_key};

    fn setting() -> (Authority, usize, LogTrust) {
        let mut authority = Authority::new();
        let index = authority.enroll("web");
        authority.enroll("db");
        let trust = LogTrust::new(authority.verifier());
        (authority, index, trust)
    }

    #[test]
    fn proves_a_certificate_to_be_in_the_log() {
        let (authority, index, trust) = setting();
        let (receipt, entry) = (authority.receipt(index), authority.leaf(index));
        let proven = trust.verify_certificate(&receipt, &entry, &authority.certificate(index)).unwrap();
        assert_eq!(proven.entry().index(), index as u64);
        assert_eq!(proven.issuance().identity.path(), "/web");
        assert_eq!(proven.entry().checkpoint().checkpoint().size(), authority.len() as u64);
    }

    #[test]
    fn refuses_the_receipt_of_another_certificate() {
        let (authority, index, trust) = setting();
        let other = authority.certificate(authority.issuances()[1]);
        let refused = trust.verify_certificate(&authority.receipt(index), &authority.leaf(index), &other);
        assert!(matches!(refused, Err(ReceiptRefusal::OtherCertificate { offset, .. }) if offset > 0));
        let refused = trust.verify_entry(&authority.receipt(index), &authority.leaf(index + 1));
        assert!(matches!(refused, Err(ReceiptRefusal::Proof(ReceiptProblem::Proof(_)))));
        let refused = trust.verify_certificate(&authority.receipt(0), &authority.leaf(0), &other);
        assert!(matches!(refused, Err(ReceiptRefusal::NotAnIssuance("genesis"))));
    }

    #[test]
    fn refuses_every_changed_byte_of_the_entry_and_of_the_signed_part() {
        let (authority, index, trust) = setting();
        let (receipt, entry, certificate) =
            (authority.receipt(index), authority.leaf(index), authority.certificate(index));
        for at in 0..entry.len() {
            let mut changed = entry.clone();
            changed[at] ^= 1;
            assert!(trust.verify_entry(&receipt, &changed).is_err(), "byte {at} of the entry");
        }
        let signed = Certificate::from_der(&certificate).unwrap().tbs_der().len();
        for at in 0..signed {
            let mut changed = certificate.clone();
            changed[at + 4] ^= 1;
            assert!(trust.verify_certificate(&receipt, &entry, &changed).is_err(), "byte {at} of the TBS");
        }
    }

    #[test]
    fn refuses_a_log_whose_checkpoints_too_few_witnesses_have_seen() {
        let (authority, index, trust) = setting();
        let (receipt, entry) = (authority.receipt(index), authority.leaf(index));
        let trust = trust.with_witnesses(vec![witness_key().1], 1);
        let refused = trust.verify_entry(&receipt, &entry).unwrap_err();
        assert_eq!(refused, ReceiptRefusal::Witnesses { found: 0, required: 1 });
        let witnessed = authority.witnessed_receipt(index);
        assert_eq!(trust.verify_entry(&witnessed, &entry).unwrap().checkpoint().cosignatures().len(), 1);
    }

    #[test]
    fn refuses_texts_and_keys_that_are_not_the_logs() {
        let (authority, index, trust) = setting();
        let (receipt, entry) = (authority.receipt(index), authority.leaf(index));
        assert!(matches!(trust.verify_entry("", &entry), Err(ReceiptRefusal::Text(_))));
        assert!(matches!(trust.verify_entry(&receipt[1..], &entry), Err(ReceiptRefusal::Text(_))));
        let stranger = LogTrust::new(witness_key().1);
        assert!(matches!(stranger.verify_entry(&receipt, &entry), Err(ReceiptRefusal::Proof(_))));
        let no_certificate = trust.verify_certificate(&receipt, &entry, b"not a certificate");
        assert!(matches!(no_certificate, Err(ReceiptRefusal::Certificate(_))));
    }
}
