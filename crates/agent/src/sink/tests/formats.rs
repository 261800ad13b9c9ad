use std::fs;

use super::super::directory::Directory;
use super::super::render::render;
use super::*;

/// Writes all files of a configuration and returns where they are.
fn written(state: &X509State, files: serde_json::Value) -> (tempfile::TempDir, std::path::PathBuf) {
    let (home, path) = place();
    fs::write(home.path().join("password"), "correct horse\nsecond line\n").unwrap();
    let text = files.to_string().replace("PASSWORD", home.path().join("password").to_str().unwrap());
    let files: serde_json::Value = serde_json::from_str(&text).unwrap();
    let config = configure(&path, serde_json::json!({ "files": files }));
    let directory = Directory::open(&config).unwrap();
    let files = render(&config, svid(state), state, &SystemClock, &SystemRandom).unwrap();
    directory
        .publish(&files, &svid(state).serial.to_string(), svid(state).not_after, SystemClock.now())
        .unwrap();
    (home, path)
}

#[test]
fn openssl_reads_pem_files_and_believes_the_chain() {
    let state = Authority::new().issue(Duration::from_secs(600));
    let (_home, path) = written(
        &state,
        serde_json::json!([
            { "name": "tls.crt", "content": "chain" },
            { "name": "tls.key", "content": "key" },
            { "name": "both.pem", "content": "combined", "mode": "0640" },
            { "name": "ca.crt", "content": "bundle" },
            { "name": "issuers.crt", "content": "issuers" },
            { "name": "revoked.crl", "content": "crl" },
        ]),
    );
    let file = |name: &str| path.join(name).to_str().unwrap().to_owned();
    judge("openssl", &["verify", "-CAfile", &file("ca.crt"), &file("tls.crt")]);
    let of_certificate = judge("openssl", &["x509", "-in", &file("both.pem"), "-noout", "-pubkey"]);
    let of_key = judge("openssl", &["pkey", "-in", &file("both.pem"), "-pubout"]);
    assert_eq!(of_certificate, of_key);
    assert_eq!(fs::read(path.join("issuers.crt")).unwrap(), b"");
}

#[test]
fn openssl_reads_the_pkcs12_store() {
    let state = Authority::new().issue(Duration::from_secs(600));
    let (_home, path) = written(
        &state,
        serde_json::json!([{ "name": "id.p12", "content": "pkcs12", "password_file": "PASSWORD", "alias": "web" }]),
    );
    let store = path.join("id.p12");
    let store = store.to_str().unwrap();
    let arguments = ["pkcs12", "-in", store, "-passin", "pass:correct horse", "-nodes", "-info"];
    let Some(text) = judge("openssl", &arguments) else { return };
    for part in [
        "BEGIN PRIVATE KEY",
        "friendlyName: web",
        "PBES2, PBKDF2, AES-256-CBC",
        "authority-0",
        "hmacWithSHA256",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let wrong = std::process::Command::new("openssl")
        .args(["pkcs12", "-in", store, "-passin", "pass:wrong one", "-nodes"])
        .output()
        .unwrap();
    assert!(!wrong.status.success());
}

#[test]
fn java_reads_both_stores() {
    let state = Authority::new().issue(Duration::from_secs(600));
    let (_home, path) = written(
        &state,
        serde_json::json!([
            { "name": "id.p12", "content": "pkcs12", "password_file": "PASSWORD" },
            { "name": "id.jks", "content": "jks", "password_file": "PASSWORD" },
        ]),
    );
    for (kind, name) in [("PKCS12", "id.p12"), ("JKS", "id.jks")] {
        let store = path.join(name);
        let store = store.to_str().unwrap();
        let common = ["-keystore", store, "-storetype", kind, "-storepass", "correct horse"];
        let Some(list) = judge("keytool", &[&["-J-Duser.language=en", "-list"], &common[..]].concat()) else {
            return;
        };
        assert!(list.contains("identity, ") && list.contains("PrivateKeyEntry"), "{kind}: {list}");
        assert!(list.contains("authority-0, ") && list.contains("trustedCertEntry"), "{kind}: {list}");
        // Making a request takes the key out of the store.
        let request = [&["-certreq", "-alias", "identity"], &common[..]].concat();
        assert!(judge("keytool", &request).unwrap().contains("BEGIN NEW CERTIFICATE REQUEST"));
    }
}

#[test]
fn nothing_is_made_of_a_key_that_does_not_belong_or_of_a_dead_certificate() {
    let (_home, path) = place();
    let config = configure(&path, serde_json::json!({}));
    let authority = Authority::new();
    let (one, other) = (authority.issue(Duration::from_secs(600)), authority.issue(Duration::from_secs(600)));
    let torn = X509Svid { key: svid(&other).key.clone(), ..svid(&one).clone() };
    let error = render(&config, &torn, &one, &SystemClock, &SystemRandom).unwrap_err();
    assert!(matches!(error, RenderError::Mismatch(_)), "{error}");
    let dead = X509Svid { not_after: SystemClock.now(), ..svid(&one).clone() };
    let error = render(&config, &dead, &one, &SystemClock, &SystemRandom).unwrap_err();
    assert!(matches!(error, RenderError::Ended(_)), "{error}");
}

#[test]
fn password_that_cannot_be_read_is_explained() {
    let (home, path) = place();
    let password = home.path().join("password");
    let files = serde_json::json!([{ "name": "id.p12", "content": "pkcs12", "password_file": password }]);
    let config = configure(&path, serde_json::json!({ "files": files }));
    let state = Authority::new().issue(Duration::from_secs(600));
    let why = || render(&config, svid(&state), &state, &SystemClock, &SystemRandom).unwrap_err().to_string();
    assert!(why().contains("cannot read the password"), "{}", why());
    fs::write(&password, "short\n").unwrap();
    assert!(why().contains("its first line has 5 bytes"), "{}", why());
}
