//! `[rotation]`: how the authority's own issuers and keys follow each other.

use std::time::Duration;

use chancery_rotate::authority::Rules;
use chancery_types::HumanDuration;
use serde::{Deserialize, Serialize};

/// The shortest time between two fetches of the bundle that others are asked for.
const LEAST_HINT: Duration = Duration::from_secs(1);

/// The file's words.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRotation {
    /// Whether issuers and keys follow each other by themselves.
    pub enabled: bool,
    /// How often relying parties are asked to fetch the bundle.
    pub refresh_hint: HumanDuration,
    /// What is added to four times that before something new is used.
    pub margin: HumanDuration,
    /// How long the clock has to go evenly before it decides.
    pub settle: HumanDuration,
    /// How long a key of JWT-SVIDs signs.
    pub jwt_period: HumanDuration,
    /// How long a key of the log signs; `0s`: until somebody asks for another.
    pub log_period: HumanDuration,
    /// How long it goes on signing beside the next one.
    pub log_overlap: HumanDuration,
    /// How long the certificates of a tainted issuer are left alone after agents had time to replace them.
    pub grace: HumanDuration,
}

impl Default for RawRotation {
    fn default() -> Self {
        let rules = Rules::default();
        Self {
            enabled: true,
            refresh_hint: HumanDuration(rules.refresh_hint),
            margin: HumanDuration(rules.margin),
            settle: HumanDuration(rules.settle),
            jwt_period: HumanDuration(rules.jwt_period.unwrap_or_default()),
            log_period: HumanDuration(rules.log_period.unwrap_or_default()),
            log_overlap: HumanDuration(rules.log_overlap),
            grace: HumanDuration(rules.grace),
        }
    }
}

/// How the authority rotates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationConfig {
    /// Whether it does so by itself.
    pub enabled: bool,
    /// By which rules.
    pub rules: Rules,
}

impl RotationConfig {
    /// Checks the file's words.
    pub(super) fn check(raw: &RawRotation, mistakes: &mut Vec<String>) -> Self {
        if raw.refresh_hint.0 < LEAST_HINT {
            mistakes.push(format!("rotation.refresh_hint: {} is less than 1s", raw.refresh_hint));
        }
        let rules = Rules {
            refresh_hint: raw.refresh_hint.0,
            margin: raw.margin.0,
            settle: raw.settle.0,
            jwt_period: Some(raw.jwt_period.0),
            log_period: Some(raw.log_period.0).filter(|period| !period.is_zero()),
            log_overlap: raw.log_overlap.0,
            grace: raw.grace.0,
            ..Rules::default()
        };
        if raw.jwt_period.0 < rules.notice() * 4 {
            let notice = HumanDuration(rules.notice());
            mistakes.push(format!(
                "rotation.jwt_period: {} is too short; a key is published for {notice} before it signs, and the \
                 period is four times that at least",
                raw.jwt_period
            ));
        }
        if rules.log_period.is_some_and(|period| period < rules.notice() * 4) {
            let notice = HumanDuration(rules.notice());
            mistakes.push(format!(
                "rotation.log_period: {} is too short; a key is published for {notice} before it signs, and the period \
                 is four times that at least, or 0s for no other one until somebody asks",
                raw.log_period
            ));
        }
        Self { enabled: raw.enabled, rules }
    }
}
