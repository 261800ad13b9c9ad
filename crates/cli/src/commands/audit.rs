//! `chancery audit`: the log taken away and verified by somebody who trusts nobody.

use std::fs::File;
use std::io::{self, BufReader, Seek as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chancery_api::AuditExportQuery;
use chancery_client::{ByteStream, Client};
use chancery_types::{Clock as _, Digest, SerialNumber, SystemClock, Timestamp};
use chancery_verify::audit::{
    AuditOptions, AuditReport, Directory, ExportSource, JsonLines, Severity, audit,
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::commands::verify::{ReceiptFile, log_key};
use crate::connection::Connection;
use crate::export::{Converter, Form, Seen};
use crate::failure::{usage, verification};
use crate::files::{self, Staged};
use crate::flags::Globals;
use crate::place::{self, Place};
use crate::terminal::{Terminal, Tone};

/// Exports the log and verifies it.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Export the log, or a part of it.
    Export(Export),
    /// Verify an export, offline: nothing missing, nothing altered, nothing unlogged.
    Verify(Verify),
    /// Fetch a certificate and the proof that it stands in the log.
    Prove(Prove),
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Only entries from this moment on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only entries before this moment (RFC 3339).
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Only entries about this identity.
    #[arg(long, value_name = "ID")]
    identity: Option<String>,
    /// Only entries about this owner's identities.
    #[arg(long)]
    owner: Option<String>,
    /// The form. Only jsonl can be audited; the others are tables.
    #[arg(long, value_enum, default_value_t)]
    format: Form,
    /// A file, a directory to put one into, or - for standard output.
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// An export: a file, a directory in the static layout, or the URL of a server.
    source: String,
    /// The checkpoint that was kept the last time: the log must extend it.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The log's key, or a file that holds it. Without it the export's own is taken, and said so.
    #[arg(long, value_name = "VKEY", env = "CHANCERY_LOG_KEY")]
    log_key: Option<String>,
    /// The SHA-256 fingerprint of the root.
    #[arg(long, value_name = "HEX")]
    root: Option<Digest>,
    /// Keep the verified checkpoint here, for the next time.
    #[arg(long, value_name = "FILE")]
    save_checkpoint: Option<PathBuf>,
    /// Findings to print for each check.
    #[arg(long, value_name = "N", default_value_t = 20)]
    keep: usize,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Prove {
    /// The certificate's serial number.
    serial: SerialNumber,
    /// Where the receipt goes; SERIAL.receipt if absent.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Where the certificate goes; SERIAL.crt if absent.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

impl Audit {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        match self {
            Self::Export(export) => export.run(globals, terminal).await,
            Self::Verify(verify) => verify.run(globals, terminal).await,
            Self::Prove(prove) => prove.run(globals, terminal).await,
        }
    }
}

impl Export {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let query = self.meaning(place.as_ref())?;
        if self.out == Path::new("-") && terminal.is_json() {
            return Err(usage("--json and an export to standard output would mix; name a file with --out"));
        }
        let client = self.connection.open_beside(place.as_ref()).await?;
        if self.out == Path::new("-") {
            receive(&client, &query, self.format, io::stdout(), terminal).await?;
            return Ok(());
        }
        let target = self.target(SystemClock.now());
        let mut staged = Staged::begin(&target, files::PUBLIC)?;
        let seen = receive(&client, &query, self.format, staged.file(), terminal).await?;
        staged.put_in_place()?;
        let bytes = std::fs::metadata(&target).map(|found| found.len()).unwrap_or_default();
        let data = json!({ "file": target, "entries": seen.entries, "log_size": seen.size, "bytes": bytes });
        terminal.data(&data, || {
            format!("{} of {} entries, {bytes} bytes in {}", seen.entries, seen.size, target.display())
        })?;
        if self.format == Form::Jsonl && !terminal.is_json() {
            terminal.note(format_args!("Next: chancery audit verify {}", target.display()));
        }
        Ok(())
    }

    fn meaning(&self, place: Option<&Place>) -> Result<AuditExportQuery> {
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            return Err(usage(format!("nothing lies between --since {since} and --until {until}")));
        }
        Ok(AuditExportQuery {
            since: self.since,
            until: self.until,
            identity: self.identity.as_deref().map(|text| place::identity(text, place)).transpose()?,
            owner: self.owner.clone(),
            ..AuditExportQuery::default()
        })
    }

    fn target(&self, now: Timestamp) -> PathBuf {
        if !self.out.is_dir() {
            return self.out.clone();
        }
        let moment = now.whole_second().to_string().replace([':', '-'], "");
        self.out.join(format!("chancery-{moment}.{}", self.format.extension()))
    }
}

