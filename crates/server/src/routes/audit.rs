//! The export that an auditor takes away: the whole log, or a selection of it, as a stream of JSON lines.
//!
//! The form is [`chancery_api::ExportHeader`] and what follows it. Memory is bounded: a chunk of entries is read
//! when the caller has taken the one before, and nothing is read any more once the caller has hung up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chancery_api::{AuditExportQuery, AuditFormat, EXPORT_VERSION, ExportFooter, ExportHeader, ExportLine};
use chancery_entry::{Body as Fact, Entry, HoldTarget, TokenBinding};
use chancery_ledger::{IssuedSignature, IssuerRecord, Ledger, ModelError, ReadError};
use chancery_merkle::{Checkpoint, SignedNote, leaf_hash};
use chancery_types::{SerialNumber, SpiffeId, Timestamp};
use data_encoding::{BASE64, HEXLOWER};
use futures_util::TryStreamExt;
use http::header::CONTENT_TYPE;
use ring::digest::{Context, SHA256};

use super::problem_of;
use crate::site::Site;
use crate::{HttpProblem, Query};

/// Entries read at once.
const CHUNK: usize = 512;
/// Bytes after which a part of the stream is handed over.
const PART_BYTES: usize = 256 << 10;
/// How often, and after how long, it is looked again how issuers stand: a second together.
const SETTLING: u32 = 20;
const SETTLES: Duration = Duration::from_millis(50);

/// Exports the log, or what the query selects of it.
pub(crate) async fn export(
    State(site): State<Arc<Site>>,
    Query(query): Query<AuditExportQuery>,
) -> Result<Response, HttpProblem> {
    let AuditFormat::Jsonl = query.format;
    let selection = Selection::of(query);
    let header = header(&site, &selection).await?;
    let ledger = Arc::clone(site.authority.ledger());
    let export = Export::new(ledger, &header, selection).map_err(HttpProblem::internal)?;
    let parts = futures_util::stream::try_unfold(export, Export::next)
        // The status has been sent: all that the caller sees is an end without a last line.
        .inspect_err(|error| tracing::error!(%error, "an export broke off"));
    Ok(([(CONTENT_TYPE, "application/jsonl")], Body::from_stream(parts)).into_response())
}

/// The checkpoint comes first: issuers and lists are at least as new as what it covers.
async fn header(site: &Site, selection: &Selection) -> Result<ExportHeader, HttpProblem> {
    let authority = &site.authority;
    let (note, checkpoint, issuers) = standing(authority.ledger().as_ref()).await?;
    let size = checkpoint.size();
    let lists = site.crl.places().filter_map(|place| place.current());
    let covered = issuers.iter().filter(|issuer| issuer.index < size);
    Ok(ExportHeader {
        chancery_export: EXPORT_VERSION,
        origin: checkpoint.origin().to_owned(),
        vkey: authority.log_key().vkey(),
        trust_domain: Some(authority.config().trust_domain.to_string()),
        size,
        checkpoint: note.to_string(),
        issuers: covered.map(|issuer| BASE64.encode(&issuer.certificate)).collect(),
        crls: lists.map(|list| BASE64.encode(&list.der)).collect(),
        created: Some(authority.clock().now()),
        selection: selection.text(),
    })
}

/// A checkpoint, and how issuers stand: the last that was said of each is in what it covers, but where one is changed
/// again and again.
async fn standing(ledger: &dyn Ledger) -> Result<(SignedNote, Checkpoint, Vec<IssuerRecord>), HttpProblem> {
    let mut tries = 0;
    loop {
        let note = ledger.checkpoint().map_err(problem_of)?;
        let checkpoint = Checkpoint::parse(note.text()).map_err(HttpProblem::internal)?;
        let issuers = ledger.issuers().await.map_err(problem_of)?;
        tries += 1;
        if tries == SETTLING || issuers.iter().all(|issuer| issuer.index < checkpoint.size()) {
            return Ok((note, checkpoint, issuers));
        }
        // What another replica has recorded is known here soon.
        tokio::time::sleep(SETTLES).await;
    }
}

/// What is exported. Conditions add up; without any it is everything.
#[derive(Debug, Clone, Default)]
struct Selection {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    identity: Option<SpiffeId>,
    owner: Option<String>,
}

impl Selection {
    fn of(query: AuditExportQuery) -> Self {
        Self { since: query.since, until: query.until, identity: query.identity, owner: query.owner }
    }

