//! One change of issuers or keys: judged, committed, in force.

use std::sync::Arc;

use chancery_api::RenewalScope;
use chancery_entry::{Blob, Body, Entry, IssuerActivation, IssuerRetirement, IssuerTaint, TaintStep};
use chancery_issue::Issuer;
use chancery_ledger::{IssuerRecord, Outcome, Precondition, Proposal};
use chancery_revoke::{Hand, Selector};
use chancery_rotate::authority::{State, Violation, What, admit};
use chancery_types::{IssuerEpoch, RevocationReason};
use chancery_x509::write_pem;

use super::{Rotation, RotationError};
use crate::agents::renewal_asked;
use crate::authority::{AuthorityError, division};
use crate::bootstrap::{issuer_request, known_issuers, replace};

/// Who makes a change, why, and what else is said with it.
pub(super) struct Hands<'a> {
    pub(super) by: &'a str,
    pub(super) note: &'a str,
    pub(super) also: Vec<Body>,
}

impl Rotation {
    /// Makes a change, if how things stand at this moment allows it; `also` becomes part of the same commit.
    ///
    /// # Errors
    /// [`RotationError`]; nothing was changed, or all of it.
    pub(crate) async fn make(
        &self,
        what: &What,
        by: &str,
        note: &str,
        also: Vec<Body>,
    ) -> Result<(), RotationError> {
        let _changing = self.changing.lock().await;
        let state = self.state().await?;
        admit(&state, &self.rules, what, self.now())?;
        let hands = Hands { by, note, also };
        match what {
            What::RequestIssuer => self.request_issuer(&state).await?,
            What::PublishIssuer(epoch) => self.publish_issuer(*epoch, hands).await?,
            What::ActivateIssuer { epoch, supersedes } => {
                self.activate_issuer(*epoch, *supersedes, hands).await?;
            }
            What::WithdrawIssuer(epoch) => {
                let record = self.issuer_record(*epoch).await?;
                let retirement = IssuerRetirement { epoch: *epoch, by: by.to_owned(), note: note.to_owned() };
                self.commit(vec![issuer_at(&record)], vec![Body::IssuerWithdrawn(retirement)], hands.also)
                    .await?;
            }
            What::AskRenewals(epoch) => self.ask_renewals(*epoch, hands).await?,
            What::Distrust(epoch) => self.distrust(*epoch, hands).await?,
            What::PublishKey(subject) => self.publish_key(*subject, hands).await?,
            What::ActivateKey { subject, id, supersedes } => {
                self.activate_key(*subject, *id, *supersedes, hands).await?;
            }
            What::WithdrawKey { subject, id } => self.withdraw_key(*subject, *id, hands).await?,
            What::ActivateRoot(id) => self.activate_root(*id, hands).await?,
            What::WithdrawRoot(id) => self.withdraw_root(*id, hands).await?,
            // People make roots and sign requests, and tasks of their own do the rest.
            What::MakeRoot | What::SignRequest(_) | What::RenewCredential(_) | What::BuildList(_) => {
                return Err(Violation::Unknown(what.to_string()).into());
            }
        }
        tracing::info!(change = %what, by, why = note, "issuers or keys were changed");
        let adopted = self.adopt().await;
        // This process signs with it since it was committed, so that following the ledger finds nothing new.
        if matches!(what, What::ActivateIssuer { .. }) {
            self.succeeded.notify_one();
        }
        adopted
    }

    /// Says that an issuer is not to be trusted.
    ///
    /// # Errors
    /// [`RotationError`] when there is no such issuer.
    pub(crate) async fn taint(&self, epoch: IssuerEpoch, by: &str, note: &str) -> Result<(), RotationError> {
        let record = self.issuer_record(epoch).await?;
        if record.taint.is_some() {
            return Ok(());
        }
        let taint = IssuerTaint {
            epoch,
            step: TaintStep::Marked,
            until: self.now(),
            by: by.to_owned(),
            note: note.to_owned(),
        };
        self.commit(vec![issuer_at(&record)], vec![Body::IssuerTainted(taint)], Vec::new()).await
    }

    /// A key and a request, for somebody to carry to the root.
    async fn request_issuer(&self, state: &State) -> Result<(), RotationError> {
        let last = state.issuers.iter().map(|issuer| issuer.epoch.0).max().unwrap_or(0);
        let epoch = IssuerEpoch(last.saturating_add(1));
        let algorithm = self.authority.workflow().issuer().signer().public_key().algorithm();
        let (keyring, domain) =
            (Arc::clone(self.authority.keyring()), self.authority.config().trust_domain.clone());
        let work = move || -> Result<(), RotationError> {
            let key = keyring.make_issuer(epoch, algorithm)?;
            let csr = issuer_request(&domain, epoch, key.as_ref())?;
            let path = keyring.certificates().join(format!("issuer-{epoch}.csr"));
            Ok(replace(&path, write_pem("CERTIFICATE REQUEST", &csr).as_bytes(), 0o644)?)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| RotationError::BrokenOff)?
    }