/// Receives an export; returns what came, all of it.
async fn receive<W: Write + Send>(
    client: &Client,
    query: &AuditExportQuery,
    form: Form,
    output: W,
    terminal: &Terminal,
) -> Result<Seen> {
    let mut stream: ByteStream = client.export_audit(query).await?;
    let mut converter = Converter::new(form, output)?;
    let bar = terminal.bar(0, "exporting");
    while let Some(part) = stream.next_chunk().await? {
        let seen = converter.take(&part)?;
        bar.set_length(seen.size);
        bar.set_position(seen.entries);
    }
    bar.finish_and_clear();
    converter.finish()
}

impl Verify {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let options = AuditOptions {
            log: self.log_key.as_deref().map(log_key).transpose()?,
            earlier: self
                .checkpoint
                .as_deref()
                .map(|path| files::read_text(path, files::MAX_PEM))
                .transpose()?,
            root: self.root,
            keep: self.keep,
            ..AuditOptions::default()
        };
        let mut source = open_source(&self.source, &self.connection, globals, terminal).await?;
        let bar = terminal.bar(source.header().size, "verifying");
        let report = tokio::task::block_in_place(|| {
            audit(&mut *source, &options, &mut |progress| {
                bar.set_length(progress.of);
                bar.set_position(progress.entries);
            })
        });
        bar.finish_and_clear();
        let report = report.map_err(verification)?;
        self.report(terminal, &report)
    }

    fn report(&self, terminal: &Terminal, report: &AuditReport) -> Result<()> {
        terminal.data(report, || describe(terminal, report))?;
        let clean = report.findings.are_clean();
        if let (Some(path), Some(checkpoint), true) = (&self.save_checkpoint, &report.checkpoint, clean) {
            files::replace(path, checkpoint.as_bytes(), files::PUBLIC)?;
            terminal
                .note(format_args!("checkpoint kept in {}: audit against it the next time", path.display()));
        }
        if clean {
            return Ok(());
        }
        let errors = report.findings.count(Severity::Error);
        Err(verification(format!("the log does not verify: {errors} errors; keep this export as evidence")))
    }
}

/// Opens an export: a file, a directory in the static layout, or what a server exports now.
pub(super) async fn open_source(
    source: &str,
    connection: &Connection,
    globals: &Globals,
    terminal: &Terminal,
) -> Result<Box<dyn ExportSource>> {
    if source.starts_with("https://") || source.starts_with("unix:") {
        return fetch(source, connection, globals, terminal).await;
    }
    let path = Path::new(source);
    if path.is_dir() {
        return Ok(Box::new(Directory::open(path).map_err(verification)?));
    }
    let file = File::open(path).with_context(|| {
        format!("cannot open {}; name an export, a directory, or https://host:port", path.display())
    })?;
    Ok(Box::new(JsonLines::open(BufReader::with_capacity(1 << 20, file)).map_err(verification)?))
}

/// Takes a whole export from a server into a temporary file, which is gone when the program ends.
async fn fetch(
    source: &str,
    connection: &Connection,
    globals: &Globals,
    terminal: &Terminal,
) -> Result<Box<dyn ExportSource>> {
    let place = Place::find(globals.config.as_deref())?;
    let mut connection = connection.clone();
    // Beside its own configuration the server is reached as the operator at hand.
    let at_hand = place.as_ref().is_some_and(|place| place.server == source.trim_end_matches('/'));
    if !at_hand {
        connection.reach.server = Some(source.to_owned());
    }
    let client = connection.open_beside(place.as_ref()).await?;
    let target = std::env::temp_dir().join("chancery-audit.jsonl");
    let mut staged = Staged::begin(&target, files::SECRET)?;
    receive(&client, &AuditExportQuery::default(), Form::Jsonl, staged.file(), terminal).await?;
    let mut file = staged.file().try_clone()?;
    file.rewind()?;
    Ok(Box::new(JsonLines::open(BufReader::with_capacity(1 << 20, file)).map_err(verification)?))
}

