//! One change of issuers or keys: judged, committed, in force.

use std::sync::Arc;

use chancery_api::RenewalScope;
use chancery_entry::{
    Blob, Body, Entry, IssuerActivation, IssuerRetirement, IssuerTaint, KeyChange, KeyPhase, KeyPurpose,
    TaintStep,
};
use chancery_issue::Issuer;
use chancery_ledger::{IssuerRecord, KeyRecord, Outcome, Precondition, Proposal};
use chancery_revoke::{Hand, Selector};
use chancery_rotate::authority::{State, Subject, Violation, What, admit};
use chancery_types::{Digest, IssuerEpoch, KeyAlgorithm, RevocationReason};
use chancery_x509::write_pem;

use super::{Rotation, RotationError};
use crate::agents::renewal_asked;
use crate::authority::{AuthorityError, division, jwt_records};
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
            What::PublishKey(Subject::Jwt) => self.publish_jwt_key(hands).await?,
            What::ActivateKey { subject: Subject::Jwt, id, supersedes } => {
                self.activate_jwt_key(*id, *supersedes, hands).await?;
            }
            What::WithdrawKey { subject: Subject::Jwt, id } => {
                let record = self.jwt_record(*id).await?;
                let body = jwt_change(&record, KeyPhase::Withdrawn, &hands);
                self.commit(vec![key_at(&record)], vec![body], hands.also).await?;
            }
            What::ActivateRoot(id) => self.activate_root(*id, hands).await?,
            What::WithdrawRoot(id) => self.withdraw_root(*id, hands).await?,
            // Nobody plans these here: there is one key of the log, and people make roots and sign requests.
            What::PublishKey(_)
            | What::ActivateKey { .. }
            | What::WithdrawKey { .. }
            | What::MakeRoot
            | What::SignRequest(_)
            | What::RenewCredential(_)
            | What::BuildList(_) => return Err(Violation::Unknown(what.to_string()).into()),
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

    async fn publish_jwt_key(&self, hands: Hands<'_>) -> Result<(), RotationError> {
        let known = jwt_records(self.authority.ledger().as_ref()).await?;
        let number = u32::try_from(known.len()).unwrap_or(u32::MAX).saturating_add(1);
        let keyring = Arc::clone(self.authority.keyring());
        let made = tokio::task::spawn_blocking(move || keyring.make_jwt(number, KeyAlgorithm::P256));
        let key = made.await.map_err(|_| RotationError::BrokenOff)??;
        let (purpose, id) = (KeyPurpose::Jwt, key.public_key().fingerprint());
        let body = Body::KeyChanged(KeyChange {
            purpose,
            key: id,
            content: Blob(key.public_key().spki_der().to_vec()),
            phase: KeyPhase::Published,
            by: hands.by.to_owned(),
            note: hands.note.to_owned(),
        });
        let requires = vec![Precondition::KeyAt { purpose, key: id, index: None }];
        self.commit(requires, vec![body], hands.also).await
    }

    async fn activate_jwt_key(
        &self,
        id: Digest,
        supersedes: Digest,
        hands: Hands<'_>,
    ) -> Result<(), RotationError> {
        let (next, before) = (self.jwt_record(id).await?, self.jwt_record(supersedes).await?);
        let bodies =
            vec![jwt_change(&next, KeyPhase::Active, &hands), jwt_change(&before, KeyPhase::Retired, &hands)];
        self.commit(vec![key_at(&next), key_at(&before)], bodies, hands.also).await
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

    async fn jwt_record(&self, id: Digest) -> Result<KeyRecord, RotationError> {
        let records = jwt_records(self.authority.ledger().as_ref()).await?;
        let found = records.into_iter().find(|record| record.key == id);
        Ok(found.ok_or_else(|| AuthorityError::not_found("JWT key", id))?)
    }
}

pub(super) fn issuer_at(record: &IssuerRecord) -> Precondition {
    Precondition::IssuerAt { epoch: record.epoch, index: Some(record.index) }
}

fn key_at(record: &KeyRecord) -> Precondition {
    Precondition::KeyAt { purpose: record.purpose, key: record.key, index: Some(record.index) }
}

fn jwt_change(record: &KeyRecord, phase: KeyPhase, hands: &Hands<'_>) -> Body {
    Body::KeyChanged(KeyChange {
        purpose: record.purpose,
        key: record.key,
        content: Blob(record.content.clone()),
        phase,
        by: hands.by.to_owned(),
        note: hands.note.to_owned(),
    })
}
