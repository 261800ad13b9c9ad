//! The server as clients and relying parties meet it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chancery_api::{HealthState, IdentityQuery, IssuerState};
use chancery_client::{Client, ClientError};
use chancery_merkle::{Checkpoint, SignedNote};
use chancery_types::Timestamp;
use chancery_x509::crl::CrlView;
use chancery_x509::{Certificate, CertificateError, read_certificates};
use rustls_pki_types::CertificateDer;

use super::finding::Findings;
use crate::authority_side::HealthRecord;
use crate::connection::{Connection, Reach};
use crate::files;
use crate::peers::is_good_by_ocsp;
use crate::place::Place;
use crate::status_port::StatusPort;

const DAY: i64 = 24 * 3600;
/// Seconds that two clocks of one deployment may differ.
const MOST_SKEW: i64 = 5;

pub(super) async fn look(
    record: &HealthRecord,
    place: &Place,
    kept: Option<&Path>,
    now: Timestamp,
    findings: &mut Findings,
) {
    let client = match reach(place).await {
        Ok(client) => client,
        Err(error) => {
            let advice = "start it (`chancery serve`, `systemctl start chancery`), and read what it logs";
            findings.bad("server", format!("it does not answer at {}: {error:#}", place.server), advice);
            findings.unknown("server", "lists, OCSP, issuers, the log and agents were not looked at");
            return;
        }
    };
    readiness(&client, findings).await;
    issuers(&client, now, findings).await;
    bundle(&client, record, now, findings).await;
    lists(record, now, findings).await;
    ocsp(place, now, findings).await;
    log(&client, record, kept, findings).await;
    metrics(place, record, findings).await;
}

/// A client that has asked once, as a workload would.
async fn reach(place: &Place) -> Result<Client> {
    let client = Reach::default().open(Some(place), None).await?;
    client.healthz().await?;
    Ok(client)
}

async fn readiness(client: &Client, findings: &mut Findings) {
    let answer = match client.readyz().await {
        Ok(answer) => answer,
        Err(ClientError::Problem(problem)) => {
            let advice = "until then nothing is issued; the server's log says more";
            return findings.bad("server", format!("it is not ready: {}", problem.detail), advice);
        }
        Err(error) => return findings.bad("server", error.to_string(), "read what it logs"),
    };
    findings.good("server", format!("version {} answers and can issue", answer.version));
    for check in answer.checks.iter().filter(|check| check.state != HealthState::Ok) {
        let advice = "the server's log says more";
        let found = format!("{}: {}", check.name, check.detail);
        match check.state {
            HealthState::Failed => findings.bad("server", found, advice),
            _ => findings.warn("server", found, advice),
        }
    }
}

async fn issuers(client: &Client, now: Timestamp, findings: &mut Findings) {
    let found = match client.issuers().await {
        Ok(found) => found.issuers,
        Err(error) => return findings.bad("issuers", error.to_string(), "read what the server logs"),
    };
    let Some(active) = found.iter().find(|issuer| issuer.state == IssuerState::Active) else {
        return findings.bad("issuers", "none is active", "activate one: `chancery ca`");
    };
    let what = format!("issuer {} ends at {}", active.epoch, active.not_after.whole_second());
    ends(
        "issuers",
        &what,
        active.not_after,
        now,
        "prepare the next issuer and have the root sign it",
        findings,
    );
}

/// Says how soon something ends: a month is time to act, a week is not.
fn ends(
    check: &'static str,
    what: &str,
    end: Timestamp,
    now: Timestamp,
    advice: &str,
    findings: &mut Findings,
) {
    let days = (end.seconds() - now.seconds()) / DAY;
    match days {
        ..7 => findings.bad(check, format!("{what}, in {days} days"), advice),
        7..30 => findings.warn(check, format!("{what}, in {days} days"), advice),
        _ => findings.good(check, what.to_owned()),
    }
}

