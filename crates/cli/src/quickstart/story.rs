//! The story, step by step.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::agent;
use crate::loopback::{Door, ServerProcess, free_addresses};
use crate::peers::{Workload, meet};
use crate::stage::{Stage, shown};

/// How long a revocation may take to reach a relying party that fetches the list for every connection.
const REVOCATION: Duration = Duration::from_secs(5);
/// The exit code of what the authority refuses, and of what does not verify.
const REFUSED: i32 = 3;
const DOES_NOT_VERIFY: i32 = 4;

/// Tells it all.
pub(crate) async fn tell(stage: &mut Stage<'_>) -> Result<()> {
    let addresses = free_addresses()?;
    make_an_authority(stage, addresses).await?;
    write_a_profile(stage)?;
    refuse_an_online_root(stage).await?;
    let server = serve(stage, addresses).await?;
    register(stage).await?;
    make_tokens(stage).await?;
    enroll(stage).await?;
    exchange(stage).await?;
    renew(stage).await?;
    revoke(stage).await?;
    see_it_refused(stage).await?;
    see_its_renewal_refused(stage).await?;
    agent::tell(stage, addresses.0).await?;
    export(stage).await?;
    verify(stage).await?;
    tamper(stage).await?;
    server.stop().await
}

async fn make_an_authority(stage: &mut Stage<'_>, (api, status): (SocketAddr, SocketAddr)) -> Result<()> {
    stage.begin("Make an authority: a root in a directory of its own, an issuer under it, a ledger, a first operator.")?;
    let (api, status) = (api.to_string(), status.to_string());
    let output = stage
        .succeed(&[
            "init",
            "--yes",
            "--trust-domain",
            "quickstart.example",
            "--listen",
            &api,
            "--status-listen",
            &status,
        ])
        .await?;
    let fingerprint = field(&output, "root fingerprint").context("init prints the root's fingerprint")?;
    stage.done(&[format!("root {fingerprint}"), "its key is encrypted, in chancery-root/".to_owned()])
}

fn write_a_profile(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin(
        "What certificates may be stands in text files, whose hashes the ledger has. Make one: a workload's, but its \
         certificates live a minute.",
    )?;
    let (from, to) = ("chancery/profiles/workload.toml", "chancery/profiles/minute.toml");
    let names = r#"s/^name = .*/name = "minute"/"#;
    let lifetimes = r#"s/^(default|max|min) = ".*/\1 = "1m"/"#;
    stage.show(&format!("sed -E '{names}; {lifetimes}' {from} > {to}"))?;
    let workload =
        std::fs::read_to_string(stage.path(from)).with_context(|| format!("cannot read {from}"))?;
    std::fs::write(stage.path(to), of_a_minute(&workload)).with_context(|| format!("cannot write {to}"))?;
    stage.done(&["beside the profiles that init wrote".to_owned()])
}

/// A profile's text under another name, with lifetimes of a minute: as the command above has it.
fn of_a_minute(profile: &str) -> String {
    let line = |line: &str| match line.split_once(" = ") {
        Some(("name", _)) => "name = \"minute\"\n".to_owned(),
        Some((key @ ("default" | "max" | "min"), value)) if value.starts_with('"') => {
            format!("{key} = \"1m\"\n")
        }
        _ => format!("{line}\n"),
    };
    profile.lines().map(line).collect()
}

async fn refuse_an_online_root(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin(
        "A server that can read the root's key would lose the root with the server. So it does not start.",
    )?;
    let why = stage.run(&["serve"]).await?.refused(1, "serving beside the root's key")?;
    ensure!(why.contains("root key"), "the server refused for another reason: {why}");
    stage.done(&[format!("refused: {why}")])
}

async fn serve(stage: &mut Stage<'_>, addresses: (SocketAddr, SocketAddr)) -> Result<ServerProcess> {
    stage.begin(
        "Carry the root away (here: into another directory; for you: onto a stick in a safe), and serve.",
    )?;
    stage.show("mv chancery-root offline-root")?;
    std::fs::rename(stage.path("chancery-root"), stage.path("offline-root"))
        .context("cannot move the root's directory")?;
    stage.show("chancery serve &")?;
    let log = stage.path("serve.log");
    let doors = [Door::Tcp(addresses.0), Door::Tcp(addresses.1)];
    let server = ServerProcess::start(stage.directory(), &["serve"], &log, &doors).await?;
    let id = server.id();
    stage
        .done(&[format!("process {id}: the API on {} (TLS 1.3), status on {}", addresses.0, addresses.1)])?;
    Ok(server)
}

