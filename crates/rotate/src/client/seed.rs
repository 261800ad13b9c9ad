//! Jitter without a random number generator: the same values give the same moment, so a plan can be made again.

use chancery_types::Timestamp;

/// Where jitter comes from. Not a secret: whoever can guess it learns when a renewal happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(u64);

impl Seed {
    /// From a number, a random one for example.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// From a name. The name should hold what tells this holder from others that hold the same, such as the
    /// node's identity beside the workload's: otherwise they all renew in the same moment.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        Self(name.iter().fold(0, |state, byte| mix(state ^ u64::from(*byte))))
    }

    /// Another seed, for another moment of the same thing.
    #[must_use]
    pub(super) fn at(self, moment: Timestamp) -> Self {
        Self(mix(self.0 ^ mix(moment.millis().cast_unsigned())))
    }

    /// A number in [0, 1).
    #[must_use]
    pub(super) fn fraction(self) -> f64 {
        let high = u32::try_from(mix(self.0) >> 32).unwrap_or(u32::MAX);
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }
}

/// A permutation of 64 bits in which every bit of the result depends on every bit of the argument: one step of
/// the generator SplitMix64.
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
