//! Decades of an authority whose scheduler crashes, sleeps, hears operators and is lied to by its clock; judged by
//! what a bystander with a true clock has seen.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    /// The scheduler looks.
    Look,
    /// It plans, and crashes after so many changes were applied.
    Crash { after: usize },
    /// It plans, and what it planned is applied only after the next event: another one held the lease meanwhile.
    Stale,
    /// It does not run for so long.
    Down(Duration),
    /// The clock is set, for a part of the time in which wrong clocks are found; with a crash under the wrong clock.
    WrongClock { by: i64, part: f64, crash: bool },
    /// An operator asks for the next one.
    Ask(Subject),
    /// An operator rolls back.
    Rollback(Subject),
    /// An operator distrusts the issuer that signs, or the one before it.
    Taint { active: bool },
    /// An operator brings another root.
    NewRoot,
}

fn subjects() -> impl Strategy<Value = Subject> {
    prop::sample::select(Subject::ALL.to_vec())
}

fn events() -> impl Strategy<Value = (Event, Duration)> {
    let hours = |most: u64| (0..most * 60).prop_map(Duration::from_mins);
    let event = prop_oneof![
        30 => Just(Event::Look),
        4 => (0_usize..3).prop_map(|after| Event::Crash { after }),
        2 => Just(Event::Stale),
        2 => hours(24 * 3).prop_map(Event::Down),
        3 => (-20 * 365 * 86_400_i64..20 * 365 * 86_400, 0.0..0.95, any::<bool>())
            .prop_map(|(by, part, crash)| Event::WrongClock { by, part, crash }),
        1 => subjects().prop_map(Event::Ask),
        1 => subjects().prop_map(Event::Rollback),
        1 => any::<bool>().prop_map(|active| Event::Taint { active }),
        1 => Just(Event::NewRoot),
    ];
    (event, prop_oneof![1 => hours(2), 3 => hours(24 * 5)])
}

