//! The proxy between programs that we did not write: curl and `openssl s_client` before it, nginx behind it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::running::{free_address, skipped};
use crate::tunnel::start;
use crate::world::{PATIENCE, Program, World, write_files};

/// nginx with plain HTTP/1.1, plain HTTP/2 and HTTP/1.1 behind a PROXY header.
async fn nginx(home: &Path, ports: [SocketAddr; 3]) -> Option<Program> {
    let [http1, http2, header] = ports;
    let home_text = home.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {home_text}/{kind};"))
        .concat();
    let text = format!(
        "daemon off; pid {home_text}/nginx.pid; error_log {home_text}/error.log;\nevents {{ }}\n\
         http {{ access_log off; {temporary}\n\
           server {{ listen {http1}; location / {{ return 200 \"$server_protocol\\n\"; }} }}\n\
           server {{ listen {http2} http2; location / {{ return 200 \"$server_protocol\\n\"; }} }}\n\
           server {{ listen {header} proxy_protocol; location / {{ return 200 \"$proxy_protocol_addr\\n\"; }} }} }}\n"
    );
    std::fs::write(home.join("nginx.conf"), text).unwrap();
    let mut nginx = Command::new("/usr/sbin/nginx");
    let program = Program::start(nginx.arg("-c").arg(home.join("nginx.conf")).stderr(Stdio::null())).ok()?;
    let began = std::time::Instant::now();
    while tokio::net::TcpStream::connect(header).await.is_err() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Some(program)
}

async fn curl(home: &Path, arguments: &[&str], address: SocketAddr) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--cert", "tls.crt", "--key", "tls.key"])
        .args(["--cacert", "../bundle.crt"])
        .args(arguments)
        .arg(format!("https://localhost:{}/", address.port()))
        .current_dir(home)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_speaks_both_versions_of_http_with_nginx_and_openssl_speaks_tls_with_us() {
    const TEST: &str = "curl_speaks_both_versions_of_http_with_nginx_and_openssl_speaks_tls_with_us";
    if Command::new("curl").arg("--version").output().await.is_err() {
        return skipped(TEST, "curl is not installed");
    }
    let world = World::new().await;
    let ports = [free_address(), free_address(), free_address()];
    let Some(_nginx) = nginx(&world.home("nginx"), ports).await else {
        return skipped(TEST, "nginx is not installed");
    };
    let listeners: String = [
        ("one", 0, "http/1.1", ""),
        ("two", 1, "h2", ""),
        ("header", 2, "http/1.1", "send_proxy_header = \"v1\""),
    ]
    .map(|(name, port, alpn, more)| {
        format!(
            "[[listeners]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\n\
                 allow_clients = [\"spiffe://example.org/*\"]\nalpn = [\"{alpn}\"]\n{more}\n",
            ports[port]
        )
    })
    .concat();
    let proxy = start(&world, &listeners).await;
    let at = |name| proxy.address(name).unwrap();
    let home = world.home("client");
    write_files(&home, &world.running.enroll("client").await);
    assert_eq!(curl(&home, &["--http1.1"], at("one")).await, "HTTP/1.1\n");
    assert_eq!(curl(&home, &["--http2"], at("two")).await, "HTTP/2.0\n");
    assert_eq!(
        curl(&home, &["--http2"], at("one")).await,
        "HTTP/1.1\n",
        "only what the backend speaks is offered"
    );
    assert_eq!(curl(&home, &[], at("header")).await, "127.0.0.1\n");

    for version in ["-tls1_2", "-tls1_3"] {
        let mut child = Command::new("openssl")
            .args(["s_client", version, "-quiet", "-verify_return_error", "-CAfile", "../bundle.crt"])
            .args([
                "-connect",
                &at("one").to_string(),
                "-cert",
                "tls.crt",
                "-key",
                "tls.key",
                "-cert_chain",
                "tls.crt",
            ])
            .current_dir(&home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        drop(input);
        assert!(String::from_utf8_lossy(&output.stdout).contains("200 OK"), "{version}");
    }
}
