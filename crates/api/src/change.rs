//! Changes to many certificates: what they hit, who lets them run, and how far they have come.

use chancery_types::{RevocationReason, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::enroll::is_false;
use crate::{RelyingPartyView, Waves};

/// What a change hits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct BlastRadius {
    /// Certificates that change.
    pub certificates: u64,
    /// Certificates that were selected and stand so already.
    pub unchanged: u64,
    /// Identities that they name.
    pub identities: u64,
    /// Those with the most certificates; 100 at most, as in every list here.
    pub largest_identities: Vec<Part>,
    /// Owners.
    pub owners: Vec<Part>,
    /// Teams.
    pub teams: Vec<Part>,
    /// Environments, with how much of each is hit.
    pub environments: Vec<EnvironmentPart>,
    /// Nodes whose agents asked for the certificates.
    pub nodes: Vec<Part>,
    /// Why it needs a second operator's approval; absent when it needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_approval: Option<String>,
    /// The limits that decided about that.
    pub limits: ChangeLimits,
    /// Who will enforce it; absent where nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
}

/// A part of what is hit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// Whose; empty for those without.
    pub name: String,
    /// Certificates.
    pub certificates: u64,
}

/// The part of an environment that is hit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentPart {
    /// Its name; empty for the identities without one.
    pub name: String,
    /// Certificates that change.
    pub certificates: u64,
    /// Those among them that are held already, and so out of force.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held: u64,
    /// Certificates that the same operator has taken out of force within the window of the limits, or is about to.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recent: u64,
    /// Those among them that are about to be: they are in force still.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub beside: u64,
    /// Certificates of the environment that are in force. Counted only when so many change that it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<u64>,
    /// Whether there are more in force: the count was given up because so many are enough.
    #[serde(default, skip_serializing_if = "is_false")]
    pub and_more: bool,
}

impl EnvironmentPart {
    /// What is out of force afterwards by the same hand, of what was in force when the window began.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.certificates.saturating_sub(self.held).saturating_add(self.recent)
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// From where on a change needs approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeLimits {
    /// Percent of an environment's certificates in force.
    pub share: u8,
    /// Certificates of an environment that may always be changed.
    pub floor: u64,
    /// Seconds during which what an operator changes is added up; 0 when each change counts alone.
    #[serde(default)]
    pub window_seconds: u64,
}

impl Default for ChangeLimits {
    fn default() -> Self {
        Self { share: 25, floor: 20, window_seconds: 3600 }
    }
}

impl ChangeLimits {
    /// Whether this much of an environment needs approval: by what changes now, or together with what the same
    /// operator has taken out of force lately. What was not counted is as little as can be.
    #[must_use]
    pub fn are_passed_by(&self, part: &EnvironmentPart) -> bool {
        let in_force = part.in_force.unwrap_or(part.certificates.saturating_sub(part.held));
        let passes = |changes: u64, of: u64| {
            changes > self.floor && u128::from(changes) * 100 > u128::from(of) * u128::from(self.share)
        };
        // Held certificates are revoked too, and are not in force.
        let all = in_force.max(part.certificates);
        let before = in_force.saturating_add(part.recent.saturating_sub(part.beside));
        passes(part.certificates, all) || passes(part.taken(), before)
    }
}

/// Who enforces a change, as far as relying parties have registered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Enforcement {
    /// Relying parties that follow the feed: within seconds.
    pub at_once: u64,
    /// Relying parties that are silent and will keep peers out when what they know is too old.
    pub when_too_old: u64,
    /// Relying parties that are silent and let peers in when they do not know.
    pub not_at_all: u64,
    /// The silent ones; 100 at most.
    pub silent: Vec<RelyingPartyView>,
}

/// What is to be done to certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeAction {
    /// They are revoked, for good.
    Revoke,
    /// They are held.
    Hold,
}

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeStatus {
    /// It waits for approval.
    Pending,
    /// Nobody approved it in time.
    Expired,
    /// It runs.
    Running,
    /// It rests.
    Paused,
    /// What it held is being released.
    Undoing,
    /// It was given up; what it did by then stays.
    Withdrawn,
    /// It is done.
    Ended,
    /// What it held was released.
    Undone,
}

