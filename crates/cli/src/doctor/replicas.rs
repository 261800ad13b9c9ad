//! Several servers on one database: who is there, how far each has come, whether they work by the same rules, and whether
//! the database keeps what it acknowledges.

use std::path::Path;

use super::finding::Findings;
use crate::authority_side::{Seen, Standing};
use crate::files;

/// Seconds of silence after which a replica is missed: it speaks every five.
const SILENT: f64 = 16.0;
/// Entries by which a replica may be behind what was recorded since it last spoke.
const BEHIND: u64 = 5_000;
/// Seconds that the database's clock may differ before leases and lists suffer; before it is worth a look.
const MOST_SKEW: f64 = 5.0;
const SOME_SKEW: f64 = 1.0;
/// Seconds that a lease may lie with nobody: another replica takes it within four.
const LEFT_ALONE: f64 = 10.0;

pub(super) fn look(standing: &Standing, findings: &mut Findings) {
    settings(standing, findings);
    clock(standing.ahead, findings);
    connections(standing, findings);
    hearing(standing, findings);
    log(standing, findings);
    presence(standing, findings);
    agreement(standing, findings);
    leases(standing, findings);
    checkpoints(standing, findings);
}

/// What was acknowledged is there after a crash.
fn settings(standing: &Standing, findings: &mut Findings) {
    let settings = &standing.database.settings;
    let mut wrong = 0;
    for name in ["fsync", "full_page_writes", "synchronous_commit"] {
        let is_safe = |value: &str| match name {
            "synchronous_commit" => value != "off",
            _ => value == "on",
        };
        match settings.get(name).map(String::as_str) {
            Some(value) if !is_safe(value) => {
                wrong += 1;
                let advice = format!(
                    "set it to on, in postgresql.conf and for this role (`ALTER ROLE ... RESET {name}`): without it a crash \
                     loses what was acknowledged"
                );
                findings.bad("database", format!("{name} is {value}, expected on"), &advice);
            }
            Some(_) => {}
            None => findings.unknown("database", format!("it does not tell {name}")),
        }
    }
    if standing.database.is_standby {
        wrong += 1;
        findings.bad(
            "database",
            "it is a standby, which takes no writes",
            "name the primary in storage.ledger, or promote this one",
        );
    }
    if wrong == 0 {
        let version = settings.get("server_version").map_or("?", String::as_str);
        findings.good("database", format!("PostgreSQL {version} keeps what it acknowledges"));
    }
    let (standbys, waited_for) = standing.database.standbys;
    if standbys > 0 && waited_for == 0 {
        findings.warn(
            "database",
            format!("{standbys} standbys follow it, and commits wait for none of them"),
            "set synchronous_standby_names: a failover to a standby that lacks the last entries is refused by every replica",
        );
    }
}

fn clock(ahead: f64, findings: &mut Findings) {
    let text = format!("the database's clock is {:+.1} s from the one here", ahead);
    let advice =
        "synchronize both (chrony, systemd-timesyncd): leases go by the one, certificates by the other";
    match ahead.abs() {
        difference if difference > MOST_SKEW => findings.bad("database clock", text, advice),
        difference if difference > SOME_SKEW => findings.warn("database clock", text, advice),
        _ => findings.good("database clock", text),
    }
}

/// Whether all replicas find a connection when all of them want theirs.
fn connections(standing: &Standing, findings: &mut Findings) {
    let number =
        |name: &str| standing.database.settings.get(name).and_then(|value| value.parse::<usize>().ok());
    let Some(most) = number("max_connections") else {
        return findings.unknown("connections", "the database does not tell max_connections");
    };
    let open = most.saturating_sub(number("superuser_reserved_connections").unwrap_or(3));
    let wanted: usize = speaking(standing).map(|seen| seen.presence.connections).sum();
    let wanted = wanted.max(standing.own.connections);
    let used = standing.database.connections;
    let text =
        format!("{used} are open; the replicas take {wanted} at most, of {open} that the database gives");
    let advice = "raise max_connections, lower storage.postgres.connections, or put a pooler before it";
    match wanted {
        wanted if wanted > open => findings.bad("connections", text, advice),
        wanted if wanted * 10 > open * 9 => findings.warn("connections", text, advice),
        _ => findings.good("connections", text),
    }
}

fn hearing(standing: &Standing, findings: &mut Findings) {
    match &standing.database.hears {
        Ok(()) => findings.good("notifications", "what one tells, another hears"),
        Err(error) => findings.warn(
            "notifications",
            format!("none arrives: {error}"),
            "name the database's own address in storage.postgres.listen: poolers pass none on; until then replicas look \
             four times a second",
        ),
    }
}

