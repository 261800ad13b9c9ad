//! Questions to the read model, answered through any [`View`].

use chancery_types::{
    Digest, IdentityState, IssuerEpoch, LineageId, SerialNumber, SpiffeId, Timestamp, TokenId,
};
use serde::de::DeserializeOwned;

use super::record::{
    CertificateRecord, CertificateState, CrlRecord, IdentityRecord, IssuerRecord, LineageRecord,
    RevokedCertificate, TemplateRecord, TokenRecord, from_json,
};
use super::{ModelError, Table, View, prefix_end};

/// Which certificates are meant: everything given must hold.
#[derive(Debug, Clone, Default)]
pub struct CertificateQuery {
    /// Those that name this identity.
    pub identity: Option<SpiffeId>,
    /// Those of this lineage.
    pub lineage: Option<LineageId>,
    /// Those with this public key (SHA-256 of the SPKI).
    pub key: Option<Digest>,
    /// Those whose identity has this owner. Needs the identities' documents, so it is the slow one.
    pub owner: Option<String>,
    /// Those that stand so.
    pub state: Option<StateFilter>,
    /// Those with notAfter before this.
    pub expires_before: Option<Timestamp>,
    /// Those with notAfter at or after this.
    pub expires_after: Option<Timestamp>,
}

/// How a certificate stands, as a search asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFilter {
    /// Neither held nor revoked.
    Good,
    /// Held.
    Held,
    /// Revoked.
    Revoked,
}

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
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The results.
    pub items: Vec<T>,
    /// What to pass as `after` for more; `None` at the end.
    pub next: Option<Vec<u8>>,
}

/// Pairs read from the engine at once during a filtered scan.
const CHUNK: usize = 1024;

pub(crate) fn certificate(
    view: &dyn View,
    serial: SerialNumber,
) -> Result<Option<CertificateRecord>, ModelError> {
    view.value(&Table::Certificate.key(&[serial.as_bytes()]))?
        .map(|bytes| CertificateRecord::from_bytes(serial, &bytes))
        .transpose()
}

/// The key prefix under which an identity's certificates are listed.
pub(crate) fn identity_prefix(identity: &SpiffeId) -> Vec<u8> {
    Table::CertificateByIdentity.key(&[&Digest::of(identity.as_str().as_bytes()).as_bytes()[..16]])
}

/// The key prefix under which a key's certificates are listed.
pub(crate) fn key_prefix(key: &Digest) -> Vec<u8> {
    Table::CertificateByKey.key(&[&key.as_bytes()[..16]])
}

/// The serial that ends an index key.
fn serial_at_end(key: &[u8]) -> Result<SerialNumber, ModelError> {
    let start = key.len().saturating_sub(SerialNumber::LENGTH);
    SerialNumber::from_bytes(&key[start..]).map_err(|_| ModelError::Malformed { table: "index" })
}

impl CertificateQuery {
    fn matches(&self, record: &CertificateRecord) -> bool {
        let state = match record.state {
            CertificateState::Good => StateFilter::Good,
            CertificateState::Held { .. } => StateFilter::Held,
            CertificateState::Revoked { .. } => StateFilter::Revoked,
        };
        self.identity.as_ref().is_none_or(|id| *id == record.identity)
            && self.lineage.is_none_or(|lineage| lineage == record.lineage)
            && self.key.is_none_or(|key| key == record.key)
            && self.state.is_none_or(|wanted| wanted == state)
            && self.expires_before.is_none_or(|time| record.not_after < time)
            && self.expires_after.is_none_or(|time| record.not_after >= time)
    }

    /// The narrowest index range that holds every match.
    fn range(&self) -> (Vec<u8>, Vec<u8>) {
        let prefix = if let Some(identity) = &self.identity {
            identity_prefix(identity)
        } else if let Some(key) = &self.key {
            key_prefix(key)
        } else if self.state.is_some_and(|state| state != StateFilter::Good) {
            Table::Revoked.key(&[])
        } else if self.expires_before.is_some() || self.expires_after.is_some() {
            let bound = |time: Timestamp| Table::CertificateByExpiry.key(&[&time.millis().to_be_bytes()]);
            let start = self.expires_after.map_or_else(|| Table::CertificateByExpiry.key(&[]), bound);
            let end =
                self.expires_before.map_or_else(|| prefix_end(&[Table::CertificateByExpiry as u8]), bound);
            return (start, end);
        } else {
            Table::Certificate.key(&[])
        };
        let end = prefix_end(&prefix);
        (prefix, end)
    }
}

