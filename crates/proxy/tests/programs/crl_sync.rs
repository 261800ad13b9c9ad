//! Lists in files: what is refused leaves what is there.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use chancery_proxy::crl_sync::list::{ListError, RevocationList};
use chancery_proxy::crl_sync::{CrlSyncConfig, SyncError};
use chancery_types::{Clock as _, SystemClock};
use chancery_x509::{Certificate, read_certificates};

use crate::running::published;
use crate::world::{PATIENCE, World, recipe, serial};

#[tokio::test]
async fn every_mistake_in_the_file_is_said_at_once() {
    let text = r#"
        server = "http://ca.example.org"
        trust_bundle = "roots.pem"
        poll = "1ms"
        [identity]
        certificate = "client.crt"
        [[outputs]]
        name = "a"
        file = "x"
        directory = "y"
        mode = "0777"
        owner = "nobody-of-this-name"
        hook = { command = ["relative"] }
    "#;
    let raw = toml::from_str(text).unwrap();
    let mistakes = CrlSyncConfig::check(raw, std::path::Path::new("/etc/chancery")).unwrap_err();
    for field in
        ["server", "poll", "identity", "outputs.a:", "outputs.a.mode", "outputs.a.owner", "outputs.a.hook"]
    {
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(field)), "{field}: {mistakes:?}");
    }
}

#[test]
fn the_recipe_is_in_order() {
    let raw = toml::from_str(&recipe("crl-sync.toml")).unwrap();
    CrlSyncConfig::check(raw, std::path::Path::new("/etc/chancery")).unwrap();
}

#[tokio::test]
async fn lists_are_replaced_whole_and_what_is_unchanged_is_not_written_again() {
    let world = World::new().await;
    let home = world.home("lists");
    let mut sync = world.crl_sync(world.crl_sync_config("nginx", &[("/etc/nginx/crl", &home)])).await;
    // There is no nginx: the files are there, and the failure is of the hook alone.
    assert!(matches!(sync.once().await, Err(SyncError::Hook { .. })));
    let path = home.join("lists.pem");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("BEGIN X509 CRL").count(), 2);

    let (mut again, modified) = (world.crl_sync(no_hook(&world, &home)).await, modified(&path));
    let report = again.once().await.unwrap();
    assert!(report.outputs.iter().all(|output| !output.changed && !output.told));
    assert_eq!(self::modified(&path), modified);

    let held = world.running.enroll("bad").await;
    world.revoke(&held).await;
    published(&world.running.server).await;
    let report = again.once().await.unwrap();
    assert!(report.outputs[0].changed && report.lists.iter().any(|list| list.entries == 1), "{report:?}");
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 1, "nothing temporary is left");
    let judged = std::process::Command::new("openssl")
        .args(["crl", "-noout", "-text", "-CAfile"])
        .arg(chain_file(&world))
        .arg("-in")
        .arg(&path)
        .output()
        .unwrap();
    let (told, verdict) = (String::from_utf8_lossy(&judged.stdout), String::from_utf8_lossy(&judged.stderr));
    assert!(verdict.contains("verify OK"), "{verdict}");
    assert!(told.to_lowercase().contains(&serial(&held).to_string()), "{told}");
}

#[tokio::test]
async fn older_foreign_torn_and_ended_lists_are_refused() {
    let world = World::new().await;
    let old = published(&world.running.server).await;
    let new = another(&world).await;
    let pem = std::fs::read(world.running.place.file("certs/issuer-1.crt")).unwrap();
    let issuer = Certificate::from_der(&read_certificates(&pem, 1).unwrap()[0]).unwrap();
    let root = Certificate::from_der(
        &read_certificates(&std::fs::read(world.file("bundle.crt")).unwrap(), 1).unwrap()[0],
    )
    .unwrap();
    let now = SystemClock.now();
    let newest = RevocationList::judge(&new, &issuer, None, now).unwrap();
    assert_eq!(RevocationList::judge(&new, &issuer, Some(&newest), now).as_ref(), Ok(&newest));
    let judge = |der: &[u8], by, now| RevocationList::judge(der, by, Some(&newest), now).unwrap_err();
    assert!(matches!(judge(&old, &issuer, now), ListError::GoesBack { .. }));
    assert!(matches!(judge(&new, &root, now), ListError::Issuer(_)));
    assert!(matches!(judge(&new[..new.len() - 1], &issuer, now), ListError::Crl(_)));
    let ended = newest.next_update();
    assert_eq!(judge(&new, &issuer, ended), ListError::Ended(ended));
    let early = newest.this_update() - std::time::Duration::from_secs(301);
    assert!(matches!(judge(&new, &issuer, early), ListError::NotYet(_)));
    let mut changed = new.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert!(matches!(judge(&changed, &issuer, now), ListError::Signature(_) | ListError::Crl(_)));
}

