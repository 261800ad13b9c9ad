//! `chancery init`: an authority comes into the world.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chancery_types::{KeyAlgorithm, Random as _, SecretString, SystemRandom, TrustDomain};
use chancery_x509::{Certificate, read_certificates};
use clap::Args;
use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use zeroize::Zeroizing;

use super::database::DatabaseFlags;
use crate::authority_side::{self, Made, Name, Plan};
use crate::failure::usage;
use crate::files::{self, MAX_PEM};
use crate::flags::Globals;
use crate::terminal::{Terminal, Tone};
use crate::{ask, place};

/// Makes an authority: a root in a directory of its own, an issuer under it, keys, configuration, ledger, and the
/// first operator's certificate. Asks what it is not told; with --yes it takes the defaults.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Init {
    /// Where the authority lives.
    #[arg(long, value_name = "DIR", default_value = "chancery")]
    dir: PathBuf,
    /// The trust domain, such as example.org: the first part of every SPIFFE ID.
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<TrustDomain>,
    /// A DNS name or address that clients reach the server under; repeatable, the first stands in URLs.
    #[arg(long = "name", value_name = "NAME", value_parser = Name::parse)]
    names: Vec<Name>,
    /// The kind of the keys of root and issuer: p256, p384, ed25519, rsa2048, rsa3072 or rsa4096.
    #[arg(long, value_name = "TYPE")]
    key_type: Option<KeyAlgorithm>,
    /// Where the issuing key lives: file, or a pkcs11: URI of a token.
    #[arg(long, value_name = "PLACE", value_parser = Keys::parse)]
    keys: Option<Keys>,
    /// Where the root is made: a directory that is carried away. DIR-root beside DIR if absent.
    #[arg(long, value_name = "DIR")]
    root_dir: Option<PathBuf>,
    /// A file whose first line is the passphrase for the root's key.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Where the API listens.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Where status (CRL, OCSP, CA certificates) is served over plain HTTP.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    status_listen: SocketAddr,
    /// Issuers in reserve that the root signs at once: each signs for a month, and until they are used up rotation
    /// needs nobody.
    #[arg(long, value_name = "COUNT", default_value_t = 6, value_parser = clap::value_parser!(u16).range(0..=60))]
    spares: u16,
    /// The https:// URL under which others reach the API, where a balancer stands before it.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The http:// URL that certificates name for their status, likewise.
    #[arg(long, value_name = "URL")]
    status_url: Option<String>,
    #[command(flatten)]
    database: DatabaseFlags,
    /// Ask nothing.
    #[arg(short, long)]
    yes: bool,
    /// Stop after the issuer's request: the root is on another machine, or is somebody else's.
    #[arg(long, conflicts_with_all = ["root_dir", "passphrase_file", "import"])]
    issuer_csr: bool,
    /// Finish with the issuer's certificate that the root signed.
    #[arg(long, value_name = "FILE", requires = "root_certificate")]
    import: Option<PathBuf>,
    /// The root's certificate, and whatever lies between it and the issuer.
    #[arg(long, value_name = "FILE", requires = "import")]
    root_certificate: Option<PathBuf>,
}

/// Where the issuing key lives.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Keys {
    /// In encrypted files of the authority's directory.
    Files,
    /// In a token behind PKCS#11.
    Token(String),
}

/// A new passphrase, and where it came from.
#[derive(Debug)]
pub(crate) enum Passphrase {
    /// From a file or a prompt.
    Given(SecretString),
    /// Made here: it has to be printed, this once.
    Generated(SecretString),
}

