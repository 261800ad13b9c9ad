//! How many ledgers an authority needs: a simulation of commits in PostgreSQL, driven by what they cost when measured.
//!
//! ```text
//! cargo run --release -p chancery-ledger --example plan -- [rate=50000] [live=100000000] [replicas=3] \
//!     [here=16] [there=57] [issue=171] [trip=0.2] [sync=3.7] [sync99=14.2] [callers=0] [ledgers=1,2,4,6,8,12,16]
//! ```
//! Costs are processor time for each certificate in microseconds: `here` in the replica's sequencer, `there` in the
//! database, `issue` for everything else. `trip` is a round trip to the database, `sync` and `sync99` the median and the
//! 99th percentile of an fsync, in milliseconds. All are what `--example replicas` and `chancery bench` print.
//!
//! With `callers` each replica has so many, and each asks again when it was answered: what `--example replicas`
//! measures, so that the simulation can be held against the measurement. Without, certificates are asked for at `rate`
//! by very many who do not know of each other, spread evenly over the ledgers.

#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "an example prints what it finds")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::error::Error;

/// Proposals of one commit at the most.
const MOST: usize = 8192;
/// Simulated seconds; the first is not counted.
const SECONDS: f64 = 11.0;
const WARM_UP: f64 = 1.0;
/// Of PostgreSQL, measured: bytes of an enrolment in `entries` and `signatures`, in `model`, in the write-ahead log.
const LOG_BYTES: f64 = 1500.0;
const MODEL_BYTES: f64 = 860.0;
const WAL_BYTES: f64 = 3050.0;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is simulated. Times in seconds.
#[derive(Debug, Clone, Copy)]
struct Costs {
    here: f64,
    there: f64,
    trip: f64,
    sync: f64,
    sync99: f64,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
enum Load {
    /// So many certificates a second from each replica's callers.
    Open(f64),
    /// So many callers at each replica, each with one question at a time.
    Closed(usize),
}

/// What happens next to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Somebody asks it.
    Asked(usize),
    /// It has waited for company.
    Gathered(usize),
    /// Its batch is durable.
    Recorded(usize),
}

#[derive(Debug, Default, Clone)]
struct Replica {
    /// When each was asked that waits.
    waiting: VecDeque<f64>,
    /// When each was asked that is in the batch under way.
    under_way: Vec<f64>,
    /// Whether it gathers, waits for the lock or holds it.
    is_busy: bool,
    /// Proposals in its last batch.
    last: usize,
}

/// One ledger: its head row, which one replica at a time has locked, and its replicas.
struct Simulation {
    costs: Costs,
    load: Load,
    now: f64,
    replicas: Vec<Replica>,
    /// Who waits for the lock.
    queue: VecDeque<usize>,
    is_locked: bool,
    events: BinaryHeap<Reverse<(Moment, Event)>>,
    random: Random,
    found: Found,
}

#[derive(Debug, Default)]
struct Found {
    latencies: Vec<f64>,
    commits: usize,
    /// Seconds for which the database's process for the lock's holder computed.
    computing: f64,
    /// Seconds for which the head was locked.
    locked: f64,
}

/// A moment, ordered.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Moment(f64);

impl Eq for Moment {}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The same numbers in every run (xorshift64*).
struct Random(u64);

impl Random {
    /// Above 0 and at most 1.
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.uniform().ln()
    }

    /// Log-normal, by its median and its 99th percentile.
    fn spread(&mut self, median: f64, high: f64) -> f64 {
        let normal =
            (-2.0 * self.uniform().ln()).sqrt() * (2.0 * std::f64::consts::PI * self.uniform()).cos();
        median * ((high / median).ln() / 2.326 * normal).exp()
    }
}

impl Simulation {
    fn new(costs: Costs, load: Load, replicas: usize) -> Self {
        let mut simulation = Self {
            costs,
            load,
            now: 0.0,
            replicas: vec![Replica::default(); replicas],
            queue: VecDeque::new(),
            is_locked: false,
            events: BinaryHeap::new(),
            random: Random(0x9E37_79B9_7F4A_7C15),
            found: Found::default(),
        };
        for replica in 0..replicas {
            match load {
                Load::Open(_) => simulation.at(0.0, Event::Asked(replica)),
                Load::Closed(callers) => {
                    (0..callers).for_each(|_| simulation.at(0.0, Event::Asked(replica)));
                }
            }
        }
        simulation
    }

    fn run(mut self) -> Found {
        while let Some(Reverse((Moment(now), event))) = self.events.pop() {
            if now > SECONDS {
                break;
            }
            self.now = now;
            match event {
                Event::Asked(replica) => self.asked(replica),
                Event::Gathered(replica) => self.gathered(replica),
                Event::Recorded(replica) => self.recorded(replica),
            }
        }
        self.found
    }

    fn at(&mut self, moment: f64, event: Event) {
        self.events.push(Reverse((Moment(moment), event)));
    }

    fn asked(&mut self, replica: usize) {
        self.replicas[replica].waiting.push_back(self.now);
        if let Load::Open(rate) = self.load {
            let pause = self.random.exponential(1.0 / rate);
            self.at(self.now + pause, Event::Asked(replica));
        }
        self.begin(replica);
    }

