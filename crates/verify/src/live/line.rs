//! The status feed, over whatever way to the authority is the newest.

use chancery_api::{FeedEvent, FeedQuery};
use chancery_client::{ClientError, StatusFeed};

use super::authority::Authority;

/// The feed as one endless line. It connects by itself, and again, later each time, when it was cut off.
pub(crate) struct Line {
    authority: Authority,
    instance: String,
    feed: Option<(u64, StatusFeed)>,
    is_open: bool,
}

impl Line {
    pub(crate) fn new(authority: Authority, instance: String) -> Self {
        Self { authority, instance, feed: None, is_open: false }
    }

    /// The next event, or why there is none now; may be dropped while it waits, and nothing is lost. A line that has to
    /// be opened goes on after this position.
    pub(crate) async fn next(&mut self, position: u64) -> Result<FeedEvent, ClientError> {
        let (generation, client) = self.authority.client()?;
        let feed = match &mut self.feed {
            Some((of, feed)) if *of == generation => feed,
            // Other roots: what verified the old connection is not believed any more.
            feed => {
                let query =
                    FeedQuery { after: Some(position), wait: None, instance: Some(self.instance.clone()) };
                &mut feed.insert((generation, client.status_feed(query))).1
            }
        };
        feed.stand_at(position);
        let next = feed.next().await;
        self.is_open = next.is_ok();
        next
    }

    /// Whether the last thing that came was an event.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }
}
