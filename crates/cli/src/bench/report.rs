//! What was measured, as a table and as JSON.

use std::time::Duration;

use serde::Serialize;

use super::feed::FeedFigures;
use super::floor::Floor;
use super::load::Load;
use super::replicas::GrowthFigures;
use crate::terminal::{Terminal, Tone};

/// One line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// Requests.
    pub(crate) requests: u64,
    /// Certificates, or answers.
    pub(crate) units: u64,
    /// Of these a second.
    pub(crate) per_second: f64,
    /// CPU microseconds of the authority's process for each.
    pub(crate) cpu_us: f64,
    /// CPU microseconds that their cryptography needs.
    pub(crate) floor_us: Option<f64>,
    /// How many times the floor that is.
    pub(crate) times_floor: Option<f64>,
    /// The rate as a share of what all cores could do with the cryptography alone.
    pub(crate) share_of_floor: Option<f64>,
    /// Latency, milliseconds.
    pub(crate) p50_ms: f64,
    /// Latency, milliseconds.
    pub(crate) p99_ms: f64,
    /// Latency, milliseconds.
    pub(crate) p999_ms: f64,
    /// Syncs of the ledger, where they could be counted.
    pub(crate) syncs: Option<u64>,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// The machine.
    pub(crate) floor: Floor,
    /// Clients at once over the wire.
    pub(crate) clients: usize,
    /// Enrolments at once in process.
    pub(crate) in_flight: usize,
    /// The lines.
    pub(crate) rows: Vec<Row>,
    /// DER bytes of a certificate.
    pub(crate) certificate_bytes: Option<u64>,
    /// Bytes on disk for each entry of the ledger.
    pub(crate) disk_bytes_per_entry: Option<u64>,
    /// Entries of the ledger in the end.
    pub(crate) entries: Option<u64>,
    /// Resident memory of the server process in the end.
    pub(crate) server_resident_bytes: Option<u64>,
    /// The status feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) feed: Option<FeedFigures>,
    /// One replica, two, and so on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) growth: Vec<GrowthFigures>,
}

impl Row {
    /// From a load, the CPU time that it took, and the floor of one unit.
    pub(crate) fn new(
        what: &str,
        load: &Load,
        cpu: Duration,
        (floor_us, cores): (Option<f64>, usize),
        syncs: Option<u64>,
    ) -> Self {
        let cpu_us = load.each_us(cpu);
        Self {
            what: what.to_owned(),
            requests: load.requests,
            units: load.units,
            per_second: load.rate(),
            cpu_us,
            floor_us,
            times_floor: floor_us.map(|floor| cpu_us / floor),
            share_of_floor: floor_us.map(|floor| load.rate() * floor / (cores as f64 * 1e6)),
            p50_ms: load.percentile_ms(0.5),
            p99_ms: load.percentile_ms(0.99),
            p999_ms: load.percentile_ms(0.999),
            syncs,
        }
    }
}

impl Report {
    /// The table with the machine above it.
    pub(crate) fn text(&self, terminal: &Terminal) -> String {
        let floor = &self.floor;
        let mut text = terminal.paint(Tone::Strong, "This machine") + "\n";
        text.push_str(&format!(
            "{} cores; CPU us of one core with all busy: P-256 sign {:.1}, verify {:.1}, new key {:.1}; SHA-256 of \
             1 KiB {:.2}\n",
            floor.cores, floor.sign_us, floor.verify_us, floor.keygen_us, floor.hash_us
        ));
        text.push_str(&format!(
            "append 1.5 KiB and fdatasync: p50 {:.2} ms, p99 {:.2} ms\n",
            floor.sync_p50_ms, floor.sync_p99_ms
        ));
        text.push_str(&format!(
            "floor of an enrolment (verify the request, sign, verify what was signed): {:.0} us; vouched key: {:.0} \
             us\n\n",
            floor.enrolment_us(),
            floor.vouched_us()
        ));
        let number = |value: Option<u64>, unit: &str| value.map(|n| format!("{n}{unit}")).unwrap_or_default();
        text.push_str(&self.row_lines(terminal));
        text.push_str(&self.feed.as_ref().map(feed_lines).unwrap_or_default());
        text.push_str(&growth_lines(&self.growth, terminal));
        text + &terminal.fields([
            ("bytes of a certificate", number(self.certificate_bytes, "")),
            ("bytes on disk for an entry", number(self.disk_bytes_per_entry, "")),
            ("entries in the ledger", number(self.entries, "")),
            ("server's memory", number(self.server_resident_bytes.map(|bytes| bytes >> 20), " MiB")),
        ])
    }

