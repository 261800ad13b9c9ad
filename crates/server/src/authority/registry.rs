//! Identities, templates and join tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use chancery_attest::JoinToken;
use chancery_entry::{
    Body, Document, Entry, IdentityRegistration, TemplateRegistration, TemplateRemoval, TokenBinding,
    TokenCreation, TokenRevocation,
};
use chancery_ledger::{Outcome, Precondition, Proposal};
use chancery_policy::IdentityTemplate;
use chancery_telemetry::step;
use chancery_types::{Digest, Identity, SecretString, SpiffeId, Timestamp, TokenId};
use tracing::Instrument as _;

use super::{Authority, AuthorityError};

/// The longest that a join token may live.
const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a join token is to be good for.
#[derive(Debug, Clone)]
pub enum TokenFor {
    /// A registered identity.
    Identity(SpiffeId),
    /// A template with these parameters.
    Template {
        /// Its name.
        name: String,
        /// Values for its placeholders.
        parameters: BTreeMap<String, String>,
    },
}

/// A join token that was just made.
#[derive(Debug)]
pub struct NewToken {
    /// Its public half.
    pub id: TokenId,
    /// The whole text: shown once, kept nowhere.
    pub text: SecretString,
    /// When it ends.
    pub expires: Timestamp,
}

impl Authority {
    /// Registers an identity under a name that was never used.
    ///
    /// # Errors
    /// [`AuthorityError::Invalid`], or [`AuthorityError::Conflict`] when the name was used.
    pub async fn register_identity(&self, identity: &Identity, by: &str) -> Result<u64, AuthorityError> {
        let registration = self.registration(identity, by)?;
        let requires = vec![Precondition::IdentityUnused(identity.spiffe_id.clone())];
        let index = self.commit(requires, Body::IdentityRegistered(registration)).await?;
        self.selectors.outdate();
        Ok(index)
    }

    /// Replaces an identity's document.
    ///
    /// # Errors
    /// [`AuthorityError::Invalid`], or [`AuthorityError::Conflict`] when it is not registered or retired.
    pub async fn change_identity(&self, identity: &Identity, by: &str) -> Result<u64, AuthorityError> {
        let registration = self.registration(identity, by)?;
        let requires = vec![Precondition::IdentityRegistered(identity.spiffe_id.clone())];
        let index = self.commit(requires, Body::IdentityChanged(registration)).await?;
        self.selectors.outdate();
        Ok(index)
    }

    fn registration(&self, identity: &Identity, by: &str) -> Result<IdentityRegistration, AuthorityError> {
        identity.check()?;
        if identity.spiffe_id.trust_domain() != self.config.trust_domain {
            let ours = &self.config.trust_domain;
            return Err(AuthorityError::invalid(
                "spiffe_id",
                format!("{} is not in the trust domain {ours}", identity.spiffe_id),
            ));
        }
        let rules = self.rules.load();
        for profile in identity.allowed_profiles() {
            rules.profile(profile).map_err(|error| AuthorityError::invalid("profiles", error))?;
        }
        let document =
            serde_json::to_string(identity).map_err(|error| AuthorityError::invalid("identity", error))?;
        Ok(IdentityRegistration {
            identity: identity.spiffe_id.clone(),
            document: Document(document),
            by: by.to_owned(),
        })
    }

    /// A template by its name.
    ///
    /// # Errors
    /// [`AuthorityError::NotFound`].
    pub async fn template(&self, name: &str) -> Result<IdentityTemplate, AuthorityError> {
        let record = self.ledger.template(name).await?;
        let record = record.ok_or_else(|| AuthorityError::not_found("template", name))?;
        serde_json::from_value(record.document).map_err(|error| AuthorityError::invalid("template", error))
    }

    /// Registers or replaces a template.
    ///
    /// # Errors
    /// [`AuthorityError::Invalid`].
    pub async fn register_template(
        &self,
        template: &IdentityTemplate,
        by: &str,
    ) -> Result<u64, AuthorityError> {
        template.check().map_err(|error| AuthorityError::invalid("template", error))?;
        let document =
            serde_json::to_string(template).map_err(|error| AuthorityError::invalid("template", error))?;
        let registration = TemplateRegistration {
            name: template.name.clone(),
            document: Document(document),
            by: by.to_owned(),
        };
        self.commit(Vec::new(), Body::TemplateRegistered(registration)).await
    }

