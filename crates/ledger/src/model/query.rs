//! Questions to the read model, answered through any [`View`].

use chancery_entry::KeyPurpose;
use chancery_types::{
    CrlShard, Digest, IdentityState, IssuerEpoch, LineageId, SerialNumber, SpiffeId, Timestamp, TokenId,
};
use serde::de::DeserializeOwned;

use super::record::{
    CertificateRecord, CrlDivisionRecord, CrlRecord, IdentityRecord, IssuerRecord, IssuerState, KeyRecord,
    LineageHead, LineageRecord, RevokedCertificate, StatusSetRecord, TemplateRecord, TokenRecord, TokenState,
    WishRecord, from_json, time_from_bytes,
};
use super::tidy::Remains;
use super::{ModelError, Table, View, prefix_end};
use crate::Ledger;

/// Which identities are meant.
#[derive(Debug, Clone, Default)]
pub struct IdentityQuery {
    /// Those of this owner.
    pub owner: Option<String>,
    /// Those of this team.
    pub team: Option<String>,
    /// Those of this environment.
    pub environment: Option<String>,
    /// Those that stand so.
    pub state: Option<IdentityState>,
    /// Those whose SPIFFE ID begins so.
    pub prefix: Option<String>,
    /// Those that have selectors: evidence is matched against these.
    pub with_selectors: bool,
    /// Those that may use this profile.
    pub profile: Option<String>,
    /// Those that agents may ask for: they name nodes.
    pub for_nodes: bool,
}

/// A page of results.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Most results to return.
    pub limit: usize,
    /// Where the last page ended, opaque.
    pub after: Option<Vec<u8>>,
}

impl PageRequest {
    /// The first page.
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self { limit, after: None }
    }
}

/// Some results and where to go on.
///
/// A page may hold fewer results than were asked for, even none, although there are more: a search that
/// matches little stops after so many looks, so that nobody keeps a thread busy with one request. `next` alone
/// says whether the end is reached.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The results.
    pub items: Vec<T>,
    /// What to pass as `after` for more; `None` at the end.
    pub next: Option<Vec<u8>>,
}

/// Pairs read from the engine at once during a walk.
const CHUNK: usize = 1024;
/// Pairs that are looked at for one page: some ten milliseconds.
const MOST_LOOKS: usize = 20_000;

/// Walks parts of the model in order and gathers a page of what is picked.
pub(crate) struct Walk<'a, T> {
    view: &'a dyn View,
    page: &'a PageRequest,
    looks: usize,
    items: Vec<T>,
}

impl<'a, T> Walk<'a, T> {
    pub(crate) fn new(view: &'a dyn View, page: &'a PageRequest) -> Self {
        // Who asks for everything gets everything: the callers in this module know that it is little.
        let looks = if page.limit == usize::MAX { usize::MAX } else { MOST_LOOKS };
        Self { view, page, looks, items: Vec::new() }
    }

    /// One part and nothing else.
    pub(crate) fn range(
        mut self,
        start: &[u8],
        end: &[u8],
        pick: &mut dyn FnMut(&[u8], &[u8]) -> Result<Option<T>, ModelError>,
    ) -> Result<Page<T>, ModelError> {
        match self.part(start, end, pick)? {
            Some(page) => Ok(page),
            None => Ok(self.end()),
        }
    }

    /// The next part, beginning behind the last page's end; the page when it is complete.
    pub(crate) fn part(
        &mut self,
        start: &[u8],
        end: &[u8],
        pick: &mut dyn FnMut(&[u8], &[u8]) -> Result<Option<T>, ModelError>,
    ) -> Result<Option<Page<T>>, ModelError> {
        if self.page.limit == 0 {
            return Ok(Some(Page { items: Vec::new(), next: self.page.after.clone() }));
        }
        let mut from = match &self.page.after {
            Some(after) if after.as_slice() >= start => successor(after),
            _ => start.to_vec(),
        };
        loop {
            let pairs = self.view.scan(&from, end, CHUNK)?;
            let is_last = pairs.len() < CHUNK;
            for (key, value) in pairs {
                self.items.extend(pick(&key, &value)?);
                self.looks -= 1;
                if self.items.len() == self.page.limit || self.looks == 0 {
                    let items = std::mem::take(&mut self.items);
                    return Ok(Some(Page { items, next: Some(key) }));
                }
                from = successor(&key);
            }
            if is_last {
                return Ok(None);
            }
        }
    }

    /// The last page.
    pub(crate) fn end(self) -> Page<T> {
        Page { items: self.items, next: None }
    }
}

fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// The serial that ends an index key.
pub(crate) fn serial_at_end(key: &[u8]) -> Result<SerialNumber, ModelError> {
    let start = key.len().saturating_sub(SerialNumber::LENGTH);
    SerialNumber::from_bytes(&key[start..]).map_err(|_| ModelError::Malformed { table: "index" })
}

fn json_record<T: DeserializeOwned>(
    view: &dyn View,
    table: Table,
    name: &'static str,
    key: &[u8],
) -> Result<Option<T>, ModelError> {
    view.value(&table.key(&[key]))?.map(|bytes| from_json(name, &bytes)).transpose()
}

fn all<T>(
    view: &dyn View,
    table: Table,
    page: &PageRequest,
    read: impl Fn(&[u8]) -> Result<T, ModelError>,
) -> Result<Page<T>, ModelError> {
    let start = table.key(&[]);
    Walk::new(view, page).range(&start, &prefix_end(&start), &mut |_, value| read(value).map(Some))
}

/// What stands under a serial.
#[derive(Debug)]
pub(crate) enum Recorded {
    Whole(CertificateRecord),
    /// It was tidied away.
    Remains(Remains),
}

impl Recorded {
    /// The record, from the log where only remains of it stand here.
    pub(crate) async fn record(
        self,
        serial: SerialNumber,
        log: &(impl Ledger + ?Sized),
    ) -> Result<CertificateRecord, ModelError> {
        match self {
            Self::Whole(record) => Ok(record),
            Self::Remains(remains) => {
                let entry = log.entry(remains.index).await;
                let entry = entry.map_err(|error| ModelError::Engine(error.to_string()))?;
                remains.record(serial, entry.as_deref())
            }
        }
    }
}

pub(crate) fn recorded(view: &dyn View, serial: SerialNumber) -> Result<Option<Recorded>, ModelError> {
    let Some(bytes) = certificate_bytes(view, serial)? else { return Ok(None) };
    Ok(Some(match Remains::from_bytes(&bytes) {
        Some(remains) => Recorded::Remains(remains?),
        None => Recorded::Whole(CertificateRecord::from_bytes(serial, &bytes)?),
    }))
}

/// What stands under a serial, unread.
pub(crate) fn certificate_bytes(
    view: &dyn View,
    serial: SerialNumber,
) -> Result<Option<Vec<u8>>, ModelError> {
    view.value(&Table::Certificate.key(&[serial.as_bytes()]))
}

/// A certificate that was not tidied away.
pub(crate) fn certificate(
    view: &dyn View,
    serial: SerialNumber,
) -> Result<Option<CertificateRecord>, ModelError> {
    Ok(match recorded(view, serial)? {
        Some(Recorded::Whole(record)) => Some(record),
        Some(Recorded::Remains(_)) | None => None,
    })
}

pub(crate) fn lineage_head(view: &dyn View, lineage: LineageId) -> Result<Option<LineageHead>, ModelError> {
    let head = view.value(&Table::Lineage.key(&[lineage.as_bytes()]))?;
    head.map(|bytes| LineageHead::from_bytes(&bytes)).transpose()
}

/// Keys and notAfter of a lineage's certificates before its latest, the oldest first.
pub(crate) fn earlier(
    view: &dyn View,
    lineage: LineageId,
    limit: usize,
) -> Result<Vec<(Vec<u8>, Timestamp)>, ModelError> {
    let prefix = Table::Lineage.key(&[lineage.as_bytes()]);
    let pairs = view.scan(&successor(&prefix), &prefix_end(&prefix), limit)?;
    pairs.into_iter().map(|(key, value)| Ok((key, time_from_bytes("lineage", &value)?))).collect()
}

/// A lineage's certificates that had not expired when the latest was issued, the latest last.
pub(crate) fn living(
    view: &dyn View,
    lineage: LineageId,
    head: &LineageHead,
) -> Result<Vec<SerialNumber>, ModelError> {
    let mut living = Vec::new();
    for (key, not_after) in earlier(view, lineage, usize::MAX)? {
        if not_after > head.issued {
            living.push(serial_at_end(&key)?);
        }
    }
    living.push(head.latest);
    Ok(living)
}

pub(crate) fn lineage(view: &dyn View, lineage: LineageId) -> Result<Option<LineageRecord>, ModelError> {
    let Some(head) = lineage_head(view, lineage)? else { return Ok(None) };
    Ok(Some(LineageRecord {
        lineage,
        generation: head.generation,
        held_since: head.held_since,
        enrolled_by: head.enrolled_by,
        enrolled_with: head.enrolled_with,
        enrolled_at: head.enrolled_at,
        latest: head.latest,
    }))
}

fn identity_bytes(view: &dyn View, id: &SpiffeId) -> Result<Option<Vec<u8>>, ModelError> {
    view.value(&Table::Identity.key(&[id.as_str().as_bytes()]))
}