    fn row_lines(&self, terminal: &Terminal) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let heading = format!(
            "{:<35}{:>9}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}\n",
            "", "per sec", "CPU us", "x floor", "% floor", "p50", "p99", "p99.9", "fsyncs"
        );
        let lines: String = self.rows.iter().map(line).collect();
        let legend = format!(
            "\nCPU us: of the authority's process for each certificate or answer. % floor: of what all {} cores\n\
             could do with the cryptography alone; over the wire the clients use the same cores. Latencies in\n\
             ms, {} clients at once over the wire, {} enrolments at once in process.\n\n",
            self.floor.cores, self.clients, self.in_flight
        );
        terminal.paint(Tone::Strong, heading) + &lines + &legend
    }
}

fn feed_lines(feed: &FeedFigures) -> String {
    format!(
        "{} programs follow the status feed over TLS, connected in {:.0} s.\n\
         From the answer to a revocation to the event at each: p50 {:.0} ms, p99 {:.0} ms, most {:.0} ms.\n\
         The server's memory grew by {} MiB idle, {} MiB in the end; heartbeats take {:.1} % of a core.\n\n",
        feed.listeners,
        feed.connecting_seconds,
        feed.p50_ms,
        feed.p99_ms,
        feed.most_ms,
        feed.growth_bytes[0] >> 20,
        feed.growth_bytes[1] >> 20,
        feed.idle_share * 100.0
    )
}

fn growth_lines(growth: &[GrowthFigures], terminal: &Terminal) -> String {
    let Some(one) = growth.first() else { return String::new() };
    let heading = format!(
        "{:<35}{:>9}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}\n",
        "Replicas on one database", "per sec", "x one", "CPU us", "% core", "% idle", "p50", "p99"
    );
    let line = |found: &GrowthFigures| {
        format!(
            "{:<35}{:>9.0}{:>8.2}{:>8.0}{:>8.0}{:>8.0}{:>8.2}{:>8.2}\n",
            found.replicas,
            found.per_second,
            found.per_second / one.per_second,
            found.cpu_us,
            found.core_share * 100.0,
            found.idle_share * 100.0,
            found.p50_ms,
            found.p99_ms
        )
    };
    let lines: String = growth.iter().map(line).collect();
    let legend = "\nCPU us: of all replicas for each certificate. % core: of one core, what each of them used. % idle: of all\n\
                  cores, what nobody used, neither replicas nor clients nor the database. Latencies in ms.\n\n";
    terminal.paint(Tone::Strong, heading) + &lines + legend
}

fn line(row: &Row) -> String {
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    format!(
        "{:<35}{:>9.0}{:>8.0}{:>8}{:>8}{:>8.2}{:>8.2}{:>8.2}{:>8}\n",
        row.what,
        row.per_second,
        row.cpu_us,
        number(row.times_floor, 2),
        number(row.share_of_floor.map(|share| share * 100.0), 0),
        row.p50_ms,
        row.p99_ms,
        row.p999_ms,
        row.syncs.map_or_else(|| "-".to_owned(), |syncs| syncs.to_string())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_a_hundred_columns() {
        let row = Row {
            what: "x".repeat(35),
            requests: 1,
            units: 1,
            per_second: 123_456.0,
            cpu_us: 1234.5,
            floor_us: Some(1.0),
            times_floor: Some(12.345),
            share_of_floor: Some(1.0),
            p50_ms: 123.45,
            p99_ms: 1234.5,
            p999_ms: 1234.5,
            syncs: Some(123_456),
        };
        assert!(line(&row).chars().count() <= 101, "{}", line(&row).len());
    }
}
