//! The age format, judged by the vectors of C2SP (<https://c2sp.org/CCTV/age>) and by the program `age`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use chancery_keys::age::{AgeError, Identity, Recipient, decrypt, encrypt, read_identities};
use chancery_types::{Digest, SystemRandom};

struct Vector {
    fields: HashMap<String, String>,
    file: Vec<u8>,
}

fn vector(path: &Path) -> Vector {
    let bytes = std::fs::read(path).unwrap();
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let fields: HashMap<String, String> = fields.collect();
    let mut file = bytes[end + 2..].to_vec();
    if fields.contains_key("compressed") {
        let compressed = std::mem::take(&mut file);
        flate2::read::ZlibDecoder::new(compressed.as_slice()).read_to_end(&mut file).unwrap();
    }
    Vector { fields, file }
}

fn opened(file: &[u8], identities: &str) -> Result<Vec<u8>, (Vec<u8>, AgeError)> {
    let identities = read_identities(identities).unwrap();
    let mut content = Vec::new();
    let read = decrypt(&identities, file).and_then(|mut file| Ok(file.read_to_end(&mut content)?));
    read.map_err(|error| (content.clone(), error))?;
    Ok(content)
}

#[test]
fn every_vector_of_c2sp_comes_out_as_it_should() {
    let mut seen = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/age")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Vector { fields, file } = vector(&path);
        let anybody = Identity::generate(&SystemRandom).unwrap().to_text();
        let result = opened(&file, fields.get("identity").unwrap_or(&anybody));
        let expected = fields["expect"].as_str();
        let content = match (expected, &result) {
            ("success", Ok(content)) => content,
            ("no match", Err((_, AgeError::NotForUs { .. }))) => continue,
            ("HMAC failure", Err((_, AgeError::Altered))) => continue,
            ("header failure", Err((_, AgeError::Header(_)))) => continue,
            // What was given before the damage is authentic.
            ("payload failure", Err((content, AgeError::Io(_) | AgeError::Header(_)))) => content,
            _ => panic!("{name}: {expected} was expected, not {result:?}"),
        };
        // Of a damaged end the last whole chunk may be given, as other programs do, or not.
        let gives_less = expected == "payload failure" && content.len() % (64 << 10) == 0;
        if let Some(payload) = fields.get("payload").filter(|_| !gives_less) {
            assert_eq!(Digest::of(content).to_string(), *payload, "{name}");
        }
        seen += 1;
    }
    assert!(seen > 10, "{seen} vectors with content");
}

#[test]
fn what_is_encrypted_is_opened_by_every_recipient_and_nobody_else() {
    let identities: Vec<Identity> = (0..3).map(|_| Identity::generate(&SystemRandom).unwrap()).collect();
    let recipients: Vec<Recipient> = identities[..2].iter().map(Identity::recipient).collect();
    for length in [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000] {
        let content: Vec<u8> = (0..length).map(|at: u32| at.to_le_bytes()[0]).collect();
        let mut encryptor = encrypt(&recipients, &SystemRandom, Vec::new()).unwrap();
        encryptor.write_all(&content).unwrap();
        let file = encryptor.finish().unwrap();
        for identity in &identities[..2] {
            assert_eq!(opened(&file, &identity.to_text()).unwrap(), content, "{length} bytes");
        }
        let other = opened(&file, &identities[2].to_text()).unwrap_err();
        assert!(matches!(other.1, AgeError::NotForUs { recipients: 2 }), "{}", other.1);
        for cut in [file.len() - 1, file.len() - 16, file.len() / 2] {
            opened(&file[..cut], &identities[0].to_text()).unwrap_err();
        }
        let mut flipped = file;
        *flipped.last_mut().unwrap() ^= 1;
        opened(&flipped, &identities[0].to_text()).unwrap_err();
    }
}

#[test]
fn keys_and_files_are_those_of_the_program_age() {
    if Command::new("age-keygen").arg("--version").output().is_err() {
        println!("SKIPPED: age is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let key_file = directory.path().join("key");
    let made = Command::new("age-keygen").arg("-o").arg(&key_file).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = std::fs::read_to_string(&key_file).unwrap();
    let recipient = read_identities(&text).unwrap()[0].recipient();
    assert!(text.contains(&recipient.to_string()), "{recipient} is not what age-keygen says");

    let content = vec![7; 300_000];
    let mut encryptor = encrypt(&[recipient], &SystemRandom, Vec::new()).unwrap();
    encryptor.write_all(&content).unwrap();
    let ours = encryptor.finish().unwrap();
    assert_eq!(age(&["-d", "-i", key_file.to_str().unwrap()], ours), content);

    let mine = Identity::generate(&SystemRandom).unwrap();
    let theirs = age(&["-r", &mine.recipient().to_string()], content.clone());
    assert_eq!(opened(&theirs, &mine.to_text()).unwrap(), content);
    std::fs::write(&key_file, mine.to_text().as_bytes()).unwrap();
    assert_eq!(age(&["-d", "-i", key_file.to_str().unwrap()], theirs), content);
}

fn age(arguments: &[&str], input: Vec<u8>) -> Vec<u8> {
    let mut command = Command::new("age");
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn a_key_is_refused_without_being_repeated_when_it_is_secret() {
    let secret = Identity::generate(&SystemRandom).unwrap().to_text().lines().nth(1).unwrap().to_owned();
    let broken = format!("# a comment\n\n{}", secret.replace("KEY-1", "KEY-2"));
    let refused = read_identities(&broken).unwrap_err().to_string();
    assert!(refused.contains("line 3") && !refused.contains(&secret[20..]), "{refused}");
    assert!(read_identities("# nothing\n").unwrap_err().to_string().contains("no identity"));
    assert!(secret.parse::<Recipient>().is_err());
}
