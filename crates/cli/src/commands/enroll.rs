//! `chancery enroll`: the first certificate of a workload, from evidence to files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chancery_api::{
    Base64Bytes, CertificateDer, CsrDer, EnrollRequest, EnrollResponse, Evidence, enrollment_message,
};
use chancery_client::Client;
use chancery_types::{Digest, HumanDuration, KeyAlgorithm, SecretString, SubjectName};
use chancery_x509::{CertificateRequest, DistinguishedName, SubjectKey, read_certificates};
use clap::{ArgGroup, Args};

use crate::commands::verify::ReceiptFile;
use crate::connection::{IdentityFiles, Reach};
use crate::credential::{CredentialFiles, Pending, Recovered};
use crate::failure::usage;
use crate::files::{self, MAX_PEM};
use crate::flags::Globals;
use crate::place::{self, Place};
use crate::subject;
use crate::terminal::{Terminal, Tone};

/// Gets the first certificate of a workload: shows evidence, proves possession of a key, writes the result.
///
/// Interrupted, it is simply run again: the same request is repeated, and the same certificate comes back.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Enroll {
    #[command(flatten)]
    evidence: EvidenceFlags,
    #[command(flatten)]
    wish: WishFlags,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Evidence")]
#[command(group = ArgGroup::new("evidence").required(true).args(["token", "token_file", "x509_pop_cert"]))]
struct EvidenceFlags {
    /// The join token. Other users can see it in the list of processes: prefer --token-file.
    #[arg(long, env = "CHANCERY_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file whose first line is the join token; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A certificate of a foreign authority that this one is configured to trust, with its issuers.
    #[arg(long, value_name = "FILE", requires = "x509_pop_key")]
    x509_pop_cert: Option<PathBuf>,
    /// Its key, which signs a nonce.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token", "token_file"])]
    x509_pop_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What is asked for")]
struct WishFlags {
    /// The identity that is meant, when the evidence matches several.
    #[arg(long, value_name = "ID")]
    identity: Option<String>,
    /// The profile; the identity's first one if absent.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// A lifetime shorter than the profile's, such as 15m.
    #[arg(long, value_name = "DURATION")]
    lifetime: Option<HumanDuration>,
    /// A name to narrow the certificate to, such as dns:web.example.org; repeatable.
    #[arg(long = "name", value_name = "KIND:NAME")]
    names: Vec<SubjectName>,
    /// An existing key, PKCS #8 PEM; without it a new one is made.
    #[arg(long, value_name = "FILE", conflicts_with = "key_type")]
    key: Option<PathBuf>,
    /// The kind of key to make: p256, p384 or ed25519.
    #[arg(long, value_name = "TYPE", default_value_t)]
    key_type: KeyAlgorithm,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What is written")]
struct OutputFlags {
    /// A directory for tls.crt, tls.key and ca.crt; made if need be.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The certificate with its issuers.
    #[arg(long, value_name = "FILE")]
    cert_out: Option<PathBuf>,
    /// The new key, readable by its owner alone.
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    key_out: Option<PathBuf>,
    /// The roots.
    #[arg(long, value_name = "FILE")]
    bundle_out: Option<PathBuf>,
    /// The proof that the certificate stands in the log, for `chancery verify`.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

/// What an enrolment shows.
#[derive(Debug)]
enum Proof {
    Token(SecretString),
    ForeignCertificate { chain: Vec<CertificateDer>, key: Box<SubjectKey> },
}

impl Enroll {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let proof = self.evidence.meaning()?;
        let files = self.output.meaning(self.wish.key.as_deref())?;
        let identity =
            self.wish.identity.as_deref().map(|text| place::identity(text, place.as_ref())).transpose()?;
        let reach = match &proof {
            Proof::Token(token) => self.reach.with_fingerprint(subject::fingerprint_in(token)),
            Proof::ForeignCertificate { .. } => self.reach.clone(),
        };
        make_directories(&files)?;
        if files.recover()? == Recovered::Finished {
            terminal
                .note("an earlier enrolment was interrupted after its certificate came; it is in place now");
            return Ok(());
        }
        let client = reach.open(place.as_ref(), None).await?;
        let (key, pending) = self.request(&files, &proof, &client)?;
        let request = EnrollRequest {
            csr: pending.csr.clone(),
            evidence: proof.evidence(&client, &pending.csr).await?,
            profile: self.wish.profile.clone(),
            identity,
            lifetime: self.wish.lifetime,
            receipt: false,
        };
        let answer = match client.enroll(&request, &pending.idempotency).await {
            Ok(answer) => answer,
            Err(error) => return Err(files.refused(error)),
        };
        let bundle = match &files.bundle {
            Some(_) => Some(client.bundle().await?),
            None => None,
        };
        files.install(&format!("{}{}", answer.certificate, answer.chain), &key, bundle.as_deref())?;
        if let Some(path) = &self.output.receipt {
            write_receipt(path, &reach, place.as_ref(), &files, &answer).await?;
        }
        report(terminal, &answer, &files)
    }

