//! Three replicas of one authority on one PostgreSQL, real processes under load, while what holds them together breaks:
//! kill -9 of a replica, of the database, and of the network between them.
//!
//! `CHANCERY_CHAOS_MINUTES` makes it long: `scripts/chaos`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "tests and what they share"
)]

#[path = "process/age.rs"]
mod age;
#[path = "../../ledger/tests/replicas/proxy.rs"]
mod network;
mod process;
mod replicas {
    pub(crate) mod cluster;
    pub(crate) mod load;
    pub(crate) mod log_keys;
    pub(crate) mod place;
    pub(crate) mod recovery;
    pub(crate) mod roots;
    pub(crate) mod rotation;
    pub(crate) mod verdict;
}
#[path = "../../ledger/tests/server/mod.rs"]
mod server;

use std::time::{Duration, Instant};

use chancery_types::{Random as _, SystemRandom};
use network::Fault;
use replicas::cluster::{Cluster, REPLICAS, token};
use replicas::load::Load;
use replicas::{log_keys, place, recovery, roots, rotation, verdict};
use server::Server;

/// From the end of a fault to service.
const BACK: Duration = Duration::from_secs(5);

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Replica,
    Database,
    Cut,
    Silence,
}

const TROUBLES: [Trouble; 4] = [Trouble::Replica, Trouble::Database, Trouble::Cut, Trouble::Silence];

