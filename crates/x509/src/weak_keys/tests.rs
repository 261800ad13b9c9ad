use super::*;
use crate::CertificateRequest;

const REQUEST: &[u8] = include_bytes!("../../tests/fixtures/requests/rsa2048.pem");
const OTHER_REQUEST: &[u8] = include_bytes!("../../tests/fixtures/requests/rsa4096-sha512.pem");
/// `openssl req -in rsa2048.pem -noout -modulus | sha1sum`, the last twenty digits.
const ENTRY: &str = "f2c685e4f88075d46bde";

fn key(request: &[u8]) -> PublicKey {
    CertificateRequest::from_pem_or_der(request).unwrap().public_key().clone()
}

#[test]
fn refuses_a_listed_key_and_no_other() {
    let text = format!("# Debian\n00000000000000000000\n{ENTRY}  # pid 4711\n\nffffffffffffffffffff\n");
    let list = WeakKeyList::from_text(text.as_bytes(), "list").unwrap();
    assert_eq!(list.len(), 3);
    assert_eq!(list.check(&key(REQUEST)), Err(KnownWeakKey));
    assert_eq!(list.check(&key(OTHER_REQUEST)), Ok(()));
    let elliptic = key(include_bytes!("../../tests/fixtures/requests/p256.pem"));
    assert_eq!(list.check(&elliptic), Ok(()));
    assert!(WeakKeyList::default().is_empty());
}

#[test]
fn reads_several_files_and_names_the_bad_one() {
    let directory = tempfile::tempdir().unwrap();
    let paths =
        ["blacklist.RSA-2048", "blacklist.RSA-4096", "missing"].map(|name| directory.path().join(name));
    std::fs::write(&paths[0], format!("{}\n{ENTRY}", ENTRY.to_uppercase())).unwrap();
    std::fs::write(&paths[1], "0123456789abcdef0123").unwrap();
    let list = WeakKeyList::from_files(&paths[..2]).unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(list.check(&key(REQUEST)), Err(KnownWeakKey));

    let error = WeakKeyList::from_files(&paths).unwrap_err();
    assert!(matches!(&error, WeakKeyListError::Read { path, .. } if *path == paths[2]), "{error}");
    std::fs::write(&paths[1], "0123456789abcdef0123\nnot an entry\n").unwrap();
    let error = WeakKeyList::from_files(&paths[..2]).unwrap_err();
    assert!(matches!(&error, WeakKeyListError::Line { path, line: 2 } if *path == paths[1]), "{error}");
}

#[test]
fn refuses_lines_that_are_not_entries() {
    let long_comment = format!("#{}\n", "x".repeat(300));
    let hidden = format!("{}{ENTRY}\n", " ".repeat(190));
    for text in [
        "0123456789abcdef012",
        "0123456789abcdef01234",
        "0123456789abcdef012g",
        "a3853d0c563765e504c18df20e6961a16398b85a",
        "[\"0123456789abcdef0123\"]",
        &long_comment,
        &hidden,
    ] {
        let error = WeakKeyList::from_text(text.as_bytes(), "list").unwrap_err();
        assert!(error.to_string().starts_with("line 1 of the weak key list list is not an entry"), "{text}");
    }
}

#[test]
fn refuses_more_entries_than_it_holds() {
    let mut entries = vec![[0; 10]; MAX_ENTRIES];
    let error = read_entries(ENTRY.as_bytes(), Path::new("list"), &mut entries).unwrap_err();
    assert!(matches!(error, WeakKeyListError::TooLong { limit: MAX_ENTRIES, .. }), "{error}");
}
