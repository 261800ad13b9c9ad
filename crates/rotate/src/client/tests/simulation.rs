//! Ten thousand identities on one agent, hour after hour, with an authority that is there, and with one that goes
//! away for half of a life.

use super::*;

const IDENTITIES: usize = 10_000;

/// Someone who follows the plan, and what happened to him.
struct Agent {
    held: Vec<Held>,
    length: Duration,
    now: Timestamp,
    /// When each request was answered, and with how many certificates.
    answered: Vec<(Timestamp, usize)>,
    /// When each request was not.
    unanswered: Vec<Timestamp>,
    /// The least that was left of a life when it was replaced.
    closest: Duration,
}

impl Agent {
    fn new(identities: usize, length: Duration) -> Self {
        let now = moment(0);
        let life = Life { from: now, until: now + length };
        let held = (0..identities)
            .map(|index| Held { seed: Seed::of(&index.to_be_bytes()), ..held(0, life) })
            .collect();
        Self { held, length, now, answered: Vec::new(), unanswered: Vec::new(), closest: length }
    }

    /// Follows the plan until `end`; the authority does not answer in `outage`.
    fn live(&mut self, end: Timestamp, outage: std::ops::Range<Timestamp>, retry_after: Option<Duration>) {
        while self.now < end {
            let plan = plan(&self.held, self.now);
            for batch in &plan.batches {
                if outage.contains(&self.now) {
                    self.fail(batch, retry_after);
                } else {
                    self.renew(batch);
                }
            }
            // Whoever has just been served or refused is due again later than now: the plan is made anew.
            self.now = match plan.batches.is_empty() {
                true => plan.next.map_or(end, |wake| wake.at),
                false => self.now + Duration::from_millis(20),
            };
        }
    }

    fn renew(&mut self, batch: &Batch) {
        for member in &batch.members {
            let held = &mut self.held[member.held];
            let life = held.life.expect("everything has a life here");
            assert!(
                self.now < life.until,
                "{} ended before it was renewed, {:?}",
                member.held,
                member.reason
            );
            self.closest = self.closest.min(life.until.since(self.now));
            held.life = Some(Life { from: self.now, until: self.now + self.length });
            held.failed = None;
        }
        self.answered.push((self.now, batch.members.len()));
    }

    fn fail(&mut self, batch: &Batch, retry_after: Option<Duration>) {
        let seed = Seed::new(self.unanswered.len() as u64);
        for member in &batch.members {
            let held = &mut self.held[member.held];
            let attempts = held.failed.map_or(0, |failed| failed.attempts) + 1;
            held.failed = Some(Failed { attempts, at: self.now, retry_after, seed });
        }
        self.unanswered.push(self.now);
    }

    fn renewed(&self, span: std::ops::Range<Timestamp>) -> usize {
        self.answered.iter().filter(|(at, _)| span.contains(at)).map(|(_, count)| count).sum()
    }

    /// The largest number of renewals in any span of this length that begins with a request in `within`.
    fn busiest(&self, length: Duration, within: std::ops::Range<Timestamp>) -> usize {
        let starts = self.answered.iter().map(|(at, _)| *at).filter(|at| within.contains(at));
        starts.map(|start| self.renewed(start..start + length)).max().unwrap_or(0)
    }

    /// In renewals per second, from the first renewal on and over whole cycles.
    fn mean_rate(&self, span: std::ops::Range<Timestamp>) -> f64 {
        self.renewed(span.clone()) as f64 / span.end.since(span.start).as_secs_f64()
    }
}

fn never() -> std::ops::Range<Timestamp> {
    moment(0)..moment(0)
}

#[test]
fn ten_thousand_due_in_one_hour_come_in_full_requests_and_without_a_burst() {
    // A quarter of four hours: the first renewals of all of them fall into one hour.
    let mut agent = Agent::new(IDENTITIES, 4 * HOUR);
    let first = moment(0) + Duration::from_mins(48);
    agent.live(first + HOUR, never(), None);
    let renewed = agent.renewed(moment(0)..first + HOUR);
    assert!(agent.held.iter().all(|held| held.life.is_some_and(|life| life.from > moment(0))));
    assert_eq!(agent.answered.len(), renewed.div_ceil(BATCH), "requests for {renewed}");

    let mean = IDENTITIES as f64 / 3600.0;
    for length in [Duration::from_mins(1), Duration::from_mins(5), Duration::from_mins(15)] {
        let burst = agent.busiest(length, moment(0)..first + HOUR) as f64;
        let bound = 2.0 * mean * length.as_secs_f64();
        assert!(burst <= bound, "{burst} in {length:?}, twice the mean is {bound}");
    }
}

#[test]
fn never_a_burst_over_twice_the_mean_rate_in_later_cycles() {
    let mut agent = Agent::new(IDENTITIES, 4 * HOUR);
    let end = moment(0) + 24 * HOUR;
    agent.live(end, never(), None);
    let span = moment(0) + 8 * HOUR..end - HOUR;
    let mean = agent.mean_rate(span.clone());
    for length in [Duration::from_mins(2), Duration::from_mins(10), HOUR] {
        let burst = agent.busiest(length, moment(0)..span.end) as f64;
        let bound = 2.0 * mean * length.as_secs_f64();
        assert!(burst <= bound, "{burst} in {length:?}, twice the mean is {bound}");
    }
    let renewals = agent.renewed(moment(0)..end);
    let requests = agent.answered.len();
    assert!(requests * BATCH <= renewals * 101 / 100 + BATCH, "{requests} requests for {renewals} renewals");
}

#[test]
fn nothing_ends_while_the_authority_is_away_for_half_a_life() {
    for (identities, length, retry_after) in
        [(2000, HOUR, None), (500, HOUR, Some(Duration::from_mins(10))), (500, Duration::from_mins(4), None)]
    {
        for start in [0.0, 0.21, 0.32, 0.449, 0.6] {
            let mut agent = Agent::new(identities, length);
            let begin = moment(0) + length.mul_f64(start);
            let outage = begin..begin + length / 2;
            agent.live(moment(0) + 2 * length, outage.clone(), retry_after);
            assert!(agent.closest >= length / 50, "{:?} of {length:?} was left, from {start}", agent.closest);
            assert!(agent.held.iter().all(|held| held.failed.is_none()));
        }
    }
}

#[test]
fn those_who_missed_the_authority_do_not_come_back_at_once() {
    let mut agent = Agent::new(4000, HOUR);
    let back = moment(0) + HOUR.mul_f64(0.7);
    agent.live(moment(0) + HOUR, back - HOUR / 2..back, None);
    let first_seconds = agent.renewed(back..back + Duration::from_secs(5));
    assert!(first_seconds <= agent.held.len() / 10, "{first_seconds} in the first five seconds");
    let attempts_a_minute = agent.unanswered.len() / 30;
    assert!(attempts_a_minute <= 120, "{attempts_a_minute} requests a minute to an authority that is away");
}
