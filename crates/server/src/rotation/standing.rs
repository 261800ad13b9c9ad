//! How issuers and keys stand: what the ledger says, and what lies in reserve beside it.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use chancery_entry::{KeyPhase, Wanted};
use chancery_ledger::{IssuerRecord, IssuerState, KeyRecord};
use chancery_rotate::authority::{
    Credential, Issuer, Key, Life, List, Phase, Root, Since, State, Subject, Taint, TaintStep, Wish,
};
use chancery_types::{Digest, IssuerEpoch, Timestamp};
use chancery_x509::Certificate;

use super::{Rotation, RotationError};
use crate::authority::{KnownRoot, LogKey, Roots, jwt_records, read_log_keys};
use crate::bootstrap::{issuer_number, known_issuers};

impl Rotation {
    /// How everything stands, and for how long this process has seen it so.
    ///
    /// # Errors
    /// [`RotationError`] when the ledger or the directory of certificates cannot be read.
    pub async fn state(&self) -> Result<State, RotationError> {
        let ledger = self.authority.ledger();
        let records = ledger.issuers().await?;
        let jwt_records = jwt_records(ledger.as_ref()).await?;
        let log_keys = read_log_keys(ledger.as_ref()).await?;
        let roots = self.authority.read_roots().await?;
        let mut issuers: Vec<Issuer> = records.iter().filter_map(|record| issuer(record, &roots)).collect();
        for issuer in &mut issuers {
            // One that was rolled back before it signed anything is in reserve again.
            let is_unused = issuer.phase == Phase::Withdrawn && issuer.taint.is_none();
            if is_unused && ledger.last_counter(issuer.epoch).await?.is_none() {
                issuer.phase = Phase::Spare;
            }
        }
        issuers.extend(self.in_reserve(&issuers, &roots)?);
        issuers.sort_by_key(|issuer| issuer.epoch);
        let mut state = State {
            issuers,
            roots: roots.known().iter().map(root).collect(),
            jwt_keys: jwt_records.iter().map(key).collect(),
            log_keys: log_keys.iter().map(log_key).collect(),
            credentials: self.credentials(),
            lists: self.lists(),
            wishes: self.wishes(&records, &jwt_records, &log_keys, &roots).await?,
            steady_for: std::time::Duration::ZERO,
        };
        let mut observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
        observer.look(&mut state, self.now(), self.started.elapsed());
        Ok(state)
    }

    /// Issuers that the ledger does not know: signed ones whose key is here, and requests.
    fn in_reserve(&self, known: &[Issuer], roots: &Roots) -> Result<Vec<Issuer>, RotationError> {
        let keyring = self.authority.keyring();
        let directory = keyring.certificates();
        let is_known = |epoch: IssuerEpoch| known.iter().any(|issuer| issuer.epoch == epoch);
        let mut reserve = Vec::new();
        for (epoch, certificate) in known_issuers(directory)? {
            if is_known(epoch) {
                continue;
            }
            let root = match root_of_spare(&certificate, roots) {
                Ok(root) => root,
                Err(why) => {
                    tracing::debug!(%epoch, why, "an issuer in reserve cannot be used");
                    continue;
                }
            };
            let life = life(&certificate);
            reserve.push(Issuer { epoch, root, life, phase: Phase::Spare, taint: None });
        }
        let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        for entry in entries {
            let name = entry.file_name();
            let Some(epoch) = name.to_str().and_then(|name| issuer_number(name, ".csr")) else { continue };
            if !is_known(epoch) && !reserve.iter().any(|issuer| issuer.epoch == epoch) {
                let life = Life { from: self.now(), until: self.now() };
                reserve.push(Issuer { epoch, root: unknown(), life, phase: Phase::Requested, taint: None });
            }
        }
        Ok(reserve)
    }

    fn credentials(&self) -> Vec<Credential> {
        let mut credentials = Vec::new();
        if let Some(life) = *self.server_tls.lock().unwrap_or_else(PoisonError::into_inner) {
            credentials.push(Credential { name: "the server itself".into(), life });
        }
        let active = self.authority.workflow().issuer().epoch();
        if let Some(responder) = self.ocsp.credential(active).filter(|one| one.certificate.is_some()) {
            let life = Life { from: responder.not_before, until: responder.not_after };
            credentials.push(Credential { name: format!("the OCSP responder of issuer {active}"), life });
        }
        credentials
    }

