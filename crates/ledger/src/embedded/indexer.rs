//! One thread that commits the read model behind the sequencer.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::Shared;
use super::index::IndexPosition;

/// How the sequencer calls the indexer.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    call: Mutex<Call>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct Call {
    now: bool,
    closing: bool,
}

impl Wake {
    /// Asks for a commit without waiting for the interval.
    pub(crate) fn now(&self) {
        self.call.lock().unwrap_or_else(PoisonError::into_inner).now = true;
        self.changed.notify_one();
    }

    /// Asks for a last commit and the thread's end.
    pub(crate) fn close(&self) {
        self.call.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        self.changed.notify_one();
    }

    fn wait(&self, interval: Duration) -> Call {
        let call = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut call, _) = self
            .changed
            .wait_timeout_while(call, interval, |call| !call.now && !call.closing)
            .unwrap_or_else(PoisonError::into_inner);
        call.now = false;
        *call
    }
}

/// Runs until the sequencer closes.
pub(crate) fn run(shared: &Shared) {
    loop {
        let call = shared.wake.wait(shared.options.index_interval);
        if let Err(error) = commit(shared) {
            shared.halt(format!("committing the index failed: {error}"));
            // What could not be committed stays readable in memory; the journal has it all.
            return;
        }
        if call.closing {
            return;
        }
    }
}

/// Commits what waits, if anything does.
pub(crate) fn commit(shared: &Shared) -> io::Result<()> {
    if shared.memtable.waiting() == 0 && !head_moved(shared)? {
        return Ok(());
    }
    // The signature log is measured first: what is appended later is noted again by the next replay.
    let signatures = shared.signatures.length();
    let (layer, journal) = shared.memtable.take();
    shared.signatures.sync()?;
    shared.derived.sync()?;
    shared
        .memtable
        .index()
        .commit(&layer, IndexPosition { journal, signatures })
        .map_err(io::Error::other)?;
    shared.memtable.committed();
    let note = shared.checkpoint().map_err(io::Error::other)?;
    write_checkpoint(&shared.directory, &note.to_string())
}

/// Whether entries were accepted that changed nothing in the read model.
fn head_moved(shared: &Shared) -> io::Result<bool> {
    let position = shared.memtable.index().position().map_err(io::Error::other)?;
    Ok(position.map_or(0, |position| position.journal.size) != shared.head.load().size)
}

/// Replaces the checkpoint file, durably and whole.
fn write_checkpoint(directory: &Path, note: &str) -> io::Result<()> {
    let path = directory.join("checkpoint");
    let temporary = directory.join("checkpoint.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&temporary)?;
    file.write_all(note.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(directory)?.sync_all()
}

/// Starts the thread.
pub(crate) fn spawn(shared: Arc<Shared>) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("ledger-indexer".into()).spawn(move || run(&shared))
}