fn describe(terminal: &Terminal, report: &AuditReport) -> String {
    let findings = &report.findings;
    let mut text = String::new();
    for finding in findings.list() {
        let tone = match finding.severity {
            Severity::Error => Tone::Bad,
            Severity::Warning => Tone::Warning,
            Severity::Notice => Tone::Strong,
        };
        let line = finding.to_string();
        let rest = line.strip_prefix(&finding.severity.to_string()).unwrap_or(&line);
        text.push_str(&format!("{}{rest}\n", terminal.paint(tone, finding.severity)));
    }
    if findings.suppressed() > 0 {
        text.push_str(&format!("and {} more; --keep N prints them\n", findings.suppressed()));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let kinds: Vec<String> = report.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    text.push_str(&terminal.fields([
        ("log", report.origin.clone()),
        ("entries", report.entries.to_string()),
        ("root", report.root.to_string()),
        ("of kinds", kinds.join(", ")),
        ("certificates", format!("{} promised, {} signed", report.certificates, report.signed)),
        ("witnesses", report.witnesses.join(", ")),
        (
            "findings",
            format!(
                "{} errors, {} warnings, {} notices",
                findings.count(Severity::Error),
                findings.count(Severity::Warning),
                findings.count(Severity::Notice)
            ),
        ),
    ]));
    let verdict = if findings.are_clean() {
        terminal.paint(Tone::Good, "The log verifies.")
    } else {
        terminal.paint(Tone::Bad, "The log does not verify.")
    };
    text + &format!("\n{verdict}\n")
}

impl Prove {
    async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let client = self.connection.open(globals).await?;
        let proof = client.log_proof(self.serial).await?;
        let detail = client.read_certificate(self.serial).await?;
        let pem = detail.pem.with_context(|| format!("{} was recorded and never signed", self.serial))?;
        let receipt = self.receipt.clone().unwrap_or_else(|| format!("{}.receipt", self.serial).into());
        let certificate = self.certificate.clone().unwrap_or_else(|| format!("{}.crt", self.serial).into());
        files::replace(&receipt, ReceiptFile::of(&proof)?.text().as_bytes(), files::PUBLIC)?;
        files::replace(&certificate, format!("{pem}{}", detail.chain).as_bytes(), files::PUBLIC)?;
        let data = json!({
            "serial": self.serial, "log_index": proof.log_index, "receipt": receipt, "certificate": certificate,
        });
        terminal.data(&data, || {
            terminal.fields([
                ("log entry", proof.log_index.to_string()),
                ("receipt", receipt.display().to_string()),
                ("certificate", certificate.display().to_string()),
            ])
        })?;
        if !terminal.is_json() {
            terminal.note(format_args!(
                "Next, anywhere: chancery verify --receipt {} --certificate {} --log-key VKEY",
                receipt.display(),
                certificate.display()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Cli, Command};

    fn export(arguments: &[&str]) -> Result<Export, clap::Error> {
        let line = ["chancery", "audit", "export"].iter().chain(arguments);
        Cli::try_parse_from(line).map(|cli| match cli.command {
            Command::Audit(Audit::Export(export)) => export,
            _ => panic!("not an export"),
        })
    }

    #[test]
    fn an_export_into_a_directory_has_a_name_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let now = "2026-11-21T12:34:56.789Z".parse().unwrap();
        let target = export(&["--out", path, "--format", "csv"]).unwrap().target(now);
        assert_eq!(target, directory.path().join("chancery-20261121T123456Z.csv"));
        assert_eq!(export(&["--out", "a.jsonl"]).unwrap().target(now), Path::new("a.jsonl"));
    }

    #[test]
    fn an_empty_span_of_time_is_refused() {
        let span = ["--out", "a", "--since", "2026-11-22T00:00:00Z", "--until", "2026-11-21T00:00:00Z"];
        assert!(
            export(&span).unwrap().meaning(None).unwrap_err().to_string().contains("nothing lies between")
        );
        assert!(export(&["--out", "a", "--since", "yesterday"]).is_err());
        assert!(export(&["--out", "a", "--format", "xml"]).is_err());
    }
}
