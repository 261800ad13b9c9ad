//! Keys that openssl makes and rcgen on ring cannot: RSA of any size, and curves that are not supported.

use std::path::Path;
use std::process::Command;

use super::*;

/// Runs openssl in a directory; `None`, loudly, where there is no openssl.
fn openssl(directory: &Path, arguments: &[&str]) -> Option<()> {
    match Command::new("openssl").current_dir(directory).args(arguments).output() {
        Ok(output) if output.status.success() => Some(()),
        Ok(output) => panic!("openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            println!("SKIPPED: no openssl here ({error})");
            None
        }
    }
}

/// Why the key of a self-signed certificate with a key that `genpkey` makes is refused.
fn refused_key(genpkey: &[&str]) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let make: Vec<&str> = ["genpkey", "-out", "key.pem"].iter().chain(genpkey).copied().collect();
    openssl(path, &make)?;
    let request =
        ["req", "-x509", "-new", "-key", "key.pem", "-subj", "/CN=x", "-outform", "DER", "-out", "c"];
    openssl(path, &request)?;
    let mut proof = Proof::of(&Pki::new().build());
    proof.evidence.chain = vec![std::fs::read(path.join("c")).unwrap()];
    match refusal(proof.verify(Vec::new())) {
        PopError::Key { index: 0, why } => Some(why),
        other => panic!("expected a refusal of the key, got {other:?}"),
    }
}

#[test]
fn refuses_small_rsa_keys() {
    if let Some(why) = refused_key(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]) {
        assert!(why.contains("1024 bits"), "{why}");
    }
}

#[test]
fn refuses_curves_that_are_not_supported() {
    if let Some(why) = refused_key(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp521r1"]) {
        assert!(why.contains("1.3.132.0.35"), "{why}");
    }
    if let Some(why) = refused_key(&["-algorithm", "ED448"]) {
        assert!(why.contains("1.3.101.113"), "{why}");
    }
}

/// A root and a leaf with RSA keys, all made by openssl: the whole road for RSA.
#[test]
fn accepts_a_leaf_with_an_rsa_key_made_and_signed_by_openssl() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let steps: [&[&str]; 4] = [
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-subj",
            "/CN=rsa root",
            "-days",
            "3650",
        ],
        &[
            "req",
            "-newkey",
            "rsa:3072",
            "-nodes",
            "-keyout",
            "leaf.key",
            "-out",
            "leaf.csr",
            "-subj",
            "/CN=rsa leaf",
        ],
        &[
            "x509",
            "-req",
            "-in",
            "leaf.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-out",
            "leaf.der",
            "-outform",
            "DER",
            "-days",
            "3650",
            "-set_serial",
            "5",
            "-extfile",
            "ext",
        ],
        &["dgst", "-sha256", "-sign", "leaf.key", "-out", "s", "m"],
    ];
    std::fs::write(path.join("ext"), "basicConstraints=CA:FALSE\nsubjectAltName=DNS:rsa.corp.example\n")
        .unwrap();
    let nonces = MemoryNonces::new(Arc::new(FixedRandom::dangerous_seeded(5)), Duration::from_secs(60), 10);
    let nonce = block_on(nonces.issue(now())).unwrap();
    std::fs::write(path.join("m"), proof_message(&nonce, "example.org", &request_key())).unwrap();
    for step in steps {
        if openssl(path, step).is_none() {
            return;
        }
    }
    let root = std::fs::read(path.join("ca.pem")).unwrap();
    let authority = ForeignAuthority::new("rsa", &root, ForeignAuthorityOptions::default()).unwrap();
    let chain = vec![std::fs::read(path.join("leaf.der")).unwrap()];
    let signature = std::fs::read(path.join("s")).unwrap();
    let evidence = PopEvidence { chain, nonce, signature, wanted: None };
    // openssl dates certificates by the machine's clock, so the proof happens an hour after that.
    let machine = chancery_types::Clock::now(&chancery_types::SystemClock) + Duration::from_secs(3600);
    let later = AttestContext { now: machine, ..context() };
    let nonces = ReissuedNonces(nonce);
    let verifier = X509PopVerifier::new(vec![Arc::new(authority)], Arc::new(nonces)).unwrap();
    let attested = block_on(verifier.verify(Evidence::X509Pop(evidence), &later)).unwrap();
    assert!(attested.claims().holds("x509.dns", "rsa.corp.example"));
}

/// Takes exactly this nonce, whenever it is.
struct ReissuedNonces(Nonce);

#[async_trait]
impl Nonces for ReissuedNonces {
    async fn issue(&self, _: Timestamp) -> Result<Nonce, crate::NonceError> {
        Ok(self.0)
    }

    async fn consume(&self, nonce: &Nonce, _: Timestamp) -> Result<bool, crate::NonceError> {
        Ok(*nonce == self.0)
    }
}
