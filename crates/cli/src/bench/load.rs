//! Load on something, and how long each request took.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// What their answers counted: certificates, or answers.
    pub(crate) units: u64,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// Of each request, sorted.
    latencies: Vec<Duration>,
}

impl Load {
    /// Units a second.
    pub(crate) fn rate(&self) -> f64 {
        self.units as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The latency that this share of the requests did not exceed, milliseconds.
    pub(crate) fn percentile_ms(&self, share: f64) -> f64 {
        percentile_ms(&self.latencies, share)
    }

    /// Microseconds of this time for each unit.
    pub(crate) fn each_us(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / (self.units.max(1) as f64)
    }
}

/// The value that this share of sorted values does not exceed.
fn percentile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let last = sorted.len().checked_sub(1)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and last")]
    let place = (last as f64 * share.clamp(0.0, 1.0)).ceil() as usize;
    sorted.get(place.min(last)).copied()
}

/// The same in milliseconds; zero when there are no values.
pub(crate) fn percentile_ms(sorted: &[Duration], share: f64) -> f64 {
    percentile(sorted, share).unwrap_or_default().as_secs_f64() * 1e3
}

/// Has `workers` take items one after the other until none is left or the time is over. `act` gets the worker's own
/// state back and forth, and says how many units an item was worth.
pub(crate) async fn drive<S, T, F, A>(workers: Vec<S>, items: Vec<T>, limit: Duration, act: F) -> Result<Load>
where
    S: Send + 'static,
    T: Send + 'static,
    F: Fn(S, T) -> A + Clone + Send + 'static,
    A: Future<Output = Result<(S, u64)>> + Send,
{
    let queue = Arc::new(Mutex::new(items.into_iter()));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut state in workers {
        let (queue, act) = (Arc::clone(&queue), act.clone());
        tasks.spawn(async move {
            let (mut units, mut latencies) = (0, Vec::new());
            while began.elapsed() < limit {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(item) = next else { break };
                let sent = Instant::now();
                let (again, worth) = act(state, item).await?;
                latencies.push(sent.elapsed());
                state = again;
                units += worth;
            }
            anyhow::Ok((units, latencies))
        });
    }
    let mut load = Load::default();
    while let Some(worker) = tasks.join_next().await {
        let (units, latencies) = worker??;
        load.units += units;
        load.latencies.extend(latencies);
    }
    load.elapsed = began.elapsed();
    load.requests = load.latencies.len() as u64;
    load.latencies.sort_unstable();
    Ok(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 0.5), Some(Duration::from_millis(51)));
        assert_eq!(percentile(&sorted, 1.0), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[tokio::test]
    async fn every_item_is_taken_once_and_a_failure_ends_it() {
        let load =
            drive(vec![(), ()], (0..10_u64).collect(), Duration::from_secs(9), |(), item| async move {
                Ok(((), item))
            });
        let load = load.await.unwrap();
        assert_eq!((load.requests, load.units), (10, 45));
        let failed = drive(vec![()], vec![1], Duration::from_secs(9), |(), _| async { anyhow::bail!("no") });
        assert_eq!(failed.await.unwrap_err().to_string(), "no");
    }

    #[tokio::test]
    async fn time_ends_it_too() {
        let load = drive(vec![()], vec![1; 100], Duration::ZERO, |(), _: i32| async { Ok(((), 1)) });
        assert_eq!(load.await.unwrap().requests, 0);
    }
}
