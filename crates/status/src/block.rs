//! Up to 128 counters in a row: the first stands in the directory, of the others the distances, in Rice code.
//!
//! A distance is the number of counters that are skipped. Its last `k` bits are written as they are; the rest of it in
//! unary, as so many zeros and a one, before them. Bits fill bytes from the lowest. `k` follows from the counters: the
//! largest with `2^k <= mean distance`. So the unary parts of a block are never longer than three bits for each
//! counter, whoever wrote it, and there is one way to write a block.

/// Counters in every block but the last of a list.
pub(crate) const BLOCK: usize = 128;
/// A counter has 48 bits, so no mean has more.
const MAX_K: u8 = 47;

/// Appends the counters after the first: a byte `k`, then the distances. They rise strictly.
pub(crate) fn write(counters: &[u64], out: &mut Vec<u8>) {
    let k = counters.last().map_or(0, |last| parameter(counters[0], *last, counters.len()));
    out.push(k);
    let mut bits = BitWriter { out, waiting: 0, count: 0 };
    for pair in counters.windows(2) {
        let distance = pair[1] - pair[0] - 1;
        for _ in 0..distance >> k {
            bits.push(0, 1);
        }
        bits.push(1, 1);
        bits.push(distance & mask(k), k);
    }
    bits.finish();
}

/// What `k` has to be for so many counters between these two, both included.
pub(crate) fn parameter(first: u64, last: u64, members: usize) -> u8 {
    let steps = (members as u64).saturating_sub(1);
    let skipped = (last - first).saturating_sub(steps);
    let mean = skipped.checked_div(steps).unwrap_or(0);
    mean.checked_ilog2().and_then(|k| u8::try_from(k).ok()).unwrap_or(0)
}

/// Reads the counters after the first, one by one.
#[derive(Debug, Clone)]
pub(crate) struct BlockReader<'a> {
    bytes: &'a [u8],
    bit: usize,
    k: u8,
    at: u64,
}

impl<'a> BlockReader<'a> {
    /// Of a block's bytes and its first counter; nothing when there is no `k`, or no `k` that can be.
    pub(crate) fn new(first: u64, bytes: &'a [u8]) -> Option<Self> {
        let k = *bytes.first()?;
        (k <= MAX_K).then_some(Self { bytes, bit: 8, k, at: first })
    }

    pub(crate) fn k(&self) -> u8 {
        self.k
    }

    /// The next counter; nothing when the bytes end in it.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<u64> {
        let (word, valid) = self.word()?;
        let zeros = word.trailing_zeros() as usize;
        let length = zeros + 1 + usize::from(self.k);
        let distance = if length <= valid {
            self.bit += length;
            ((zeros as u64) << self.k) | ((word >> zeros >> 1) & mask(self.k))
        } else {
            self.slow()?
        };
        if self.bit > self.bytes.len() * 8 {
            return None;
        }
        self.at = self.at.checked_add(distance)?.checked_add(1)?;
        Some(self.at)
    }

    /// Whether nothing follows but the zeros that fill the last byte.
    pub(crate) fn is_at_end(&self) -> bool {
        let Some(left) = (self.bytes.len() * 8).checked_sub(self.bit) else { return false };
        left < 8 && (left == 0 || self.bytes[self.bit / 8] >> (self.bit % 8) == 0)
    }

    /// A distance that does not fit into one word.
    #[cold]
    fn slow(&mut self) -> Option<u64> {
        let mut zeros = 0_u64;
        loop {
            let (word, valid) = self.word()?;
            let here = (word.trailing_zeros() as usize).min(valid);
            zeros += here as u64;
            self.bit += here;
            if here < valid {
                break;
            }
        }
        self.bit += 1;
        let low = if self.k == 0 { 0 } else { self.word()?.0 & mask(self.k) };
        self.bit += usize::from(self.k);
        if zeros > u64::MAX >> self.k {
            return None;
        }
        Some((zeros << self.k) | low)
    }

    /// The bits from here on, lowest first, and how many of them are bits of the block or zeros behind it.
    #[inline]
    fn word(&self) -> Option<(u64, usize)> {
        let byte = self.bit / 8;
        let word = match self.bytes.get(byte..byte + 8) {
            Some(eight) => u64::from_le_bytes(eight.try_into().ok()?),
            None => {
                let rest = self.bytes.get(byte..).filter(|rest| !rest.is_empty())?;
                let mut eight = [0; 8];
                eight[..rest.len()].copy_from_slice(rest);
                u64::from_le_bytes(eight)
            }
        };
        let shift = self.bit % 8;
        Some((word >> shift, 64 - shift))
    }
}

struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    waiting: u64,
    count: u8,
}

impl BitWriter<'_> {
    /// At most 56 bits.
    fn push(&mut self, bits: u64, count: u8) {
        self.waiting |= bits << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.waiting.to_le_bytes()[0]);
            self.waiting >>= 8;
            self.count -= 8;
        }
    }

    fn finish(self) {
        if self.count > 0 {
            self.out.push(self.waiting.to_le_bytes()[0]);
        }
    }
}

fn mask(k: u8) -> u64 {
    (1 << k) - 1
}
