use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::directory::{Directory, Step, Version};
use super::super::render::render;
use super::*;

fn publish(directory: &Directory, config: &SinkConfig, state: &X509State) -> Result<Version, DirectoryError> {
    let files = render(config, svid(state), state, &SystemClock, &SystemRandom).unwrap();
    directory.publish(&files, &svid(state).serial.to_string(), svid(state).not_after, SystemClock.now())
}

/// The pair as a program reads it, and whether the two belong together.
fn is_whole(directory: &Path) -> bool {
    let version = directory.join(fs::read_link(directory.join("..data")).unwrap());
    let certificate = fs::read(version.join("tls.crt")).unwrap();
    let key = fs::read(version.join("tls.key")).unwrap();
    use rustls::pki_types::pem::PemObject;
    let chain = vec![rustls::pki_types::CertificateDer::from_pem_slice(&certificate).unwrap()];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(&key).unwrap();
    rustls::sign::CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).is_ok()
}

#[test]
fn files_have_their_modes_and_the_key_is_for_its_owner() {
    let (_home, path) = place();
    let config = configure(&path, serde_json::json!({}));
    let directory = Directory::open(&config).unwrap();
    publish(&directory, &config, &Authority::new().issue(Duration::from_secs(600))).unwrap();
    let mode = |name: &str| fs::metadata(path.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("tls.crt"), mode("tls.key"), mode("bundle.crt")), (0o644, 0o600, 0o644));
    assert_eq!(mode(""), 0o755);
    assert!(is_whole(&path));
}

#[test]
fn files_get_the_owner_that_was_asked_for() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED files_get_the_owner_that_was_asked_for: only root gives files away");
        return;
    }
    let (_home, path) = place();
    let config = configure(&path, serde_json::json!({ "owner": "1234", "group": "4321" }));
    let directory = Directory::open(&config).unwrap();
    publish(&directory, &config, &Authority::new().issue(Duration::from_secs(600))).unwrap();
    let key = fs::metadata(path.join("tls.key")).unwrap();
    assert_eq!((key.uid(), key.gid()), (1234, 4321));
    assert_eq!(fs::metadata(&path).unwrap().uid(), 0);
}

#[test]
fn reader_never_sees_a_torn_pair() {
    let (_home, path) = place();
    let config = configure(&path, serde_json::json!({}));
    let directory = Directory::open(&config).unwrap();
    let authority = Authority::new();
    let states: Vec<_> = (0..20).map(|_| authority.issue(Duration::from_secs(600))).collect();
    publish(&directory, &config, &states[0]).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = 0;
            while !done.load(Ordering::SeqCst) {
                assert!(is_whole(&path));
                read += 1;
            }
            read
        });
        for state in &states {
            publish(&directory, &config, state).unwrap();
        }
        done.store(true, Ordering::SeqCst);
        assert!(reader.join().unwrap() > 0);
    });
}

#[test]
fn crash_before_any_step_leaves_a_whole_set_and_the_next_run_goes_on() {
    let steps = [
        Step::MakeVersion,
        Step::WriteFile(0),
        Step::WriteFile(1),
        Step::WriteFile(2),
        Step::SyncVersion,
        Step::NameVersion,
        Step::LinkFile(0),
        Step::LinkFile(1),
        Step::LinkFile(2),
        Step::MakePointer,
        Step::SwapPointer,
        Step::SyncDirectory,
    ];
    let authority = Authority::new();
    let states: Vec<_> = (0..3).map(|_| authority.issue(Duration::from_secs(600))).collect();
    for (step, is_first) in steps.iter().flat_map(|step| [(*step, true), (*step, false)]) {
        let (_home, path) = place();
        let config = configure(&path, serde_json::json!({ "grace": "0s" }));
        let directory = Directory::open(&config).unwrap();
        if !is_first {
            publish(&directory, &config, &states[0]).unwrap();
        }
        *directory.crash_at.lock().unwrap() = Some(step);
        publish(&directory, &config, &states[1]).unwrap_err();
        drop(directory);

        let serial_in_place = || {
            let target = fs::read_link(path.join("..data")).ok()?;
            Some(target.to_str().unwrap().rsplit('-').next().unwrap().to_owned())
        };
        let expected = match (step, is_first) {
            (Step::SyncDirectory, _) => Some(svid(&states[1]).serial.to_string()),
            (_, true) => None,
            (_, false) => Some(svid(&states[0]).serial.to_string()),
        };
        assert_eq!(serial_in_place(), expected, "{step:?}");
        assert!(expected.is_none() || is_whole(&path), "{step:?}");
        assert_eq!(path.join("tls.key").exists(), expected.is_some(), "{step:?}");

        let directory = Directory::open(&config).unwrap();
        let version = publish(&directory, &config, &states[2]).unwrap();
        assert!(is_whole(&path), "{step:?}");
        assert_eq!(directory.current().unwrap().as_ref(), Some(&version));
        directory.prune(None, SystemClock.now() + Duration::from_secs(1)).unwrap();
        let mut left: Vec<String> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["..data", &version.name, "bundle.crt", "tls.crt", "tls.key"], "{step:?}");
    }
}

