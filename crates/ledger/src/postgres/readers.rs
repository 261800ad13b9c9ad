//! Connections for reading, each shared by many questions at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Mutex;

use super::Shared;
use super::error::Unfit;
use super::head::verify;
use super::session::Session;

/// Connections that are made when they are needed, and made again when they end.
pub(super) struct Readers {
    places: Vec<Mutex<Option<Arc<Session>>>>,
    next: AtomicUsize,
}

impl Readers {
    pub(super) fn new(places: usize) -> Self {
        Self { places: (0..places).map(|_| Mutex::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// The next connection. A new one is used once the database behind it is known to go on from what this process
    /// knows: an older one would tell that revoked certificates are good.
    pub(super) async fn next(&self, shared: &Shared) -> Result<Arc<Session>, Unfit> {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % self.places.len();
        let mut kept = self.places[place].lock().await;
        if let Some(session) = kept.as_ref().filter(|session| !session.is_closed()) {
            return Ok(Arc::clone(session));
        }
        *kept = None;
        let session = shared.target.connect().await?;
        verify(&session, &shared.known()).await.inspect_err(|unfit| shared.note(unfit))?;
        Ok(Arc::clone(kept.insert(Arc::new(session))))
    }
}