impl Init {
    pub(crate) async fn run(&self, _globals: &Globals, terminal: &Terminal) -> Result<()> {
        if let (Some(issuer), Some(root)) = (&self.import, &self.root_certificate) {
            return self.import(issuer, root, terminal).await;
        }
        // Before any question: it never runs twice.
        let config = self.dir.join("chancery.toml");
        if config.exists() {
            return Err(usage(format!(
                "{} holds an authority already, and init never overwrites one; choose another --dir",
                self.dir.display()
            )));
        }
        let may_ask = !self.yes && ask::can_ask();
        let plan = self.plan(may_ask)?;
        if self.issuer_csr {
            return self.prepare(&plan, terminal);
        }
        let root_directory =
            plan.root_directory.clone().context("a root that is made here has a directory")?;
        let passphrase = new_passphrase(self.passphrase_file.as_deref(), may_ask)?;
        let made = authority_side::init(&plan, &root_directory, passphrase.secret()).await?;
        if self.spares > 0 {
            authority_side::add_spares(&made.config, &root_directory, passphrase.secret(), self.spares)?;
        }
        report(terminal, &made, Some(&root_directory), &passphrase)
    }

    /// Everything that was told, asked or left to its default.
    fn plan(&self, may_ask: bool) -> Result<Plan> {
        let trust_domain = match &self.trust_domain {
            Some(domain) => domain.clone(),
            None if may_ask => ask::ask("Trust domain, such as example.org", "", |text| {
                TrustDomain::parse(text).map_err(|error| error.to_string())
            })?,
            None => return Err(usage("say which trust domain with --trust-domain, such as example.org")),
        };
        let names = if !self.names.is_empty() {
            self.names.clone()
        } else if may_ask {
            ask::ask("Names and addresses of the server, with commas", DEFAULT_NAMES, parse_names)?
        } else {
            parse_names(DEFAULT_NAMES).map_err(usage)?
        };
        let default = KeyAlgorithm::default();
        let algorithm = match self.key_type {
            Some(algorithm) => algorithm,
            None if may_ask => ask::ask("Kind of keys", default.as_str(), |text| {
                text.parse().map_err(|error: chancery_types::UnknownAlgorithm| error.to_string())
            })?,
            None => default,
        };
        let keys = match &self.keys {
            Some(keys) => keys.clone(),
            None if may_ask => {
                ask::ask("Where the issuing key lives (file, or a pkcs11: URI)", "file", Keys::parse)?
            }
            None => Keys::Files,
        };
        let root_directory = match (&self.root_dir, self.issuer_csr) {
            (_, true) => None,
            (Some(directory), false) => Some(directory.clone()),
            (None, false) => {
                let beside = root_beside(&self.dir)?;
                let shown = beside.display().to_string();
                let directory = if may_ask {
                    ask::ask("Directory of the root", &shown, |text| Ok(PathBuf::from(text)))?
                } else {
                    beside
                };
                Some(directory)
            }
        };
        if let Some(root) = &root_directory
            && std::path::absolute(root)?.starts_with(std::path::absolute(&self.dir)?)
        {
            return Err(usage(format!(
                "the root must not lie within {}: it is carried away; choose another --root-dir",
                self.dir.display()
            )));
        }
        Ok(Plan {
            directory: self.dir.clone(),
            trust_domain,
            names,
            algorithm,
            token: match keys {
                Keys::Files => None,
                Keys::Token(uri) => Some(uri),
            },
            api: self.listen,
            status: self.status_listen,
            url: self.url.clone(),
            status_url: self.status_url.clone(),
            database: self.database.chosen()?,
            root_directory,
        })
    }

    fn prepare(&self, plan: &Plan, terminal: &Terminal) -> Result<()> {
        let request = authority_side::prepare(plan)?;
        let data = json!({ "issuer_csr": request, "directory": self.dir });
        terminal.data(&data, || terminal.fields([("issuer request", request.display().to_string())]))?;
        if !terminal.is_json() {
            terminal.note(format_args!(
                "\nNext, where the root is:\n  chancery root sign {} --root-dir DIR --out issuer.crt\nThen, here:\n  \
                 chancery init --dir {} --import issuer.crt --root-certificate root.crt",
                request.display(),
                self.dir.display()
            ));
        }
        Ok(())
    }

    async fn import(&self, issuer: &Path, root: &Path, terminal: &Terminal) -> Result<()> {
        let issuer = read_certificates(&files::read(issuer, MAX_PEM)?, 16)
            .with_context(|| issuer.display().to_string())?;
        let above = read_certificates(&files::read(root, MAX_PEM)?, 16)
            .with_context(|| root.display().to_string())?;
        let first = issuer.first().context("no issuer certificate")?;
        let roots = root_first(above)?;
        let made = authority_side::finish(&self.dir, first, &roots).await?;
        report(terminal, &made, None, &Passphrase::Given(SecretString::new(String::new())))
    }
}

