//! What one certificate leaves behind: a journal record of 1 KiB and five index entries.
//!
//! Everything derives from the certificate's counter, so that any process can say what must be in a store
//! without having kept it.

/// How many identities the certificates are spread over.
const IDENTITIES: u64 = 10_000;

/// Bytes of one journal record: a typical to-be-signed certificate with who asked and why.
pub(crate) const RECORD: usize = 1024;

pub(crate) type Serial = [u8; 17];
pub(crate) type Digest = [u8; 16];
pub(crate) type Summary = [u8; 180];

/// The index entries of one certificate.
pub(crate) struct Certificate {
    pub(crate) counter: u64,
    /// prefix 1, issuer epoch 2, counter 6, random 8: grows with the counter
    pub(crate) serial: Serial,
    /// what the read model keeps of a certificate
    pub(crate) summary: Summary,
    pub(crate) identity: Digest,
    pub(crate) key: Digest,
    pub(crate) lineage: Digest,
    pub(crate) lineage_state: Digest,
    /// expiry second 8, counter 8: grows with the counter
    pub(crate) expiry: [u8; 16],
}

impl Certificate {
    pub(crate) fn numbered(counter: u64) -> Self {
        let mut noise = Noise(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let mut serial = [0; 17];
        serial[0] = 1;
        serial[2] = 1;
        serial[3..9].copy_from_slice(&counter.to_be_bytes()[2..]);
        serial[9..].copy_from_slice(&noise.word().to_be_bytes());

        let identity = identity(noise.word() % IDENTITIES);
        let (key, lineage, lineage_state) = (noise.digest(), noise.digest(), noise.digest());

        // Digests do not compress, names do.
        let mut summary = [b'.'; 180];
        for chunk in summary[..96].chunks_exact_mut(8) {
            chunk.copy_from_slice(&noise.word().to_be_bytes());
        }
        summary[96..104].copy_from_slice(&counter.to_be_bytes());

        let mut expiry = [0; 16];
        expiry[..8].copy_from_slice(&(1_800_000_000 + counter / 1000).to_be_bytes());
        expiry[8..].copy_from_slice(&counter.to_be_bytes());

        Self { counter, serial, summary, identity, key, lineage, lineage_state, expiry }
    }

    /// Identity and counter: all certificates of one identity stand together, oldest first.
    pub(crate) fn by_identity(&self) -> [u8; 24] {
        let mut key = [0; 24];
        key[..16].copy_from_slice(&self.identity);
        key[16..].copy_from_slice(&self.counter.to_be_bytes());
        key
    }

    /// The journal's bytes: counter, filler, checksum of both.
    pub(crate) fn record(&self) -> [u8; RECORD] {
        let mut record = [0x5a; RECORD];
        record[..8].copy_from_slice(&self.counter.to_be_bytes());
        record[8..25].copy_from_slice(&self.serial);
        record[25..41].copy_from_slice(&self.key);
        let sum = crc32c::crc32c(&record[..RECORD - 4]);
        record[RECORD - 4..].copy_from_slice(&sum.to_be_bytes());
        record
    }
}

/// The counter that a record carries, if the record is whole.
pub(crate) fn counter_of(record: &[u8]) -> Option<u64> {
    let (body, sum) = record.split_at(RECORD - 4);
    (crc32c::crc32c(body).to_be_bytes() == sum)
        .then(|| u64::from_be_bytes(body[..8].try_into().expect("eight bytes")))
}

pub(crate) fn identity(number: u64) -> Digest {
    Noise(number ^ 0x1d_e417).digest()
}

/// SplitMix64: fast, and the same everywhere.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn digest(&mut self) -> Digest {
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&self.word().to_be_bytes());
        digest[8..].copy_from_slice(&self.word().to_be_bytes());
        digest
    }
}

/// Which tables are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) serials: bool,
    pub(crate) identities: bool,
    pub(crate) keys: bool,
    pub(crate) lineages: bool,
    pub(crate) expiries: bool,
}

impl Tables {
    pub(crate) const ALL: Self =
        Self { serials: true, identities: true, keys: true, lineages: true, expiries: true };

    /// From their initials, such as `se`.
    pub(crate) fn named(initials: &str) -> Self {
        let has = |initial| initials.contains(initial);
        Self {
            serials: has('s'),
            identities: has('i'),
            keys: has('k'),
            lineages: has('l'),
            expiries: has('e'),
        }
    }
}

/// A batch of certificates as the engines want it: each table's entries in the order of their keys.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) serials: Vec<(Serial, Summary)>,
    pub(crate) identities: Vec<[u8; 24]>,
    pub(crate) keys: Vec<(Digest, u64)>,
    pub(crate) lineages: Vec<(Digest, Digest)>,
    pub(crate) expiries: Vec<[u8; 16]>,
}

impl Batch {
    /// The entries of certificates `first..end`.
    pub(crate) fn of(first: u64, end: u64, tables: Tables) -> Self {
        let mut batch = Self::default();
        for counter in first..end {
            let certificate = Certificate::numbered(counter);
            if tables.serials {
                batch.serials.push((certificate.serial, certificate.summary));
            }
            if tables.identities {
                batch.identities.push(certificate.by_identity());
            }
            if tables.keys {
                batch.keys.push((certificate.key, counter));
            }
            if tables.lineages {
                batch.lineages.push((certificate.lineage, certificate.lineage_state));
            }
            if tables.expiries {
                batch.expiries.push(certificate.expiry);
            }
        }
        batch.serials.sort_unstable();
        batch.identities.sort_unstable();
        batch.keys.sort_unstable();
        batch.lineages.sort_unstable();
        batch.expiries.sort_unstable();
        batch
    }
}
