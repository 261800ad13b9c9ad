//! Certificate requests that OpenSSL made, and ours judged by OpenSSL.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use chancery_types::{KeyAlgorithm, SubjectName};
use chancery_x509::{
    CERTIFICATE_REQUEST, CertificateRequest, DistinguishedName, Possession, RequestError, RequestPurpose,
    RequestSpec, SubjectKey, read_pem_one, write_pem,
};

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/requests/{name}.pem"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn refusal(name: &str) -> RequestError {
    match CertificateRequest::from_pem_or_der(&fixture(name)).and_then(CertificateRequest::verify) {
        Ok(_) => panic!("{name} was accepted"),
        Err(error) => error,
    }
}

#[test]
fn accepts_requests_of_every_algorithm() {
    let names: Vec<SubjectName> = [
        "uri:spiffe://example.org/web",
        "dns:web.example.org",
        "dns:*.web.example.org",
        "ip:10.0.0.1",
        "ip:2001:db8::1",
        "email:web@example.org",
    ]
    .map(|name| name.parse().unwrap())
    .to_vec();
    for (name, algorithm) in [
        ("p256", KeyAlgorithm::P256),
        ("p256-sha384", KeyAlgorithm::P256),
        ("p384", KeyAlgorithm::P384),
        ("p384-sha256", KeyAlgorithm::P384),
        ("ed25519", KeyAlgorithm::Ed25519),
        ("rsa2048", KeyAlgorithm::Rsa2048),
        ("rsa3072-sha384", KeyAlgorithm::Rsa3072),
        ("rsa4096-sha512", KeyAlgorithm::Rsa4096),
    ] {
        let request = CertificateRequest::from_pem_or_der(&fixture(name)).unwrap();
        assert_eq!(request.public_key().algorithm(), algorithm, "{name}");
        assert_eq!(request.names(), names, "{name}");
        assert_eq!(request.subject().common_name(), Some("web"), "{name}");
        assert!(request.ignored().is_empty(), "{name}");
        assert!(!request.asks_for_ca(), "{name}");
        let proven = request.clone().verify().unwrap();
        assert_eq!(proven.possession(), Possession::Signature);
        assert_eq!(proven.request(), Some(&request));
        let der = read_pem_one(&fixture(name), &[CERTIFICATE_REQUEST]).unwrap().der;
        assert_eq!(CertificateRequest::from_pem_or_der(&der).unwrap(), request);
    }
}

#[test]
fn refuses_every_request_whose_signature_was_altered() {
    for name in ["p256", "p384", "ed25519", "rsa2048"] {
        let der = read_pem_one(&fixture(name), &[CERTIFICATE_REQUEST]).unwrap().der;
        for distance in [1, 20] {
            let mut altered = der.to_vec();
            let place = altered.len() - distance;
            altered[place] ^= 1;
            let error = CertificateRequest::from_der(&altered).unwrap().verify().unwrap_err();
            assert_eq!(
                error.to_string(),
                "the request does not prove possession of its key: the signature does not verify"
            );
        }
    }
}

#[test]
fn reports_what_it_ignores() {
    for (name, ignored) in [
        (
            "attributes",
            &[
                "subject attribute 2.5.4.6",
                "subject attribute 2.5.4.10",
                "attribute 1.2.840.113549.1.9.2",
                "attribute challengePassword",
            ][..],
        ),
        ("usages", &["extension 2.5.29.14", "extension 1.3.6.1.5.5.7.1.24"]),
        ("other-names", &["subjectAltName of kind otherName", "subjectAltName of kind registeredID"]),
        ("bare", &[]),
        ("new-header", &[]),
    ] {
        let request = CertificateRequest::from_pem_or_der(&fixture(name)).unwrap();
        let found: Vec<String> = request.ignored().iter().map(ToString::to_string).collect();
        assert_eq!(found, ignored, "{name}");
        assert!(!format!("{request:?}").contains("hunter2"));
        assert!(!request.asks_for_ca());
        request.verify().unwrap();
    }
}

#[test]
fn reads_names_once_and_in_lower_case() {
    let request = CertificateRequest::from_pem_or_der(&fixture("other-names")).unwrap();
    assert_eq!(request.names(), ["dns:a.example".parse().unwrap()]);
}

