//! Attestation of real processes: each of them connects to a socket, and then does what an honest or a hostile one
//! does.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod workload_process;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chancery_agent::attest::{AttestorConfig, Hashing, LinuxAttestor, RawAttestorConfig, RawEngine};
use chancery_agent::workload::{AttestationError, Attestor, Depth, Process, Workload};
use chancery_types::{ClaimValue, Digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use workload_process::{ControlGroup, Door, Running, Started, append, is_root, program};

fn attestor() -> LinuxAttestor {
    LinuxAttestor::new(AttestorConfig::default())
}

fn pinned(attestor: &LinuxAttestor, running: &Running) -> Arc<dyn Process> {
    attestor.pin(running.socket.as_fd()).unwrap()
}

/// Another content at another path.
fn other_program(directory: &Path, name: &str) -> PathBuf {
    let path = program(directory, name);
    append(&path, name);
    path
}

fn text(workload: &Workload, claim: &str) -> Option<String> {
    workload.claims.value(claim).map(|value| value.texts().join(","))
}

fn hash_of(path: &Path) -> String {
    Digest::of(&std::fs::read(path).unwrap()).to_string()
}

/// What the process has become, which the kernel does not tell at once.
async fn change(process: &Arc<dyn Process>, workload: &Workload) -> AttestationError {
    tokio::time::timeout(Duration::from_secs(30), process.changed(workload)).await.expect("it changed")
}

#[tokio::test]
async fn says_what_the_kernel_says_of_a_process() {
    let door = Door::new();
    let path = program(door.directory(), "payments");
    let running = door.start(&path).await;
    let workload = pinned(&attestor(), &running).attest(Depth::Content).await.unwrap();
    assert_eq!(workload.pid, running.pid());
    assert_eq!(text(&workload, "unix.uid").unwrap(), rustix::process::geteuid().as_raw().to_string());
    assert_eq!(text(&workload, "unix.gid").unwrap(), rustix::process::getegid().as_raw().to_string());
    assert_eq!(text(&workload, "unix.path").as_deref(), path.to_str());
    assert_eq!(text(&workload, "unix.sha256").unwrap(), hash_of(&path));
    if is_root() {
        assert_eq!(text(&workload, "unix.user").as_deref(), Some("root"));
        assert_eq!(text(&workload, "unix.group").as_deref(), Some("root"));
    }
    assert!(matches!(workload.claims.value("unix.interactive"), Some(ClaimValue::Flag(_))));
}

#[tokio::test]
async fn tells_two_programs_of_one_user_apart() {
    let door = Door::new();
    let (one, two) = (program(door.directory(), "one"), program(door.directory(), "two"));
    append(&two, "x");
    let (first, second) = (door.start(&one).await, door.start(&two).await);
    let attestor = attestor();
    let (first, second) = (pinned(&attestor, &first), pinned(&attestor, &second));
    let (first, second) =
        (first.attest(Depth::Content).await.unwrap(), second.attest(Depth::Content).await.unwrap());
    assert_eq!(text(&first, "unix.uid"), text(&second, "unix.uid"));
    assert_ne!(text(&first, "unix.path"), text(&second, "unix.path"));
    assert_ne!(text(&first, "unix.sha256"), text(&second, "unix.sha256"));
}

#[tokio::test]
async fn a_process_that_connects_and_becomes_another_program_gets_the_facts_of_neither() {
    let door = Door::new();
    let entitled = other_program(door.directory(), "entitled");
    let mut running = door.start(&program(door.directory(), "mallory")).await;
    let process = pinned(&attestor(), &running);
    running.exec(&entitled).await;
    for _ in 0..3 {
        assert_eq!(process.attest(Depth::Content).await.unwrap_err(), AttestationError::Changed);
    }
}

#[tokio::test]
async fn a_process_that_becomes_another_program_in_the_midst_of_attestation_gets_the_facts_of_neither() {
    let door = Door::new();
    let attestor = Arc::new(attestor());
    let (mallory, entitled) =
        (program(door.directory(), "mallory"), other_program(door.directory(), "entitled"));
    let (own, wanted) = (hash_of(&mallory), hash_of(&entitled));
    for _ in 0..8 {
        let mut running = door.start(&mallory).await;
        let process = pinned(&attestor, &running);
        let attesting = tokio::spawn(async move {
            (process.attest(Depth::Content).await, process.attest(Depth::Content).await)
        });
        running.exec(&entitled).await;
        let (first, second) = attesting.await.unwrap();
        for found in [first, second] {
            match found {
                Ok(workload) => {
                    assert_eq!(text(&workload, "unix.sha256").as_deref(), Some(own.as_str()));
                    assert_eq!(text(&workload, "unix.path").as_deref(), mallory.to_str());
                }
                Err(error) => assert_eq!(error, AttestationError::Changed),
            }
        }
        assert_ne!(own, wanted);
    }
}

#[tokio::test]
async fn an_exec_after_attestation_ends_it() {
    let door = Door::new();
    let mut running = door.start(&program(door.directory(), "honest")).await;
    let process = pinned(&attestor(), &running);
    let workload = process.attest(Depth::Content).await.unwrap();
    running.exec(&other_program(door.directory(), "other")).await;
    assert_eq!(change(&process, &workload).await, AttestationError::Changed);
    // For all who wait, and for good.
    assert_eq!(change(&process, &workload).await, AttestationError::Changed);
    assert_eq!(process.attest(Depth::Content).await.unwrap_err(), AttestationError::Changed);
}

#[tokio::test]
async fn an_exec_while_somebody_waits_for_it_is_seen() {
    let door = Door::new();
    let mut running = door.start(&program(door.directory(), "honest")).await;
    let process = pinned(&attestor(), &running);
    let workload = process.attest(Depth::Content).await.unwrap();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let (process, workload) = (Arc::clone(&process), workload.clone());
            tokio::spawn(async move { change(&process, &workload).await })
        })
        .collect();
    // Both wait: nothing has happened to the process yet.
    tokio::task::yield_now().await;
    running.exec(&other_program(door.directory(), "other")).await;
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), AttestationError::Changed);
    }
}

