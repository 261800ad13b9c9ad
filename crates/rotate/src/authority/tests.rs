use std::time::Duration;

use chancery_types::{Digest, IssuerEpoch, Timestamp};

use super::*;

mod simulation;

const DAY: Duration = Duration::from_hours(24);

fn day(number: u32) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000) + DAY * number
}

fn seen(at: Timestamp) -> Since {
    Since { at, seen_for: DAY * 1000 }
}

fn unseen(at: Timestamp) -> Since {
    Since { at, seen_for: Duration::ZERO }
}

fn root_id(number: u8) -> Digest {
    Digest::of(&[number])
}

fn issuer(epoch: u16, from: u32, phase: Phase) -> Issuer {
    let life = Life { from: day(from), until: day(from + 90) };
    Issuer { epoch: IssuerEpoch(epoch), root: root_id(1), life, phase, taint: None }
}

fn root(number: u8, from: u32, phase: Phase) -> Root {
    Root { id: root_id(number), life: Life { from: day(from), until: day(from + 5000) }, phase }
}

fn key(number: u8, phase: Phase) -> Key {
    Key { id: Digest::of(&[b'k', number]), phase }
}

/// Issuer 1 signs since the first day; issuer 2 is a spare that is valid from the first day on, and 3 from day 30.
fn state() -> State {
    State {
        issuers: vec![
            issuer(1, 0, Phase::Active(unseen(day(0)))),
            issuer(2, 0, Phase::Spare),
            issuer(3, 30, Phase::Spare),
        ],
        roots: vec![root(1, 0, Phase::Active(seen(day(0))))],
        jwt_keys: vec![key(1, Phase::Active(unseen(day(0))))],
        log_keys: vec![key(9, Phase::Active(unseen(day(0))))],
        steady_for: DAY,
        ..State::default()
    }
}

fn rules() -> Rules {
    Rules::default()
}

/// What is planned for issuers.
fn issuers_due(state: &State, now: Timestamp) -> Vec<What> {
    let plan = plan(state, &rules(), now).into_iter().map(|change| change.what);
    plan.filter(|what| what.kind() == "issuer").collect()
}

#[test]
fn each_third_of_a_life_another_issuer_signs_and_is_published_before() {
    let changes = timeline(&state(), &rules(), day(0), day(100), 100);
    let issuers: Vec<(String, u32)> = changes
        .iter()
        .filter(|change| change.what.kind() == "issuer")
        .map(|change| {
            (change.what.to_string(), u32::try_from(change.due.since(day(0)).as_secs() / 86400).unwrap())
        })
        .collect();
    let expected = [
        ("publish issuer 2", 22),
        ("issuer 2 signs in place of issuer 1", 30),
        ("make a key and a request for the next issuer", 37),
        ("publish issuer 3", 52),
        ("issuer 3 signs in place of issuer 2", 60),
        ("sign the request of issuer 4 with the root", 67),
        ("stop publishing for issuer 1", 91),
        ("stop publishing for issuer 2", 91),
    ];
    let expected: Vec<(String, u32)> = expected.map(|(what, day)| (what.to_owned(), day)).into();
    // Requests are made once no spare is left for the step after the next.
    let without_requests = |list: &[(String, u32)]| -> Vec<(String, u32)> {
        list.iter().filter(|(what, _)| !what.contains("request")).cloned().collect()
    };
    assert_eq!(without_requests(&issuers), without_requests(&expected), "{issuers:?}");
    let requests: Vec<_> = issuers.iter().filter(|(what, _)| what.contains("request")).collect();
    assert_eq!(requests.len(), 2, "one request, one signature asked for: {issuers:?}");
}

