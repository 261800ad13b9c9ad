//! Whether the server lives and whether it can work, as asked by load balancers and people.

use std::fmt;
use std::sync::RwLock;

use chancery_api::{HealthCheck, HealthResponse, HealthState, ProblemCode};

use crate::HttpProblem;

type Check = Box<dyn Fn() -> HealthCheck + Send + Sync>;

/// The checks that readiness depends on. Each must answer at once, from memory.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<Check>>,
}

impl Health {
    /// No checks: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check.
    pub fn register(&self, check: impl Fn() -> HealthCheck + Send + Sync + 'static) {
        self.checks.write().expect("no check panics while it is added").push(Box::new(check));
    }

    /// The server answers, so it lives.
    #[must_use]
    pub fn alive(&self) -> HealthResponse {
        HealthResponse { state: HealthState::Ok, version: version(), checks: Vec::new() }
    }

    /// The result of every check.
    ///
    /// # Errors
    /// `not-ready` with what has failed.
    pub fn ready(&self) -> Result<HealthResponse, HttpProblem> {
        let checks: Vec<HealthCheck> = self
            .checks
            .read()
            .expect("no check panics while it is added")
            .iter()
            .map(|check| check())
            .collect();
        let state = checks.iter().map(|check| check.state).max().unwrap_or(HealthState::Ok);
        if state < HealthState::Failed {
            return Ok(HealthResponse { state, version: version(), checks });
        }
        let failed = checks.into_iter().filter(|check| check.state == HealthState::Failed);
        Err(failed.fold(
            HttpProblem::new(ProblemCode::NotReady, "the server cannot work").retry_after(RETRY_SECONDS),
            |problem, check| problem.field(check.name, check.detail),
        ))
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Health")
    }
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

const RETRY_SECONDS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, state: HealthState, detail: &str) -> HealthCheck {
        HealthCheck { name: name.into(), state, detail: detail.into() }
    }

    #[test]
    fn is_as_well_as_its_worst_check() {
        let health = Health::new();
        assert_eq!(health.ready().unwrap().state, HealthState::Ok);
        health.register(|| check("ledger", HealthState::Ok, ""));
        health.register(|| check("issuer", HealthState::Degraded, "expires in 3 days; prepare the next one"));
        assert_eq!(health.ready().unwrap().state, HealthState::Degraded);
        health.register(|| check("disk", HealthState::Failed, "no space left"));
        let problem = health.ready().unwrap_err();
        assert_eq!(problem.code(), ProblemCode::NotReady);
        let document = problem.into_problem();
        assert_eq!(document.errors.len(), 1);
        assert_eq!(document.errors[0].pointer, "disk");
        assert_eq!(health.alive().state, HealthState::Ok);
    }
}
