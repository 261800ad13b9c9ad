//! The audit from its first line to its report.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;

use chancery_entry::{Body, KeyPurpose};
use chancery_merkle::{
    Checkpoint, Frontier, LogKeys, LogKeysError, NoteVerifier, SignedNote, VerifiedCheckpoint,
};
use chancery_types::Digest;
use chancery_x509::Certificate;
use data_encoding::BASE64;
use serde::Serialize;

use super::batch::{CheckedEntry, in_parallel, read_batch};
use super::certificate::{self, Job};
use super::crl;
use super::finding::{Check, Finding, Findings};
use super::history::History;
use super::log_keys::{End, KeyHistory};
use super::source::{ExportSource, RawEntry, SourceError};

/// What the auditor brings along.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// The log's key, or some of its keys, from a source that the auditor trusts; those after them are believed by what
    /// the log itself proves. Without any the export's own is taken, which is reported as a warning: such an audit
    /// proves that the export is sound, not whose it is.
    pub log: Option<LogKeys>,
    /// Witnesses whose cosignatures are checked where they stand.
    pub witnesses: Vec<NoteVerifier>,
    /// The signed checkpoint that the auditor kept the last time.
    pub earlier: Option<String>,
    /// The root certificate's SHA-256, if the auditor knows it.
    pub root: Option<Digest>,
    /// Threads for hashing, decoding and signatures.
    pub threads: NonZeroUsize,
    /// Findings that are kept for each check; all are counted.
    pub keep: usize,
}

