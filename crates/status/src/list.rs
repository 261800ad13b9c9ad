//! A list of rising counters: a directory with the first counter of every block, then the blocks.

use chancery_types::SerialNumber;

use crate::block::{self, BLOCK, BlockReader};

/// The most counters in one list.
pub const MAX_COUNT: u64 = u32::MAX as u64;
/// A directory entry: the block's first counter (6 bytes) and where it begins, counted from the first block (4).
const ENTRY: usize = 10;

/// Rising counters, in the bytes as they lie.
#[derive(Debug, Clone, Copy)]
pub struct Counters<'a> {
    count: usize,
    directory: &'a [[u8; ENTRY]],
    blocks: &'a [u8],
}

impl<'a> Counters<'a> {
    /// A list whose bytes were checked, or are going to be.
    pub(crate) fn new(count: usize, bytes: &'a [u8]) -> Option<Self> {
        let (directory, blocks) = bytes.split_at_checked(count.div_ceil(BLOCK).checked_mul(ENTRY)?)?;
        let (directory, _) = directory.as_chunks();
        Some(Self { count, directory, blocks })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether this is one of them. Reads the directory and one block.
    #[must_use]
    pub fn contains(&self, counter: u64) -> bool {
        let Some(at) = self.directory.partition_point(|entry| first(entry) <= counter).checked_sub(1) else {
            return false;
        };
        let found = first(&self.directory[at]);
        if found == counter {
            return true;
        }
        // To the end of the list: the last words of the block are whole then.
        let bytes = self.blocks.get(offset(&self.directory[at])..).unwrap_or_default();
        let Some(mut block) = BlockReader::new(found, bytes) else { return false };
        for _ in 1..self.members(at) {
            match block.next() {
                Some(next) if next < counter => {}
                Some(next) => return next == counter,
                None => return false,
            }
        }
        false
    }

    /// All of them, rising.
    pub fn iter(&self) -> impl Iterator<Item = u64> + use<'a> {
        let list = *self;
        (0..list.directory.len()).flat_map(move |at| {
            let found = first(&list.directory[at]);
            let mut block = list.block(at);
            let rest = (1..list.members(at)).map_while(move |_| block.as_mut()?.next());
            std::iter::once(found).chain(rest)
        })
    }

    /// Whether the bytes are what [`write`] writes of the counters that they hold.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        // A block ends where the next begins: what is left to see is that the first begins at once.
        if self.directory.first().map_or(!self.blocks.is_empty(), |entry| offset(entry) != 0) {
            return Err("bytes that belong to no block");
        }
        let mut last = None;
        for (at, entry) in self.directory.iter().enumerate() {
            if last.is_some_and(|last| first(entry) <= last) {
                return Err("counters do not rise from block to block");
            }
            last = Some(self.check_block(at)?);
        }
        Ok(())
    }

    /// The last counter of a block that is as it should be.
    fn check_block(&self, at: usize) -> Result<u64, &'static str> {
        let found = first(&self.directory[at]);
        let mut block =
            self.block(at).ok_or("a block lies outside of its list, or has no parameter that can be")?;
        let mut last = found;
        for _ in 1..self.members(at) {
            last = block.next().ok_or("a block ends in the middle of a counter")?;
            if last >= SerialNumber::COUNTER_LIMIT {
                return Err("a counter has more than 48 bits");
            }
        }
        if block.k() != block::parameter(found, last, self.members(at)) {
            return Err("a block has another parameter than its counters ask for");
        }
        if block.is_at_end() { Ok(last) } else { Err("a block goes on after its last counter") }
    }

    fn block(&self, at: usize) -> Option<BlockReader<'a>> {
        let bytes = self.blocks.get(offset(&self.directory[at])..self.end(at))?;
        BlockReader::new(first(&self.directory[at]), bytes)
    }

    /// Where a block ends: where the next begins.
    fn end(&self, at: usize) -> usize {
        self.directory.get(at + 1).map_or(self.blocks.len(), offset)
    }

    fn members(&self, at: usize) -> usize {
        (self.count - at * BLOCK).min(BLOCK)
    }
}

/// Why counters cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListError {
    #[error("counters do not rise at {0}")]
    Order(u64),
    #[error("a counter has at most 48 bits, not {0:x}")]
    Counter(u64),
    #[error("a list holds at most {MAX_COUNT} counters and 4 GiB")]
    TooMany,
}

/// The bytes of a list, and how many counters it has.
pub(crate) fn write(counters: impl IntoIterator<Item = u64>) -> Result<(u32, Vec<u8>), ListError> {
    let mut directory = Vec::new();
    let mut blocks = Vec::new();
    let mut block = Vec::with_capacity(BLOCK);
    let mut count = 0_u32;
    let mut last = None;
    for counter in counters {
        if last.is_some_and(|last| counter <= last) {
            return Err(ListError::Order(counter));
        }
        if counter >= SerialNumber::COUNTER_LIMIT {
            return Err(ListError::Counter(counter));
        }
        last = Some(counter);
        count = count.checked_add(1).ok_or(ListError::TooMany)?;
        block.push(counter);
        if block.len() == BLOCK {
            write_block(&mut block, &mut directory, &mut blocks)?;
        }
    }
    if !block.is_empty() {
        write_block(&mut block, &mut directory, &mut blocks)?;
    }
    directory.append(&mut blocks);
    Ok((count, directory))
}

fn write_block(block: &mut Vec<u64>, directory: &mut Vec<u8>, blocks: &mut Vec<u8>) -> Result<(), ListError> {
    let offset = u32::try_from(blocks.len()).map_err(|_| ListError::TooMany)?;
    directory.extend_from_slice(&block[0].to_le_bytes()[..6]);
    directory.extend_from_slice(&offset.to_le_bytes());
    block::write(block, blocks);
    block.clear();
    Ok(())
}

fn first(entry: &[u8; ENTRY]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&entry[..6]);
    u64::from_le_bytes(bytes)
}

fn offset(entry: &[u8; ENTRY]) -> usize {
    u32::from_le_bytes([entry[6], entry[7], entry[8], entry[9]]) as usize
}
