//! An answer that is read part by part: an export, a tile, a CRL.

use bytes::Bytes;

use crate::pool::Lease;
use crate::{Client, ClientError};

/// A response body on its way. Dropping it early closes an HTTP/1.1 connection and resets an HTTP/2 stream.
#[derive(Debug)]
pub struct ByteStream {
    client: Client,
    lease: Option<Lease>,
}

impl ByteStream {
    pub(crate) fn new(client: Client, lease: Lease) -> Self {
        Self { client, lease: Some(lease) }
    }

    /// The next part; nothing at the end.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] when no part comes within the request timeout, [`ClientError::Broken`] when
    /// the stream ends too early: what came before is then incomplete.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let Some(lease) = &mut self.lease else { return Ok(None) };
        let client = &self.client;
        let read = async { lease.next_chunk().await.map_err(|source| client.broken(source)) };
        let chunk = client.within(client.0.request_timeout, "next part of the answer", read).await?;
        if chunk.is_none()
            && let Some(lease) = self.lease.take()
        {
            self.client.0.pool.give_back(lease);
        }
        Ok(chunk)
    }
}
