//! HAProxy as Debian ships it, with the recipe as it is shipped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::running::{free_address, skipped};
use crate::world::{Load, Program, World, recipe};

fn configuration(home: &Path, address: SocketAddr) -> PathBuf {
    let home_text = home.to_str().unwrap();
    let text = recipe("haproxy.cfg")
        .replace("/run/haproxy", home_text)
        .replace("/etc/haproxy/tls", home_text)
        .replace("/etc/haproxy/crl", home_text)
        .replace("bind :8443", &format!("bind {address}"));
    let path = home.join("haproxy.cfg");
    std::fs::write(&path, text).unwrap();
    path
}

fn start(configuration: &Path) -> Option<Program> {
    let home = configuration.parent().unwrap();
    let log = std::fs::File::create(configuration.with_extension("stderr")).unwrap();
    let mut haproxy = Command::new("/usr/sbin/haproxy");
    haproxy.args(["-W", "-db", "-p"]).arg(home.join("haproxy.pid")).arg("-f").arg(configuration);
    Program::start(haproxy.stderr(log)).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_client_is_turned_away_and_no_other_notices() {
    let world = World::new().await;
    let home = world.home("haproxy");
    world.server_files(&home, "haproxy").await;
    let (good, bad) = (world.running.enroll("good").await, world.running.enroll("bad").await);
    let replaced = [("/etc/haproxy/crl", home.as_path()), ("/run/haproxy.pid", &home.join("haproxy.pid"))];
    let mut sync = world.crl_sync(world.crl_sync_config("haproxy", &replaced)).await;
    sync.once().await.unwrap_err();

    let address = free_address();
    let Some(_haproxy) = start(&configuration(&home, address)) else {
        return skipped("a_revoked_client_is_turned_away_and_no_other_notices", "HAProxy is not installed");
    };
    let (good, bad_client) = (world.client(Some(&good)), world.client(Some(&bad)));
    good.until(address, |answer| matches!(answer, Ok(200))).await;
    assert_eq!(bad_client.get(address).await.unwrap(), 200);
    tokio::spawn(sync.run(|| {}));

    let load = Load::begin(&good, address);
    load.more(50).await;
    world.revoke(&bad).await;
    let took = bad_client.until(address, Result::is_err).await;
    load.more(50).await;
    println!("HAProxy: refused after {took:?}; {} requests of others, none failed", load.end().await);
    assert!(world.client(None).get(address).await.is_err());
}