pub(crate) fn identity(view: &dyn View, id: &SpiffeId) -> Result<Option<IdentityRecord>, ModelError> {
    identity_bytes(view, id)?.map(|bytes| IdentityRecord::from_bytes(&bytes)).transpose()
}

pub(crate) fn identity_state(view: &dyn View, id: &SpiffeId) -> Result<Option<IdentityState>, ModelError> {
    identity_bytes(view, id)?.map(|bytes| IdentityRecord::state_of(&bytes)).transpose()
}

pub(crate) fn identities(
    view: &dyn View,
    query: &IdentityQuery,
    page: &PageRequest,
) -> Result<Page<IdentityRecord>, ModelError> {
    let start = Table::Identity.key(&[query.prefix.as_deref().unwrap_or("").as_bytes()]);
    Walk::new(view, page).range(&start, &prefix_end(&start), &mut |_, value| {
        let record = IdentityRecord::from_bytes(value)?;
        let identity = &record.identity;
        let is_wanted = query.owner.as_ref().is_none_or(|owner| *owner == identity.owner)
            && query.team.as_ref().is_none_or(|team| *team == identity.team)
            && query.environment.as_ref().is_none_or(|environment| *environment == identity.environment)
            && query.state.is_none_or(|state| state == record.state)
            && (!query.with_selectors || !identity.selectors.is_empty() || !identity.alternatives.is_empty())
            && query.profile.as_ref().is_none_or(|name| identity.allowed_profiles().contains(&name.as_str()))
            && (!query.for_nodes || !identity.parents.is_empty() || !identity.node_selectors.is_empty());
        Ok(is_wanted.then_some(record))
    })
}

pub(crate) fn template(view: &dyn View, name: &str) -> Result<Option<TemplateRecord>, ModelError> {
    json_record(view, Table::Template, "template", name.as_bytes())
}

pub(crate) fn templates(view: &dyn View) -> Result<Vec<TemplateRecord>, ModelError> {
    let page =
        all(view, Table::Template, &PageRequest::first(usize::MAX), |bytes| from_json("template", bytes));
    page.map(|page| page.items)
}

pub(crate) fn token(view: &dyn View, token: TokenId) -> Result<Option<TokenRecord>, ModelError> {
    token_bytes(view, token)?.map(|bytes| TokenRecord::from_bytes(token, &bytes)).transpose()
}

/// A token's record, unread.
pub(crate) fn token_bytes(view: &dyn View, token: TokenId) -> Result<Option<Vec<u8>>, ModelError> {
    view.value(&Table::Token.key(&[token.as_bytes()]))
}

pub(crate) fn token_standing(
    view: &dyn View,
    token: TokenId,
) -> Result<Option<(TokenState, Timestamp)>, ModelError> {
    token_bytes(view, token)?.map(|bytes| TokenRecord::standing(&bytes)).transpose()
}

pub(crate) fn tokens(view: &dyn View, page: &PageRequest) -> Result<Page<TokenRecord>, ModelError> {
    let start = Table::Token.key(&[]);
    Walk::new(view, page).range(&start, &prefix_end(&start), &mut |key, value| {
        let token = key[start.len()..].try_into().map_err(|_| ModelError::Malformed { table: "token" })?;
        TokenRecord::from_bytes(TokenId::from_array(token), value).map(Some)
    })
}

fn issuer_bytes(view: &dyn View, epoch: IssuerEpoch) -> Result<Option<Vec<u8>>, ModelError> {
    view.value(&Table::Issuer.key(&[&epoch.0.to_be_bytes()]))
}

pub(crate) fn issuer(view: &dyn View, epoch: IssuerEpoch) -> Result<Option<IssuerRecord>, ModelError> {
    issuer_bytes(view, epoch)?.map(|bytes| IssuerRecord::from_bytes(&bytes)).transpose()
}

pub(crate) fn issuer_state(view: &dyn View, epoch: IssuerEpoch) -> Result<Option<IssuerState>, ModelError> {
    issuer_bytes(view, epoch)?.map(|bytes| IssuerRecord::state_of(&bytes)).transpose()
}

pub(crate) fn issuers(view: &dyn View) -> Result<Vec<IssuerRecord>, ModelError> {
    let page = all(view, Table::Issuer, &PageRequest::first(usize::MAX), IssuerRecord::from_bytes);
    page.map(|page| page.items)
}

pub(crate) fn keys(view: &dyn View) -> Result<Vec<KeyRecord>, ModelError> {
    let page = all(view, Table::Key, &PageRequest::first(usize::MAX), KeyRecord::from_bytes);
    page.map(|page| page.items)
}