#[test]
fn old_versions_go_after_their_grace_but_not_the_one_to_fall_back_on() {
    let (_home, path) = place();
    let config = configure(&path, serde_json::json!({ "grace": "5m" }));
    let directory = Directory::open(&config).unwrap();
    let authority = Authority::new();
    let versions: Vec<Version> = (0..4)
        .map(|_| publish(&directory, &config, &authority.issue(Duration::from_secs(3600))).unwrap())
        .collect();
    let there = |index: usize| path.join(&versions[index].name).exists();
    let now = SystemClock.now();
    directory.prune(Some(&versions[1]), now).unwrap();
    assert!((0..4).all(there), "grace has not passed");
    directory.prune(Some(&versions[1]), now + Duration::from_secs(301)).unwrap();
    assert_eq!((0..4).map(there).collect::<Vec<_>>(), [false, true, false, true]);
    directory.point_to(&versions[1]).unwrap();
    assert!(is_whole(&path));
    directory.point_to(&versions[0]).unwrap_err();
    assert!(is_whole(&path), "a version that is gone is not put in place");
}

#[test]
fn refuses_directory_that_is_a_link() {
    let (home, path) = place();
    fs::create_dir(home.path().join("elsewhere")).unwrap();
    symlink(home.path().join("elsewhere"), &path).unwrap();
    let error = Directory::open(&configure(&path, serde_json::json!({}))).unwrap_err();
    assert!(error.to_string().contains("is a link"), "{error}");
}

#[test]
fn refuses_directory_that_others_can_write_or_move() {
    let (home, path) = place();
    let config = configure(&path, serde_json::json!({}));
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let error = Directory::open(&config).unwrap_err();
    assert!(error.to_string().contains("tls can be written by others"), "{error}");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Directory::open(&config).unwrap_err();
    assert!(error.to_string().contains("can be written by others"), "{error}");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();

    let shared = SinkConfig { directory: std::env::temp_dir(), ..config };
    if fs::metadata(&shared.directory).unwrap().mode() & 0o1000 != 0 && rustix::process::geteuid().is_root() {
        let error = Directory::open(&shared).unwrap_err();
        assert!(error.to_string().contains("shared by everyone"), "{error}");
    }
}

#[test]
fn refuses_directory_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED refuses_directory_of_another_user: only root gives directories away");
        return;
    }
    let (_home, path) = place();
    fs::create_dir(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
    let error = Directory::open(&configure(&path, serde_json::json!({}))).unwrap_err();
    assert!(error.to_string().contains("belongs to another user"), "{error}");
}

#[test]
fn file_or_link_of_somebody_else_is_not_overwritten() {
    let (home, path) = place();
    let config = configure(&path, serde_json::json!({}));
    let directory = Directory::open(&config).unwrap();
    let state = Authority::new().issue(Duration::from_secs(600));
    let victim = home.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, path.join("tls.key")).unwrap();
    let error = publish(&directory, &config, &state).unwrap_err();
    assert!(matches!(error, DirectoryError::InTheWay(_)), "{error}");
    fs::remove_file(path.join("tls.key")).unwrap();
    fs::write(path.join("tls.crt"), "mine").unwrap();
    publish(&directory, &config, &state).unwrap_err();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(fs::read_to_string(path.join("tls.crt")).unwrap(), "mine");
}

#[test]
fn two_sinks_do_not_share_a_directory() {
    let (_home, path) = place();
    let config = configure(&path, serde_json::json!({}));
    let _held = Directory::open(&config).unwrap();
    assert!(matches!(Directory::open(&config), Err(DirectoryError::Locked(_))));
}
