use std::fs;

use chancery_types::ManualClock;
use tokio::sync::watch;

use super::service::{Manner, Service};
use super::*;
use crate::hook::HookOutcome;
use crate::probe::ProbeOutcome;

/// A sink with the service that its files are for.
struct Scene {
    _home: tempfile::TempDir,
    path: std::path::PathBuf,
    authority: Authority,
    service: Arc<Service>,
    states: watch::Sender<Arc<X509State>>,
    status: watch::Receiver<SinkStatus>,
    clock: ManualClock,
}

impl Scene {
    async fn begin(more: serde_json::Value) -> Self {
        let (home, path) = place();
        let service = Service::start(&path).await;
        let clock = ManualClock::at(SystemClock.now());
        let mut settings_of_all = serde_json::json!({
            "hook": { "url": format!("http://{}/reload", service.hook) },
            "probe": {
                "address": service.address.to_string(),
                "server_name": "localhost",
                "patience": "100ms",
                "on_failure": if more["roll_back"] == true { "roll_back" } else { "report" },
            },
        });
        let settings_of_all = settings_of_all.as_object_mut().unwrap();
        settings_of_all.extend(more.as_object().unwrap().clone());
        settings_of_all.remove("roll_back");
        let config = configure(&path, serde_json::Value::Object(settings_of_all.clone()));
        let sink = Sink::open(config, Arc::new(clock.clone()), Arc::new(SystemRandom)).unwrap();
        let status = sink.status();
        let (states, receiver) = watch::channel(Arc::default());
        tokio::spawn(sink.run(receiver));
        Self { _home: home, path, authority: Authority::new(), service, states, status, clock }
    }

    /// Sends a new certificate and returns its serial.
    fn rotate(&self) -> String {
        let state = self.authority.issue(Duration::from_secs(3600));
        let serial = svid(&state).serial.to_string();
        self.states.send_replace(state);
        serial
    }

    async fn current(&mut self, serial: &str) -> SinkStatus {
        until(&mut self.status, |status| {
            status.phase == Phase::Current
                && status.in_place.as_ref().is_some_and(|certificate| certificate.serial == serial)
        })
        .await
    }

    async fn phase(&mut self, phase: Phase) -> SinkStatus {
        until(&mut self.status, |status| status.phase == phase).await
    }
}

fn serial(certificate: &Option<Certificate>) -> &str {
    &certificate.as_ref().unwrap().serial
}

#[tokio::test]
async fn each_certificate_is_written_told_and_seen() {
    let mut scene = Scene::begin(serde_json::json!({})).await;
    for round in 1..=3 {
        let serial = scene.rotate();
        let status = scene.current(&serial).await;
        assert_eq!(status.probe, Some(ProbeOutcome::Serving));
        assert!(status.hook.is_some_and(|outcome| outcome.is_done()));
        assert_eq!((status.failed_attempts, status.next_attempt, status.detail.as_str()), (0, None, ""));
        assert_eq!(scene.service.told(), round);
    }
    let status = serde_json::to_value(&*scene.status.borrow()).unwrap();
    assert_eq!(status["phase"], "current");
    assert_eq!(status["probe"]["result"], "serving");
    assert_eq!(status["in_place"]["spiffe_id"], "spiffe://example.org/web");
}

#[tokio::test]
async fn state_that_changes_no_file_bothers_nobody() {
    let mut scene = Scene::begin(serde_json::json!({})).await;
    let first = scene.rotate();
    scene.current(&first).await;
    let same = X509State::clone(&scene.states.borrow());
    scene.states.send_replace(Arc::new(same));
    // The next one comes after it.
    let second = scene.rotate();
    scene.current(&second).await;
    assert_eq!(scene.service.reasons(), ["issued", "issued"]);
}

#[tokio::test]
async fn broken_hook_is_reported_and_tried_again_until_it_works() {
    let mut scene = Scene::begin(serde_json::json!({})).await;
    let first = scene.rotate();
    scene.current(&first).await;
    scene.service.behave(Manner::Refusing);
    let second = scene.rotate();
    let status = scene.phase(Phase::HookFailed).await;
    assert!(status.phase.is_failing());
    assert!(
        matches!(&status.hook, Some(HookOutcome::Failed { how, .. }) if how.contains("500")),
        "{status:?}"
    );
    assert!(matches!(&status.probe, Some(ProbeOutcome::ServingAnother { serial, .. }) if *serial == first));
    assert!(status.detail.starts_with("the hook failed: answered 500"), "{}", status.detail);
    assert!(status.next_attempt.is_some());
    assert_eq!((serial(&status.issued), serial(&status.in_place)), (second.as_str(), second.as_str()));

    scene.service.behave(Manner::Obedient);
    scene.current(&second).await;
    assert!(scene.service.reasons().contains(&"retry".to_owned()));
}

#[tokio::test]
async fn issued_but_not_serving_is_reported_with_what_is_served() {
    let mut scene = Scene::begin(serde_json::json!({})).await;
    let first = scene.rotate();
    scene.current(&first).await;
    scene.service.behave(Manner::Deaf);
    let second = scene.rotate();
    let status = scene.phase(Phase::IssuedNotServing).await;
    let expected = format!("issued, not serving: certificate {second} is in place, {first} is served");
    assert_eq!(status.detail, expected);
    scene.service.behave(Manner::Obedient);
    scene.current(&second).await;
}