#[tokio::test]
async fn a_number_is_remembered_across_restarts() {
    let world = World::new().await;
    let home = world.home("lists");
    let path = home.join("lists.pem");
    world.crl_sync(no_hook(&world, &home)).await.once().await.unwrap();
    let before = std::fs::read(&path).unwrap();
    // A newer one was put in place, and then the authority lost its memory.
    another(&world).await;
    world.crl_sync(no_hook(&world, &home)).await.once().await.unwrap();
    let newer = std::fs::read(&path).unwrap();
    assert_ne!(newer, before);
    let mut sync = world.crl_sync(no_hook(&world, &home)).await;
    sync.once().await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), newer);
}

#[tokio::test]
async fn a_directory_that_others_can_write_is_refused() {
    let world = World::new().await;
    let home = world.home("lists");
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = world.crl_sync(no_hook(&world, &home)).await.once().await.unwrap_err().to_string();
    assert!(error.contains("writable by nobody else"), "{error}");
}

/// A list that says more than the one before.
async fn another(world: &World) -> Vec<u8> {
    world.revoke(&world.running.enroll("another").await).await;
    published(&world.running.server).await
}

fn no_hook(world: &World, home: &std::path::Path) -> CrlSyncConfig {
    let text = format!(
        "server = {:?}\ntrust_bundle = \"bundle.crt\"\nalso = [\"root.crl\"]\n\
         [[outputs]]\nname = \"files\"\nfile = {:?}\n",
        world.server_url(),
        home.join("lists.pem")
    );
    CrlSyncConfig::check(toml::from_str(&text).unwrap(), &world.file("")).unwrap()
}

fn chain_file(world: &World) -> std::path::PathBuf {
    let path = world.file("chain.pem");
    let read = |name: &str| std::fs::read_to_string(world.running.place.file(name)).unwrap();
    std::fs::write(&path, read("certs/issuer-1.crt") + &read("certs/root.crt")).unwrap();
    path
}

fn modified(path: &std::path::Path) -> std::time::SystemTime {
    std::fs::metadata(path).unwrap().modified().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_wakes_it_and_what_is_in_force_is_confirmed() {
    let world = World::new().await;
    let home = world.home("sync");
    world.server_files(&home, "sync").await;
    let text = format!(
        "server = {:?}\ntrust_bundle = \"bundle.crt\"\nalso = [\"../root.crl\"]\npoll = \"1h\"\n\
         identity = {{ certificate = \"tls.crt\", key = \"tls.key\" }}\n\
         [[outputs]]\nname = \"files\"\nfile = \"lists.pem\"\nhook = {{ command = [\"/bin/true\"] }}\n",
        world.server_url()
    );
    let config = CrlSyncConfig::check(toml::from_str(&text).unwrap(), &home).unwrap();
    tokio::spawn(world.crl_sync(config).await.run(|| {}));
    let admin = world.running.admin();
    let confirmed = async || {
        let all = admin.relying_parties().await.unwrap();
        let own = all.relying_parties.into_iter().find(|party| party.spiffe_id.path() == "/sync");
        own.map(|party| (party.acknowledgement.sequence, party.acknowledgement.kind, party.connected))
    };
    let began = Instant::now();
    while !confirmed().await.is_some_and(|(_, _, connected)| connected) {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let held = world.running.enroll("bad").await;
    world.revoke(&held).await;
    let (acknowledged, after) = (Instant::now(), admin.relying_parties().await.unwrap().sequence);
    let path = home.join("lists.pem");
    let lists = || chancery_x509::read_pem(&std::fs::read(&path).unwrap(), 8).unwrap();
    let is_listed = || {
        let names = |der: &[u8]| {
            chancery_x509::crl::CrlView::from_der(der).unwrap().entry(serial(&held).as_bytes()).is_some()
        };
        lists().iter().any(|block| names(&block.der))
    };
    while !is_listed() {
        assert!(acknowledged.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("crl-sync: in place {:?} after the acknowledgement", acknowledged.elapsed());
    loop {
        let (sequence, kind, _) = confirmed().await.unwrap();
        assert_eq!(kind, chancery_api::RelyingPartyKind::CrlSync);
        if sequence >= after {
            break;
        }
        assert!(acknowledged.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
