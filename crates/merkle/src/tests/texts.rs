//! Notes, checkpoints and receipts, byte by byte against texts made by another implementation.

use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::{
    Checkpoint, CheckpointError, Cosignature, Ed25519NoteSigner, LogKeys, MAX_NOTE_BYTES,
    MAX_NOTE_SIGNATURES, MAX_RECEIPT_BYTES, MAX_TREE_SIZE, MemoryHashes, NoteError, NoteKeyKind, NoteSigner,
    NoteVerifier, OpenError, ProofError, Receipt, ReceiptError, ReceiptProblem, SignError, SignatureProblem,
    SignedNote, Tile, VerifiedCheckpoint, VkeyError, empty_root, inclusion_proof, leaf_hash,
};

/// Made with Python's `cryptography` and `hashlib`: key seeds of 32 times 01 (log) and 02 (witness), entries
/// `entry 0` to `entry 10`.
const LOG: &str = "example.com/ledger+3481d542+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c";
const WITNESS: &str = "witness.example+3176bd45+BIE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU";
const CHECKPOINT: &str = "\
example.com/ledger
11
MpIghwdLQvu/Ojo2cjqyeCX9m62x4pvd68P+qD6ewE0=

\u{2014} example.com/ledger NIHVQgTgilD6lfBGvm8gVvZu8ocp7FU8X/RJnnYLnpmnhdoq7xA3dB5UqZpLKfZK/fRtBoRj5JqlmTD+FgBKMtS9AgY=
\u{2014} witness.example MXa9RQAAAABlU/EAuR/1ntdD2J19kqjzcXgUAKhLNWn8emnXv8Oi2vZfmGHbXw6olrUMBB+e1kOigJa+nPFm9H81JOf50Yq48Tc9AA==
";
const PROOF: &str = "\
c2sp.org/tlog-proof@v1
extra AQIDBA==
index 9
lJEOQnicGWJFCQhFH/mxwFCn1s3n1NLU6X8vdQlpS58=
h+VqULYwnTZKc5Ru7uhpoMHL9o+RYPUXAapNBTT9Oj0=
tpcyzlyRQWLKmsz69OldP5h01ogFQ3CIqv8YSk25Z3M=

";

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn signer(name: &str, seed: u8) -> impl NoteSigner {
    let key = key(seed);
    let public = key.public_key().as_ref().try_into().unwrap();
    Ed25519NoteSigner::new(name, public, move |text: &[u8]| {
        Ok::<_, SignError>(key.sign(text).as_ref().to_vec())
    })
    .unwrap()
}

fn verifier(vkey: &str) -> NoteVerifier {
    vkey.parse().unwrap()
}

fn log() -> LogKeys {
    LOG.parse().unwrap()
}

fn grown() -> (Checkpoint, MemoryHashes) {
    let (mut frontier, mut hashes) = (crate::Frontier::new(), MemoryHashes::default());
    for index in 0..11 {
        frontier.append(leaf_hash(format!("entry {index}").as_bytes()), &mut |level, at, hash| {
            hashes.push(level, at, hash);
        });
    }
    (Checkpoint::new("example.com/ledger", 11, frontier.root()).unwrap(), hashes)
}

fn receipt_text() -> String {
    format!("{PROOF}{CHECKPOINT}")
}

#[test]
fn verifier_keys_round_trip_and_have_the_published_ids() {
    for text in [LOG, WITNESS, "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"] {
        assert_eq!(verifier(text).vkey(), text);
    }
    assert_eq!(verifier(LOG).kind(), NoteKeyKind::Ed25519);
    assert_eq!(verifier(WITNESS).kind(), NoteKeyKind::CosignatureV1);
    assert_eq!(signer("example.com/ledger", 1).verifier().key_id(), verifier(LOG).key_id());
}

#[test]
fn refuses_verifier_keys_that_are_not_quite_right() {
    let parse = |text: &str| text.parse::<NoteVerifier>().unwrap_err();
    for malformed in
        ["", "a", "a+b", "a+00000000", "a+00000000+", "a+0000000+AQ==", "a+3481D542+AQ==", "a+3481d542+AQ"]
    {
        assert!(matches!(parse(malformed), VkeyError::Malformed(_)), "{malformed:?}");
    }
    assert!(matches!(parse(&format!("a+00000000+{}", "A".repeat(4_000))), VkeyError::Malformed(_)));
    assert_eq!(parse("a+3481d542+AQ=="), VkeyError::KeyLength(0));
    assert_eq!(parse("a+3481d542+Ag=="), VkeyError::Kind(2));
    assert!(matches!(parse(&LOG.replace("3481d542", "3481d543")), VkeyError::Id { .. }));
    assert!(matches!(parse(&LOG.replace("example.com", "example.org")), VkeyError::Id { .. }));
    assert!(matches!(parse(&LOG.replace("+AYqI", "+BIqI")), VkeyError::Id { .. }));
    assert!(matches!(parse(&LOG.replace("ledger", "led ger")), VkeyError::Name(_)));
    for name in ["", "a b", "a+b", "a\u{a0}b", "a\nb", &"a".repeat(256)] {
        assert!(
            matches!(NoteVerifier::new(name, NoteKeyKind::Ed25519, [0; 32]), Err(VkeyError::Name(_))),
            "{name:?}"
        );
    }
}

