//! Questions to the read model, asked of the database.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chancery_types::{CrlShard, Digest, IssuerEpoch, LineageId, SerialNumber, SpiffeId, Timestamp, TokenId};

use super::PostgresLedger;
use super::lookups::look_up;
use super::session::{Session, SqlError};
use super::view::{Drive, SqlView};
use crate::model::change::{self, ChangeRecord};
use crate::model::query::{self, IdentityQuery, Page, PageRequest};
use crate::model::record::{
    CertificateRecord, CrlDivisionRecord, CrlRecord, IdentityRecord, IssuerRecord, KeyRecord, LineageRecord,
    RevokedCertificate, StatusSetRecord, TemplateRecord, TokenRecord, WishRecord,
};
use crate::model::search::{self, CertificateQuery};
use crate::model::{ModelError, ReadModel, Table, View, taken, tidy};

impl PostgresLedger {
    /// Answers a question on a thread that may block; once more when the connection turns out to be dead.
    async fn ask<T, Q>(&self, question: Q) -> Result<T, ModelError>
    where
        T: Send + 'static,
        Q: Fn(&dyn View) -> Result<T, ModelError> + Send + Sync + 'static,
    {
        self.ask_primary(Arc::new(question)).await
    }

    /// Answers a question for one value, together with others of that kind and without a thread.
    async fn ask_value<T>(
        &self,
        key: Vec<u8>,
        question: impl FnOnce(&dyn View) -> Result<T, ModelError> + Send,
    ) -> Result<T, ModelError> {
        question(&look_up(&self.shared, key).await?)
    }

    /// As [`Self::ask`], where the answer may be a moment old: of a standby, if one is fit.
    async fn ask_at_leisure<T, Q>(&self, question: Q) -> Result<T, ModelError>
    where
        T: Send + 'static,
        Q: Fn(&dyn View) -> Result<T, ModelError> + Send + Sync + 'static,
    {
        let question = Arc::new(question);
        if let Some(standby) = self.shared.standbys.next(&self.shared).await {
            match ask_of(standby.session, Arc::clone(&question)).await {
                Ok(answer) => {
                    self.shared.standbys.note();
                    return Ok(answer);
                }
                // It may have been stopped, or have given way to what it replays.
                Err((_, error)) => tracing::debug!(%error, "the primary is asked instead of a standby"),
            }
        }
        self.ask_primary(question).await
    }

    async fn ask_primary<T, Q>(&self, question: Arc<Q>) -> Result<T, ModelError>
    where
        T: Send + 'static,
        Q: Fn(&dyn View) -> Result<T, ModelError> + Send + Sync + 'static,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let session =
                self.shared.reader().await.map_err(|error| ModelError::Engine(error.to_string()))?;
            match ask_of(session, Arc::clone(&question)).await {
                Ok(answer) => return Ok(answer),
                Err((SqlError::Lost { .. }, _)) if tries < 2 => {}
                Err((_, error)) => return Err(error),
            }
        }
    }
}

/// Answers a question over one connection; what failed, and what is said of it.
async fn ask_of<T, Q>(session: Arc<Session>, question: Arc<Q>) -> Result<T, (SqlError, ModelError)>
where
    T: Send + 'static,
    Q: Fn(&dyn View) -> Result<T, ModelError> + Send + Sync + 'static,
{
    let handle = tokio::runtime::Handle::current();
    let ask = move || {
        let view = SqlView::new(&session, Drive::Shared(&handle), session.schema());
        question(&view).map_err(|error| (view.failure(&error), error))
    };
    let answered = tokio::task::spawn_blocking(ask).await;
    answered.unwrap_or_else(|error| {
        let error = ModelError::Engine(error.to_string());
        Err((SqlError::refused("question", &error), error))
    })
}

#[async_trait]
impl ReadModel for PostgresLedger {
    async fn certificate(&self, serial: SerialNumber) -> Result<Option<CertificateRecord>, ModelError> {
        let key = Table::Certificate.key(&[serial.as_bytes()]);
        match self.ask_value(key, |view| query::recorded(view, serial)).await? {
            None => Ok(None),
            Some(recorded) => recorded.record(serial, self).await.map(Some),
        }
    }

    async fn certificates(
        &self,
        query: &CertificateQuery,
        page: &PageRequest,
    ) -> Result<Page<CertificateRecord>, ModelError> {
        let (query, page) = (query.clone(), page.clone());
        let may_lag = query.may_lag;
        let question = move |view: &dyn View| search::certificates(view, &query, &page);
        match may_lag {
            true => self.ask_at_leisure(question).await,
            false => self.ask(question).await,
        }
    }

