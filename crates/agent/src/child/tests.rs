use std::path::{Path, PathBuf};

use super::*;

/// A signal to this process reaches the children of all its tests: they take turns.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn shell(script: &str, on_rotation: OnRotation) -> ChildConfig {
    ChildConfig {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: Environment {
            endpoint: Some("unix:///run/agent.sock".to_owned()),
            directory: Some(PathBuf::from("/run/web")),
        },
        on_rotation,
    }
}

async fn appears(path: &Path) -> String {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        assert!(tokio::time::Instant::now() < deadline, "{} did not appear", path.display());
    }
}

#[tokio::test]
async fn child_ends_as_it_likes_and_finds_its_identity() {
    let _alone = ALONE.lock().await;
    let script = r#"[ "$SPIFFE_ENDPOINT_SOCKET" = unix:///run/agent.sock ] && [ "$CHANCERY_KEY_FILE" = /run/web/tls.key ] \
        && [ "$CHANCERY_CERT_FILE" = /run/web/tls.crt ] && [ "$CHANCERY_BUNDLE_FILE" = /run/web/bundle.crt ] && exit 42"#;
    let (_rotate, rotations) = watch::channel(0);
    let status = run(&shell(script, OnRotation::Nothing), rotations.clone()).await.unwrap();
    assert_eq!(exit_code(status), 42);
    let status = run(&shell("kill -KILL $$", OnRotation::Nothing), rotations).await.unwrap();
    assert_eq!(exit_code(status), 137);
}

#[tokio::test]
async fn program_that_is_not_there_is_what_a_shell_says() {
    let _alone = ALONE.lock().await;
    let (_rotate, rotations) = watch::channel(0);
    let missing = ChildConfig { program: "/no/such/program".into(), ..shell("", OnRotation::Nothing) };
    assert_eq!(run(&missing, rotations.clone()).await.unwrap_err().exit_code(), 127);
    let directory = ChildConfig { program: "/etc".into(), ..missing };
    assert_eq!(run(&directory, rotations).await.unwrap_err().exit_code(), 126);
}

#[tokio::test]
async fn child_is_signalled_at_rotation() {
    let _alone = ALONE.lock().await;
    let home = tempfile::tempdir().unwrap();
    let ready = home.path().join("ready");
    let script = format!("trap 'exit 7' HUP; echo ready > {}; while :; do sleep 0.02; done", ready.display());
    let (rotate, rotations) = watch::channel(0);
    let config = shell(&script, OnRotation::Signal("HUP".parse().unwrap()));
    let child = tokio::spawn(async move { run(&config, rotations).await });
    appears(&ready).await;
    rotate.send(1).unwrap();
    assert_eq!(exit_code(child.await.unwrap().unwrap()), 7);
}

#[tokio::test]
async fn child_that_ignores_its_end_is_killed_and_started_anew_at_rotation() {
    let _alone = ALONE.lock().await;
    let home = tempfile::tempdir().unwrap();
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    let script = format!(
        "[ -e {0} ] && {{ echo again > {1}; exit 5; }}; trap '' TERM; echo ready > {0}; while :; do sleep 0.02; done",
        first.display(),
        second.display()
    );
    let (rotate, rotations) = watch::channel(0);
    let config = shell(&script, OnRotation::Restart(Duration::from_millis(300)));
    let child = tokio::spawn(async move { run(&config, rotations).await });
    appears(&first).await;
    rotate.send(1).unwrap();
    assert_eq!(exit_code(child.await.unwrap().unwrap()), 5);
    assert_eq!(appears(&second).await, "again\n");
}

#[tokio::test]
async fn signals_to_the_parent_reach_the_child() {
    let _alone = ALONE.lock().await;
    let home = tempfile::tempdir().unwrap();
    let ready = home.path().join("ready");
    let script =
        format!("trap 'exit 9' USR2; echo ready > {}; while :; do sleep 0.02; done", ready.display());
    let (_rotate, rotations) = watch::channel(0);
    let config = shell(&script, OnRotation::Nothing);
    let child = tokio::spawn(async move { run(&config, rotations).await });
    appears(&ready).await;
    // To ourselves: the handler is in place since before the child was started.
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, Signal::USR2).unwrap();
    assert_eq!(exit_code(child.await.unwrap().unwrap()), 9);
}

#[tokio::test]
async fn child_reads_the_files_of_its_sink_and_again_after_a_rotation() {
    let _alone = ALONE.lock().await;
    use crate::sink::tests::{Authority, configure, open, place, svid};

    let (home, path) = place();
    let authority = Authority::new();
    let states = [authority.issue(Duration::from_secs(600)), authority.issue(Duration::from_secs(600))];
    let (sender, receiver) = watch::channel(states[0].clone());
    let sink = open(configure(&path, serde_json::json!({})));
    let status = sink.status();
    tokio::spawn(sink.run(receiver));
    let rotations = rotations_of(status).await.unwrap();

    let (one, two) = (home.path().join("one"), home.path().join("two"));
    let script = format!(
        "trap 'cp $CHANCERY_CERT_FILE {1}; exit 3' HUP; cp $CHANCERY_CERT_FILE {0}; while :; do sleep 0.02; done",
        one.display(),
        two.display()
    );
    let mut config = shell(&script, OnRotation::Signal("HUP".parse().unwrap()));
    config.environment.directory = Some(path.clone());
    let child = tokio::spawn(async move { run(&config, rotations).await });
    let pem = |state: &crate::identities::X509State| {
        der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &svid(state).chain[0]).unwrap()
    };
    assert_eq!(appears(&one).await, pem(&states[0]));
    sender.send_replace(states[1].clone());
    assert_eq!(exit_code(child.await.unwrap().unwrap()), 3);
    assert_eq!(std::fs::read_to_string(&two).unwrap(), pem(&states[1]));
}
