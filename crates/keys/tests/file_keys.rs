//! Keys in files, from the outside: what is made opens again, signs what OpenSSL verifies, reads what OpenSSL
//! writes, and every way in which a file can be wrong has its own answer.

#![expect(clippy::unwrap_used, reason = "a test's helpers stop the test")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery_keys::{
    Custody, EnvelopeError, EphemeralSigner, FileError, KeyError, KeyLocation, PemError, Protection,
    SecretFileError, SignErrorKind, Signer, read_secret, store,
};
use chancery_types::{KeyAlgorithm, SecretString};
use tempfile::TempDir;

const PASSPHRASE: &str = "correct horse battery";
const MESSAGE: &[u8] = b"what is signed";

fn passphrase() -> Protection {
    Protection::Passphrase(SecretString::new(PASSPHRASE.to_owned()))
}

/// A directory with one key in it, encrypted.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn location(&self, name: &str) -> KeyLocation {
        KeyLocation::File(self.path(name))
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }
}

fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "openssl {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn content(error: KeyError) -> EnvelopeError {
    match error {
        KeyError::File(FileError::Content { cause, .. }) => cause,
        other => panic!("{other:?}"),
    }
}

fn open_error(location: &KeyLocation, protection: &Protection) -> KeyError {
    store::open(location, protection).expect_err("must not open")
}

fn verify_with_openssl(place: &Place, signer: &dyn Signer) {
    let public = place.write("public.der", signer.public_key().spki_der());
    let message = place.write("message", MESSAGE);
    let signature = place.write("signature", signer.sign(MESSAGE).unwrap());
    let digest: &[&str] = match signer.public_key().algorithm() {
        KeyAlgorithm::Ed25519 => &["-rawin"],
        KeyAlgorithm::P384 => &["-rawin", "-digest", "sha384"],
        _ => &["-rawin", "-digest", "sha256"],
    };
    let arguments = [
        &["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", text(&public)],
        digest,
        &["-in", text(&message), "-sigfile", text(&signature)],
    ]
    .concat();
    openssl(&arguments);
}

#[test]
fn every_algorithm_survives_the_file_and_satisfies_openssl() {
    for algorithm in KeyAlgorithm::ALL {
        let place = Place::new();
        let location = place.location("key");
        let made = store::generate(&location, algorithm, &passphrase()).unwrap();
        let opened = store::open(&location, &passphrase()).unwrap();
        assert_eq!(opened.public_key().spki_der(), made.public_key().spki_der());
        assert_eq!(opened.public_key().algorithm(), algorithm);
        assert_eq!(opened.algorithm(), algorithm.signature_algorithm());
        assert_eq!(opened.custody(), Custody::File);

        let signature = opened.sign(MESSAGE).unwrap();
        opened.public_key().verify(opened.algorithm(), MESSAGE, &signature).unwrap();
        assert!(opened.public_key().verify(opened.algorithm(), b"another", &signature).is_err());
        verify_with_openssl(&place, &*opened);

        let file = place.path("key");
        let arguments = [
            "pkey",
            "-in",
            text(&file),
            "-passin",
            "pass:correct horse battery",
            "-pubout",
            "-outform",
            "DER",
        ];
        assert_eq!(openssl(&arguments), opened.public_key().spki_der(), "{algorithm}");
    }
}

#[test]
fn plain_keys_open_plainly_and_satisfy_openssl() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Ed25519] {
        let place = Place::new();
        let made = store::generate(&place.location("key"), algorithm, &Protection::Plain).unwrap();
        let opened = store::open(&place.location("key"), &Protection::Plain).unwrap();
        assert_eq!(opened.public_key().spki_der(), made.public_key().spki_der());
        openssl(&["pkey", "-in", text(&place.path("key")), "-check", "-noout"]);
    }
}

