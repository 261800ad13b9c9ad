//! Delivery by poll (RFC 8936): what tokens say, that they come until they are acknowledged, and that a poll waits.

use std::time::{Duration, Instant};

use chancery_x509::Certificate;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::receiver::{
    CHANGE, Receiver, VERIFICATION, hold, judged, python, release, restarted, revoke, value,
};
use crate::running::{Running, id};

fn event<'a>(claims: &'a Value, kind: &str) -> &'a Value {
    &claims["events"][kind]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_verifies_what_was_revoked_held_and_released() {
    let Some(python) = python().await else { return };
    let running = Running::start().await;
    let siem = running.enroll("siem").await;
    let (web, db) = (running.enroll("web").await, running.enroll("db").await);
    let mut receiver = Receiver::of(&running, &siem).await;
    let stream = receiver.create(json!({ "description": "our SIEM" })).await;
    assert_eq!(stream["aud"], id("siem").to_string());
    assert_eq!(stream["events_delivered"], json!([CHANGE]));
    let name = stream["stream_id"].as_str().unwrap();
    let poll = stream["delivery"]["endpoint_url"].as_str().unwrap();
    assert!(poll.ends_with(&format!("/v1/ssf/streams/{name}/poll")), "{poll}");

    revoke(&running, web.response.serial).await;
    hold(&running, db.response.serial).await;
    let mut sets = receiver.poll_for(name, 2).await;
    release(&running, db.response.serial).await;
    let all = receiver.poll_for(name, 3).await;
    sets.extend(all.into_iter().filter(|set| !sets.iter().any(|known| known.0 == set.0)).collect::<Vec<_>>());
    let tokens: Vec<&str> = sets.iter().map(|set| set.1.as_str()).collect();
    let audience = id("siem").to_string();
    let mut claims = judged(&python, &running, &audience, &tokens).await;
    claims.sort_by_key(|claims| claims["txn"].as_str().unwrap().parse::<u64>().unwrap());
    let told = |claims: &Value| {
        let event = event(claims, CHANGE);
        let of = |field: &str| event[field].as_str().unwrap().to_owned();
        assert_eq!(of("credential_type"), "x509");
        assert_eq!(of("initiating_entity"), "admin");
        assert_eq!(event["event_timestamp"], claims["iat"]);
        let subject = claims["sub_id"]["uri"].as_str().unwrap().to_owned();
        assert_eq!(claims["sub_id"]["format"], "uri");
        (
            subject,
            of("change_type"),
            of("x509_serial"),
            event["reason_admin"]["en"].as_str().unwrap().to_owned(),
        )
    };
    let expected = |name: &str, change: &str, serial: String, reason: &str| {
        (id(name).to_string(), change.to_owned(), serial, reason.to_owned())
    };
    let (web, db) = (web.response.serial.to_string(), db.response.serial.to_string());
    assert_eq!(
        claims.iter().map(told).collect::<Vec<_>>(),
        [
            expected("web", "revoke", web, "key-compromise"),
            expected("db", "revoke", db.clone(), "certificate-hold"),
            expected("db", "update", db, "remove-from-crl"),
        ]
    );
    let issuer = event(&claims[0], CHANGE)["x509_issuer"].as_str().unwrap();
    let der = CertificateDer::from_pem_slice(siem.response.certificate.as_bytes()).unwrap();
    let certificate = Certificate::from_der(&der).unwrap();
    assert_eq!(issuer, certificate.tbs().issuer_text());
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_again_under_the_same_name_until_they_are_acknowledged_over_restarts_too() {
    let running = Running::start().await;
    let siem = running.enroll("siem").await;
    let mut serials = Vec::new();
    for name in ["a", "b", "c"] {
        serials.push(running.enroll(name).await.response.serial);
    }
    let mut receiver = Receiver::of(&running, &siem).await;
    let stream = receiver.create(json!({})).await;
    let name = stream["stream_id"].as_str().unwrap().to_owned();
    for serial in &serials {
        hold(&running, *serial).await;
    }
    let sets = receiver.poll_for(&name, 3).await;
    let of = |serial| sets.iter().find(|set| set.0.ends_with(&format!("{serial}"))).unwrap().0.clone();
    let names: Vec<String> = serials.iter().map(|serial| of(*serial)).collect();
    let (one, more) = receiver.poll(&name, json!({ "maxEvents": 1 })).await;
    assert_eq!((one[0].0.as_str(), more), (names[0].as_str(), true), "the oldest first");
    // The second has arrived, and what nobody was told of has not.
    receiver.acknowledge(&name, &[&names[1], "x", &format!("{name}-999999-{}", serials[0]), ""]).await;
    let left = receiver.poll_for(&name, 2).await;
    assert!(left.iter().all(|set| set.0 != names[1]));

    let running = restarted(running).await;
    let mut receiver = Receiver::of(&running, &siem).await;
    let (again, _) = receiver.poll(&name, json!({})).await;
    let again: Vec<&str> = again.iter().map(|set| set.0.as_str()).collect();
    assert!(again.contains(&names[0].as_str()) && again.contains(&names[2].as_str()), "{again:?}");
    // One that cannot be read is not sent for ever.
    let errors = json!({ &names[0]: { "err": "invalid_key", "description": "no such key" } });
    let request = json!({ "setErrs": errors, "ack": [&names[1], &names[2]], "returnImmediately": true });
    assert_eq!(receiver.poll(&name, request).await, (Vec::new(), false));
    let [listed] = running.admin().event_streams().await.unwrap().streams.try_into().unwrap();
    assert_eq!(listed.last_error.as_deref(), Some("invalid_key: no such key"));
    assert_eq!((listed.waiting, listed.owner), (0, id("siem")));

    let running = restarted(running).await;
    let mut receiver = Receiver::of(&running, &siem).await;
    release(&running, serials[0]).await;
    let sets = receiver.poll_for(&name, 1).await;
    assert!(sets[0].0.ends_with(&serials[0].to_string()) && sets[0].0 != names[0], "{sets:?}");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_waits_for_what_happens_and_a_verification_comes_back() {
    let running = Running::start().await;
    let (siem, web) = (running.enroll("siem").await, running.enroll("web").await);
    let mut receiver = Receiver::of(&running, &siem).await;
    let stream = receiver.create(json!({})).await;
    let name = stream["stream_id"].as_str().unwrap().to_owned();
    let mut other = Receiver::of(&running, &siem).await;
    let (waiting, began) = (name.clone(), Instant::now());
    let poll = tokio::spawn(async move { (other.poll(&waiting, json!({})).await, Instant::now()) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    hold(&running, web.response.serial).await;
    let ((sets, _), at) = poll.await.unwrap();
    assert_eq!(sets.len(), 1);
    let took = at - began;
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(10), "{took:?}");
    receiver.acknowledge(&name, &[&sets[0].0]).await;

    let verify = json!({ "stream_id": name, "state": "a1b2" });
    assert_eq!(receiver.ask("POST /v1/ssf/verify", verify.clone()).await.status, 204);
    let soon = receiver.ask("POST /v1/ssf/verify", verify).await;
    assert_eq!((soon.status, soon.problem().as_deref()), (429, Some("rate-limited")));
    let sets = receiver.poll_for(&name, 1).await;
    if let Some(python) = python().await {
        let claims = judged(&python, &running, &id("siem").to_string(), &[&sets[0].1]).await;
        assert_eq!(event(&claims[0], VERIFICATION)["state"], "a1b2");
        assert_eq!(claims[0]["sub_id"], json!({ "format": "opaque", "id": name }));
    }
    receiver.acknowledge(&name, &[&sets[0].0]).await;
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_stream_keeps_events_and_a_disabled_one_does_not() {
    let running = Running::start().await;
    let (siem, web) = (running.enroll("siem").await, running.enroll("web").await.response.serial);
    let mut receiver = Receiver::of(&running, &siem).await;
    let name = receiver.create(json!({})).await["stream_id"].as_str().unwrap().to_owned();
    let set = |status: &str| json!({ "stream_id": name, "status": status, "reason": "maintenance" });
    let paused = receiver.ask("POST /v1/ssf/status", set("paused")).await;
    assert_eq!(value(&paused), set("paused"));
    hold(&running, web).await;
    assert!(receiver.poll(&name, json!({ "returnImmediately": true })).await.0.is_empty());
    let refused = receiver.ask("POST /v1/ssf/verify", json!({ "stream_id": name })).await;
    assert_eq!(refused.problem().as_deref(), Some("not-in-this-state"));
    receiver.ask("POST /v1/ssf/status", set("enabled")).await;
    let kept = receiver.poll_for(&name, 1).await;
    receiver.acknowledge(&name, &[&kept[0].0]).await;

    receiver.ask("POST /v1/ssf/status", set("disabled")).await;
    release(&running, web).await;
    let enabled = value(&receiver.ask("POST /v1/ssf/status", set("enabled")).await);
    let reason = enabled["reason"].as_str().unwrap();
    let position: u64 = reason.split([' ', ':']).find_map(|word| word.parse().ok()).unwrap();
    assert!(position <= running.server.site().authority.ledger().head().size, "{reason}");
    hold(&running, web).await;
    let told = receiver.poll_for(&name, 1).await;
    let at: u64 = told[0].0.split('-').nth(1).unwrap().parse().unwrap();
    assert!(at > position, "what happened before is in the exact set");
    let status = receiver.0.ask(&format!("GET /v1/ssf/status?stream_id={name}"), &[], b"").await.unwrap();
    assert_eq!(value(&status)["status"], "enabled");
    running.server.stop().await;
}
