//! OpenSSL by itself: `s_server` with a directory that it looks lists up in by hash, and what it thinks of the names.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::running::free_address;
use crate::world::{Program, World, write_files};

async fn openssl(arguments: &[&str], path: &Path) -> String {
    let output = Command::new("openssl").args(arguments).arg(path).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_server_finds_the_lists_by_their_names_and_refuses_who_is_on_them() {
    let world = World::new().await;
    let home = world.home("openssl");
    world.server_files(&home, "server").await;
    let (good, bad) = (world.running.enroll("good").await, world.running.enroll("bad").await);
    let lists = home.join("lists");
    let mut sync = world.crl_sync(world.crl_sync_config("openssl", &[("/etc/ssl/chancery", &lists)])).await;
    let report = sync.once().await.unwrap();
    assert_eq!(report.lists.len(), 2, "of the issuer and of the root");
    for file in std::fs::read_dir(&lists).unwrap() {
        let path = file.unwrap().path();
        let hash = openssl(&["crl", "-noout", "-hash", "-in"], &path).await;
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("{hash}.r0"));
    }
    let root = home.join("bundle.crt");
    let hash = openssl(&["x509", "-noout", "-hash", "-in"], &root).await;
    std::fs::copy(&root, lists.join(format!("{hash}.0"))).unwrap();

    let client = world.home("client");
    for (held, revoked, accepted) in
        [(&good, None, true), (&bad, None, true), (&bad, Some(&bad), false), (&good, None, true)]
    {
        if let Some(revoked) = revoked {
            world.revoke(revoked).await;
            crate::running::published(&world.running.server).await;
            sync.once().await.unwrap();
        }
        write_files(&client, held);
        assert_eq!(is_accepted(&home, &lists, &client).await, accepted, "{}", held.response.serial);
    }
    assert!(lists.join(format!("{hash}.0")).exists(), "what is not ours stays");
}

/// Whether `s_client` with these files gets in at an `s_server` that begins anew: one that runs never looks at a list
/// again that it has read (docs/RECIPES.md).
async fn is_accepted(home: &Path, lists: &Path, client: &Path) -> bool {
    let address = free_address();
    let mut server = Command::new("openssl");
    server
        .args(["s_server", "-quiet", "-www", "-crl_check_all", "-verify_return_error", "-Verify", "3"])
        .args(["-accept", &address.to_string()])
        .arg("-CApath")
        .arg(lists)
        .args(["-cert", "tls.crt", "-key", "tls.key", "-cert_chain", "tls.crt"])
        .current_dir(home)
        .stderr(Stdio::null());
    let _server = Program::start(&mut server).unwrap();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut child = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &address.to_string(), "-CAfile", "../openssl/bundle.crt"])
        .args(["-cert", "tls.crt", "-key", "tls.key", "-cert_chain", "tls.crt"])
        .current_dir(client)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // A refusal closes the pipe first.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut input, b"GET / HTTP/1.0\r\n\r\n").await;
    let output = child.wait_with_output().await.unwrap();
    drop(input);
    String::from_utf8_lossy(&output.stdout).contains("200 ok")
}