async fn register(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin("Register two workloads. Each has an owner who answers for it: no owner, no certificate.")?;
    for (name, purpose) in [("web", "asks for things"), ("api", "answers")] {
        stage
            .succeed(&[
                "identity",
                "create",
                name,
                "--owner",
                "you@quickstart.example",
                "--purpose",
                purpose,
                "--dns",
                "localhost",
            ])
            .await?;
    }
    stage.done(&["spiffe://quickstart.example/web and spiffe://quickstart.example/api".to_owned()])
}

async fn make_tokens(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin(
        "A join token lets one workload in, once. It carries the root's fingerprint: one string is enough.",
    )?;
    for name in ["web", "api"] {
        let identity = format!("spiffe://quickstart.example/{name}");
        stage.succeed_into(&["token", "create", "--identity", &identity], &format!("{name}.token")).await?;
    }
    stage.done(&["two tokens; the authority keeps their hashes only".to_owned()])
}

async fn enroll(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin(
        "Enrol both: a new key that never leaves its directory, the token as evidence, a certificate back.",
    )?;
    let mut result = Vec::new();
    for name in ["web", "api"] {
        let token = format!("{name}.token");
        stage.succeed(&["enroll", "--token-file", &token, "--out", name]).await?;
        result.push(describe(&Workload::load(&stage.path(name))?)?);
    }
    stage.done(&result)
}

async fn exchange(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin("web calls api over mutual TLS. Each checks the other's chain and revocation list, and reads its name.")?;
    let (web, api) = (Workload::load(&stage.path("web"))?, Workload::load(&stage.path("api"))?);
    let meeting = meet(&web, &api).await?.map_err(anyhow::Error::msg).context("api refused web")?;
    stage.done(&[
        format!("web met {}; api met {}", meeting.callee, meeting.caller),
        format!("{:?} came back as it was sent", meeting.echo),
    ])
}

async fn renew(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin("Renew with a new key. The old certificate is the evidence; nobody types anything.")?;
    let before = Workload::load(&stage.path("web"))?;
    stage.succeed(&["renew", "--in", "web"]).await?;
    let after = Workload::load(&stage.path("web"))?;
    let keys = (before.certificate().tbs().spki_der(), after.certificate().tbs().spki_der());
    ensure!(keys.0 != keys.1, "the renewal kept the key");
    let api = Workload::load(&stage.path("api"))?;
    meet(&after, &api).await?.map_err(anyhow::Error::msg).context("api refused the renewed web")?;
    stage.done(&[describe(&after)?, "another key, the same name; api takes it".to_owned()])
}

async fn revoke(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin("web's key was stolen, we say. Revoke everything that web has.")?;
    let output = stage
        .succeed(&[
            "revoke",
            "--identity",
            "spiffe://quickstart.example/web",
            "--reason",
            "key-compromise",
            "--yes",
        ])
        .await?;
    let summary = output.lines().next().unwrap_or("revoked").trim().to_owned();
    stage.done(&[summary])
}

