//! The issuers of a running authority: the active one, those before it whose certificates may still be met, and those
//! that are published to follow it. All of it follows the ledger, whoever changed it.

use std::sync::Arc;

use chancery_entry::{Body, CrlDivision, Entry, KeyPhase, KeyPurpose};
use chancery_issue::{Issuer, StatusUrls};
use chancery_keys::Signer;
use chancery_ledger::{IssuerRecord, IssuerState, KeyRecord, Ledger, Proposal};
use chancery_revoke::StatusIssuer;
use chancery_types::{Digest, IssuerEpoch, Timestamp};
use chancery_x509::{Certificate, PublicKey};

use super::open::OpenError;
use super::{Authority, AuthorityError};
use crate::config::Config;

/// The keys of JWT-SVIDs.
#[derive(Debug, Clone)]
pub(crate) struct JwtKeys {
    /// The one that signs.
    pub(crate) signing: Arc<dyn Signer>,
}

/// What following the ledger came to.
#[derive(Debug)]
pub(crate) struct Followed {
    /// Another issuer signs.
    pub(crate) has_other_issuer: bool,
    /// Other roots count.
    pub(crate) has_other_roots: bool,
    /// The first of what could not be followed: there, what was in use stays.
    pub(crate) failure: Option<OpenError>,
}

impl Authority {
    /// Every issuer whose certificates may be met now or soon, by epoch.
    ///
    /// # Errors
    /// [`AuthorityError`] when the ledger cannot be read.
    pub async fn status_issuers(&self) -> Result<Vec<StatusIssuer>, AuthorityError> {
        let mut issuers = Vec::new();
        for record in self.ledger.issuers().await? {
            let epoch = record.epoch;
            let Ok(certificate) = Certificate::from_der(&record.certificate) else { continue };
            if record.state == IssuerState::Withdrawn || certificate.tbs().not_after() <= self.clock.now() {
                continue;
            }
            let signer = self.signer_of(epoch, &certificate).await;
            if signer.is_none() {
                tracing::warn!(
                    %epoch,
                    "the key of an issuer whose certificates may be met is not here: its lists run out; name it in \
                     keys.former_issuers, or put it where the others are"
                );
            }
            let divisions = self.ledger.crl_divisions(epoch).await?;
            issuers.push(StatusIssuer { epoch, certificate, signer, divisions });
        }
        Ok(issuers)
    }

    /// The key of an issuer, if it is here and opens.
    pub(crate) async fn signer_of(
        &self,
        epoch: IssuerEpoch,
        issuer: &Certificate,
    ) -> Option<Arc<dyn Signer>> {
        let (keyring, spki) = (Arc::clone(&self.keyring), issuer.tbs().spki_der().to_vec());
        let found = tokio::task::spawn_blocking(move || keyring.issuer(epoch, &spki)).await;
        match found {
            Ok(Ok(signer)) => signer,
            Ok(Err(error)) => {
                tracing::error!(%epoch, %error, "the key of an issuer does not open");
                None
            }
            Err(_) => None,
        }
    }

    /// An issuer as it signs, from its record.
    ///
    /// # Errors
    /// [`OpenError`] when its key is not here or is not its own.
    pub(crate) async fn issuer_of(&self, record: &IssuerRecord) -> Result<Arc<Issuer>, OpenError> {
        let epoch = record.epoch;
        let certificate =
            Certificate::from_der(&record.certificate).map_err(chancery_issue::IssuerError::from)?;
        let signer = self.signer_of(epoch, &certificate).await;
        let signer = signer.ok_or(OpenError::IssuerKey(epoch))?;
        let urls = status_urls(&self.config, self.ledger.as_ref(), record, self.clock.now()).await?;
        let domain = self.config.trust_domain.clone();
        Ok(Arc::new(Issuer::new(domain, epoch, &record.certificate, signer, urls)?))
    }

    /// Takes over what the ledger says of roots, issuers and keys: which count, who signs, and which keys verify tokens.
    /// Each whatever became of the others: a key that is not here holds up nothing else.
    pub(crate) async fn follow_keys(&self) -> Followed {
        let mut failure = None;
        let has_other_roots = or_note(self.follow_roots().await, &mut failure);
        let has_other_issuer = or_note(self.follow_issuers().await, &mut failure);
        or_note(self.follow_jwt_keys().await, &mut failure);
        or_note(self.follow_log_keys().await, &mut failure);
        or_note(self.keep_own_identities().await, &mut failure);
        Followed { has_other_issuer, has_other_roots, failure }
    }

