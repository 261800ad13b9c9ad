//! Making a backup.

use std::io::{self, Read, Write};

use chancery_api::{EXPORT_VERSION, ExportHeader};
use chancery_keys::age::{self, Encryptor, Recipient};
use chancery_merkle::{Checkpoint, SignedNote, VerifiedCheckpoint};
use chancery_types::{Random, Timestamp};
use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::material::{Material, Piece};
use super::source::Source;
use super::tiles::Tiles;
use super::{Account, BACKUP_VERSION, BackupError, CHECKPOINT, HEADER, LOG, MANIFEST, Manifest, SIGNATURES};
use crate::config::Config;

/// Whether the keys go along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysIn {
    /// No: they are kept otherwise.
    LeftOut,
    /// Those that lie in files do.
    Backup,
}

/// What is to be backed up, and for whom.
#[derive(Debug)]
pub struct BackupPlan<'a> {
    /// The authority.
    pub config: &'a Config,
    /// The name of its configuration file.
    pub config_name: &'a str,
    /// Who can open the backup.
    pub recipients: &'a [Recipient],
    /// Whether the keys go along.
    pub keys: KeysIn,
    /// A checkpoint that the running server has just signed; without one the ledger is opened for it, or, where that
    /// is not possible, the last one that was published is taken.
    pub checkpoint: Option<SignedNote>,
    /// The version of the program.
    pub program: &'a str,
    /// Now.
    pub now: Timestamp,
}

/// Writes a backup to `output`; `progress` hears of entries done and in all. It is whole when this returns. Where the
/// log is in a database, it is called on a thread of a runtime that may block.
///
/// # Errors
/// [`BackupError`]; what was written until then is of no use.
pub fn make<W: Write>(
    plan: &BackupPlan<'_>,
    random: &dyn Random,
    output: W,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Manifest, Account), BackupError> {
    let source = Source::open(plan.config, random)?;
    let note = plan.checkpoint.clone().map_or_else(|| source.checkpoint(), Ok)?;
    let checkpoint =
        Checkpoint::parse(note.text()).map_err(|error| BackupError::Checkpoint(error.to_string()))?;
    let material = Material::gather(plan.config, plan.keys)?;
    let manifest = manifest(plan, checkpoint.size(), material.left_out);
    let mut archive = Archive::begin(plan, random, output)?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?;
    archive.put(MANIFEST, &text)?;
    archive.put(CHECKPOINT, note.to_string().as_bytes())?;
    for piece in &material.pieces {
        archive.put_file(piece)?;
    }
    let account = put_log(&source, &checkpoint, &note, &mut archive, progress)?;
    put_signatures(&source, checkpoint.size(), &mut archive)?;
    let header = header(plan, &checkpoint, &account);
    archive.put(HEADER, &serde_json::to_vec(&header).map_err(io::Error::other)?)?;
    archive.finish()?;
    Ok((manifest, account))
}

fn manifest(plan: &BackupPlan<'_>, entries: u64, left_out: Vec<String>) -> Manifest {
    let config = plan.config;
    let inside = |path: &std::path::Path| {
        let path = path.strip_prefix(&config.directory).ok()?.to_str()?;
        Some(path.to_owned()).filter(|path| !path.is_empty())
    };
    Manifest {
        chancery_backup: BACKUP_VERSION,
        trust_domain: config.trust_domain.to_string(),
        made: plan.now,
        program: plan.program.to_owned(),
        entries,
        config: plan.config_name.to_owned(),
        ledger: config.ledger.directory().and_then(inside),
        database: config.ledger.directory().is_none().then(|| config.ledger.to_string()),
        run: config.admin_socket.parent().and_then(inside),
        keys: plan.keys == KeysIn::Backup,
        left_out,
    }
}

