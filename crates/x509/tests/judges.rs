//! What this crate writes, judged by programs that it did not write: OpenSSL, GnuTLS, pkilint, rustls-webpki.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]
#![expect(clippy::print_stderr, reason = "a judge that is missing must be noticed")]

mod authority;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use authority::{Authority, Held, names, now, profile, serial};
use chancery_types::{Clock as _, KeyAlgorithm, RevocationReason, SystemClock, Timestamp};
use chancery_x509::crl::{CrlSpec, CrlView, RevokedCertificate};
use chancery_x509::ocsp::{
    CertIdHash, CertificateStatus, IssuerHashes, OcspRequest, OcspResponse, OcspSpec, SingleStatus,
    assemble_response,
};
use chancery_x509::{CERTIFICATE, Certificate, SubjectKey, assemble, write_pem};

const HOUR: Duration = Duration::from_secs(3600);

/// A directory with the files that the judges read.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn certificates(&self, name: &str, certificates: &[&Certificate]) -> PathBuf {
        let text: String = certificates.iter().map(|c| write_pem(CERTIFICATE, c.der())).collect();
        self.write(name, text.as_bytes())
    }
}

/// Runs a judge; `None`, loudly, when it is not installed.
fn judge<A: AsRef<std::ffi::OsStr>>(program: &str, arguments: &[A]) -> Option<(bool, String)> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(error) => {
            eprintln!("SKIPPED: {program} cannot be run: {error}");
            None
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every kind of certificate that there is, with its name.
fn leaves(authority: &Authority) -> Vec<(&'static str, Held)> {
    let leaf = |name: &'static str, algorithm, texts: &[&str]| {
        (name, authority.leaf(&profile(name), algorithm, &names(texts)))
    };
    vec![
        leaf(
            "workload",
            KeyAlgorithm::P256,
            &["spiffe://example.org/ns/prod/web", "dns:web.example.org", "ip:10.0.0.1", "ip:fd00::1"],
        ),
        leaf("server", KeyAlgorithm::Ed25519, &["dns:a.example.org", "dns:localhost", "ip:127.0.0.1"]),
        leaf("client", KeyAlgorithm::P384, &["spiffe://example.org/job", "email:a@example.org"]),
        leaf("device", KeyAlgorithm::P256, &["spiffe://example.org/device/7"]),
        leaf("node", KeyAlgorithm::P256, &["spiffe://example.org/node/a"]),
        leaf("operator", KeyAlgorithm::P256, &["spiffe://example.org/operator/ada"]),
        leaf("ocsp", KeyAlgorithm::P256, &[]),
    ]
}

fn crl_of(authority: &Authority, signer: &Held, revoked: &[&[u8]], now: Timestamp) -> Vec<u8> {
    let other = serial(99);
    let entries = revoked
        .iter()
        .map(|serial| RevokedCertificate {
            serial,
            revoked_at: now - HOUR,
            reason: RevocationReason::KeyCompromise,
        })
        .chain([RevokedCertificate {
            serial: other.as_bytes(),
            revoked_at: now - HOUR,
            reason: RevocationReason::Unspecified,
        }])
        .collect();
    let spec = CrlSpec {
        issuer: &signer.certificate,
        signature_algorithm: signer.key.signature_algorithm(),
        number: 7,
        this_update: authority.now,
        next_update: now + 24 * HOUR,
        distribution_points: &[],
    };
    signed(&signer.key, &spec.to_tbs_der(entries).unwrap())
}

fn signed(key: &SubjectKey, tbs: &[u8]) -> Vec<u8> {
    assemble(tbs, key.signature_algorithm(), &key.sign(tbs).unwrap())
}

#[test]
fn openssl_verifies_every_chain_strictly() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
        let authority = Authority::new(algorithm);
        let files = Files::new();
        let root = files.certificates("root.pem", &[&authority.root.certificate]);
        let issuer = files.certificates("issuer.pem", &[&authority.issuer.certificate]);
        let at = now().seconds().to_string();
        for (name, leaf) in leaves(&authority) {
            let path = files.certificates(&format!("{name}.pem"), &[&leaf.certificate]);
            let arguments = [
                "verify",
                "-x509_strict",
                "-check_ss_sig",
                "-attime",
                &at,
                "-CAfile",
                text(&root),
                "-untrusted",
                text(&issuer),
                text(&path),
            ];
            let Some((verified, output)) = judge("openssl", &arguments) else { return };
            assert!(verified, "{algorithm}, {name}: {output}");
        }
    }
}