#[test]
fn verifies_the_note_in_the_reference_implementations_documentation() {
    let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    let signature = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let note: SignedNote = format!("{text}\n{signature}").parse().unwrap();
    let key = verifier("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
    assert_eq!(note.verify(&[key]).unwrap().len(), 1);
    assert_eq!(note.text(), text);
}

#[test]
fn signs_the_very_bytes_of_the_golden_checkpoint() {
    let (checkpoint, _) = grown();
    let mut note = checkpoint.sign(&[&signer("example.com/ledger", 1)]).unwrap();
    let witness = CHECKPOINT.lines().last().unwrap();
    note.add_signatures(&format!("{witness}\n")).unwrap();
    assert_eq!(note.to_string(), CHECKPOINT);
    let opened = VerifiedCheckpoint::open_text(CHECKPOINT, &log(), &[verifier(WITNESS)]).unwrap();
    assert_eq!(opened.checkpoint(), &checkpoint);
    let seen = Cosignature { witness: "witness.example".to_owned(), seconds: Some(1_700_000_000) };
    assert_eq!(opened.cosignatures(), [seen]);
    let alone = VerifiedCheckpoint::open_text(CHECKPOINT, &log(), &[]).unwrap();
    assert_eq!(alone.cosignatures(), []);
}

#[test]
fn no_byte_of_a_signed_checkpoint_can_change() {
    let (log, witnesses) = (log(), [verifier(WITNESS)]);
    for (at, original) in CHECKPOINT.bytes().enumerate() {
        for replacement in [original ^ 1, original ^ 0x20, b'\n', b'A', 0, 0xff] {
            let mut bytes = CHECKPOINT.as_bytes().to_vec();
            bytes[at] = replacement;
            let Ok(text) = std::str::from_utf8(&bytes) else { continue };
            if replacement == original {
                continue;
            }
            let opened = VerifiedCheckpoint::open_text(text, &log, &witnesses);
            // A damaged name or id in the witness's line makes it an unknown one, which is ignored.
            let ignored = opened.as_ref().is_ok_and(|opened| opened.cosignatures().is_empty());
            assert!(opened.is_err() || ignored, "byte {at}: {text}");
            if let Ok(opened) = opened {
                assert_eq!(opened.checkpoint(), &grown().0);
            }
        }
    }
}

#[test]
fn refuses_damaged_notes() {
    let parse = |text: &str| text.parse::<SignedNote>().unwrap_err();
    let signature = |problem| move |error: NoteError| matches!(error, NoteError::Signature { line: 1, problem: found, .. } if found == problem);
    for shape in ["", "text\n", "text\n\n\u{2014} a AAAAAAA=", "text\n\n"] {
        assert_eq!(parse(shape), NoteError::Shape, "{shape:?}");
    }
    assert_eq!(parse("te\txt\n\n\u{2014} a AAAAAAA=\n"), NoteError::Control { offset: 2, byte: 9 });
    assert_eq!(parse("text\r\n\n\u{2014} a AAAAAAA=\n"), NoteError::Control { offset: 4, byte: 13 });
    let cases = [
        ("text\n\n- a AAAAAAA=\n", SignatureProblem::Form),
        ("text\n\n\u{2014}a AAAAAAA=\n", SignatureProblem::Form),
        ("text\n\n\u{2014} AAAAAAA=\n", SignatureProblem::Form),
        ("text\n\n\u{2014}  AAAAAAA=\n", SignatureProblem::Name),
        ("text\n\n\u{2014} a+b AAAAAAA=\n", SignatureProblem::Name),
        ("text\n\n\u{2014} a\u{2003}b AAAAAAA=\n", SignatureProblem::Name),
        ("text\n\n\u{2014} a AAAA\n", SignatureProblem::Encoding),
        ("text\n\n\u{2014} a AAAAAA==\n", SignatureProblem::Encoding),
        ("text\n\n\u{2014} a AAAAAAB=\n", SignatureProblem::Encoding),
        ("text\n\n\u{2014} a AAAAAAA\n", SignatureProblem::Encoding),
        ("text\n\n\u{2014} a AAAA AAA=\n", SignatureProblem::Encoding),
    ];
    for (text, problem) in cases {
        let error = parse(text);
        assert!(signature(problem)(error.clone()), "{text:?}: {error:?}");
    }
    let many = format!("text\n\n{}", "\u{2014} a AAAAAAA=\n".repeat(MAX_NOTE_SIGNATURES));
    let mut note: SignedNote = many.parse().unwrap();
    assert_eq!(note.add_signatures("\u{2014} a AAAAAAA=\n"), Err(NoteError::TooManySignatures));
    assert_eq!(parse(&format!("{many}\u{2014} a AAAAAAA=\n")), NoteError::TooManySignatures);
    let long = "x".repeat(MAX_NOTE_BYTES + 1);
    assert_eq!(parse(&long), NoteError::TooLong(MAX_NOTE_BYTES + 1));
}

#[test]
fn keeps_blank_lines_in_the_text_and_takes_the_last_as_the_boundary() {
    let text = "first\n\nsecond\n";
    let note = SignedNote::sign(text, &[&signer("a", 1)]).unwrap();
    let again: SignedNote = note.to_string().parse().unwrap();
    assert_eq!(again.text(), text);
    assert_eq!(again, note);
}

#[test]
fn ignores_unknown_keys_but_not_bad_signatures_of_known_ones() {
    let (log, witness) = (verifier(LOG), verifier(WITNESS));
    let note: SignedNote = CHECKPOINT.parse().unwrap();
    assert_eq!(note.verify(std::slice::from_ref(&log)).unwrap().len(), 1);
    let stranger = NoteVerifier::new("example.com/ledger", NoteKeyKind::Ed25519, [9; 32]).unwrap();
    let refused = note.verify(&[stranger]).unwrap_err();
    assert!(matches!(refused, NoteError::Unsigned { signers } if signers.len() == 2));
    let forged = CHECKPOINT.replace("\n11\n", "\n12\n");
    let forged = forged.parse::<SignedNote>().unwrap().verify(&[log, witness]);
    assert_eq!(forged, Err(NoteError::Forged { name: "example.com/ledger".to_owned() }));
}

#[test]
fn counts_a_key_once_however_often_it_signs() {
    let note = SignedNote::sign("text\n", &[&signer("a", 1), &signer("a", 1)]).unwrap();
    let public = key(1).public_key().as_ref().try_into().unwrap();
    let key = NoteVerifier::new("a", NoteKeyKind::Ed25519, public).unwrap();
    assert_eq!(note.verify(&[key]).unwrap().len(), 1);
}

#[test]
fn refuses_to_sign_what_no_note_can_carry() {
    let signer = signer("a", 1);
    for text in ["", "no newline", "tab\t\n", &format!("{}\n", "x".repeat(MAX_NOTE_BYTES))] {
        assert!(matches!(SignedNote::sign(text, &[&signer]), Err(SignError::Text)));
    }
    let short = Ed25519NoteSigner::new("a", [0; 32], |_: &[u8]| Ok::<_, SignError>(vec![1, 2, 3])).unwrap();
    assert!(matches!(SignedNote::sign("text\n", &[&short]), Err(SignError::Length { length: 3, .. })));
    let failing = Ed25519NoteSigner::new("a", [0; 32], |_: &[u8]| Err("token removed")).unwrap();
    assert!(matches!(SignedNote::sign("text\n", &[&failing]), Err(SignError::Custody { .. })));
}

#[test]
fn refuses_a_checkpoint_of_another_log_or_without_the_log() {
    let (log, witness) = (log(), verifier(WITNESS));
    let (checkpoint, _) = grown();
    let other = Checkpoint::new("example.com/other", 11, checkpoint.root()).unwrap();
    let note = other.sign(&[&signer("example.com/ledger", 1)]).unwrap();
    let refused = VerifiedCheckpoint::open(&note, &log, &[]);
    assert!(matches!(refused, Err(OpenError::Origin { .. })), "{refused:?}");
    let lines: Vec<&str> = CHECKPOINT.lines().collect();
    let witnessed = format!("{}\n{}\n{}\n\n{}\n", lines[0], lines[1], lines[2], lines[5]);
    let refused = VerifiedCheckpoint::open_text(&witnessed, &log, std::slice::from_ref(&witness));
    assert_eq!(refused, Err(OpenError::NotByLog("example.com/ledger".to_owned())));
    let refused = VerifiedCheckpoint::open_text(&witnessed, &witness.into(), &[]);
    assert_eq!(refused, Err(OpenError::NotALogKey("witness.example".to_owned())));
    let prose = SignedNote::sign("hello\n", &[&signer("example.com/ledger", 1)]).unwrap();
    let refused = VerifiedCheckpoint::open(&prose, &log, &[]);
    assert_eq!(refused, Err(OpenError::Checkpoint(CheckpointError::Shape)));
}

#[test]
fn checkpoints_have_one_spelling() {
    let root = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let parse = |text: &str| Checkpoint::parse(text);
    let good = parse(&format!("o\n0\n{root}\n")).unwrap();
    assert_eq!(good.text(), format!("o\n0\n{root}\n"));
    assert_eq!(parse(&format!("o\n0\n{root}\nextension\n")).unwrap(), good);
    assert_eq!(parse(&format!("o\n{MAX_TREE_SIZE}\n{root}\n")).unwrap().size(), MAX_TREE_SIZE);
    let shapes = ["", "\n", "o\n0\n", "o\n0\n\n", &format!("o\n0\n{root}"), &format!("\n0\n{root}\n")];
    for shape in shapes {
        assert_eq!(parse(shape), Err(CheckpointError::Shape), "{shape:?}");
    }
    assert_eq!(parse(&format!("o\n0\n{root}\n\n")), Err(CheckpointError::Shape));
    assert_eq!(parse(&format!("o\n0\n{root}\n\nextension\n")), Err(CheckpointError::Shape));
    for size in ["01", "+1", "-1", " 1", "1 ", "x", "18446744073709551616", "9223372036854775808"] {
        let refused = parse(&format!("o\n{size}\n{root}\n"));
        assert_eq!(refused, Err(CheckpointError::Size(size.to_owned())), "{size:?}");
    }
    for hash in ["x", &root[..43], &root.replace("FU=", "FV="), &format!("{root}="), &format!(" {root}")] {
        let refused = parse(&format!("o\n1\n{hash}\n"));
        assert_eq!(refused, Err(CheckpointError::Root(hash.to_string())), "{hash:?}");
    }
    let other = leaf_hash(b"");
    assert_eq!(Checkpoint::new("o", 0, other), Err(CheckpointError::EmptyRoot(other)));
    for origin in ["", "a\nb", "a\0", &"o".repeat(256)] {
        assert!(matches!(Checkpoint::new(origin, 0, empty_root()), Err(CheckpointError::Origin(_))));
    }
}

#[test]
fn prints_and_verifies_the_golden_receipt() {
    let (checkpoint, hashes) = grown();
    let receipt: Receipt = receipt_text().parse().unwrap();
    assert_eq!(receipt.to_string(), receipt_text());
    assert_eq!(receipt.extra.as_deref(), Some([1, 2, 3, 4].as_slice()));
    assert_eq!(receipt.proof, inclusion_proof(9, 11, &hashes).unwrap());
    let verified = receipt.verify(b"entry 9", &log(), &[]).unwrap();
    assert_eq!(verified.checkpoint(), &checkpoint);
    let plain = Receipt { extra: None, ..receipt };
    assert_eq!(plain.to_string().parse::<Receipt>().unwrap(), plain);
}

#[test]
fn a_receipt_of_the_only_entry_has_no_hashes() {
    let checkpoint = Checkpoint::new("example.com/ledger", 1, leaf_hash(b"first")).unwrap();
    let checkpoint = checkpoint.sign(&[&signer("example.com/ledger", 1)]).unwrap();
    let receipt = Receipt { extra: None, index: 0, proof: Vec::new(), checkpoint };
    let again: Receipt = receipt.to_string().parse().unwrap();
    again.verify(b"first", &log(), &[]).unwrap();
}

#[test]
fn refuses_a_receipt_for_another_entry_index_or_log() {
    let receipt: Receipt = receipt_text().parse().unwrap();
    let log = log();
    let refused = receipt.verify(b"entry 8", &log, &[]);
    assert!(matches!(refused, Err(ReceiptProblem::Proof(ProofError::Root { .. }))));
    let moved = Receipt { index: 8, ..receipt.clone() };
    assert!(matches!(moved.verify(b"entry 9", &log, &[]), Err(ReceiptProblem::Proof(_))));
    let outside = Receipt { index: 11, ..receipt.clone() };
    assert!(matches!(
        outside.verify(b"entry 9", &log, &[]),
        Err(ReceiptProblem::Proof(ProofError::NoSuchEntry { index: 11, size: 11 }))
    ));
    let stranger = NoteVerifier::new("example.com/ledger", NoteKeyKind::Ed25519, [9; 32]).unwrap();
    assert!(matches!(receipt.verify(b"entry 9", &stranger.into(), &[]), Err(ReceiptProblem::Checkpoint(_))));
}

#[test]
fn no_byte_of_a_receipt_can_change_unnoticed() {
    let (text, log) = (receipt_text(), log());
    let golden: Receipt = text.parse().unwrap();
    for (at, original) in text.bytes().enumerate() {
        for replacement in
            [original ^ 1, original ^ 0x20, b'\n', b'0'].into_iter().filter(|byte| *byte != original)
        {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = replacement;
            let Some(receipt) =
                std::str::from_utf8(&bytes).ok().and_then(|text| text.parse::<Receipt>().ok())
            else {
                continue;
            };
            // Not authenticated: the extra data and the lines of keys that are not configured.
            let same = receipt.index == golden.index
                && receipt.proof == golden.proof
                && receipt.checkpoint.text() == golden.checkpoint.text();
            assert!(receipt.verify(b"entry 9", &log, &[]).is_err() || same, "byte {at} as {replacement:02x}");
        }
    }
}

#[test]
fn refuses_damaged_receipts() {
    let text = receipt_text();
    let parse = |from: &str, to: &str| text.replacen(from, to, 1).parse::<Receipt>().unwrap_err();
    assert!(matches!(parse("@v1", "@v2"), ReceiptError::Header(_)));
    assert!(matches!(parse("extra AQIDBA==", "extra AQIDBB=="), ReceiptError::Extra { line: 2, .. }));
    assert!(matches!(parse("extra AQIDBA==\n", "extra\n"), ReceiptError::Index { line: 2, .. }));
    for index in
        ["index 09", "index +9", "index  9", "index 9 ", "index", "Index 9", "index 18446744073709551616"]
    {
        assert!(matches!(parse("index 9", index), ReceiptError::Index { line: 3, .. }), "{index:?}");
    }
    assert!(matches!(parse("lJEOQnic", "lJEOQni"), ReceiptError::Hash { line: 4, .. }));
    assert!(matches!(parse("S58=\n", "S59=\n"), ReceiptError::Hash { line: 4, .. }));
    assert!(matches!(parse("\n\nexample.com", "\nexample.com"), ReceiptError::Hash { line: 7, .. }));
    let header_only = "c2sp.org/tlog-proof@v1\n";
    assert_eq!(header_only.parse::<Receipt>(), Err(ReceiptError::NoCheckpoint));
    assert!(matches!(
        "c2sp.org/tlog-proof@v1\n\n".parse::<Receipt>(),
        Err(ReceiptError::Index { line: 2, .. })
    ));
    let cut = &text[..text.len() - 1];
    assert_eq!(cut.parse::<Receipt>(), Err(ReceiptError::Note(NoteError::Shape)));
    let hash = "lJEOQnicGWJFCQhFH/mxwFCn1s3n1NLU6X8vdQlpS58=\n";
    assert_eq!(parse(hash, &hash.repeat(100)), ReceiptError::TooManyHashes);
    let long = "x".repeat(MAX_RECEIPT_BYTES + 1);
    assert_eq!(long.parse::<Receipt>(), Err(ReceiptError::TooLong(MAX_RECEIPT_BYTES + 1)));
}

proptest! {
    #[test]
    fn random_text_never_panics_a_parser(text in "[ -~\\n\u{2014}\u{a0}]{0,300}") {
        let _ = text.parse::<SignedNote>();
        let _ = text.parse::<NoteVerifier>();
        let _ = Checkpoint::parse(&text);
        let _ = text.parse::<Tile>();
        let _ = format!("c2sp.org/tlog-proof@v1\n{text}").parse::<Receipt>();
    }

    #[test]
    fn what_parses_prints_as_it_was(text in "(tile/(entries|[0-9]{1,2})/(x[0-9]{3}/){0,3}[0-9]{3}(.p/[0-9]{1,3})?)") {
        if let Ok(tile) = text.parse::<Tile>() {
            prop_assert_eq!(tile.to_string(), text);
        }
    }

    #[test]
    fn notes_print_as_they_were(lines in proptest::collection::vec("[ -~]{0,30}", 1..6), seed in any::<u8>()) {
        let text = format!("{}\n", lines.join("\n"));
        let note = SignedNote::sign(&text, &[&signer("a", seed)]).unwrap();
        let printed = note.to_string();
        prop_assert_eq!(printed.parse::<SignedNote>().unwrap().to_string(), printed);
    }
}
