use proptest::prelude::*;

use super::*;

mod simulation;

const HOUR: Duration = Duration::from_hours(1);

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000 + seconds)
}

fn held(seed: u64, life: Life) -> Held {
    Held { seed: Seed::new(seed), life: Some(life), window: None, asked: None, failed: None }
}

fn an_hour() -> Life {
    Life { from: moment(0), until: moment(3600) }
}

/// Nothing that the plan for one thing says is lost in what follows.
fn only_reason(held: Held, now: Timestamp) -> Reason {
    let plan = plan(&[held], now);
    assert_eq!(plan.batches.len(), 1, "{plan:?}");
    assert_eq!(plan.batches[0].members.len(), 1);
    assert_eq!(plan.next, None);
    plan.batches[0].members[0].reason
}

#[test]
fn what_is_missing_is_due_at_once() {
    let missing = Held { life: None, ..held(1, an_hour()) };
    assert_eq!(only_reason(missing, moment(0)), Reason::Missing);
}

#[test]
fn what_has_ended_is_due_at_once_even_if_the_authority_wants_it_later() {
    let window = Some(Window { from: moment(9000), until: moment(9001) });
    let ended = Held { window, ..held(1, an_hour()) };
    assert_eq!(only_reason(ended, moment(3600)), Reason::Ended);
    let never_lived = Life { from: moment(10), until: moment(5) };
    assert_eq!(only_reason(held(1, never_lived), moment(10)), Reason::Ended);
}

#[test]
fn window_of_the_authority_is_kept_while_it_is_safe() {
    let inside = Window { from: moment(600), until: moment(700) };
    for seed in 0..100 {
        let due = due(&Held { window: Some(inside), ..held(seed, an_hour()) }, moment(0));
        assert_eq!(due.reason, Reason::Window);
        assert!((inside.from..=inside.until).contains(&due.at), "{due:?}");
    }
    let late =
        Held { window: Some(Window { from: moment(3500), until: moment(9000) }), ..held(1, an_hour()) };
    assert_eq!(due(&late, moment(0)).at, latest(an_hour()));
    assert_eq!(due(&late, moment(0)).reason, Reason::Latest);
}

#[test]
fn window_in_the_past_does_not_renew_without_a_pause() {
    let past = Held { window: Some(Window { from: moment(-90), until: moment(-60) }), ..held(1, an_hour()) };
    assert_eq!(due(&past, moment(0)).at, moment(180));
}

#[test]
fn asked_for_early_it_comes_soon_and_never_later_than_without() {
    let asked = Held { asked: Some(Window { from: moment(60), until: moment(132) }), ..held(1, an_hour()) };
    let soon = due(&asked, moment(61));
    assert_eq!(soon.reason, Reason::Asked);
    assert!(soon.at >= moment(60) && soon.at <= moment(132), "{soon:?}");
    assert_eq!(soon.not_before, moment(60), "it may come earlier in company");
    let at_once = Held { asked: Some(Window { from: moment(60), until: moment(60) }), ..held(1, an_hour()) };
    assert_eq!(due(&at_once, moment(61)).at, moment(60));

    let asked_late =
        Held { asked: Some(Window { from: moment(3000), until: moment(3072) }), ..held(1, an_hour()) };
    assert_eq!(due(&asked_late, moment(3001)).reason, Reason::Regular);
}

#[test]
fn honours_retry_after_while_life_is_left_for_it() {
    let failed = Failed {
        attempts: 1,
        at: moment(1200),
        retry_after: Some(Duration::from_secs(120)),
        seed: Seed::new(1),
    };
    let next = next_attempt(failed, Some(an_hour()));
    assert!(next.at >= moment(1320) && next.not_before == moment(1320), "{next:?}");
    let without_end = next_attempt(failed, None);
    assert!(without_end.at >= moment(1320));
    // An hour would be the end of it: the wait is an eighth of what is left.
    let next = next_attempt(Failed { retry_after: Some(HOUR), ..failed }, Some(an_hour()));
    assert_eq!(next.at, moment(1500));
}

#[test]
fn no_company_before_the_authority_wants_to_hear_again() {
    let now = moment(1700);
    let told = Failed {
        attempts: 1,
        at: moment(1690),
        retry_after: Some(Duration::from_secs(30)),
        seed: Seed::new(1),
    };
    let waiting = Held { failed: Some(told), ..held(1, an_hour()) };
    let overdue = held(2, an_hour());
    let plan = plan(&[waiting, overdue], now);
    assert_eq!(plan.batches, [Batch { members: vec![Member { held: 1, reason: Reason::Regular }] }]);
    assert_eq!(plan.next.map(|wake| wake.held), Some(0));
}

#[test]
fn attempts_get_denser_as_the_end_nears_and_go_on_after_it() {
    let life = an_hour();
    let mut failed = Failed { attempts: 9, at: latest(life), retry_after: None, seed: Seed::new(5) };
    let mut last_hundred = Vec::new();
    while failed.at < life.until + HOUR {
        let next = next_attempt(failed, Some(life));
        let wait = next.at.since(failed.at);
        assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_mins(5));
        if failed.at < life.until {
            let left = life.until.since(failed.at);
            assert!(wait <= (left / 8).max(Duration::from_secs(1)), "{wait:?} of {left:?}");
            last_hundred.push(next.at);
        }
        failed = Failed { attempts: failed.attempts + 1, at: next.at, ..failed };
    }
    let in_the_last_minute = last_hundred.iter().filter(|at| **at >= moment(3540)).count();
    assert!(in_the_last_minute > 10, "{in_the_last_minute}");
}