/// The log's entries and hashes; what it comes to, once that is what was signed.
fn put_log<W: Write>(
    source: &Source<'_>,
    checkpoint: &Checkpoint,
    note: &SignedNote,
    archive: &mut Archive<W>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Account, BackupError> {
    let size = checkpoint.size();
    let mut account = Account::default();
    let mut keep = |name: &str, bytes: &[u8]| archive.put(&format!("{LOG}{name}"), bytes);
    let mut tiles = Tiles::new(&mut keep);
    source.read(size, &mut |entry| {
        let index = account.frontier.size();
        let added = account.add(entry, &mut |level, _, hash| tiles.hash(level, &hash));
        added.map_err(|error| BackupError::Entry { index, error })?;
        tiles.entry(entry)?;
        if index % 1024 == 1023 {
            progress(index + 1, size);
        }
        Ok(())
    })?;
    tiles.finish()?;
    progress(size, size);
    let (found, signed) = (account.frontier.root(), checkpoint.root());
    if found != signed {
        return Err(BackupError::Differs { size, found, signed });
    }
    let keys = account.keys().ok_or(BackupError::Empty)?;
    let verified = VerifiedCheckpoint::open(note, keys, &[]);
    verified.map_err(|error| BackupError::Checkpoint(error.to_string()))?;
    Ok(account)
}

fn put_signatures<W: Write>(
    source: &Source<'_>,
    size: u64,
    archive: &mut Archive<W>,
) -> Result<(), BackupError> {
    let kept = source.signatures(size)?;
    let length = kept.bytes() + 10 * kept.count();
    let mut stream = archive.begin_stream(SIGNATURES, length)?;
    kept.each(&mut |index, signature| {
        let count = u16::try_from(signature.len()).map_err(io::Error::other)?;
        stream.write(&index.to_be_bytes())?;
        stream.write(&count.to_be_bytes())?;
        stream.write(signature)?;
        Ok(())
    })?;
    Ok(stream.end()?)
}

/// With it the directory is an export for `chancery audit verify`.
fn header(plan: &BackupPlan<'_>, checkpoint: &Checkpoint, account: &Account) -> ExportHeader {
    ExportHeader {
        chancery_export: EXPORT_VERSION,
        origin: checkpoint.origin().to_owned(),
        vkey: account.active.as_ref().map(ToString::to_string).unwrap_or_default(),
        trust_domain: Some(plan.config.trust_domain.to_string()),
        size: checkpoint.size(),
        checkpoint: String::new(),
        issuers: account.issuers.iter().map(|der| BASE64.encode(der)).collect(),
        crls: Vec::new(),
        created: Some(plan.now),
        selection: None,
    }
}

/// The archive under way.
struct Archive<W: Write> {
    tar: tar::Builder<Encryptor<W>>,
    modified: u64,
}

impl<W: Write> Archive<W> {
    fn begin(plan: &BackupPlan<'_>, random: &dyn Random, output: W) -> Result<Self, BackupError> {
        let encryptor = age::encrypt(plan.recipients, random, output)?;
        let modified = u64::try_from(plan.now.seconds()).unwrap_or_default();
        Ok(Self { tar: tar::Builder::new(encryptor), modified })
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.append(name, bytes.len() as u64, 0o644, bytes)
    }

    fn put_file(&mut self, piece: &Piece) -> Result<(), BackupError> {
        let failed = |error| BackupError::File { path: piece.path.display().to_string(), error };
        // Whole at first: its length must not change in between.
        let content = Zeroizing::new(std::fs::read(&piece.path).map_err(failed)?);
        Ok(self.append(&piece.name, content.len() as u64, piece.mode, content.as_slice())?)
    }

    fn append(&mut self, name: &str, length: u64, mode: u32, content: impl Read) -> io::Result<()> {
        let mut header = self.header(length, mode);
        self.tar.append_data(&mut header, name, content)
    }

    fn header(&self, length: u64, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_size(length);
        header.set_mode(mode);
        header.set_mtime(self.modified);
        header
    }

    /// A file that is written piece by piece, and has exactly this length.
    fn begin_stream(&mut self, name: &str, length: u64) -> io::Result<Stream<'_, W>> {
        let mut header = self.header(length, 0o644);
        header.set_path(name)?;
        header.set_cksum();
        let output = self.tar.get_mut();
        output.write_all(header.as_bytes())?;
        Ok(Stream { output, length, written: 0 })
    }

    fn finish(self) -> io::Result<()> {
        self.tar.into_inner()?.finish()?;
        Ok(())
    }
}

struct Stream<'a, W: Write> {
    output: &'a mut Encryptor<W>,
    length: u64,
    written: u64,
}

impl<W: Write> Stream<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.output.write_all(bytes)
    }

    fn end(self) -> io::Result<()> {
        if self.written != self.length {
            return Err(io::Error::other("the signatures changed while they were read; try again"));
        }
        let rest =
            usize::try_from(self.length.next_multiple_of(512) - self.length).map_err(io::Error::other)?;
        self.output.write_all(&[0; 512][..rest])
    }
}
