//! Keys in a PKCS#11 token, against SoftHSM2 (Debian: softhsm2, opensc), judged by OpenSSL and pkcs11-tool.
//!
//! A module reads its configuration from the environment and keeps its state in the process, so every test
//! runs itself again in a process of its own with a token directory of its own.

#![expect(clippy::unwrap_used, reason = "a test's helpers stop the test")]
#![expect(clippy::print_stdout, reason = "a measurement says its result")]

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use chancery_keys::{
    Custody, KeyError, KeyLocation, Protection, SignError, SignErrorKind, Signer, TokenError, store,
};
use chancery_types::{KeyAlgorithm, SecretString};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

const MESSAGE: &[u8] = b"what is signed";
const PIN: &str = "4711-pin";
const ENVIRONMENT: &str = "CHANCERY_KEYS_SOFTHSM";

/// The token of this test's process.
struct Hsm {
    directory: PathBuf,
    module: PathBuf,
}

impl Hsm {
    /// In the outer process, sets up a token, runs the test again beside it and gives nothing. In the inner
    /// process, gives the token.
    fn enter(test: &str) -> Option<Self> {
        // Written past the capture of test output: a skipped test is heard.
        let skip = |missing: String| {
            let mut stderr = std::io::stderr().lock();
            writeln!(stderr, "SKIPPED {test}: {missing}; apt-get install softhsm2 opensc").unwrap();
        };
        let Some(module) = MODULES.iter().map(PathBuf::from).find(|path| path.exists()) else {
            skip(format!("no SoftHSM2 module among {MODULES:?}"));
            return None;
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        for program in ["softhsm2-util", "pkcs11-tool"] {
            if !std::env::split_paths(&path).any(|directory| directory.join(program).exists()) {
                skip(format!("no {program}"));
                return None;
            }
        }
        if let Some(directory) = std::env::var_os(ENVIRONMENT) {
            return Some(Self { directory: directory.into(), module });
        }
        let directory = tempfile::tempdir().unwrap();
        let configuration = directory.path().join("softhsm2.conf");
        fs::create_dir(directory.path().join("tokens")).unwrap();
        fs::write(
            &configuration,
            format!("directories.tokendir = {}/tokens\nlog.level = ERROR\n", directory.path().display()),
        )
        .unwrap();
        let hsm = Self { directory: directory.path().to_owned(), module };
        hsm.add_token("ca");
        let output = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--include-ignored"])
            .env(ENVIRONMENT, directory.path())
            .env("SOFTHSM2_CONF", &configuration)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        print!("{said}");
        None
    }

    fn add_token(&self, label: &str) {
        let arguments =
            ["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "security-officer"];
        self.run("softhsm2-util", &arguments);
    }

    fn pkcs11_tool(&self, arguments: &[&str]) {
        let module = self.module.to_str().unwrap();
        self.run(
            "pkcs11-tool",
            &[&["--module", module, "--token-label", "ca", "--pin", PIN], arguments].concat(),
        );
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program)
            .args(arguments)
            .env("SOFTHSM2_CONF", self.directory.join("softhsm2.conf"))
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
    }

    fn at(&self, path: &str, query: &str) -> KeyLocation {
        format!("pkcs11:{path}?module-path={}{query}", self.module.display()).parse().unwrap()
    }

    fn key(&self, label: &str) -> KeyLocation {
        self.at(&format!("token=ca;object={label}"), "")
    }

    fn generate(&self, label: &str) -> Arc<dyn Signer> {
        store::generate(&self.key(label), KeyAlgorithm::P256, &pin(PIN)).unwrap()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Another user of the module in this process.
    fn neighbour(&self) -> (Pkcs11, Session) {
        let context = Pkcs11::new(&self.module).unwrap();
        // It says so when it is initialised already.
        let _ = context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let slot = context.get_slots_with_initialized_token().unwrap()[0];
        let session = context.open_rw_session(slot).unwrap();
        (context, session)
    }
}

fn pin(text: &str) -> Protection {
    Protection::Passphrase(SecretString::new(text.to_owned()))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn refusal(result: Result<Arc<dyn Signer>, KeyError>) -> TokenError {
    match result {
        Err(KeyError::Token(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn sign_and_verify(signer: &dyn Signer) {
    let signature = signer.sign(MESSAGE).unwrap();
    signer.public_key().verify(signer.algorithm(), MESSAGE, &signature).unwrap();
}

#[test]
fn every_algorithm_signs_in_the_token_and_satisfies_openssl() {
    let Some(hsm) = Hsm::enter("every_algorithm_signs_in_the_token_and_satisfies_openssl") else { return };
    for algorithm in KeyAlgorithm::ALL {
        let location = hsm.key(algorithm.as_str());
        let made = store::generate(&location, algorithm, &pin(PIN)).unwrap();
        let opened = store::open(&location, &pin(PIN)).unwrap();
        assert_eq!(opened.public_key().spki_der(), made.public_key().spki_der());
        assert_eq!(opened.public_key().algorithm(), algorithm);
        assert_eq!(opened.custody(), Custody::Pkcs11);
        sign_and_verify(&*opened);

        let public = hsm.write("public.der", opened.public_key().spki_der());
        let message = hsm.write("message", MESSAGE);
        let signature = hsm.write("signature", opened.sign(MESSAGE).unwrap());
        let digest: &[&str] = match algorithm {
            KeyAlgorithm::Ed25519 => &["-rawin"],
            KeyAlgorithm::P384 => &["-rawin", "-digest", "sha384"],
            _ => &["-rawin", "-digest", "sha256"],
        };
        let key = ["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", text(&public)];
        let files = ["-in", text(&message), "-sigfile", text(&signature)];
        openssl(&[&key, digest, &files].concat());

        if !matches!(algorithm, KeyAlgorithm::P384 | KeyAlgorithm::Ed25519) {
            // pkcs11-tool of OpenSC 0.23 cannot write the public keys of these two.
            let read = hsm.directory.join("read.der");
            let arguments =
                ["--read-object", "--type", "pubkey", "--label", algorithm.as_str(), "-o", text(&read)];
            hsm.pkcs11_tool(&arguments);
            assert_eq!(fs::read(&read).unwrap(), opened.public_key().spki_der());
        }
    }
}

#[test]
fn made_keys_sign_only_and_never_leave() {
    let Some(hsm) = Hsm::enter("made_keys_sign_only_and_never_leave") else { return };
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Rsa2048] {
        let _signer = store::generate(&hsm.key(algorithm.as_str()), algorithm, &pin(PIN)).unwrap();
        let (_context, session) = hsm.neighbour();
        let template = [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Label(algorithm.as_str().as_bytes().to_vec()),
        ];
        let key = session.find_objects(&template).unwrap()[0];
        let wanted = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::AlwaysSensitive(true),
            Attribute::Extractable(false),
            Attribute::NeverExtractable(true),
            Attribute::Sign(true),
            Attribute::Decrypt(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ];
        let types: Vec<AttributeType> = wanted.iter().map(Attribute::attribute_type).collect();
        let found = session.get_attributes(key, &types).unwrap();
        for attribute in wanted {
            let exempt = algorithm == KeyAlgorithm::P256
                && matches!(attribute, Attribute::Decrypt(_) | Attribute::Unwrap(_));
            assert!(exempt || found.contains(&attribute), "{algorithm}: {attribute:?} is not in {found:?}");
        }
        let Attribute::Id(id) = &session.get_attributes(key, &[AttributeType::Id]).unwrap()[0] else {
            panic!()
        };
        assert_eq!(id.len(), 20);
    }
}

#[test]
fn says_what_is_missing_and_what_is_there() {
    let Some(hsm) = Hsm::enter("says_what_is_missing_and_what_is_there") else { return };
    let open = |location: &str| refusal(store::open(&location.parse().unwrap(), &pin(PIN)));

    let error = open("pkcs11:token=ca;object=a");
    assert!(matches!(error, TokenError::NoModule { .. }));
    assert!(error.to_string().contains(text(&hsm.module)), "{error}");
    let error = open("pkcs11:token=ca;object=a?module-path=/nowhere/p11.so");
    assert!(matches!(error, TokenError::ModuleNotFound { .. }));
    assert!(error.to_string().contains("/nowhere/p11.so"), "{error}");
    assert!(error.to_string().contains(text(&hsm.module)), "{error}");
    let no_module = hsm.write("p11.so", "not a library");
    let error = open(&format!("pkcs11:token=ca;object=a?module-path={}", text(&no_module)));
    assert!(matches!(error, TokenError::ModuleUnusable { .. }));

    let error = refusal(store::open(&hsm.at("token=other;object=a", ""), &pin(PIN)));
    assert!(matches!(error, TokenError::TokenNotFound { .. }));
    assert!(error.to_string().contains("token=other"), "{error}");
    assert!(error.to_string().contains("\"ca\" (serial"), "{error}");
    let error = refusal(store::open(&hsm.at("token=ca", ""), &pin(PIN)));
    assert!(matches!(error, TokenError::NoKeyName { new: false }));
    let error = refusal(store::generate(&hsm.at("token=ca;id=%01", ""), KeyAlgorithm::P256, &pin(PIN)));
    assert!(matches!(error, TokenError::NoKeyName { new: true }));

    let _signer = hsm.generate("issuer");
    let error = refusal(store::open(&hsm.key("root"), &pin(PIN)));
    assert!(matches!(error, TokenError::KeyNotFound { .. }));
    assert!(error.to_string().contains("object=root") && error.to_string().contains("issuer"), "{error}");
}

#[test]
fn refuses_wrong_missing_and_differing_pins() {
    let Some(hsm) = Hsm::enter("refuses_wrong_missing_and_differing_pins") else { return };
    let error = refusal(store::open(&hsm.key("a"), &pin("0000")));
    assert!(matches!(error, TokenError::WrongPin { .. }));
    assert!(error.to_string().contains("lock") && !error.to_string().contains("0000"), "{error}");
    let error = refusal(store::open(&hsm.key("a"), &Protection::Plain));
    assert!(matches!(error, TokenError::PinNeeded { .. }));
    assert!(error.to_string().contains("pin-source"), "{error}");

    let signer = hsm.generate("a");
    let error = refusal(store::open(&hsm.key("a"), &pin("0000")));
    assert!(matches!(error, TokenError::OtherPin { .. }));
    assert!(matches!(refusal(store::open(&hsm.key("a"), &Protection::Plain)), TokenError::PinNeeded { .. }));
    sign_and_verify(&*signer);
    drop(signer);
    assert!(matches!(refusal(store::open(&hsm.key("a"), &pin("0000"))), TokenError::WrongPin { .. }));
    sign_and_verify(&*store::open(&hsm.key("a"), &pin(PIN)).unwrap());
}

#[test]
fn takes_the_pin_from_a_closed_file() {
    let Some(hsm) = Hsm::enter("takes_the_pin_from_a_closed_file") else { return };
    let file = hsm.write("pin", format!("{PIN}\n"));
    let location = hsm.at("token=ca;object=a", &format!("&pin-source=file:{}", text(&file)));
    store::generate(&location, KeyAlgorithm::P256, &Protection::Plain).unwrap();
    sign_and_verify(&*store::open(&location, &Protection::Plain).unwrap());
    assert!(store::exists(&location).unwrap());
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let error = refusal(store::open(&location, &Protection::Plain));
    assert!(matches!(error, TokenError::PinFile(_)));
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn never_replaces_a_key() {
    let Some(hsm) = Hsm::enter("never_replaces_a_key") else { return };
    assert!(!store::exists(&hsm.key("a")).unwrap());
    let location = hsm.at("token=ca;object=a;id=%01%02", "");
    let made = store::generate(&location, KeyAlgorithm::P256, &pin(PIN)).unwrap();
    assert!(store::exists(&hsm.key("a")).unwrap());
    assert!(!store::is_readable(&hsm.key("a")));
    for same in ["token=ca;object=a", "token=ca;object=a;id=%03", "token=ca;object=b;id=%01%02"] {
        let error = refusal(store::generate(&hsm.at(same, ""), KeyAlgorithm::P256, &pin(PIN)));
        assert!(matches!(error, TokenError::KeyExists { .. }), "{same}: {error:?}");
    }
    let by_id = store::open(&hsm.at("token=ca;id=%01%02", ""), &pin(PIN)).unwrap();
    assert_eq!(by_id.public_key().spki_der(), made.public_key().spki_der());
    let pem = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
    let error = refusal(store::import(&hsm.key("c"), pem.as_bytes(), None, &pin(PIN)));
    assert!(matches!(error, TokenError::ImportUnsupported));
}

#[test]
fn asks_which_of_two_keys_or_tokens_is_meant() {
    let Some(hsm) = Hsm::enter("asks_which_of_two_keys_or_tokens_is_meant") else { return };
    for id in ["01", "02"] {
        let arguments = [
            "--login",
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            "twin",
            "--id",
            id,
            "--sensitive",
        ];
        hsm.pkcs11_tool(&arguments);
    }
    let error = refusal(store::open(&hsm.key("twin"), &pin(PIN)));
    assert!(matches!(error, TokenError::KeyAmbiguous { count: 2, .. }), "{error:?}");
    let open =
        |id: &str| store::open(&hsm.at(&format!("token=ca;object=twin;id=%{id}"), ""), &pin(PIN)).unwrap();
    let (first, second) = (open("01"), open("02"));
    assert_ne!(first.public_key().spki_der(), second.public_key().spki_der());
    sign_and_verify(&*first);
    sign_and_verify(&*second);
    drop((first, second));

    hsm.add_token("spare");
    hsm.add_token("spare");
    let (context, _session) = hsm.neighbour();
    context.finalize().unwrap();
    let error = refusal(store::open(&hsm.at("token=spare;object=a", ""), &pin(PIN)));
    assert!(matches!(error, TokenError::TokenAmbiguous { .. }), "{error:?}");
    assert_eq!(error.to_string().matches("\"spare\" (serial").count(), 2, "{error}");
}

#[test]
fn refuses_keys_that_can_leave_or_that_it_cannot_use() {
    let Some(hsm) = Hsm::enter("refuses_keys_that_can_leave_or_that_it_cannot_use") else { return };
    let make = |label: &str, id: &str, kind: &str, options: &[&str]| {
        let arguments = ["--login", "--keypairgen", "--key-type", kind, "--label", label, "--id", id];
        hsm.pkcs11_tool(&[&arguments, options].concat());
    };
    make("extractable", "01", "EC:prime256v1", &["--sensitive", "--extractable"]);
    make("curve", "02", "EC:secp521r1", &["--sensitive"]);
    make("weak", "04", "rsa:1024", &["--sensitive"]);
    let (context, session) = hsm.neighbour();
    session.login(UserType::User, Some(&AuthPin::new(PIN.into()))).unwrap();
    for (id, label, sensitive, sign) in [(3, "silent", true, false), (5, "open", false, true)] {
        let both = [Attribute::Token(true), Attribute::Id(vec![id]), Attribute::Label(label.into())];
        let public = [Attribute::EcParams(vec![6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7])];
        let private = [Attribute::Private(true), Attribute::Sensitive(sensitive), Attribute::Sign(sign)];
        let mechanism = Mechanism::EccKeyPairGen;
        let (public, private) = ([both.as_slice(), &public].concat(), [both.as_slice(), &private].concat());
        session.generate_key_pair(&mechanism, &public, &private).unwrap();
    }
    drop((context, session));
    for (label, reason) in [
        ("extractable", "CKA_EXTRACTABLE"),
        ("silent", "CKA_SIGN"),
        ("open", "CKA_SENSITIVE"),
        ("curve", "public half"),
        ("weak", "1024"),
    ] {
        let error = refusal(store::open(&hsm.key(label), &pin(PIN)));
        assert!(error.to_string().contains(reason), "{label}: {error}");
    }
}

#[test]
fn needs_the_public_half_of_a_curve_key_and_not_of_an_rsa_key() {
    let Some(hsm) = Hsm::enter("needs_the_public_half_of_a_curve_key_and_not_of_an_rsa_key") else { return };
    for (label, id, kind) in [("curve", "01", "EC:prime256v1"), ("rsa", "02", "rsa:2048")] {
        let arguments =
            ["--login", "--keypairgen", "--key-type", kind, "--label", label, "--id", id, "--sensitive"];
        hsm.pkcs11_tool(&arguments);
        hsm.pkcs11_tool(&["--login", "--delete-object", "--type", "pubkey", "--id", id]);
    }
    let error = refusal(store::open(&hsm.key("curve"), &pin(PIN)));
    assert!(matches!(error, TokenError::NoPublicKey { .. }), "{error:?}");
    sign_and_verify(&*store::open(&hsm.key("rsa"), &pin(PIN)).unwrap());
}

#[test]
fn signs_from_many_threads_at_once() {
    let Some(hsm) = Hsm::enter("signs_from_many_threads_at_once") else { return };
    let first = hsm.generate("first");
    let second = hsm.generate("second");
    std::thread::scope(|scope| {
        for thread in 0..24_u8 {
            let signer = if thread % 2 == 0 { &first } else { &second };
            scope.spawn(move || {
                for number in 0..20_u8 {
                    let message = [thread, number];
                    let signature = signer.sign(&message).unwrap();
                    signer.public_key().verify(signer.algorithm(), &message, &signature).unwrap();
                }
            });
        }
    });
    let (context, session) = hsm.neighbour();
    let slot = session.get_session_info().unwrap().slot_id();
    if let Some(open) = context.get_token_info(slot).unwrap().session_count() {
        assert!(open <= 9, "{open} sessions are open");
    }
}

#[test]
fn logs_in_again_after_a_logout_and_after_a_restart_of_the_module() {
    let Some(hsm) = Hsm::enter("logs_in_again_after_a_logout_and_after_a_restart_of_the_module") else {
        return;
    };
    let signer = hsm.generate("a");
    let other = hsm.generate("b");
    for round in 0..3 {
        let (context, session) = hsm.neighbour();
        if round < 2 {
            session.logout().unwrap();
            drop(session);
        } else {
            context.finalize().unwrap();
        }
        sign_and_verify(&*signer);
        sign_and_verify(&*other);
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // Under such a storm a signature may fail, but what comes is right.
            scope.spawn(|| {
                for _ in 0..50 {
                    if let Ok(signature) = signer.sign(MESSAGE) {
                        signer.public_key().verify(signer.algorithm(), MESSAGE, &signature).unwrap();
                    }
                }
            });
        }
        for _ in 0..10 {
            let (_context, session) = hsm.neighbour();
            let _ = session.logout();
        }
    });
    sign_and_verify(&*signer);
    sign_and_verify(&*other);
}

#[test]
fn refuses_for_good_when_the_key_is_gone_or_replaced() {
    let Some(hsm) = Hsm::enter("refuses_for_good_when_the_key_is_gone_or_replaced") else { return };
    let signer = hsm.generate("a");
    let (_context, session) = hsm.neighbour();
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        for object in session.find_objects(&[Attribute::Class(class)]).unwrap() {
            session.destroy_object(object).unwrap();
        }
    }
    let error = signer.sign(MESSAGE).unwrap_err();
    assert!(matches!(error, SignError::Refused { .. }), "{error:?}");
    assert_eq!(error.kind(), SignErrorKind::Fatal);

    let replacement = hsm.generate("a");
    assert_ne!(replacement.public_key().spki_der(), signer.public_key().spki_der());
    session.logout().unwrap();
    let error = signer.sign(MESSAGE).unwrap_err();
    assert!(error.to_string().contains("another key"), "{error}");
    sign_and_verify(&*replacement);
}

#[test]
fn tries_a_changed_pin_once_and_never_again() {
    let Some(hsm) = Hsm::enter("tries_a_changed_pin_once_and_never_again") else { return };
    let signer = hsm.generate("a");
    let (context, session) = hsm.neighbour();
    let new = AuthPin::new("changed".into());
    session.set_pin(&AuthPin::new(PIN.into()), &new).unwrap();
    session.logout().unwrap();
    for _ in 0..3 {
        let error = signer.sign(MESSAGE).unwrap_err();
        assert_eq!(error.kind(), SignErrorKind::Fatal, "{error:?}");
        assert!(error.to_string().contains("PIN"), "{error}");
    }
    let slot = session.get_session_info().unwrap().slot_id();
    assert!(!context.get_token_info(slot).unwrap().user_pin_locked());
    session.login(UserType::User, Some(&new)).unwrap();
}

#[test]
fn debug_shows_the_key_and_no_pin() {
    let Some(hsm) = Hsm::enter("debug_shows_the_key_and_no_pin") else { return };
    let shown = format!("{:?}", hsm.generate("issuer"));
    assert!(shown.contains("issuer") && shown.contains("ca"), "{shown}");
    assert!(!shown.contains(PIN), "{shown}");
}

/// The figures for docs/adr/0003; run with `--release --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn costs() {
    let Some(hsm) = Hsm::enter("costs") else { return };
    let signer = hsm.generate("a");
    let start = Instant::now();
    for _ in 0..500 {
        signer.sign(MESSAGE).unwrap();
    }
    println!("one P-256 signature in SoftHSM: {:?}", start.elapsed() / 500);
}

const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];
