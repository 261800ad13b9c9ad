//! The seeds of the fuzz targets, and thousands of alterations of each, through every parser of this crate.

use std::path::Path;

use chancery_x509::crl::CrlView;
use chancery_x509::ocsp::{OcspRequest, OcspResponse};
use chancery_x509::{Certificate, CertificateRequest, PublicKey, read_pem};

/// A corpus and whether the parser that it is for accepts an input.
type Corpus = (&'static str, fn(&[u8]) -> bool);

const CORPORA: [Corpus; 7] = [
    ("csr", |input| CertificateRequest::from_pem_or_der(input).is_ok()),
    ("public_key", |input| PublicKey::from_spki_der(input).is_ok()),
    ("certificate", |input| Certificate::from_der(input).is_ok()),
    ("crl", |input| CrlView::from_der(input).is_ok()),
    ("ocsp_request", |input| OcspRequest::from_der(input).is_ok()),
    ("ocsp_response", |input| OcspResponse::from_der(input).is_ok()),
    ("pem", |input| read_pem(input, 8).is_ok()),
];

/// Seeds that are there because they are refused.
const REFUSED: [&str; 4] = ["critical-unknown", "explicit-curve", "secp256k1", "compressed-point"];

#[test]
fn every_parser_survives_every_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (own, accepts) in CORPORA {
        for (name, _) in CORPORA {
            for file in std::fs::read_dir(root.join(name)).unwrap() {
                let path = file.unwrap().path();
                let seed = std::fs::read(&path).unwrap();
                let accepted = accepts(&seed);
                if own == name {
                    let refused = REFUSED.iter().any(|refused| path.ends_with(refused));
                    assert_eq!(accepted, !refused, "{}", path.display());
                    survive_alterations(&seed, accepts);
                }
            }
        }
    }
}

/// Cuts after every byte, and three other values for every byte.
fn survive_alterations(seed: &[u8], accepts: fn(&[u8]) -> bool) {
    let mut altered = seed.to_vec();
    for place in 0..seed.len() {
        accepts(&seed[..place]);
        for value in [seed[place] ^ 0x80, seed[place].wrapping_add(1), 0x84] {
            altered[place] = value;
            accepts(&altered);
        }
        altered[place] = seed[place];
    }
}