pub(crate) fn certificates(
    view: &dyn View,
    query: &CertificateQuery,
    page: &PageRequest,
) -> Result<Page<CertificateRecord>, ModelError> {
    if let (Some(lineage), None, None) = (query.lineage, &query.identity, &query.key) {
        return certificates_of_lineage(view, lineage, query);
    }
    let (start, end) = query.range();
    let mut owners = OwnerFilter { wanted: query.owner.as_deref(), known: std::collections::HashMap::new() };
    filtered(view, start, &end, page, |key, _| {
        let Some(record) = certificate(view, serial_at_end(key)?)? else { return Ok(None) };
        Ok(if query.matches(&record) && owners.admits(view, &record)? { Some(record) } else { None })
    })
}

/// A lineage's living certificates are in its record.
fn certificates_of_lineage(
    view: &dyn View,
    lineage: LineageId,
    query: &CertificateQuery,
) -> Result<Page<CertificateRecord>, ModelError> {
    let mut items = Vec::new();
    for serial in self::lineage(view, lineage)?.map(|record| record.living).unwrap_or_default() {
        items.extend(certificate(view, serial)?.filter(|record| query.matches(record)));
    }
    Ok(Page { items, next: None })
}

/// Remembers which identities belong to the owner asked for.
struct OwnerFilter<'a> {
    wanted: Option<&'a str>,
    known: std::collections::HashMap<SpiffeId, bool>,
}

impl OwnerFilter<'_> {
    fn admits(&mut self, view: &dyn View, record: &CertificateRecord) -> Result<bool, ModelError> {
        let Some(wanted) = self.wanted else { return Ok(true) };
        if let Some(known) = self.known.get(&record.identity) {
            return Ok(*known);
        }
        let is_theirs = identity(view, &record.identity)?.is_some_and(|found| found.identity.owner == wanted);
        self.known.insert(record.identity.clone(), is_theirs);
        Ok(is_theirs)
    }
}

/// Walks `start .. end`, keeps what `pick` returns, stops at the page's limit.
fn filtered<T>(
    view: &dyn View,
    start: Vec<u8>,
    end: &[u8],
    page: &PageRequest,
    mut pick: impl FnMut(&[u8], &[u8]) -> Result<Option<T>, ModelError>,
) -> Result<Page<T>, ModelError> {
    let mut from = match &page.after {
        Some(after) if after.as_slice() >= start.as_slice() => successor(after),
        _ => start,
    };
    let mut items = Vec::new();
    loop {
        let pairs = view.scan(&from, end, CHUNK)?;
        let full = pairs.len() == CHUNK;
        for (key, value) in pairs {
            if let Some(item) = pick(&key, &value)? {
                items.push(item);
                if items.len() == page.limit {
                    return Ok(Page { items, next: Some(key) });
                }
            }
            from = successor(&key);
        }
        if !full {
            return Ok(Page { items, next: None });
        }
    }
}

fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

fn json_record<T: DeserializeOwned>(
    view: &dyn View,
    table: Table,
    name: &'static str,
    key: &[u8],
) -> Result<Option<T>, ModelError> {
    view.value(&table.key(&[key]))?.map(|bytes| from_json(name, &bytes)).transpose()
}

fn all_json<T: DeserializeOwned>(
    view: &dyn View,
    table: Table,
    name: &'static str,
    page: &PageRequest,
    keep: impl Fn(&T) -> bool,
) -> Result<Page<T>, ModelError> {
    let start = table.key(&[]);
    let end = prefix_end(&start);
    filtered(view, start, &end, page, |_, value| {
        Ok(Some(from_json::<T>(name, value)?).filter(|item| keep(item)))
    })
}