#[test]
fn nothing_is_activated_before_everybody_had_time_to_fetch_it() {
    let mut state = state();
    state.wishes.insert(Subject::Issuer, Wish::Now { by: "ada".into(), at: day(1) });
    assert_eq!(issuers_due(&state, day(1)), [What::PublishIssuer(IssuerEpoch(2))]);
    state.issuers[1].phase = Phase::Published(unseen(day(1)));
    assert_eq!(issuers_due(&state, day(1) + DAY), [], "the log says a day, but nobody has seen it");
    let activate = What::ActivateIssuer { epoch: IssuerEpoch(2), supersedes: IssuerEpoch(1) };
    let refused = admit(&state, &rules(), &activate, day(2));
    assert!(matches!(refused, Err(Violation::TooEarly { .. })), "{refused:?}");
    state.issuers[1].phase = Phase::Published(seen(day(1)));
    assert_eq!(issuers_due(&state, day(1) + DAY), std::slice::from_ref(&activate));
    assert_eq!(admit(&state, &rules(), &activate, day(2)), Ok(()));
}

#[test]
fn a_clock_that_was_just_set_activates_and_withdraws_nothing() {
    let mut state = state();
    state.issuers[1].phase = Phase::Published(seen(day(1)));
    state.issuers.push(issuer(9, 0, Phase::Superseded(seen(day(1)))));
    state.steady_for = Duration::from_mins(10);
    let activate = What::ActivateIssuer { epoch: IssuerEpoch(2), supersedes: IssuerEpoch(1) };
    for what in [activate, What::WithdrawIssuer(IssuerEpoch(9))] {
        let refused = admit(&state, &rules(), &what, day(80));
        assert!(matches!(refused, Err(Violation::Unsettled(_))), "{what}: {refused:?}");
    }
    assert!(!issuers_due(&state, day(95)).iter().any(|what| matches!(what, What::WithdrawIssuer(_))));
}

#[test]
fn nothing_is_withdrawn_while_something_under_it_lives() {
    let mut state = state();
    state.issuers[0].phase = Phase::Superseded(seen(day(30)));
    state.issuers[1].phase = Phase::Active(seen(day(30)));
    let withdraw = What::WithdrawIssuer(IssuerEpoch(1));
    for (at, expected) in [(89, true), (90, true), (91, false), (300, false)] {
        assert_eq!(admit(&state, &rules(), &withdraw, day(at)).is_err(), expected, "day {at}");
        assert_eq!(issuers_due(&state, day(at)).contains(&withdraw), !expected, "day {at}");
    }
    let root = What::WithdrawRoot(root_id(1));
    assert!(matches!(admit(&state, &rules(), &root, day(10)), Err(Violation::StillNeeded { .. })));
}

#[test]
fn what_a_tainted_issuer_signed_is_replaced_before_it_is_revoked() {
    let mut state = state();
    state.issuers[0].taint = Some(Taint { at: day(1), step: TaintStep::Marked });
    assert_eq!(issuers_due(&state, day(1)), [What::PublishIssuer(IssuerEpoch(2))]);
    state.apply(&What::PublishIssuer(IssuerEpoch(2)), &rules(), day(1));
    state.pass(rules().notice());
    let at = day(1) + rules().notice();
    let activate = What::ActivateIssuer { epoch: IssuerEpoch(2), supersedes: IssuerEpoch(1) };
    assert_eq!(issuers_due(&state, at), std::slice::from_ref(&activate));
    state.apply(&activate, &rules(), at);
    assert_eq!(issuers_due(&state, at), [What::AskRenewals(IssuerEpoch(1))]);
    state.apply(&What::AskRenewals(IssuerEpoch(1)), &rules(), at);
    let distrust = What::Distrust(IssuerEpoch(1));
    assert_eq!(issuers_due(&state, at + rules().grace), []);
    assert!(admit(&state, &rules(), &distrust, at).is_err());
    assert_eq!(issuers_due(&state, at + rules().wave + rules().grace), std::slice::from_ref(&distrust));
    state.apply(&distrust, &rules(), at + DAY * 2);
    assert_eq!(issuers_due(&state, day(60)), [What::PublishIssuer(IssuerEpoch(3))]);
}