    /// Whether another issuer signs from here on.
    async fn follow_issuers(&self) -> Result<bool, OpenError> {
        let records = self.ledger.issuers().await.map_err(AuthorityError::from)?;
        for record in &records {
            if let Ok(certificate) = Certificate::from_der(&record.certificate) {
                self.workflow.forbid(Digest::of(certificate.tbs().spki_der()));
            }
        }
        let active = records.into_iter().rev().find(|record| record.state == IssuerState::Active);
        let active = active.ok_or(OpenError::NoIssuer)?;
        if active.epoch == self.workflow.issuer().epoch() {
            return Ok(false);
        }
        let issuer = self.issuer_of(&active).await?;
        self.workflow.succeed(async { Ok::<_, OpenError>(issuer) }).await?;
        Ok(true)
    }

    async fn follow_jwt_keys(&self) -> Result<(), OpenError> {
        let keys = jwt_records(self.ledger.as_ref()).await?;
        for key in &keys {
            self.workflow.forbid(key.key);
        }
        let Some(active) = keys.iter().find(|key| key.phase == KeyPhase::Active) else { return Ok(()) };
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let (keyring, spki) = (Arc::clone(&self.keyring), active.content.clone());
        let found = tokio::task::spawn_blocking(move || keyring.jwt(count, &spki)).await;
        let signing =
            found.ok().and_then(|found| found.map_err(|error| tracing::error!(%error, "JWT key")).ok());
        let signing = signing.flatten().ok_or(OpenError::JwtKey(active.key))?;
        self.jwt.store(Arc::new(JwtKeys { signing }));
        Ok(())
    }

    /// The keys that verify JWT-SVIDs, the one that signs them first.
    ///
    /// # Errors
    /// [`AuthorityError`] when the ledger cannot be read.
    pub(crate) async fn jwt_keys(&self) -> Result<Vec<PublicKey>, AuthorityError> {
        let mut keys = jwt_records(self.ledger.as_ref()).await?;
        keys.retain(|key| key.phase != KeyPhase::Withdrawn);
        keys.sort_by_key(|key| (key.phase != KeyPhase::Active, key.index));
        Ok(keys.iter().filter_map(|key| PublicKey::from_spki_der(&key.content).ok()).collect())
    }

    /// When the bundle changed last: the position in the log of the last entry about an issuer, a root or a key.
    ///
    /// # Errors
    /// [`AuthorityError`] when the ledger cannot be read.
    pub(crate) async fn bundle_sequence(&self) -> Result<u64, AuthorityError> {
        let issuers = self.ledger.issuers().await?.into_iter().map(|issuer| issuer.index).max();
        let keys = self.ledger.keys().await?.into_iter().map(|key| key.index).max();
        Ok(issuers.max(keys).unwrap_or(0))
    }
}

/// What was followed; what was not is noted unless something is already, and nothing follows from it.
fn or_note<T: Default>(followed: Result<T, impl Into<OpenError>>, failure: &mut Option<OpenError>) -> T {
    followed.unwrap_or_else(|error| {
        failure.get_or_insert_with(|| error.into());
        T::default()
    })
}

/// What the ledger knows of keys of JWT-SVIDs.
pub(crate) async fn jwt_records(ledger: &dyn Ledger) -> Result<Vec<KeyRecord>, AuthorityError> {
    let mut keys = ledger.keys().await?;
    keys.retain(|key| key.purpose == KeyPurpose::Jwt);
    Ok(keys)
}

/// How certificates of an issuer are divided among lists from now on, as an entry.
pub(crate) fn division(config: &Config, epoch: IssuerEpoch) -> Body {
    Body::CrlDivided(CrlDivision { epoch, shards: config.crl_shards, base: config.status_url.clone() })
}

/// The URLs that certificates of an issuer name from now on. How they are divided among lists is on record before any
/// certificate says so: lists are published by that record.
pub(super) async fn status_urls(
    config: &Config,
    ledger: &dyn Ledger,
    issuer: &IssuerRecord,
    now: Timestamp,
) -> Result<StatusUrls, AuthorityError> {
    let (epoch, base, shards) = (issuer.epoch, &config.status_url, config.crl_shards);
    let divisions = ledger.crl_divisions(epoch).await?;
    if !divisions.iter().any(|division| division.shards == shards && division.base == *base) {
        let entry = Entry::new(now, division(config, epoch));
        ledger.commit(vec![Proposal::new(Vec::new(), vec![entry])?]).await?;
    }
    Ok(StatusUrls::of(base, epoch, shards))
}