/// What relying parties are told to trust is what this directory holds.
async fn bundle(client: &Client, record: &HealthRecord, now: Timestamp, findings: &mut Findings) {
    let look = async {
        let served = client.bundle().await?;
        let served = read_certificates(&served, 64)?;
        let own = read_certificates(&files::read(&record.root_certificate, files::MAX_PEM)?, 8)?;
        let root = own.first().context("there is no root beside the configuration")?;
        let is_served = served.contains(root);
        let ends = served.iter().map(|root| Ok(Certificate::from_der(root)?.tbs().not_after()));
        let end = ends.collect::<Result<Vec<_>, CertificateError>>()?.into_iter().max();
        Ok::<_, anyhow::Error>((is_served, end.context("no root is served")?))
    };
    match look.await {
        Err(error) => findings.bad("bundle", format!("{error:#}"), "is [root] certificate the right file?"),
        Ok((false, _)) => findings.bad(
            "bundle",
            format!("the roots that are served do not have {}", record.root_certificate.display()),
            "restart the server with the right [root] certificate",
        ),
        Ok((true, end)) => {
            let what = format!("the root is served, and ends at {}", end.whole_second());
            ends(
                "bundle",
                &what,
                end,
                now,
                "a root's end takes years to prepare: make the next one now",
                findings,
            );
        }
    }
}

/// The full list, by the URL that certificates name.
async fn lists(record: &HealthRecord, now: Timestamp, findings: &mut Findings) {
    let url = format!("{}/crl/full.der", record.status_url);
    let advice = "relying parties cannot tell who is revoked: is the port open, does [status] url lead here?";
    let list = match StatusPort::fetch(&url).await {
        Ok(list) => list,
        Err(error) => return findings.bad("lists", format!("{url}: {error:#}"), advice),
    };
    let view = match CrlView::from_der(&list) {
        Ok(view) => view,
        Err(error) => return findings.bad("lists", format!("{url} is no list: {error}"), advice),
    };
    let left = view.next_update().map_or(i64::MAX, |end| end.seconds() - now.seconds());
    let ahead = view.this_update().seconds() - now.seconds();
    if left <= 0 {
        findings.bad("lists", format!("{url} ran out {} s ago", -left), "read what the server logs of lists");
    } else if ahead > MOST_SKEW {
        let advice = "the server's clock or this one is wrong: synchronize both";
        findings.bad("clock", format!("{url} was made {ahead} s in the future"), advice);
    } else {
        findings.good("lists", format!("{url} is good for {left} s more"));
    }
}

/// What the operator's certificate is worth, from the responder that it names.
async fn ocsp(place: &Place, now: Timestamp, findings: &mut Findings) {
    let ask = async {
        let pem = files::read(&place.operator_certificate, files::MAX_PEM)?;
        let chain: Vec<CertificateDer<'_>> =
            read_certificates(&pem, 8)?.into_iter().map(CertificateDer::from).collect();
        // An answer is made after this was begun, by a clock that may go a little ahead.
        is_good_by_ocsp(&chain, now + Duration::from_secs(MOST_SKEW.unsigned_abs())).await
    };
    if !place.operator_certificate.exists() {
        return findings.unknown("ocsp", "there is no operator's certificate here to ask about");
    }
    match ask.await {
        Ok(true) => findings.good("ocsp", "the responder answers"),
        Ok(false) => findings.warn(
            "ocsp",
            "the operator's certificate is not good any more",
            "make another: `chancery operator create NAME --admin-socket PATH`",
        ),
        Err(error) => findings.bad(
            "ocsp",
            format!("{error:#}"),
            "is the status port open, does [status] url lead here?",
        ),
    }
}

