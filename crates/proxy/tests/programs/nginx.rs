//! nginx as Debian ships it, with the recipe as it is shipped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::running::{free_address, skipped};
use crate::world::{Load, Program, World, recipe};

/// The recipe with paths and address of this test.
pub(crate) fn configuration(recipe_name: &str, home: &Path, address: SocketAddr) -> PathBuf {
    let home_text = home.to_str().unwrap();
    let mut text = recipe(recipe_name)
        .replace("/run/nginx.pid", &format!("{home_text}/nginx.pid"))
        .replace("/var/log/nginx", home_text)
        .replace("/etc/nginx/tls", home_text)
        .replace("/etc/nginx/crl", home_text)
        .replace("listen 443 ssl", &format!("listen {address} ssl"))
        .replace("worker_processes auto", "worker_processes 2");
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {home_text}/{kind};\n"))
        .concat();
    text = text.replace("http {\n", &format!("http {{\n{temporary}"));
    let path = home.join("nginx.conf");
    std::fs::write(&path, text).unwrap();
    path
}

pub(crate) fn start(configuration: &Path) -> Option<Program> {
    let log = std::fs::File::create(configuration.with_extension("stderr")).unwrap();
    let mut nginx = Command::new("/usr/sbin/nginx");
    Program::start(nginx.args(["-g", "daemon off;", "-c"]).arg(configuration).stderr(log)).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_client_is_turned_away_and_no_other_notices() {
    let world = World::new().await;
    let home = world.home("nginx");
    world.server_files(&home, "nginx").await;
    let (good, bad) = (world.running.enroll("good").await, world.running.enroll("bad").await);
    let replaced = [("/etc/nginx/crl", home.as_path()), ("/run/nginx.pid", &home.join("nginx.pid"))];
    let config = world.crl_sync_config("nginx", &replaced);
    let mut sync = world.crl_sync(config).await;
    // nginx is not there yet: the file is, and the program could not be told.
    sync.once().await.unwrap_err();

    let address = free_address();
    let Some(_nginx) = start(&configuration("nginx.conf", &home, address)) else {
        return skipped("a_revoked_client_is_turned_away_and_no_other_notices", "nginx is not installed");
    };
    let (good, bad_client) = (world.client(Some(&good)), world.client(Some(&bad)));
    good.until(address, |answer| matches!(answer, Ok(200))).await;
    assert_eq!(bad_client.get(address).await.unwrap(), 200);
    tokio::spawn(sync.run(|| {}));

    let load = Load::begin(&good, address);
    load.more(50).await;
    world.revoke(&bad).await;
    let took = bad_client.until(address, |answer| matches!(answer, Ok(400))).await;
    load.more(50).await;
    println!("nginx: refused after {took:?}; {} requests of others, none failed", load.end().await);
    // Without a certificate nobody gets in either.
    assert_eq!(world.client(None).get(address).await.unwrap(), 400);
}
