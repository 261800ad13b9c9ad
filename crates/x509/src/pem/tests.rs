use proptest::prelude::*;

use super::*;

const TWO: &str = "\
subject=CN = leaf\r
-----BEGIN CERTIFICATE-----\r
MAMC\r
AQE=\r
-----END CERTIFICATE-----\r
a comment
-----BEGIN CERTIFICATE-----
MAMCAQI=
-----END CERTIFICATE-----";

#[test]
fn reads_blocks_and_skips_what_is_between_them() {
    let blocks = read_pem(TWO.as_bytes(), 2).unwrap();
    assert_eq!(blocks.iter().map(|block| block.line).collect::<Vec<_>>(), [2, 7]);
    assert_eq!(
        read_certificates(TWO.as_bytes(), 2).unwrap(),
        [vec![0x30, 3, 2, 1, 1], vec![0x30, 3, 2, 1, 2]]
    );
    assert!(read_pem(b"no block\n", 1).unwrap().is_empty());
    assert_eq!(format!("{:?}", blocks[0]), "PemBlock(CERTIFICATE in line 2, 5 bytes)");
}

#[test]
fn refuses_what_is_not_pem_and_names_the_line() {
    for (text, shown) in [
        ("", "no -----BEGIN CERTIFICATE----- line was found"),
        (
            "-----BEGIN CERTIFICATE-----\nMAA=\n",
            "line 1: the block that begins here has no matching END line",
        ),
        (
            "\n-----BEGIN CERTIFICATE-----\nMAA=\n-----END X-----\n",
            "line 2: the block that begins here has no",
        ),
        (
            "-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
            "line 1: the block that begins here has no matching",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nM*A=\n-----END CERTIFICATE-----\n",
            "line 1: the block that begins here is",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nMAA\n-----END CERTIFICATE-----\n",
            "line 1: the block that begins here is",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nMAA=MAA=\n-----END CERTIFICATE-----\n",
            "line 1: the block that begins here is not plain base64",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n\nMAA=\n-----END CERTIFICATE-----\n",
            "line 1: the block that begins here is not plain base64; headers",
        ),
        (
            "\n\n-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
            "line 3: a CERTIFICATE was expected here, this is a PRIVATE KEY",
        ),
    ] {
        let error = read_certificates(text.as_bytes(), 4).unwrap_err();
        assert!(error.to_string().starts_with(shown), "{error}");
    }
}

#[test]
fn refuses_more_blocks_or_bytes_than_its_limit() {
    assert_eq!(read_certificates(TWO.as_bytes(), 1), Err(PemError::TooMany { limit: 1 }));
    assert_eq!(read_pem_one(TWO.as_bytes(), &[CERTIFICATE]), Err(PemError::TooMany { limit: 1 }));
    let long = vec![b'\n'; MAX_PEM + 1];
    assert_eq!(read_pem(&long, 1), Err(PemError::TooLong { length: MAX_PEM + 1, limit: MAX_PEM }));
}

#[test]
fn writes_lines_of_64_characters() {
    let text = write_pem("TEST", &[7; 50]);
    let lines: Vec<_> = text.lines().map(str::len).collect();
    assert_eq!(lines, [20, 64, 4, 18]);
    assert!(text.ends_with("-----END TEST-----\n"));
    let secret = write_secret_pem("TEST", &[7; 4000]);
    assert!(secret.capacity() < 6000, "one allocation that is not grown: {}", secret.capacity());
}

proptest! {
    #[test]
    fn what_was_written_reads_back(der in proptest::collection::vec(any::<u8>(), 0..300)) {
        let block = read_pem_one(write_pem("SOME LABEL", &der).as_bytes(), &["SOME LABEL"]).unwrap();
        prop_assert_eq!(&*block.der, &der);
    }

    #[test]
    fn any_text_is_read_without_panic(text in "(-----BEGIN A-----|-----END A-----|[A-Za-z0-9=+/ -]{0,9}|\n|\r|\\PC){0,40}") {
        let _ = read_pem(text.as_bytes(), 3);
    }
}