    /// The key and the request: those of an interrupted run, or new ones.
    fn request(
        &self,
        files: &CredentialFiles,
        proof: &Proof,
        client: &Client,
    ) -> Result<(SubjectKey, Pending)> {
        let wish = self.wish.text(proof);
        // A proof with a nonce is another request each time.
        if matches!(proof, Proof::Token(_))
            && let Some(resumed) = files.resume(&wish)
        {
            return Ok(resumed);
        }
        let key = match &self.wish.key {
            Some(path) => subject::private_key(path)?,
            None => subject::new_key(self.wish.key_type)?,
        };
        let csr = key.request(&DistinguishedName::empty(), &self.wish.names)?;
        let idempotency = client.new_idempotency_key()?;
        let pending = files.prepare(&key, self.wish.key.is_none(), csr, &wish, idempotency)?;
        Ok((key, pending))
    }
}

impl EvidenceFlags {
    fn meaning(&self) -> Result<Proof> {
        if let Some(token) = &self.token {
            return Ok(Proof::Token(SecretString::new(token.trim().to_owned())));
        }
        if let Some(path) = &self.token_file {
            return Ok(Proof::Token(SecretString::new(files::read_secret_line(path)?.trim().to_owned())));
        }
        let (Some(certificate), Some(key)) = (&self.x509_pop_cert, &self.x509_pop_key) else {
            return Err(usage("show evidence: --token-file FILE, or --x509-pop-cert and --x509-pop-key"));
        };
        let pem = files::read(certificate, MAX_PEM)?;
        let chain = read_certificates(&pem, chancery_api::limits::CHAIN_CERTIFICATES)
            .with_context(|| certificate.display().to_string())?;
        let chain = chain.into_iter().map(CertificateDer::from_der).collect();
        Ok(Proof::ForeignCertificate { chain, key: Box::new(subject::private_key(key)?) })
    }
}

impl Proof {
    async fn evidence(&self, client: &Client, csr: &CsrDer) -> Result<Evidence> {
        match self {
            Self::Token(token) => Ok(Evidence::JoinToken { token: token.clone() }),
            Self::ForeignCertificate { chain, key } => {
                let nonce = client.nonce().await?.nonce;
                let request = CertificateRequest::from_der(csr.as_der())?;
                let asked_for = Digest::of(request.public_key().spki_der());
                let message = enrollment_message(&nonce.0, &subject::trust_domain(client).await?, &asked_for);
                let signature = Base64Bytes(key.sign(&message)?);
                Ok(Evidence::X509Pop { chain: chain.clone(), nonce, signature })
            }
        }
    }
}

impl WishFlags {
    /// What makes two requests the same; a secret only by its digest.
    fn text(&self, proof: &Proof) -> String {
        let evidence = match proof {
            Proof::Token(token) => Digest::of(token.expose_secret().as_bytes()).to_string(),
            Proof::ForeignCertificate { .. } => "x509-pop".to_owned(),
        };
        format!(
            "enroll {evidence} {:?} {:?} {:?} {:?}",
            self.identity, self.profile, self.lifetime, self.names
        )
    }
}

impl OutputFlags {
    fn meaning(&self, key: Option<&Path>) -> Result<CredentialFiles> {
        let within = |name: &str| self.out.as_ref().map(|directory| directory.join(name));
        let certificate = self.cert_out.clone().or_else(|| within("tls.crt")).ok_or_else(|| {
            usage("say where the certificate goes: --out DIR, or --cert-out FILE and --key-out FILE")
        })?;
        let key = key
            .map(Path::to_owned)
            .or_else(|| self.key_out.clone())
            .or_else(|| within("tls.key"))
            .ok_or_else(|| {
                usage("say where the new key goes: --key-out FILE, or bring a key with --key FILE")
            })?;
        Ok(CredentialFiles { certificate, key, bundle: self.bundle_out.clone().or_else(|| within("ca.crt")) })
    }
}

/// Prints what was issued, and what was not.
pub(crate) fn report(terminal: &Terminal, answer: &EnrollResponse, files: &CredentialFiles) -> Result<()> {
    terminal.data(answer, || {
        terminal.fields([
            ("identity", answer.spiffe_id.to_string()),
            ("serial", answer.serial.to_string()),
            ("profile", answer.profile.clone()),
            ("valid until", answer.not_after.whole_second().to_string()),
            ("renew from", answer.renew_after.start.whole_second().to_string()),
            ("lineage", format!("{} generation {}", answer.lineage, answer.generation)),
            ("assurance", answer.assurance.to_string()),
            ("log entry", answer.log_index.to_string()),
            ("certificate", files.certificate.display().to_string()),
            ("key", files.key.display().to_string()),
            ("roots", files.bundle.as_ref().map(|path| path.display().to_string()).unwrap_or_default()),
        ])
    })?;
    for reduction in &answer.reduced {
        terminal.warn(format_args!(
            "{}: asked {}, granted {}, because of {}",
            terminal.paint(Tone::Warning, &reduction.what),
            reduction.asked,
            reduction.granted,
            reduction.because
        ));
    }
    for ignored in &answer.ignored {
        terminal.note(format_args!("left out: {}: {}", ignored.what, ignored.because));
    }
    Ok(())
}

/// Fetches the proof as the new certificate's holder, and keeps it with the entry that it is about.
pub(crate) async fn write_receipt(
    path: &Path,
    reach: &Reach,
    place: Option<&Place>,
    files: &CredentialFiles,
    answer: &EnrollResponse,
) -> Result<()> {
    let holder = IdentityFiles { certificate: files.certificate.clone(), key: files.key.clone() };
    let proof = reach.open(place, Some(holder)).await?.log_proof(answer.serial).await?;
    files::replace(path, ReceiptFile::of(&proof)?.text().as_bytes(), files::PUBLIC)
}

fn make_directories(files: &CredentialFiles) -> Result<()> {
    for path in [Some(&files.certificate), Some(&files.key), files.bundle.as_ref()].into_iter().flatten() {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
    }
    Ok(())
}

const EXAMPLES: &str = "\
Examples:
  chancery enroll --server https://ca.example.org:8443 --token-file join.token --out /run/web
  chancery enroll --server https://ca.example.org:8443 --trust-bundle roots.pem \\
      --x509-pop-cert machine.crt --x509-pop-key machine.key --out /run/web";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Cli, Command};

