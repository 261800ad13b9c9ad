//! The lists that are held, one for each authority of the chain, and how they are brought up to date.

use std::path::PathBuf;
use std::sync::Arc;

use chancery_api::IssuerState;
use chancery_client::Client;
use chancery_types::{IssuerEpoch, Timestamp};
use chancery_x509::{Certificate, check_issued_by, read_certificates, read_pem};

use super::list::RevocationList;
use super::report::ListReport;
use super::{ListError, SyncError};

/// Everything that is known of every authority whose lists are kept.
pub(super) struct Held {
    roots: Vec<Certificate>,
    /// Files with lists of the roots, which are made by hand where the root is kept.
    also: Vec<PathBuf>,
    /// What an earlier run left: their numbers must not be gone back behind.
    in_place: Vec<Vec<u8>>,
    issuers: Vec<Issuer>,
    of_roots: Vec<Arc<RevocationList>>,
}

/// An issuer, and the list of it.
struct Issuer {
    epoch: IssuerEpoch,
    certificate: Certificate,
    list: Option<Arc<RevocationList>>,
    /// By which to ask for the next one.
    tag: Option<String>,
    sequence: Option<u64>,
}

impl Held {
    pub(super) fn new(roots: Vec<Certificate>, also: Vec<PathBuf>, in_place: Vec<Vec<u8>>) -> Self {
        Self { roots, also, in_place, issuers: Vec::new(), of_roots: Vec::new() }
    }

    /// Fetches what has changed. A failure leaves the list before it; the others are fetched all the same.
    pub(super) async fn refresh(&mut self, client: &Client, now: Timestamp) -> Result<(), SyncError> {
        self.learn_issuers(client, now).await?;
        let mut failure = None;
        for issuer in &mut self.issuers {
            if let Err(error) = issuer.refresh(client, now).await {
                failure = failure.or(Some(error));
            }
        }
        match self.read_roots(now) {
            Ok(lists) => self.of_roots = lists,
            Err(error) => failure = failure.or(Some(error)),
        }
        failure.map_or(Ok(()), Err)
    }

    async fn learn_issuers(&mut self, client: &Client, now: Timestamp) -> Result<(), SyncError> {
        let views = client.issuers().await?.issuers;
        let mut issuers = Vec::with_capacity(views.len());
        // One that is prepared has signed nothing yet, and one that has ended signed nothing that is still valid.
        for view in views.iter().filter(|view| view.state != IssuerState::Prepared && view.not_after > now) {
            let stranger = || SyncError::Stranger(view.subject.clone());
            let der =
                read_certificates(view.certificate.as_bytes(), 1).ok().and_then(|mut found| found.pop());
            let certificate = der.and_then(|der| Certificate::from_der(&der).ok()).ok_or_else(stranger)?;
            if !self.roots.iter().any(|root| check_issued_by(&certificate, root).is_ok()) {
                return Err(stranger());
            }
            let known = self.issuers.iter_mut().find(|known| known.certificate.der() == certificate.der());
            issuers.push(match known {
                Some(known) => known.take(),
                None => Issuer::new(view.epoch, certificate, &self.in_place),
            });
        }
        if issuers.is_empty() {
            return Err(SyncError::NoIssuer);
        }
        self.issuers = issuers;
        Ok(())
    }

    fn read_roots(&self, now: Timestamp) -> Result<Vec<Arc<RevocationList>>, SyncError> {
        let mut lists: Vec<Arc<RevocationList>> = Vec::new();
        for path in &self.also {
            let fail = |error| SyncError::List { issuer: path.display().to_string(), error };
            let bytes = std::fs::read(path).map_err(|error| {
                SyncError::Output(super::OutputError::Read { path: path.display().to_string(), error })
            })?;
            for der in documents(bytes) {
                let mut verdict = Err(ListError::Issuer("nobody in the trust bundle".into()));
                for root in &self.roots {
                    let before =
                        self.of_roots.iter().find(|list| RevocationList::read(list.der(), root).is_ok());
                    match RevocationList::judge(&der, root, before.map(|list| &**list), now) {
                        Err(ListError::Issuer(_)) => {}
                        other => verdict = other,
                    }
                }
                lists.push(Arc::new(verdict.map_err(fail)?));
            }
        }
        Ok(lists)
    }

    /// All of them, or nothing while there is an issuer without one: programs refuse everybody when one is missing.
    pub(super) fn lists(&self) -> Option<Vec<Arc<RevocationList>>> {
        let own = self.issuers.iter().map(|issuer| issuer.list.clone());
        let mut lists: Vec<_> = own.collect::<Option<_>>()?;
        lists.extend(self.of_roots.iter().cloned());
        (!lists.is_empty()).then_some(lists)
    }

    /// The position up to which all lists are complete, where the authority says so.
    pub(super) fn sequence(&self) -> Option<u64> {
        let positions = self.issuers.iter().map(|issuer| issuer.sequence);
        positions.min().flatten()
    }

    pub(super) fn first_end(&self) -> Option<Timestamp> {
        self.lists()?.iter().map(|list| list.next_update()).min()
    }

    pub(super) fn report(&self) -> Vec<ListReport> {
        let lists = self.lists().unwrap_or_default();
        lists.iter().map(|list| ListReport::of(list)).collect()
    }
}

impl Issuer {
    fn new(epoch: IssuerEpoch, certificate: Certificate, in_place: &[Vec<u8>]) -> Self {
        let found = in_place.iter().filter_map(|der| RevocationList::read(der, &certificate).ok());
        let list = found.max_by_key(RevocationList::number).map(Arc::new);
        Self { epoch, certificate, list, tag: None, sequence: None }
    }

    fn take(&mut self) -> Self {
        Self {
            epoch: self.epoch,
            certificate: self.certificate.clone(),
            list: self.list.take(),
            tag: self.tag.take(),
            sequence: self.sequence.take(),
        }
    }

    async fn refresh(&mut self, client: &Client, now: Timestamp) -> Result<(), SyncError> {
        let fail =
            |issuer: &Certificate, error| SyncError::List { issuer: issuer.tbs().subject_text(), error };
        let Some(fetched) = client.issuer_crl(self.epoch, self.tag.as_deref()).await? else {
            let ended = self.list.as_ref().map(|list| list.next_update()).filter(|end| *end <= now);
            return ended.map_or(Ok(()), |end| Err(fail(&self.certificate, ListError::Ended(end))));
        };
        let list = RevocationList::judge(&fetched.bytes, &self.certificate, self.list.as_deref(), now)
            .map_err(|error| fail(&self.certificate, error))?;
        self.list = Some(Arc::new(list));
        (self.tag, self.sequence) = (fetched.tag, fetched.sequence);
        Ok(())
    }
}

/// The lists in a file: PEM, or one in DER.
pub(super) fn documents(bytes: Vec<u8>) -> Vec<Vec<u8>> {
    match read_pem(&bytes, MOST_LISTS) {
        Ok(blocks) if !blocks.is_empty() => blocks
            .into_iter()
            .filter(|block| block.label == LABEL)
            .map(|mut block| std::mem::take(&mut *block.der))
            .collect(),
        _ => vec![bytes],
    }
}

/// The PEM label of a list.
pub(super) const LABEL: &str = "X509 CRL";
/// Lists in one file.
const MOST_LISTS: usize = 256;
