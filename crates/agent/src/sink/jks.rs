//! JKS, the key store of Java before PKCS#12: for programs that read nothing else.
//!
//! Its protection of the key is SHA-1 used as a stream cipher. It hides the key from nobody who has the file and
//! patience, so it is the mode of the file that protects the key; prefer PKCS#12 wherever it is read.

use chancery_types::{Random, SecretString, Timestamp};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA1_OUTPUT_LEN};
use zeroize::Zeroizing;

use super::der::{octets, oid, sequence, tlv};
use super::pkcs12::Contents;
use super::render::RenderError;

/// Writes a store.
pub(super) fn encode(
    contents: &Contents<'_>,
    password: &SecretString,
    now: Timestamp,
    random: &dyn Random,
) -> Result<Vec<u8>, RenderError> {
    let password = Zeroizing::new(
        password.expose_secret().encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>(),
    );
    let entries = contents.authorities.len() + usize::from(contents.entry.is_some());

    let mut store = Vec::new();
    store.extend(0xfeed_feed_u32.to_be_bytes());
    store.extend(2_u32.to_be_bytes());
    store.extend(count(entries));
    if let Some((key, chain)) = contents.entry {
        store.extend(1_u32.to_be_bytes());
        text(&mut store, contents.alias);
        store.extend(now.millis().to_be_bytes());
        blob(&mut store, &protect(key, &password, random)?);
        store.extend(count(chain.len()));
        for certificate in chain {
            text(&mut store, "X.509");
            blob(&mut store, certificate);
        }
    }
    for (index, authority) in contents.authorities.iter().enumerate() {
        store.extend(2_u32.to_be_bytes());
        text(&mut store, &format!("authority-{index}"));
        store.extend(now.millis().to_be_bytes());
        text(&mut store, "X.509");
        blob(&mut store, authority);
    }
    let seal = sha1(&[&password, b"Mighty Aphrodite", &store]);
    store.extend(seal);
    Ok(store)
}

/// The key, exclusive-or with a chain of hashes that begins with the password and a salt.
fn protect(key: &[u8], password: &[u8], random: &dyn Random) -> Result<Vec<u8>, RenderError> {
    let mut salt = [0_u8; SHA1_OUTPUT_LEN];
    random.fill(&mut salt)?;
    let mut hidden = salt.to_vec();
    let mut mask = salt;
    for block in key.chunks(SHA1_OUTPUT_LEN) {
        mask = sha1(&[password, &mask]);
        hidden.extend(block.iter().zip(mask).map(|(plain, mask)| plain ^ mask));
    }
    hidden.extend(sha1(&[password, key]));
    let algorithm = sequence(&[&oid(KEY_PROTECTOR), &tlv(0x05, &[])]);
    Ok(sequence(&[&algorithm, &octets(&hidden)]))
}

fn sha1(parts: &[&[u8]]) -> [u8; SHA1_OUTPUT_LEN] {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-1 has twenty bytes")
}

fn count(number: usize) -> [u8; 4] {
    u32::try_from(number).expect("certificates are counted in dozens").to_be_bytes()
}

fn text(store: &mut Vec<u8>, text: &str) {
    store.extend(u16::try_from(text.len()).expect("a name of a few letters").to_be_bytes());
    store.extend(text.as_bytes());
}

fn blob(store: &mut Vec<u8>, bytes: &[u8]) {
    store.extend(count(bytes.len()));
    store.extend(bytes);
}

/// 1.3.6.1.4.1.42.2.17.1.1, Sun's.
const KEY_PROTECTOR: &[u8] = b"\x2b\x06\x01\x04\x01\x2a\x02\x11\x01\x01";