impl Default for AuditOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { log: None, witnesses: Vec::new(), earlier: None, root: None, threads, keep: 1_000 }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The export cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Without a key from the auditor or the export no checkpoint can be believed.
    #[error("the export's own verifier key is damaged: {0}; give the log's key")]
    Key(#[source] LogKeysError),
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Entries checked.
    pub entries: u64,
    /// Entries that there should be.
    pub of: u64,
    /// Bytes of the export read.
    pub bytes: u64,
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct AuditReport {
    /// The log.
    pub origin: String,
    /// Entries read.
    pub entries: u64,
    /// The root that they hash to.
    pub root: Digest,
    /// The signed checkpoint, if its signature stands: keep it for the next audit.
    pub checkpoint: Option<String>,
    /// Names of the witnesses that have cosigned it.
    pub witnesses: Vec<String>,
    /// Entries of each kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Certificates promised.
    pub certificates: u64,
    /// Of these, with a signature.
    pub signed: u64,
    /// What was found.
    pub findings: Findings,
}

/// Audits an export. `progress` is called after every batch of entries.
///
/// # Errors
/// [`AuditError`] when there is nothing to audit. Whatever is wrong with the log itself is in the report.
pub fn audit(
    source: &mut dyn ExportSource,
    options: &AuditOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<AuditReport, AuditError> {
    let mut auditor = Auditor::new(source, options)?;
    loop {
        let batch = read_batch(source)?;
        if batch.is_empty() {
            break;
        }
        auditor.take(&batch);
        progress(Progress { entries: auditor.entries, of: source.header().size, bytes: source.bytes_read() });
    }
    Ok(auditor.finish(source))
}

struct Auditor<'a> {
    options: &'a AuditOptions,
    findings: Findings,
    keys: KeyHistory,
    checkpoint: Option<VerifiedCheckpoint>,
    earlier: Option<Earlier>,
    /// Whether the export is a selection, whose entries have neither a tree nor a history.
    selection: bool,
    /// Whether an entry was unreadable, so that there is no tree.
    broken: bool,
    frontier: Frontier,
    history: History,
    entries: u64,
    next_index: u64,
    kinds: BTreeMap<&'static str, u64>,
    signed: u64,
}

impl<'a> Auditor<'a> {
    fn new(source: &dyn ExportSource, options: &'a AuditOptions) -> Result<Self, AuditError> {
        let header = source.header();
        let mut findings = Findings::with_limit(options.keep);
        let log = choose_keys(&header.vkey, options, &mut findings)?;
        let earlier = options.earlier.as_deref().and_then(|text| match Earlier::read(text) {
            Ok(earlier) => Some(earlier),
            Err(why) => {
                findings.push(Earlier::unusable(&why));
                None
            }
        });
        if header.origin != log.name() {
            let detail = format!("origin: {:?}, the key belongs to {:?}", clip(&header.origin), log.name());
            findings.push(Finding::new(Check::HeaderMismatch, detail));
        }
        let selection = header.selection.is_some();
        Ok(Self {
            options,
            findings,
            keys: KeyHistory::new(log),
            checkpoint: None,
            earlier,
            selection,
            broken: false,
            frontier: Frontier::new(),
            history: History::default(),
            entries: 0,
            next_index: 0,
            kinds: BTreeMap::new(),
            signed: 0,
        })
    }

    fn take(&mut self, batch: &[RawEntry]) {
        let checked = in_parallel(self.options.threads, batch, CheckedEntry::check);
        let mut jobs = Vec::with_capacity(checked.len());
        let mut checked = checked.into_iter().peekable();
        while let Some(entry) = checked.next() {
            let next = checked.peek().and_then(|next| Some(next.as_ref().ok()?.exported.index));
            jobs.extend(self.follow(entry, next));
        }
        for findings in in_parallel(self.options.threads, &jobs, certificate::check) {
            findings.into_iter().for_each(|finding| self.findings.push(finding));
        }
    }

    /// What depends on the order of entries.
    fn follow(&mut self, checked: Result<CheckedEntry, String>, next: Option<u64>) -> Option<Job> {
        self.compare_with_earlier();
        self.entries += 1;
        let checked = match checked {
            Ok(checked) => checked,
            Err(detail) => {
                self.findings.push(Finding::new(Check::ExportDamaged, detail).at(self.next_index));
                self.broken = true;
                self.next_index += 1;
                return None;
            }
        };
        let CheckedEntry { exported, entry, problems } = checked;
        let index = self.check_index(exported.index, next);
        problems.into_iter().for_each(|finding| self.findings.push(finding.at(index)));
        if !self.selection && !self.broken {
            self.frontier.append(exported.leaf_hash, &mut |_, _, _| {});
        }
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                self.findings.push(Finding::new(Check::Entry, error.to_string()).at(index));
                return None;
            }
        };
        *self.kinds.entry(entry.body.kind()).or_default() += 1;
        self.signed += u64::from(exported.signature.is_some());
        if self.selection {
            return None;
        }
        match &entry.body {
            Body::Genesis(genesis) if index == 0 => self.keys.begin(&genesis.verifier_key),
            Body::KeyChanged(change) if change.purpose == KeyPurpose::Log => {
                let end = End { size: self.entries, root: (!self.broken).then(|| self.frontier.root()) };
                if let Some(finding) = self.keys.follow(change, end) {
                    self.findings.push(finding.at(index));
                }
            }
            _ => {}
        }
        self.history.follow(index, entry, exported.signature, &mut self.findings)
    }

    /// The index under which an entry is reported. `next` is what the following entry states, if that is known.
    fn check_index(&mut self, stated: u64, next: Option<u64>) -> u64 {
        let expected = self.next_index;
        let out_of_place = if self.selection { stated < expected } else { stated != expected };
        // One wrong number among right ones is a wrong number; otherwise entries are missing or moved.
        let is_misnumbered = out_of_place && next == expected.checked_add(1);
        let index = if is_misnumbered { expected } else { stated };
        self.next_index = index.saturating_add(1);
        if out_of_place {
            let detail = match stated.checked_sub(expected) {
                _ if is_misnumbered => format!("field index: it says {stated}"),
                Some(missing) => {
                    format!("{missing} entries from index {expected} on are missing before this")
                }
                None => format!(
                    "it follows entry {}: it stands twice or out of place",
                    expected.saturating_sub(1)
                ),
            };
            self.findings.push(Finding::new(Check::Index, detail).at(index));
        }
        index
    }

    /// The tree of the earlier checkpoint must be what this one was at that size.
    fn compare_with_earlier(&mut self) {
        let is_here = |earlier: &&mut Earlier| earlier.checkpoint.size() == self.entries;
        let Some(earlier) = self.earlier.as_mut().filter(is_here) else { return };
        let (size, expected, found) = (self.entries, earlier.checkpoint.root(), self.frontier.root());
        earlier.compared = if self.selection || self.broken {
            Err(format!("the tree of size {size} could not be computed"))
        } else if found != expected {
            Err(format!(
                "at size {size} the root is {found}, the earlier checkpoint has {expected}: an entry before that was \
                 changed"
            ))
        } else {
            Ok(())
        };
    }

    /// What the signatures are worth is known only once the log has told of its keys.
    fn check_signatures(&mut self, source: &dyn ExportSource) {
        let header = source.header();
        let keys = if self.selection { self.keys.believed().clone() } else { self.keys.signing() };
        match VerifiedCheckpoint::open_text(&header.checkpoint, &keys, &self.options.witnesses) {
            Ok(checkpoint) => self.checkpoint = Some(checkpoint),
            Err(error) => self.findings.push(Finding::new(Check::CheckpointSignature, error.to_string())),
        }
        if let Some(checkpoint) = self.checkpoint.as_ref().map(VerifiedCheckpoint::checkpoint)
            && checkpoint.size() != header.size
        {
            let detail = format!("size: {}, the checkpoint covers {}", header.size, checkpoint.size());
            self.findings.push(Finding::new(Check::HeaderMismatch, detail));
        }
        let Some(earlier) = self.earlier.take() else { return };
        match VerifiedCheckpoint::open(&earlier.note, self.keys.believed(), &[]) {
            Err(error) => self.findings.push(Earlier::unusable(&error.to_string())),
            Ok(_) => {
                let detail = match earlier.compared {
                    Ok(()) if earlier.checkpoint.size() <= self.entries => return,
                    Ok(()) => format!(
                        "the earlier checkpoint has {} entries, now there are {}",
                        earlier.checkpoint.size(),
                        self.entries
                    ),
                    Err(detail) => detail,
                };
                self.findings.push(Finding::new(Check::Consistency, detail));
            }
        }
    }

    fn finish(mut self, source: &mut dyn ExportSource) -> AuditReport {
        self.compare_with_earlier();
        source.findings().into_iter().for_each(|finding| self.findings.push(finding));
        self.check_signatures(source);
        let root = self.frontier.root();
        if !self.selection {
            self.check_tree(root);
            self.check_header(source);
        }
        let header = source.header();
        let certificates = self.kinds.get("issuance").copied().unwrap_or_default();
        if !self.selection {
            let status = self.history.finish(&mut self.findings);
            crl::check(&header.crls, &status, &mut self.findings);
        }
        self.findings.sort();
        let witnesses = self.checkpoint.iter().flat_map(VerifiedCheckpoint::cosignatures);
        AuditReport {
            origin: self.keys.believed().name().to_owned(),
            entries: self.entries,
            root,
            witnesses: witnesses.map(|cosignature| cosignature.witness.clone()).collect(),
            checkpoint: self.checkpoint.is_some().then(|| header.checkpoint.clone()),
            kinds: self.kinds,
            certificates,
            signed: self.signed,
            findings: self.findings,
        }
    }

    fn check_tree(&mut self, root: Digest) {
        let Some(checkpoint) = self.checkpoint.as_ref().map(VerifiedCheckpoint::checkpoint) else { return };
        if checkpoint.size() != self.entries {
            let detail =
                format!("the checkpoint covers {} entries, there are {}", checkpoint.size(), self.entries);
            self.findings.push(Finding::new(Check::TreeSize, detail));
        } else if !self.broken && root != checkpoint.root() {
            let detail = format!(
                "the entries hash to {root}, the checkpoint signs {}: an entry was changed; where no other finding \
                 names it, compare with an earlier checkpoint or another export",
                checkpoint.root()
            );
            self.findings.push(Finding::new(Check::TreeRoot, detail));
        }
    }

    /// The header against what the log itself says.
    fn check_header(&mut self, source: &dyn ExportSource) {
        let header = source.header();
        let findings = &mut self.findings;
        let mut mismatch = |detail: String| findings.push(Finding::new(Check::HeaderMismatch, detail));
        if let Some(genesis) = self.history.genesis() {
            let name = self.keys.believed().name();
            if genesis.origin != name {
                mismatch(format!("the log calls itself {:?}, its key {name:?}", genesis.origin));
            }
            let stated = header.vkey.parse::<NoteVerifier>().ok();
            if let Some(stated) = stated.filter(|stated| !self.keys.names(stated)) {
                mismatch(format!("vkey: {stated}, the log names {}", self.keys.text()));
            }
            for key in self.keys.believed().as_slice().iter().filter(|key| !self.keys.names(key)) {
                mismatch(format!("the log names the key {}, checked was {key}", self.keys.text()));
            }
            let domain = genesis.trust_domain.trust_domain_name();
            if let Some(stated) = header.trust_domain.as_ref().filter(|stated| *stated != domain) {
                mismatch(format!("trust_domain: {:?}, the log says {domain:?}", clip(stated)));
            }
            let root = Digest::of(&genesis.root.0);
            if let Some(pinned) = self.options.root.filter(|pinned| *pinned != root) {
                mismatch(format!("the root is {root}, expected was {pinned}"));
            }
        }
        let recorded: HashSet<Digest> = self.history.issuer_fingerprints().into_iter().collect();
        for (position, issuer) in header.issuers.iter().enumerate() {
            let certificate =
                BASE64.decode(issuer.as_bytes()).ok().and_then(|der| Certificate::from_der(&der).ok());
            match certificate {
                Some(certificate) if recorded.contains(&certificate.fingerprint()) => {}
                Some(_) => {
                    mismatch(format!("issuers: certificate {position} was never published in the log"))
                }
                None => mismatch(format!("issuers: certificate {position} cannot be read")),
            }
        }
        if !header.issuers.is_empty() && header.issuers.len() < recorded.len() {
            let (listed, known) = (header.issuers.len(), recorded.len());
            mismatch(format!("issuers: {listed} listed, the log has published {known}"));
        }
    }
}