    /// In words; nothing when it is everything.
    fn text(&self) -> Option<String> {
        let parts = [
            self.since.map(|moment| format!("from {moment} on")),
            self.until.map(|moment| format!("before {moment}")),
            self.identity.as_ref().map(|identity| format!("about {identity}")),
            self.owner.as_ref().map(|owner| format!("about identities of {owner}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    async fn admits(&self, entry: &Entry, ledger: &dyn Ledger) -> Result<bool, ModelError> {
        let is_late = self.since.is_none_or(|since| entry.time >= since);
        let is_early = self.until.is_none_or(|until| entry.time < until);
        if !is_late || !is_early {
            return Ok(false);
        }
        if self.identity.is_none() && self.owner.is_none() {
            return Ok(true);
        }
        let Some(subject) = subject(&entry.body, ledger).await? else { return Ok(false) };
        if self.identity.as_ref().is_some_and(|identity| *identity != subject) {
            return Ok(false);
        }
        let Some(owner) = &self.owner else { return Ok(true) };
        let record = ledger.identity(&subject).await?;
        Ok(record.is_some_and(|record| record.identity.owner == *owner))
    }
}

/// The identity that an entry is about, directly or through a certificate, a lineage or a token.
async fn subject(fact: &Fact, ledger: &dyn Ledger) -> Result<Option<SpiffeId>, ModelError> {
    match fact {
        Fact::Issuance(issuance) => Ok(Some(issuance.identity.clone())),
        Fact::Refusal(refusal) => Ok(refusal.identity.clone()),
        Fact::IdentityRegistered(registration) | Fact::IdentityChanged(registration) => {
            Ok(Some(registration.identity.clone()))
        }
        Fact::IdentityHeld(change) | Fact::IdentityReleased(change) | Fact::IdentityRetired(change) => {
            Ok(Some(change.identity.clone()))
        }
        Fact::Revocation(revocation) => holder(revocation.serial, ledger).await,
        Fact::TokenSpent(spend) => holder(spend.serial, ledger).await,
        Fact::Hold(hold) => subject_of_hold(&hold.target, ledger).await,
        Fact::Release(release) => subject_of_hold(&release.target, ledger).await,
        Fact::TokenCreated(token) => match &token.binding {
            TokenBinding::Identity(identity) => Ok(Some(identity.clone())),
            TokenBinding::Template { .. } => Ok(None),
        },
        Fact::TokenRevoked(token) => Ok(ledger.token(token.token).await?.and_then(|token| token.identity)),
        Fact::OperatorAction(action) => Ok(SpiffeId::parse(&action.resource).ok()),
        Fact::Null
        | Fact::Genesis(_)
        | Fact::CrlPublished(_)
        | Fact::CrlDivided(_)
        | Fact::CrlShardPublished(_)
        | Fact::StatusSetPublished(_)
        | Fact::Tidied(_)
        | Fact::TemplateRegistered(_)
        | Fact::TemplateRemoved(_)
        | Fact::IssuerActivated(_)
        | Fact::IssuerRetired(_)
        | Fact::IssuerPrepared(_)
        | Fact::IssuerTainted(_)
        | Fact::IssuerWithdrawn(_)
        | Fact::KeyChanged(_)
        | Fact::RotationWished(_)
        | Fact::PolicyChanged(_)
        | Fact::ProfileChanged(_)
        | Fact::ChangeProposed(_)
        | Fact::ChangeStepped(_)
        | Fact::Ceremony(_) => Ok(None),
    }
}

async fn subject_of_hold(target: &HoldTarget, ledger: &dyn Ledger) -> Result<Option<SpiffeId>, ModelError> {
    let serial = match target {
        HoldTarget::Certificate(serial) => Some(*serial),
        HoldTarget::Lineage(lineage) => ledger.lineage(*lineage).await?.map(|lineage| lineage.latest),
    };
    match serial {
        Some(serial) => holder(serial, ledger).await,
        None => Ok(None),
    }
}

async fn holder(serial: SerialNumber, ledger: &dyn Ledger) -> Result<Option<SpiffeId>, ModelError> {
    Ok(ledger.certificate(serial).await?.map(|record| record.identity))
}

/// Why an export broke off.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("a line cannot be written: {0}")]
    Write(#[from] serde_json::Error),
    #[error("entry {index} of {size} was not read")]
    Missing { index: u64, size: u64 },
}

/// An export under way.
struct Export {
    ledger: Arc<dyn Ledger>,
    selection: Selection,
    /// The header's line, until it is handed over.
    head: Vec<u8>,
    /// Read and not yet written.
    leaves: VecDeque<Vec<u8>>,
    /// Index of the first of them.
    next: u64,
    /// Those beside the entries up to an index, as far as they are read and not yet written.
    signatures: VecDeque<IssuedSignature>,
    signed_until: u64,
    size: u64,
    lines: u64,
    digest: Context,
    ended: bool,
}

impl Export {
    fn new(
        ledger: Arc<dyn Ledger>,
        header: &ExportHeader,
        selection: Selection,
    ) -> Result<Self, serde_json::Error> {
        let mut head = Vec::new();
        push_line(&mut head, header)?;
        Ok(Self {
            ledger,
            selection,
            head,
            leaves: VecDeque::new(),
            next: 0,
            signatures: VecDeque::new(),
            signed_until: 0,
            size: header.size,
            lines: 0,
            digest: Context::new(&SHA256),
            ended: false,
        })
    }

    /// The next part of the stream, and the rest of the export.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ExportError> {
        if self.ended {
            return Ok(None);
        }
        let mut part = std::mem::take(&mut self.head);
        while part.len() < PART_BYTES && !self.ended {
            match self.take_leaf().await? {
                Some((index, leaf)) => self.write(index, &leaf, &mut part).await?,
                None => self.ended = true,
            }
        }
        self.digest.update(&part);
        if self.ended {
            let sha256 = HEXLOWER.encode(self.digest.clone().finish().as_ref());
            let footer = ExportFooter { chancery_export_end: EXPORT_VERSION, entries: self.lines, sha256 };
            push_line(&mut part, &footer)?;
        }
        Ok(Some((Bytes::from(part), self)))
    }

    async fn take_leaf(&mut self) -> Result<Option<(u64, Vec<u8>)>, ExportError> {
        if self.next == self.size {
            return Ok(None);
        }
        if self.leaves.is_empty() {
            let rest = usize::try_from(self.size - self.next).unwrap_or(CHUNK);
            self.leaves = self.ledger.entries_at_leisure(self.next, rest.min(CHUNK)).await?.into();
            // A selection may pass over millions of entries: others have their turn meanwhile.
            tokio::task::yield_now().await;
        }
        let (index, size) = (self.next, self.size);
        let leaf = self.leaves.pop_front().ok_or(ExportError::Missing { index, size })?;
        self.next += 1;
        Ok(Some((index, leaf)))
    }

    /// The signature beside an entry that was just taken; those of the entries that were read together with it come with it.
    async fn signature(&mut self, index: u64) -> Result<Option<Vec<u8>>, ExportError> {
        if self.signed_until <= index {
            let count = 1 + self.leaves.len();
            self.signatures = self.ledger.signatures(index, count).await?.into();
            self.signed_until = index + count as u64;
        }
        while self.signatures.pop_front_if(|kept| kept.index < index).is_some() {}
        Ok(self.signatures.pop_front_if(|kept| kept.index == index).map(|kept| kept.signature))
    }

    async fn write(&mut self, index: u64, leaf: &[u8], part: &mut Vec<u8>) -> Result<(), ExportError> {
        // An entry that cannot be read is the auditor's to judge: it is exported whatever was selected.
        let entry = Entry::decode(leaf).ok();
        if let Some(entry) = &entry
            && !self.selection.admits(entry, self.ledger.as_ref()).await?
        {
            return Ok(());
        }
        let is_issuance = entry.as_ref().is_some_and(|entry| matches!(entry.body, Fact::Issuance(_)));
        let signature = if is_issuance { self.signature(index).await? } else { None };
        let signature = signature.map(|signature| BASE64.encode(&signature));
        let line = ExportLine {
            index,
            leaf: &BASE64.encode(leaf),
            hash: leaf_hash(leaf),
            view: &entry,
            signature: signature.as_deref(),
        };
        push_line(part, &line)?;
        self.lines += 1;
        Ok(())
    }
}

fn push_line(part: &mut Vec<u8>, line: &impl serde::Serialize) -> Result<(), serde_json::Error> {
    serde_json::to_writer(&mut *part, line)?;
    part.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use chancery_types::Digest;
    use serde_json::Value;

    use super::*;
    use crate::testing::{TestLog, log_start};

    async fn lines(log: &TestLog, selection: Selection) -> Vec<String> {
        let note = log.ledger.checkpoint().unwrap();
        let header = ExportHeader {
            chancery_export: EXPORT_VERSION,
            origin: log.verifier.name().to_owned(),
            vkey: log.verifier.vkey(),
            trust_domain: Some("example.org".into()),
            size: Checkpoint::parse(note.text()).unwrap().size(),
            checkpoint: note.to_string(),
            issuers: Vec::new(),
            crls: Vec::new(),
            created: None,
            selection: selection.text(),
        };
        // What is recorded after the checkpoint does not belong to the export.
        log.add_tokens(1).await;
        let ledger: Arc<dyn Ledger> = log.ledger.clone();
        let mut export = Export::new(ledger, &header, selection).unwrap();
        let mut text = Vec::new();
        loop {
            let Some((part, rest)) = export.next().await.unwrap() else { break };
            assert!(part.len() < 2 * PART_BYTES);
            text.extend_from_slice(&part);
            export = rest;
        }
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    fn indexes(lines: &[String]) -> Vec<u64> {
        let lines = lines[1..lines.len() - 1].iter();
        lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["index"].as_u64().unwrap()).collect()
    }

    #[tokio::test]
    async fn the_whole_log_stands_between_header_and_sum() {
        let log = TestLog::new();
        log.add_tokens(1200).await;
        let lines = lines(&log, Selection::default()).await;
        let header: ExportHeader = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((header.size, header.selection), (1200, None));
        assert_eq!(indexes(&lines), (0..1200).collect::<Vec<_>>());
        let (last, before) = lines.split_last().unwrap();
        let footer: ExportFooter = serde_json::from_str(last).unwrap();
        let summed: String = before.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(footer.sha256, Digest::of(summed.as_bytes()).to_string());
        assert_eq!(footer.entries, 1200);

        let line: Value = serde_json::from_str(&lines[8]).unwrap();
        let leaf = BASE64.decode(line["leaf"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(line["hash"], leaf_hash(&leaf).to_string());
        assert_eq!(line["view"], serde_json::to_value(Entry::decode(&leaf).unwrap()).unwrap());
        assert!(line.get("signature").is_none());
    }

    #[tokio::test]
    async fn signatures_stand_beside_the_certificates_that_they_are_of() {
        const COUNT: u64 = 1200;
        let log = TestLog::new();
        log.add_certificates(COUNT).await;
        // A crash may have cost the one or the other.
        let signature = |index: u64| (!index.is_multiple_of(3)).then(|| index.to_be_bytes().to_vec());
        let kept =
            (0..COUNT).filter_map(|index| Some(IssuedSignature { index, signature: signature(index)? }));
        log.ledger.keep_signatures(kept.collect()).await.unwrap();
        log.add_tokens(1).await;
        let moment = |minutes: u64| Some(log_start() + Duration::from_secs(60 * minutes));
        let window = Selection { since: moment(500), until: moment(530), ..Selection::default() };
        for (selection, expected) in [(Selection::default(), 0..COUNT + 1), (window, 500..530)] {
            let lines = lines(&log, selection).await;
            assert_eq!(indexes(&lines), expected.clone().collect::<Vec<_>>());
            for (line, index) in lines[1..].iter().zip(expected) {
                let line: Value = serde_json::from_str(line).unwrap();
                let found = line["signature"].as_str().map(|text| BASE64.decode(text.as_bytes()).unwrap());
                assert_eq!(found, signature(index).filter(|_| index < COUNT), "{index}");
            }
        }
    }

    #[tokio::test]
    async fn a_selection_says_what_it_is_and_has_nothing_else() {
        let log = TestLog::new();
        log.add_tokens(10).await;
        let moment = |seconds| Some(log_start() + Duration::from_secs(seconds));
        let window = Selection { since: moment(3), until: moment(5), ..Selection::default() };
        let selected = lines(&log, window).await;
        assert_eq!(indexes(&selected), [3, 4]);
        let header: ExportHeader = serde_json::from_str(&selected[0]).unwrap();
        assert_eq!(header.selection.unwrap(), "from 2026-11-18T11:06:43Z on, before 2026-11-18T11:06:45Z");

        let identity =
            |text: &str| Selection { identity: Some(text.parse().unwrap()), ..Selection::default() };
        assert_eq!(indexes(&lines(&log, identity("spiffe://example.org/web-2")).await), [2]);
        assert!(indexes(&lines(&log, identity("spiffe://example.org/nobody")).await).is_empty());
        let owner = Selection { owner: Some("nobody".into()), ..Selection::default() };
        assert!(indexes(&lines(&log, owner).await).is_empty());
    }
}
