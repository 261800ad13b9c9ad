//! What comes of a backup: an authority's directory that goes on where the published log ends, or nothing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use chancery_keys::age::{self, Identity};
use chancery_ledger::embedded::LogWriter;
use chancery_merkle::{SignedNote, Tile, TileKind, VerifiedCheckpoint, read_bundle};
use chancery_status::SignedSet;
use chancery_types::{Digest, Random, TrustDomain};

use super::database::Move;
use super::errors::until;
use super::{Account, BACKUP_VERSION, CHECKPOINT, FILES, LOG, MANIFEST, Manifest, RestoreError, SIGNATURES};
use crate::config::{LedgerPlace, PostgresPlace};

/// A checkpoint that somebody has, from where.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// A file or a URL.
    pub source_name: String,
    /// The signed checkpoint.
    pub note: SignedNote,
}

/// An exact set that somebody has, from where: docs/formats/status-set.md.
#[derive(Debug, Clone)]
pub struct StatusEvidence {
    /// A file or a URL.
    pub source_name: String,
    /// The file's bytes.
    pub bytes: Vec<u8>,
}

/// An entry with what was signed of it: its index, its bytes, the signature.
pub type More = (u64, Vec<u8>, Option<Vec<u8>>);

/// What is to be restored, and what is known of the log.
pub struct RestorePlan<'a, 'm> {
    /// Where the authority's directory is to be: nothing may be there.
    pub target: &'a Path,
    /// Who opens the backup.
    pub identities: &'a [Identity],
    /// Checkpoints that were published.
    pub checkpoints: Vec<Evidence>,
    /// Exact sets that were published.
    pub sets: Vec<StatusEvidence>,
    /// Whether somebody took it upon themselves that nobody has a later checkpoint.
    pub dangerous_without_checkpoint: bool,
    /// The database that is to have the log; without one the directory has it.
    pub database: Option<PostgresPlace>,
    /// Where entries behind those of the backup come from, by rising index; and its name.
    pub more: Option<(String, &'m mut (dyn FnMut() -> Result<Option<More>, String> + 'm))>,
}

/// What came of it.
#[derive(Debug)]
pub struct Restored {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// What the log comes to.
    pub account: Account,
    /// Entries that were not in the backup.
    pub added: u64,
    /// Entries that the latest published checkpoint covers.
    pub published: Option<u64>,
    /// Where the ledger is now.
    pub ledger: LedgerPlace,
    /// The configuration.
    pub config: PathBuf,
}

