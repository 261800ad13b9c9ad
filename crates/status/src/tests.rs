//! Properties of the set and its deltas, and what is done with hostile bytes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chancery_types::{IssuerEpoch, SerialNumber, Timestamp};
use proptest::prelude::*;

use crate::*;

type Model = BTreeMap<u16, BTreeSet<u64>>;

fn build(model: &Model, sequence: u64) -> ExactSet {
    let mut builder = SetBuilder::new(sequence, Timestamp::from_millis(1_000 + sequence.cast_signed()));
    for (epoch, counters) in model {
        builder.issuer(IssuerEpoch(*epoch), counters.iter().copied()).unwrap();
    }
    builder.build().unwrap()
}

fn serial(epoch: u16, counter: u64) -> SerialNumber {
    SerialNumber::compose(IssuerEpoch(epoch), counter, [9; 8]).unwrap()
}

fn counters(set: &ExactSet, epoch: u16) -> Vec<u64> {
    set.counters(IssuerEpoch(epoch)).unwrap().iter().collect()
}

/// Dense, sparse, clustered and at both ends of what a counter can be.
fn counter_sets() -> impl Strategy<Value = BTreeSet<u64>> {
    let wide = prop::collection::btree_set(0..SerialNumber::COUNTER_LIMIT, 0..300);
    let dense = prop::collection::btree_set(0..2_000_u64, 0..1_500);
    let runs = prop::collection::vec((0..1_u64 << 40, 1..200_u64), 0..6)
        .prop_map(|runs| runs.into_iter().flat_map(|(start, length)| start..start + length).collect());
    prop_oneof![wide, dense, runs]
}

