//! A thousand agents against one server that restarts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery_agent::identities::X509State;
use chancery_agent::workload::Workload;
use chancery_agent::{Agent, Environment};
use chancery_client::Client;
use chancery_types::{Claims, Clock as _, SystemClock, SystemRandom, Timestamp};
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;

use crate::authority::Authority;
use crate::program::{PATIENCE, conditions};

const AGENTS: usize = 1_000;
const WORKLOADS: usize = 3;
/// Requests of the operator at once, and agents that begin at once.
const AT_ONCE: usize = 32;
const STEADY: Duration = Duration::from_secs(20);
/// Agents come back over the three seconds after they lost the server, of which its restart takes a part. Faster than
/// this is a herd.
const MOST_A_SECOND: usize = AGENTS / 2;

/// One agent with everything but doors, and what its workloads are told.
struct Member {
    agent: Agent,
    workloads: Vec<watch::Receiver<Arc<X509State>>>,
}

/// Each agent has a credential, a stream over TLS and three workloads of its own. The server is restarted at once,
/// after half a minute, and as one that asks for patience.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_thousand_agents_and_a_server_that_restarts() {
    let mut authority = Authority::new().await;
    println!("{}", conditions());
    let directories = register(&authority).await;
    let begun = Instant::now();
    let fleet: Vec<Member> = stream::iter(directories.into_iter().enumerate())
        .map(|(number, directory)| begin(&authority, number, directory))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    println!("{AGENTS} agents with {WORKLOADS} workloads each began in {:.1?}", begun.elapsed());
    let busy = authority.server().processor_time();
    tokio::time::sleep(STEADY).await;
    let steady = (authority.server().processor_time() - busy).as_secs_f64() / STEADY.as_secs_f64();
    println!("steady: server {:.1} % of a core, {:.0} MiB", steady * 100.0, authority.server().resident());
    for away in [Duration::ZERO, Duration::from_secs(30)] {
        restart(&mut authority, &fleet, away).await;
    }
    // An agent that comes back asks for its stream and about each certificate: half of that is answered with 429 and
    // a Retry-After at first.
    println!("\nfrom now on an agent may ask once a second, twice at once");
    authority.allow_each_caller(1, 2);
    restart(&mut authority, &fleet, Duration::ZERO).await;
    println!("{}", conditions());
    stream::iter(fleet).for_each_concurrent(AT_ONCE, |member| member.agent.stop()).await;
}

async fn restart(authority: &mut Authority, fleet: &[Member], away: Duration) {
    let before = serials(fleet);
    let stopped = Instant::now();
    authority.stop().await;
    tokio::time::sleep(away).await;
    authority.start().await;
    let gone = stopped.elapsed();
    let (back, begun) = (SystemClock.now(), Instant::now());
    println!("\nserver stopped, started again after {away:?}: away for {gone:.1?}");
    println!("second  streams opened  server % of a core");
    let mut shares = Vec::new();
    let mut busy = authority.server().processor_time();
    let mut connected = vec![None; fleet.len()];
    while connected.iter().any(Option::is_none) {
        assert!(begun.elapsed() < PATIENCE, "{} are not back", connected.iter().flatten().count());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = authority.server().processor_time();
        shares.push(((now - busy).as_secs_f64() * 100.0).round());
        busy = now;
        for (connected, member) in connected.iter_mut().zip(fleet) {
            *connected = connected.or_else(|| member.agent.status().server.connected_since);
        }
    }
    let connected: Vec<Timestamp> = connected.into_iter().flatten().collect();
    let mut seconds = vec![0; shares.len() + 1];
    for at in &connected {
        let second = usize::try_from(at.since(back).as_secs()).unwrap();
        seconds[second.min(shares.len())] += 1;
    }
    for (second, (opened, share)) in seconds.iter().zip(&shares).enumerate() {
        println!("{second:6}  {opened:14}  {share:18}");
    }
    // What follows a stream that began anew has its time.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let last = connected.iter().map(|at| at.since(back)).max().unwrap();
    println!("all {AGENTS} were back after {last:.1?}");
    let answers = answers(&authority.admin()).await;
    println!("{answers}");
    let looked = format!("{{operation=\"status-of-many\",status=\"200\"}} {AGENTS}");
    assert!(answers.contains(&looked), "somebody does not know whether a certificate was revoked");
    let now = SystemClock.now();
    let served = |states: &watch::Receiver<Arc<X509State>>| {
        states.borrow().svids.first().is_some_and(|svid| now < svid.not_after)
    };
    assert!(fleet.iter().all(|member| member.workloads.iter().all(served)), "somebody has nothing");
    let changed = before.iter().zip(serials(fleet)).filter(|(before, after)| **before != *after).count();
    println!("agents with a certificate that was replaced meanwhile: {changed}");
    let most = seconds.iter().max().unwrap();
    assert!(*most <= MOST_A_SECOND, "{most} in one second");
}

/// What the server has answered since it began, by kind.
async fn answers(admin: &Client) -> String {
    let counts = ["chancery_http_requests_total", "chancery_tls_handshakes"];
    let is_one = |line: &&str| counts.iter().any(|name| line.starts_with(name));
    let metrics = admin.metrics().await.unwrap();
    let metrics = String::from_utf8_lossy(&metrics);
    metrics.lines().filter(is_one).collect::<Vec<_>>().join("\n")
}

fn serials(fleet: &[Member]) -> Vec<Vec<String>> {
    let of = |states: &watch::Receiver<Arc<X509State>>| {
        states.borrow().svids.iter().map(|svid| svid.serial.to_string()).collect::<String>()
    };
    fleet.iter().map(|member| member.workloads.iter().map(of).collect()).collect()
}

/// Registers the nodes and what runs on them.
async fn register(authority: &Authority) -> Vec<PathBuf> {
    let (begun, admin) = (Instant::now(), &authority.admin());
    let directories = stream::iter(0..AGENTS)
        .map(|number| async move {
            let node = format!("node/{number}");
            let directory = authority.register_node(admin, &node).await;
            for workload in 0..WORKLOADS {
                let name = format!("on/{number}/{workload}");
                authority.register(admin, &name, &node, &workload.to_string()).await;
            }
            directory
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    println!("{AGENTS} nodes with {WORKLOADS} identities each were registered in {:.1?}", begun.elapsed());
    directories
}

async fn begin(authority: &Authority, number: usize, directory: PathBuf) -> Member {
    let environment = Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
    let mut agent = Agent::begin(authority.agent_config(&directory), environment).await.unwrap();
    let identities = agent.ready().await.unwrap();
    let mut workloads = Vec::with_capacity(WORKLOADS);
    for workload in 0..WORKLOADS {
        let mut claims = Claims::new();
        claims.insert("unix.uid", workload.to_string());
        let states = identities.x509(&Workload { pid: 1, claims }).await;
        assert_eq!(states.borrow().svids.len(), 1, "agent {number}");
        workloads.push(states);
    }
    Member { agent, workloads }
}