#[test]
fn imports_what_openssl_writes() {
    type Case = (KeyAlgorithm, &'static [&'static str], Option<&'static [&'static str]>);
    let cases: &[Case] = &[
        (KeyAlgorithm::P256, &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], None),
        (KeyAlgorithm::P384, &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], None),
        (KeyAlgorithm::P256, &["ecparam", "-name", "prime256v1", "-genkey"], None),
        (KeyAlgorithm::P384, &["ecparam", "-name", "secp384r1", "-genkey", "-noout"], None),
        (KeyAlgorithm::Ed25519, &["genpkey", "-algorithm", "ed25519"], None),
        (KeyAlgorithm::Rsa2048, &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], None),
        (KeyAlgorithm::Rsa2048, &["genrsa", "-traditional", "2048"], None),
        (KeyAlgorithm::P256, &["ecparam", "-name", "prime256v1", "-genkey", "-noout"], Some(&["-scrypt"])),
        (
            KeyAlgorithm::P256,
            &["ecparam", "-name", "prime256v1", "-genkey", "-noout"],
            Some(&["-v2", "aes-128-cbc"]),
        ),
    ];
    for (algorithm, generate, encrypt) in cases {
        let place = Place::new();
        let mut foreign = place.write("foreign", openssl(generate));
        let mut secret = None;
        if let Some(options) = encrypt {
            let encrypted = place.path("encrypted");
            let arguments = [
                &["pkcs8", "-topk8", "-in", text(&foreign), "-out", text(&encrypted), "-passout", "pass:a"],
                *options,
            ]
            .concat();
            openssl(&arguments);
            foreign = encrypted;
            secret = Some(SecretString::new("a".to_owned()));
        }
        let pem = fs::read(&foreign).unwrap();
        let imported = store::import(&place.location("key"), &pem, secret.as_ref(), &passphrase()).unwrap();
        assert_eq!(imported.public_key().algorithm(), *algorithm, "{generate:?}");
        let opened = store::open(&place.location("key"), &passphrase()).unwrap();
        verify_with_openssl(&place, &*opened);
        let public =
            openssl(&["pkey", "-in", text(&foreign), "-passin", "pass:a", "-pubout", "-outform", "DER"]);
        assert_eq!(public, opened.public_key().spki_der(), "{generate:?}");
    }
}

#[test]
fn opens_pkcs8_that_openssl_wrote_in_place() {
    let place = Place::new();
    let key = place.path("foreign");
    openssl(&["genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:a", "-out", text(&key)]);
    let location = place.location("foreign");
    let right = Protection::Passphrase(SecretString::new("a".to_owned()));
    verify_with_openssl(&place, &*store::open(&location, &right).unwrap());
    assert_eq!(content(open_error(&location, &passphrase())), EnvelopeError::WrongPassphraseOrDamaged);
}

#[test]
fn refuses_to_import_weak_foreign_and_broken_keys() {
    let place = Place::new();
    for generate in [
        ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"].as_slice(),
        &["ecparam", "-name", "secp256k1", "-genkey", "-noout"],
        &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-param_enc", "explicit"],
        &["genpkey", "-algorithm", "ed448"],
        &["genrsa", "-traditional", "1024"],
        &[
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
            "-pkeyopt",
            "rsa_keygen_pubexp:3",
        ],
    ] {
        let pem = openssl(generate);
        let error = store::import(&place.location("key"), &pem, None, &passphrase()).unwrap_err();
        assert!(matches!(content(error), EnvelopeError::Format(_)), "{generate:?}");
        assert!(!store::exists(&place.location("key")).unwrap());
    }
}