    async fn publish_issuer(&self, epoch: IssuerEpoch, hands: Hands<'_>) -> Result<(), RotationError> {
        let directory = self.authority.keyring().certificates().to_owned();
        let found = known_issuers(&directory)?.into_iter().find(|(number, _)| *number == epoch);
        let (_, certificate) = found.ok_or_else(|| Violation::Unknown(format!("issuer {epoch}")))?;
        let key = self.authority.signer_of(epoch, &certificate).await;
        key.ok_or(crate::authority::OpenError::IssuerKey(epoch))?;
        let prepared = IssuerActivation {
            epoch,
            certificate: Blob(certificate.der().to_vec()),
            by: hands.by.to_owned(),
        };
        let before = self.authority.ledger().issuers().await?;
        let index = before.iter().find(|record| record.epoch == epoch).map(|record| record.index);
        let requires = vec![Precondition::IssuerAt { epoch, index }];
        let bodies = vec![Body::IssuerPrepared(prepared), division(self.authority.config(), epoch)];
        self.commit(requires, bodies, hands.also).await
    }

    async fn activate_issuer(
        &self,
        epoch: IssuerEpoch,
        supersedes: IssuerEpoch,
        hands: Hands<'_>,
    ) -> Result<(), RotationError> {
        let (next, before) = (self.issuer_record(epoch).await?, self.issuer_record(supersedes).await?);
        // Whoever meets its first certificate finds the list that the certificate names.
        let mut lists = self.crl.places().filter(|place| place.epoch() == epoch).peekable();
        if lists.peek().is_none() || lists.any(|place| place.current().is_none()) {
            return Err(RotationError::NoList(epoch));
        }
        let issuer: Arc<Issuer> = self.authority.issuer_of(&next).await?;
        let (by, note) = (hands.by.to_owned(), hands.note.to_owned());
        let certificate = Blob(next.certificate.clone());
        let bodies = vec![
            Body::IssuerActivated(IssuerActivation { epoch, certificate, by: by.clone() }),
            Body::IssuerRetired(IssuerRetirement { epoch: supersedes, by, note }),
        ];
        let requires = vec![issuer_at(&next), issuer_at(&before), Precondition::IssuerActive(supersedes)];
        let commit = async {
            self.commit(requires, bodies, hands.also).await?;
            Ok::<_, RotationError>(issuer)
        };
        self.authority.workflow().succeed(commit).await
    }

    /// The wish goes to the agents, and the log says until when they have time.
    async fn ask_renewals(&self, epoch: IssuerEpoch, hands: Hands<'_>) -> Result<(), RotationError> {
        let record = self.issuer_record(epoch).await?;
        let until = self.now() + self.rules.wave;
        let (by, note) = (hands.by.to_owned(), hands.note.to_owned());
        let wish = renewal_asked(by.clone(), RenewalScope::Issuer(epoch), until, hands.note);
        let taint = IssuerTaint { epoch, step: TaintStep::Renewing, until, by, note };
        self.commit(vec![issuer_at(&record)], vec![Body::IssuerTainted(taint), wish], hands.also).await
    }

    /// Whoever said that the issuer is tainted has asked for this: no limit on many revocations holds it up.
    async fn distrust(&self, epoch: IssuerEpoch, hands: Hands<'_>) -> Result<(), RotationError> {
        let scope = Selector::Issuer(epoch).into();
        let hand = Hand::of(hands.by, hands.note);
        self.authority.revoker().revoke(&scope, RevocationReason::CaCompromise, hand).await?;
        let record = self.issuer_record(epoch).await?;
        let (by, note) = (hands.by.to_owned(), hands.note.to_owned());
        let taint = IssuerTaint { epoch, step: TaintStep::Distrusted, until: self.now(), by, note };
        self.commit(vec![issuer_at(&record)], vec![Body::IssuerTainted(taint)], hands.also).await
    }

    pub(super) async fn commit(
        &self,
        requires: Vec<Precondition>,
        mut bodies: Vec<Body>,
        also: Vec<Body>,
    ) -> Result<(), RotationError> {
        bodies.extend(also);
        let now = self.now();
        let entries = bodies.into_iter().map(|body| Entry::new(now, body)).collect();
        let proposal = Proposal::new(requires, entries).map_err(AuthorityError::from)?;
        let outcomes = self.authority.ledger().commit(vec![proposal]).await.map_err(AuthorityError::from)?;
        match outcomes.into_iter().next() {
            Some(Outcome::Refused(conflict)) => Err(AuthorityError::Conflict(conflict).into()),
            _ => Ok(()),
        }
    }

    async fn issuer_record(&self, epoch: IssuerEpoch) -> Result<IssuerRecord, RotationError> {
        let records = self.authority.ledger().issuers().await?;
        let found = records.into_iter().find(|record| record.epoch == epoch);
        Ok(found.ok_or_else(|| AuthorityError::not_found("issuer", epoch))?)
    }
}

pub(super) fn issuer_at(record: &IssuerRecord) -> Precondition {
    Precondition::IssuerAt { epoch: record.epoch, index: Some(record.index) }
}