#[test]
fn failure_that_lies_ahead_means_the_clock_was_set_back_and_is_tried_at_once() {
    let ahead = Failed { attempts: 3, at: moment(1_000_000), retry_after: None, seed: Seed::new(1) };
    let reason = only_reason(Held { failed: Some(ahead), ..held(1, an_hour()) }, moment(100));
    assert_eq!(reason, Reason::Retry { failed: 3 });
}

#[test]
fn most_urgent_come_first_and_no_request_is_too_large() {
    let lives = (0..250).map(|end| Life { from: moment(0), until: moment(1000 - end) });
    let all: Vec<Held> = lives.enumerate().map(|(seed, life)| held(seed as u64, life)).collect();
    let plan = plan(&all, moment(500));
    let sizes: Vec<usize> = plan.batches.iter().map(|batch| batch.members.len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(plan.batches[0].members[0].held, 249);
    assert_eq!(plan.batches[2].members[49].held, 0);
}

#[test]
fn seeds_of_names_differ() {
    assert_ne!(Seed::of(b"spiffe://example.org/a"), Seed::of(b"spiffe://example.org/b"));
    assert_ne!(Seed::of(b""), Seed::of(b"\0"));
}

fn lives() -> impl Strategy<Value = Life> {
    (0_i64..1_000_000, 1_i64..100 * 86_400_000).prop_map(|(from, length)| Life {
        from: moment(from),
        until: Timestamp::from_millis(moment(from).millis() + length),
    })
}

fn windows() -> impl Strategy<Value = Option<Window>> {
    proptest::option::of((-1_000_000_i64..3_000_000, -1000_i64..1_000_000)).prop_map(|window| {
        window.map(|(from, length)| Window { from: moment(from), until: moment(from + length) })
    })
}

fn anything() -> impl Strategy<Value = Held> {
    let asked = windows();
    let failed = proptest::option::of((
        1_u32..60,
        -1_000_000_i64..3_000_000,
        proptest::option::of(0_u64..100_000),
        any::<u64>(),
    ));
    (any::<u64>(), proptest::option::of(lives()), windows(), asked, failed).prop_map(
        |(seed, life, window, asked, failed)| Held {
            seed: Seed::new(seed),
            life,
            window,
            asked,
            failed: failed.map(|(attempts, at, retry_after, seed)| Failed {
                attempts,
                at: moment(at),
                retry_after: retry_after.map(Duration::from_secs),
                seed: Seed::new(seed),
            }),
        },
    )
}

proptest! {
    #[test]
    fn first_attempt_is_never_later_than_what_leaves_time_and_always_before_the_end(
        seed: u64, life in lives(), window in windows(), asked in windows(),
    ) {
        let held = Held { window, asked, ..held(seed, life) };
        let due = due(&held, life.from);
        prop_assert!(due.at <= latest(life).max(life.from));
        prop_assert!(due.at < life.until);
        prop_assert!(due.at >= due.not_before || due.reason == Reason::Asked);
        prop_assert_eq!(regular(life, held.seed), regular(life, held.seed));
    }

    #[test]
    fn next_attempt_comes_before_the_end(seed: u64, attempts in 1_u32..100, life in lives(), part in 0.0..0.9, retry_after in proptest::option::of(0_u64..1_000_000)) {
        let at = life.from + life.length().mul_f64(part);
        let retry_after = retry_after.map(Duration::from_secs);
        let next = next_attempt(Failed { attempts, at, retry_after, seed: Seed::new(seed) }, Some(life));
        prop_assert!(next.at > at && next.not_before <= next.at);
        let left = life.until.since(at);
        prop_assert!(next.at.since(at) <= (left / 8).max(Duration::from_millis(50)).max(life.length() / 1000));
    }

    #[test]
    fn setting_the_clock_back_makes_nothing_due(all in proptest::collection::vec(anything(), 1..40), now in -1_000_000_i64..3_000_000, back in 1_i64..1_000_000) {
        let due_at = |now: Timestamp| -> Vec<usize> {
            all.iter().enumerate()
                .filter(|(_, held)| held.failed.is_none_or(|failed| failed.at <= moment(-1_000_000)))
                .filter(|(_, held)| due(held, now).at <= now)
                .map(|(index, _)| index).collect()
        };
        let later = due_at(moment(now));
        for index in due_at(moment(now - back)) {
            prop_assert!(later.contains(&index));
        }
    }

    #[test]
    fn plan_takes_all_that_is_due_once_and_wakes_later(all in proptest::collection::vec(anything(), 0..400), now in -1_000_000_i64..3_000_000) {
        let now = moment(now);
        let plan = plan(&all, now);
        let mut seen = std::collections::BTreeSet::new();
        for batch in &plan.batches {
            prop_assert!((1..=BATCH).contains(&batch.members.len()));
            for member in &batch.members {
                prop_assert!(seen.insert(member.held));
                let company = matches!(member.reason, Reason::Company { .. });
                prop_assert!(company || due(&all[member.held], now).at <= now);
            }
        }
        for (index, held) in all.iter().enumerate() {
            prop_assert!(seen.contains(&index) || due(held, now).at > now);
        }
        prop_assert!(plan.batches.len() <= seen.len().div_ceil(BATCH));
        prop_assert_eq!(plan.next.is_none(), seen.len() == all.len());
        prop_assert!(plan.next.is_none_or(|wake| wake.at > now && !seen.contains(&wake.held)));
    }
}