#[test]
fn asks_for_import_of_keys_that_are_not_pkcs8() {
    let place = Place::new();
    place.write("sec1", openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"]));
    let error = open_error(&place.location("sec1"), &Protection::Plain);
    assert_eq!(content(error), EnvelopeError::ImportFirst("EC PRIVATE KEY"));
}

#[test]
fn tells_a_wrong_passphrase_from_damage_and_from_no_key() {
    let place = Place::new();
    let location = place.location("key");
    store::generate(&location, KeyAlgorithm::P256, &passphrase()).unwrap();
    let wrong = Protection::Passphrase(SecretString::new("incorrect horse".to_owned()));
    assert_eq!(content(open_error(&location, &wrong)), EnvelopeError::WrongPassphrase);
    assert_eq!(content(open_error(&location, &Protection::Plain)), EnvelopeError::PassphraseNeeded);

    let good = fs::read_to_string(place.path("key")).unwrap();
    let at = good.find("-----\n").unwrap() + 40;
    let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
    place.write("damaged", [&good[..at], other, &good[at + 1..]].concat());
    assert_eq!(content(open_error(&place.location("damaged"), &passphrase())), EnvelopeError::Damaged);

    place.write("certificate", good.replace("ENCRYPTED PRIVATE KEY", "CERTIFICATE"));
    let error = content(open_error(&place.location("certificate"), &passphrase()));
    assert_eq!(error, EnvelopeError::Pem(PemError::NotAKey(vec!["CERTIFICATE".to_owned()])));
    place.write("empty", "");
    let error = content(open_error(&place.location("empty"), &passphrase()));
    assert_eq!(error, EnvelopeError::Pem(PemError::NotAKey(Vec::new())));

    store::open(&location, &passphrase()).unwrap();
}

#[test]
fn refuses_a_passphrase_for_a_plain_key_and_a_short_one_for_a_new_key() {
    let place = Place::new();
    store::generate(&place.location("plain"), KeyAlgorithm::P256, &Protection::Plain).unwrap();
    assert_eq!(content(open_error(&place.location("plain"), &passphrase())), EnvelopeError::NotEncrypted);

    let short = Protection::Passphrase(SecretString::new("short".to_owned()));
    let error = store::generate(&place.location("key"), KeyAlgorithm::P256, &short).unwrap_err();
    assert_eq!(content(error), EnvelopeError::ShortPassphrase(5));
    assert!(!store::exists(&place.location("key")).unwrap());
}

#[test]
fn refuses_every_truncation() {
    let place = Place::new();
    store::generate(&place.location("key"), KeyAlgorithm::Ed25519, &Protection::Plain).unwrap();
    let good = fs::read(place.path("key")).unwrap();
    for length in 0..good.len() - 1 {
        place.write("cut", &good[..length]);
        store::open(&place.location("cut"), &Protection::Plain).expect_err(&format!("cut at {length}"));
    }
}

#[test]
fn never_opens_another_key_when_a_bit_flips() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Ed25519] {
        let place = Place::new();
        let made = store::generate(&place.location("key"), algorithm, &Protection::Plain).unwrap();
        let good = fs::read(place.path("key")).unwrap();
        let block = String::from_utf8(good.clone()).unwrap().find("-----BEGIN").unwrap();
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (at % 8);
            place.write("flipped", &flipped);
            if let Ok(opened) = store::open(&place.location("flipped"), &Protection::Plain) {
                // Only what a reader passes over may differ: the words before the block, the form of line ends.
                assert_eq!(opened.public_key().spki_der(), made.public_key().spki_der());
                assert!(at < block || !flipped[at].is_ascii_graphic(), "flip at {at} went unseen");
            }
        }
    }
}

#[test]
fn finds_a_foreign_key_whose_halves_do_not_belong_together() {
    let place = Place::new();
    let der =
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-outform", "DER"]);
    let mut undetected = 0;
    for at in 0..der.len() {
        let mut flipped = der.clone();
        flipped[at] ^= 0x10;
        let body = data_encoding::BASE64.encode(&flipped);
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let text = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
        place.write("flipped", text);
        undetected += usize::from(store::open(&place.location("flipped"), &Protection::Plain).is_ok());
    }
    assert_eq!(undetected, 0);
}

#[test]
fn refuses_files_that_others_can_use_and_says_chmod() {
    let place = Place::new();
    store::generate(&place.location("key"), KeyAlgorithm::P256, &Protection::Plain).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o610] {
        fs::set_permissions(place.path("key"), Permissions::from_mode(mode)).unwrap();
        let error = open_error(&place.location("key"), &Protection::Plain);
        assert!(
            matches!(&error, KeyError::File(FileError::File(SecretFileError::TooOpen { mode: found, .. })) if *found == mode)
        );
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    fs::set_permissions(place.path("key"), Permissions::from_mode(0o400)).unwrap();
    store::open(&place.location("key"), &Protection::Plain).unwrap();
}

#[test]
fn makes_files_and_directories_for_the_owner_alone() {
    let place = Place::new();
    let location = KeyLocation::File(place.path("deep/er/key"));
    store::generate(&location, KeyAlgorithm::P256, &Protection::Plain).unwrap();
    let mode = |path: &str| fs::metadata(place.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("deep"), mode("deep/er"), mode("deep/er/key")), (0o700, 0o700, 0o600));
    assert_eq!(fs::read_dir(place.path("deep/er")).unwrap().count(), 1, "a temporary file was left behind");
}

