//! Changes to many certificates: that none ran without the approval that it needed, and that nothing large was done
//! outside of one.

use std::collections::HashMap;
use std::time::Duration;

use chancery_api::BlastRadius;
use chancery_entry::{ChangeProposal, ChangeStep, Step};
use chancery_types::Timestamp;

use super::finding::{Check, Finding};

/// Changes so far, and who did how much outside of them.
#[derive(Default)]
pub(crate) struct Changes {
    by_number: HashMap<u64, Change>,
    crowds: HashMap<String, Crowd>,
}

struct Change {
    by: String,
    expires: Timestamp,
    needs_approval: bool,
    permitted: bool,
    runs: bool,
    /// Certificates that it may touch: those asked for, and a tenth more for what was issued meanwhile.
    allowed: u64,
    touched: u64,
}

/// What somebody did by hand within a while.
struct Crowd {
    since: Timestamp,
    count: u64,
}

impl Changes {
    pub(crate) fn propose(
        &mut self,
        index: u64,
        proposal: &ChangeProposal,
        report: &mut impl FnMut(Finding),
    ) {
        let radius = match serde_json::from_str::<BlastRadius>(&proposal.radius.0) {
            Ok(radius) => radius,
            Err(error) => {
                report(Finding::new(Check::ChangeRecord, format!("what it would touch: {error}")));
                BlastRadius::default()
            }
        };
        let is_large = radius.environments.iter().any(|part| radius.limits.are_passed_by(part));
        let change = Change {
            by: proposal.by.clone(),
            expires: proposal.expires,
            needs_approval: is_large || radius.needs_approval.is_some(),
            permitted: false,
            runs: false,
            allowed: radius.certificates + radius.certificates.div_ceil(10),
            touched: 0,
        };
        self.by_number.insert(index, change);
    }

    pub(crate) fn step(&mut self, time: Timestamp, step: &ChangeStep, report: &mut impl FnMut(Finding)) {
        let number = step.change;
        let mut report =
            |check, detail: String| report(Finding::new(check, format!("change {number} {detail}")));
        let Some(change) = self.by_number.get_mut(&number) else {
            report(Check::ChangeRecord, "goes on and was never asked for".to_owned());
            return;
        };
        match step.step {
            Step::Begun if change.needs_approval => {
                report(Check::ChangeUnapproved, "was begun without the approval that it needed".to_owned());
            }
            Step::Approved if is_same(&change.by, &step.by) => {
                let by = &step.by;
                report(Check::ChangeUnapproved, format!("was approved by {by}, who is who asked for it"));
            }
            Step::Approved if time > change.expires => {
                report(Check::ChangeUnapproved, format!("was approved after {}", change.expires));
            }
            Step::Overridden => {
                report(Check::ChangeOverridden, format!("ran without approval, by the word of {}", step.by));
            }
            _ => {}
        }
        match step.step {
            Step::Begun | Step::Approved | Step::Overridden => {
                change.permitted = true;
                change.runs = true;
            }
            Step::Resumed => change.runs = change.permitted,
            Step::Paused | Step::Withdrawn | Step::Undone | Step::Ended => change.runs = false,
            Step::Wave => {}
        }
    }

    /// A certificate or lineage was revoked or held.
    pub(crate) fn touch(&mut self, time: Timestamp, by: &str, report: &mut impl FnMut(Finding)) {
        if by == AUTHORITY || by.starts_with(KEY_HOLDER) {
            return;
        }
        if let Some(number) = by.strip_prefix(CHANGE) {
            self.touch_by_change(number, report);
            return;
        }
        let crowd = self.crowds.entry(by.to_owned()).or_insert(Crowd { since: time, count: 0 });
        if time > crowd.since + WHILE {
            *crowd = Crowd { since: time, count: 0 };
        }
        crowd.count += 1;
        if crowd.count == MANY + 1 {
            let detail =
                format!("{by} has revoked or held more than {MANY} within a minute outside of any change");
            report(Finding::new(Check::ChangeOutside, detail));
        }
    }