#[tokio::test]
async fn an_exit_ends_it_at_once() {
    let door = Door::new();
    let mut running = door.start(&program(door.directory(), "honest")).await;
    let process = pinned(&attestor(), &running);
    let workload = process.attest(Depth::Content).await.unwrap();
    let waiting = tokio::spawn({
        let (process, workload) = (Arc::clone(&process), workload.clone());
        async move { change(&process, &workload).await }
    });
    running.end();
    assert_eq!(waiting.await.unwrap(), AttestationError::Exited);
    assert_eq!(process.attest(Depth::Content).await.unwrap_err(), AttestationError::Exited);
    assert_eq!(change(&process, &workload).await, AttestationError::Exited);
}

#[tokio::test]
async fn a_process_that_is_gone_before_it_was_accepted_is_nobody() {
    let door = Door::new();
    let mut started = Started::spawn(&program(door.directory(), "quick"), door.path());
    started.wait_for("connected");
    started.end();
    let socket = door.accept().await;
    assert_eq!(attestor().pin(socket.as_fd()).unwrap_err(), AttestationError::Exited);
}

#[tokio::test]
async fn a_deleted_executable_has_a_hash_and_no_path() {
    let door = Door::new();
    let path = program(door.directory(), "gone");
    let hash = hash_of(&path);
    let running = door.start(&path).await;
    let process = pinned(&attestor(), &running);
    std::fs::remove_file(&path).unwrap();
    let workload = process.attest(Depth::Content).await.unwrap();
    assert_eq!(text(&workload, "unix.path"), None);
    assert_eq!(text(&workload, "unix.sha256"), Some(hash));
}

