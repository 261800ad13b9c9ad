use std::time::Duration;

use chancery_types::{IssuerEpoch, SerialNumber};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn hook(settings: serde_json::Value) -> Result<Hook, String> {
    Hook::try_from(serde_json::from_value::<HookSettings>(settings).unwrap())
}

fn shell(script: &str) -> Hook {
    hook(serde_json::json!({ "command": ["/bin/sh", "-c", script], "timeout": "10s" })).unwrap()
}

fn occasion() -> Occasion {
    Occasion {
        reason: Reason::Issued,
        sink: "web".to_owned(),
        directory: "/etc/web".into(),
        certificate: Some(OccasionCertificate {
            spiffe_id: SpiffeId::parse("spiffe://example.org/web").unwrap(),
            serial: SerialNumber::compose(IssuerEpoch(1), 2, [3; 8]).unwrap(),
            not_after: Timestamp::from_seconds(1_800_000_000),
        }),
    }
}

#[tokio::test]
async fn command_gets_the_documented_variables_and_no_others() {
    let HookOutcome::Done { output } =
        hook(serde_json::json!({ "command": ["/usr/bin/env"] })).unwrap().run(&occasion()).await
    else {
        panic!()
    };
    let mut names: Vec<&str> = output.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    let expected = [
        "CHANCERY_DIRECTORY",
        "CHANCERY_NOT_AFTER",
        "CHANCERY_REASON",
        "CHANCERY_SERIAL",
        "CHANCERY_SINK",
        "CHANCERY_SPIFFE_ID",
        "PATH",
    ];
    assert_eq!(names, expected);
    assert!(output.contains("CHANCERY_SPIFFE_ID=spiffe://example.org/web"), "{output}");
    assert!(output.contains("CHANCERY_REASON=issued"), "{output}");
}

#[tokio::test]
async fn arguments_are_not_read_by_a_shell() {
    let echo = hook(serde_json::json!({ "command": ["/bin/echo", "$(id)", "; rm -rf x"] })).unwrap();
    assert_eq!(echo.run(&occasion()).await, HookOutcome::Done { output: "$(id) ; rm -rf x".to_owned() });
}

#[tokio::test]
async fn failure_says_how_and_what_was_printed() {
    let outcome = shell("echo configuration is broken >&2; exit 3").run(&occasion()).await;
    let HookOutcome::Failed { how, output } = outcome else { panic!("{outcome:?}") };
    assert_eq!((how.as_str(), output.as_str()), ("exit status: 3", "configuration is broken"));
    let missing = hook(serde_json::json!({ "command": ["/no/such/program"] })).unwrap();
    assert!(matches!(missing.run(&occasion()).await, HookOutcome::NotStarted { .. }));
}

#[tokio::test]
async fn output_is_bounded_and_does_not_stop_the_program() {
    let HookOutcome::Done { output } =
        shell("head -c 10000000 /dev/zero | tr '\\0' x").run(&occasion()).await
    else {
        panic!()
    };
    assert_eq!(output.len(), OUTPUT_LIMIT);
}

#[tokio::test]
async fn hook_that_hangs_is_ended_with_everything_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; echo waiting; wait", pid.display());
    let hanging =
        hook(serde_json::json!({ "command": ["/bin/sh", "-c", script], "timeout": "700ms" })).unwrap();
    let outcome = hanging.run(&occasion()).await;
    assert!(matches!(&outcome, HookOutcome::TimedOut { output, .. } if output == "waiting"), "{outcome:?}");
    let grandchild = std::fs::read_to_string(&pid).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", grandchild.trim()));
    assert!(stat.is_err() || stat.unwrap().contains(") Z"), "it is still there");
}

#[tokio::test]
async fn hook_that_leaves_a_process_behind_does_not_hang() {
    let outcome = shell("sleep 5 & echo started").run(&occasion()).await;
    assert_eq!(outcome, HookOutcome::Done { output: "started".to_owned() });
}

/// A process that writes `told` when it gets SIGHUP.
async fn listener(directory: &std::path::Path) -> tokio::process::Child {
    let script = format!(
        "trap 'echo told > {0}/told; exit 0' HUP; echo $$ > {0}/new; mv {0}/new {0}/pid; while :; do sleep 0.05; done",
        directory.display()
    );
    let child =
        tokio::process::Command::new("/bin/sh").arg("-c").arg(script).kill_on_drop(true).spawn().unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !directory.join("pid").exists() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child
}