#[test]
fn never_overwrites_a_key_not_even_a_dangling_link() {
    let place = Place::new();
    let location = place.location("key");
    store::generate(&location, KeyAlgorithm::P256, &Protection::Plain).unwrap();
    let before = fs::read(place.path("key")).unwrap();
    let pem = openssl(&["genpkey", "-algorithm", "ed25519"]);
    for error in [
        store::generate(&location, KeyAlgorithm::P256, &Protection::Plain).unwrap_err(),
        store::import(&location, &pem, None, &Protection::Plain).unwrap_err(),
    ] {
        assert!(matches!(error, KeyError::File(FileError::File(SecretFileError::Exists(_)))), "{error:?}");
    }
    assert_eq!(fs::read(place.path("key")).unwrap(), before);

    symlink(place.path("nowhere"), place.path("link")).unwrap();
    store::generate(&place.location("link"), KeyAlgorithm::P256, &Protection::Plain).unwrap_err();
    assert!(!place.path("nowhere").exists());
    assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 2);
}

#[test]
fn one_of_many_racing_makers_wins() {
    let place = Place::new();
    let location = place.location("key");
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| store::generate(&location, KeyAlgorithm::P256, &Protection::Plain).ok()))
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.len(), 1);
    let opened = store::open(&location, &Protection::Plain).unwrap();
    assert_eq!(opened.public_key().spki_der(), made[0].public_key().spki_der());
    assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 1);
}

#[test]
fn says_what_is_missing_or_no_file_or_too_large() {
    let place = Place::new();
    let location = place.location("key");
    assert!(!store::exists(&location).unwrap());
    assert!(!store::is_readable(&location));
    let error = open_error(&location, &Protection::Plain);
    assert!(matches!(error, KeyError::File(FileError::File(SecretFileError::NotFound(_)))));
    let error = open_error(&KeyLocation::File(place.directory.path().to_owned()), &Protection::Plain);
    assert!(matches!(error, KeyError::File(FileError::File(SecretFileError::NotAFile(_)))), "{error:?}");
    place.write("large", vec![b'a'; (64 << 10) + 1]);
    let error = open_error(&place.location("large"), &Protection::Plain);
    assert!(matches!(error, KeyError::File(FileError::File(SecretFileError::TooLarge { .. }))));
    assert!(store::is_readable(&place.location("large")));
}

#[test]
fn refuses_key_derivation_that_would_exhaust_the_machine() {
    let place = Place::new();
    let location = place.location("key");
    store::generate(&location, KeyAlgorithm::P256, &passphrase()).unwrap();
    let good = fs::read_to_string(place.path("key")).unwrap();
    let body: String = good
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN"))
        .filter(|line| !line.starts_with('-'))
        .collect();
    let der = data_encoding::BASE64.decode(body.as_bytes()).unwrap();
    // scrypt's N and r: INTEGER 16384, INTEGER 8, INTEGER 1.
    let at = der.windows(10).position(|window| window == [2, 2, 0x40, 0, 2, 1, 8, 2, 1, 1]).unwrap();
    for (patch, costly) in [
        ([2, 2, 0x40, 0, 2, 1, 0x7f, 2, 1, 0x7f], true),
        ([2, 2, 0x00, 0x80, 2, 1, 8, 2, 1, 0], false),
        ([2, 2, 0x40, 1, 2, 1, 8, 2, 1, 1], false),
        ([2, 2, 0x40, 0, 2, 1, 0, 2, 1, 1], false),
    ] {
        let mut patched = der.clone();
        patched[at..at + 10].copy_from_slice(&patch);
        let body = data_encoding::BASE64.encode(&patched);
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        place.write(
            "patched",
            format!(
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\n{}\n-----END ENCRYPTED PRIVATE KEY-----\n",
                lines.join("\n")
            ),
        );
        let error = content(open_error(&place.location("patched"), &passphrase()));
        match error {
            EnvelopeError::TooCostly(_) => assert!(costly),
            EnvelopeError::UnsupportedEncryption(_) => assert!(!costly),
            other => panic!("{patch:?}: {other:?}"),
        }
    }
}

#[test]
fn signs_from_many_threads_at_once() {
    let place = Place::new();
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Ed25519, KeyAlgorithm::Rsa2048] {
        let location = place.location(algorithm.as_str());
        let signer: Arc<dyn Signer> = store::generate(&location, algorithm, &Protection::Plain).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8_u8 {
                let signer = Arc::clone(&signer);
                scope.spawn(move || {
                    for number in 0..25_u8 {
                        let message = [thread, number];
                        let signature = signer.sign(&message).unwrap();
                        signer.public_key().verify(signer.algorithm(), &message, &signature).unwrap();
                    }
                });
            }
        });
    }
}