#[test]
fn a_tainted_issuer_that_never_signed_is_gone_at_once_and_never_comes_back() {
    let mut state = state();
    state.issuers[1].phase = Phase::Published(unseen(day(1)));
    state.issuers[1].taint = Some(Taint { at: day(1), step: TaintStep::Marked });
    assert_eq!(issuers_due(&state, day(1)), [What::WithdrawIssuer(IssuerEpoch(2))]);
    state.apply(&What::WithdrawIssuer(IssuerEpoch(2)), &rules(), day(1));
    assert_eq!(issuers_due(&state, day(30)), [What::PublishIssuer(IssuerEpoch(3))]);
}

#[test]
fn of_spares_that_are_all_short_the_one_that_ends_last_takes_over() {
    let mut state = state();
    state.issuers.extend([issuer(4, 10, Phase::Spare), issuer(5, 5, Phase::Spare)]);
    state.issuers.retain(|issuer| issuer.epoch != IssuerEpoch(3));
    state.issuers[0].taint = Some(Taint { at: day(70), step: TaintStep::Marked });
    assert_eq!(issuers_due(&state, day(70)), [What::PublishIssuer(IssuerEpoch(4))]);
}

#[test]
fn every_phase_can_be_rolled_back() {
    let mut state = state();
    let rolled = |state: &State| rollback(state, Subject::Issuer, day(31));
    assert_eq!(rolled(&state), Err(Violation::NothingToRollBack(Subject::Issuer)));
    state.apply(&What::PublishIssuer(IssuerEpoch(2)), &rules(), day(29));
    assert_eq!(rolled(&state), Ok(What::WithdrawIssuer(IssuerEpoch(2))));
    let activate = What::ActivateIssuer { epoch: IssuerEpoch(2), supersedes: IssuerEpoch(1) };
    state.apply(&activate, &rules(), day(30));
    let back = What::ActivateIssuer { epoch: IssuerEpoch(1), supersedes: IssuerEpoch(2) };
    assert_eq!(rolled(&state), Ok(back.clone()));
    assert_eq!(admit(&state, &rules(), &back, day(31)), Ok(()), "everybody knows it: it has signed before");
    state.apply(&back, &rules(), day(31));
    assert_eq!(check(&state), Ok(()));
    state.wishes.insert(Subject::Issuer, Wish::Pause { by: "ada".into(), at: day(31) });
    assert_eq!(issuers_due(&state, day(80)), [], "who rolled back does not want it again at once");
}

#[test]
fn a_new_root_brings_a_new_issuer_and_the_old_root_stays_until_its_last_issuer_has_ended() {
    let mut state = state();
    state.roots.push(root(2, 10, Phase::Published(unseen(day(10)))));
    state.issuers.push(Issuer { root: root_id(2), ..issuer(4, 10, Phase::Spare) });
    let changes = timeline(&state, &rules(), day(10), day(120), 100);
    let told: Vec<String> = changes
        .iter()
        .filter(|change| ["issuer", "root"].contains(&change.what.kind()))
        .map(|change| format!("{}: {}", change.what, change.reason.code()))
        .collect();
    let position = |text: &str| {
        told.iter().position(|line| line.starts_with(text)).unwrap_or_else(|| panic!("{text}: {told:#?}"))
    };
    let (activate, publish) = (position("issuers under root"), position("publish issuer 4"));
    let (sign, gone) = (position("issuer 4 signs in place of issuer 1: new-root"), position("take root"));
    assert!(activate < publish && publish < sign && sign < gone, "{told:#?}");
    let root_gone = changes.iter().find(|change| change.what == What::WithdrawRoot(root_id(1))).unwrap();
    assert!(root_gone.due >= day(90), "{}", root_gone.due);
}