async fn see_it_refused(stage: &mut Stage<'_>) -> Result<()> {
    stage
        .begin("Its next connection: api fetches the list that web's certificate names, as it did before.")?;
    let (web, api) = (Workload::load(&stage.path("web"))?, Workload::load(&stage.path("api"))?);
    let begun = Instant::now();
    let refusal = loop {
        match meet(&web, &api).await? {
            Err(refusal) => break refusal,
            Ok(_) if begun.elapsed() > REVOCATION => {
                bail!("api still takes the revoked certificate after {} s", REVOCATION.as_secs())
            }
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    ensure!(refusal.to_lowercase().contains("revoked"), "api refused for another reason: {refusal}");
    stage.done(&[format!("api refused it {} later: {refusal}", shown(begun.elapsed()))])
}

async fn see_its_renewal_refused(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin("And it cannot get a new one with the old one.")?;
    let why = stage.run(&["renew", "--in", "web"]).await?.refused(REFUSED, "the renewal")?;
    stage.done(&[format!("refused: {why}")])
}

async fn export(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin(
        "Everything above stands in the ledger, recorded before it was signed. Take it away for an auditor.",
    )?;
    let output = stage.succeed(&["audit", "export", "--out", "log.jsonl"]).await?;
    stage.done(&[output.trim().to_owned()])
}

async fn verify(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin("The auditor trusts nobody, and needs no network: tree, signatures, every certificate, every revocation.")?;
    let output = stage.succeed(&["audit", "verify", "log.jsonl"]).await?;
    let certificates = field(&output, "certificates").unwrap_or_default();
    let verdict = output.trim().lines().last().unwrap_or_default().to_owned();
    stage.done(&[verdict, format!("certificates: {certificates}")])
}

async fn tamper(stage: &mut Stage<'_>) -> Result<()> {
    stage.begin("Change one byte in a copy, somewhere in the record of a certificate, and ask again.")?;
    let mut export = std::fs::read(stage.path("log.jsonl")).context("cannot read the export")?;
    let place = place_to_forge(&export).context("the export holds no certificate")?;
    let (line, before) = (export[..place].iter().filter(|byte| **byte == b'\n').count() + 1, export[place]);
    export[place] = if before == b'A' { b'B' } else { b'A' };
    std::fs::write(stage.path("forged.jsonl"), &export).context("cannot write the copy")?;
    stage.show("cp log.jsonl forged.jsonl")?;
    let forged = char::from(export[place]);
    stage
        .show(&format!("printf {forged} | dd of=forged.jsonl bs=1 seek={place} conv=notrunc status=none"))?;
    let said = stage.run(&["audit", "verify", "forged.jsonl"]).await?;
    said.refused(DOES_NOT_VERIFY, "the forged export")?;
    let findings: Vec<&str> = said.output.lines().filter(|line| line.starts_with("error")).collect();
    let entry = line - 2; // Line 1 is the header, line 2 entry 0.
    let named = findings.iter().find(|finding| finding.contains(&format!("entry {entry}")));
    let named =
        named.with_context(|| format!("the forgery was not named:\n{}{}", said.output, said.errors))?;
    stage.done(&[
        format!(
            "caught: {:?} became {forged:?} at byte {place}; {} findings",
            char::from(before),
            findings.len()
        ),
        (*named).to_owned(),
    ])
}

/// A byte in the middle of the last issuance whose certificate was signed: a letter of its base64.
fn place_to_forge(export: &[u8]) -> Option<usize> {
    const LEAF: &[u8] = b"\"leaf\":\"";
    let lines = export.split_inclusive(|byte| *byte == b'\n').scan(0, |start, line| {
        *start += line.len();
        Some((*start - line.len(), line))
    });
    let holds = |line: &[u8], what: &[u8]| line.windows(what.len()).position(|window| window == what);
    let (start, line) = lines.filter(|(_, line)| holds(line, b"\"signature\":\"").is_some()).last()?;
    let leaf = holds(line, LEAF)? + LEAF.len();
    let length = line[leaf..].iter().position(|byte| *byte == b'"')?;
    Some(start + leaf + length / 2)
}

/// Who a certificate is for, and until when.
fn describe(workload: &Workload) -> Result<String> {
    let certificate = workload.certificate();
    let tbs = certificate.tbs();
    let id = tbs.spiffe_id().context("the certificate names no SPIFFE ID")?;
    let serial = certificate.serial_number().context("the serial number is not one of ours")?;
    Ok(format!("{id}, serial {serial}, until {}", tbs.not_after()))
}

/// The value of a line of names and values.
fn field(output: &str, name: &str) -> Option<String> {
    output.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forged_byte_lies_in_the_last_signed_issuance() {
        let export = b"{\"chancery_export\":1}\n{\"leaf\":\"AAAA\"}\n{\"leaf\":\"BBBB\",\"signature\":\"x\"}\n{\"leaf\":\"CCCC\"}\n";
        assert_eq!(export[place_to_forge(export).unwrap()], b'B');
        assert_eq!(place_to_forge(b"{}\n"), None);
    }

    #[test]
    fn a_profile_of_a_minute_is_another_one_with_other_lifetimes() {
        let profile = "name = \"workload\"\n[lifetime]\ndefault = \"1h\"\nmin = \"5m\"\n[names]\nmax = 16\n";
        let expected = "name = \"minute\"\n[lifetime]\ndefault = \"1m\"\nmin = \"1m\"\n[names]\nmax = 16\n";
        assert_eq!(of_a_minute(profile), expected);
    }

    #[test]
    fn fields_are_read_as_they_are_printed() {
        assert_eq!(field("a  1\nroot fingerprint  00ff\n", "root fingerprint").as_deref(), Some("00ff"));
    }
}