#[test]
fn debug_and_errors_show_no_secret() {
    let place = Place::new();
    let location = place.location("key");
    let pem = openssl(&["genpkey", "-algorithm", "ed25519"]);
    let signer = store::import(&location, &pem, None, &passphrase()).unwrap();
    let key = place.write("pem", &pem);
    let der = openssl(&["pkey", "-in", text(&key), "-outform", "DER"]);
    let seed = &der[der.len() - 32..];
    let wrong = Protection::Passphrase(SecretString::new("incorrect horse".to_owned()));
    let shown = [
        format!("{signer:?}"),
        format!("{:?}", passphrase()),
        format!("{:?}", open_error(&location, &wrong)),
        open_error(&location, &wrong).to_string(),
    ]
    .concat()
    .to_lowercase();
    let list = seed.iter().map(u8::to_string).collect::<Vec<_>>();
    for secret in [
        PASSPHRASE.to_owned(),
        "incorrect".to_owned(),
        data_encoding::HEXLOWER.encode(&seed[..6]),
        data_encoding::BASE64.encode(&seed[..6]).to_lowercase(),
        list[..4].join(", "),
    ] {
        assert!(!shown.contains(&secret), "{secret} in {shown}");
    }
    assert!(shown.contains("ed25519"), "{shown}");
}

#[test]
fn throw_away_keys_sign_and_differ() {
    let first = EphemeralSigner::generate(KeyAlgorithm::P256).unwrap();
    let second = EphemeralSigner::generate(KeyAlgorithm::P256).unwrap();
    assert_ne!(first.public_key().spki_der(), second.public_key().spki_der());
    let signature = first.sign(MESSAGE).unwrap();
    first.public_key().verify(first.algorithm(), MESSAGE, &signature).unwrap();
    assert!(second.public_key().verify(second.algorithm(), MESSAGE, &signature).is_err());
    assert_eq!(first.custody(), Custody::Memory);
    assert_eq!(chancery_keys::SignError::Software.kind(), SignErrorKind::Fatal);
}

#[test]
fn reads_a_secret_of_one_line_from_a_closed_file() {
    let place = Place::new();
    for (written, expected) in [("s3cret\n", "s3cret"), ("s3cret", "s3cret"), ("two words\r\n", "two words")]
    {
        assert_eq!(read_secret(&place.write("secret", written)).unwrap().expose_secret(), expected);
    }
    assert!(matches!(read_secret(&place.write("empty", "\n")), Err(SecretFileError::Empty(_))));
    assert!(matches!(read_secret(&place.write("two", "a\nb\n")), Err(SecretFileError::NotOneLine(_))));
    assert!(matches!(read_secret(&place.write("raw", [0xff])), Err(SecretFileError::NotOneLine(_))));
    assert!(matches!(
        read_secret(&place.write("long", vec![b'a'; 4097])),
        Err(SecretFileError::TooLarge { .. })
    ));
    assert!(matches!(read_secret(&place.path("none")), Err(SecretFileError::NotFound(_))));
    let open = place.write("open", "s3cret");
    fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(read_secret(&open), Err(SecretFileError::TooOpen { .. })));
}

/// The figures for docs/adr/0003; run with `--release --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn costs() {
    let place = Place::new();
    let start = Instant::now();
    for number in 0..5 {
        store::generate(&place.location(&number.to_string()), KeyAlgorithm::P256, &passphrase()).unwrap();
    }
    println!("five encrypted keys: {:?}", start.elapsed());
    let signer = store::open(&place.location("0"), &passphrase()).unwrap();
    println!("one P-256 signature: {:?}", best(|| assert!(signer.sign(MESSAGE).is_ok())));

    let random = ring::rand::SystemRandom::new();
    let scheme = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let document = ring::signature::EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
    let pair = ring::signature::EcdsaKeyPair::from_pkcs8(scheme, document.as_ref(), &random).unwrap();
    println!("ring alone: {:?}", best(|| assert!(pair.sign(&random, MESSAGE).is_ok())));
}

/// The least mean of twenty batches.
fn best(work: impl Fn()) -> Duration {
    let batch = || {
        let start = Instant::now();
        (0..500).for_each(|_| work());
        start.elapsed() / 500
    };
    (0..20).map(|_| batch()).min().unwrap()
}
