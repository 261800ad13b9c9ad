//! Questions for single values, asked together: whatever comes while a statement is under way goes with the next one. A
//! statement of its own for each would cost the database more than finding the value.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Shared;
use super::session::SqlError;
use super::view::Prefetched;
use crate::model::{ModelError, Pairs, View};

/// Values asked for in one statement at the most.
const TOGETHER: usize = 1024;

/// What is to be asked.
#[derive(Default)]
pub(super) struct Lookups(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Vec<Lookup>,
    /// Whether a task is at work on it.
    is_served: bool,
}

struct Lookup {
    key: Vec<u8>,
    reply: oneshot::Sender<Result<Option<Vec<u8>>, ModelError>>,
}

impl Lookups {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is asked next; nothing when nobody waits, and then the next to come begins anew.
    fn next(&self) -> Option<Vec<Lookup>> {
        let mut queue = self.lock();
        if queue.waiting.is_empty() {
            queue.is_served = false;
            return None;
        }
        let count = queue.waiting.len().min(TOGETHER);
        let later = queue.waiting.split_off(count);
        Some(std::mem::replace(&mut queue.waiting, later))
    }
}

/// What stands under a key at some moment after this was called.
pub(super) async fn look_up(shared: &Arc<Shared>, key: Vec<u8>) -> Result<Found, ModelError> {
    let (reply, answer) = oneshot::channel();
    let is_first = {
        let mut queue = shared.lookups.lock();
        queue.waiting.push(Lookup { key: key.clone(), reply });
        !std::mem::replace(&mut queue.is_served, true)
    };
    if is_first {
        // A task of its own: whoever asked first may lose interest.
        tokio::spawn(serve(Arc::clone(shared)));
    }
    let broken_off = |_| Err(ModelError::Engine("the question was broken off".to_owned()));
    Ok(Found { key, value: answer.await.unwrap_or_else(broken_off)? })
}

/// Whatever breaks the task off, nobody waits for it afterwards.
struct Serving<'a>(Option<&'a Lookups>);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if let Some(lookups) = self.0 {
            *lookups.lock() = Queue::default();
        }
    }
}

async fn serve(shared: Arc<Shared>) {
    let mut serving = Serving(Some(&shared.lookups));
    while let Some(batch) = shared.lookups.next() {
        let keys = batch.iter().map(|lookup| lookup.key.clone()).collect();
        let values = read(&shared, keys).await;
        for Lookup { key, reply } in batch {
            let value = values.as_ref().map(|values| values.value(&key)).map_err(Clone::clone);
            // Who does not wait any more does not need it.
            let _ = reply.send(value);
        }
    }
    serving.0 = None;
}

/// Once more when the connection turns out to be dead.
async fn read(shared: &Shared, keys: Vec<Vec<u8>>) -> Result<Prefetched, ModelError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let session = shared.reader().await.map_err(|error| ModelError::Engine(error.to_string()))?;
        match Prefetched::read(&session, keys.clone(), Vec::new(), Duration::ZERO).await {
            Ok(values) => return Ok(values),
            Err(SqlError::Lost { .. }) if tries < 2 => {}
            Err(error) => return Err(ModelError::Engine(error.to_string())),
        }
    }
}

/// A model of which one value is known.
pub(super) struct Found {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl View for Found {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ModelError> {
        if key == self.key { Ok(self.value.clone()) } else { Err(unforeseen()) }
    }

    fn scan(&self, _: &[u8], _: &[u8], _: usize) -> Result<Pairs, ModelError> {
        Err(unforeseen())
    }

    fn last(&self, _: &[u8], _: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ModelError> {
        Err(unforeseen())
    }
}

fn unforeseen() -> ModelError {
    ModelError::Engine("the question is for more than one value".to_owned())
}