pub(crate) fn lineage(view: &dyn View, lineage: LineageId) -> Result<Option<LineageRecord>, ModelError> {
    view.value(&Table::Lineage.key(&[lineage.as_bytes()]))?
        .map(|bytes| LineageRecord::from_bytes(lineage, &bytes))
        .transpose()
}

pub(crate) fn identity(view: &dyn View, id: &SpiffeId) -> Result<Option<IdentityRecord>, ModelError> {
    json_record(view, Table::Identity, "identity", id.as_str().as_bytes())
}

pub(crate) fn identities(
    view: &dyn View,
    query: &IdentityQuery,
    page: &PageRequest,
) -> Result<Page<IdentityRecord>, ModelError> {
    let start = Table::Identity.key(&[query.prefix.as_deref().unwrap_or("").as_bytes()]);
    let end = prefix_end(&start);
    filtered(view, start, &end, page, |_, value| {
        let record: IdentityRecord = from_json("identity", value)?;
        let identity = &record.identity;
        let is_wanted = query.owner.as_ref().is_none_or(|owner| *owner == identity.owner)
            && query.team.as_ref().is_none_or(|team| *team == identity.team)
            && query.environment.as_ref().is_none_or(|environment| *environment == identity.environment)
            && query.state.is_none_or(|state| state == record.state)
            && (!query.with_selectors || !identity.selectors.is_empty());
        Ok(is_wanted.then_some(record))
    })
}

pub(crate) fn template(view: &dyn View, name: &str) -> Result<Option<TemplateRecord>, ModelError> {
    json_record(view, Table::Template, "template", name.as_bytes())
}

pub(crate) fn templates(view: &dyn View) -> Result<Vec<TemplateRecord>, ModelError> {
    all_json(view, Table::Template, "template", &PageRequest::first(usize::MAX), |_| true)
        .map(|page| page.items)
}

pub(crate) fn token(view: &dyn View, token: TokenId) -> Result<Option<TokenRecord>, ModelError> {
    json_record(view, Table::Token, "token", token.as_bytes())
}

pub(crate) fn tokens(view: &dyn View, page: &PageRequest) -> Result<Page<TokenRecord>, ModelError> {
    all_json(view, Table::Token, "token", page, |_| true)
}

pub(crate) fn issuer(view: &dyn View, epoch: IssuerEpoch) -> Result<Option<IssuerRecord>, ModelError> {
    json_record(view, Table::Issuer, "issuer", &epoch.0.to_be_bytes())
}

pub(crate) fn issuers(view: &dyn View) -> Result<Vec<IssuerRecord>, ModelError> {
    all_json(view, Table::Issuer, "issuer", &PageRequest::first(usize::MAX), |_| true).map(|page| page.items)
}

pub(crate) fn last_counter(view: &dyn View, epoch: IssuerEpoch) -> Result<Option<u64>, ModelError> {
    let prefix = Table::Certificate.key(&[&[SerialNumber::PREFIX], &epoch.0.to_be_bytes()]);
    let last = view.last(&prefix, &prefix_end(&prefix))?;
    last.map(|(key, _)| serial_at_end(&key).map(|serial| serial.counter())).transpose()
}

pub(crate) fn revoked(
    view: &dyn View,
    epoch: IssuerEpoch,
    now: Timestamp,
) -> Result<Vec<RevokedCertificate>, ModelError> {
    let start = Table::Revoked.key(&[&[SerialNumber::PREFIX], &epoch.0.to_be_bytes()]);
    let end = prefix_end(&start);
    let page = filtered(view, start, &end, &PageRequest::first(usize::MAX), |key, value| {
        let line = RevokedCertificate::from_bytes(serial_at_end(key)?, value)?;
        Ok(Some(line).filter(|line| line.not_after >= now))
    })?;
    Ok(page.items)
}

pub(crate) fn last_crl(view: &dyn View, epoch: IssuerEpoch) -> Result<Option<CrlRecord>, ModelError> {
    json_record(view, Table::Crl, "crl", &epoch.0.to_be_bytes())
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