#[test]
fn below_a_new_root_an_issuer_is_asked_for_until_there_is_one() {
    let mut state = state();
    state.roots.push(root(2, 10, Phase::Published(unseen(day(10)))));
    assert_eq!(issuers_due(&state, day(10)), [], "nobody may use it yet");
    state.roots[1].phase = Phase::Active(seen(day(11)));
    assert_eq!(issuers_due(&state, day(11)), [What::RequestIssuer]);
    state.apply(&What::RequestIssuer, &rules(), day(11));
    assert_eq!(issuers_due(&state, day(11)), [What::SignRequest(IssuerEpoch(4))]);
    // The old root has signed it: that does not help.
    state.issuers[3] = issuer(4, 11, Phase::Spare);
    assert_eq!(issuers_due(&state, day(11)), [What::RequestIssuer]);
    state.issuers[3].root = root_id(2);
    assert_eq!(issuers_due(&state, day(11)), [What::PublishIssuer(IssuerEpoch(4))]);
}

#[test]
fn the_next_root_is_asked_for_a_fifth_of_its_life_before_the_last_one_ends() {
    let of_root = |state: &State, at: u32| -> Vec<What> {
        let due = plan(state, &rules(), day(at)).into_iter().map(|change| change.what);
        due.filter(|what| what.kind() == "root").collect()
    };
    let mut state = state();
    assert_eq!(of_root(&state, 3999), []);
    assert_eq!(of_root(&state, 4001), [What::MakeRoot]);
    assert_eq!(What::MakeRoot.actor(), Actor::Operator);
    state.roots.push(root(2, 4001, Phase::Published(unseen(day(4001)))));
    assert_eq!(of_root(&state, 4001), [], "it is there");
}

#[test]
fn a_root_that_was_taken_back_rests_and_one_that_is_used_cannot_be() {
    let mut state = state();
    state.roots.push(root(2, 10, Phase::Published(seen(day(10)))));
    let rolled = |state: &State| rollback(state, Subject::Root, day(11));
    assert_eq!(rolled(&state), Ok(What::WithdrawRoot(root_id(2))));
    state.wishes.insert(Subject::Root, Wish::Pause { by: "ada".into(), at: day(11) });
    assert!(!plan(&state, &rules(), day(12)).iter().any(|change| change.what.kind() == "root"));
    state.apply(&What::ActivateRoot(root_id(2)), &rules(), day(12));
    assert_eq!(rolled(&state), Err(Violation::NothingToRollBack(Subject::Root)));
    // The last root that may be used is never withdrawn, whoever wants it.
    state.roots[0].phase = Phase::Withdrawn;
    state.issuers.clear();
    let refused = admit(&state, &rules(), &What::WithdrawRoot(root_id(2)), day(13));
    assert!(matches!(refused, Err(Violation::Phase(_))), "{refused:?}");
}

#[test]
fn jwt_keys_are_published_before_use_and_kept_until_their_last_token_has_ended() {
    let changes = timeline(&state(), &rules(), day(0), day(65), 100);
    let keys: Vec<_> = changes.iter().filter(|change| change.what.kind() == "jwt").collect();
    let [publish, activate, withdraw, again, ..] = keys.as_slice() else { panic!("{keys:?}") };
    assert!(matches!(publish.what, What::PublishKey(Subject::Jwt)));
    assert!(matches!(activate.what, What::ActivateKey { .. }) && activate.due == day(30));
    assert!(activate.due.since(publish.due) >= rules().notice());
    assert!(matches!(withdraw.what, What::WithdrawKey { .. }));
    assert!(withdraw.due.since(activate.due) >= rules().token_life);
    assert!(matches!(again.what, What::PublishKey(Subject::Jwt)));
}

#[test]
fn keys_of_the_log_sign_side_by_side_for_a_month_each_year() {
    let changes = timeline(&state(), &rules(), day(0), day(800), 400);
    let keys: Vec<_> = changes.iter().filter(|change| change.what.kind() == "log").collect();
    let [publish, activate, withdraw, again, ..] = keys.as_slice() else { panic!("{keys:?}") };
    assert!(matches!(publish.what, What::PublishKey(Subject::Log)));
    assert!(matches!(activate.what, What::ActivateKey { .. }) && activate.due == day(365) + DAY / 4);
    assert!(activate.due.since(publish.due) >= rules().notice());
    assert_eq!(
        withdraw.what.to_string(),
        format!("log key {} signs no more", &key(9, Phase::Withdrawn).id.to_string()[..12])
    );
    assert_eq!((withdraw.due, withdraw.reason.code()), (day(395) + DAY / 4, "both-signed"));
    assert!(matches!(again.what, What::PublishKey(Subject::Log)));
    let only_on_request = Rules { log_period: None, ..rules() };
    let changes = timeline(&state(), &only_on_request, day(0), day(800), 400);
    assert!(!changes.iter().any(|change| change.what.kind() == "log"), "nobody asked for a new one");
}

