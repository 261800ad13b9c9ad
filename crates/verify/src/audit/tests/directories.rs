//! The static layout: made from the JSON form, audited like it, and damaged file by file.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// Enough entries for full tiles, a partial one and a second level.
fn large() -> Authority {
    let mut authority = Authority::new();
    let web = authority.enroll("web");
    for _ in 0..600 {
        authority.record(chancery_entry::Body::Null);
    }
    authority.renew("web");
    let revocation = authority.revoke(web, RevocationReason::Superseded);
    let line = authority.line(revocation);
    authority.publish(&[line]);
    authority
}

fn unpacked(authority: &Authority) -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("export");
    let export = authority.export();
    unpack(&mut JsonLines::open(export.as_bytes()).unwrap(), &root).unwrap();
    (parent, root)
}

fn audit_of(root: &Path, options: &AuditOptions) -> Result<AuditReport, AuditError> {
    audit(&mut Directory::open(root)?, options, &mut |_| {})
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn the_directory_says_what_the_lines_say() {
    let authority = large();
    let (_parent, root) = unpacked(&authority);
    let names: Vec<String> = files(&root)
        .iter()
        .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned())
        .collect();
    let partial = authority.len() - 512;
    let expected = [
        "chancery.json".to_owned(),
        "checkpoint".to_owned(),
        "crl/00000.der".to_owned(),
        "signatures".to_owned(),
        "tile/0/000".to_owned(),
        "tile/0/001".to_owned(),
        format!("tile/0/002.p/{partial}"),
        "tile/1/000.p/2".to_owned(),
        "tile/entries/000".to_owned(),
        "tile/entries/001".to_owned(),
        format!("tile/entries/002.p/{partial}"),
    ];
    assert_eq!(names, expected);
    let report = audit_of(&root, &options(&authority)).unwrap();
    assert_eq!(report.findings.list(), []);
    let lines = audited(&authority);
    assert_eq!((report.root, report.kinds, report.signed), (lines.root, lines.kinds, lines.signed));
}

#[test]
fn a_changed_byte_in_any_file_is_found() {
    let authority = large();
    let (_parent, root) = unpacked(&authority);
    let options = options(&authority);
    for path in files(&root) {
        let sound = fs::read(&path).unwrap();
        let created = sound.windows(9).position(|window| window == b"\"created\"").unwrap_or(usize::MAX);
        for at in (0..sound.len()).step_by(1 + sound.len() / 12) {
            // Nothing vouches for the time of the export.
            if at > created {
                continue;
            }
            let mut changed = sound.clone();
            changed[at] ^= 1 << (at % 7);
            fs::write(&path, &changed).unwrap();
            let found = audit_of(&root, &options).is_ok_and(|report| report.findings.are_clean());
            assert!(!found, "byte {at} of {} was changed unnoticed", path.display());
        }
        fs::write(&path, sound).unwrap();
    }
}

#[test]
fn a_changed_entry_is_named_by_the_hash_in_its_tile() {
    let authority = large();
    let (_parent, root) = unpacked(&authority);
    let path = root.join("tile/entries/001");
    let mut bytes = fs::read(&path).unwrap();
    // Null entries have 11 bytes and a length of two before them; the last byte is of the time.
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let report = audit_of(&root, &options(&authority)).unwrap();
    let named: Vec<_> =
        report.findings.list().iter().filter(|finding| finding.check == Check::LeafHash).collect();
    assert_eq!(named.len(), 1);
    assert_eq!(named[0].index, Some(511));
}

#[test]
fn a_missing_file_is_found_or_is_no_export_at_all() {
    let authority = large();
    let (_parent, root) = unpacked(&authority);
    let options = options(&authority);
    for path in files(&root) {
        let sound = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let report = audit_of(&root, &options);
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        match name.as_str() {
            "chancery.json" | "checkpoint" => assert!(report.is_err(), "{name}"),
            "crl/00000.der" => assert!(report.unwrap().findings.counts().contains_key(&Check::CrlAbsent)),
            _ => assert!(report.unwrap().findings.counts().contains_key(&Check::ExportDamaged), "{name}"),
        }
        fs::write(&path, sound).unwrap();
    }
}

#[test]
fn a_partial_tile_may_have_become_a_full_one() {
    let mut authority = large();
    let (_parent, root) = unpacked(&authority);
    while !authority.len().is_multiple_of(256) {
        authority.record(chancery_entry::Body::Null);
    }
    let (_longer, later) = unpacked(&authority);
    fs::remove_dir_all(root.join("tile")).unwrap();
    fs::rename(later.join("tile"), root.join("tile")).unwrap();
    let report = audit_of(&root, &options(&authority)).unwrap();
    // Only tile/1, which has grown beyond the partial one and not become full, is missing.
    let found: Vec<_> = report.findings.list().iter().map(|finding| finding.detail.as_str()).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("tile/1/000.p/2: "));
}

#[test]
fn refuses_to_unpack_what_is_damaged_or_partial_or_in_the_way() {
    let authority = busy();
    let parent = tempfile::tempdir().unwrap();
    let mut lines = authority.lines();
    lines.swap(3, 4);
    let swapped = seal(&authority.header(), &lines);
    let refused = unpack(&mut JsonLines::open(swapped.as_bytes()).unwrap(), &parent.path().join("a"));
    assert!(matches!(refused, Err(UnpackError::Damaged { index: 3, .. })));
    let header = ExportHeader { selection: Some("x".into()), ..authority.header() };
    let selection = seal(&header, &[]);
    let refused = unpack(&mut JsonLines::open(selection.as_bytes()).unwrap(), &parent.path().join("b"));
    assert!(matches!(refused, Err(UnpackError::Selection)));
    let whole = authority.export();
    let refused = unpack(&mut JsonLines::open(whole.as_bytes()).unwrap(), parent.path());
    assert!(matches!(refused, Err(UnpackError::Io(_))));
}

#[test]
fn a_size_that_nobody_signed_does_not_make_the_audit_endless() {
    let authority = large();
    let (_parent, root) = unpacked(&authority);
    let forged = authority.checkpoint(authority.len()).to_string();
    let forged = forged.replacen(&format!("\n{}\n", authority.len()), "\n4611686018427387904\n", 1);
    fs::write(root.join("checkpoint"), forged).unwrap();
    let report = audit_of(&root, &options(&authority)).unwrap();
    let counts = report.findings.counts();
    assert!(counts.contains_key(&Check::CheckpointSignature) && counts.contains_key(&Check::ExportDamaged));
}
