//! Keys of a log that follow each other.

use std::sync::Arc;

use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::{
    Checkpoint, Ed25519NoteSigner, LogKeys, LogKeysError, LogSigner, LogSigners, MAX_LOG_KEYS, NoteError,
    NoteKeyKind, NoteVerifier, SignError, VerifiedCheckpoint, empty_root,
};

const LOG: &str = "example.com/log";

fn signer(seed: u8) -> LogSigner {
    let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = key.public_key().as_ref().try_into().unwrap();
    let sign = move |text: &[u8]| Ok::<_, SignError>(key.sign(text).as_ref().to_vec());
    Arc::new(Ed25519NoteSigner::new(LOG, public, sign).unwrap())
}

fn keys(seeds: &[u8]) -> LogKeys {
    LogKeys::new(seeds.iter().map(|seed| signer(*seed).verifier().clone())).unwrap()
}

fn checkpoint() -> String {
    Checkpoint::new(LOG, 0, empty_root()).unwrap().text()
}

#[test]
fn both_sign_while_one_key_follows_another() {
    let (old, new) = (signer(1), signer(2));
    let signers = LogSigners::new(LOG, vec![Arc::clone(&old)]);
    let before = signers.sign(&checkpoint()).unwrap();
    signers.put_in_force(vec![Arc::clone(&new), old]);
    let between = signers.sign(&checkpoint()).unwrap();
    signers.put_in_force(vec![new]);
    let after = signers.sign(&checkpoint()).unwrap();
    let is_believed = |note, seeds: &[u8]| VerifiedCheckpoint::open(note, &keys(seeds), &[]).is_ok();
    assert!(is_believed(&before, &[1]) && is_believed(&between, &[1]) && !is_believed(&after, &[1]));
    assert!(!is_believed(&before, &[2]) && is_believed(&between, &[2]) && is_believed(&after, &[2]));
    assert!([&before, &between, &after].iter().all(|note| is_believed(note, &[1, 2])));
}

#[test]
fn a_signer_goes_on_with_the_keys_that_signed_last() {
    let signers = LogSigners::new(LOG, vec![signer(1), signer(2), signer(3)]);
    assert_eq!(signers.in_force().len(), 1);
    let by_two = LogSigners::new(LOG, Vec::new());
    by_two.put_in_force(vec![signer(3), signer(2)]);
    signers.resume(&by_two.sign(&checkpoint()).unwrap()).unwrap();
    let in_force: Vec<_> = signers.in_force().iter().map(|signer| signer.verifier().clone()).collect();
    assert_eq!(in_force, keys(&[3, 2]).as_slice());
    let stranger = LogSigners::new(LOG, vec![signer(4)]).sign(&checkpoint()).unwrap();
    assert!(matches!(signers.resume(&stranger), Err(NoteError::Unsigned { .. })));
    assert_eq!(signers.in_force().len(), 2, "what was refused changes nothing");
}

#[test]
fn nothing_is_signed_without_a_key() {
    let nobody = LogSigners::new(LOG, Vec::new());
    assert!(matches!(nobody.sign(&checkpoint()), Err(SignError::NoKey(origin)) if origin == LOG));
}

#[test]
fn keys_of_a_log_are_lines() {
    let three = keys(&[1, 2, 3]);
    assert_eq!(three.to_string().lines().count(), 3);
    assert_eq!(format!("\n{three}\n\n").parse::<LogKeys>().unwrap(), three);
    assert_eq!((three.name(), three.newest()), (LOG, signer(3).verifier()));
    assert_eq!("  \n".parse::<LogKeys>(), Err(LogKeysError::None));
    assert!(matches!("nonsense".parse::<LogKeys>(), Err(LogKeysError::Vkey(_))));
}

#[test]
fn a_log_has_only_keys_of_its_own() {
    let mut known = keys(&[1]);
    assert_eq!(known.add(signer(1).verifier().clone()), Ok(false));
    let other = NoteVerifier::new("example.com/other", NoteKeyKind::Ed25519, [1; 32]).unwrap();
    assert!(matches!(known.add(other), Err(LogKeysError::Name { .. })));
    let witness = NoteVerifier::new(LOG, NoteKeyKind::CosignatureV1, [1; 32]).unwrap();
    assert!(matches!(known.add(witness.clone()), Err(LogKeysError::NotALogKey(_))));
    assert!(matches!(witness.vkey().parse::<LogKeys>(), Err(LogKeysError::NotALogKey(_))));
    for number in 1..MAX_LOG_KEYS {
        let bytes = [u8::try_from(number).unwrap(); 32];
        known.add(NoteVerifier::new(LOG, NoteKeyKind::Ed25519, bytes).unwrap()).unwrap();
    }
    let one_more = NoteVerifier::new(LOG, NoteKeyKind::Ed25519, [200; 32]).unwrap();
    assert_eq!(known.add(one_more), Err(LogKeysError::TooMany));
}
