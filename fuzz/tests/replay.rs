//! Runs every target over its committed corpus, and over cuts and alterations of each seed.

use std::path::Path;

#[test]
fn no_seed_breaks_a_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in chancery_fuzz::TARGETS {
        let mut seeds = 0;
        let directory = corpus.join(name);
        let listing =
            std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for file in listing {
            let seed = std::fs::read(file.unwrap().path()).unwrap();
            target(&seed);
            let step = seed.len() / 64 + 1;
            for place in (0..seed.len()).step_by(step) {
                target(&seed[..place]);
                let mut altered = seed.clone();
                altered[place] ^= 0x81;
                target(&altered);
            }
            seeds += 1;
        }
        assert!(seeds > 0, "{name} has no seed");
    }
}

#[test]
fn every_target_has_its_program() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
    let mut found: Vec<String> = std::fs::read_dir(programs)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut named: Vec<_> = chancery_fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    named.sort_unstable();
    assert_eq!(found, named);
}
