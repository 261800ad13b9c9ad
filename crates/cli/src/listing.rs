//! Long lists, a page at a time, until there are enough.

use anyhow::Result;
use chancery_api::{Page, limits};
use clap::Args;

use crate::terminal::Terminal;

/// How much of a list to print.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Extent {
    /// How many to list.
    #[arg(long, value_name = "N", default_value_t = limits::PAGE_DEFAULT, conflicts_with = "all")]
    limit: usize,
    /// List all of them.
    #[arg(long)]
    all: bool,
}

impl Extent {
    /// Fetches pages until there are enough. `fetch` is given the size of a page and where it begins.
    pub(crate) async fn fetch<T, F, Fut>(self, terminal: &Terminal, mut fetch: F) -> Result<Vec<T>>
    where
        F: FnMut(Option<usize>, Option<String>) -> Fut,
        Fut: Future<Output = Result<Page<T>, chancery_client::ClientError>>,
    {
        let wanted = if self.all { usize::MAX } else { self.limit };
        let mut items: Vec<T> = Vec::new();
        let mut cursor = None;
        while items.len() < wanted {
            let size = (wanted - items.len()).min(limits::PAGE_MAXIMUM);
            let page = fetch(Some(size), cursor.take()).await?;
            items.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        items.truncate(wanted);
        if cursor.is_some() {
            terminal.note(format_args!("there are more than {wanted}; --all lists every one"));
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Globals;

    async fn fetch(extent: Extent, total: usize) -> (usize, usize) {
        let terminal = Terminal::new(&Globals { quiet: true, ..Globals::default() });
        let mut calls = 0;
        let items = extent
            .fetch(&terminal, |size, cursor| {
                calls += 1;
                let start: usize = cursor.map_or(0, |text| text.parse().unwrap());
                let end = (start + size.unwrap()).min(total);
                let next = (end < total).then(|| end.to_string());
                std::future::ready(Ok(Page { items: (start..end).collect(), next }))
            })
            .await
            .unwrap();
        assert!(items.iter().enumerate().all(|(at, item)| at == *item));
        (items.len(), calls)
    }

    #[tokio::test]
    async fn stops_at_the_limit_or_goes_to_the_end() {
        assert_eq!(fetch(Extent { limit: 100, all: false }, 2500).await, (100, 1));
        assert_eq!(fetch(Extent { limit: 1500, all: false }, 2500).await, (1500, 2));
        assert_eq!(fetch(Extent { limit: 100, all: true }, 2500).await, (2500, 3));
        assert_eq!(fetch(Extent { limit: 100, all: true }, 0).await, (0, 1));
    }
}
