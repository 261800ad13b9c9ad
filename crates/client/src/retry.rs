//! What may be repeated, and when.

use std::time::Duration;

use chancery_api::ProblemCode;
use chancery_types::{Random, RandomError};

use crate::ClientError;

/// How persistent to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a request is sent at most; 1 means that it is never repeated.
    pub attempts: u32,
    /// The longest delay before the first repetition; it doubles with each one.
    pub first_delay: Duration,
    /// The longest delay before any repetition.
    pub max_delay: Duration,
    /// The longest wait that a server may ask for; asked for more, the problem is returned at once.
    pub max_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(10),
            max_retry_after: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// Sends everything once.
    #[must_use]
    pub fn never() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// How long to wait before the attempt after `attempt` (counted from 1); nothing to give up.
    ///
    /// Without advice from the server the delay is uniform between zero and a bound that doubles, so that
    /// clients that failed together do not come back together. With it, never earlier than advised.
    pub(crate) fn delay(
        &self,
        attempt: u32,
        error: &ClientError,
        random: &dyn Random,
    ) -> Result<Option<Duration>, RandomError> {
        if attempt >= self.attempts || !is_transient(error) {
            return Ok(None);
        }
        let jitter = self.jitter(attempt, random)?;
        let Some(advised) = retry_after(error) else { return Ok(Some(jitter)) };
        Ok((advised <= self.max_retry_after).then(|| advised + jitter))
    }

    /// How long to wait before the attempt after `attempt` when nobody gives up: the same, and what the server asks
    /// for at the most for as long as is allowed.
    pub(crate) fn pause(
        &self,
        attempt: u32,
        error: Option<&ClientError>,
        random: &dyn Random,
    ) -> Result<Duration, RandomError> {
        let advised = error.and_then(retry_after).unwrap_or_default();
        Ok(advised.min(self.max_retry_after) + self.jitter(attempt, random)?)
    }

    fn jitter(&self, attempt: u32, random: &dyn Random) -> Result<Duration, RandomError> {
        let bound = self
            .first_delay
            .saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX))
            .min(self.max_delay);
        Ok(bound.mul_f64(fraction(random)?))
    }
}

fn retry_after(error: &ClientError) -> Option<Duration> {
    match error {
        ClientError::Problem(problem) => problem.retry_after.map(Duration::from_secs),
        _ => None,
    }
}

/// Whether the same request may succeed later.
fn is_transient(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. } | ClientError::Timeout { .. } | ClientError::Broken { .. } => true,
        ClientError::Problem(problem) => match problem.known_code() {
            Some(
                ProblemCode::RateLimited
                | ProblemCode::Overloaded
                | ProblemCode::ShuttingDown
                | ProblemCode::NotReady
                | ProblemCode::LedgerUnavailable
                | ProblemCode::KeyUnavailable
                | ProblemCode::RequestTimeout
                | ProblemCode::IdempotencyInProgress,
            ) => true,
            Some(_) => false,
            // A newer server knows best.
            None => problem.retry_after.is_some(),
        },
        _ => false,
    }
}

/// Uniform in [0, 1).
fn fraction(random: &dyn Random) -> Result<f64, RandomError> {
    let mut bytes = [0_u8; 4];
    random.fill(&mut bytes)?;
    Ok(f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    use chancery_api::Problem;
    use chancery_types::FixedRandom;

    use super::*;

    fn problem(code: ProblemCode, retry_after: Option<u64>) -> ClientError {
        let mut problem = Problem::new(code, "");
        problem.retry_after = retry_after;
        ClientError::Problem(Box::new(problem))
    }

    #[test]
    fn delays_grow_to_a_bound_and_end() {
        let policy = RetryPolicy { attempts: 40, ..RetryPolicy::default() };
        let random = FixedRandom::dangerous_seeded(1);
        let error = problem(ProblemCode::Overloaded, None);
        for attempt in 1..40 {
            let delay = policy.delay(attempt, &error, &random).unwrap().unwrap();
            assert!(delay <= policy.max_delay, "attempt {attempt}: {delay:?}");
            assert!(attempt > 1 || delay <= policy.first_delay);
        }
        assert_eq!(policy.delay(40, &error, &random).unwrap(), None);
        assert_eq!(RetryPolicy::never().delay(1, &error, &random).unwrap(), None);
    }

    #[test]
    fn never_comes_back_earlier_than_told_and_gives_up_on_long_waits() {
        let policy = RetryPolicy::default();
        let random = FixedRandom::dangerous_seeded(1);
        let delay = policy.delay(1, &problem(ProblemCode::RateLimited, Some(7)), &random).unwrap();
        assert!(delay.unwrap() >= Duration::from_secs(7));
        assert_eq!(policy.delay(1, &problem(ProblemCode::RateLimited, Some(3600)), &random).unwrap(), None);
    }

    #[test]
    fn does_not_repeat_what_will_be_refused_again() {
        let policy = RetryPolicy::default();
        let random = FixedRandom::dangerous_seeded(1);
        for code in [ProblemCode::PolicyDenied, ProblemCode::TokenSpent, ProblemCode::Internal] {
            assert_eq!(policy.delay(1, &problem(code, None), &random).unwrap(), None, "{code}");
        }
        assert_eq!(policy.delay(1, &ClientError::TooLarge { limit: 1 }, &random).unwrap(), None);
    }
}
