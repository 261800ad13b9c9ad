//! Certificates that ended long ago, and what is left of them.
//!
//! A certificate that is tidied away leaves the search indexes, its lineage's list and the revocation list. Under its
//! serial stands what is needed for ever: that the serial is used, how the certificate stood, and where in the log the
//! rest of it is. An entry names the certificates one by one, so that what it does follows from the log and from nothing
//! else.

use chancery_entry::{Body, Entry, Tidy};
use chancery_types::{SerialNumber, Timestamp};

use super::query::{self, Page, PageRequest, Walk, serial_at_end};
use super::record::{CertificateRecord, CertificateState, Fields, state_bytes};
use super::{ModelError, Table, View, Write, prefix_end, search};

/// What is left of a certificate that was tidied away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remains {
    /// Index of the issuance entry.
    pub(crate) index: u64,
    /// How it stood.
    state: CertificateState,
}

impl Remains {
    /// index | state | reason | state's time: shorter than any whole record.
    const LENGTH: usize = 8 + 2 + 8;

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.index.to_be_bytes().to_vec();
        bytes.extend_from_slice(&state_bytes(self.state));
        bytes
    }

    /// `None` for the record of a certificate that was not tidied away.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Result<Self, ModelError>> {
        if bytes.len() != Self::LENGTH {
            return None;
        }
        let parse = || {
            let mut fields = Fields(bytes);
            Some(Self { index: fields.u64()?, state: fields.state()? })
        };
        Some(parse().ok_or(ModelError::Malformed { table: "certificate" }))
    }

    /// The whole record, with the help of the issuance entry's bytes.
    pub(crate) fn record(
        self,
        serial: SerialNumber,
        entry: Option<&[u8]>,
    ) -> Result<CertificateRecord, ModelError> {
        match entry.map(Entry::decode) {
            Some(Ok(Entry { body: Body::Issuance(issuance), .. })) if issuance.serial == serial => {
                let record = CertificateRecord::of(self.index, &issuance);
                Ok(CertificateRecord { state: self.state, is_tidied: true, ..record })
            }
            _ => Err(ModelError::Malformed { table: "certificate" }),
        }
    }
}

/// Whatever an entry says: only what has ended is tidied away, and only once.
pub(super) fn tidy(time: Timestamp, tidy: &Tidy, view: &dyn View) -> Result<Vec<Write>, ModelError> {
    let mut writes = Vec::with_capacity(7 * tidy.serials.len());
    let limit = tidy.ended_before.min(time);
    for serial in &tidy.serials {
        let Some(record) = query::certificate(view, *serial)?.filter(|record| record.not_after < limit)
        else {
            continue;
        };
        let serial = record.serial;
        let remains = Remains { index: record.index, state: record.state };
        writes.push((Table::Certificate.key(&[serial.as_bytes()]), Some(remains.to_bytes())));
        writes.push((Table::Revoked.key(&[serial.as_bytes()]), None));
        writes.push((Table::Lineage.key(&[record.lineage.as_bytes(), serial.as_bytes()]), None));
        let found_by = search::keys(&record);
        writes.extend(found_by.into_iter().map(|key| (key.as_bytes().to_vec(), None)));
    }
    Ok(writes)
}

/// Certificates that ended before this moment and were not tidied away, in the order in which they ended.
pub(crate) fn ended(
    view: &dyn View,
    before: Timestamp,
    page: &PageRequest,
) -> Result<Page<SerialNumber>, ModelError> {
    let start = Table::CertificateByExpiry.key(&[]);
    let end = Table::CertificateByExpiry.key(&[&before.millis().to_be_bytes()]);
    let end = end.min(prefix_end(&start));
    Walk::new(view, page).range(&start, &end, &mut |key, _| serial_at_end(key).map(Some))
}