#[test]
fn a_key_of_the_log_stops_only_when_everybody_could_learn_the_next() {
    let mut state = state();
    state.log_keys = vec![key(9, Phase::Superseded(unseen(day(1)))), key(8, Phase::Active(unseen(day(1))))];
    let stop = What::WithdrawKey { subject: Subject::Log, id: key(9, Phase::Withdrawn).id };
    let refused = |state: &State, at| admit(state, &rules(), &stop, day(at));
    assert!(
        matches!(refused(&state, 40), Err(Violation::TooEarly { .. })),
        "this process has not seen it for long"
    );
    state.pass(rules().notice());
    assert!(matches!(refused(&state, 30), Err(Violation::StillNeeded { .. })), "for a month both sign");
    assert_eq!(refused(&state, 31), Ok(()));
    let back = rollback(&state, Subject::Log, day(31)).unwrap();
    assert!(
        matches!(back, What::ActivateKey { subject: Subject::Log, id, .. } if id == key(9, Phase::Withdrawn).id)
    );
}

#[test]
fn own_certificates_and_lists_show_in_the_timeline_once() {
    let mut state = state();
    let life = Life { from: day(0), until: day(1) };
    state.credentials.push(Credential { name: "server TLS".into(), life });
    state.lists.push(List { name: "lists of issuer 1".into(), next: day(0), until: day(1) });
    let changes = timeline(&state, &rules(), day(0), day(10), 100);
    let told: Vec<String> =
        changes.iter().map(|change| format!("{} because {}", change.what, change.reason)).collect();
    assert_eq!(
        told,
        [
            "make the lists of issuer 1 anew because the one in place runs out at 2027-01-16T08:00:00Z",
            "renew the certificate of server TLS because half of its life is over; it ends at 2027-01-16T08:00:00Z",
        ]
    );
    assert!(changes.iter().all(|change| change.what.actor() == Actor::OwnTask));
}

#[test]
fn without_spares_a_request_is_made_in_time_and_a_person_asked_for() {
    let mut state = state();
    state.issuers.truncate(1);
    let changes = timeline(&state, &rules(), day(0), day(90), 100);
    let issuers: Vec<_> = changes.iter().filter(|change| change.what.kind() == "issuer").collect();
    let [request, sign] = issuers.as_slice() else { panic!("{issuers:?}") };
    assert_eq!(request.what, What::RequestIssuer);
    assert_eq!(sign.what, What::SignRequest(IssuerEpoch(2)));
    assert_eq!(sign.what.actor(), Actor::Operator);
    assert!(sign.due < day(10), "two weeks before the next is to be published: {}", sign.due);
}

#[test]
fn two_active_issuers_or_none_and_a_missing_root_are_seen() {
    let mut two = state();
    two.issuers[1].phase = Phase::Active(seen(day(0)));
    assert_eq!(check(&two), Err(Violation::ActiveIssuers(2)));
    let mut none = state();
    none.issuers[0].phase = Phase::Superseded(seen(day(0)));
    assert_eq!(check(&none), Err(Violation::ActiveIssuers(0)));
    let mut rootless = state();
    rootless.roots[0].phase = Phase::Withdrawn;
    assert_eq!(check(&rootless), Err(Violation::RootMissing(IssuerEpoch(1))));
    let mut keys = state();
    keys.jwt_keys.push(key(2, Phase::Active(seen(day(0)))));
    assert_eq!(check(&keys), Err(Violation::ActiveKeys { subject: Subject::Jwt, count: 2 }));
}
