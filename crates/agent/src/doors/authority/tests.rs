//! Authorities of all kinds, as they come over the wire.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// The characters whose codes have five, six and seven bits, in the order of their codes (RFC 7541 appendix B).
const BY_LENGTH: [(&str, u32, usize); 3] = [
    ("012aceiost", 0, 5),
    (" %-./3456789=A_bdfghlmnpru", 0x14, 6),
    (":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz", 0x5c, 7),
];

fn huffman(text: &str) -> Vec<u8> {
    let mut bits = Vec::new();
    for character in text.chars() {
        let found = BY_LENGTH.iter().find_map(|(characters, first, length)| {
            characters.find(character).map(|at| (first + u32::try_from(at).unwrap(), *length))
        });
        let (code, length) = found.unwrap();
        bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
    }
    bits.resize(bits.len().next_multiple_of(8), true);
    bits.chunks(8).map(|byte| byte.iter().fold(0, |value, &bit| value << 1 | u8::from(bit))).collect()
}

fn string(text: &[u8], mark: u8) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    let mut string = if length < 127 { vec![mark | length] } else { vec![mark | 127, length - 127] };
    string.extend_from_slice(text);
    string
}

fn plain(text: &str) -> Vec<u8> {
    string(text.as_bytes(), 0)
}

fn packed(text: &str) -> Vec<u8> {
    string(&huffman(text), 0x80)
}

/// Every way to write the header, with this authority.
fn blocks(authority: &str) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    for value in [plain(authority), packed(authority)] {
        for first in [0x40, 0x00, 0x10] {
            blocks.push([vec![first | 1], value.clone()].concat());
            blocks.push([vec![first], plain(":authority"), value.clone()].concat());
            blocks.push([vec![first], packed(":authority"), value.clone()].concat());
        }
    }
    // Among others: a resized table, an indexed header, a literal one.
    let other =
        [vec![0x3f, 0xe1, 0x1f, 0x83], vec![0x04], plain("/SpiffeWorkloadAPI/FetchX509SVID")].concat();
    blocks.into_iter().map(|block| [other.clone(), block, other.clone()].concat()).collect()
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

async fn through(bytes: &[u8], chunk: usize) -> Vec<u8> {
    let (mut writer, reader) = tokio::io::duplex(chunk);
    let sent = bytes.to_vec();
    tokio::spawn(async move { writer.write_all(&sent).await });
    let mut received = Vec::new();
    Mended::new(reader).read_to_end(&mut received).await.unwrap();
    received
}

#[test]
fn replaces_what_no_authority_may_have_however_it_is_written() {
    for (wrong, right) in [
        ("tmp%2Fdl%2Fx.sock", "tmp-2Fdl-2Fx.sock"),
        ("/run/agent.sock", "-run-agent.sock"),
        ("localhost", "localhost"),
        ("/%/%/", "-----"),
    ] {
        for (mut block, expected) in blocks(wrong).into_iter().zip(blocks(right)) {
            mend_block(&mut block).unwrap();
            assert_eq!(block, expected, "{wrong}");
        }
    }
}

#[test]
fn touches_no_other_header_and_nothing_that_it_does_not_understand() {
    let path = [vec![0x44], plain("/a%2Fb"), vec![0x40], plain("x"), plain("/%")].concat();
    let long = [vec![0x41], plain(&"/".repeat(250)), vec![0xff]].concat();
    let short = [vec![0x41, 20], b"/run".to_vec()].concat();
    let huge = vec![0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, b'/'];
    for block in [path, short, huge] {
        let mut mended = block.clone();
        let _ = mend_block(&mut mended);
        assert_eq!(mended, block);
    }
    let mut mended = long.clone();
    let _ = mend_block(&mut mended);
    assert_ne!(mended, long, "what came before the odd end is mended");
}

#[tokio::test]
async fn finds_headers_among_frames_however_they_arrive() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let stream = |authority: &str| {
        let block = &blocks(authority)[0];
        let padded = [&[3, 0, 0, 0, 0, 16][..], block, &[0, 0, 0]].concat();
        [
            preface.to_vec(),
            frame(4, 0, &[]),
            frame(HEADERS, END_HEADERS, block),
            frame(0, 0, b"/body%"),
            frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &padded),
            vec![0, 1],
        ]
        .concat()
    };
    for chunk in [1, 3, 64, 4096, 65536] {
        assert_eq!(through(&stream("/a%2Fb"), chunk).await, stream("-a-2Fb"));
    }
}

proptest! {
    #[test]
    fn no_bytes_stop_it_or_change_their_number(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        flags in any::<u8>(),
    ) {
        let _ = mend_headers(&mut bytes.clone(), flags);
        let _ = mend_block(&mut bytes.clone());
        let stream = [vec![0; PREFACE], frame(HEADERS, flags, &bytes), bytes.clone()].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert_eq!(runtime.block_on(through(&stream, 7)).len(), stream.len());
    }
}
