//! What the processes on one ledger hand to each other, and is not worth remembering for ever.

use std::time::Duration;

use async_trait::async_trait;

use crate::ReadError;

/// Keys and values that run out. Durable on return.
#[async_trait]
pub trait Scratch: Send + Sync {
    /// Keeps a value under a key that nobody has used, for so long by the store's clock; whether that was so. `true`
    /// exactly once, whoever asks where.
    ///
    /// # Errors
    /// [`ReadError`]; then it is not known whether it was kept.
    async fn put_new(&self, key: &[u8], value: &[u8], lifetime: Duration) -> Result<bool, ReadError>;

    /// Puts a value in the place of what is under a key, for so long; refused (`false`) once somebody with a higher
    /// fencing number has written there.
    ///
    /// # Errors
    /// [`ReadError`]; then it is not known whether it was kept.
    async fn replace(
        &self,
        fence: u64,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
    ) -> Result<bool, ReadError>;

    /// The value under a key that has not run out.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;
}