#[tokio::test]
async fn signal_reaches_the_writer_of_the_pidfile() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = listener(directory.path()).await;
    let settings = serde_json::json!({ "pidfile": directory.path().join("pid"), "signal": "SIGHUP" });
    assert!(hook(settings).unwrap().run(&occasion()).await.is_done());
    assert!(child.wait().await.unwrap().success());
    assert!(directory.path().join("told").exists());
}

#[tokio::test]
async fn stale_pidfile_signals_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = listener(directory.path()).await;
    let pidfile = directory.path().join("pid");
    // The file of a process that ended long ago, whose number this one has got.
    let file = std::fs::File::options().write(true).open(&pidfile).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    let outcome = hook(serde_json::json!({ "pidfile": &pidfile })).unwrap().run(&occasion()).await;
    let HookOutcome::NoProcess { why } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("began after"), "{why}");
    assert!(child.try_wait().unwrap().is_none());

    let pid = child.id().unwrap();
    let other = hook(serde_json::json!({ "pid": pid, "executable": "/bin/false" })).unwrap();
    let outcome = other.run(&occasion()).await;
    assert!(
        matches!(&outcome, HookOutcome::NoProcess { why } if why.contains("does not run /bin/false")),
        "{outcome:?}"
    );

    let pinned = hook(serde_json::json!({ "pid": pid })).unwrap();
    child.kill().await.unwrap();
    assert!(matches!(pinned.run(&occasion()).await, HookOutcome::NoProcess { .. }));
    std::fs::write(&pidfile, "-1\n").unwrap();
    let outcome = hook(serde_json::json!({ "pidfile": &pidfile })).unwrap().run(&occasion()).await;
    assert!(matches!(outcome, HookOutcome::NoProcess { .. }));
}

#[tokio::test]
async fn pidfile_of_a_user_reaches_only_processes_of_that_user() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED pidfile_of_a_user_reaches_only_processes_of_that_user: only root gives files away");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = listener(directory.path()).await;
    let pidfile = directory.path().join("pid");
    std::os::unix::fs::chown(&pidfile, Some(1234), None).unwrap();
    let outcome = hook(serde_json::json!({ "pidfile": &pidfile })).unwrap().run(&occasion()).await;
    assert!(
        matches!(&outcome, HookOutcome::NoProcess { why } if why.contains("not of user 1234")),
        "{outcome:?}"
    );
    assert!(child.try_wait().unwrap().is_none());
}

#[tokio::test]
async fn request_carries_the_occasion_and_its_status_counts() {
    for (status, done) in [("204 No Content", true), ("500 Oh No", false)] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/reload?now=1", listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut buffer = [0; 1024];
                let length = stream.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..length]);
            }
            stream
                .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())
                .await
                .unwrap();
            String::from_utf8(request).unwrap()
        };
        let hook = hook(serde_json::json!({ "url": url })).unwrap();
        let occasion = occasion();
        let (request, outcome) = tokio::join!(serve, hook.run(&occasion));
        assert!(request.starts_with("POST /reload?now=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\"serial\":\"01000100"), "{request}");
        assert_eq!(outcome.is_done(), done, "{outcome:?}");
    }
}

#[test]
fn settings_that_make_no_hook_are_explained() {
    for (settings, part) in [
        (serde_json::json!({}), "give one of command"),
        (serde_json::json!({ "command": ["/bin/true"], "url": "http://127.0.0.1/" }), "not 2"),
        (serde_json::json!({ "command": [] }), "command is empty"),
        (serde_json::json!({ "command": ["nginx"] }), "no shell to search"),
        (serde_json::json!({ "url": "http://192.0.2.1/" }), "leads off this machine"),
        (serde_json::json!({ "url": "https://127.0.0.1/" }), "is not plain http"),
        (serde_json::json!({ "systemd_unit": "--force" }), "is not a unit"),
        (serde_json::json!({ "systemd_unit": "a.service; reboot" }), "is not a unit"),
        (serde_json::json!({ "pidfile": "run/pid" }), "is not an absolute path"),
        (serde_json::json!({ "pidfile": "/run/pid", "signal": "KILL" }), "none of HUP"),
        (serde_json::json!({ "command": ["/bin/true"], "signal": "HUP" }), "go with pidfile or pid"),
        (serde_json::json!({ "command": ["/bin/true"], "timeout": "2h" }), "from 100ms to 10m"),
    ] {
        let error = hook(settings.clone()).unwrap_err();
        assert!(error.contains(part), "{settings}: {error}");
    }
}