#[test]
fn openssl_reads_what_was_meant() {
    let authority = Authority::new(KeyAlgorithm::P256);
    let files = Files::new();
    let print = |certificate: &Certificate| {
        let path = files.certificates("one.pem", &[certificate]);
        judge("openssl", &["x509", "-noout", "-text", "-nameopt", "rfc2253", "-in", text(&path)])
    };
    let workload = &leaves(&authority)[0].1.certificate;
    let Some((_, output)) = print(workload) else { return };
    for expected in [
        "Version: 3 (0x2)",
        "01:00:01:00:00:00:00:00:07:9e:37:79:b9:7f:4a:7c:15",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Issuer: CN=Example Issuer 1,O=Example",
        "Not Before: Nov 21 11:59:00 2026 GMT",
        "Not After : Nov 21 13:00:00 2026 GMT",
        "Subject: \n",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Subject Alternative Name: critical\n",
        "URI:spiffe://example.org/ns/prod/web, DNS:web.example.org, IP Address:10.0.0.1, IP Address:FD00:0:0:0:0:0:0:1",
        "URI:http://ca.example.org/crl/full",
        "OCSP - URI:http://ca.example.org/ocsp",
        "CA Issuers - URI:http://ca.example.org/issuer.crt",
    ] {
        assert!(output.contains(expected), "{expected:?} is not in\n{output}");
    }
    let Some((_, output)) = print(&authority.issuer.certificate) else { return };
    for expected in [
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign",
        "X509v3 Name Constraints: critical\n",
        "DNS:example.org",
        "IP:10.0.0.0/255.0.0.0",
        "URI:spiffe://example.org",
    ] {
        assert!(output.contains(expected), "{expected:?} is not in\n{output}");
    }
    let leaves = leaves(&authority);
    let (_, responder) = leaves.iter().find(|(name, _)| *name == "ocsp").expect("there is one");
    let responder = &responder.certificate;
    let Some((_, output)) = print(responder) else { return };
    for expected in ["OCSP Signing", "OCSP No Check", "Subject: CN=Example responder,O=Example"] {
        assert!(output.contains(expected), "{expected:?} is not in\n{output}");
    }
    let Some((_, output)) = print(&authority.root.certificate) else { return };
    assert!(output.contains("Not After : Nov 13 12:00:00 2056 GMT"), "{output}");
}

#[test]
fn openssl_holds_leaves_to_the_name_constraints_of_the_issuer() {
    let authority = Authority::new(KeyAlgorithm::P256);
    let files = Files::new();
    let root = files.certificates("root.pem", &[&authority.root.certificate]);
    let issuer = files.certificates("issuer.pem", &[&authority.issuer.certificate]);
    let at = now().seconds().to_string();
    for name in ["dns:example.com", "ip:8.8.8.8"] {
        let outside = authority.leaf(&profile("workload"), KeyAlgorithm::P256, &names(&[name]));
        let path = files.certificates("outside.pem", &[&outside.certificate]);
        let arguments =
            ["verify", "-attime", &at, "-CAfile", text(&root), "-untrusted", text(&issuer), text(&path)];
        let Some((verified, output)) = judge("openssl", &arguments) else { return };
        assert!(!verified && output.contains("permitted subtree violation"), "{name}: {output}");
    }
}

#[test]
fn openssl_obeys_our_revocation_lists() {
    let authority = Authority::new(KeyAlgorithm::P256);
    let files = Files::new();
    let root = files.certificates("root.pem", &[&authority.root.certificate]);
    let issuer = files.certificates("issuer.pem", &[&authority.issuer.certificate]);
    let leaf =
        authority.leaf(&profile("workload"), KeyAlgorithm::P256, &names(&["spiffe://example.org/web"]));
    let path = files.certificates("leaf.pem", &[&leaf.certificate]);
    let at = now().seconds().to_string();
    let of_root = crl_of(&authority, &authority.root, &[], now());
    for (revoked, expected) in
        [(&[][..], None), (&[leaf.certificate.tbs().serial()], Some("certificate revoked"))]
    {
        let of_issuer = crl_of(&authority, &authority.issuer, revoked, now());
        let pem = write_pem("X509 CRL", &of_issuer) + &write_pem("X509 CRL", &of_root);
        let crls = files.write("crls.pem", pem.as_bytes());
        let der = files.write("crl.der", &of_issuer);

        let arguments = [
            "crl",
            "-verify",
            "-noout",
            "-text",
            "-inform",
            "DER",
            "-in",
            text(&der),
            "-CAfile",
            text(&issuer),
        ];
        let Some((_, output)) = judge("openssl", &arguments) else { return };
        for found in ["verify OK", "Version 2 (0x1)", "X509v3 CRL Number: \n                7"] {
            assert!(output.contains(found), "{output}");
        }
        let arguments = [
            "verify",
            "-x509_strict",
            "-crl_check_all",
            "-attime",
            &at,
            "-CRLfile",
            text(&crls),
            "-CAfile",
            text(&root),
            "-untrusted",
            text(&issuer),
            text(&path),
        ];
        let Some((verified, output)) = judge("openssl", &arguments) else { return };
        match expected {
            None => assert!(verified, "{output}"),
            Some(reason) => assert!(!verified && output.contains(reason), "{output}"),
        }
    }
}