    /// A replica that has something to record waits for company where its last batch had some.
    fn begin(&mut self, replica: usize) {
        let one = &mut self.replicas[replica];
        if one.is_busy || one.waiting.is_empty() {
            return;
        }
        one.is_busy = true;
        let wait = match one.last {
            0..3 => 0.0,
            3..8 => 0.5e-3,
            8..32 => 2e-3,
            _ => 4e-3,
        };
        self.at(self.now + wait, Event::Gathered(replica));
    }

    /// What is in a batch is settled before the lock is asked for.
    fn gathered(&mut self, replica: usize) {
        let one = &mut self.replicas[replica];
        let count = one.waiting.len().min(MOST);
        one.under_way = one.waiting.drain(..count).collect();
        one.last = count;
        self.queue.push_back(replica);
        self.grant();
    }

    fn grant(&mut self) {
        if self.is_locked {
            return;
        }
        let Some(replica) = self.queue.pop_front() else { return };
        self.is_locked = true;
        let Costs { here, there, trip, sync, sync99 } = self.costs;
        let count = self.replicas[replica].under_way.len() as f64;
        let held = 3.0 * trip + count * (here + there) + self.random.spread(sync, sync99);
        if self.now > WARM_UP {
            self.found.computing += count * there;
            self.found.locked += held;
        }
        self.at(self.now + held, Event::Recorded(replica));
    }

    fn recorded(&mut self, replica: usize) {
        let batch = std::mem::take(&mut self.replicas[replica].under_way);
        self.replicas[replica].is_busy = false;
        self.is_locked = false;
        if self.now > WARM_UP {
            self.found.commits += 1;
            self.found.latencies.extend(batch.iter().map(|asked| self.now - asked));
        }
        if let Load::Closed(_) = self.load {
            for _ in &batch {
                self.at(self.now, Event::Asked(replica));
            }
        }
        self.begin(replica);
        self.grant();
    }
}

fn main() -> Result<()> {
    let words: HashMap<String, String> = std::env::args()
        .skip(1)
        .map(|word| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!("{word} is not NAME=VALUE")),
        })
        .collect::<std::result::Result<_, _>>()?;
    let number =
        |name: &str, otherwise: f64| words.get(name).map_or(Ok(otherwise), |text| text.parse::<f64>());
    let costs = Costs {
        here: number("here", 16.0)? / 1e6,
        there: number("there", 57.0)? / 1e6,
        trip: number("trip", 0.2)? / 1e3,
        sync: number("sync", 3.7)? / 1e3,
        sync99: number("sync99", 14.2)? / 1e3,
    };
    let (rate, live, issue) = (number("rate", 50_000.0)?, number("live", 1e8)?, number("issue", 171.0)?);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    let (replicas, callers) = (number("replicas", 3.0)? as usize, number("callers", 0.0)? as usize);
    let ledgers = words.get("ledgers").map_or("1,2,4,6,8,12,16", String::as_str);
    println!(
        "{:>8}{:>10}{:>10}{:>10}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "ledgers", "asked/s", "done/s", "a commit", "p50 ms", "p99 ms", "locked", "DB core", "WAL MB/s"
    );
    for count in ledgers.split(',') {
        let count: f64 = count.parse()?;
        let load = match callers {
            0 => Load::Open(rate / count / replicas as f64),
            callers => Load::Closed(callers),
        };
        print_line(count, load, replicas, Simulation::new(costs, load, replicas).run());
    }
    if callers == 0 {
        print_needs(rate, live, issue, costs);
    }
    Ok(())
}

fn print_line(ledgers: f64, load: Load, replicas: usize, mut found: Found) {
    let time = SECONDS - WARM_UP;
    let done = found.latencies.len() as f64 / time;
    found.latencies.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| {
        let place = found.latencies.len() * share / 100;
        found.latencies.get(place.min(found.latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let asked = match load {
        Load::Open(rate) => format!("{:.0}", rate * replicas as f64 * ledgers),
        Load::Closed(_) => "-".to_owned(),
    };
    println!(
        "{ledgers:>8}{asked:>10}{:>10.0}{:>10.0}{:>9.1}{:>9.1}{:>8.0}%{:>8.0}%{:>9.0}",
        done * ledgers,
        found.latencies.len() as f64 / found.commits.max(1) as f64,
        at(50) * 1e3,
        at(99) * 1e3,
        found.locked / time * 100.0,
        found.computing / time * 100.0,
        done * WAL_BYTES / 1e6,
    );
}

/// What does not depend on how commits queue.
fn print_needs(rate: f64, live: f64, issue: f64, costs: Costs) {
    let rows: BTreeMap<&str, String> = BTreeMap::from([
        ("1 mean life of a certificate", format!("{:.0} min", live / rate / 60.0)),
        ("2 cores that issue, all replicas", format!("{:.1}", rate * (issue / 1e6 + costs.here))),
        ("3 cores of the databases", format!("{:.1}", rate * costs.there)),
        ("4 read model of what lives", format!("{:.0} GB", live * MODEL_BYTES / 1e9)),
        ("5 log, each day", format!("{:.1} TB", rate * 86_400.0 * LOG_BYTES / 1e12)),
        ("6 write-ahead log, each second", format!("{:.0} MB", rate * WAL_BYTES / 1e6)),
    ]);
    println!();
    for (name, value) in rows {
        println!("{:<40}{value:>12}", &name[2..]);
    }
}
