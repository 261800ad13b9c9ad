//! Ending the log in a database, for it goes on elsewhere.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::Shared;
use super::error::Unfit;
use super::head::{HeadRow, LOCK, verify};
use super::session::{Session, SqlError, Statement};
use crate::Head;
use crate::proposal::CommitError;

const BEGIN: Statement = Statement { name: "begin_end", text: "BEGIN; SET LOCAL lock_timeout = '10s'" };
const END: Statement = Statement { name: "end_log", text: "UPDATE @.head SET closed = $1" };
const COMMIT: Statement = Statement { name: "commit_end", text: "COMMIT" };

/// Under the lock of the head: whoever decides after it finds the log closed.
pub(super) async fn end(shared: &Shared, why: &str) -> Result<Head, CommitError> {
    let unavailable = |error: Unfit| match error {
        Unfit::Fenced(fence) => {
            shared.fence(&fence);
            CommitError::Halted { reason: fence.to_string() }
        }
        Unfit::Sql(error) => CommitError::Unavailable { reason: error.to_string() },
    };
    let session = shared.target.connect().await.map_err(|error| unavailable(error.into()))?;
    let known = shared.known();
    let ended = async {
        verify(&session, &known).await?;
        session.run(&BEGIN).await?;
        let row = HeadRow::read(&LOCK, &session.row(&LOCK, &[]).await?)?;
        row.check(&known)?;
        if row.closed.as_deref() == Some(why) {
            return Ok(row.head);
        }
        row.check_open(&known)?;
        close(&session, why).await?;
        Ok::<_, Unfit>(row.head)
    };
    ended.await.map_err(unavailable)
}

async fn close(session: &Session, why: &str) -> Result<(), SqlError> {
    session.change_exactly(&END, &[(&why, Type::TEXT)], 1, Duration::ZERO).await?;
    session.run(&COMMIT).await
}
