//! Directories in every state that backups, operators, disks and crashes leave behind.

use std::fs;
use std::os::unix::fs::FileExt;

use super::*;
use crate::embedded::{CheckError, JournalError};

/// A ledger of some dozen entries over several segments, closed; and what its client knows.
async fn made(options: Options) -> (TempDir, Client) {
    let (home, mut client) = (directory(), Client::default());
    let ledger = create(home.path(), options);
    more(&ledger, &mut client, 30).await;
    (home, client)
}

/// Goes on from what a client knows.
async fn more(ledger: &EmbeddedLedger, client: &mut Client, calls: u64) {
    let size = ledger.head().size;
    if size == 0 {
        let setup = vec![workload::genesis(), workload::issuer(), workload::registration(99)];
        client.commit(ledger, setup).await.unwrap();
    }
    let mut mix = Mix::new(size);
    for call in 0..calls {
        let counter = 5_000 + size * 10 + call;
        let enrolment = workload::enrolment(workload::issuance(counter, workload::identity(99)));
        client.commit(ledger, vec![enrolment, mix.proposal()]).await.unwrap();
        client.sign(ledger, *client.acknowledged.keys().next_back().unwrap()).await.unwrap();
    }
    client.checkpoint(ledger);
}

/// Opens, finds everything, stops, and checks.
async fn recovers(home: &Path, client: &Client) {
    let ledger = open(home).unwrap_or_else(|error| panic!("{error}"));
    client.verify(&ledger).await;
    client.verify_signatures(&ledger).await;
    let digest = ledger.model_digest().unwrap();
    drop(ledger);
    let report = check(home);
    assert_eq!(report.indexed, client.acknowledged.len() as u64);
    assert!(report.published_is_signed);
    assert_eq!(report.signatures, client.signed.len() as u64);
    let rebuilt = EmbeddedLedger::rebuild(home, workload::signer(), hasty(), &mut |_, _| {}).unwrap();
    assert_eq!(rebuilt.model_digest().unwrap(), digest);
}

fn segments(home: &Path) -> u32 {
    (0..).take_while(|number| segment(home, *number).exists()).last().unwrap() + 1
}

