//! When to look: at every change that the status feed tells of, and from time to time anyhow.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::CrlSync;

/// Looks for ever.
pub(super) async fn run(sync: &mut CrlSync, looked: impl FnOnce()) {
    let mut looked = Some(looked);
    let mut failed = 0;
    loop {
        let began = Instant::now();
        let pause = match sync.once().await {
            Ok(report) => {
                failed = 0;
                for output in report.outputs.iter().filter(|output| output.changed) {
                    tracing::info!(output = output.name, told = output.told, "new lists are in place");
                }
                sync.config.poll
            }
            Err(error) => {
                failed += 1;
                let end = sync.first_end();
                tracing::error!(%error, attempts = failed, in_place_until = ?end, "the lists are not up to date");
                retry(failed).min(sync.config.poll)
            }
        };
        if let Some(looked) = looked.take() {
            looked();
        }
        sleep_until(began + pause).await;
    }
}

/// One second, two, four, ... half a minute.
fn retry(failed: u32) -> Duration {
    Duration::from_secs(1 << failed.saturating_sub(1).min(5)).min(Duration::from_secs(30))
}
