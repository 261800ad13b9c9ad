//! How soon a workload has its first certificate, and what a thousand streams cost.

use std::path::Path;
use std::time::{Duration, Instant};

use chancery_agent::proto::workload::X509svidRequest;
use chancery_agent::workload_api::client::{Client, connect};

use crate::authority::{Authority, uid};
use crate::percentiles;
use crate::program::{PATIENCE, conditions};

const STARTS: usize = 50;
const FETCHES: usize = 2_000;
const STREAMS: usize = 1_000;
const IDLE: Duration = Duration::from_secs(30);

/// From the start of the agent's process, with the node's credential on disk, to a certificate in the hands of a
/// process that asks all the time; then fetches from the cache, with and without a thousand streams beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn from_the_start_of_an_agent_to_a_thousand_streams() {
    let authority = Authority::new().await;
    let admin = authority.admin();
    let directory = authority.register_node(&admin, "node/a").await;
    authority.register(&admin, "web", "node/a", &uid()).await;
    let socket = directory.join("api.sock");
    println!("{}", conditions());

    let first = authority.start_agent(&directory, "");
    first_certificate(&socket).await;
    first.stop().await;
    // An agent that has just begun has not read the caller's executable before: these tests, which are large.
    let own = std::fs::metadata(std::env::current_exe().unwrap()).unwrap().len() as f64 / 1e6;
    let always = "[attestation]\nhash = \"always\"\n";
    for (more, what) in [("", "nobody asks for a hash".to_owned()), (always, format!("hash of {own:.0} MB"))]
    {
        let mut starts = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            let begun = Instant::now();
            let agent = authority.start_agent(&directory, more);
            first_certificate(&socket).await;
            starts.push(begun.elapsed());
            agent.stop().await;
        }
        println!("start of the agent to the first certificate, {what}: {}", percentiles(starts));
    }

    let agent = authority.start_agent(&directory, "");
    let mut client = first_certificate(&socket).await;
    println!("fetch from the cache, open connection: {}", percentiles(fetches(&mut client).await));
    println!("agent: {:.1} MiB resident", agent.resident());

    let (mut held, mut opened) = (Vec::with_capacity(STREAMS), Vec::with_capacity(STREAMS));
    for _ in 0..STREAMS {
        let begun = Instant::now();
        let mut client = connect(&socket).await.unwrap();
        let mut stream = client.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        opened.push(begun.elapsed());
        held.push((client, stream));
    }
    println!("connection, attestation and first answer of {STREAMS} streams: {}", percentiles(opened));
    println!("fetch from the cache beside them: {}", percentiles(fetches(&mut client).await));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let resident = agent.resident();
    let busy = agent.processor_time();
    tokio::time::sleep(IDLE).await;
    let idle = (agent.processor_time() - busy).as_secs_f64() / IDLE.as_secs_f64();
    println!(
        "agent with {STREAMS} streams: {resident:.1} MiB resident, idle {:.2} % of a core",
        idle * 100.0
    );
    println!("{}", conditions());
    assert!(resident < 128.0, "{resident} MiB");
    assert!(idle < 0.01, "{idle}");
    agent.stop().await;
}

/// Asks until there is an agent that answers.
async fn first_certificate(socket: &Path) -> Client {
    let begun = Instant::now();
    loop {
        if let Ok(mut client) = connect(socket).await
            && let Ok(answer) = client.fetch_x509svid(X509svidRequest {}).await
            && let Ok(Some(message)) = answer.into_inner().message().await
        {
            assert_eq!(message.svids.len(), 1);
            return client;
        }
        assert!(begun.elapsed() < PATIENCE, "no certificate");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn fetches(client: &mut Client) -> Vec<Duration> {
    let mut times = Vec::with_capacity(FETCHES);
    for _ in 0..FETCHES {
        let begun = Instant::now();
        let mut stream = client.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        times.push(begun.elapsed());
    }
    times
}