#[test]
fn reads_the_usages_asked_for() {
    let request = CertificateRequest::from_pem_or_der(&fixture("usages")).unwrap();
    assert_eq!(request.key_usage().unwrap().to_string(), "digital-signature");
    assert_eq!(request.extended_key_usage(), ["server-auth", "1.3.6.1.4.1.311.20.2.2"]);
    assert!(!request.basic_constraints().unwrap().ca);
    let listed: Vec<_> = request.extensions().iter().map(|extension| extension.oid.as_str()).collect();
    assert_eq!(listed, ["2.5.29.19", "2.5.29.15", "2.5.29.37", "2.5.29.14", "1.3.6.1.5.5.7.1.24"]);
    assert_eq!(request.extensions()[4].value, [0x30, 3, 2, 1, 5]);
    assert!(!request.extensions()[4].critical && request.extensions()[1].critical);
}

#[test]
fn says_when_a_request_asks_for_a_ca() {
    let request = CertificateRequest::from_pem_or_der(&fixture("issuer")).unwrap();
    assert!(request.asks_for_ca());
    let constraints = request.basic_constraints().unwrap();
    assert_eq!((constraints.ca, constraints.path_length), (true, Some(0)));
    assert_eq!(request.key_usage().unwrap().to_string(), "key-cert-sign, crl-sign");
}

#[test]
fn refuses_keys_that_are_not_certified_and_says_why() {
    for (name, text) in [
        (
            "rsa1024",
            "the RSA modulus has 1024 bits; accepted are 2048, 3072 and 4096; fewer than 2048 can be factored",
        ),
        (
            "rsa2056",
            "the RSA modulus has 2056 bits; accepted are 2048, 3072 and 4096; other sizes are not supported everywhere",
        ),
        ("rsa-exponent-3", "the RSA exponent is 3; it must be odd and from 65537"),
        ("rsa-exponent-large", "the RSA exponent is 8589934593; it must be odd and from 65537"),
        (
            "rsa-pss-key",
            "key algorithm 1.2.840.113549.1.1.10 (RSASSA-PSS; send the same key as rsaEncryption)",
        ),
        ("p521", "elliptic curve 1.3.132.0.35 (P-521) is not accepted; use P-256 or P-384"),
        ("secp256k1", "elliptic curve 1.3.132.0.10 (secp256k1) is not accepted; use P-256 or P-384"),
        ("explicit-curve", "the curve is given by explicit parameters"),
        ("ed448", "key algorithm 1.3.101.113 (Ed448) is not accepted"),
        ("compressed-point", "the point is compressed or hybrid"),
    ] {
        let error = refusal(name).to_string();
        assert!(error.starts_with(text), "{name}: {error}");
    }
}

#[test]
fn refuses_signature_algorithms_that_are_not_accepted() {
    for (name, algorithm) in [
        ("sha1-signature", "1.2.840.113549.1.1.5"),
        ("sha512-ecdsa", "1.2.840.10045.4.3.4"),
        ("pss-signature", "1.2.840.113549.1.1.10"),
    ] {
        let error = refusal(name);
        assert!(matches!(error, RequestError::Possession(_)), "{name}: {error}");
        assert!(error.to_string().contains(algorithm), "{name}: {error}");
    }
}

#[test]
fn refuses_contents_that_cannot_be_honoured() {
    for (name, text) in [
        (
            "critical-unknown",
            "critical extension 1.3.6.1.5.5.7.1.24 is requested and not known here; \
             ask for it as non-critical or not at all",
        ),
        (
            "bad-dns",
            "requested name number 2 is malformed: \"under_score.example\" is not a DNS name: not valid under IDNA",
        ),
        ("two-common-names", "the subject has more than one common name; send one or none"),
        (
            "bmp-common-name",
            "the common name is not printable text as UTF8String, PrintableString or IA5String",
        ),
    ] {
        assert_eq!(refusal(name).to_string(), text, "{name}");
    }
}