impl ChangeStatus {
    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Expired => "expired",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Undoing => "undoing",
            Self::Withdrawn => "withdrawn",
            Self::Ended => "ended",
            Self::Undone => "undone",
        }
    }

    /// Whether more will happen, by itself or when somebody says so.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Running | Self::Paused | Self::Undoing)
    }
}

impl std::fmt::Display for ChangeStatus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A change to many certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeView {
    /// Its number.
    pub change: u64,
    /// How far it has come.
    pub status: ChangeStatus,
    /// What is to be done.
    pub action: ChangeAction,
    /// Why certificates are revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<RevocationReason>,
    /// The selectors, all of which a certificate has to match.
    pub selectors: Vec<String>,
    /// Whether identities are held too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub block: bool,
    /// Its waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// Waves done.
    #[serde(default)]
    pub waves_done: u32,
    /// When the next wave begins by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub next_wave: Option<Timestamp>,
    /// Certificates that it has changed so far.
    pub changed: u64,
    /// What it would have hit when it was asked for.
    pub radius: BlastRadius,
    /// What it would hit now; only where it waits for approval and is asked about by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius_now: Option<BlastRadius>,
    /// Who asked for it.
    pub by: String,
    /// When.
    #[schema(value_type = String)]
    pub asked: Timestamp,
    /// Until when it can be approved.
    #[schema(value_type = String)]
    pub expires: Timestamp,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// What set it going: `begun` for a small one, `approved`, or `overridden`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permitted: Option<String>,
    /// Who did that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permitted_by: Option<String>,
    /// Who took the last step.
    pub stepped_by: String,
    /// When.
    #[schema(value_type = String)]
    pub stepped: Timestamp,
    /// The position of the log that is reached: whoever acknowledges it enforces what was done so far.
    pub sequence: u64,
}

/// Which changes to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChangeQuery {
    /// Those that are done, too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub all: bool,
}

/// Changes, the latest first; 100 at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangesResponse {
    /// Them.
    pub changes: Vec<ChangeView>,
}

/// Takes a step of a change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeStepRequest {
    /// For the log; at most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(certificates: u64, in_force: u64) -> EnvironmentPart {
        let in_force = Some(in_force);
        EnvironmentPart {
            name: "prod".into(),
            certificates,
            held: 0,
            recent: 0,
            beside: 0,
            in_force,
            and_more: false,
        }
    }

    #[test]
    fn a_limit_is_passed_by_a_large_share_of_more_than_a_few() {
        let limits = ChangeLimits { share: 25, floor: 20, window_seconds: 0 };
        for (certificates, in_force, passes) in [
            (20, 20, false),
            (21, 21, true),
            (21, 84, false),
            (22, 84, true),
            (250, 1000, false),
            (251, 1000, true),
            (u64::MAX, u64::MAX, true),
        ] {
            assert_eq!(
                limits.are_passed_by(&part(certificates, in_force)),
                passes,
                "{certificates}/{in_force}"
            );
        }
        let unknown = EnvironmentPart { in_force: None, ..part(21, 0) };
        assert!(limits.are_passed_by(&unknown), "what was not counted counts as everything");
    }

    #[test]
    fn what_the_same_hand_took_lately_counts_and_what_is_held_already_does_not_count_twice() {
        let limits = ChangeLimits { share: 25, floor: 20, window_seconds: 3600 };
        for (certificates, held, recent, in_force, passes) in [
            // Ten a time of a hundred: the third is too much.
            (10, 0, 10, 90, false),
            (10, 0, 20, 80, true),
            // Twenty were held, and are now revoked.
            (20, 20, 20, 80, false),
            (20, 0, 240, 760, true),
            (10, 0, 240, 760, false),
        ] {
            let part = EnvironmentPart { held, recent, ..part(certificates, in_force) };
            assert_eq!(limits.are_passed_by(&part), passes, "{part:?}");
        }
        // Five others of twenty are under way: they are in force, and make the whole no larger.
        let sixth = EnvironmentPart { recent: 5, beside: 5, ..part(1, 20) };
        assert!(ChangeLimits { floor: 2, ..limits }.are_passed_by(&sixth));
    }
}
