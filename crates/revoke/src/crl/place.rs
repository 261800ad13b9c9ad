//! A list's place: which certificates are on it, where it is published, and what is there now.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use chancery_ledger::RevokedCertificate;
use chancery_types::{CrlShard, Digest, IssuerEpoch, SerialNumber, Timestamp};
use chancery_x509::crl::CrlView;

use super::file::{self, Stamp};
use super::{CrlRules, PublishError, PublishedCrl, StatusIssuer};

/// Where a list is published.
#[derive(Debug)]
pub struct Place {
    pub(super) issuer: Arc<StatusIssuer>,
    shard: Option<CrlShard>,
    /// As certificates name it; none for a full list.
    urls: Vec<String>,
    file: PathBuf,
    /// When in the last quarter of a period it is made anew though nothing changed: 0 to 255.
    turn: u8,
    current: ArcSwapOption<PublishedCrl>,
    in_place: Mutex<Option<Stamp>>,
    is_dirty: AtomicBool,
    trouble: Mutex<Option<String>>,
}

impl Place {
    /// The place of a full list.
    pub(super) fn full(issuer: &Arc<StatusIssuer>, directory: &Path) -> Self {
        let file = directory.join(format!("{}.crl", issuer.epoch));
        Self::new(issuer, None, Vec::new(), file)
    }

    /// The place of the list of one part, which certificates name by these URLs.
    pub(super) fn part(
        issuer: &Arc<StatusIssuer>,
        shard: CrlShard,
        urls: Vec<String>,
        directory: &Path,
    ) -> Self {
        let below = format!("{}/{}/{}.crl", issuer.epoch, shard.of(), shard.number());
        Self::new(issuer, Some(shard), urls, directory.join(below))
    }

    fn new(issuer: &Arc<StatusIssuer>, shard: Option<CrlShard>, urls: Vec<String>, file: PathBuf) -> Self {
        let turn = Digest::of(file.to_string_lossy().as_bytes()).as_bytes()[0];
        let place = Self {
            issuer: Arc::clone(issuer),
            shard,
            urls,
            file,
            turn,
            current: ArcSwapOption::empty(),
            in_place: Mutex::new(None),
            is_dirty: AtomicBool::new(true),
            trouble: Mutex::new(None),
        };
        place.current.store(place.read_back().map(Arc::new));
        place
    }

    /// Whose list it is.
    #[must_use]
    pub fn epoch(&self) -> IssuerEpoch {
        self.issuer.epoch
    }

    /// The issuer.
    #[must_use]
    pub fn issuer(&self) -> &StatusIssuer {
        &self.issuer
    }

    /// Which part of the issuer's certificates; `None`: all.
    #[must_use]
    pub fn shard(&self) -> Option<CrlShard> {
        self.shard
    }

    /// The URLs under which certificates name it, the newest first; none for a full list.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The list in place.
    #[must_use]
    pub fn current(&self) -> Option<Arc<PublishedCrl>> {
        self.current.load_full()
    }

    /// Why the last attempt to publish a list here failed; nothing when it did not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Whether a certificate belongs on it when it is not good.
    #[must_use]
    pub fn covers(&self, serial: SerialNumber) -> bool {
        serial.epoch() == self.issuer.epoch && self.shard.is_none_or(|shard| shard.contains(serial))
    }

    /// When it is to be made anew though nothing changed. Those that were made together come apart by that.
    pub(super) fn due(&self, rules: &CrlRules) -> Timestamp {
        let quarter = rules.period() / 4;
        let wait = quarter * 3 + quarter * u32::from(self.turn) / 256;
        self.current().map_or(Timestamp::from_millis(0), |list| list.made + wait)
    }

    /// Whether there is something to do, and somebody to sign it.
    pub(super) fn wants_work(&self, rules: &CrlRules, now: Timestamp) -> bool {
        self.is_alive(now) && (self.is_dirty.load(Ordering::Acquire) || self.due(rules) <= now)
    }

    /// Whether new lists can be made for it, and anybody could use them.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.issuer.signer.is_some() && self.issuer.certificate.tbs().not_after() > now
    }

    pub(super) fn set_dirty(&self, is_dirty: bool) {
        self.is_dirty.store(is_dirty, Ordering::Release);
    }

    /// Whether the list in place says exactly this, and will be good for at least so long.
    pub(super) fn says(&self, lines: &[RevokedCertificate], now: Timestamp, least: Duration) -> bool {
        let Some(list) = self.current() else { return false };
        let Ok(view) = CrlView::from_der(&list.der) else { return false };
        list.made <= now
            && list.next_update >= now + least
            && view.distribution_points().eq(self.urls.iter().map(String::as_str))
            && names_exactly(&view, lines)
    }

    /// Puts a list in place of a lower number. Its directory has to be synced afterwards.
    pub(super) fn put(&self, list: Arc<PublishedCrl>) -> Result<(), PublishError> {
        let mut in_place = self.in_place.lock().unwrap_or_else(PoisonError::into_inner);
        let found = Stamp::of(&self.file);
        if found.is_some()
            && found != *in_place
            && let Some(number) = file::number_in(&self.file).filter(|number| *number >= list.number)
        {
            return Err(PublishError::Elsewhere(number));
        }
        self.make_directory()
            .and_then(|()| file::replace(&self.file, &list.der))
            .map_err(|error| self.failed(error))?;
        *in_place = Stamp::of(&self.file);
        self.current.store(Some(list));
        Ok(())
    }

    pub(super) fn failed(&self, error: std::io::Error) -> PublishError {
        PublishError::File { path: self.file.display().to_string(), error }
    }

    fn make_directory(&self) -> std::io::Result<()> {
        match self.file.parent() {
            Some(directory) if !directory.is_dir() => std::fs::create_dir_all(directory),
            _ => Ok(()),
        }
    }

    /// The list that an earlier process left, if the issuer signed it.
    fn read_back(&self) -> Option<PublishedCrl> {
        self.read(std::fs::read(&self.file).ok()?)
    }

    /// A list, if the issuer signed it.
    pub(super) fn read(&self, der: Vec<u8>) -> Option<PublishedCrl> {
        let view = CrlView::from_der(&der).ok()?;
        view.verify(self.issuer.certificate.tbs().spki_der()).ok()?;
        let (number, next_update) = (view.number_u64()?, view.next_update()?);
        let made = view.this_update() + super::make::BACKDATE;
        let entries = view.entries().count() as u64;
        Some(PublishedCrl { hash: Digest::of(&der), number, entries, made, next_update, der })
    }
}

/// Whether a list has these lines and no others. Both are in the order of their serials.
pub(super) fn names_exactly(view: &CrlView<'_>, lines: &[RevokedCertificate]) -> bool {
    let named = view.entries().map(|entry| (entry.serial, entry.reason));
    let wanted = lines.iter().map(|line| (line.serial.as_bytes().as_slice(), line.reason));
    named.eq(wanted)
}