fn choose_keys(stated: &str, options: &AuditOptions, findings: &mut Findings) -> Result<LogKeys, AuditError> {
    let exported = stated.parse::<LogKeys>();
    let Some(log) = &options.log else {
        findings.push(Finding::new(
            Check::KeyNotPinned,
            format!("the log's key {stated} was taken from the export; compare it with its owner's"),
        ));
        return exported.map_err(AuditError::Key);
    };
    if exported.is_err() {
        let detail = format!("vkey: {:?}, the auditor's is {log}", clip(stated));
        findings.push(Finding::new(Check::HeaderMismatch, detail));
    }
    Ok(log.clone())
}

/// The checkpoint that the auditor kept the last time.
struct Earlier {
    note: SignedNote,
    checkpoint: Checkpoint,
    /// How the tree compares, once it has grown so far.
    compared: Result<(), String>,
}

impl Earlier {
    fn read(text: &str) -> Result<Self, String> {
        let note: SignedNote = text.parse().map_err(|error| format!("{error}"))?;
        let checkpoint = Checkpoint::parse(note.text()).map_err(|error| error.to_string())?;
        Ok(Self { note, checkpoint, compared: Ok(()) })
    }

    fn unusable(why: &str) -> Finding {
        Finding::new(Check::Consistency, format!("the earlier checkpoint cannot be used: {why}"))
    }
}

/// The beginning of a text that may be hostile.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
