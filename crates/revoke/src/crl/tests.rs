use std::sync::Arc;
use std::time::Duration;

use chancery_ledger::ReadModel as _;
use chancery_types::{Clock as _, CrlShard, RevocationReason, SerialNumber};
use chancery_x509::crl::CrlView;

use super::*;
use crate::testing::{BASE, EPOCH, SHARDS, World, until};

fn run(publisher: &Arc<CrlPublisher>) -> tokio::task::JoinHandle<()> {
    let running = Arc::clone(publisher);
    tokio::spawn(async move { running.run().await })
}

fn numbers(publisher: &CrlPublisher) -> Vec<Option<u64>> {
    publisher.places().map(|place| place.current().map(|list| list.number)).collect()
}

fn is_on(place: &Place, serial: SerialNumber) -> bool {
    let Some(list) = place.current() else { return false };
    CrlView::from_der(&list.der).unwrap().entry(serial.as_bytes()).is_some()
}

async fn all_published(publisher: &CrlPublisher) {
    until("the first lists", || numbers(publisher).iter().all(Option::is_some)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_certificate_is_on_the_full_list_and_on_that_of_its_part_alone() {
    let world = World::new().await;
    let serial = world.issue(6).await;
    let publisher = world.publisher().await;
    let running = run(&publisher);
    all_published(&publisher).await;
    world.revoke(serial, RevocationReason::KeyCompromise).await;
    let part = CrlShard::containing(serial, SHARDS);
    let places = || [publisher.full(EPOCH).unwrap(), publisher.part(EPOCH, part).unwrap()];
    until("both lists", || places().iter().all(|place| is_on(place, serial))).await;
    for place in publisher.places() {
        assert_eq!(is_on(&place, serial), place.covers(serial));
        let list = place.current().unwrap();
        assert_eq!(std::fs::read(place.file()).unwrap(), list.der);
        let view = CrlView::from_der(&list.der).unwrap();
        let expected: Vec<String> = place.shard().map(|shard| shard.url(BASE, EPOCH)).into_iter().collect();
        assert_eq!(view.distribution_points().collect::<Vec<_>>(), expected);
        let recorded = world.ledger.last_crl(EPOCH, place.shard()).await.unwrap().unwrap();
        assert_eq!((recorded.number, recorded.hash), (list.number, list.hash));
    }
    running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_rise_though_the_clock_was_set_back_and_the_process_started_again() {
    let world = World::new().await;
    let serial = world.issue(0).await;
    let publisher = world.publisher().await;
    let running = run(&publisher);
    all_published(&publisher).await;
    let first = numbers(&publisher);
    running.abort();
    let _ = running.await;

    world.clock.set(world.clock.now() - Duration::from_secs(6 * 3600));
    world.revoke(serial, RevocationReason::Superseded).await;
    let publisher = world.publisher().await;
    let running = run(&publisher);
    until("lists of after the clock was set back", || {
        numbers(&publisher).iter().zip(&first).all(|(now, before)| now > before)
    })
    .await;
    assert!(is_on(&publisher.full(EPOCH).unwrap(), serial));
    let list = publisher.full(EPOCH).unwrap().current().unwrap();
    assert!(CrlView::from_der(&list.der).unwrap().this_update() <= world.clock.now());
    running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_revoked_before_a_clock_was_set_back_stays_on_the_list() {
    let world = World::new().await;
    let serials = [world.issue(0).await, world.issue(1).await];
    let publisher = world.publisher().await;
    let running = run(&publisher);
    world.revoke(serials[0], RevocationReason::KeyCompromise).await;
    until("the first", || is_on(&publisher.full(EPOCH).unwrap(), serials[0])).await;
    world.clock.set(world.clock.now() - Duration::from_secs(3600));
    world.revoke(serials[1], RevocationReason::KeyCompromise).await;
    until("the second", || is_on(&publisher.full(EPOCH).unwrap(), serials[1])).await;
    assert!(is_on(&publisher.full(EPOCH).unwrap(), serials[0]));
    running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_certificates_stay_for_two_periods_and_then_go() {
    let world = World::new().await;
    let serial = world.issue(0).await;
    world.revoke(serial, RevocationReason::KeyCompromise).await;
    let publisher = world.publisher().await;
    let full = || publisher.full(EPOCH).unwrap();
    // It is valid for an hour; two periods are twelve.
    for (hours, expected) in [(0, true), (12, true), (14, false)] {
        world.clock.set(crate::testing::start() + Duration::from_secs(hours * 3600));
        let made = |place: &Place| place.current().is_some_and(|list| list.made == world.clock.now());
        full().set_dirty(true);
        let running = run(&publisher);
        until("a new list", || made(&full())).await;
        assert_eq!(is_on(&full(), serial), expected, "{hours} hours later");
        running.abort();
        let _ = running.await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unchanged_lists_are_made_anew_in_time_and_not_all_at_once() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    let running = run(&publisher);
    all_published(&publisher).await;
    running.abort();
    let _ = running.await;
    let rules = *publisher.rules();
    let dues: Vec<_> = publisher.places().map(|place| place.due(&rules)).collect();
    let now = world.clock.now();
    let (earliest, latest) = (*dues.iter().min().unwrap(), *dues.iter().max().unwrap());
    assert!(earliest >= now + rules.period() / 2 && latest <= now + rules.period());
    assert!(latest.since(earliest) > rules.period() / 32, "{dues:?}");
    assert!(publisher.places().all(|place| !place.wants_work(&rules, earliest - Duration::from_millis(1))));
    assert!(publisher.places().all(|place| place.wants_work(&rules, latest)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_a_higher_number_in_the_file_is_not_replaced() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    let running = run(&publisher);
    all_published(&publisher).await;
    running.abort();
    let _ = running.await;
    let place = publisher.full(EPOCH).unwrap();
    let newer = place.current().unwrap();
    let older = Arc::new(PublishedCrl { number: newer.number - 1, ..(*newer).clone() });
    // As if another process had put it there.
    let copy = place.file().with_extension("copy");
    std::fs::copy(place.file(), &copy).unwrap();
    std::fs::rename(&copy, place.file()).unwrap();
    assert!(matches!(place.put(older), Err(PublishError::Elsewhere(number)) if number == newer.number));
    assert_eq!(std::fs::read(place.file()).unwrap(), newer.der);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_without_its_key_keeps_its_last_lists() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    let running = run(&publisher);
    all_published(&publisher).await;
    running.abort();
    let before = numbers(&publisher);
    let divisions = world.ledger.crl_divisions(EPOCH).await.unwrap();
    let issuer = StatusIssuer { epoch: EPOCH, certificate: world.issuer.clone(), signer: None, divisions };
    let publisher = CrlPublisher::new(
        world.ledger.clone(),
        world.clock.clone(),
        Arc::clone(&world.board),
        CrlRules::new(Duration::from_secs(86_400)),
        vec![issuer],
        &world.place.path().join("crl"),
    );
    assert_eq!(numbers(&publisher), before);
    let now = world.clock.now();
    assert!(publisher.places().all(|place| !place.wants_work(publisher.rules(), now)));
}
