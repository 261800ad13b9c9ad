//! Identities that began together: renewed apart, and still a hundred at a time.

use super::*;

/// What an authority saw of the renewals of identities that all began at one moment.
struct Wave {
    lifetime: Duration,
    began: Timestamp,
    /// When each request came, and for how many.
    requests: Vec<(Timestamp, usize)>,
}

impl Wave {
    /// Lives for half of a life, in which every certificate is replaced once and a few of them twice. No certificate
    /// ends meanwhile.
    async fn of(count: usize, lifetime: Duration) -> Self {
        let bench = Bench::with_limits(lifetime, Limits { svids: count, workloads: count, tokens: 1 });
        bench.give(count);
        let states: Vec<_> =
            (0..count).map(|uid| bench.store.subscribe(&workload(uid).claims).unwrap()).collect();
        bench.turn().await;
        assert_eq!(bench.forge.asked(), vec![100; count / 100]);
        let first: Vec<_> = states.iter().map(|state| serials(&state.borrow())).collect();
        bench.forge.requests.lock().unwrap().clear();
        let began = bench.clock.now();
        while bench.clock.now() < began + lifetime / 2 {
            let next = bench.turn().await.unwrap_or(began + lifetime);
            let now = bench.clock.now();
            let ended = states.iter().filter(|state| {
                let state = state.borrow();
                state.svids.first().is_none_or(|svid| svid.not_after <= now)
            });
            assert_eq!(ended.count(), 0, "at {now}");
            bench.clock.set(next.max(now + Duration::from_secs(1)));
        }
        let replaced = states.iter().zip(&first).filter(|(state, first)| serials(&state.borrow()) != **first);
        assert_eq!(replaced.count(), count);
        let requests = bench.forge.requests.lock().unwrap().clone();
        Self { lifetime, began, requests }
    }

    fn renewed(&self) -> usize {
        self.requests.iter().map(|(_, items)| items).sum()
    }

    fn is_full(&self, from: f64, until: f64) -> bool {
        let span = self.began + self.lifetime.mul_f64(from)..self.began + self.lifetime.mul_f64(until);
        self.requests.iter().filter(|(at, _)| span.contains(at)).all(|(_, items)| *items == 100)
    }

    /// The share of the renewals that went in full requests. The second wave begins thin, and nothing is renewed
    /// before the authority's window opens, so its first requests cannot be full.
    fn in_full_requests(&self) -> f64 {
        let full = self.requests.iter().filter(|(_, items)| *items == 100).count() * 100;
        full as f64 / self.renewed() as f64
    }

    /// The most renewals in any span of this length, as a multiple of the mean of the whole wave.
    fn burst(&self, span: Duration) -> f64 {
        let within = |start: Timestamp| {
            let all = self.requests.iter().filter(|(at, _)| (start..start + span).contains(at));
            all.map(|(_, items)| items).sum::<usize>()
        };
        let most = self.requests.iter().map(|(at, _)| within(*at)).max().unwrap();
        let (first, last) = (self.requests[0].0, self.requests[self.requests.len() - 1].0);
        let mean = self.renewed() as f64 / last.since(first).as_secs_f64();
        most as f64 / (mean * span.as_secs_f64())
    }
}

#[tokio::test]
async fn two_thousand_that_began_together_are_renewed_apart_a_hundred_at_a_time() {
    let wave = Wave::of(2_000, HOUR).await;
    assert!(wave.is_full(0.0, 0.4), "the first wave asks in full requests: {:?}", wave.requests);
    // Eight in a hundred belong to the second wave; twice as many would be a fault.
    assert!(wave.in_full_requests() > 0.85, "{:?}", wave.requests);
    assert!(wave.burst(Duration::from_mins(5)) < 2.0, "{:?}", wave.requests);
}

/// `cargo test -p chancery-agent --lib ten_thousand -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement"]
async fn ten_thousand_that_are_due_in_one_hour() {
    // A quarter of four hours.
    let wave = Wave::of(10_000, 4 * HOUR).await;
    let renewed = wave.renewed();
    let partial = wave.requests.iter().filter(|(_, items)| *items < 100).count();
    println!(
        "{renewed} renewals in {} requests, {partial} of them not full; none ended",
        wave.requests.len()
    );
    for minutes in [2, 5, 15] {
        let burst = wave.burst(Duration::from_mins(minutes));
        println!("most in {minutes} minutes: {burst:.2} x the mean");
        assert!(burst < 2.0, "{burst}");
    }
    assert!(wave.is_full(0.0, 0.4) && wave.in_full_requests() > 0.85, "{:?}", wave.requests);
}