#[tokio::test]
async fn an_upgraded_program_has_a_new_hash_and_the_old_process_keeps_its_own() {
    let door = Door::new();
    let (path, new) = (program(door.directory(), "tool"), program(door.directory(), "tool.new"));
    append(&new, "version 2");
    let old_hash = hash_of(&path);
    let attestor = attestor();
    let old = door.start(&path).await;
    let old = pinned(&attestor, &old);
    assert_eq!(
        text(&old.attest(Depth::Content).await.unwrap(), "unix.sha256").as_deref(),
        Some(old_hash.as_str())
    );

    std::fs::rename(&new, &path).unwrap();
    let running = door.start(&path).await;
    let workload = pinned(&attestor, &running).attest(Depth::Content).await.unwrap();
    assert_eq!(text(&workload, "unix.path").as_deref(), path.to_str());
    assert_eq!(text(&workload, "unix.sha256").unwrap(), hash_of(&path));
}

#[tokio::test]
async fn a_program_that_is_too_large_is_not_hashed() {
    let door = Door::new();
    let running = door.start(&program(door.directory(), "large")).await;
    for hash_limit in [0, 1] {
        let raw = RawAttestorConfig { hash_limit, ..RawAttestorConfig::default() };
        let attestor = LinuxAttestor::new(AttestorConfig::check(&raw, Path::new("/")).unwrap());
        let workload = pinned(&attestor, &running).attest(Depth::Content).await.unwrap();
        assert_eq!(text(&workload, "unix.sha256"), None);
        assert!(text(&workload, "unix.path").is_some());
    }
}

#[tokio::test]
async fn a_program_is_read_only_if_somebody_asks_for_its_hash_or_the_configuration_does() {
    let door = Door::new();
    let running = door.start(&program(door.directory(), "quiet")).await;
    for (hash, depth, is_hashed) in [
        (Hashing::WhenAsked, Depth::Facts, false),
        (Hashing::WhenAsked, Depth::Content, true),
        (Hashing::Always, Depth::Facts, true),
    ] {
        let raw = RawAttestorConfig { hash, ..RawAttestorConfig::default() };
        let attestor = LinuxAttestor::new(AttestorConfig::check(&raw, Path::new("/")).unwrap());
        let workload = pinned(&attestor, &running).attest(depth).await.unwrap();
        assert_eq!(text(&workload, "unix.sha256").is_some(), is_hashed, "{hash:?}, {depth:?}");
    }
}

#[tokio::test]
async fn a_process_that_connects_as_root_and_becomes_somebody_else_has_lost() {
    if !is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return;
    }
    let door = Door::new();
    let mut running = door.start(&program(door.directory(), "daemon")).await;
    let process = pinned(&attestor(), &running);
    let workload = process.attest(Depth::Content).await.unwrap();
    running.become_user(65_534).await;
    assert_eq!(process.attest(Depth::Content).await.unwrap_err(), AttestationError::Changed);
    assert_eq!(change(&process, &workload).await, AttestationError::Changed);
}

#[tokio::test]
async fn another_users_process_is_that_users() {
    if !is_root() {
        eprintln!("SKIPPED: only root can start processes of others");
        return;
    }
    let door = Door::new();
    let running = door.start_as(&program(door.directory(), "tool"), 65_534).await;
    let workload = pinned(&attestor(), &running).attest(Depth::Content).await.unwrap();
    assert_eq!(text(&workload, "unix.uid").as_deref(), Some("65534"));
    assert_eq!(text(&workload, "unix.user").as_deref(), Some("nobody"));
    assert_eq!(text(&workload, "unix.gid").as_deref(), Some("65534"));
}

#[tokio::test]
async fn a_file_that_a_process_mounts_over_a_programs_path_does_not_get_the_path() {
    let door = Door::new();
    let (entitled, mallory) = (program(door.directory(), "entitled"), program(door.directory(), "mallory"));
    append(&mallory, "x");
    let script = format!("mount --bind {0} {1} && exec {1} \"$@\"", mallory.display(), entitled.display());
    let Some(running) = door.start_in_own_mounts(&script).await else {
        eprintln!("SKIPPED: no mount namespace can be made here");
        return;
    };
    // The kernel shows the path of the entitled program.
    let shown = std::fs::read_link(format!("/proc/{}/exe", running.pid())).unwrap();
    assert_eq!(shown, entitled);
    let workload = pinned(&attestor(), &running).attest(Depth::Content).await.unwrap();
    assert_eq!(text(&workload, "unix.path"), None);
    assert_eq!(text(&workload, "unix.sha256").unwrap(), hash_of(&mallory));
}