#[tokio::test]
async fn newer_certificate_takes_the_place_of_one_that_fails() {
    let mut scene = Scene::begin(serde_json::json!({})).await;
    scene.service.behave(Manner::Refusing);
    scene.rotate();
    scene.phase(Phase::HookFailed).await;
    scene.service.behave(Manner::Obedient);
    let second = scene.rotate();
    scene.current(&second).await;
    assert_eq!(scene.service.reasons().last().map(String::as_str), Some("issued"));
}

#[tokio::test]
async fn rolls_back_after_three_attempts_and_forward_when_the_service_can() {
    let mut scene = Scene::begin(serde_json::json!({ "roll_back": true })).await;
    let first = scene.rotate();
    scene.current(&first).await;
    scene.service.behave(Manner::Deaf);
    let second = scene.rotate();
    let status = scene.phase(Phase::RolledBack).await;
    assert_eq!((serial(&status.issued), serial(&status.in_place)), (second.as_str(), first.as_str()));
    assert_eq!(status.failed_attempts, 3);
    assert!(status.detail.ends_with(&format!("certificate {first} is back in place")), "{}", status.detail);
    assert_eq!(scene.service.reasons(), ["issued", "issued", "retry", "retry", "rolled_back"]);
    scene.service.behave(Manner::Obedient);
    scene.current(&second).await;
}

#[tokio::test]
async fn never_rolls_back_to_a_certificate_that_has_ended() {
    let mut scene = Scene::begin(serde_json::json!({ "roll_back": true })).await;
    let first = scene.rotate();
    scene.current(&first).await;
    scene.service.behave(Manner::Deaf);
    let second = scene.authority.issue(Duration::from_secs(3 * 3600));
    scene.clock.advance(Duration::from_secs(2 * 3600));
    scene.states.send_replace(second.clone());
    let status = until(&mut scene.status, |status| status.failed_attempts >= 4).await;
    assert_eq!(status.phase, Phase::IssuedNotServing);
    assert_eq!(serial(&status.in_place), svid(&second).serial.to_string());
    assert!(!scene.service.reasons().contains(&"rolled_back".to_owned()));
}

#[tokio::test]
async fn withdrawn_identity_leaves_no_file_behind() {
    let mut scene = Scene::begin(serde_json::json!({})).await;
    let first = scene.rotate();
    scene.current(&first).await;
    let second = scene.rotate();
    scene.current(&second).await;
    scene.states.send_replace(Arc::default());
    let status = scene.phase(Phase::Withdrawn).await;
    assert_eq!(status.in_place, None);
    until(&mut scene.status, |status| status.detail.is_empty() && status.phase == Phase::Withdrawn).await;
    assert!(!scene.path.join("tls.key").exists());
    let versions = fs::read_dir(&scene.path).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = versions.map(|name| name.into_string().unwrap()).collect();
    assert_eq!(names.len(), 2, "{names:?}: only the pointer and the empty version it leads to");
    let third = scene.rotate();
    scene.current(&third).await;
    assert_eq!(scene.service.reasons(), ["issued", "issued", "withdrawn", "issued"]);
}

#[tokio::test]
async fn withdrawn_identity_stays_when_it_is_to_be_kept() {
    let mut scene = Scene::begin(serde_json::json!({ "on_withdrawal": "keep" })).await;
    let first = scene.rotate();
    scene.current(&first).await;
    scene.states.send_replace(Arc::default());
    scene.phase(Phase::Withdrawn).await;
    assert!(scene.path.join("tls.key").exists());
    assert_eq!(scene.service.told(), 1);
}

#[tokio::test]
async fn start_without_news_touches_nothing() {
    let (_home, path) = place();
    let state = Authority::new().issue(Duration::from_secs(600));
    let (states, receiver) = watch::channel(state.clone());
    let sink = open(configure(&path, serde_json::json!({})));
    let mut status = sink.status();
    let first_run = tokio::spawn(sink.run(receiver));
    until(&mut status, |status| status.phase == Phase::Current).await;
    drop(states);
    first_run.await.unwrap();

    let sink = open(configure(&path, serde_json::json!({})));
    let mut status = sink.status();
    assert_eq!(serial(&status.borrow().in_place), svid(&state).serial.to_string());
    let (_states, receiver) = watch::channel(Arc::default());
    tokio::spawn(sink.run(receiver));
    until(&mut status, |status| status.detail.contains("there is no identity")).await;
    assert!(path.join("tls.key").exists());
}

#[tokio::test]
async fn what_cannot_be_written_is_reported_and_written_when_it_can() {
    let mut scene = Scene::begin(serde_json::json!({})).await;
    fs::write(scene.path.join("tls.crt"), "somebody's").unwrap();
    let first = scene.rotate();
    let status = scene.phase(Phase::NotWritten).await;
    assert!(status.detail.contains("tls.crt is there and is not from this agent"), "{}", status.detail);
    assert_eq!(status.in_place, None);
    fs::remove_file(scene.path.join("tls.crt")).unwrap();
    scene.current(&first).await;
}
