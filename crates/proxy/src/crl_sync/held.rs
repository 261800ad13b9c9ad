//! The lists that are held, one for each authority of the chain, and how they are brought up to date.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use chancery_api::{IssuerState, ProblemCode};
use chancery_client::{Client, ClientError, TrustAnchors};
use chancery_types::{IssuerEpoch, Timestamp};
use chancery_x509::{Certificate, check_issued_by, read_certificates, read_pem};

use super::list::RevocationList;
use super::report::ListReport;
use super::{ListError, OutputError, SyncError};

/// Everything that is known of every authority whose lists are kept.
pub(super) struct Held {
    /// From the configuration.
    configured: Vec<Certificate>,
    /// Those, and what the authority says of others that follow them.
    roots: Vec<Certificate>,
    /// Files with lists of the roots, which are made by hand where the root is kept.
    also: Vec<PathBuf>,
    /// What an earlier run left: their numbers must not be gone back behind.
    in_place: Vec<Vec<u8>>,
    issuers: Vec<Issuer>,
    /// Nothing before they were read for the first time.
    of_roots: Option<Vec<Arc<RevocationList>>>,
}

/// An issuer, and the list of it.
struct Issuer {
    epoch: IssuerEpoch,
    /// It has signed nothing yet. Its list is to be in place before it does.
    is_prepared: bool,
    certificate: Certificate,
    list: Option<Arc<RevocationList>>,
    /// By which to ask for the next one.
    tag: Option<String>,
}

impl Held {
    pub(super) fn new(roots: Vec<Certificate>, also: Vec<PathBuf>, in_place: Vec<Vec<u8>>) -> Self {
        Self { configured: roots.clone(), roots, also, in_place, issuers: Vec::new(), of_roots: None }
    }

    /// Fetches what has changed. A failure leaves the list before it; the others are fetched all the same.
    pub(super) async fn refresh(&mut self, client: &Client, now: Timestamp) -> Result<(), SyncError> {
        self.learn_roots(client).await?;
        self.learn_issuers(client, now).await?;
        let mut failure = None;
        for issuer in &mut self.issuers {
            match issuer.refresh(client, now).await {
                // Nobody misses it yet, and it may be about to be made.
                Err(SyncError::Client(_)) if issuer.is_prepared => {}
                Err(error) => failure = failure.or(Some(error)),
                Ok(()) => {}
            }
        }
        let published = match client.root_crls(None).await {
            Ok(lists) => lists.map_or_else(Vec::new, |lists| documents(lists.bytes.to_vec())),
            // Nobody has made one.
            Err(error) if error.code() == Some(ProblemCode::NotFound) => Vec::new(),
            Err(error) => {
                failure = failure.or(Some(error.into()));
                Vec::new()
            }
        };
        match self.read_roots(published, now) {
            Ok(lists) => self.of_roots = Some(lists),
            Err(error) => failure = failure.or(Some(error)),
        }
        failure.map_or(Ok(()), Err)
    }

    /// Roots follow each other: one that is believed has verified the connection on which the authority names the
    /// others.
    async fn learn_roots(&mut self, client: &Client) -> Result<(), SyncError> {
        let told = read_certificates(&client.bundle().await?, MOST_ROOTS).map_err(SyncError::Bundle)?;
        let mut roots = self.configured.clone();
        roots.extend(told.iter().filter_map(|der| Certificate::from_der(der).ok()));
        let mut seen = HashSet::new();
        roots.retain(|root| seen.insert(root.fingerprint()));
        if roots != self.roots {
            let anchors = roots.iter().map(|root| root.der().to_vec().into());
            client.replace_trust(TrustAnchors::from_certificates(anchors).map_err(ClientError::from)?)?;
            self.roots = roots;
        }
        Ok(())
    }