/// A root or a key by its purpose and hash.
pub(crate) fn key(
    view: &dyn View,
    purpose: KeyPurpose,
    key: Digest,
) -> Result<Option<KeyRecord>, ModelError> {
    let bytes = view.value(&Table::Key.key(&[&[purpose as u8], key.as_bytes()]))?;
    bytes.map(|bytes| KeyRecord::from_bytes(&bytes)).transpose()
}

pub(crate) fn wishes(view: &dyn View) -> Result<Vec<WishRecord>, ModelError> {
    let page = all(view, Table::Wish, &PageRequest::first(usize::MAX), WishRecord::from_bytes);
    page.map(|page| page.items)
}

/// The prefix of an issuer's serials in a table whose keys are serials.
pub(super) fn of_issuer(table: Table, epoch: IssuerEpoch) -> (Vec<u8>, Vec<u8>) {
    let prefix = table.key(&[&[SerialNumber::PREFIX], &epoch.0.to_be_bytes()]);
    let end = prefix_end(&prefix);
    (prefix, end)
}

pub(crate) fn last_counter(view: &dyn View, epoch: IssuerEpoch) -> Result<Option<u64>, ModelError> {
    let (start, end) = of_issuer(Table::Certificate, epoch);
    let last = view.last(&start, &end)?;
    last.map(|(key, _)| serial_at_end(&key).map(|serial| serial.counter())).transpose()
}

pub(crate) fn revoked(
    view: &dyn View,
    epoch: IssuerEpoch,
    now: Timestamp,
) -> Result<Vec<RevokedCertificate>, ModelError> {
    let (start, end) = of_issuer(Table::Revoked, epoch);
    let page = Walk::new(view, &PageRequest::first(usize::MAX)).range(&start, &end, &mut |key, value| {
        let line = RevokedCertificate::from_bytes(serial_at_end(key)?, value)?;
        Ok(Some(line).filter(|line| line.not_after >= now))
    })?;
    Ok(page.items)
}

/// Where the last list of an issuer, or of a part of it, is recorded.
pub(crate) fn crl_key(epoch: IssuerEpoch, shard: Option<CrlShard>) -> Vec<u8> {
    let epoch = epoch.0.to_be_bytes();
    match shard {
        None => Table::Crl.key(&[&epoch]),
        Some(shard) => Table::Crl.key(&[&epoch, &shard.of().to_be_bytes(), &shard.number().to_be_bytes()]),
    }
}

pub(crate) fn last_crl(
    view: &dyn View,
    epoch: IssuerEpoch,
    shard: Option<CrlShard>,
) -> Result<Option<CrlRecord>, ModelError> {
    view.value(&crl_key(epoch, shard))?.map(|bytes| from_json("crl", &bytes)).transpose()
}

pub(crate) fn crl_divisions(
    view: &dyn View,
    epoch: IssuerEpoch,
) -> Result<Vec<CrlDivisionRecord>, ModelError> {
    let malformed = ModelError::Malformed { table: "crl division" };
    let start = Table::CrlDivision.key(&[&epoch.0.to_be_bytes()]);
    let pairs = view.scan(&start, &prefix_end(&start), usize::MAX)?;
    let records = pairs.iter().map(|(key, value)| {
        let (shards, base) = key[start.len()..].split_first_chunk().ok_or_else(|| malformed.clone())?;
        Ok(CrlDivisionRecord {
            shards: u16::from_be_bytes(*shards),
            base: std::str::from_utf8(base).map_err(|_| malformed.clone())?.to_owned(),
            index: index_value(value)?,
        })
    });
    records.collect()
}

pub(crate) fn last_status_set(view: &dyn View) -> Result<Option<StatusSetRecord>, ModelError> {
    json_record(view, Table::StatusSet, "status set", &[])
}

pub(crate) fn idempotent(view: &dyn View, hash: Digest) -> Result<Option<SerialNumber>, ModelError> {
    view.value(&Table::Idempotency.key(&[hash.as_bytes()]))?.map(|bytes| serial_at_end(&bytes)).transpose()
}

pub(crate) fn profile(view: &dyn View, hash: Digest) -> Result<Option<u64>, ModelError> {
    view.value(&Table::Profile.key(&[hash.as_bytes()]))?.map(|bytes| index_value(&bytes)).transpose()
}

pub(crate) fn policy(view: &dyn View, hash: Digest) -> Result<Vec<u64>, ModelError> {
    let start = Table::Policy.key(&[hash.as_bytes()]);
    let end = prefix_end(&start);
    view.scan(&start, &end, usize::MAX)?.iter().map(|(_, value)| index_value(value)).collect()
}

fn index_value(bytes: &[u8]) -> Result<u64, ModelError> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| ModelError::Malformed { table: "index" })
}