    /// The first list of each issuer that is made anew though nothing changes.
    fn lists(&self) -> Vec<List> {
        let mut first: BTreeMap<IssuerEpoch, (Timestamp, Timestamp)> = BTreeMap::new();
        for place in self.crl.places() {
            let Some(list) = place.current().filter(|_| place.is_alive(self.now())) else { continue };
            let next = (list.made + self.crl.rules().period(), list.next_update);
            let known = first.entry(place.epoch()).or_insert(next);
            *known = (*known).min(next);
        }
        let list = |(epoch, (next, until))| List { name: format!("lists of issuer {epoch}"), next, until };
        first.into_iter().map(list).collect()
    }

    /// What operators want and have not got: whatever came after a wish has fulfilled it.
    async fn wishes(
        &self,
        issuers: &[IssuerRecord],
        keys: &[KeyRecord],
        log_keys: &[LogKey],
        roots: &Roots,
    ) -> Result<BTreeMap<Subject, Wish>, RotationError> {
        let issuer = issuers.iter().find(|issuer| issuer.state == IssuerState::Active);
        let jwt = keys.iter().find(|key| key.phase == KeyPhase::Active);
        let log = log_keys.iter().find(|key| key.phase == KeyPhase::Active);
        let mut wishes = BTreeMap::new();
        for record in self.authority.ledger().wishes().await? {
            let (subject, last) = match record.subject.as_str() {
                "issuer" => (Subject::Issuer, issuer.map(|issuer| issuer.index)),
                "jwt" => (Subject::Jwt, jwt.map(|key| key.index)),
                "log" => (Subject::Log, log.and_then(|key| key.index)),
                "root" => (Subject::Root, roots.known().iter().filter_map(|root| root.index).max()),
                _ => continue,
            };
            // Whoever brings a root wants it.
            if subject == Subject::Root && last.is_some_and(|last| last > record.index) {
                continue;
            }
            let (by, at) = (record.by, record.at);
            match record.wish {
                Wanted::Now if last.is_none_or(|last| last < record.index) => {
                    wishes.insert(subject, Wish::Now { by, at });
                }
                Wanted::Pause => drop(wishes.insert(subject, Wish::Pause { by, at })),
                Wanted::Now | Wanted::Nothing => {}
            }
        }
        Ok(wishes)
    }
}

fn issuer(record: &IssuerRecord, roots: &Roots) -> Option<Issuer> {
    let certificate = Certificate::from_der(&record.certificate).ok()?;
    let root = roots.of_issuer(&certificate).map_or_else(unknown, KnownRoot::id);
    let life = life(&certificate);
    // An earlier version has not kept when an issuer was activated.
    let since = begun(record.since.max(life.from));
    let phase = match record.state {
        IssuerState::Prepared => Phase::Published(since),
        IssuerState::Active => Phase::Active(since),
        IssuerState::Retired => Phase::Superseded(since),
        IssuerState::Withdrawn => Phase::Withdrawn,
    };
    let taint = record.taint.map(|taint| Taint {
        at: taint.at,
        step: match taint.until {
            _ if taint.is_distrusted => TaintStep::Distrusted,
            Some(until) => TaintStep::Renewing { until },
            None => TaintStep::Marked,
        },
    });
    Some(Issuer { epoch: record.epoch, root, life, phase, taint })
}

/// The root of an issuer that nobody has signed, or that stands under none of ours.
fn unknown() -> Digest {
    Digest::from_array([0; 32])
}

/// The root of an issuer that stands under one of ours and may issue.
fn root_of_spare(certificate: &Certificate, roots: &Roots) -> Result<Digest, String> {
    if !certificate.tbs().is_authority() {
        return Err("it is no CA certificate".into());
    }
    roots.verified_root_of(certificate).map(KnownRoot::id).map_err(|error| error.to_string())
}

fn root(known: &KnownRoot) -> Root {
    Root { id: known.id(), life: life(known.certificate()), phase: phase(known.phase, known.since) }
}

fn key(record: &KeyRecord) -> Key {
    Key { id: record.key, phase: phase(record.phase, record.since) }
}

fn log_key(key: &LogKey) -> Key {
    Key { id: key.id(), phase: phase(key.phase, key.since) }
}

fn phase(phase: KeyPhase, since: Timestamp) -> Phase {
    let since = begun(since);
    match phase {
        KeyPhase::Published => Phase::Published(since),
        KeyPhase::Active => Phase::Active(since),
        KeyPhase::Retired => Phase::Superseded(since),
        KeyPhase::Withdrawn => Phase::Withdrawn,
    }
}

fn life(certificate: &Certificate) -> Life {
    Life { from: certificate.tbs().not_before(), until: certificate.tbs().not_after() }
}

/// For how long it was seen so says the observer.
fn begun(at: Timestamp) -> Since {
    Since { at, seen_for: std::time::Duration::ZERO }
}