/// Behind the last byte of a segment that is used.
fn used(path: &Path) -> u64 {
    fs::read(path).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

fn poke(path: &Path, offset: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

fn flip(path: &Path, offset: u64) {
    let mut byte = [0];
    fs::File::open(path).unwrap().read_exact_at(&mut byte, offset).unwrap();
    poke(path, offset, &[byte[0] ^ 0x40]);
}

fn remove(home: &Path, names: &[&str]) {
    for name in names {
        let path = home.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else if path.exists() {
            fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test]
async fn everything_that_follows_from_the_journal_may_be_missing() {
    let (origin, client) = made(hasty()).await;
    for names in [
        &["index.redb"][..],
        &["derived"],
        &["index.redb", "derived"],
        &["derived/hashes.0"],
        &["derived/hashes.1"],
        &["derived/entries"],
        &["derived/signatures"],
        &["checkpoint"],
        &["lock"],
        &["index.redb", "derived", "checkpoint", "lock"],
    ] {
        let home = copy(origin.path());
        remove(home.path(), names);
        let found = EmbeddedLedger::check_everything(home.path(), &mut |_, _| {});
        let is_found = names.iter().all(|name| name.starts_with("derived"));
        assert_eq!(matches!(found, Err(CheckError::Derived { .. })), is_found, "{names:?}: {found:?}");
        let ledger = open(home.path()).unwrap_or_else(|error| panic!("{names:?}: {error}"));
        client.verify(&ledger).await;
        client.verify_signatures(&ledger).await;
        drop(ledger);
        assert_eq!(check(home.path()).indexed, client.acknowledged.len() as u64, "{names:?}");
    }
}

#[tokio::test]
async fn derived_files_may_be_short_or_damaged() {
    let (origin, client) = made(hasty()).await;
    for name in ["hashes.0", "entries"] {
        let length = fs::metadata(origin.path().join("derived").join(name)).unwrap().len();
        for short in [0, 1, length / 2, length - 1] {
            let home = copy(origin.path());
            let file =
                fs::OpenOptions::new().write(true).open(home.path().join("derived").join(name)).unwrap();
            file.set_len(short).unwrap();
            let found = EmbeddedLedger::check_everything(home.path(), &mut |_, _| {});
            assert!(matches!(found, Err(CheckError::Derived { .. })), "{name} cut to {short}: {found:?}");
            recovers(home.path(), &client).await;
        }
        for at in [3, length / 2, length - 1] {
            let home = copy(origin.path());
            flip(&home.path().join("derived").join(name), at);
            let found = EmbeddedLedger::check_everything(home.path(), &mut |_, _| {});
            let entry = at / if name == "entries" { 8 } else { 32 };
            assert!(
                matches!(&found, Err(CheckError::Derived { file, index })
                    if *file == format!("derived/{name}") && *index == entry),
                "{name} changed at {at}: {found:?}"
            );
            let rebuilt = EmbeddedLedger::rebuild(home.path(), workload::signer(), hasty(), &mut |_, _| {});
            drop(rebuilt.unwrap());
            recovers(home.path(), &client).await;
        }
    }
}

/// A proof from damaged hashes must not be given, an entry from a damaged place neither.
#[tokio::test]
async fn a_wrong_location_or_hash_never_gives_a_wrong_entry() {
    let (home, client) = made(hasty()).await;
    flip(&home.path().join("derived/entries"), 8 * 10 + 7);
    flip(&home.path().join("derived/hashes.0"), 32 * 12);
    // Both stay unnoticed at the start, because the last entry and the edge of the tree are in order, or not.
    let Ok(ledger) = open(home.path()) else { return };
    for (index, entry) in &client.acknowledged {
        match ledger.entry(*index).await {
            Ok(found) => assert_eq!(found.as_ref(), Some(entry)),
            Err(error) => assert!(error.to_string().contains(&format!("entry {index}")), "{error}"),
        }
    }
}

#[tokio::test]
async fn an_index_that_is_no_index_is_made_anew() {
    let (origin, client) = made(hasty()).await;
    let index = |home: &TempDir| home.path().join("index.redb");
    let whole = fs::read(index(&origin)).unwrap();
    let garbage = vec![0x5a; 100_000];
    for (what, bytes) in [
        ("empty", &[][..]),
        ("short garbage", b"not an index"),
        ("long garbage", &garbage),
        ("its first page", &whole[..4096]),
    ] {
        let home = copy(origin.path());
        fs::write(index(&home), bytes).unwrap();
        println!("{what}");
        recovers(home.path(), &client).await;
    }
}

#[tokio::test]
async fn a_record_that_is_wrong_in_the_index_is_found_and_named() {
    let (home, client) = made(hasty()).await;
    {
        let index = super::super::index::Index::open(
            &(Arc::new(super::super::disk::RealDisk) as Arc<dyn Disk>),
            &home.path().join("index.redb"),
            1 << 20,
        )
        .unwrap();
        let position = index.position().unwrap().unwrap();
        let mut layer = super::super::layer::Layer::default();
        let key = crate::model::Table::Certificate.key(&[workload::serial(5_000).as_bytes()]);
        layer.extend(std::iter::once((key, None)));
        index.commit(&layer, &position).unwrap();
    }
    let found = EmbeddedLedger::check_everything(home.path(), &mut |_, _| {});
    let key = workload::serial(5_000).to_string();
    assert!(
        matches!(&found, Err(CheckError::Index { table: 'c', key: wrong, what: "it is missing" }) if *wrong == key),
        "{found:?}"
    );
    drop(EmbeddedLedger::rebuild(home.path(), workload::signer(), hasty(), &mut |_, _| {}).unwrap());
    recovers(home.path(), &client).await;
}

#[tokio::test]
async fn a_torn_end_is_cut_wherever_it_was_torn() {
    let (home, mut client) = (directory(), Client::default());
    let ledger = create(home.path(), Options { segment_bytes: 1 << 20, ..lazy() });
    more(&ledger, &mut client, 10).await;
    let path = segment(home.path(), 0);
    let before = used(&path);
    let last = workload::enrolment(workload::issuance(77_777, workload::identity(99)));
    let uncertain: Vec<Vec<u8>> = last.entries.iter().map(|entry| entry.bytes.clone()).collect();
    ledger.commit(vec![last]).await.unwrap();
    let whole = fs::read(&path).unwrap();
    let killed = copy(home.path());
    drop(ledger);
    // The checkpoint that was written meanwhile may speak of the last batch: nobody published that.
    remove(killed.path(), &["checkpoint"]);
    client.uncertain = uncertain;
    let after = used(&path);
    assert!(after - before > 1_000);
    let mut cuts: Vec<u64> = (before..before + 64).collect();
    cuts.extend([before + 500, after - 1, after]);
    for cut in cuts {
        for rest in [0_u8, 0xa5] {
            let home = copy(killed.path());
            let mut bytes = whole.clone();
            bytes[usize::try_from(cut).unwrap()..usize::try_from(after).unwrap()].fill(rest);
            fs::write(segment(home.path(), 0), &bytes).unwrap();
            let torn = check(home.path()).torn_bytes;
            let ledger = open(home.path()).unwrap_or_else(|error| panic!("torn at {cut}: {error}"));
            client.verify(&ledger).await;
            let is_whole = cut == after;
            assert_eq!(ledger.head().size, client.acknowledged.len() as u64 + u64::from(is_whole));
            assert_eq!(torn > 0, !is_whole && (cut > before || rest != 0), "torn at {cut}");
            drop(ledger);
            let kept: Vec<_> = fs::read_dir(home.path().join("journal")).unwrap().flatten().collect();
            assert_eq!(kept.len(), if torn > 0 { 2 } else { 1 }, "what is cut off is kept aside");
            assert_eq!(check(home.path()).torn_bytes, 0);
            if !is_whole {
                assert_eq!(used(&segment(home.path(), 0)), before, "and gone from the journal");
            }
        }
    }
}

#[tokio::test]
async fn a_damaged_byte_anywhere_in_the_journal_is_found() {
    let (home, mut client) = (directory(), Client::default());
    let ledger = create(home.path(), Options { segment_bytes: 4 << 10, ..lazy() });
    more(&ledger, &mut client, 6).await;
    drop(ledger);
    let count = segments(home.path());
    assert!(count > 2);
    for number in 0..count {
        let path = segment(home.path(), number);
        let end = used(&path);
        for offset in (0..end).step_by(13) {
            flip(&path, offset);
            let found = EmbeddedLedger::check_everything(home.path(), &mut |_, _| {});
            let named = match &found {
                Err(CheckError::Ledger(OpenError::Journal(
                    JournalError::Corrupt { path: wrong, .. } | JournalError::Segment { path: wrong, .. },
                ))) => *wrong == path.display().to_string(),
                // The last batch looks like a torn one: what was promised tells.
                Err(CheckError::Ledger(OpenError::BehindIndex { .. })) => number + 1 == count,
                _ => false,
            };
            assert!(named, "segment {number}, byte {offset}: {found:?}");
            // With nothing beside it that remembers, the checkpoint still does.
            if offset % 5 == 0 {
                let copy = copy(home.path());
                remove(copy.path(), &["index.redb", "derived"]);
                let opened = open(copy.path());
                assert!(
                    matches!(opened, Err(OpenError::Journal(_) | OpenError::BehindCheckpoint { .. })),
                    "segment {number}, byte {offset}: {opened:?}"
                );
                // And nothing was cut off for it.
                let same = fs::read(segment(copy.path(), number)).unwrap() == fs::read(&path).unwrap();
                assert!(same, "segment {number}, byte {offset}: changed by a start that failed");
            }
            flip(&path, offset);
        }
    }
    recovers(home.path(), &client).await;
}

#[tokio::test]
async fn segments_that_are_missing_exchanged_or_foreign_are_refused() {
    let (origin, client) = made(hasty()).await;
    let (other, _) = made(hasty()).await;
    let last = segments(origin.path()) - 1;
    assert!(last >= 3);
    let mut attempts: Vec<(&str, TempDir)> = Vec::new();
    for number in [0, 1, last] {
        let home = copy(origin.path());
        fs::remove_file(segment(home.path(), number)).unwrap();
        attempts.push(("missing", home));
        let home = copy(origin.path());
        fs::copy(segment(other.path(), number), segment(home.path(), number)).unwrap();
        attempts.push(("of another log", home));
    }
    let home = copy(origin.path());
    fs::copy(segment(home.path(), 1), segment(home.path(), 2)).unwrap();
    attempts.push(("twice", home));
    let home = copy(origin.path());
    fs::write(segment(home.path(), last + 1), fs::read(segment(home.path(), last)).unwrap()).unwrap();
    attempts.push(("one too many", home));
    let home = copy(origin.path());
    fs::write(segment(home.path(), 1), b"CHJ1").unwrap();
    attempts.push(("without a header", home));
    for (what, home) in attempts {
        for with_index in [true, false] {
            if !with_index {
                remove(home.path(), &["index.redb"]);
            }
            let opened = open(home.path());
            let refused = matches!(
                opened,
                Err(OpenError::Journal(_)
                    | OpenError::BehindCheckpoint { .. }
                    | OpenError::BehindIndex { .. })
            );
            assert!(refused, "a segment {what}, index {with_index}: {opened:?}");
        }
    }
    recovers(origin.path(), &client).await;
}

#[tokio::test]
async fn an_older_journal_is_refused_by_index_and_checkpoint() {
    let (home, mut client) = (directory(), Client::default());
    let ledger = create(home.path(), hasty());
    more(&ledger, &mut client, 5).await;
    drop(ledger);
    let backup = copy(home.path());
    let ledger = open(home.path()).unwrap();
    more(&ledger, &mut client, 20).await;
    drop(ledger);
    let restore = |names: &[&str]| {
        let restored = copy(home.path());
        remove(restored.path(), &["journal"]);
        fs::create_dir(restored.path().join("journal")).unwrap();
        copy_into(&backup.path().join("journal"), &restored.path().join("journal"));
        remove(restored.path(), names);
        restored
    };
    let restored = restore(&["checkpoint"]);
    for _ in 0..2 {
        let opened = open(restored.path());
        assert!(matches!(opened, Err(OpenError::BehindIndex { .. })), "{opened:?}");
    }
    let rebuilt = EmbeddedLedger::rebuild(restored.path(), workload::signer(), hasty(), &mut |_, _| {});
    assert!(matches!(rebuilt, Err(OpenError::BehindIndex { .. })), "{rebuilt:?}");
    let found = EmbeddedLedger::check_everything(restored.path(), &mut |_, _| {});
    assert!(matches!(found, Err(CheckError::Ledger(OpenError::BehindIndex { .. }))), "{found:?}");
    for names in [&[][..], &["index.redb"], &["index.redb", "derived"]] {
        let restored = restore(names);
        let opened = open(restored.path());
        let told = opened.as_ref().unwrap_err().to_string();
        assert!(matches!(opened, Err(OpenError::BehindCheckpoint { .. })), "without {names:?}: {opened:?}");
        assert!(told.contains("fork the log") && told.contains("Restore"), "{told}");
    }
    recovers(home.path(), &client).await;
}

/// The same beginning, then another history: what a restored backup that was written to looks like.
#[tokio::test]
async fn a_forked_journal_is_refused() {
    let (home, mut client) = (directory(), Client::default());
    let ledger = create(home.path(), hasty());
    more(&ledger, &mut client, 5).await;
    drop(ledger);
    let fork = copy(home.path());
    let mut of_fork = client.clone();
    let ledger = open(home.path()).unwrap();
    more(&ledger, &mut client, 20).await;
    drop(ledger);
    let ledger = open(fork.path()).unwrap();
    ledger.commit(vec![workload::registration(7)]).await.unwrap();
    of_fork
        .acknowledged
        .insert(ledger.head().size - 1, ledger.entry(ledger.head().size - 1).await.unwrap().unwrap());
    more(&ledger, &mut of_fork, 30).await;
    drop(ledger);
    remove(home.path(), &["journal"]);
    fs::create_dir(home.path().join("journal")).unwrap();
    copy_into(&fork.path().join("journal"), &home.path().join("journal"));
    let without_index = copy(home.path());
    remove(without_index.path(), &["index.redb"]);
    for (home, has_index) in [(home, true), (without_index, false)] {
        let opened = open(home.path());
        assert!(matches!(opened, Err(OpenError::NotPublished { .. })), "{opened:?}");
        let told = opened.unwrap_err().to_string();
        assert!(told.contains("altered") && told.contains("restore"), "{told}");
        remove(home.path(), &["checkpoint"]);
        let opened = open(home.path());
        assert_eq!(matches!(opened, Err(OpenError::NotIndexed { .. })), has_index, "{opened:?}");
    }
}

#[tokio::test]
async fn an_index_of_another_log_is_refused_until_it_is_rebuilt() {
    let (home, client) = made(hasty()).await;
    let (other, _) = made(hasty()).await;
    fs::copy(other.path().join("index.redb"), home.path().join("index.redb")).unwrap();
    let opened = open(home.path());
    assert!(matches!(opened, Err(OpenError::ForeignIndex { .. })), "{opened:?}");
    let found = EmbeddedLedger::check_everything(home.path(), &mut |_, _| {});
    assert!(matches!(found, Err(CheckError::Ledger(OpenError::ForeignIndex { .. }))), "{found:?}");
    drop(EmbeddedLedger::rebuild(home.path(), workload::signer(), hasty(), &mut |_, _| {}).unwrap());
    recovers(home.path(), &client).await;
}

#[tokio::test]
async fn a_checkpoint_that_is_altered_foreign_or_ahead_is_refused() {
    let (home, client) = made(hasty()).await;
    let path = home.path().join("checkpoint");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let size = client.acknowledged.len();
    let ahead = |size: usize| {
        let checkpoint = chancery_merkle::Checkpoint::new(workload::ORIGIN, size as u64, Digest::of(b"?"));
        workload::signer().sign(&checkpoint.unwrap().text()).unwrap().to_string()
    };
    let of_other_key = {
        let signer = workload::signer_of(workload::ORIGIN, 8);
        let checkpoint = chancery_merkle::Checkpoint::parse(&(lines[..3].join("\n") + "\n")).unwrap();
        signer.sign(&checkpoint.text()).unwrap().to_string()
    };
    let damaged = |opened: &OpenError| matches!(opened, OpenError::Checkpoint { .. });
    let cases: [(&str, String, &dyn Fn(&OpenError) -> bool); 9] = [
        ("empty", String::new(), &damaged),
        ("not a note", "hello\n".into(), &damaged),
        ("another origin", text.replace(workload::ORIGIN, "example.com/log"), &damaged),
        ("of another key", of_other_key, &damaged),
        ("a changed size", text.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size - 1), 1), &damaged),
        (
            "a changed signature",
            text.replacen(lines[4], &lines[4].replace("AB", "AC").replace('z', "y"), 1),
            &damaged,
        ),
        ("not UTF-8", String::new(), &damaged),
        ("ahead", ahead(size + 1), &|error| matches!(error, OpenError::BehindCheckpoint { .. })),
        ("another root", ahead(size), &|error| matches!(error, OpenError::NotPublished { .. })),
    ];
    for (what, changed, expected) in cases {
        if changed == text {
            continue;
        }
        match what {
            "not UTF-8" => fs::write(&path, [0xff, 0xfe]).unwrap(),
            _ => fs::write(&path, changed).unwrap(),
        }
        let error = open(home.path()).expect_err(what);
        assert!(expected(&error), "{what}: {error:?}");
        let found = EmbeddedLedger::check_everything(home.path(), &mut |_, _| {});
        assert!(found.is_err(), "{what}: {found:?}");
    }
    fs::write(&path, &text).unwrap();
    recovers(home.path(), &client).await;
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_who_has_it() {
    let (home, client) = made(hasty()).await;
    let ledger = open(home.path()).unwrap();
    for _ in 0..2 {
        let error = open(home.path()).unwrap_err();
        assert!(matches!(error, OpenError::Locked { .. }), "{error:?}");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    }
    let rebuilt = EmbeddedLedger::rebuild(home.path(), workload::signer(), hasty(), &mut |_, _| {});
    assert!(matches!(rebuilt, Err(OpenError::Locked { .. })));
    let found = EmbeddedLedger::check_everything(home.path(), &mut |_, _| {});
    assert!(matches!(found, Err(CheckError::Ledger(OpenError::Locked { .. }))));
    let created = EmbeddedLedger::create(home.path(), workload::signer(), hasty(), &SystemRandom);
    assert!(matches!(created, Err(OpenError::Locked { .. })));
    client.verify(&ledger).await;
    drop(ledger);
    recovers(home.path(), &client).await;
}

#[tokio::test]
async fn a_directory_that_is_not_empty_is_not_made_into_a_ledger() {
    let (home, client) = made(hasty()).await;
    let refused = |home: &Path| {
        let created = EmbeddedLedger::create(home, workload::signer(), hasty(), &SystemRandom);
        matches!(created, Err(OpenError::Directory { .. }))
    };
    assert!(refused(home.path()));
    let remains = copy(home.path());
    remove(remains.path(), &["journal"]);
    assert!(refused(remains.path()), "a journal that is gone may come back");
    recovers(home.path(), &client).await;
    let empty = directory();
    let opened = open(empty.path());
    assert!(matches!(&opened, Err(OpenError::Directory { .. })), "{opened:?}");
    assert!(opened.unwrap_err().to_string().contains("chancery init"));
    let found = EmbeddedLedger::check_everything(empty.path(), &mut |_, _| {});
    assert!(matches!(found, Err(CheckError::Ledger(OpenError::Directory { .. }))));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "asking leaves nothing behind");
}

#[tokio::test]
async fn checking_changes_nothing() {
    let (origin, client) = made(hasty()).await;
    // Also of a ledger that was killed: with a torn end, an index that needs repair, and much to replay.
    let ledger = open(origin.path()).unwrap();
    ledger.commit(vec![workload::registration(1_000)]).await.unwrap();
    let killed = copy(origin.path());
    drop(ledger);
    let last = segments(killed.path()) - 1;
    let end = used(&segment(killed.path(), last));
    poke(&segment(killed.path(), last), end, b"CHB1 torn");
    let read = |home: &Path| {
        let mut files = BTreeMap::new();
        for directory in [home.to_owned(), home.join("journal"), home.join("derived")] {
            for entry in fs::read_dir(directory).unwrap().flatten().filter(|entry| entry.path().is_file()) {
                if entry.file_name() != "lock" {
                    files.insert(entry.path(), fs::read(entry.path()).unwrap());
                }
            }
        }
        files
    };
    let before = read(killed.path());
    let report = check(killed.path());
    assert!(report.torn_bytes >= 9 && report.entries > report.indexed);
    assert!(read(killed.path()) == before);
    let mut heard = Vec::new();
    EmbeddedLedger::check_everything(killed.path(), &mut |done, total| heard.push((done, total))).unwrap();
    assert!(heard.is_sorted() && heard.last().unwrap().0 == report.entries);
    drop(client);
}

#[tokio::test]
async fn bytes_that_look_like_batches_inside_entries_are_not_taken_for_batches() {
    let (home, mut client) = (directory(), Client::default());
    let ledger = create(home.path(), lazy());
    more(&ledger, &mut client, 2).await;
    // What a stranger who knows the format, but not the log id, can put into an entry.
    let mut forged = Vec::new();
    for index in 0..20_u64 {
        forged.extend_from_slice(b"CHB1");
        forged.extend_from_slice(&0_u32.to_be_bytes());
        forged.extend_from_slice(&0_u32.to_be_bytes());
        forged.extend_from_slice(&(100 + index).to_be_bytes());
        forged.extend_from_slice(&crc32c::crc32c(b"").to_be_bytes());
        let checksum = crc32c::crc32c(&forged[forged.len() - 24..]);
        forged.extend_from_slice(&checksum.to_be_bytes());
    }
    let mut issuance = workload::issuance(9, workload::identity(99));
    issuance.tbs = chancery_entry::Blob(forged);
    ledger.commit(vec![workload::enrolment(issuance)]).await.unwrap();
    let killed = copy(home.path());
    drop(ledger);
    // Torn in its header: what follows are the forged ones.
    let path = segment(killed.path(), segments(killed.path()) - 1);
    let bytes = fs::read(&path).unwrap();
    let place = bytes.windows(4).rposition(|window| window == b"CHB1").unwrap();
    let first = bytes.windows(8).position(|window| window == b"CHB1\0\0\0\0").unwrap();
    assert!(first < place, "the forged ones are there");
    let batch = bytes[..first].windows(4).rposition(|window| window == b"CHB1").unwrap();
    poke(&path, batch as u64 + 24, &[0xff]);
    remove(killed.path(), &["checkpoint"]);
    recovers_without_checkpoint(killed.path(), &client).await;
}

async fn recovers_without_checkpoint(home: &Path, client: &Client) {
    let ledger = open(home).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ledger.head().size, client.acknowledged.len() as u64);
    client.verify(&ledger).await;
}

#[tokio::test]
async fn a_replay_may_be_killed_and_begun_again() {
    use super::disks::{Fault, FaultyDisk};
    let (home, mut client) = (directory(), Client::default());
    let ledger = create(home.path(), lazy());
    more(&ledger, &mut client, 40).await;
    let killed = copy(home.path());
    drop(ledger);
    for at in 0..25 {
        let disk = Arc::new(FaultyDisk::default());
        disk.plan(at, Fault::Dead);
        let shared: Arc<dyn Disk> = Arc::clone(&disk) as Arc<dyn Disk>;
        drop(EmbeddedLedger::open_on(&shared, killed.path(), workload::signer(), hasty()));
    }
    recovers(killed.path(), &client).await;
}