fn models() -> impl Strategy<Value = Model> {
    prop::collection::btree_map(0..6_u16, counter_sets(), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_put_in_is_found_and_nothing_else(model in models(), probes in prop::collection::vec(0..SerialNumber::COUNTER_LIMIT, 20)) {
        let built = build(&model, 7);
        let set = ExactSet::parse(built.bytes().clone()).unwrap();
        prop_assert_eq!(&set, &built);
        prop_assert_eq!((set.sequence(), set.made().millis(), set.hash()), (7, 1_007, built.hash()));
        prop_assert_eq!(set.len(), model.values().map(BTreeSet::len).sum::<usize>());
        for epoch in 0..6 {
            let Some(wanted) = model.get(&epoch) else {
                prop_assert!(!set.covers(IssuerEpoch(epoch)));
                prop_assert_eq!(set.standing(serial(epoch, 1)), Standing::UnknownIssuer);
                continue;
            };
            prop_assert_eq!(counters(&set, epoch), wanted.iter().copied().collect::<Vec<_>>());
            let near = wanted.iter().flat_map(|&at| [at.saturating_sub(1), at, at + 1]);
            for counter in near.chain(probes.iter().copied()).filter(|at| *at < SerialNumber::COUNTER_LIMIT) {
                prop_assert_eq!(set.contains(serial(epoch, counter)), wanted.contains(&counter), "{}", counter);
            }
        }
    }

    #[test]
    fn deltas_lead_to_the_same_bytes_and_compose(first in models(), second in models(), third in models()) {
        let sets = [build(&first, 1), build(&second, 2), build(&third, 9)];
        let step = |from: &ExactSet, to: &ExactSet| {
            let delta = Delta::between(from, to).unwrap();
            Delta::parse(delta.bytes().clone()).unwrap().apply(from).unwrap()
        };
        let walked = step(&step(&sets[0], &sets[1]), &sets[2]);
        prop_assert_eq!(&walked, &sets[2]);
        prop_assert_eq!(&step(&sets[0], &sets[2]), &sets[2]);
    }

    #[test]
    fn whatever_is_accepted_is_the_one_way_to_write_it(model in models(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let set = build(&model, 3);
        let mut bytes = set.bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(read) = ExactSet::parse(bytes.clone().into()) {
            let mut builder = SetBuilder::new(read.sequence(), read.made());
            for epoch in read.issuers() {
                builder.issuer(epoch, read.counters(epoch).unwrap().iter()).unwrap();
            }
            let built = builder.build().unwrap();
            prop_assert_eq!(built.bytes(), &bytes);
        }
    }

    #[test]
    fn altered_deltas_make_the_promised_set_or_nothing(first in models(), second in models(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (old, new) = (build(&first, 1), build(&second, 2));
        let mut bytes = Delta::between(&old, &new).unwrap().bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(made) = Delta::parse(bytes.into()).and_then(|delta| delta.apply(&old)) {
            prop_assert_eq!(made, new);
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for magic in [b"chanset\x01", b"chandlt\x01"] {
            let mut bytes = [magic.as_slice(), &bytes].concat();
            let length = bytes.len() as u64;
            if let Some(field) = bytes.get_mut(8..16) {
                field.copy_from_slice(&length.to_le_bytes());
            }
            let _ = ExactSet::parse(bytes.clone().into());
            let _ = Delta::parse(bytes.into());
        }
    }
}

fn one_percent(certificates: u64) -> ExactSet {
    let model = Model::from([(1, (0..certificates).filter(|at| hash(*at).is_multiple_of(100)).collect())]);
    build(&model, 5)
}

/// A fixed, well-mixed function (the finaliser of splitmix64).
fn hash(at: u64) -> u64 {
    let mut mixed = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn one_percent_of_a_million_takes_less_than_a_fifth_more_than_a_byte_each() {
    let set = one_percent(1_000_000);
    let bytes = set.bytes().len() * 100 / set.len();
    assert!(bytes < 120, "{} bytes for {} certificates", set.bytes().len(), set.len());
}

#[test]
fn an_issuer_without_bad_certificates_is_known_and_good() {
    let set = build(&Model::from([(4, BTreeSet::new())]), 1);
    assert_eq!(set.standing(serial(4, 3)), Standing::Good);
    assert_eq!(set.standing(serial(5, 3)), Standing::UnknownIssuer);
    assert!(set.is_empty() && set.covers(IssuerEpoch(4)) && !set.covers(IssuerEpoch(5)));
}

#[test]
fn every_prefix_of_a_set_and_of_a_delta_is_refused() {
    let old = build(&Model::from([(1, (0..300).map(|at| at * 7).collect()), (2, BTreeSet::new())]), 1);
    let new = build(&Model::from([(1, (0..200).map(|at| at * 9).collect()), (3, [4].into())]), 2);
    let delta = Delta::between(&old, &new).unwrap();
    for length in 0..old.bytes().len() {
        let cut = old.bytes().slice(..length);
        assert!(ExactSet::parse(cut.clone()).is_err(), "{length}");
        // Also one that says itself that it is shorter.
        let mut cut = cut.to_vec();
        if length >= 16 {
            cut[8..16].copy_from_slice(&(length as u64).to_le_bytes());
            assert!(ExactSet::parse(cut.into()).is_err(), "{length}");
        }
    }
    for length in 0..delta.bytes().len() {
        assert!(Delta::parse(delta.bytes().slice(..length)).is_err(), "{length}");
    }
}

#[test]
fn a_set_of_a_later_version_says_so() {
    let mut bytes = build(&Model::new(), 1).bytes().to_vec();
    bytes[7] = 2;
    assert_eq!(ExactSet::parse(bytes.into()), Err(SetError::Version(2)));
    assert_eq!(ExactSet::parse(Bytes::from_static(b"<html>")), Err(SetError::Magic));
}

#[test]
fn counts_that_promise_more_than_is_there_are_refused_at_once() {
    let mut bytes = build(&Model::from([(1, [1, 2, 3].into())]), 1).bytes().to_vec();
    bytes[38..42].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(ExactSet::parse(bytes.into()), Err(SetError::List { .. })));
    let mut bytes = build(&Model::new(), 1).bytes().to_vec();
    bytes[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(ExactSet::parse(bytes.into()), Err(SetError::Table { .. })));
    let mut bytes = build(&Model::new(), 1).bytes().to_vec();
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(ExactSet::parse(bytes.into()), Err(SetError::TooLong { .. })));
}

#[test]
fn counters_that_do_not_rise_are_not_written() {
    let mut builder = SetBuilder::new(1, Timestamp::from_millis(1));
    let epoch = IssuerEpoch(1);
    assert_eq!(builder.issuer(epoch, [1, 1]), Err(BuildError::Order { epoch, counter: 1 }));
    assert_eq!(builder.issuer(epoch, [1 << 48]), Err(BuildError::Counter { epoch, counter: 1 << 48 }));
    builder.issuer(epoch, [1]).unwrap();
    assert_eq!(builder.issuer(epoch, [1]), Err(BuildError::Twice(epoch)));
    let ancient = SetBuilder::new(1, Timestamp::from_millis(-1));
    assert!(matches!(ancient.build(), Err(BuildError::Time(_))));
}

#[test]
fn a_delta_is_for_one_set_and_leads_forward() {
    let [one, two, three] = [1, 2, 3].map(|n| build(&Model::from([(1, [n].into())]), n));
    let delta = Delta::between(&one, &two).unwrap();
    assert_eq!((delta.from(), delta.sequence(), delta.counts()), (1, 2, (1, 1)));
    assert!(matches!(delta.apply(&three), Err(DeltaError::Base { from: 1, .. })));
    assert!(matches!(Delta::between(&two, &one), Err(DeltaError::Order { from: 2, to: 1 })));
    assert!(matches!(Delta::between(&two, &two), Err(DeltaError::Order { .. })));
}

#[test]
fn a_delta_of_a_few_certificates_is_short() {
    let old = one_percent(1_000_000);
    let mut model = Model::from([(1, counters(&old, 1).into_iter().collect())]);
    model.get_mut(&1).unwrap().extend([1_000_001, 1_000_500]);
    let delta = Delta::between(&old, &build(&model, 6)).unwrap();
    assert!(delta.bytes().len() < 170, "{}", delta.bytes().len());
}

mod signing {
    use std::sync::Arc;

    use chancery_merkle::{Ed25519NoteSigner, LogSigners, NoteError, NoteVerifier};
    use chancery_types::TrustDomain;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    fn key(seed: u8, name: &str) -> Arc<LogSigners> {
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
        let sign = move |text: &[u8]| Ok::<_, std::io::Error>(key.sign(text).as_ref().to_vec());
        LogSigners::of(Ed25519NoteSigner::new(name, public, sign).unwrap())
    }

    fn signed(numbers: &[u64], sequence: u64) -> (SignedSet, Vec<NoteVerifier>, TrustDomain) {
        let (signer, domain) = (key(1, "example.org/log"), TrustDomain::parse("example.org").unwrap());
        let set = build(&Model::from([(1, numbers.iter().copied().collect())]), sequence);
        let signed = SignedSet::sign(set, &domain, &signer).unwrap();
        (signed, signer.verifiers(), domain)
    }

    #[test]
    fn a_signed_set_is_opened_and_advanced() {
        let (one, log, domain) = signed(&[1, 5], 1);
        let (two, ..) = signed(&[5, 6, 7], 4);
        let opened = SignedSet::open(one.to_bytes(), &domain, &log).unwrap();
        let advanced = opened.advance(two.delta_from(opened.set()).unwrap(), &domain, &log).unwrap();
        assert_eq!(advanced.to_bytes(), two.to_bytes());
        let again = advanced.advance(two.delta_from(one.set()).unwrap(), &domain, &log);
        assert!(matches!(again, Err(OpenError::Delta(DeltaError::Base { .. }))));
    }

    #[test]
    fn other_keys_other_domains_and_other_sets_are_refused() {
        let (one, log, domain) = signed(&[1, 5], 1);
        let other = key(2, "example.org/log").verifiers();
        let refused = SignedSet::open(one.to_bytes(), &domain, &other);
        assert!(matches!(refused, Err(OpenError::Note(NoteError::Unsigned { .. }))));
        let elsewhere = TrustDomain::parse("example.com").unwrap();
        let refused = SignedSet::open(one.to_bytes(), &elsewhere, &log);
        assert!(matches!(refused, Err(OpenError::TrustDomain { .. })));
        let (two, ..) = signed(&[2], 2);
        let swapped = [two.set().bytes(), one.note().to_string().as_bytes()].concat();
        assert!(matches!(SignedSet::open(swapped.into(), &domain, &log), Err(OpenError::OtherSet { .. })));
        let unsigned = SignedSet::open(one.set().bytes().clone(), &domain, &log);
        assert!(matches!(unsigned, Err(OpenError::Note(NoteError::Shape))), "{unsigned:?}");
        let long = [one.to_bytes().as_ref(), &[b'x'; 20_000]].concat();
        assert!(matches!(SignedSet::open(long.into(), &domain, &log), Err(OpenError::NoNote(_))));
    }

    #[test]
    fn every_altered_bit_is_noticed() {
        let (one, log, domain) = signed(&[1, 5, 1 << 30], 1);
        let (two, ..) = signed(&[5], 2);
        let (set, delta) = (one.to_bytes(), two.delta_from(one.set()).unwrap());
        for bit in 0..set.len() * 8 {
            let mut bytes = set.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SignedSet::open(bytes.into(), &domain, &log).is_err(), "bit {bit}");
        }
        for bit in 0..delta.len() * 8 {
            let mut bytes = delta.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(one.advance(bytes.into(), &domain, &log).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_signed_text_has_one_spelling_and_is_no_checkpoint() {
        let (one, ..) = signed(&[1], 10);
        let text = one.note().text();
        let note: StatusNote = text.parse().unwrap();
        assert_eq!((note.sequence, note.hash), (10, one.set().hash()));
        for wrong in
            [text.replace("\n10\n", "\n010\n"), text.replace("\n10\n", "\n+10\n"), format!("{text}\n")]
        {
            assert!(wrong.parse::<StatusNote>().is_err(), "{wrong:?}");
        }
        assert_eq!("example.org/log\n10\nAAAA\n".parse::<StatusNote>().unwrap_err().line, 1);
        assert!(chancery_merkle::Checkpoint::parse(text).is_err());
    }
}

mod files {
    use super::*;

    #[test]
    fn a_replaced_file_leaves_its_readers_the_old_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.set");
        replace_file(&path, b"old").unwrap();
        // What a crash may have left.
        std::fs::write(directory.path().join("status.set.new"), b"torn").unwrap();
        let old = map_file(&path).unwrap();
        replace_file(&path, b"new and longer").unwrap();
        assert_eq!(old, b"old".as_slice());
        assert_eq!(map_file(&path).unwrap(), b"new and longer".as_slice());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_set_is_read_where_it_lies() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.set");
        let built = one_percent(100_000);
        replace_file(&path, built.bytes()).unwrap();
        let set = ExactSet::parse(map_file(&path).unwrap()).unwrap();
        assert_eq!(counters(&set, 1), counters(&built, 1));
        replace_file(&path, b"").unwrap();
        assert_eq!(ExactSet::parse(map_file(&path).unwrap()), Err(SetError::Magic));
    }
}
