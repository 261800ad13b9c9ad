//! What of all certificates is not good, in memory, and what changes in it, in the order of the log.
//!
//! Everything that is published of status follows from here: lists, the exact set, the feed. The board is behind the
//! ledger by the moment that its task needs to wake; whoever must be right at acknowledgement asks the ledger.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use chancery_entry::{Body, Entry, HoldTarget};
use chancery_ledger::{CertificateRecord, CertificateState, Ledger, ModelError, News, RevokedCertificate};
use chancery_types::{Clock, IssuerEpoch, RevocationReason, SerialNumber, Timestamp};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Mutex, broadcast};

/// Entries that are worked on together.
const BATCH: usize = 4096;
/// Batches that a slow listener may be behind before it is told that it has missed some.
const NEWS: usize = 1024;
/// How long to wait after the ledger could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// How one certificate stands now, when it stood otherwise before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusChange {
    /// Which.
    pub serial: SerialNumber,
    /// When it ends.
    pub not_after: Timestamp,
    /// How it stands.
    pub state: CertificateState,
}

/// What became of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuerChange {
    /// It signs certificates.
    Activated(IssuerEpoch),
    /// It signs status only.
    Retired(IssuerEpoch),
    /// It is not to be trusted much longer.
    Tainted(IssuerEpoch),
}

/// What was heard of the log. Positions are sizes of the log.
#[derive(Debug, Clone)]
pub enum StatusNews {
    /// Everything that changed between two positions.
    Changes {
        /// Where the news before ended.
        after: u64,
        /// Where this ends.
        sequence: u64,
        /// Certificates, in the order in which they changed.
        certificates: Arc<[StatusChange]>,
        /// Issuers.
        issuers: Arc<[IssuerChange]>,
    },
    /// Something was missed: the board was made anew, and is right at this position.
    Anew {
        /// The position.
        sequence: u64,
    },
}

/// The certificates that are not good, and ended at most a while ago.
pub struct StatusBoard {
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    keep: Duration,
    lines: RwLock<Lines>,
    news: broadcast::Sender<StatusNews>,
    /// One change at a time: what is read anew must not undo what came meanwhile.
    changing: Mutex<()>,
}

/// What is on the board.
#[derive(Debug, Default)]
pub struct Lines {
    position: u64,
    by_serial: BTreeMap<SerialNumber, RevokedCertificate>,
}

impl std::fmt::Debug for StatusBoard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StatusBoard").field("position", &self.read().position).finish_non_exhaustive()
    }
}

impl StatusBoard {
    /// A board that is right now, and the news from which [`Self::follow`] keeps it so. It has certificates for so
    /// long after their end.
    ///
    /// # Errors
    /// [`ModelError`].
    pub async fn open(
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        keep: Duration,
    ) -> Result<(Arc<Self>, broadcast::Receiver<News>), ModelError> {
        let news = ledger.news();
        let (sender, _) = broadcast::channel(NEWS);
        let board =
            Self { ledger, clock, keep, lines: RwLock::default(), news: sender, changing: Mutex::new(()) };
        board.read_anew().await?;
        Ok((Arc::new(board), news))
    }

    /// What is on the board; hold it briefly.
    pub fn read(&self) -> RwLockReadGuard<'_, Lines> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What changes from now on. By the time it is told, the board has it.
    #[must_use]
    pub fn news(&self) -> broadcast::Receiver<StatusNews> {
        self.news.subscribe()
    }