#[test]
fn openssl_believes_our_ocsp_answers_and_asks_what_we_read() {
    let machine_now = SystemClock.now();
    let authority = Authority::at(KeyAlgorithm::P256, machine_now);
    let files = Files::new();
    let root = files.certificates("root.pem", &[&authority.root.certificate]);
    let issuer = files.certificates("issuer.pem", &[&authority.issuer.certificate]);
    let leaf =
        authority.leaf(&profile("workload"), KeyAlgorithm::P256, &names(&["spiffe://example.org/web"]));
    let leaf_path = files.certificates("leaf.pem", &[&leaf.certificate]);
    let responder = authority.leaf(&profile("ocsp"), KeyAlgorithm::P256, &[]);
    let hashes = IssuerHashes::of(&authority.issuer.certificate);
    let revoked = CertificateStatus::Revoked { at: machine_now - HOUR, reason: RevocationReason::Superseded };
    for (digest, hash) in [("-sha1", CertIdHash::Sha1), ("-sha256", CertIdHash::Sha256)] {
        for (status, expected) in [
            (CertificateStatus::Good, "Cert Status: good"),
            (revoked, "superseded"),
            (CertificateStatus::Unknown, "Cert Status: unknown"),
        ] {
            let request_path = files.path("request.der");
            let arguments = [
                "ocsp",
                digest,
                "-issuer",
                text(&issuer),
                "-cert",
                text(&leaf_path),
                "-reqout",
                text(&request_path),
            ];
            let Some((asked, output)) = judge("openssl", &arguments) else { return };
            assert!(asked, "{output}");
            let request_der = std::fs::read(&request_path).unwrap();
            let request = OcspRequest::from_der(&request_der).unwrap();
            assert_eq!(request.ids().len(), 1);
            assert_eq!(request.ids()[0].hash(), hash);
            assert_eq!(request.ids()[0].serial(), leaf.certificate.tbs().serial());
            assert!(hashes.matches(&request.ids()[0]));
            assert!(request.nonce().is_some());

            let response = answer(&request, &responder, status, machine_now);
            let response_path = files.write("response.der", &response);
            let arguments = [
                "ocsp",
                "-reqin",
                text(&request_path),
                "-respin",
                text(&response_path),
                "-CAfile",
                text(&root),
                "-verify_other",
                text(&issuer),
                "-text",
            ];
            let Some((believed, output)) = judge("openssl", &arguments) else { return };
            assert!(believed && output.contains("Response verify OK"), "{output}");
            assert!(output.contains(expected), "{output}");
            assert!(!output.contains("WARNING"), "{output}");
        }
    }
}

fn answer(
    request: &OcspRequest<'_>,
    responder: &Held,
    status: CertificateStatus,
    produced_at: Timestamp,
) -> Vec<u8> {
    let statuses = [SingleStatus {
        cert_id: request.ids()[0].der(),
        status,
        this_update: produced_at,
        next_update: Some(produced_at + HOUR),
    }];
    let spec = OcspSpec {
        responder: responder.key.public_key(),
        produced_at,
        statuses: &statuses,
        nonce: request.nonce(),
    };
    let tbs = spec.to_tbs_der();
    let algorithm = responder.key.signature_algorithm();
    assemble_response(&tbs, algorithm, &responder.key.sign(&tbs).unwrap(), Some(responder.certificate.der()))
}