/// Head and entries are written together, and so is the read model.
fn log(standing: &Standing, findings: &mut Findings) {
    let (size, entries) = (standing.database.size, standing.database.entries);
    match size == entries {
        true => findings.good("database log", format!("{size} entries, as its head says")),
        false => findings.bad(
            "database log",
            format!("the head says {size} entries, the last of them is number {entries}"),
            "stop the replicas and run `chancery ledger check`: somebody else has written into these tables",
        ),
    }
}

/// Replicas that speak: those that are alive.
fn speaking(standing: &Standing) -> impl Iterator<Item = &Seen> {
    standing.replicas.iter().filter(|seen| seen.ago <= SILENT)
}

fn presence(standing: &Standing, findings: &mut Findings) {
    let mut behind = 0;
    for seen in &standing.replicas {
        let name = &seen.presence.name;
        if seen.ago > SILENT {
            let advice = format!(
                "is {name} running, and does it reach the database? One that was started again under another name is \
                 forgotten after ten minutes"
            );
            let wrote = standing.writers().iter().find(|writer| writer.name == *name);
            let wrote =
                wrote.map_or_else(String::new, |writer| format!("; it wrote {:.0} s ago", writer.ago));
            let text = format!("{name} has not been heard for {:.0} s{wrote}", seen.ago);
            findings.warn("replicas", text, &advice);
            continue;
        }
        let missing = standing.database.size.saturating_sub(seen.presence.position);
        if missing > BEHIND {
            behind += 1;
            findings.bad(
                "replicas",
                format!(
                    "{name} knows {} of {} entries: it is {missing} behind",
                    seen.presence.position, standing.database.size
                ),
                "read what it logs: what was revoked meanwhile is good there; take it out of the balancer until it follows",
            );
        }
    }
    let here = speaking(standing).count();
    match here {
        0 => findings.bad(
            "replicas",
            "none is heard",
            "start one (`chancery serve`), or look why it does not reach the database",
        ),
        _ if behind == 0 => {
            let names: Vec<_> = speaking(standing).map(|seen| seen.presence.name.as_str()).collect();
            findings.good("replicas", format!("{here} follow the log: {}", names.join(", ")));
        }
        _ => {}
    }
    // A program from before this one says nothing, and is seen by what it does.
    let known = |name: &str| standing.replicas.iter().any(|seen| seen.presence.name == name);
    for lease in standing.leases().iter().filter(|lease| lease.left > Some(0.0)) {
        if let Some(name) = lease.holder.as_deref().filter(|name| !known(name)) {
            findings.warn(
                "replicas",
                format!("{name} does {} and says nothing of itself", lease.work),
                "is it of an earlier version? Upgrade it",
            );
        }
    }
}

/// All decide alike.
fn agreement(standing: &Standing, findings: &mut Findings) {
    let own = &standing.own;
    let mut differ = 0;
    for presence in speaking(standing).map(|seen| &seen.presence) {
        let name = &presence.name;
        if presence.version != own.version {
            differ += 1;
            findings.warn(
                "agreement",
                format!("{name} is of version {}, this program of {}", presence.version, own.version),
                "finish the upgrade: one replica after the other",
            );
        }
        if presence.configuration != own.configuration {
            differ += 1;
            findings.bad(
                "agreement",
                format!("the configuration of {name} differs from the one here"),
                "compare both chancery.toml: trust domain, names, url, [status], [revocation], [rotation], [attestation] are \
                 the same everywhere; then restart the one that is wrong",
            );
        }
        if presence.rules != own.rules {
            differ += 1;
            findings.bad(
                "agreement",
                format!("profiles or policy in force at {name} differ from those on the disk here"),
                "copy profiles/ and policy/ to every replica, then send SIGHUP to each",
            );
        }
    }
    if differ == 0 && speaking(standing).next().is_some() {
        findings.good("agreement", "version, configuration and rules are the same everywhere");
    }
}

fn leases(standing: &Standing, findings: &mut Findings) {
    let (mut held, mut lost) = (0, 0);
    for lease in standing.leases() {
        // Whoever gave one back has nothing to do, or stopped: whether enough run is looked at elsewhere.
        let Some(left) = lease.left else { continue };
        if left > -LEFT_ALONE {
            held += 1;
            continue;
        }
        lost += 1;
        let last = lease.holder.as_deref().unwrap_or("somebody who wrote nothing");
        findings.bad(
            "leases",
            format!("nobody has done {} for {:.0} s; {last} did", lease.work, -left),
            "start a replica, or read what those log that run: lists and the exact set run out",
        );
    }
    if lost == 0 {
        findings.good("leases", format!("{held} pieces of work are somebody's"));
    }
}