    fn parse(arguments: &[&str]) -> Result<Enroll, clap::Error> {
        let line = ["chancery", "enroll"].iter().chain(arguments);
        Cli::try_parse_from(line).map(|cli| match cli.command {
            Command::Enroll(enroll) => enroll,
            _ => panic!("not an enrolment"),
        })
    }

    #[test]
    fn evidence_is_required_and_of_one_kind() {
        assert!(parse(&["--out", "d"]).is_err());
        assert!(parse(&["--out", "d", "--token", "t", "--token-file", "f"]).is_err());
        assert!(parse(&["--out", "d", "--x509-pop-cert", "c"]).is_err());
        assert!(parse(&["--out", "d", "--x509-pop-cert", "c", "--x509-pop-key", "k"]).is_ok());
    }

    #[test]
    fn a_directory_names_all_files_and_single_flags_go_over_it() {
        let meaning = |flags: &[&str]| {
            let enroll = parse(flags).unwrap();
            enroll.output.meaning(enroll.wish.key.as_deref())
        };
        let files = meaning(&["--token", "t", "--out", "d", "--key-out", "k.pem"]).unwrap();
        assert_eq!(files.certificate, Path::new("d/tls.crt"));
        assert_eq!(files.key, Path::new("k.pem"));
        assert_eq!(files.bundle.as_deref(), Some(Path::new("d/ca.crt")));
        let own = meaning(&["--token", "t", "--cert-out", "c.pem", "--key", "mine.pem"]).unwrap();
        assert_eq!((own.key.as_path(), own.bundle), (Path::new("mine.pem"), None));
        assert!(meaning(&["--token", "t"]).unwrap_err().to_string().contains("--out DIR"));
        assert!(meaning(&["--token", "t", "--cert-out", "c"]).unwrap_err().to_string().contains("--key-out"));
    }

    #[test]
    fn another_wish_is_another_request_and_the_token_is_not_in_it() {
        let text = |flags: &[&str]| {
            let enroll = parse(flags).unwrap();
            enroll.wish.text(&enroll.evidence.meaning().unwrap())
        };
        let one = text(&["--token", "s3cret", "--out", "d"]);
        assert_eq!(one, text(&["--token", "s3cret", "--out", "e"]));
        assert_ne!(one, text(&["--token", "s3cret", "--out", "d", "--lifetime", "15m"]));
        assert_ne!(one, text(&["--token", "other", "--out", "d"]));
        assert!(!one.contains("s3cret"));
    }
}
