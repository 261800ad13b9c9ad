//! The issuers whose status is published: the active one, and those before it whose certificates may still be met.

use std::sync::Arc;

use chancery_entry::{Body, CrlDivision, Entry};
use chancery_issue::StatusUrls;
use chancery_keys::Signer;
use chancery_ledger::{IssuerRecord, Ledger, Proposal};
use chancery_revoke::StatusIssuer;
use chancery_types::Timestamp;
use chancery_x509::Certificate;

use super::{Authority, AuthorityError};
use crate::config::Config;

impl Authority {
    /// Every issuer whose certificates may still be met, by epoch.
    ///
    /// # Errors
    /// [`AuthorityError`] when the ledger cannot be read.
    pub async fn status_issuers(&self) -> Result<Vec<StatusIssuer>, AuthorityError> {
        let mut issuers = Vec::new();
        for record in self.ledger.issuers().await? {
            let epoch = record.epoch;
            let Ok(certificate) = Certificate::from_der(&record.certificate) else { continue };
            if certificate.tbs().not_after() <= self.clock.now() {
                continue;
            }
            let signer = self.signer_of(&certificate);
            if signer.is_none() {
                tracing::warn!(
                    %epoch,
                    "the key of an issuer whose certificates may still be met is not here: its lists run out; name it \
                     in keys.former_issuers"
                );
            }
            let divisions = self.ledger.crl_divisions(epoch).await?;
            issuers.push(StatusIssuer { epoch, certificate, signer, divisions });
        }
        Ok(issuers)
    }

    fn signer_of(&self, issuer: &Certificate) -> Option<Arc<dyn Signer>> {
        let active = self.workflow.issuer();
        let mut keys = std::iter::once(active.signer()).chain(&self.former_keys);
        keys.find(|key| key.public_key().spki_der() == issuer.tbs().spki_der()).cloned()
    }
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
        let division = CrlDivision { epoch, shards, base: base.clone() };
        ledger
            .commit(vec![Proposal::new(Vec::new(), vec![Entry::new(now, Body::CrlDivided(division))])?])
            .await?;
    }
    Ok(StatusUrls::of(base, epoch, shards))
}
