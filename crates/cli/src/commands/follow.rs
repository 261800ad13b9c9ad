//! `chancery status follow`: the status feed, line by line.

use anyhow::Result;
use chancery_api::{FeedChange, FeedEvent, FeedQuery};
use chancery_client::ClientError;
use chancery_types::SerialNumber;
use clap::Args;

use crate::commands::text_of;
use crate::connection::Connection;
use crate::flags::Globals;
use crate::terminal::{Terminal, Tone};

/// Prints what is revoked, held and released, as it happens, until it is interrupted. With --json each event is one
/// line.
#[derive(Debug, Args)]
pub(crate) struct Follow {
    /// Begin after this position of the log instead of now.
    #[arg(long, value_name = "POSITION")]
    after: Option<u64>,
    /// Print heartbeats too.
    #[arg(long)]
    heartbeats: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Follow {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let client = self.connection.open(globals).await?;
        let mut feed = client.status_feed(FeedQuery { after: self.after, ..FeedQuery::default() });
        loop {
            match feed.next().await {
                Ok(event) if event.change == FeedChange::Heartbeat && !self.heartbeats => {}
                Ok(event) if terminal.is_json() => terminal.text(&serde_json::to_string(&event)?)?,
                Ok(event) => terminal.text(&lines(terminal, &event))?,
                // Who is refused is so the next time as well.
                Err(error @ ClientError::Problem(_)) => return Err(error.into()),
                Err(error) => terminal.note(format_args!("{error}; connecting again")),
            }
        }
    }
}

/// A line for each certificate, and for what is not about one.
fn lines(terminal: &Terminal, event: &FeedEvent) -> String {
    let each = |tone, what: String, serials: &[SerialNumber]| {
        let line = |serial| format!("{} {serial} {}\n", event.sequence, terminal.paint(tone, &what));
        serials.iter().map(line).collect::<String>()
    };
    let one = |what: String| format!("{} {what}\n", event.sequence);
    match &event.change {
        FeedChange::Revoke { serials, reason, at } => {
            each(Tone::Bad, format!("revoked at {at} ({reason})"), serials)
        }
        FeedChange::Hold { serials, at } => each(Tone::Warning, format!("held since {at}"), serials),
        FeedChange::Release { serials } => each(Tone::Good, "released".to_owned(), serials),
        FeedChange::Issuer { epoch, change } => one(format!("issuer {epoch} {}", text_of(change))),
        FeedChange::Bulk { count: Some(count) } => one(format!("{count} certificates changed at once")),
        FeedChange::Bulk { count: None } => one("what has changed by now cannot be told singly".to_owned()),
        FeedChange::Heartbeat => one("nothing has changed".to_owned()),
        FeedChange::End { reason } => one(format!("the server ends the feed: {}", text_of(reason))),
    }
}
