//! The judges. What one of them says of an exhibit that it should not says which exhibit, and what.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chancery_types::{Clock as _, SystemClock, Timestamp};
use chancery_x509::write_pem;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::exhibits::{Exhibit, Exhibits};
use crate::running::skipped;

/// Runs a judge; `None`, loudly, when it is not installed.
fn judge<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Option<(bool, String)> {
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(error) => {
            skipped("judges", &format!("{program} cannot be run: {error}"));
            None
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn openssl_verifies(exhibits: &Exhibits) {
    let (root, issuer) = (exhibits.root(), exhibits.issuer());
    for (number, list) in exhibits.lists.iter().enumerate() {
        let der = exhibits.write("list.der", list);
        let pem = exhibits.write(&format!("list-{number}.pem"), write_pem("X509 CRL", list).as_bytes());
        let arguments =
            ["crl", "-noout", "-text", "-inform", "DER", "-in", text(&der), "-CAfile", text(&issuer)];
        let Some((_, said)) = judge("openssl", &arguments) else { return };
        assert!(said.contains("verify OK") && said.contains("Version 2 (0x1)"), "{said}");
        assert_eq!(said.contains("Key Compromise"), number == 1, "{said}");
        for exhibit in &exhibits.certificates {
            let mut arguments =
                vec!["verify", "-x509_strict", "-CAfile", text(&root), "-untrusted", text(&issuer)];
            if !matches!(exhibit.profile, "issuer" | "root") {
                arguments.extend(["-crl_check", "-CRLfile", text(&pem)]);
            }
            arguments.push(text(&exhibit.path));
            let Some((verified, said)) = judge("openssl", &arguments) else { return };
            let is_revoked = number == 1 && exhibits.is_revoked(exhibit);
            assert_eq!(verified, !is_revoked, "{}: {said}", exhibit.name);
            assert_eq!(said.contains("certificate revoked"), is_revoked, "{}: {said}", exhibit.name);
        }
    }
    for (profile, purpose) in
        [("server", "sslserver"), ("client", "sslclient"), ("operator", "sslclient"), ("ocsp", "ocsphelper")]
    {
        let path = &exhibits.by_profile(profile).path;
        let arguments = [
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            text(&root),
            "-untrusted",
            text(&issuer),
            text(path),
        ];
        let Some((verified, said)) = judge("openssl", &arguments) else { return };
        assert!(verified, "{profile}: {said}");
    }
}

/// OpenSSL takes a list with issuingDistributionPoint only for certificates that name its URL byte for byte.
pub(crate) fn openssl_takes_each_part_for_its_own(exhibits: &Exhibits) {
    let (root, issuer) = (exhibits.root(), exhibits.issuer());
    for exhibit in exhibits.leaves().filter(|exhibit| exhibit.profile != "ocsp") {
        let (own, list) = exhibits.part_of(exhibit);
        let (_, other) = exhibits.parts.iter().find(|(url, _)| *url != own).unwrap();
        for (list, is_own) in [(list, true), (other, false)] {
            let pem = exhibits.write("part.pem", write_pem("X509 CRL", list).as_bytes());
            let arguments = [
                "verify",
                "-x509_strict",
                "-crl_check",
                "-CRLfile",
                text(&pem),
                "-CAfile",
                text(&root),
                "-untrusted",
                text(&issuer),
                text(&exhibit.path),
            ];
            let Some((verified, said)) = judge("openssl", &arguments) else { return };
            let is_revoked = is_own && exhibits.is_revoked(exhibit);
            assert_eq!(verified, is_own && !is_revoked, "{}: {said}", exhibit.name);
            assert_eq!(said.contains("certificate revoked"), is_revoked, "{}: {said}", exhibit.name);
            assert_eq!(said.contains("different CRL scope"), !is_own, "{}: {said}", exhibit.name);
        }
        // All lists together, as a directory of them would have it: the one that fits is found.
        let all: String = exhibits.parts.values().map(|list| write_pem("X509 CRL", list)).collect();
        let all = exhibits.write("parts.pem", all.as_bytes());
        let arguments = [
            "verify",
            "-crl_check",
            "-CRLfile",
            text(&all),
            "-CAfile",
            text(&root),
            "-untrusted",
            text(&issuer),
            text(&exhibit.path),
        ];
        let Some((verified, said)) = judge("openssl", &arguments) else { return };
        assert_eq!(verified, !exhibits.is_revoked(exhibit), "{}: {said}", exhibit.name);
    }
}

pub(crate) fn openssl_reads_ocsp(exhibits: &Exhibits) {
    let (root, issuer) = (exhibits.root(), exhibits.issuer());
    let url = format!("http://{}/ocsp", exhibits.running.server.status_address());
    let good = exhibits.certificates.iter().find(|exhibit| !exhibits.is_revoked(exhibit)).unwrap();
    let revoked = exhibits.certificates.iter().find(|exhibit| exhibits.is_revoked(exhibit)).unwrap();
    for (exhibit, expected) in [(good, ": good"), (revoked, ": revoked")] {
        for digest in ["-sha1", "-sha256"] {
            for nonce in ["-nonce", "-no_nonce"] {
                let name = format!("{}{digest}{nonce}.ocsp", expected.trim_start_matches(": "));
                let response = exhibits.file(&name);
                let arguments = [
                    "ocsp",
                    nonce,
                    digest,
                    "-issuer",
                    text(&issuer),
                    "-cert",
                    text(&exhibit.path),
                    "-url",
                    &url,
                    "-CAfile",
                    text(&root),
                    "-verify_other",
                    text(&issuer),
                    "-respout",
                    text(&response),
                    "-resp_text",
                ];
                let Some((_, said)) = judge("openssl", &arguments) else { return };
                assert!(said.contains("Response verify OK") && said.contains(expected), "{name}: {said}");
                assert_eq!(said.contains("OCSP Nonce"), nonce == "-nonce", "{name}: {said}");
                assert_eq!(said.contains("keyCompromise"), expected == ": revoked", "{name}: {said}");
            }
        }
    }
    // Of a serial that was never issued here the responder says nothing, by an unsigned answer.
    let arguments = [
        "ocsp",
        "-issuer",
        text(&issuer),
        "-serial",
        "0x1234567890abcdef",
        "-url",
        &url,
        "-CAfile",
        text(&root),
    ];
    let Some((_, said)) = judge("openssl", &arguments) else { return };
    assert!(said.contains("unauthorized"), "{said}");
}

pub(crate) fn gnutls_verifies(exhibits: &Exhibits) {
    let (root, issuer) = (exhibits.root(), exhibits.issuer());
    let list = exhibits.write("list.pem", write_pem("X509 CRL", &exhibits.lists[1]).as_bytes());
    let issuer_pem = std::fs::read(&issuer).unwrap();
    for exhibit in exhibits.leaves() {
        if exhibit.profile != "ocsp" {
            gnutls_verifies_with_its_part(exhibits, exhibit);
        }
        let chain = [std::fs::read(&exhibit.path).unwrap(), issuer_pem.clone()].concat();
        let chain = exhibits.write("chain.pem", &chain);
        let plain = ["--verify", "--load-ca-certificate", text(&root), "--infile", text(&chain)];
        let Some((verified, said)) = judge("certtool", &plain) else { return };
        assert!(verified && said.contains("Verified"), "{}: {said}", exhibit.name);
        let with_list = [&plain[..], &["--load-crl", text(&list)]].concat();
        let Some((_, said)) = judge("certtool", &with_list) else { return };
        let is_revoked = exhibits.is_revoked(exhibit);
        assert_eq!(said.contains("revoked"), is_revoked, "{}: {said}", exhibit.name);
    }
}

fn gnutls_verifies_with_its_part(exhibits: &Exhibits, exhibit: &Exhibit) {
    let (root, issuer) = (exhibits.root(), exhibits.issuer());
    let part = write_pem("X509 CRL", exhibits.part_of(exhibit).1);
    let part = exhibits.write("part.pem", part.as_bytes());
    let chain = [std::fs::read(&exhibit.path).unwrap(), std::fs::read(&issuer).unwrap()].concat();
    let chain = exhibits.write("chain.pem", &chain);
    let arguments = [
        "--verify",
        "--load-ca-certificate",
        text(&root),
        "--infile",
        text(&chain),
        "--load-crl",
        text(&part),
    ];
    let Some((_, said)) = judge("certtool", &arguments) else { return };
    assert_eq!(said.contains("revoked"), exhibits.is_revoked(exhibit), "{}: {said}", exhibit.name);
    let Some((read, said)) = judge("certtool", &["--crl-info", "--infile", text(&part)]) else { return };
    assert!(read && said.contains("Issuing Distribution Point") || said.contains("2.5.29.28"), "{said}");
}

pub(crate) fn webpki_verifies(exhibits: &Exhibits) {
    let der = |profile: &str| CertificateDer::from(exhibits.by_profile(profile).der.as_slice());
    let (root, issuer) = (der("root"), der("issuer"));
    let anchors = [webpki::anchor_from_trusted_cert(&root).unwrap()];
    let now = UnixTime::since_unix_epoch(SystemClock.now().since(Timestamp::default()));
    let full = webpki::BorrowedCertRevocationList::from_der(&exhibits.lists[1]).unwrap().into();
    let read = |der: &Vec<u8>| webpki::OwnedCertRevocationList::from_der(der).unwrap().into();
    let parts: Vec<webpki::CertRevocationList<'_>> = exhibits.parts.values().map(read).collect();
    let all: Vec<&webpki::CertRevocationList<'_>> = parts.iter().collect();
    let leaves = || exhibits.leaves().filter(|exhibit| exhibit.profile != "ocsp");
    let cases = leaves().map(|exhibit| (exhibit, vec![&full]));
    for (exhibit, lists) in cases.chain(leaves().map(|exhibit| (exhibit, all.clone()))) {
        let der = CertificateDer::from(exhibit.der.as_slice());
        let leaf = webpki::EndEntityCert::try_from(&der).unwrap();
        let usage = match exhibit.profile {
            "server" => webpki::KeyUsage::server_auth(),
            _ => webpki::KeyUsage::client_auth(),
        };
        let revocation = webpki::RevocationOptionsBuilder::new(&lists)
            .unwrap()
            .with_depth(webpki::RevocationCheckDepth::EndEntity)
            .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
            .build();
        let issuers = std::slice::from_ref(&issuer);
        let result = leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            issuers,
            now,
            usage,
            Some(revocation),
            None,
        );
        if exhibits.is_revoked(exhibit) {
            assert_eq!(result.err(), Some(webpki::Error::CertRevoked), "{}", exhibit.name);
        } else {
            result.unwrap_or_else(|error| panic!("{}: {error}", exhibit.name));
        }
    }
}

/// Findings of pkilint that are its own mistakes: it takes neither a URI with a scheme that it does not know
/// (`spiffe:`) nor a DNS name without a dot (`localhost`, RFC 1034 section 3.5 allows it) for one.
const FALSE_ALARMS: [&str; 2] = ["pkix.invalid_uri_syntax", "pkix.invalid_domain_name_syntax"];

/// Runs pkilint's programs once for all files: starting one takes longer than all of its work.
const PKILINT: &str = r"
import contextlib, importlib, io, sys
for line in sys.stdin:
    program, *arguments = line.split()
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = importlib.import_module('pkilint.bin.' + program).main(arguments)
    print('==', code, arguments[-1])
    print(said.getvalue())
";

pub(crate) fn pkilint_finds_no_error(exhibits: &Exhibits) {
    let mut tasks = String::new();
    let mut count = 0;
    let mut add = |task: &str, path: &PathBuf| {
        tasks.push_str(&format!("{task} {}\n", text(path)));
        count += 1;
    };
    for exhibit in &exhibits.certificates {
        add("lint_pkix_cert lint -s ERROR", &exhibit.path);
    }
    for number in 0..exhibits.lists.len() {
        add("lint_crl lint -t CRL -p PKIX -s ERROR", &exhibits.file(&format!("list-{number}.pem")));
    }
    for (number, exhibit) in exhibits.leaves().filter(|exhibit| exhibit.profile != "ocsp").enumerate().take(3)
    {
        let part = write_pem("X509 CRL", exhibits.part_of(exhibit).1);
        let part = exhibits.write(&format!("part-{number}.pem"), part.as_bytes());
        add("lint_crl lint -t CRL -p PKIX -s ERROR", &part);
    }
    for name in ["good-sha1-nonce", "good-sha256-no_nonce", "revoked-sha1-no_nonce", "revoked-sha256-nonce"] {
        let path = exhibits.file(&format!("{name}.ocsp"));
        if path.exists() {
            add("lint_ocsp_response lint -s ERROR", &path);
        }
    }
    // scripts/test installs it in a directory of its own.
    let python = std::env::var("CHANCERY_TEST_PKILINT").unwrap_or_else(|_| "python3".into());
    let mut python = match Command::new(python)
        .args(["-c", PKILINT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(python) => python,
        Err(error) => return skipped("judges", &format!("Python cannot be run: {error}")),
    };
    // Without pkilint it ends before it has read them.
    let _ = python.stdin.take().unwrap().write_all(tasks.as_bytes());
    let output = python.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    if complaints.contains("No module named 'pkilint'") {
        return skipped("judges", "pkilint is not installed (pip install pkilint)");
    }
    assert!(output.status.success(), "{complaints}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.lines().filter(|line| line.starts_with("== ")).count(), count, "{said}");
    let mut exhibit = "";
    for line in said.lines() {
        exhibit = line.strip_prefix("== ").unwrap_or(exhibit);
        let is_serious = ["(ERROR)", "(FATAL)", "Failed to load"].iter().any(|mark| line.contains(mark));
        let is_false = FALSE_ALARMS.iter().any(|alarm| line.contains(alarm));
        assert!(!is_serious || is_false, "{exhibit}: {line}");
    }
}
