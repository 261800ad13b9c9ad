//! A file sink of the configuration, fed by a real authority.

use std::time::Duration;

use chancery_agent::ask_status;

use crate::place::{PATIENCE, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_is_somebody_by_its_name_and_has_its_files() {
    let world = World::new().await;
    world
        .register_with("nginx", |identity| {
            identity.selectors = [("agent.sink", "nginx")].into();
        })
        .await;
    let directory = world.file("nginx");
    let sinks = format!("sinks = [{{ name = \"nginx\", directory = {directory:?} }}]");
    let _serving = world.serve(&sinks).await.unwrap();
    let status = tokio::time::timeout(PATIENCE, async {
        loop {
            let status = ask_status(&world.file("status.sock")).await.unwrap();
            if status.sinks.first().is_some_and(|sink| sink.phase == "current") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    let [sink] = status.sinks.as_slice() else { panic!("{status:?}") };
    assert_eq!((sink.is_failing, &sink.issued), (false, &sink.in_place));
    let certificate = std::fs::read(directory.join("tls.crt")).unwrap();
    let chain = chancery_x509::read_certificates(&certificate, 4).unwrap();
    let leaf = chancery_x509::Certificate::from_der(&chain[0]).unwrap();
    assert_eq!(leaf.tbs().spiffe_id().unwrap().path(), "/nginx");
    assert_eq!(leaf.serial_number().map(|serial| serial.to_string()), sink.in_place);
    let key = std::fs::read(directory.join("tls.key")).unwrap();
    let key = chancery_x509::SubjectKey::from_pkcs8_pem(&key).unwrap();
    assert_eq!(key.public_key().spki_der(), leaf.tbs().spki_der());
}
