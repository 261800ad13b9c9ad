//! Hearing what other replicas recorded.

use std::sync::Arc;
use std::time::Duration;

use chancery_entry::Entry;
use tokio::sync::Notify;
use tokio_postgres::types::Type;

use super::error::{Fence, Unfit};
use super::hashes::signed;
use super::head::{HeadRow, Known, READ};
use super::session::{Parameter, Session, SqlError, Statement, Target, column};
use crate::model::apply::changes_standing;
use crate::{Head, News};

/// Entries that change how something stands, by an index of their own.
const NEWS: Statement = Statement {
    name: "news",
    text: "SELECT index, bytes FROM @.entries WHERE news AND index >= $1 AND index < $2 ORDER BY index LIMIT $3",
};
/// Rows read at once.
const CHUNK: i64 = 4096;

const LISTEN: Statement = Statement { name: "listen", text: "LISTEN @" };
/// How long to wait before listening again.
const PAUSE: Duration = Duration::from_millis(500);

/// What the log has come to since it was looked at.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) head: Head,
    /// Why this process may not write any more, if that is so. It reads on.
    pub(super) fence: Option<Fence>,
    pub(super) news: Vec<News>,
    pub(super) changes_standing: bool,
}

impl Heard {
    /// Looks where the log stands now, and what is news since.
    pub(super) async fn read(session: &Session, known: &Known) -> Result<Self, Unfit> {
        let row = HeadRow::read(&READ, &session.row(&READ, &[]).await?)?;
        row.check(known)?;
        let news = news_between(session, known.head.size, row.head.size).await?;
        let changes_standing = news.iter().any(|news| changes_standing(&news.entry.body));
        let fence = row.check_open(known).err();
        Ok(Self { head: row.head, fence, news, changes_standing })
    }
}

/// News among the entries `from .. end`.
pub(super) async fn news_between(session: &Session, from: u64, end: u64) -> Result<Vec<News>, SqlError> {
    let mut news = Vec::new();
    let (mut from, end) = (signed(from), signed(end));
    while from < end {
        let parameters: [Parameter<'_>; 3] = [(&from, Type::INT8), (&end, Type::INT8), (&CHUNK, Type::INT8)];
        let rows = session.rows(&NEWS, &parameters).await?;
        for row in &rows {
            let index: i64 = column(&NEWS, row, 0)?;
            from = index + 1;
            let index = u64::try_from(index).map_err(|error| SqlError::refused(NEWS.name, error))?;
            match Entry::decode(column(&NEWS, row, 1)?) {
                Ok(entry) => news.push(News { index, entry: Arc::new(entry) }),
                // A later version's: there is nobody here who could do anything about it.
                Err(error) => tracing::warn!(index, %error, "an entry that others recorded cannot be read"),
            }
        }
        if rows.len() < usize::try_from(CHUNK).unwrap_or(usize::MAX) {
            break;
        }
    }
    Ok(news)
}

/// Wakes whoever waits whenever any replica has committed, for ever.
pub(super) async fn listen(target: Target, heard: Arc<Notify>) {
    loop {
        match target.listen(Some(Arc::clone(&heard))).await {
            Ok(session) => {
                if let Err(error) = session.run(&LISTEN).await {
                    tracing::warn!(%error, "commits of other replicas are looked for, not heard");
                }
                // What was committed before it listened.
                heard.notify_one();
                while !session.is_closed() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Err(error) => tracing::debug!(%error, "the database cannot be listened to now"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
