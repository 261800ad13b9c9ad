//! The promises of the rotation, with a clock that is moved by hand.

mod waves;

use chancery_api::{AgentEvent, AgentIdentity, RenewalScope};
use chancery_types::{Clock as _, Timestamp, TrustDomain};

use super::*;
use crate::config::Limits;
use crate::core::Core;
use crate::identities::{Identities as _, JwtError, X509State};
use crate::test_support::{Bench, Fault, id, identity, workload};
use crate::tokens::Tokens;

const HOUR: Duration = Duration::from_secs(3600);

fn core(bench: &Bench) -> Core {
    Core {
        store: Arc::clone(&bench.store),
        tokens: Arc::new(Tokens::new(100)),
        authority: Arc::clone(&bench.forge) as _,
        pace: bench.rotation.pace.clone(),
        metrics: Arc::clone(&bench.rotation.metrics),
    }
}

fn serials(state: &X509State) -> Vec<String> {
    state.svids.iter().map(|svid| svid.serial.to_string()).collect()
}

#[tokio::test]
async fn a_first_ask_waits_for_the_certificate_and_the_next_is_answered_from_memory() {
    let bench = Bench::new(HOUR);
    bench.give(3);
    let loops = tokio::spawn(bench.rotation.clone().run());
    let core = core(&bench);
    let first = core.x509(&workload(1)).await;
    assert!(!first.has_changed().unwrap());
    let state = Arc::clone(&first.borrow());
    assert_eq!(state.svids[0].spiffe_id, id(1));
    assert_eq!(state.bundles.len(), 1);
    let again = core.x509(&workload(1)).await;
    assert_eq!(serials(&again.borrow()), serials(&state));
    assert_eq!(bench.forge.asked(), [1]);
    loops.abort();
}

#[tokio::test]
async fn many_who_ask_at_once_cause_one_request_each_identity() {
    let bench = Bench::new(HOUR);
    bench.give(2);
    let loops = tokio::spawn(bench.rotation.clone().run());
    let core = Arc::new(core(&bench));
    let asks: Vec<_> = (0..200)
        .map(|number| {
            let core = Arc::clone(&core);
            tokio::spawn(async move { core.x509(&workload(number % 2)).await.borrow().svids.len() })
        })
        .collect();
    for ask in asks {
        assert_eq!(ask.await.unwrap(), 1);
    }
    assert_eq!(bench.forge.asked().iter().sum::<usize>(), 2);
    loops.abort();
}

#[tokio::test]
async fn whoever_is_nobody_gets_nothing_and_causes_nothing() {
    let bench = Bench::new(HOUR);
    bench.give(3);
    let loops = tokio::spawn(bench.rotation.clone().run());
    let core = core(&bench);
    assert!(core.x509(&workload(99)).await.borrow().svids.is_empty());
    assert!(!core.is_entitled(&workload(99)).await && core.is_entitled(&workload(2)).await);
    let refused = core.jwt(&workload(99), &["a".into()], None).await.unwrap_err();
    assert_eq!(refused, JwtError::NoIdentity);
    // Of two identities, one that is not the process's own is none either.
    let refused = core.jwt(&workload(1), &["a".into()], Some(&id(2))).await.unwrap_err();
    assert_eq!(refused, JwtError::NoIdentity);
    assert!(bench.forge.asked().is_empty());
    loops.abort();
}

#[tokio::test]
async fn a_removed_identity_is_withdrawn_at_once_and_a_new_one_serves_whoever_listens() {
    let bench = Bench::new(HOUR);
    bench.give(1);
    let mut states = bench.store.subscribe(&workload(0).claims).unwrap();
    bench.turn().await;
    assert_eq!(states.borrow_and_update().svids.len(), 1, "{:?}", bench.store.standing());
    bench.store.take_in(AgentEvent::Removed { revision: 2, spiffe_id: id(0) });
    assert!(states.has_changed().unwrap());
    assert!(states.borrow_and_update().svids.is_empty());
    bench.store.take_in(changed(3, identity(0)));
    bench.turn().await;
    assert_eq!(states.borrow_and_update().svids[0].spiffe_id, id(0));
}