/// The memory of what was published does not go away together with the database.
fn checkpoints(standing: &Standing, findings: &mut Findings) {
    let directory = standing.checkpoints.as_path();
    let advice = "name a directory of this machine's own disk in storage.postgres.checkpoints: it tells a database that went back";
    if let Err(error) = files::read(&directory.join("checkpoint"), files::MAX_PEM) {
        return findings.warn("checkpoints", format!("there is none: {error:#}"), advice);
    }
    let data = standing.database.settings.get("data_directory").map(Path::new);
    if data.is_some_and(|data| data.is_dir() && directory.starts_with(data)) {
        return findings.bad(
            "checkpoints",
            format!("{} lies among the database's own files", directory.display()),
            advice,
        );
    }
    findings.good("checkpoints", format!("the last one is kept in {}", directory.display()));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::finding::State;
    use super::*;
    use crate::authority_side::{LeaseSeen, Presence, Survey, Writer};

    /// Two replicas that are well, on a database that is well.
    fn standing() -> Standing {
        let presence = |name: &str| Presence {
            name: name.into(),
            version: "1".into(),
            configuration: "c".into(),
            rules: "r".into(),
            position: 100_000,
            connections: 6,
            uptime: 60,
        };
        let seen = |name: &str| Seen { presence: presence(name), ago: 2.0 };
        let settings = [
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("synchronous_commit", "on"),
            ("max_connections", "100"),
            ("superuser_reserved_connections", "3"),
        ];
        Standing {
            database: Survey {
                size: 100_000,
                entries: 100_000,
                clock: 0.0,
                settings: BTreeMap::from(settings.map(|(name, value)| (name.into(), value.into()))),
                connections: 12,
                standbys: (0, 0),
                is_standby: false,
                leases: vec![LeaseSeen {
                    work: "crl-full".into(),
                    holder: Some("a".into()),
                    left: Some(2.0),
                }],
                writers: vec![Writer { name: "b".into(), ago: 90.0 }],
                said: Vec::new(),
                hears: Ok(()),
            },
            ahead: 0.01,
            replicas: vec![seen("a"), seen("b")],
            own: presence("a"),
            checkpoints: "/nonexistent".into(),
        }
    }

    /// What is found after this change, beside what is always: no checkpoint lies there.
    fn after(change: impl FnOnce(&mut Standing)) -> Vec<(&'static str, State, String)> {
        let mut standing = standing();
        change(&mut standing);
        let mut findings = Findings::default();
        look(&standing, &mut findings);
        let told = findings.0.into_iter().filter(|finding| finding.check != "checkpoints");
        let told = told.filter(|finding| finding.state != State::Good).inspect(|finding| {
            assert!(finding.state == State::Unknown || !finding.advice.is_empty(), "{finding:?}");
        });
        told.map(|finding| (finding.check, finding.state, finding.found)).collect()
    }

    #[test]
    fn replicas_that_are_well_are_left_alone() {
        assert_eq!(after(|_| {}), []);
    }

    #[test]
    fn each_trouble_is_told_alone_with_what_was_seen() {
        type Change = fn(&mut Standing);
        let cases: [(Change, &str, State, &str); 14] = [
            (|it| it.replicas[1].presence.position = 90_000, "replicas", State::Bad, "10000 behind"),
            (|it| it.replicas[1].ago = 61.0, "replicas", State::Warning, "61 s; it wrote 90 s ago"),
            (|it| it.replicas[1].presence.version = "0".into(), "agreement", State::Warning, "version 0"),
            (|it| it.replicas[1].presence.rules = "x".into(), "agreement", State::Bad, "policy"),
            (|it| it.ahead = -7.0, "database clock", State::Bad, "-7.0 s"),
            (|it| it.ahead = 2.0, "database clock", State::Warning, "+2.0 s"),
            (|it| it.database.leases[0].left = Some(-30.0), "leases", State::Bad, "crl-full for 30 s; a did"),
            (|it| it.database.leases[0].holder = Some("old".into()), "replicas", State::Warning, "old does"),
            (|it| it.database.is_standby = true, "database", State::Bad, "standby"),
            (|it| it.database.standbys = (2, 0), "database", State::Warning, "2 standbys"),
            (|it| it.database.entries = 99_999, "database log", State::Bad, "99999"),
            (|it| it.database.hears = Err("silence".into()), "notifications", State::Warning, "silence"),
            (|it| it.replicas[1].presence.connections = 90, "connections", State::Warning, "96 at most"),
            (|it| drop(it.database.settings.remove("fsync")), "database", State::Unknown, "fsync"),
        ];
        for (change, check, state, words) in cases {
            let found = after(change);
            assert!(
                matches!(found.as_slice(), [one] if one.0 == check && one.1 == state && one.2.contains(words)),
                "{check} {words}: {found:#?}"
            );
        }
        for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
            let found = after(|it| drop(it.database.settings.insert(setting.into(), "off".into())));
            assert!(matches!(found.as_slice(), [("database", State::Bad, text)] if text.contains(setting)));
        }
    }
}
