//! What a benchmark spends: keys, requests and tokens, made before the clock starts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chancery_types::{KeyAlgorithm, SecretString, SpiffeId, TrustDomain};
use chancery_x509::{DistinguishedName, SubjectKey};

use super::load::drive;
use crate::authority_side::in_process::InProcess;

/// Keys that are made; requests take turns with them.
const KEYS: usize = 2048;
/// Identities that are registered; tokens take turns with them.
const IDENTITIES: usize = 1000;
/// Registrations and tokens that are under way at once.
const IN_FLIGHT: usize = 128;
/// Long enough for everything.
const PATIENCE: Duration = Duration::from_secs(3600);

/// One enrolment to be made.
#[derive(Debug)]
pub(crate) struct Intent {
    /// Its key.
    pub(crate) subject: Arc<Subject>,
    /// Its token.
    pub(crate) token: SecretString,
}

/// A key with its request.
#[derive(Debug)]
pub(crate) struct Subject {
    /// The key.
    pub(crate) key: SubjectKey,
    /// The certificate request, DER.
    pub(crate) csr: Vec<u8>,
}

impl Subject {
    /// A new key with its request.
    pub(crate) fn new() -> Result<Self> {
        let key = SubjectKey::generate(KeyAlgorithm::P256).context("cannot make a key")?;
        let csr = key.request(&DistinguishedName::empty(), &[]).context("cannot make a request")?;
        Ok(Self { key, csr })
    }
}

/// Keys and tokens in stock.
#[derive(Debug)]
pub(crate) struct Supply {
    subjects: Vec<Arc<Subject>>,
    identities: Vec<SpiffeId>,
    tokens: Vec<SecretString>,
    taken: usize,
}

impl Supply {
    /// Makes keys, registers identities and makes this many tokens.
    pub(crate) async fn make(
        authority: &InProcess,
        trust_domain: &TrustDomain,
        tokens: usize,
    ) -> Result<Self> {
        let subjects = (0..KEYS).map(|_| Subject::new().map(Arc::new)).collect::<Result<Vec<_>>>()?;
        let identities = (0..IDENTITIES)
            .map(|number| trust_domain.member(&format!("/bench/{number}")))
            .collect::<Result<Vec<_>, _>>()?;
        let workers = || vec![authority.clone(); IN_FLIGHT];
        drive(workers(), identities.clone(), PATIENCE, |authority, id| async move {
            authority.register(&id).await?;
            Ok((authority, 1))
        })
        .await?;
        let made = Arc::new(std::sync::Mutex::new(Vec::with_capacity(tokens)));
        let wanted: Vec<SpiffeId> = identities.iter().cycle().take(tokens).cloned().collect();
        let stock = Arc::clone(&made);
        drive(workers(), wanted, PATIENCE, move |authority, id| {
            let stock = Arc::clone(&stock);
            async move {
                let token = authority.create_token(&id).await?;
                stock.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(token);
                Ok((authority, 1))
            }
        })
        .await?;
        let tokens = std::mem::take(&mut *made.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        Ok(Self { subjects, identities, tokens, taken: 0 })
    }

    /// Takes enrolments out of the stock, fewer when it runs out.
    pub(crate) fn take(&mut self, count: usize) -> Vec<Intent> {
        let keep = self.tokens.len().saturating_sub(count);
        let tokens = self.tokens.split_off(keep);
        tokens.into_iter().map(|token| Intent { subject: self.subject(), token }).collect()
    }

    /// The next key.
    pub(crate) fn subject(&mut self) -> Arc<Subject> {
        self.taken += 1;
        Arc::clone(&self.subjects[self.taken % self.subjects.len()])
    }

    /// The next identity.
    pub(crate) fn identity(&mut self) -> SpiffeId {
        self.taken += 1;
        self.identities[self.taken % self.identities.len()].clone()
    }
}