#[test]
fn openssl_accepts_our_requests() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED openssl_accepts_our_requests: there is no openssl command");
        return;
    }
    let subject: DistinguishedName = "CN=web,O=Example".parse().unwrap();
    let names = ["uri:spiffe://example.org/web", "dns:web.example.org", "ip:10.0.0.1", "email:a@example.org"]
        .map(|name| name.parse().unwrap());
    let mut keys: Vec<SubjectKey> = [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519]
        .into_iter()
        .map(|algorithm| SubjectKey::generate(algorithm).unwrap())
        .collect();
    keys.push(
        SubjectKey::from_pkcs8_pem(&openssl(&["genpkey", "-quiet", "-algorithm", "RSA"], b"")).unwrap(),
    );
    for key in &keys {
        for (subject, names) in [(&subject, &names[..]), (&DistinguishedName::empty(), &[])] {
            let request = key.request(subject, names).unwrap();
            let text = openssl_request(&request);
            let expected = ["URI:spiffe://example.org/web", "O = Example, CN = web", "IP Address:10.0.0.1"];
            for part in expected {
                assert_eq!(text.contains(part), !names.is_empty(), "{text}");
            }
            CertificateRequest::from_der(&request).unwrap().verify().unwrap();
        }
    }

    let spec = RequestSpec {
        public_key: keys[0].public_key(),
        signature_algorithm: keys[0].signature_algorithm(),
        subject: &subject,
        names: &[],
        purpose: RequestPurpose::Issuer,
    };
    let request = spec.build(|info| keys[0].sign(info)).unwrap();
    assert!(openssl_request(&request).contains("CA:TRUE, pathlen:0"));
    assert!(CertificateRequest::from_der(&request).unwrap().asks_for_ca());
}

#[test]
fn openssl_reads_our_keys_and_we_read_its() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED openssl_reads_our_keys_and_we_read_its: there is no openssl command");
        return;
    }
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
        let key = SubjectKey::generate(algorithm).unwrap();
        let spki = openssl(&["pkey", "-pubout", "-outform", "DER"], key.to_pkcs8_pem().as_bytes());
        assert_eq!(spki, key.public_key().spki_der(), "{algorithm}");
        let again = openssl(&["pkey"], key.to_pkcs8_pem().as_bytes());
        assert_eq!(SubjectKey::from_pkcs8_pem(&again).unwrap().public_key(), key.public_key());
    }
    for arguments in [
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..],
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["genpkey", "-algorithm", "ED25519"],
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"],
    ] {
        let key = SubjectKey::from_pkcs8_pem(&openssl(arguments, b"")).unwrap();
        let signature = key.sign(b"message").unwrap();
        key.public_key().verify(key.signature_algorithm(), b"message", &signature).unwrap();
        assert!(key.public_key().verify(key.signature_algorithm(), b"other", &signature).is_err());
    }
    for (arguments, advice) in [
        (
            &["ecparam", "-name", "prime256v1", "-genkey", "-noout"][..],
            "the file holds a EC PRIVATE KEY, which is not read",
        ),
        (&["genrsa", "-traditional", "2048"], "the file holds a RSA PRIVATE KEY, which is not read"),
        (
            &["genpkey", "-algorithm", "ED25519", "-aes-128-cbc", "-pass", "pass:secret"],
            "the file holds a ENCRYPTED PRIVATE KEY, which is not read",
        ),
    ] {
        let error = SubjectKey::from_pkcs8_pem(&openssl(arguments, b"")).unwrap_err().to_string();
        assert!(error.starts_with(advice) && error.contains("openssl pkcs8 -topk8"), "{error}");
    }
    let error = SubjectKey::from_pkcs8_pem(&openssl(&["genpkey", "-algorithm", "X25519"], b"")).unwrap_err();
    assert!(error.to_string().contains("make a P-256"), "{error}");
}

/// What `openssl req -verify -text` prints; it must be satisfied.
fn openssl_request(der: &[u8]) -> String {
    let pem = write_pem(CERTIFICATE_REQUEST, der);
    let output = openssl(&["req", "-verify", "-noout", "-text"], pem.as_bytes());
    String::from_utf8(output).expect("openssl prints text")
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl was found before");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input).expect("openssl reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("openssl ends");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !complaint.contains("failure"), "openssl {arguments:?}: {complaint}");
    output.stdout
}