impl Keys {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "file" | "files" => Ok(Self::Files),
            uri if uri.starts_with("pkcs11:") => Ok(Self::Token(uri.trim_end_matches(';').to_owned())),
            _ => Err("say file, or a pkcs11: URI such as pkcs11:token=ca?module-path=...".to_owned()),
        }
    }
}

impl Passphrase {
    /// The passphrase itself.
    pub(crate) fn secret(&self) -> &SecretString {
        match self {
            Self::Given(secret) | Self::Generated(secret) => secret,
        }
    }
}

/// The passphrase for a new root: from the file, asked for twice, or made.
pub(crate) fn new_passphrase(file: Option<&Path>, may_ask: bool) -> Result<Passphrase> {
    if let Some(path) = file {
        return Ok(Passphrase::Given(SecretString::new(files::read_secret_line(path)?.to_string())));
    }
    if may_ask && let Some(secret) = ask::new_passphrase("the root's key")? {
        return Ok(Passphrase::Given(secret));
    }
    let mut bytes = Zeroizing::new([0_u8; PASSPHRASE_BYTES]);
    SystemRandom.fill(bytes.as_mut())?;
    Ok(Passphrase::Generated(SecretString::new(BASE64URL_NOPAD.encode(bytes.as_ref()))))
}

/// `DIR-root` beside `DIR`.
fn root_beside(directory: &Path) -> Result<PathBuf> {
    let whole = std::path::absolute(directory)?;
    let name = whole.file_name().context("the root of the file system holds no authority")?;
    let mut beside = name.to_owned();
    beside.push("-root");
    if directory.file_name() == Some(name) {
        Ok(directory.with_file_name(beside))
    } else {
        Ok(whole.with_file_name(beside))
    }
}

fn parse_names(text: &str) -> Result<Vec<Name>, String> {
    text.split([',', ' ']).filter(|part| !part.is_empty()).map(Name::parse).collect()
}

/// Puts the self-signed certificate first, as a bundle may have it last.
fn root_first(mut certificates: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    let is_root = |der: &Vec<u8>| {
        Certificate::from_der(der)
            .is_ok_and(|certificate| certificate.tbs().issuer_der() == certificate.tbs().subject_der())
    };
    let place = certificates
        .iter()
        .position(is_root)
        .context("--root-certificate holds no self-signed root; append it to the intermediates")?;
    if place > 0 && place == certificates.len() - 1 {
        certificates.reverse();
    }
    Ok(certificates)
}

fn report(
    terminal: &Terminal,
    made: &Made,
    root_directory: Option<&Path>,
    passphrase: &Passphrase,
) -> Result<()> {
    let generated = match passphrase {
        Passphrase::Generated(secret) => Some(secret.expose_secret()),
        Passphrase::Given(_) => None,
    };
    let data = json!({
        "config": made.config, "root_fingerprint": made.root_fingerprint, "root_directory": root_directory,
        "operator_certificate": made.operator_certificate, "operator_key": made.operator_key,
        "root_passphrase": generated,
    });
    terminal.data(&data, || {
        terminal.fields([
            ("configuration", made.config.display().to_string()),
            ("root", root_directory.map(|path| path.display().to_string()).unwrap_or_default()),
            ("root fingerprint", terminal.paint(Tone::Strong, made.root_fingerprint)),
            ("first operator", made.operator_certificate.display().to_string()),
            ("root passphrase", generated.unwrap_or_default().to_owned()),
        ])
    })?;
    if terminal.is_json() {
        return Ok(());
    }
    if generated.is_some() {
        terminal.warn("\nThe passphrase is shown this once: write it down, away from the root.");
    }
    advise(terminal, made, root_directory);
    Ok(())
}