#[tokio::test]
async fn a_revoked_certificate_is_withdrawn_at_once_and_another_is_asked_for() {
    let bench = Bench::new(HOUR);
    bench.give(1);
    let mut states = bench.store.subscribe(&workload(0).claims).unwrap();
    bench.turn().await;
    let serial = states.borrow_and_update().svids[0].serial;
    bench.store.take_in(AgentEvent::Revoked { revision: 2, serials: vec![serial] });
    assert!(states.borrow_and_update().svids.is_empty());
    // A stream that is told so ends with no identity, which a program understands; not with a trouble that passes.
    assert!(!bench.store.is_entitled(&workload(0).claims));
    bench.turn().await;
    assert!(bench.store.is_entitled(&workload(0).claims));
    assert_ne!(states.borrow_and_update().svids[0].serial, serial);
}

#[tokio::test]
async fn whoever_is_refused_has_no_identity_and_whoever_must_wait_has() {
    for (fault, is_entitled) in
        [(Fault::Refuses, false), (Fault::Away, true), (Fault::Overloaded { retry_after: 1 }, true)]
    {
        let bench = Bench::new(HOUR);
        bench.give(1);
        let _states = bench.store.subscribe(&workload(0).claims).unwrap();
        assert!(bench.store.is_entitled(&workload(0).claims));
        bench.forge.fail(fault);
        bench.turn().await;
        assert_eq!(bench.store.is_entitled(&workload(0).claims), is_entitled, "{fault:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_was_revoked_before_it_came_is_never_served() {
    let bench = Bench::new(HOUR);
    bench.give(1);
    let states = bench.store.subscribe(&workload(0).claims).unwrap();
    let first = chancery_types::SerialNumber::compose(chancery_types::IssuerEpoch(1), 0, [1; 8]).unwrap();
    bench.store.take_in(AgentEvent::Revoked { revision: 2, serials: vec![first] });
    bench.turn().await;
    assert!(states.borrow().svids.is_empty());
    bench.turn().await;
    assert_eq!(states.borrow().svids.len(), 1);
}

#[tokio::test]
async fn what_a_peer_would_refuse_is_not_used_and_the_old_one_stays() {
    for fault in [Fault::OtherKey, Fault::OtherName, Fault::OtherRoot, Fault::Refuses] {
        let bench = Bench::new(HOUR);
        bench.give(1);
        let states = bench.store.subscribe(&workload(0).claims).unwrap();
        bench.turn().await;
        let before = serials(&states.borrow());
        bench.forge.fail(fault);
        bench.clock.advance(HOUR / 2);
        bench.turn().await;
        assert_eq!(bench.forge.asked(), [1, 1], "{fault:?}");
        assert_eq!(serials(&states.borrow()), before, "{fault:?}");
        let standing = bench.store.standing();
        assert!(standing[0].failure.is_some(), "{fault:?} is reported");
        bench.forge.fail(Fault::None);
        bench.clock.advance(HOUR / 10);
        bench.turn().await;
        assert_ne!(serials(&states.borrow()), before, "{fault:?}");
        assert!(bench.store.standing()[0].failure.is_none(), "{fault:?}");
    }
}

#[tokio::test]
async fn an_authority_that_is_away_for_half_a_life_is_not_noticed_by_any_workload() {
    let bench = Bench::new(HOUR);
    bench.give(300);
    let states: Vec<_> = (0..300).map(|uid| bench.store.subscribe(&workload(uid).claims).unwrap()).collect();
    bench.turn().await;
    let step = HOUR / 120;
    for tick in 0..(6 * 120) {
        // Away for half of a life, twice, at moments that are no multiples of anything.
        let away = (131..131 + 60).contains(&tick) || (401..401 + 60).contains(&tick);
        bench.forge.fail(if away { Fault::Away } else { Fault::None });
        bench.clock.advance(step);
        bench.turn().await;
        let now = bench.clock.now();
        for state in &states {
            let state = state.borrow();
            assert_eq!(state.svids.len(), 1, "tick {tick}");
            assert!(now < state.svids[0].not_after, "tick {tick}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_never_served() {
    let bench = Bench::new(HOUR);
    bench.give(1);
    let mut states = bench.store.subscribe(&workload(0).claims).unwrap();
    bench.turn().await;
    bench.forge.fail(Fault::Away);
    bench.clock.advance(HOUR);
    bench.turn().await;
    assert!(states.borrow_and_update().svids.is_empty());
    bench.forge.fail(Fault::None);
    bench.clock.advance(Duration::from_secs(600));
    bench.turn().await;
    assert_eq!(states.borrow_and_update().svids.len(), 1);
}

#[tokio::test]
async fn nobody_comes_back_before_the_authority_has_said() {
    let bench = Bench::new(HOUR);
    bench.give(250);
    let _states: Vec<_> = (0..250).map(|uid| bench.store.subscribe(&workload(uid).claims).unwrap()).collect();
    bench.forge.fail(Fault::Overloaded { retry_after: 30 });
    bench.turn().await;
    assert_eq!(bench.forge.asked().len(), 1, "the other two requests were not even sent");
    bench.forge.fail(Fault::None);
    for _ in 0..29 {
        bench.clock.advance(Duration::from_secs(1));
        bench.turn().await;
    }
    assert_eq!(bench.forge.asked().len(), 1);
    for _ in 0..30 {
        bench.clock.advance(Duration::from_secs(1));
        bench.turn().await;
    }
    assert_eq!(bench.forge.asked().iter().skip(1).sum::<usize>(), 250);
}

#[tokio::test]
async fn what_nobody_listens_for_is_kept_until_it_would_be_due_and_not_renewed() {
    let bench = Bench::new(HOUR);
    bench.give(1);
    let states = bench.store.subscribe(&workload(0).claims).unwrap();
    bench.turn().await;
    drop(states);
    bench.clock.advance(HOUR / 10);
    bench.turn().await;
    let again = bench.store.subscribe(&workload(0).claims).unwrap();
    assert_eq!(again.borrow().svids.len(), 1, "still warm");
    drop(again);
    bench.clock.advance(HOUR / 2);
    bench.turn().await;
    assert!(bench.store.standing()[0].svid.is_none());
    assert_eq!(bench.forge.asked(), [1]);
}

#[tokio::test]
async fn full_is_full_and_what_is_unwanted_longest_makes_room() {
    let limits = Limits { svids: 2, workloads: 3, tokens: 1 };
    let bench = Bench::with_limits(HOUR, limits);
    bench.give(5);
    for uid in 0..2 {
        let states = bench.store.subscribe(&workload(uid).claims).unwrap();
        bench.turn().await;
        assert_eq!(states.borrow().svids.len(), 1);
        bench.clock.advance(Duration::from_secs(1));
    }
    let states: Vec<_> = (2..5).map(|uid| bench.store.subscribe(&workload(uid).claims).unwrap()).collect();
    assert!(bench.store.subscribe(&workload(0).claims).is_none(), "a fourth workload has no room");
    bench.turn().await;
    bench.turn().await;
    assert_eq!(states.iter().map(|state| state.borrow().svids.len()).sum::<usize>(), 2);
}

#[tokio::test]
async fn a_changed_identity_gets_a_certificate_that_says_so() {
    let bench = Bench::new(HOUR);
    bench.give(1);
    let states = bench.store.subscribe(&workload(0).claims).unwrap();
    bench.turn().await;
    let before = serials(&states.borrow());
    let mut changed = identity(0);
    changed.dns_names = vec!["web.example.org".into()];
    bench.store.take_in(self::changed(2, changed));
    bench.clock.advance(Duration::from_secs(1));
    bench.turn().await;
    assert_ne!(serials(&states.borrow()), before);
}

#[tokio::test]
async fn what_is_not_in_a_certificate_changes_without_another() {
    let bench = Bench::new(HOUR);
    bench.give(1);
    let mut states = bench.store.subscribe(&workload(0).claims).unwrap();
    bench.turn().await;
    let before = serials(&states.borrow_and_update());
    let mut changed = identity(0);
    changed.hint = Some("main".into());
    bench.store.take_in(self::changed(2, changed));
    assert!(states.has_changed().unwrap());
    assert_eq!(states.borrow().svids[0].hint, "main");
    bench.clock.advance(Duration::from_secs(1));
    bench.turn().await;
    assert_eq!(serials(&states.borrow()), before);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_changed_identities_are_renewed_one_after_the_other() {
    let bench = Bench::new(HOUR);
    bench.give(2000);
    let _states: Vec<_> =
        (0..2000).map(|uid| bench.store.subscribe(&workload(uid).claims).unwrap()).collect();
    bench.turn().await;
    bench.forge.requests.lock().unwrap().clear();
    for uid in 0..2000 {
        let mut changed = identity(uid);
        changed.dns_names = vec!["web.example.org".into()];
        bench.store.take_in(self::changed(2, changed));
    }
    let mut seconds = Vec::new();
    while bench.forge.asked().iter().sum::<usize>() < 2000 {
        let before = bench.forge.asked().iter().sum::<usize>();
        bench.clock.advance(Duration::from_secs(1));
        bench.turn().await;
        seconds.push(bench.forge.asked().iter().sum::<usize>() - before);
        assert!(seconds.len() < 30, "{seconds:?}");
    }
    // Those that are due within a second go together, and take others along up to a full request.
    assert!(seconds.len() >= 4 && seconds.iter().all(|count| *count <= 800), "{seconds:?}");
}

#[tokio::test]
async fn what_the_authority_wants_renewed_is_renewed_once_however_often_it_says_so() {
    let bench = Bench::new(HOUR);
    bench.give(1);
    let states = bench.store.subscribe(&workload(0).claims).unwrap();
    bench.turn().await;
    let renew = || AgentEvent::Renew {
        revision: 2,
        scope: RenewalScope::All,
        recorded_before: 1,
        until: bench.clock.now() + Duration::from_secs(10),
    };
    let first = serials(&states.borrow());
    bench.store.take_in(renew());
    bench.clock.advance(Duration::from_secs(10));
    bench.turn().await;
    let second = serials(&states.borrow());
    assert_ne!(first, second);
    bench.store.take_in(renew());
    bench.clock.advance(Duration::from_secs(10));
    bench.turn().await;
    assert_eq!(serials(&states.borrow()), second, "it was recorded after the wish");
}

#[tokio::test]
async fn bundles_of_other_trust_domains_go_to_those_who_deal_with_them_and_to_nobody_else() {
    let bench = Bench::new(HOUR);
    let other: TrustDomain = "other.example".parse().unwrap();
    bench.give(2);
    let mut states: Vec<_> =
        (0..2).map(|uid| bench.store.subscribe(&workload(uid).claims).unwrap()).collect();
    bench.turn().await;
    let mut deals = identity(0);
    deals.federates_with = vec![other.clone()];
    bench.store.take_in(changed(2, deals));
    let mut bundle = bench.forge.bundle();
    bundle.trust_domain = other.clone();
    states.iter_mut().for_each(|states| states.mark_unchanged());
    let roots = bench.store.roots();
    bench.store.take_in(AgentEvent::Bundle { revision: 2, bundle: bundle.clone() });
    assert!(states[0].has_changed().unwrap() && !states[1].has_changed().unwrap());
    assert!(states[0].borrow().bundles.contains_key(&other));
    assert!(!states[1].borrow().bundles.contains_key(&other));
    assert!(!roots.has_changed().unwrap(), "nothing of theirs verifies the authority");
    bench.give(2);
    assert!(!bench.store.bundles().borrow().contains_key(&other), "it is not dealt with any more");
}

fn changed(revision: u64, identity: AgentIdentity) -> AgentEvent {
    AgentEvent::Changed { revision, identity: Box::new(identity), spread_milliseconds: 0 }
}

#[tokio::test]
async fn tokens_are_used_again_and_the_authoritys_word_is_passed_on() {
    let bench = Bench::new(HOUR);
    bench.give(1);
    let core = core(&bench);
    let audience = ["db".to_owned()];
    let first = core.jwt(&workload(0), &audience, None).await.unwrap();
    assert_eq!(first[0].spiffe_id, id(0));
    let again = core.jwt(&workload(0), &audience, Some(&id(0))).await.unwrap();
    assert_eq!(again[0].token, first[0].token);
    bench.clock.advance(Duration::from_secs(200));
    bench.forge.fail(Fault::Away);
    let old = core.jwt(&workload(0), &audience, None).await.unwrap();
    assert_eq!(old[0].token, first[0].token, "old, and better than none");
    bench.clock.advance(Duration::from_secs(200));
    let error = core.jwt(&workload(0), &audience, None).await.unwrap_err();
    assert!(matches!(error, JwtError::Unavailable(_)), "{error:?}");
    bench.forge.fail(Fault::Refuses);
    let error = core.jwt(&workload(0), &audience, None).await.unwrap_err();
    assert!(matches!(error, JwtError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_as_after_sleep_brings_a_renewal_within_moments() {
    let bench = Bench::new(HOUR);
    bench.give(1);
    let loops = tokio::spawn(bench.rotation.clone().run());
    let core = core(&bench);
    let mut states = core.x509(&workload(0)).await;
    let before = serials(&states.borrow_and_update());
    bench.clock.advance(HOUR * 10);
    // The one that ended while the machine slept is withdrawn, and a new one comes.
    tokio::time::timeout(Duration::from_secs(10), async {
        states.wait_for(|state| !state.svids.is_empty() && serials(state) != before).await.unwrap();
    })
    .await
    .unwrap();
    assert!(states.borrow().svids[0].not_after > bench.clock.now());
    assert_ne!(bench.clock.now(), Timestamp::default());
    loops.abort();
}