    /// Follows the ledger until it closes.
    pub async fn follow(&self, mut news: broadcast::Receiver<News>) {
        loop {
            let mut batch = Vec::new();
            let mut has_missed = false;
            match news.recv().await {
                Ok(first) => batch.push(first),
                Err(RecvError::Lagged(_)) => has_missed = true,
                Err(RecvError::Closed) => return,
            }
            while !has_missed && batch.len() < BATCH {
                match news.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(TryRecvError::Lagged(_)) => has_missed = true,
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            if !has_missed {
                match self.take_in(&batch).await {
                    Ok(()) => continue,
                    Err(error) => {
                        tracing::error!(%error, "status is read anew, for what changed cannot be read")
                    }
                }
            }
            while let Err(error) = self.read_anew().await {
                tracing::error!(%error, "the status of certificates cannot be read; what is published stays");
                tokio::time::sleep(PAUSE).await;
            }
            self.tell_anew();
        }
    }

    /// Reads everything again, and tells so.
    ///
    /// # Errors
    /// [`ModelError`]; the board stays as it was.
    pub async fn renew(&self) -> Result<(), ModelError> {
        self.read_anew().await?;
        self.tell_anew();
        Ok(())
    }

    /// Forgets what ended before this moment.
    pub fn forget(&self, before: Timestamp) {
        self.lines.write().unwrap_or_else(PoisonError::into_inner).forget(before);
    }

    fn tell_anew(&self) {
        let _ = self.news.send(StatusNews::Anew { sequence: self.read().position });
    }

    async fn read_anew(&self) -> Result<(), ModelError> {
        let _turn = self.changing.lock().await;
        let position = self.ledger.head().size;
        let since = self.clock.now() - self.keep;
        let mut by_serial = BTreeMap::new();
        for issuer in self.ledger.issuers().await? {
            let lines = self.ledger.revoked(issuer.epoch, since).await?;
            by_serial.extend(lines.into_iter().map(|line| (line.serial, line)));
        }
        *self.lines.write().unwrap_or_else(PoisonError::into_inner) = Lines { position, by_serial };
        Ok(())
    }

    /// Finds out how the certificates that entries are about stand now. When a later entry has changed one again,
    /// that one finds nothing new.
    async fn take_in(&self, batch: &[News]) -> Result<(), ModelError> {
        let _turn = self.changing.lock().await;
        let after = self.read().position;
        let mut certificates = Vec::new();
        let mut issuers = Vec::new();
        let mut sequence = after;
        for news in batch.iter().filter(|news| news.index >= after) {
            sequence = sequence.max(news.index + 1);
            let (of_certificates, of_issuer) = changes(self.ledger.as_ref(), &news.entry).await?;
            certificates.extend(of_certificates);
            issuers.extend(of_issuer);
        }
        {
            let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
            lines.position = sequence;
            certificates.retain(|change| lines.put(change));
        }
        if sequence > after {
            let (certificates, issuers) = (certificates.into(), issuers.into());
            let _ = self.news.send(StatusNews::Changes { after, sequence, certificates, issuers });
        }
        Ok(())
    }
}

/// The certificates that an entry revokes, holds or releases; none for any other.
///
/// # Errors
/// [`ModelError`].
pub async fn serials(ledger: &dyn Ledger, entry: &Entry) -> Result<Vec<SerialNumber>, ModelError> {
    let target = match &entry.body {
        Body::Revocation(revocation) => return Ok(vec![revocation.serial]),
        Body::Hold(hold) => &hold.target,
        Body::Release(release) => &release.target,
        _ => return Ok(Vec::new()),
    };
    match target {
        HoldTarget::Certificate(serial) => Ok(vec![*serial]),
        HoldTarget::Lineage(lineage) => ledger.living(*lineage).await,
    }
}

/// What an entry was about, as it stands now.
///
/// # Errors
/// [`ModelError`].
pub async fn changes(
    ledger: &dyn Ledger,
    entry: &Entry,
) -> Result<(Vec<StatusChange>, Option<IssuerChange>), ModelError> {
    match &entry.body {
        Body::IssuerActivated(one) => return Ok((Vec::new(), Some(IssuerChange::Activated(one.epoch)))),
        Body::IssuerRetired(one) => return Ok((Vec::new(), Some(IssuerChange::Retired(one.epoch)))),
        Body::IssuerTainted(one) => return Ok((Vec::new(), Some(IssuerChange::Tainted(one.epoch)))),
        _ => {}
    }
    let serials = serials(ledger, entry).await?;
    let mut changes = Vec::with_capacity(serials.len());
    for serial in serials {
        let record = ledger.certificate(serial).await?;
        let change = |record: CertificateRecord| StatusChange {
            serial,
            not_after: record.not_after,
            state: record.state,
        };
        changes.extend(record.map(change));
    }
    Ok((changes, None))
}

impl Lines {
    /// The size of the log up to which this is right.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_serial.len()
    }