fn advise(terminal: &Terminal, made: &Made, root_directory: Option<&Path>) {
    let config =
        if is_at_hand(&made.config) { String::new() } else { format!(" --config {}", made.config.display()) };
    match root_directory {
        Some(root) => terminal.note(format_args!(
            "\nNext: carry {} away (root.crt is kept here too), then\n  chancery serve{config}\nOn a laptop that \
             matters to nobody, leave it and\n  chancery serve{config} --allow-online-root",
            root.display()
        )),
        None => terminal.note(format_args!("\nNext:\n  chancery serve{config}")),
    }
}

/// Whether the configuration is found without being named.
fn is_at_hand(config: &Path) -> bool {
    let found = place::locate(None).ok().flatten().and_then(|path| std::path::absolute(path).ok());
    found.is_some() && found == std::path::absolute(config).ok()
}

/// What clients on the same machine reach the server under.
const DEFAULT_NAMES: &str = "localhost,127.0.0.1";
/// Random bytes of a generated passphrase: 192 bits.
const PASSPHRASE_BYTES: usize = 24;

const EXAMPLES: &str = "\
Examples:
  chancery init
  chancery init --yes --trust-domain example.org --name ca.example.org --listen 0.0.0.0:8443
  chancery init --yes --trust-domain example.org --issuer-csr   # the root is elsewhere
  chancery init --import issuer.crt --root-certificate root.crt # ... and has signed";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Cli, Command};

    fn parse(arguments: &[&str]) -> Result<Init, clap::Error> {
        let line = ["chancery", "init"].iter().chain(arguments);
        Cli::try_parse_from(line).map(|cli| match cli.command {
            Command::Init(init) => init,
            _ => panic!("not an init"),
        })
    }

    fn plan(arguments: &[&str]) -> Result<Plan> {
        parse(arguments).unwrap().plan(false)
    }

    #[test]
    fn without_questions_only_the_trust_domain_must_be_told() {
        assert!(plan(&["--yes"]).unwrap_err().to_string().contains("--trust-domain"));
        let plan = plan(&["--yes", "--trust-domain", "example.org"]).unwrap();
        let names: Vec<String> = plan.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["localhost", "127.0.0.1"]);
        assert_eq!(plan.algorithm, KeyAlgorithm::P256);
        assert_eq!(plan.root_directory.as_deref(), Some(Path::new("chancery-root")));
        assert_eq!((plan.token, plan.api.port()), (None, 8443));
    }

    #[test]
    fn the_root_lies_beside_the_authority_and_never_within() {
        assert_eq!(root_beside(Path::new("/srv/ca")).unwrap(), Path::new("/srv/ca-root"));
        assert!(root_beside(Path::new("/")).is_err());
        let refused = plan(&["--trust-domain", "e", "--dir", "ca", "--root-dir", "ca/root"]).unwrap_err();
        assert!(refused.to_string().contains("within ca"), "{refused}");
    }

    #[test]
    fn two_steps_leave_the_root_to_another_machine() {
        assert_eq!(plan(&["--trust-domain", "e", "--issuer-csr"]).unwrap().root_directory, None);
        assert!(parse(&["--issuer-csr", "--root-dir", "d"]).is_err());
        assert!(parse(&["--import", "issuer.crt"]).is_err());
        assert!(parse(&["--import", "issuer.crt", "--root-certificate", "root.crt"]).is_ok());
    }

    #[test]
    fn keys_live_in_files_or_in_a_token() {
        let token = plan(&["--trust-domain", "e", "--keys", "pkcs11:token=ca;"]).unwrap().token;
        assert_eq!(token.as_deref(), Some("pkcs11:token=ca"));
        assert!(parse(&["--keys", "cloud"]).unwrap_err().to_string().contains("pkcs11:"));
    }

    #[test]
    fn a_generated_passphrase_is_long_and_new_each_time() {
        let one = new_passphrase(None, false).unwrap();
        let two = new_passphrase(None, false).unwrap();
        assert!(matches!(one, Passphrase::Generated(_)));
        assert_eq!(one.secret().expose_secret().len(), 32);
        assert_ne!(one.secret().expose_secret(), two.secret().expose_secret());
    }
}