    async fn learn_issuers(&mut self, client: &Client, now: Timestamp) -> Result<(), SyncError> {
        let views = client.issuers().await?.issuers;
        let mut issuers = Vec::with_capacity(views.len());
        // One that has ended signed nothing that is still valid.
        for view in views.iter().filter(|view| view.not_after > now) {
            let stranger = || SyncError::Stranger(view.subject.clone());
            let der =
                read_certificates(view.certificate.as_bytes(), 1).ok().and_then(|mut found| found.pop());
            let certificate = der.and_then(|der| Certificate::from_der(&der).ok()).ok_or_else(stranger)?;
            if !self.roots.iter().any(|root| check_issued_by(&certificate, root).is_ok()) {
                return Err(stranger());
            }
            let known = self.issuers.iter_mut().find(|known| known.certificate.der() == certificate.der());
            let mut issuer = match known {
                Some(known) => known.take(),
                None => Issuer::new(view.epoch, certificate, &self.in_place),
            };
            issuer.is_prepared = view.state == IssuerState::Prepared;
            issuers.push(issuer);
        }
        if issuers.iter().all(|issuer| issuer.is_prepared) {
            return Err(SyncError::NoIssuer);
        }
        self.issuers = issuers;
        Ok(())
    }

    /// The lists of the roots: from files, and those that the authority hands on; of each root the newest.
    fn read_roots(
        &self,
        published: Vec<Vec<u8>>,
        now: Timestamp,
    ) -> Result<Vec<Arc<RevocationList>>, SyncError> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        for path in &self.also {
            let path = path.display().to_string();
            let read = std::fs::read(&path);
            let read = read.map_err(|error| OutputError::Read { path: path.clone(), error })?;
            found.extend(documents(read));
        }
        found.extend(published);
        let (mut lists, mut known) = (Vec::new(), 0);
        for root in &self.roots {
            let of_root = |der: &[u8]| RevocationList::read(der, root).ok();
            let given: Vec<_> = found.iter().filter_map(|der| of_root(der)).collect();
            known += given.len();
            // What is in place stays in place when nobody gives it any more.
            let before = self.of_roots.iter().flatten().map(|list| list.der());
            let before = before.chain(self.in_place.iter().map(Vec::as_slice)).filter_map(of_root);
            let before = before.max_by_key(RevocationList::number);
            let newest = before.iter().cloned().chain(given).max_by_key(RevocationList::number);
            let Some(newest) = newest else { continue };
            let judged = RevocationList::judge(newest.der(), root, before.as_ref(), now);
            let fail = |error| SyncError::List { issuer: root.tbs().subject_text(), error };
            lists.push(Arc::new(judged.map_err(fail)?));
        }
        if known < found.len() {
            let error = ListError::Issuer("nobody in the trust bundle, or changed on the way".into());
            return Err(SyncError::List { issuer: "a root".into(), error });
        }
        Ok(lists)
    }

    /// All of them, or nothing while there is an issuer that has signed without one: programs refuse everybody when one
    /// is missing.
    pub(super) fn lists(&self) -> Option<Vec<Arc<RevocationList>>> {
        let wanted = self.issuers.iter().filter(|issuer| issuer.list.is_some() || !issuer.is_prepared);
        let own = wanted.map(|issuer| issuer.list.clone());
        let mut lists: Vec<_> = own.collect::<Option<_>>()?;
        lists.extend(self.of_roots.as_ref()?.iter().cloned());
        (!lists.is_empty()).then_some(lists)
    }

    /// The lists of issuers, whose certificates the feed speaks of.
    pub(super) fn of_issuers(&self) -> impl Iterator<Item = (IssuerEpoch, &RevocationList)> {
        self.issuers.iter().filter_map(|issuer| Some((issuer.epoch, issuer.list.as_deref()?)))
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
        Self { epoch, is_prepared: false, certificate, list, tag: None }
    }

    fn take(&mut self) -> Self {
        Self {
            epoch: self.epoch,
            is_prepared: self.is_prepared,
            certificate: self.certificate.clone(),
            list: self.list.take(),
            tag: self.tag.take(),
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
        self.tag = fetched.tag;
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
/// Roots that are read.
const MOST_ROOTS: usize = 64;
/// Lists in one file.
const MOST_LISTS: usize = 256;