    /// Whether everything is good.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_serial.is_empty()
    }

    /// How a certificate stands that is not good.
    #[must_use]
    pub fn get(&self, serial: SerialNumber) -> Option<&RevokedCertificate> {
        self.by_serial.get(&serial)
    }

    /// Those of one issuer, by serial, which is also the order of their counters.
    pub fn of_issuer(&self, epoch: IssuerEpoch) -> impl Iterator<Item = &RevokedCertificate> {
        let first = SerialNumber::compose(epoch, 0, [0; 8]).expect("zero is a counter");
        self.by_serial
            .range(first..)
            .map(|(_, line)| line)
            .take_while(move |line| line.serial.epoch() == epoch)
    }

    /// Forgets what ended before this moment.
    pub fn forget(&mut self, before: Timestamp) {
        self.by_serial.retain(|_, line| line.not_after >= before);
    }

    /// Whether that changed anything.
    fn put(&mut self, change: &StatusChange) -> bool {
        let line = |reason, at| RevokedCertificate {
            serial: change.serial,
            reason,
            at,
            not_after: change.not_after,
        };
        let now = match change.state {
            CertificateState::Good => return self.by_serial.remove(&change.serial).is_some(),
            CertificateState::Held { since } => line(RevocationReason::CertificateHold, since),
            CertificateState::Revoked { at, reason } => line(reason, at),
        };
        self.by_serial.insert(change.serial, now) != Some(now)
    }
}

#[cfg(test)]
mod tests {
    use chancery_types::Timestamp;

    use super::*;

    fn change(epoch: u16, counter: u64, state: CertificateState) -> StatusChange {
        let serial = SerialNumber::compose(IssuerEpoch(epoch), counter, [7; 8]).unwrap();
        StatusChange { serial, not_after: Timestamp::from_seconds(100), state }
    }

    #[test]
    fn what_stands_as_before_is_no_change() {
        let mut lines = Lines::default();
        let held = CertificateState::Held { since: Timestamp::from_seconds(1) };
        let revoked = |reason| CertificateState::Revoked { at: Timestamp::from_seconds(2), reason };
        assert!(!lines.put(&change(1, 1, CertificateState::Good)));
        assert!(lines.put(&change(1, 1, held)));
        assert!(!lines.put(&change(1, 1, held)));
        assert!(lines.put(&change(1, 1, revoked(RevocationReason::Superseded))));
        assert!(lines.put(&change(1, 1, revoked(RevocationReason::KeyCompromise))));
        assert_eq!(lines.get(change(1, 1, held).serial).unwrap().reason, RevocationReason::KeyCompromise);
        assert!(lines.put(&change(1, 2, held)));
        assert!(lines.put(&change(1, 2, CertificateState::Good)));
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn the_lines_of_an_issuer_are_its_own_and_in_order() {
        let mut lines = Lines::default();
        let held = CertificateState::Held { since: Timestamp::from_seconds(1) };
        for (epoch, counter) in [(2, 9), (1, 3), (3, 1), (2, 1)] {
            lines.put(&change(epoch, counter, held));
        }
        let counters =
            |epoch| lines.of_issuer(IssuerEpoch(epoch)).map(|line| line.serial.counter()).collect::<Vec<_>>();
        assert_eq!([counters(1), counters(2), counters(4)], [vec![3], vec![1, 9], vec![]]);
        lines.forget(Timestamp::from_seconds(101));
        assert!(lines.is_empty());
    }
}
