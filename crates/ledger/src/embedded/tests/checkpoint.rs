//! The checkpoint file, with several processes on one directory.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chancery_types::Digest;

use super::super::checkpoint::{LEFT_ALONE, Published, advance, gathered_by, sign, tidy, write};
use super::super::disk::{Disk, RealDisk};
use super::{directory, workload};
use crate::Head;

#[test]
fn processes_that_share_a_directory_replace_one_whole_checkpoint_by_another() {
    let directory = directory();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let write = |process: u8, size: u64| {
        let head = Head { size, root: Digest::of(&size.to_be_bytes()) };
        let note = sign(&head, workload::signer().as_ref()).unwrap();
        write(&disk, directory.path(), &gathered_by(&[process]), &note)
    };
    write(9, 1).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let process = |number| move || (1..500).try_for_each(|size| write(number, size));
        let writers = [0, 1, 2, 3].map(|number| scope.spawn(process(number)));
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let published = Published::read(directory.path()).unwrap().unwrap();
                published.note.verify(&[workload::verifier()]).unwrap();
            }
        });
        let written = writers.map(|writer| writer.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        assert!(written.iter().all(Result::is_ok), "{written:?}");
    });
    let left: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["checkpoint"]);
}

#[test]
fn of_processes_that_share_a_directory_none_goes_back() {
    let directory = directory();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (next, is_over) = (AtomicU64::new(1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let process = |number: u8| {
            let (disk, directory, next) = (&disk, directory.path(), &next);
            move || {
                for _ in 0..200 {
                    let size = next.fetch_add(1, Ordering::Relaxed);
                    let head = Head { size, root: Digest::of(&size.to_be_bytes()) };
                    let note = sign(&head, workload::signer().as_ref()).unwrap();
                    advance(disk, directory, &gathered_by(&[number]), (size, &note)).unwrap();
                }
            }
        };
        let writers = [0, 1, 2, 3].map(|number| scope.spawn(process(number)));
        scope.spawn(|| {
            let mut last = 0;
            while !is_over.load(Ordering::Relaxed) {
                let size = Published::read(directory.path()).unwrap().map_or(0, |found| found.head.size);
                assert!(size >= last, "{size} after {last}");
                last = size;
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(Published::read(directory.path()).unwrap().unwrap().head.size, 800);
}

#[test]
fn what_a_dead_process_left_is_removed_and_what_a_living_one_writes_stays() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    tidy(directory.path()).unwrap();
    let names = ["checkpoint.new", "checkpoint.aa.new", "checkpoint.bb.new", "checkpoint", "notes.new"];
    names.iter().for_each(|name| fs::write(path(name), name).unwrap());
    let published = fs::metadata(path("checkpoint")).unwrap().modified().unwrap();
    for name in ["checkpoint.new", "checkpoint.aa.new", "notes.new"] {
        let file = fs::OpenOptions::new().write(true).open(path(name)).unwrap();
        file.set_modified(published - 2 * LEFT_ALONE).unwrap();
    }
    tidy(directory.path()).unwrap();
    let left = names.map(|name| path(name).exists());
    assert_eq!(
        left,
        [false, false, true, true, true],
        "what is older by far than the checkpoint is nobody's"
    );
}