/// Breaks something for so long, mends it; how long until the service was back.
async fn break_and_mend(cluster: &mut Cluster, trouble: Trouble, which: usize, long: Duration) -> Duration {
    match trouble {
        Trouble::Replica => {
            cluster.kill(which);
            tokio::time::sleep(long).await;
            cluster.spawn(which);
        }
        Trouble::Database => {
            cluster.database.kill();
            tokio::time::sleep(long).await;
            tokio::task::block_in_place(|| cluster.database.restart());
        }
        Trouble::Cut | Trouble::Silence => {
            let fault = if trouble == Trouble::Cut { Fault::Cut } else { Fault::SwallowAll };
            cluster.networks[which].set(fault);
            tokio::time::sleep(long).await;
            cluster.networks[which].set(Fault::None);
        }
    }
    let mended = Instant::now();
    cluster.serves().await;
    let back = mended.elapsed();
    cluster.each_serves().await;
    println!(
        "{trouble:?} {which} for {long:?}: served again after {back:?}, by each after {:?}",
        mended.elapsed()
    );
    back
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_replicas_lose_nothing_and_give_nothing_twice_whatever_is_killed() {
    let Some(database) = Server::start() else { return };
    let minutes: Option<u64> =
        std::env::var("CHANCERY_CHAOS_MINUTES").ok().and_then(|text| text.parse().ok());
    let mut cluster = Cluster::start(database).await;
    let load = Load::start(&cluster, 6).await;
    let mut backs = Vec::new();
    match minutes {
        None => {
            for (which, trouble) in TROUBLES.into_iter().enumerate() {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let long = Duration::from_millis(700);
                let back = break_and_mend(&mut cluster, trouble, which % REPLICAS, long).await;
                backs.push((trouble, back));
            }
        }
        Some(minutes) => {
            let until = Instant::now() + Duration::from_secs(60 * minutes);
            while Instant::now() < until {
                let mut dice = [0_u8; 4];
                SystemRandom.fill(&mut dice).unwrap();
                let trouble = TROUBLES[usize::from(dice[0]) % TROUBLES.len()];
                let long = Duration::from_millis(200 + 30 * u64::from(dice[1]));
                tokio::time::sleep(Duration::from_millis(10 * u64::from(dice[2]))).await;
                let which = usize::from(dice[3]) % REPLICAS;
                let back = break_and_mend(&mut cluster, trouble, which, long).await;
                backs.push((trouble, back));
            }
        }
    }
    let tally = load.stop().await;
    println!("{tally}");
    verdict::pass(&cluster, &tally).await;
    for trouble in TROUBLES {
        let of_it = backs.iter().filter(|(what, _)| *what == trouble).map(|(_, back)| *back);
        let worst = of_it.clone().max().unwrap_or_default();
        println!("{trouble:?}: {} times, the worst return to service {worst:?}", of_it.count());
    }
    assert!(backs.iter().all(|(_, back)| *back < BACK), "back within {BACK:?}: {backs:?}");
    assert!(tally.enrolled.len() > 10 && !tally.revoked.is_empty(), "there was load: {tally}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_that_came_back_older_is_signed_over_by_no_replica() {
    let Some(database) = Server::start() else { return };
    let mut cluster = Cluster::start(database).await;
    tokio::task::block_in_place(|| cluster.database.back_up());
    // Recorded and acknowledged after the backup, and published to every replica's directory.
    for address in cluster.addresses.clone() {
        cluster.operator(address).create_token(&token()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::task::block_in_place(|| cluster.database.restore());
    for address in cluster.addresses.clone() {
        let until = Instant::now() + Duration::from_secs(20);
        // Until it has reconnected, the database is merely away.
        let refused = loop {
            let error = cluster.operator(address).create_token(&token()).await.unwrap_err().to_string();
            if error.contains("two ways out") {
                break error;
            }
            assert!(Instant::now() < until, "{address}: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(refused.contains("restored from a backup"), "{refused}");
        let ready = format!("{:?}", cluster.client(address, None).readyz().await.unwrap_err());
        assert!(ready.contains("not-ready") && ready.contains("two ways out"), "{ready}");
    }
    // Nor by one that starts now: it has the checkpoint in its own directory.
    for which in 0..REPLICAS {
        cluster.kill(which);
        let said = tokio::task::block_in_place(|| cluster.refuses_to_serve(which));
        assert!(said.contains("two ways out") && said.contains("were published"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_an_older_database_lacks_comes_from_a_backup_or_the_log_is_over() {
    let Some(database) = Server::start() else { return };
    let mut cluster = Cluster::start(database).await;
    tokio::task::block_in_place(|| recovery::what_an_older_database_lacks_comes_from_a_backup(&mut cluster));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_living_authority_moves_into_a_database_and_back_and_its_certificates_stay() {
    let Some(database) = Server::start() else { return };
    tokio::task::block_in_place(|| place::moves_and_comes_back(&database));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_one_replica_gives_out_another_takes_once_and_a_third_knows() {
    let Some(database) = Server::start() else { return };
    let cluster = Cluster::start(database).await;
    tokio::task::block_in_place(|| place::goes_from_replica_to_replica(&cluster));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_issuer_is_replaced_once_though_the_replica_that_rotates_is_killed_between_any_two_steps() {
    let Some(database) = Server::start() else { return };
    let mut cluster = Cluster::start_rotating(database, &["--spares", "1"]).await;
    rotation::issuers_are_finished_by_another(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_that_a_killed_replica_has_made_is_the_one_that_another_publishes() {
    let Some(database) = Server::start() else { return };
    let mut cluster = Cluster::start_rotating(database, &["--spares", "0"]).await;
    rotation::keys_are_finished_by_another(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_key_of_the_log_signs_at_all_replicas_though_the_one_that_rotates_dies() {
    let Some(database) = Server::start() else { return };
    let mut cluster = Cluster::start_rotating(database, &["--spares", "0"]).await;
    log_keys::another_key_signs_at_all(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_root_that_is_brought_to_one_replica_counts_at_all_though_that_one_dies() {
    let Some(database) = Server::start() else { return };
    let mut cluster = Cluster::start_rotating(database, &["--spares", "0"]).await;
    roots::a_root_that_one_replica_was_brought_counts_at_all(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_that_one_replica_has_made_does_not_sign_before_all_have_it() {
    let Some(database) = Server::start() else { return };
    let mut cluster = Cluster::start_sharing(database, &["--spares", "0"], &["certs"]).await;
    rotation::a_key_that_is_not_everywhere_waits(&mut cluster).await;
}