/// The log has not gone back behind what was published from here, or what somebody kept.
async fn log(client: &Client, record: &HealthRecord, kept: Option<&Path>, findings: &mut Findings) {
    let served = client.log_checkpoint().await.map_err(anyhow::Error::from).and_then(|note| size(&note));
    let served = match served {
        Ok(served) => served,
        Err(error) => return findings.bad("log", format!("{error:#}"), "read what the server logs"),
    };
    let own = record.ledger.join("checkpoint");
    for path in [Some(own.as_path()), kept].into_iter().flatten().filter(|path| path.exists()) {
        match files::read(path, files::MAX_PEM).and_then(|note| size(&note)) {
            Err(error) => findings.bad("log", format!("{}: {error:#}", path.display()), "restore it"),
            Ok((size, origin)) if origin != served.1 || size > served.0 => findings.bad(
                "log",
                format!(
                    "{} has {size} entries of {origin}, the server {} of {}",
                    path.display(),
                    served.0,
                    served.1
                ),
                "stop the server: the log went back; see Backup and restore in docs/OPERATING.md",
            ),
            Ok(_) => {}
        }
    }
    findings.good("log", format!("{} entries; `chancery audit verify` checks them", served.0));
}

/// How many entries a checkpoint speaks of, and of which log.
fn size(note: &[u8]) -> Result<(u64, String)> {
    let note: SignedNote = std::str::from_utf8(note)?.parse()?;
    let checkpoint = Checkpoint::parse(note.text())?;
    Ok((checkpoint.size(), checkpoint.origin().to_owned()))
}

/// What the server counts, and whether as many agents follow as there are nodes.
async fn metrics(place: &Place, record: &HealthRecord, findings: &mut Findings) {
    let look = async {
        let client = Connection::default().open_beside(Some(place)).await?;
        let values = values(&String::from_utf8_lossy(&client.metrics().await?));
        let query = IdentityQuery { profile: Some("node".to_owned()), ..IdentityQuery::default() };
        let nodes = client.list_identities(&query).await?.items;
        let nodes = nodes.iter().filter(|node| node.live_certificates > 0).count();
        Ok::<_, anyhow::Error>((values, nodes))
    };
    let (values, nodes) = match look.await {
        Ok(found) => found,
        Err(error) => return findings.unknown("agents", format!("the server does not say: {error:#}")),
    };
    let value = |name: &str| values.get(name).copied();
    let streams = value("chancery_agent_streams").unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a page of nodes")]
    let silent = nodes as f64 - streams;
    match silent > 0.0 {
        true => findings.warn(
            "agents",
            format!("{nodes} nodes have live certificates, {streams} agents follow"),
            "look at the silent ones: `chancery node list`; without an agent nothing there is rotated",
        ),
        false => {
            findings.good("agents", format!("{streams} follow, for {nodes} nodes with live certificates"))
        }
    }
    if let Some(age) = value("chancery_status_set_age_seconds") {
        let most = 3 * record.set_refresh;
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        match age > most as f64 {
            true => findings.bad(
                "exact set",
                format!("it is {age} s old"),
                "read what the server logs of the set",
            ),
            false => findings.good("exact set", format!("it is {age} s old")),
        }
    }
    if value("chancery_ledger_halted").unwrap_or_default() > 0.0 {
        findings.bad(
            "log",
            "the ledger has stopped accepting writes",
            "look after the disk, then restart the server",
        );
    }
}

/// The plain values of a page of metrics.
fn values(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn what_ends_soon_is_said_in_time() {
        let now = Timestamp::from_seconds(1_000_000_000);
        for (days, state) in
            [(-1, State::Bad), (6, State::Bad), (8, State::Warning), (29, State::Warning), (31, State::Good)]
        {
            let mut findings = Findings::default();
            let end = Timestamp::from_seconds(now.seconds() + days * DAY + 60);
            ends("issuers", "it ends", end, now, "act", &mut findings);
            assert_eq!(findings.0[0].state, state, "{days} days");
        }
    }

    #[test]
    fn plain_values_are_read_and_everything_else_passed_over() {
        let page = "# TYPE a gauge\na 3\nb{x=\"y\"} 4\nc 1.5\nnonsense\n# EOF\n";
        let found = values(page);
        assert_eq!((found["a"], found["c"], found.contains_key("nonsense")), (3.0, 1.5, false));
    }
}
