//! Who listens: so many in all and of one identity, found by certificate when it stops being good.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;

use chancery_api::FeedEnd;
use chancery_types::{SerialNumber, SpiffeId};
use tokio::sync::Notify;

/// The way to end one subscription from outside.
#[derive(Debug, Default)]
pub(super) struct Door {
    reason: OnceLock<FeedEnd>,
    closed: Notify,
}

impl Door {
    /// Closes it; the first reason stays.
    pub(super) fn close(&self, reason: FeedEnd) {
        let _ = self.reason.set(reason);
        self.closed.notify_one();
    }

    /// Resolves when it is closed.
    pub(super) async fn closed(&self) -> FeedEnd {
        loop {
            if let Some(reason) = self.reason.get() {
                return *reason;
            }
            self.closed.notified().await;
        }
    }
}

/// There are too many subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// In all.
    #[error("{0} programs follow the feed, which is all that are allowed; this one has to wait or to poll")]
    Total(usize),
    /// Of one identity.
    #[error(
        "{0} programs of this identity follow the feed, which is all that are allowed; give some an identity of their own"
    )]
    Identity(usize),
}

#[derive(Debug)]
struct Subscriber {
    instance: Option<String>,
    serial: SerialNumber,
    door: Arc<Door>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    by_identity: HashMap<SpiffeId, HashMap<u64, Subscriber>>,
    by_serial: HashMap<SerialNumber, Vec<(u64, Arc<Door>)>>,
    count: usize,
    opened: u64,
}

impl Subscribers {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Takes one in; returns the number under which it is removed. An older one of the same instance ends.
    pub(super) fn add(
        &mut self,
        id: &SpiffeId,
        serial: SerialNumber,
        instance: Option<String>,
        total: usize,
        per_identity: usize,
    ) -> Result<(u64, Arc<Door>), Full> {
        let of_identity = self.by_identity.get(id);
        let same = of_identity.and_then(|subscribers| {
            subscribers.iter().find(|(_, one)| instance.is_some() && one.instance == instance)
        });
        match same.map(|(number, subscriber)| (*number, Arc::clone(&subscriber.door))) {
            Some((number, door)) => {
                door.close(FeedEnd::Replaced);
                self.remove(id, number);
            }
            None if of_identity.is_some_and(|subscribers| subscribers.len() >= per_identity) => {
                return Err(Full::Identity(per_identity));
            }
            None if self.count >= total => return Err(Full::Total(total)),
            None => {}
        }
        self.opened += 1;
        self.count += 1;
        let door = Arc::<Door>::default();
        let subscriber = Subscriber { instance, serial, door: Arc::clone(&door) };
        self.by_identity.entry(id.clone()).or_default().insert(self.opened, subscriber);
        self.by_serial.entry(serial).or_default().push((self.opened, Arc::clone(&door)));
        Ok((self.opened, door))
    }

    /// Removes one, if it is still there.
    pub(super) fn remove(&mut self, id: &SpiffeId, number: u64) {
        let Some(of_identity) = self.by_identity.get_mut(id) else { return };
        let Some(subscriber) = of_identity.remove(&number) else { return };
        self.count -= 1;
        if of_identity.is_empty() {
            self.by_identity.remove(id);
        }
        if let Some(of_serial) = self.by_serial.get_mut(&subscriber.serial) {
            of_serial.retain(|(one, _)| *one != number);
            if of_serial.is_empty() {
                self.by_serial.remove(&subscriber.serial);
            }
        }
    }

    /// Ends those that were opened with this certificate.
    pub(super) fn end(&self, serial: SerialNumber) {
        for (_, door) in self.by_serial.get(&serial).into_iter().flatten() {
            door.close(FeedEnd::Certificate);
        }
    }

    /// Ends those whose certificates are so.
    pub(super) fn end_where(&self, mut is_so: impl FnMut(SerialNumber) -> bool) {
        self.by_serial.keys().copied().filter(|serial| is_so(*serial)).for_each(|serial| self.end(serial));
    }

    /// Ends those of an identity.
    pub(super) fn end_identity(&self, id: &SpiffeId) {
        for subscriber in self.by_identity.get(id).into_iter().flat_map(HashMap::values) {
            subscriber.door.close(FeedEnd::Certificate);
        }
    }

    /// Whether this instance listens, or one of the identity that does not say which it is.
    pub(super) fn has(&self, id: &SpiffeId, instance: &str) -> bool {
        self.by_identity.get(id).is_some_and(|subscribers| {
            subscribers.values().any(|one| one.instance.as_deref().is_none_or(|name| name == instance))
        })
    }
}

#[cfg(test)]
mod tests {
    use chancery_types::IssuerEpoch;

    use super::*;

    fn id(name: &str) -> SpiffeId {
        format!("spiffe://example.org/{name}").parse().unwrap()
    }

    fn serial(counter: u64) -> SerialNumber {
        SerialNumber::compose(IssuerEpoch(1), counter, [7; 8]).unwrap()
    }

    #[test]
    fn there_are_so_many_in_all_and_of_one_identity_and_an_instance_takes_its_own_place() {
        let mut subscribers = Subscribers::default();
        let mut add = |name: &str, instance: Option<&str>| {
            subscribers.add(&id(name), serial(1), instance.map(str::to_owned), 3, 2)
        };
        let (_, first) = add("a", Some("one")).unwrap();
        add("a", None).unwrap();
        assert_eq!(add("a", Some("two")).unwrap_err(), Full::Identity(2));
        add("a", Some("one")).unwrap();
        assert_eq!(first.reason.get(), Some(&FeedEnd::Replaced));
        let (number, _) = add("b", None).unwrap();
        assert_eq!(add("c", None).unwrap_err(), Full::Total(3));
        subscribers.remove(&id("b"), number);
        subscribers.remove(&id("b"), number);
        assert_eq!(subscribers.len(), 2);
        assert!(subscribers.has(&id("a"), "whichever") && !subscribers.has(&id("b"), "one"));
    }

    #[tokio::test]
    async fn ends_what_was_opened_with_a_certificate_or_belongs_to_an_identity() {
        let mut subscribers = Subscribers::default();
        let (number, first) = subscribers.add(&id("a"), serial(1), None, 9, 9).unwrap();
        let (_, second) = subscribers.add(&id("a"), serial(2), Some("x".into()), 9, 9).unwrap();
        subscribers.end(serial(1));
        assert_eq!(first.closed().await, FeedEnd::Certificate);
        assert!(second.reason.get().is_none());
        subscribers.remove(&id("a"), number);
        assert!(!subscribers.has(&id("a"), "y") && subscribers.has(&id("a"), "x"));
        subscribers.end_identity(&id("a"));
        assert_eq!(second.closed().await, FeedEnd::Certificate);
    }
}