    /// Removes a template; what it made stays.
    ///
    /// # Errors
    /// [`AuthorityError::Conflict`] when there is none.
    pub async fn remove_template(&self, name: &str, by: &str) -> Result<u64, AuthorityError> {
        let requires = vec![Precondition::TemplateExists(name.to_owned())];
        let removal = TemplateRemoval { name: name.to_owned(), by: by.to_owned() };
        self.commit(requires, Body::TemplateRemoved(removal)).await
    }

    /// Makes a join token. Only its hash is kept.
    ///
    /// # Errors
    /// [`AuthorityError::Invalid`], or [`AuthorityError::Conflict`] when the identity is not active.
    pub async fn create_token(
        &self,
        purpose: TokenFor,
        lifetime: Duration,
        key: Option<Digest>,
        with_root: bool,
        by: &str,
    ) -> Result<NewToken, AuthorityError> {
        if lifetime.is_zero() || lifetime > MAX_TOKEN_LIFETIME {
            return Err(AuthorityError::invalid("ttl", "a join token lives between one second and 30 days"));
        }
        let now = self.clock.now();
        let root = with_root.then(|| self.shown_root());
        let token = JoinToken::generate(self.clock.now(), self.random.as_ref(), root)?;
        let (binding, requires) = match purpose {
            TokenFor::Identity(id) => {
                let requires = vec![Precondition::IdentityActive(id.clone())];
                (TokenBinding::Identity(id), requires)
            }
            TokenFor::Template { name, parameters } => {
                // Expanding it now tells the operator what is wrong, not the workload later.
                self.template(&name)
                    .await?
                    .expand(&self.config.trust_domain, &parameters, now)
                    .map_err(|error| AuthorityError::invalid("parameters", error))?;
                let document = serde_json::to_string(&parameters)
                    .map_err(|error| AuthorityError::invalid("parameters", error))?;
                let requires = vec![Precondition::TemplateExists(name.clone())];
                (TokenBinding::Template { name, parameters: Document(document) }, requires)
            }
        };
        let expires = now + lifetime;
        let creation = TokenCreation {
            token: token.id(),
            secret_hash: token.hash(),
            binding,
            key,
            expires,
            by: by.to_owned(),
        };
        self.commit(requires, Body::TokenCreated(creation)).await?;
        Ok(NewToken { id: token.id(), text: token.to_text(), expires })
    }

    /// Withdraws a join token that was not used.
    ///
    /// # Errors
    /// [`AuthorityError::Conflict`] when it was spent or withdrawn, or there is none.
    pub async fn revoke_token(&self, token: TokenId, by: &str) -> Result<u64, AuthorityError> {
        let revocation = TokenRevocation { token, by: by.to_owned() };
        self.commit(vec![Precondition::TokenOpen(token)], Body::TokenRevoked(revocation)).await
    }

    /// Records a fact that requires nothing; returns its index.
    ///
    /// # Errors
    /// [`AuthorityError::Commit`].
    pub async fn record(&self, body: Body) -> Result<u64, AuthorityError> {
        self.commit(Vec::new(), body).await
    }

    /// Commits one entry; returns its index.
    pub(crate) async fn commit(
        &self,
        requires: Vec<Precondition>,
        body: Body,
    ) -> Result<u64, AuthorityError> {
        let proposal = Proposal::new(requires, vec![Entry::new(self.clock.now(), body)])?;
        match self.ledger.commit(vec![proposal]).instrument(step!("commit")).await?.into_iter().next() {
            Some(Outcome::Accepted { first_index }) => Ok(first_index),
            Some(Outcome::Refused(conflict)) => Err(AuthorityError::Conflict(conflict)),
            None => Err(AuthorityError::invalid("request", "the ledger gave no outcome")),
        }
    }
}