#[test]
fn we_believe_the_answers_of_openssl() {
    let machine_now = SystemClock.now();
    let authority = Authority::at(KeyAlgorithm::P256, machine_now);
    let files = Files::new();
    let issuer = files.certificates("issuer.pem", &[&authority.issuer.certificate]);
    let responder = authority.leaf(&profile("ocsp"), KeyAlgorithm::P256, &[]);
    let responder_path = files.certificates("responder.pem", &[&responder.certificate]);
    let key = files.write("key.pem", responder.key.to_pkcs8_pem().as_bytes());
    let serial = serial(7);
    let hexadecimal = serial.to_string().to_uppercase();
    let expires = "301231235959Z";
    let index =
        files.write("index.txt", format!("V\t{expires}\t\t{hexadecimal}\tunknown\t/CN=x\n").as_bytes());
    let hashes = IssuerHashes::of(&authority.issuer.certificate);
    let nonce = [7; 16];
    let request = files.write(
        "request.der",
        &OcspRequest::to_der(&hashes, CertIdHash::Sha256, &[serial.as_bytes()], Some(&nonce)),
    );
    let response = files.path("response.der");
    let arguments = [
        "ocsp",
        "-index",
        text(&index),
        "-rsigner",
        text(&responder_path),
        "-rkey",
        text(&key),
        "-CA",
        text(&issuer),
        "-reqin",
        text(&request),
        "-respout",
        text(&response),
        "-ndays",
        "1",
        "-resp_key_id",
    ];
    let Some((answered, output)) = judge("openssl", &arguments) else { return };
    assert!(answered, "{output}");
    let der = std::fs::read(response).unwrap();
    let Ok(OcspResponse::Basic(basic)) = OcspResponse::from_der(&der) else { panic!("{output}") };
    let status = basic.verified_status(
        &authority.issuer.certificate,
        serial.as_bytes(),
        Some(&nonce),
        machine_now + Duration::from_secs(120),
    );
    assert_eq!(status, Ok(CertificateStatus::Good));
}

#[test]
fn gnutls_verifies_every_chain_and_obeys_the_list() {
    let machine_now = SystemClock.now();
    let authority = Authority::at(KeyAlgorithm::P256, machine_now);
    let files = Files::new();
    let root = files.certificates("root.pem", &[&authority.root.certificate]);
    for (name, leaf) in leaves(&authority) {
        let chain = files.certificates("chain.pem", &[&leaf.certificate, &authority.issuer.certificate]);
        let verify = |crl: Option<&Path>| {
            let mut arguments =
                vec!["--verify", "--load-ca-certificate", text(&root), "--infile", text(&chain)];
            if let Some(crl) = crl {
                arguments.extend(["--load-crl", text(crl)]);
            }
            judge("certtool", &arguments)
        };
        let Some((verified, output)) = verify(None) else { return };
        assert!(verified && output.contains("Verified"), "{name}: {output}");
        let crl = crl_of(&authority, &authority.issuer, &[leaf.certificate.tbs().serial()], machine_now);
        let crl = files.write("crl.pem", write_pem("X509 CRL", &crl).as_bytes());
        let Some((_, output)) = verify(Some(&crl)) else { return };
        assert!(output.contains("revoked"), "{name}: {output}");
    }
}

#[test]
fn rustls_webpki_accepts_workloads_and_refuses_the_revoked() {
    let authority = Authority::new(KeyAlgorithm::P256);
    let root_der = rustls_pki_types::CertificateDer::from(authority.root.certificate.der());
    let anchor = webpki::anchor_from_trusted_cert(&root_der).unwrap();
    let issuer_der = rustls_pki_types::CertificateDer::from(authority.issuer.certificate.der());
    let at = rustls_pki_types::UnixTime::since_unix_epoch(now().since(Timestamp::default()));
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    for (name, leaf) in leaves(&authority).into_iter().filter(|(name, _)| *name != "ocsp") {
        let der = rustls_pki_types::CertificateDer::from(leaf.certificate.der());
        let end_entity = webpki::EndEntityCert::try_from(&der).unwrap();
        let usage =
            if name == "server" { webpki::KeyUsage::server_auth() } else { webpki::KeyUsage::client_auth() };
        for revoked in [false, true] {
            let serials: &[&[u8]] = if revoked { &[leaf.certificate.tbs().serial()] } else { &[] };
            let crl_der = crl_of(&authority, &authority.issuer, serials, now());
            let crl = webpki::BorrowedCertRevocationList::from_der(&crl_der).unwrap().into();
            let crls = [&crl];
            let revocation = webpki::RevocationOptionsBuilder::new(&crls)
                .unwrap()
                .with_depth(webpki::RevocationCheckDepth::EndEntity)
                .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
                .build();
            let result = end_entity.verify_for_usage(
                algorithms,
                std::slice::from_ref(&anchor),
                std::slice::from_ref(&issuer_der),
                at,
                usage,
                Some(revocation),
                None,
            );
            match (revoked, result) {
                (false, result) => drop(result.unwrap_or_else(|error| panic!("{name}: {error}"))),
                (true, result) => assert_eq!(result.err(), Some(webpki::Error::CertRevoked), "{name}"),
            }
        }
    }
}