/// Opens a backup and lays it into a new directory, and its log into a database where one is named, if it does not go
/// back behind what was published. With a database it is called on a thread of a runtime that may block.
///
/// Everything is written beside the target first and put in place at the end; after an error nothing is left there. The
/// database is written to only when everything was found right; it may have the beginning of this log already.
/// `progress` hears of entries done and in all.
///
/// # Errors
/// [`RestoreError`], which says what to do.
pub fn restore(
    mut plan: RestorePlan<'_, '_>,
    random: &dyn Random,
    input: impl Read,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Restored, RestoreError> {
    if plan.checkpoints.is_empty() && plan.sets.is_empty() && !plan.dangerous_without_checkpoint {
        return Err(RestoreError::NoEvidence);
    }
    let staging = Staging::begin(plan.target)?;
    let content = age::decrypt(plan.identities, input)?;
    let mut laying = Laying::begin(&staging.path, random, &plan.checkpoints)?;
    let mut archive = tar::Archive::new(content);
    for file in archive.entries().map_err(RestoreError::Read)? {
        laying.take(&mut file.map_err(RestoreError::Read)?, progress)?;
    }
    // The archive ends before its file does, and only the file's end says that nothing was cut off.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(RestoreError::Read)?;
    let (manifest, own) = laying.check_own()?;
    let added = laying.extend(&mut plan, progress)?;
    let latest = laying.check_published(&plan)?;
    let published = latest.as_ref().map(|(size, _)| *size);
    // What this log is never opened with less of.
    let note = match latest {
        Some((size, note)) if size >= manifest.entries => note,
        _ => own,
    };
    let account = laying.finish(&note)?;
    if let Some(place) = &plan.database {
        let inside = place.checkpoints.strip_prefix(&staging.target).unwrap_or(Path::new(CHECKPOINTS));
        let (log, checkpoints) = (staging.path.join(LEDGER), staging.path.join(inside));
        Move { place, log, checkpoints, account: &account, published: &note }.go(random, progress)?;
    }
    let (ledger, config) = staging.put_in_place(&manifest, plan.database)?;
    Ok(Restored { manifest, account, added, published, ledger, config })
}

/// The log and the files while they are written.
struct Laying {
    directory: PathBuf,
    log: Option<LogWriter>,
    account: Account,
    manifest: Option<Manifest>,
    own: Option<SignedNote>,
    /// What the tree hashes to at sizes that somebody asks for.
    roots: BTreeMap<u64, Option<Digest>>,
    pending: Vec<Vec<u8>>,
    pending_bytes: usize,
    signatures: Vec<(u64, Vec<u8>)>,
}

impl Laying {
    fn begin(directory: &Path, random: &dyn Random, known: &[Evidence]) -> Result<Self, RestoreError> {
        let log = LogWriter::create(&directory.join(LEDGER), random)?;
        let sizes = known.iter().filter_map(|evidence| stated_size(&evidence.note));
        Ok(Self {
            directory: directory.to_owned(),
            log: Some(log),
            account: Account::default(),
            manifest: None,
            own: None,
            roots: sizes.map(|size| (size, None)).collect(),
            pending: Vec::new(),
            pending_bytes: 0,
            signatures: Vec::new(),
        })
    }

    /// One file of the archive.
    fn take(
        &mut self,
        file: &mut tar::Entry<'_, impl Read>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), RestoreError> {
        let name = file.path_bytes().into_owned();
        let name = String::from_utf8(name).map_err(RestoreError::malformed)?;
        if !file.header().entry_type().is_file() {
            return Err(RestoreError::malformed(format!("{name} is no file")));
        }
        match &self.manifest {
            None if name == MANIFEST => self.take_manifest(&content(file, MAX_TEXT)?),
            None => Err(RestoreError::malformed(format!("it begins with {name}, not with {MANIFEST}"))),
            Some(_) if name == CHECKPOINT => self.take_checkpoint(&content(file, MAX_TEXT)?),
            Some(_) if name == SIGNATURES => self.take_signatures(file),
            Some(manifest) => {
                let size = manifest.entries;
                if let Some(inside) = name.strip_prefix(FILES) {
                    return write_file(&self.directory, inside, file);
                }
                match name.strip_prefix(LOG).and_then(|name| name.parse::<Tile>().ok()) {
                    Some(tile) if tile.kind() == TileKind::Entries => {
                        self.take_entries(tile, &content(file, MAX_TILE)?)?;
                        progress(self.account.frontier.size(), size);
                        Ok(())
                    }
                    // Tree hashes follow from the entries; what a later program adds does not concern this one.
                    _ => Ok(()),
                }
            }
        }
    }

    fn take_manifest(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(RestoreError::malformed)?;
        let (found, known) = (manifest.chancery_backup, BACKUP_VERSION);
        if found != known {
            return Err(RestoreError::Version { found, known });
        }
        self.roots.insert(manifest.entries, None);
        self.manifest = Some(manifest);
        Ok(())
    }

    fn take_checkpoint(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let text = std::str::from_utf8(bytes).map_err(RestoreError::malformed)?;
        self.own = Some(text.parse().map_err(RestoreError::malformed)?);
        Ok(())
    }

    fn take_entries(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), RestoreError> {
        let size = self.account.frontier.size();
        if tile.start() != Some(size) {
            return Err(RestoreError::malformed(format!("{tile} stands where entry {size} is due")));
        }
        for entry in read_bundle(bytes, tile.width()).map_err(RestoreError::malformed)? {
            self.add(entry)?;
        }
        Ok(())
    }

    /// The next entry of the log.
    fn add(&mut self, entry: &[u8]) -> Result<(), RestoreError> {
        let index = self.account.frontier.size();
        let added = self.account.add(entry, &mut |_, _, _| {});
        added.map_err(|error| {
            RestoreError::malformed(format!("entry {index}: {error}; use the program that wrote it"))
        })?;
        if let Some(wanted) = self.roots.get_mut(&(index + 1)) {
            *wanted = Some(self.account.frontier.root());
        }
        self.pending_bytes += entry.len();
        self.pending.push(entry.to_vec());
        if self.pending_bytes >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), RestoreError> {
        let log = self.log.as_mut().expect("it is taken at the end alone");
        let entries: Vec<&[u8]> = self.pending.iter().map(Vec::as_slice).collect();
        if !entries.is_empty() {
            log.append(&entries)?;
        }
        if !self.signatures.is_empty() {
            log.sign(&self.signatures)?;
        }
        self.pending.clear();
        self.signatures.clear();
        self.pending_bytes = 0;
        Ok(())
    }

    fn take_signatures(&mut self, file: &mut impl Read) -> Result<(), RestoreError> {
        let mut file = io::BufReader::with_capacity(64 << 10, file);
        let mut head = [0; 10];
        let damaged = |error| RestoreError::malformed(format!("{SIGNATURES}: {error}"));
        while read_or_end(&mut file, &mut head).map_err(damaged)? {
            let [a, b, c, d, e, f, g, h, high, low] = head;
            let index = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            let mut signature = vec![0; usize::from(u16::from_be_bytes([high, low]))];
            file.read_exact(&mut signature).map_err(damaged)?;
            if index >= self.account.frontier.size() {
                return Err(RestoreError::malformed(format!("{SIGNATURES}: there is no entry {index}")));
            }
            self.sign(index, signature)?;
        }
        Ok(())
    }

    fn sign(&mut self, index: u64, signature: Vec<u8>) -> Result<(), RestoreError> {
        self.pending_bytes += signature.len();
        self.signatures.push((index, signature));
        if self.pending_bytes >= BATCH { self.flush() } else { Ok(()) }
    }

    /// That the log is what the backup's own checkpoint signs.
    fn check_own(&mut self) -> Result<(Manifest, SignedNote), RestoreError> {
        let manifest = self.manifest.clone().ok_or_else(|| RestoreError::malformed("it is empty"))?;
        let own = self.own.clone().ok_or_else(|| RestoreError::malformed("it has no checkpoint"))?;
        let size = self.account.frontier.size();
        if size != manifest.entries {
            let entries = manifest.entries;
            return Err(RestoreError::malformed(format!("it has {size} of {entries} entries")));
        }
        self.check("the backup's own checkpoint", &own)?;
        Ok((manifest, own))
    }

    /// Adds what is published and not in the backup, as far as some checkpoint signs it.
    fn extend(
        &mut self,
        plan: &mut RestorePlan<'_, '_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64, RestoreError> {
        let had = self.account.frontier.size();
        let wanted =
            plan.checkpoints.iter().filter_map(|known| stated_size(&known.note)).max().unwrap_or(had);
        let Some((source_name, more)) = plan.more.as_mut().filter(|_| wanted > had) else { return Ok(0) };
        let failed = |why: String| RestoreError::More { source_name: source_name.clone(), why };
        while self.account.frontier.size() < wanted {
            let Some((index, entry, signature)) = more().map_err(failed)? else { break };
            let size = self.account.frontier.size();
            if index < size {
                continue;
            }
            if index > size {
                return Err(failed(format!("it has no entry {size}; the next one in it is {index}")));
            }
            self.add(&entry)?;
            if let Some(signature) = signature {
                self.sign(index, signature)?;
            }
            progress(size + 1, wanted);
        }
        Ok(self.account.frontier.size() - had)
    }

    /// That nothing published is missing; the latest checkpoint and its size.
    fn check_published(&self, plan: &RestorePlan<'_, '_>) -> Result<Option<(u64, SignedNote)>, RestoreError> {
        let mut latest: Option<(u64, SignedNote)> = None;
        for Evidence { source_name, note } in &plan.checkpoints {
            let size = self.check(source_name, note)?;
            if latest.as_ref().is_none_or(|(known, _)| *known < size) {
                latest = Some((size, note.clone()));
            }
        }
        for set in &plan.sets {
            self.check_set(set)?;
        }
        Ok(latest)
    }

    /// That an exact set is of this log and was recorded in it: that happens before anybody gets one.
    fn check_set(&self, evidence: &StatusEvidence) -> Result<(), RestoreError> {
        let StatusEvidence { source_name, bytes } = evidence;
        let trust_domain =
            self.manifest.as_ref().and_then(|found| TrustDomain::parse(&found.trust_domain).ok());
        let (Some(trust_domain), Some(keys)) = (trust_domain, self.account.keys()) else {
            return Err(RestoreError::malformed("the log does not say whose it is"));
        };
        let opened = SignedSet::open(bytes.clone().into(), &trust_domain, keys.as_slice());
        let why = |error: chancery_status::OpenError| RestoreError::Evidence {
            source_name: source_name.clone(),
            why: error.to_string(),
        };
        let opened = opened.map_err(why)?;
        let (sequence, hash) = (opened.set().sequence(), opened.set().hash());
        self.reaches(source_name, sequence)?;
        if self.account.sets.contains(&(sequence, hash)) {
            return Ok(());
        }
        self.reaches(source_name, self.account.frontier.size() + 1)
    }

    /// That a checkpoint is of this log and not ahead of it; its size.
    fn check(&self, source_name: &str, note: &SignedNote) -> Result<u64, RestoreError> {
        let evidence = |why: String| RestoreError::Evidence { source_name: source_name.to_owned(), why };
        let keys =
            self.account.keys().ok_or_else(|| RestoreError::malformed("the log does not say whose it is"))?;
        let verified = VerifiedCheckpoint::open(note, keys, &[]);
        let verified = verified.map_err(|error| evidence(error.to_string()))?;
        let (size, published) = (verified.checkpoint().size(), verified.checkpoint().root());
        self.reaches(source_name, size)?;
        let found = self.roots.get(&size).copied().flatten();
        let empty = chancery_merkle::empty_root();
        let found = found.unwrap_or(empty);
        if found != published {
            let source_name = source_name.to_owned();
            return Err(RestoreError::Forked { size, found, published, source_name });
        }
        Ok(size)
    }

    fn reaches(&self, source_name: &str, published: u64) -> Result<(), RestoreError> {
        let found = self.account.frontier.size();
        if published <= found {
            return Ok(());
        }
        Err(RestoreError::WouldUnrevoke {
            found,
            published,
            missing: published - found,
            source_name: source_name.to_owned(),
            since: until(self.account.last),
        })
    }

    fn finish(mut self, published: &SignedNote) -> Result<Account, RestoreError> {
        self.flush()?;
        if let Some(log) = self.log.take() {
            log.finish(published)?;
        }
        Ok(self.account)
    }
}

/// How many entries a checkpoint says there are, believed by nobody yet.
fn stated_size(note: &SignedNote) -> Option<u64> {
    chancery_merkle::Checkpoint::parse(note.text()).ok().map(|checkpoint| checkpoint.size())
}

/// Writes a file of the authority, durably.
fn write_file(
    directory: &Path,
    inside: &str,
    file: &mut tar::Entry<'_, impl Read>,
) -> Result<(), RestoreError> {
    let inside = Path::new(inside);
    let is_plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_plain || inside.as_os_str().is_empty() || inside.starts_with(LEDGER) {
        return Err(RestoreError::malformed(format!("{} is no name of a file", inside.display())));
    }
    let path = directory.join(inside);
    let failed = |error| RestoreError::write(&path, error);
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    }
    // Never more open than the owner alone and, for what is public, readers.
    let mode = file.header().mode().map_err(RestoreError::Read)? & 0o644;
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
    let mut written = opened.map_err(failed)?;
    let content = content(file, MAX_FILE)?;
    written.write_all(&content).and_then(|()| written.sync_all()).map_err(failed)
}

/// All of a file of at most `limit` bytes.
fn content(
    file: &mut tar::Entry<'_, impl Read>,
    limit: u64,
) -> Result<zeroize::Zeroizing<Vec<u8>>, RestoreError> {
    if file.size() > limit {
        return Err(RestoreError::malformed(format!(
            "a file of {} bytes, at most {limit} are taken",
            file.size()
        )));
    }
    let mut bytes =
        zeroize::Zeroizing::new(Vec::with_capacity(usize::try_from(file.size()).unwrap_or_default()));
    file.read_to_end(&mut bytes).map_err(RestoreError::Read)?;
    Ok(bytes)
}

/// Fills the buffer; `false` at the end of the file.
fn read_or_end(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let (first, rest) = buffer.split_at_mut(1);
    if file.read(first)? == 0 {
        return Ok(false);
    }
    file.read_exact(rest).map(|()| true)
}

/// A directory beside the target, gone unless it was put in place.
struct Staging {
    path: PathBuf,
    target: PathBuf,
    placed: bool,
}

impl Staging {
    fn begin(target: &Path) -> Result<Self, RestoreError> {
        let target = std::path::absolute(target).map_err(|error| RestoreError::write(target, error))?;
        if fs::symlink_metadata(&target).is_ok() && fs::remove_dir(&target).is_err() {
            return Err(RestoreError::Exists(target.display().to_string()));
        }
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".restoring");
        let path = target.with_file_name(name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => RestoreError::Exists(path.display().to_string()),
            _ => RestoreError::write(&path, error),
        })?;
        Ok(Self { path, target, placed: false })
    }

    /// Makes a directory in it.
    fn make(&self, inside: &Path) -> Result<(), RestoreError> {
        if !inside.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(RestoreError::malformed(format!("{} is no place in a directory", inside.display())));
        }
        let path = self.path.join(inside);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| RestoreError::write(&path, error))
    }

    /// Moves the ledger to where the configuration has it, and all of it to the target.
    fn put_in_place(
        mut self,
        manifest: &Manifest,
        database: Option<PostgresPlace>,
    ) -> Result<(LedgerPlace, PathBuf), RestoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| RestoreError::write(&path, error)
        };
        if let Some(run) = &manifest.run {
            self.make(Path::new(run))?;
        }
        let name = manifest.ledger.as_deref().unwrap_or(LEDGER);
        if name != LEDGER && database.is_none() {
            self.make(Path::new(name).parent().unwrap_or(Path::new("")))?;
            let place = self.path.join(name);
            fs::rename(self.path.join(LEDGER), &place).map_err(failed(&place))?;
        }
        fs::rename(&self.path, &self.target).map_err(failed(&self.target))?;
        self.placed = true;
        let parent = self.target.parent().unwrap_or(Path::new("/"));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed(parent))?;
        let ledger = match database {
            Some(place) => LedgerPlace::Postgres(Box::new(place)),
            None => LedgerPlace::Directory(self.target.join(name)),
        };
        Ok((ledger, self.target.join(&manifest.config)))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be removed is found by its name, and refused the next time.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

const LEDGER: &str = "ledger";
/// Where the last checkpoint of a log in a database is kept, if the configuration has it elsewhere than in its directory.
const CHECKPOINTS: &str = "checkpoints";
/// Bytes that are written to the journal at once.
const BATCH: usize = 4 << 20;
const MAX_TEXT: u64 = 1 << 20;
const MAX_TILE: u64 = 256 * (65_535 + 2);
const MAX_FILE: u64 = 64 << 20;