#[tokio::test]
async fn a_process_with_a_terminal_is_interactive_and_one_in_a_session_of_its_own_is_not() {
    let door = Door::new();
    let path = program(door.directory(), "tool");
    let attestor = attestor();
    let Some(running) = door.start_on_terminal(&path).await else {
        eprintln!("SKIPPED: needs script(1) and setsid(1) of util-linux");
        return;
    };
    let workload = pinned(&attestor, &running).attest(Depth::Content).await.unwrap();
    assert_eq!(workload.claims.value("unix.interactive"), Some(&ClaimValue::Flag(true)));
    let running = door.start_without_terminal(&path).await;
    let workload = pinned(&attestor, &running).attest(Depth::Content).await.unwrap();
    assert_eq!(workload.claims.value("unix.interactive"), Some(&ClaimValue::Flag(false)));
}

#[tokio::test]
async fn a_crowd_of_one_user_is_attested_in_turn() {
    let door = Door::new();
    let running = door.start(&program(door.directory(), "tool")).await;
    let attestor = attestor();
    let process = pinned(&attestor, &running);
    let crowd: Vec<_> = (0..200)
        .map(|_| {
            let process = Arc::clone(&process);
            tokio::spawn(async move { process.attest(Depth::Content).await })
        })
        .collect();
    let expected = process.attest(Depth::Content).await.unwrap();
    for one in crowd {
        assert_eq!(one.await.unwrap().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_process_in_a_container_has_its_labels_or_nothing_while_the_engine_is_away() {
    let door = Door::new();
    let running = door.start(&program(door.directory(), "tool")).await;
    let id = Digest::of(door.path().as_os_str().as_encoded_bytes()).to_string();
    let unit = format!("docker-{id}.scope");
    let Some(_group) = ControlGroup::around(&running, &unit) else {
        eprintln!("SKIPPED: no cgroup of version 2 can be made here");
        return;
    };
    let invocation = "0123456789abcdef0123456789abcdef";
    let units = door.directory().join("units");
    std::fs::create_dir(&units).unwrap();
    std::os::unix::fs::symlink(invocation, units.join(format!("invocation:{unit}"))).unwrap();
    let socket = door.directory().join("docker.sock");
    let raw = RawAttestorConfig {
        systemd_units: units.to_str().unwrap().into(),
        docker: Some(RawEngine { socket: socket.to_str().unwrap().into() }),
        ..RawAttestorConfig::default()
    };
    let attestor = LinuxAttestor::new(AttestorConfig::check(&raw, Path::new("/")).unwrap());
    let process = pinned(&attestor, &running);
    let error = process.attest(Depth::Content).await.unwrap_err();
    assert!(matches!(&error, AttestationError::Unknown(detail) if detail.contains("docker.sock")), "{error}");

    let _engine = answer_always(&socket, r#"{"Config":{"Image":"web:1","Labels":{"app":"web"}}}"#);
    let workload = process.attest(Depth::Content).await.unwrap();
    for (claim, expected) in [
        ("systemd.unit", unit.as_str()),
        ("systemd.slice", "system.slice"),
        ("systemd.invocation_id", invocation),
        ("container.id", &id),
        ("container.runtime", "docker"),
        ("docker.label", "app:web"),
        ("docker.image", "web:1"),
    ] {
        assert_eq!(text(&workload, claim).as_deref(), Some(expected), "{claim}");
    }
}

/// A service on a UNIX socket that has one answer.
fn answer_always(socket: &Path, json: &'static str) -> tokio::task::JoinSet<()> {
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let mut accepting = tokio::task::JoinSet::new();
    accepting.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json}", json.len());
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    accepting
}