/// The authority, and what the bystander knows.
struct World {
    rules: Rules,
    truth: Timestamp,
    /// What the clock shows beyond the truth, milliseconds.
    wrong: i64,
    booted: Timestamp,
    observer: Observer,
    state: State,
    stale: Vec<Change>,
    published: BTreeMap<String, Timestamp>,
    /// Since when, and whether the clock was right then.
    superseded: BTreeMap<String, (Timestamp, bool)>,
    asked: BTreeMap<IssuerEpoch, Timestamp>,
    activations: u32,
    withdrawals: u32,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            rules: rules(),
            truth: day(0),
            wrong: 0,
            booted: day(0),
            observer: Observer::default(),
            state: State { steady_for: Duration::ZERO, ..state() },
            stale: Vec::new(),
            published: BTreeMap::new(),
            superseded: BTreeMap::new(),
            asked: BTreeMap::new(),
            activations: 0,
            withdrawals: 0,
        };
        world.tend();
        world
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.truth.millis() + self.wrong)
    }

    fn seen(&mut self) -> State {
        let (now, uptime) = (self.now(), self.truth.since(self.booted));
        let mut state = self.state.clone();
        self.observer.look(&mut state, now, uptime);
        state
    }

    fn boot(&mut self) {
        self.booted = self.truth;
        self.observer = Observer::default();
    }

    /// The operator keeps three spares, and signs what is asked for, under the newest root that is published.
    fn tend(&mut self) {
        let bundled = |root: &&Root| root.phase.published().is_some() || root.phase.is_active();
        let newest = self.state.roots.iter().filter(bundled).max_by_key(|root| root.age());
        let newest = newest.expect("there is a root").id;
        let life = Life { from: self.truth, until: self.truth + DAY * 90 };
        for issuer in &mut self.state.issuers {
            if issuer.phase == Phase::Requested {
                *issuer = Issuer { root: newest, life, phase: Phase::Spare, ..*issuer };
            }
        }
        let is_of_use = |issuer: &&Issuer| {
            issuer.phase == Phase::Spare
                && issuer.root == newest
                && issuer.taint.is_none()
                && issuer.life.until > self.truth + DAY * 60
        };
        let spares = self.state.issuers.iter().filter(is_of_use).count();
        let last = self.state.issuers.iter().map(|issuer| issuer.epoch.0).max().unwrap_or(0);
        for number in (0..3_u16).skip(spares) {
            let from = self.truth + DAY * 30 * u32::from(number);
            let life = Life { from, until: from + DAY * 90 };
            let epoch = IssuerEpoch(last + 1 + number);
            let issuer = Issuer { epoch, root: newest, life, phase: Phase::Spare, taint: None };
            self.state.issuers.push(issuer);
        }
        let truth = self.truth;
        let is_over = |issuer: &Issuer| issuer.phase == Phase::Spare && issuer.life.until < truth;
        self.state.issuers.retain(|issuer| !is_over(issuer));
    }

    fn carry_out(&mut self, changes: &[Change]) {
        for change in changes.iter().filter(|change| change.what.actor() == Actor::Scheduler) {
            let state = self.seen();
            if admit(&state, &self.rules, &change.what, self.now()).is_ok() {
                self.judge(&state, &change.what);
                self.state.apply(&change.what, &self.rules.clone(), self.now());
                if let Err(violation) = check(&self.state) {
                    panic!("{}: {violation}", change.what);
                }
            }
        }
        self.seen();
    }

    /// The bystander's word on a change that is being made.
    fn judge(&mut self, state: &State, what: &What) {
        let truth = self.truth;
        let notice = self.rules.notice();
        match what {
            What::PublishIssuer(epoch) => drop(self.published.insert(format!("issuer {epoch}"), truth)),
            What::ActivateIssuer { epoch, .. } => {
                let issuer = state.issuer(*epoch).unwrap();
                assert!(
                    issuer.life.from <= truth && truth < issuer.life.until,
                    "{what} at {truth}: {issuer:?}"
                );
                let known = self.published.get(&format!("issuer {epoch}"));
                assert!(known.is_none_or(|at| truth.since(*at) >= notice), "{what} at {truth}: {known:?}");
                // Whoever meets what it signs has had time to fetch its root.
                let root = state.root(issuer.root).unwrap();
                let known = self.published.get(&root.id.to_string());
                assert!(root.phase.is_active(), "{what} at {truth}: {root:?}");
                assert!(
                    known.is_none_or(|at| truth.since(*at) >= notice),
                    "{what} at {truth}: root {known:?}"
                );
                self.activations += 1;
            }
            What::WithdrawIssuer(epoch) => {
                let issuer = state.issuer(*epoch).unwrap();
                let is_used = !matches!(issuer.phase, Phase::Published(_));
                assert!(!is_used || issuer.life.until <= truth, "{what} at {truth}: {issuer:?}");
                self.withdrawals += u32::from(is_used);
            }
            What::AskRenewals(epoch) => drop(self.asked.insert(*epoch, truth)),
            What::Distrust(epoch) => {
                let time = truth.since(self.asked[epoch]);
                assert!(time >= self.rules.wave, "{what}: agents had {time:?}");
            }
            What::ActivateRoot(id) => {
                let known = self.published[&id.to_string()];
                assert!(truth.since(known) >= notice, "{what} at {truth}: published {known}");
            }
            What::WithdrawRoot(id) => {
                let lives = |issuer: &&Issuer| issuer.root == *id && issuer.life.until > truth;
                let is_used = |issuer: &&Issuer| {
                    matches!(issuer.phase, Phase::Active(_) | Phase::Superseded(_) | Phase::Published(_))
                };
                let others = state.roots.iter().any(|root| root.id != *id && root.phase.is_active());
                assert!(others, "{what} at {truth}: no other root may be used");
                let living = state.issuers.iter().filter(is_used).find(lives);
                assert!(living.is_none(), "{what} at {truth}: {living:?}");
            }
            What::PublishKey(subject) => {
                let number = state.keys(*subject).len().to_be_bytes();
                let id = Digest::of(&[subject.name().as_bytes(), &number].concat());
                self.published.insert(id.to_string(), truth);
            }
            What::ActivateKey { id, supersedes, .. } => {
                let known = self.published.get(&id.to_string());
                assert!(known.is_none_or(|at| truth.since(*at) >= notice), "{what} at {truth}: {known:?}");
                // Under a wrong clock only a rollback is made, and its time says nothing about weeks.
                let is_dated = self.wrong == 0;
                self.superseded.insert(supersedes.to_string(), (truth, is_dated));
            }
            What::WithdrawKey { subject, id } => {
                let least = |is_dated| match subject {
                    Subject::Log if is_dated => self.rules.log_overlap,
                    Subject::Log => notice,
                    _ => self.rules.token_life,
                };
                let since = self.superseded.get(&id.to_string());
                assert!(
                    since.is_none_or(|(at, is_dated)| truth.since(*at) >= least(*is_dated)),
                    "{what}: {since:?}"
                );
            }
            _ => {}
        }
    }

    fn look(&mut self) {
        let state = self.seen();
        let changes = plan(&state, &self.rules, self.now());
        self.carry_out(&changes);
    }

    fn happen(&mut self, event: &Event) {
        let now = self.now();
        match event {
            Event::Look => {
                self.look();
                let stale = std::mem::take(&mut self.stale);
                self.carry_out(&stale);
            }
            Event::Crash { after } => {
                let state = self.seen();
                let changes = plan(&state, &self.rules, now);
                self.carry_out(&changes[..(*after).min(changes.len())]);
                self.boot();
                self.look();
            }
            Event::Stale => {
                self.look();
                let state = self.seen();
                self.stale = plan(&state, &self.rules, now);
            }
            Event::Down(time) => {
                self.truth = self.truth + *time;
                self.boot();
                self.look();
            }
            Event::WrongClock { by, part, crash } => {
                self.wrong = by * 1000;
                let time = self.rules.settle.mul_f64(*part);
                for _ in 0..4 {
                    self.look();
                    self.truth = self.truth + time / 4;
                    if *crash {
                        self.boot();
                    }
                }
                self.look();
                self.wrong = 0;
            }
            Event::Ask(subject) => {
                drop(self.state.wishes.insert(*subject, Wish::Now { by: "ada".into(), at: now }));
            }
            Event::Rollback(subject) => {
                let state = self.seen();
                if let Ok(what) = rollback(&state, *subject, now)
                    && admit(&state, &self.rules, &what, now).is_ok()
                {
                    self.judge(&state, &what);
                    self.state.apply(&what, &self.rules.clone(), now);
                    assert_eq!(check(&self.state), Ok(()), "{what}");
                    // The operator looks into it and goes on.
                    self.state.wishes.insert(*subject, Wish::Now { by: "ada".into(), at: now });
                }
            }
            Event::Taint { active } => {
                let issuers = self.state.issuers.iter_mut();
                let mut meant = issuers.filter(|issuer| match issuer.phase {
                    Phase::Active(_) => *active,
                    Phase::Superseded(_) => !active && issuer.life.until > now,
                    _ => false,
                });
                if let Some(issuer) = meant.next() {
                    issuer.taint.get_or_insert(Taint { at: now, step: TaintStep::Marked });
                }
            }
            Event::NewRoot => {
                let number = u8::try_from(self.state.roots.len() + 1).unwrap_or(u8::MAX);
                let since = unseen(now);
                let life = Life { from: self.truth, until: self.truth + DAY * 5000 };
                self.published.insert(root_id(number).to_string(), self.truth);
                if self.state.root(root_id(number)).is_none() {
                    self.state.roots.push(Root { id: root_id(number), life, phase: Phase::Published(since) });
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn decades_of_crashes_missed_looks_and_wrong_clocks_break_no_promise(events in prop::collection::vec(events(), 1..2500)) {
        let mut world = World::new();
        for (event, pause) in &events {
            world.happen(event);
            world.look();
            world.truth = world.truth + *pause;
            world.tend();
            let active = *world.state.active_issuer().unwrap();
            let (until, truth) = (active.life.until, world.truth);
            prop_assert!(until > truth, "issuer {} ended at {until}, and it is {truth}", active.epoch);
        }
        let years = world.truth.since(day(0)).as_secs() / (365 * 86_400);
        // Never more than a year without another issuer.
        prop_assert!(u64::from(world.activations) >= years, "{} activations in {years} years", world.activations);
        prop_assert!(world.withdrawals <= world.activations);
        // Whatever else happens: a root that was brought and has been left alone for a year is used.
        let truth = world.truth;
        for root in &world.state.roots[1..] {
            let known = world.published[&root.id.to_string()];
            let is_due = root.phase.published().is_some() && truth.since(known) > DAY * 365;
            prop_assert!(!is_due, "root {} was brought at {known} and waits at {truth}", root.id);
        }
    }
}