/// The two findings of pkilint that are its own mistake: it does not take an ID without a dot in its host, or
/// with any scheme it does not know, for a URI.
const FALSE_ALARMS: [&str; 2] = ["pkix.invalid_uri_syntax", "pkix.invalid_domain_name_syntax"];

#[test]
fn pkilint_finds_nothing() {
    let authority = Authority::new(KeyAlgorithm::P256);
    let files = Files::new();
    let complain = |program: &str, arguments: &[&str], subject: &str| {
        let Some((is_silent, output)) = judge(program, arguments) else { return };
        let is_alarmed = FALSE_ALARMS.iter().any(|alarm| output.contains(alarm));
        let found: Vec<&str> = output
            .lines()
            .filter(|line| {
                ["(ERROR)", "(FATAL)", "(WARNING)", "Traceback"].iter().any(|mark| line.contains(mark))
            })
            .filter(|line| !FALSE_ALARMS.iter().any(|alarm| line.contains(alarm)))
            .collect();
        assert!(found.is_empty() && (is_silent || is_alarmed), "{subject}: {output}");
    };
    let mut certificates = leaves(&authority);
    let responder = certificates.remove(5).1;
    certificates.push(("ocsp", responder));
    let mut all: Vec<(&str, &Certificate)> =
        certificates.iter().map(|(name, held)| (*name, &held.certificate)).collect();
    all.extend([("root", &authority.root.certificate), ("issuer", &authority.issuer.certificate)]);
    for (name, certificate) in all {
        let path = files.certificates(&format!("{name}.pem"), &[certificate]);
        complain("lint_pkix_cert", &["lint", "-s", "WARNING", text(&path)], name);
    }
    let crl = crl_of(&authority, &authority.issuer, &[serial(7).as_bytes()], now());
    assert!(CrlView::from_der(&crl).is_ok());
    let path = files.write("crl.pem", write_pem("X509 CRL", &crl).as_bytes());
    complain("lint_crl", &["lint", "-t", "CRL", "-p", "PKIX", "-s", "WARNING", text(&path)], "crl");

    let hashes = IssuerHashes::of(&authority.issuer.certificate);
    let request = OcspRequest::to_der(&hashes, CertIdHash::Sha256, &[serial(7).as_bytes()], Some(&[7; 32]));
    let request = OcspRequest::from_der(&request).unwrap();
    let responder = &certificates[5].1;
    for status in [
        CertificateStatus::Good,
        CertificateStatus::Revoked { at: now(), reason: RevocationReason::KeyCompromise },
    ] {
        let response = answer(&request, responder, status, now());
        let path = files.write("response.der", &response);
        complain("lint_ocsp_response", &["lint", "-s", "WARNING", text(&path)], "ocsp response");
    }
}

/// Why issuer.toml constrains neither URIs nor email addresses: should this test fail one day, it could.
#[test]
fn rustls_webpki_refuses_every_uri_and_email_below_an_issuer_that_constrains_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ca-config/profiles/issuer.toml");
    let shipped = std::fs::read_to_string(path).unwrap();
    for (form, name) in [("uri", "spiffe://example.org/operator/ada"), ("email", "email:ada@example.org")] {
        let constrained = shipped
            .replace("[authority.permitted]", &format!("[authority.permitted]\n{form} = [\"example.org\"]"));
        let authority = Authority::with_issuer_profile(KeyAlgorithm::P256, now(), &constrained);
        let leaf = authority.leaf(&profile("operator"), KeyAlgorithm::P256, &names(&[name]));
        let root_der = rustls_pki_types::CertificateDer::from(authority.root.certificate.der());
        let issuer_der = rustls_pki_types::CertificateDer::from(authority.issuer.certificate.der());
        let der = rustls_pki_types::CertificateDer::from(leaf.certificate.der());
        let end_entity = webpki::EndEntityCert::try_from(&der).unwrap();
        let (anchors, issuers) = ([webpki::anchor_from_trusted_cert(&root_der).unwrap()], [issuer_der]);
        let result = end_entity.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &issuers,
            rustls_pki_types::UnixTime::since_unix_epoch(now().since(Timestamp::default())),
            webpki::KeyUsage::client_auth(),
            None,
            None,
        );
        assert_eq!(result.err(), Some(webpki::Error::NameConstraintViolation), "{form}");
        let chain = [
            leaf.certificate.clone(),
            authority.issuer.certificate.clone(),
            authority.root.certificate.clone(),
        ];
        chancery_x509::check_chain(&chain).unwrap();
    }
}