    fn touch_by_change(&mut self, number: &str, report: &mut impl FnMut(Finding)) {
        let change = number.parse().ok().and_then(|number: u64| self.by_number.get_mut(&number));
        let Some(change) = change.filter(|change| change.runs) else {
            let detail = format!("done in the name of change {number}, which does not run");
            report(Finding::new(Check::ChangeUnapproved, detail));
            return;
        };
        change.touched += 1;
        if change.touched == change.allowed + 1 {
            let detail = format!("change {number} goes beyond what was asked for by more than a tenth");
            report(Finding::new(Check::ChangeUnapproved, detail));
        }
    }
}

/// All users of the administration socket are one.
fn is_same(one: &str, other: &str) -> bool {
    one == other || (one.starts_with(LOCAL) && other.starts_with(LOCAL))
}

/// How changes, the authority itself, holders of leaked keys and local administrators sign.
const CHANGE: &str = "change:";
const AUTHORITY: &str = "chancery";
const KEY_HOLDER: &str = "key-holder:";
const LOCAL: &str = "uid:";
/// More than this many within [`WHILE`] is a large change, whatever the configured share was.
const MANY: u64 = 1000;
const WHILE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use chancery_api::EnvironmentPart;
    use chancery_entry::Document;

    use super::*;

    fn asked() -> Timestamp {
        Timestamp::from_seconds(1000)
    }

    fn proposal(certificates: u64) -> ChangeProposal {
        let part = EnvironmentPart {
            name: "prod".into(),
            certificates,
            held: 0,
            recent: 0,
            beside: 0,
            in_force: Some(certificates),
            and_more: false,
        };
        let radius = BlastRadius { certificates, environments: vec![part], ..BlastRadius::default() };
        ChangeProposal {
            request: Document("{}".into()),
            radius: Document(serde_json::to_string(&radius).unwrap()),
            expires: asked() + Duration::from_secs(60),
            by: "spiffe://e/ada".into(),
            note: String::new(),
        }
    }

    /// What is found when these steps, by these people, follow a proposal; then so many certificates are touched.
    fn found(certificates: u64, steps: &[(Step, &str, u64)], touched: u64) -> Vec<Check> {
        let (mut changes, mut checks) = (Changes::default(), Vec::new());
        let mut report = |finding: Finding| checks.push(finding.check);
        changes.propose(7, &proposal(certificates), &mut report);
        for (step, by, after) in steps {
            let time = asked() + Duration::from_secs(*after);
            let (details, note) = (Document("{}".into()), String::new());
            let step = ChangeStep { change: 7, step: *step, by: (*by).into(), details, note };
            changes.step(time, &step, &mut report);
        }
        for _ in 0..touched {
            changes.touch(asked(), "change:7", &mut report);
        }
        checks
    }

    #[test]
    fn a_large_change_needs_another_operator_in_time_and_touches_no_more_than_was_asked_for() {
        let (ada, bob) = ("spiffe://e/ada", "spiffe://e/bob");
        assert_eq!(found(100, &[(Step::Approved, bob, 1)], 100), []);
        assert_eq!(found(10, &[(Step::Begun, ada, 0)], 10), []);
        assert_eq!(found(100, &[(Step::Begun, ada, 0)], 100), [Check::ChangeUnapproved]);
        assert_eq!(found(100, &[(Step::Approved, ada, 1)], 100), [Check::ChangeUnapproved]);
        assert_eq!(found(100, &[(Step::Approved, bob, 61)], 100), [Check::ChangeUnapproved]);
        assert_eq!(found(100, &[(Step::Overridden, "uid:0", 1)], 100), [Check::ChangeOverridden]);
        assert_eq!(found(100, &[(Step::Approved, bob, 1)], 111), [Check::ChangeUnapproved]);
        assert_eq!(found(100, &[], 1), [Check::ChangeUnapproved]);
        let ended = [(Step::Approved, bob, 1), (Step::Ended, "change:7", 2)];
        assert_eq!(found(100, &ended, 1), [Check::ChangeUnapproved]);
    }

    #[test]
    fn many_by_one_hand_outside_of_a_change_are_noticed_once() {
        let (mut changes, mut checks) = (Changes::default(), Vec::new());
        let mut report = |finding: Finding| checks.push(finding.check);
        for number in 0..3 * MANY {
            changes.touch(asked(), "spiffe://e/ada", &mut report);
            changes.touch(asked(), AUTHORITY, &mut report);
            changes.touch(asked() + Duration::from_secs(number), "spiffe://e/bob", &mut report);
        }
        assert_eq!(checks, [Check::ChangeOutside]);
    }
}