    async fn ended(&self, before: Timestamp, page: &PageRequest) -> Result<Page<SerialNumber>, ModelError> {
        let page = page.clone();
        self.ask(move |view| tidy::ended(view, before, &page)).await
    }

    async fn lineage(&self, lineage: LineageId) -> Result<Option<LineageRecord>, ModelError> {
        self.ask(move |view| query::lineage(view, lineage)).await
    }

    async fn living(&self, lineage: LineageId) -> Result<Vec<SerialNumber>, ModelError> {
        self.ask(move |view| match query::lineage_head(view, lineage)? {
            Some(head) => query::living(view, lineage, &head),
            None => Ok(Vec::new()),
        })
        .await
    }

    async fn identity(&self, id: &SpiffeId) -> Result<Option<IdentityRecord>, ModelError> {
        let key = Table::Identity.key(&[id.as_str().as_bytes()]);
        self.ask_value(key, |view| query::identity(view, id)).await
    }

    async fn identities(
        &self,
        query: &IdentityQuery,
        page: &PageRequest,
    ) -> Result<Page<IdentityRecord>, ModelError> {
        let (query, page) = (query.clone(), page.clone());
        self.ask(move |view| query::identities(view, &query, &page)).await
    }

    async fn template(&self, name: &str) -> Result<Option<TemplateRecord>, ModelError> {
        let name = name.to_owned();
        self.ask(move |view| query::template(view, &name)).await
    }

    async fn templates(&self) -> Result<Vec<TemplateRecord>, ModelError> {
        self.ask(query::templates).await
    }

    async fn token(&self, token: TokenId) -> Result<Option<TokenRecord>, ModelError> {
        let key = Table::Token.key(&[token.as_bytes()]);
        self.ask_value(key, |view| query::token(view, token)).await
    }

    async fn tokens(&self, page: &PageRequest) -> Result<Page<TokenRecord>, ModelError> {
        let page = page.clone();
        self.ask(move |view| query::tokens(view, &page)).await
    }

    async fn change(&self, change: u64) -> Result<Option<ChangeRecord>, ModelError> {
        self.ask(move |view| change::change(view, change)).await
    }

    async fn changes(&self, page: &PageRequest) -> Result<Page<ChangeRecord>, ModelError> {
        let page = page.clone();
        self.ask(move |view| change::changes(view, &page)).await
    }

    async fn held_by(&self, change: u64, page: &PageRequest) -> Result<Page<SerialNumber>, ModelError> {
        let page = page.clone();
        self.ask(move |view| change::held_by(view, change, &page)).await
    }

    async fn taken(&self, by: &str, since: Timestamp) -> Result<BTreeMap<String, u64>, ModelError> {
        let by = by.to_owned();
        self.ask(move |view| taken::taken(view, &by, since)).await
    }

    async fn issuers(&self) -> Result<Vec<IssuerRecord>, ModelError> {
        self.ask(query::issuers).await
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, ModelError> {
        self.ask(query::keys).await
    }

    async fn wishes(&self) -> Result<Vec<WishRecord>, ModelError> {
        self.ask(query::wishes).await
    }

    async fn last_counter(&self, epoch: IssuerEpoch) -> Result<Option<u64>, ModelError> {
        self.ask(move |view| query::last_counter(view, epoch)).await
    }

    async fn revoked(
        &self,
        epoch: IssuerEpoch,
        now: Timestamp,
    ) -> Result<Vec<RevokedCertificate>, ModelError> {
        self.ask(move |view| query::revoked(view, epoch, now)).await
    }

    async fn last_crl(
        &self,
        epoch: IssuerEpoch,
        shard: Option<CrlShard>,
    ) -> Result<Option<CrlRecord>, ModelError> {
        self.ask(move |view| query::last_crl(view, epoch, shard)).await
    }

    async fn crl_divisions(&self, epoch: IssuerEpoch) -> Result<Vec<CrlDivisionRecord>, ModelError> {
        self.ask(move |view| query::crl_divisions(view, epoch)).await
    }

    async fn last_status_set(&self) -> Result<Option<StatusSetRecord>, ModelError> {
        self.ask(query::last_status_set).await
    }

    async fn idempotent(&self, hash: Digest) -> Result<Option<SerialNumber>, ModelError> {
        let key = Table::Idempotency.key(&[hash.as_bytes()]);
        self.ask_value(key, |view| query::idempotent(view, hash)).await
    }

    async fn profile(&self, hash: Digest) -> Result<Option<u64>, ModelError> {
        let key = Table::Profile.key(&[hash.as_bytes()]);
        self.ask_value(key, |view| query::profile(view, hash)).await
    }

    async fn policy(&self, hash: Digest) -> Result<Vec<u64>, ModelError> {
        self.ask(move |view| query::policy(view, hash)).await
    }
}
