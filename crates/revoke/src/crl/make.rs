//! One list: encoded, linted, signed, read back, verified, compared.

use std::sync::Arc;
use std::time::Duration;

use chancery_ledger::{CrlRecord, RevokedCertificate};
use chancery_types::{Digest, Timestamp};
use chancery_x509::assemble;
use chancery_x509::crl::{self, CrlSpec, CrlView};
use chancery_x509::lint::{CrlLintContext, check_crl};

use super::place::{Place, names_exactly};
use super::{PublishError, PublishedCrl};

/// For clocks that are late.
pub(super) const BACKDATE: Duration = Duration::from_secs(60);

/// A list that is to be made.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) place: Arc<Place>,
    /// What it must say.
    pub(super) lines: Vec<RevokedCertificate>,
    /// The last that was published at this place, by whomever.
    pub(super) previous: Option<CrlRecord>,
    pub(super) now: Timestamp,
    pub(super) validity: Duration,
}

impl Draft {
    /// Above every number before, whatever the clock says.
    pub(super) fn number(&self) -> u64 {
        let clock = u64::try_from(self.now.millis()).unwrap_or(0);
        self.previous.map_or(clock, |previous| clock.max(previous.number + 1))
    }

    pub(super) fn this_update(&self) -> Timestamp {
        self.now.whole_second() - BACKDATE
    }

    fn next_update(&self) -> Timestamp {
        (self.now + self.validity).whole_second().min(self.place.issuer.certificate.tbs().not_after())
    }

    /// The list, ready to be recorded and put in place.
    pub(super) fn make(&self) -> Result<PublishedCrl, PublishError> {
        let der = self.sign()?;
        self.compare(&der)?;
        Ok(PublishedCrl {
            hash: Digest::of(&der),
            der,
            number: self.number(),
            entries: self.lines.len() as u64,
            made: self.now,
            next_update: self.next_update(),
        })
    }

    fn sign(&self) -> Result<Vec<u8>, PublishError> {
        let issuer = &self.place.issuer;
        let signer = issuer.signer.as_ref().ok_or(PublishError::NoKey(issuer.epoch))?;
        let spec = CrlSpec {
            issuer: &issuer.certificate,
            signature_algorithm: signer.algorithm(),
            number: self.number(),
            this_update: self.this_update(),
            next_update: self.next_update(),
            distribution_points: self.place.urls(),
        };
        let entries = self.lines.iter().map(|line| crl::RevokedCertificate {
            serial: line.serial.as_bytes(),
            revoked_at: line.at,
            reason: line.reason,
        });
        let tbs = spec.to_tbs_der(entries.collect())?;
        let context = CrlLintContext {
            issuer: &issuer.certificate,
            // A clock that was set back makes what was revoked before look like the future. It stays revoked.
            now: self.lines.iter().map(|line| line.at).fold(self.now, Timestamp::max),
            previous_number: self.previous.map(|previous| previous.number),
            distribution_points: self.place.urls(),
        };
        if let Some(finding) = check_crl(&tbs, &context).into_iter().find(|finding| finding.is_error()) {
            return Err(PublishError::Lint(finding.to_string()));
        }
        let signature = signer.sign(&tbs)?;
        Ok(assemble(&tbs, signer.algorithm(), &signature))
    }

    /// Reads the list as a relying party would: its signature verifies, and it says exactly what it should.
    fn compare(&self, der: &[u8]) -> Result<(), PublishError> {
        let view = CrlView::from_der(der).map_err(|_| PublishError::Unexpected("it does not parse"))?;
        view.verify(self.place.issuer.certificate.tbs().spki_der())
            .map_err(|_| PublishError::Unexpected("its signature does not verify under the issuer"))?;
        if view.number_u64() != Some(self.number()) {
            return Err(PublishError::Unexpected("it has another number"));
        }
        if !view.distribution_points().eq(self.place.urls().iter().map(String::as_str)) {
            return Err(PublishError::Unexpected("it is for other URLs"));
        }
        if !names_exactly(&view, &self.lines) {
            return Err(PublishError::Unexpected("it names other certificates"));
        }
        Ok(())
    }
}
