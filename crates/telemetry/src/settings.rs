//! `[telemetry]`: where traces go.

use std::path::{Path, PathBuf};

use http::Uri;
use serde::{Deserialize, Serialize};

/// The file's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTelemetry {
    /// A collector's OTLP/HTTP address, as `http://127.0.0.1:4318`; absent: `OTEL_EXPORTER_OTLP_ENDPOINT`, else nothing
    /// is exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<String>,
    /// PEM file with the roots of a collector's certificate, for https; the system's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roots: Option<String>,
    /// Which share of the traces that begin here is recorded: 0 to 1.
    pub sample: f64,
    /// Spans that wait for the collector at most; those beyond are dropped and counted.
    pub queue: usize,
}

impl Default for RawTelemetry {
    fn default() -> Self {
        Self { otlp: None, roots: None, sample: 1.0, queue: 4096 }
    }
}

impl RawTelemetry {
    /// Whether nothing of it was written.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where traces go, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryConfig {
    /// The collector's base address, without a slash at its end; what the environment says if absent.
    pub otlp: Option<String>,
    /// PEM file with the roots of its certificate; the system's if absent.
    pub roots: Option<PathBuf>,
    /// The share of traces, 0 to 1.
    pub sample: f64,
    /// Spans that wait.
    pub queue: usize,
}

/// Spans that may wait: a few hundred bytes each.
const MOST_QUEUE: usize = 1 << 20;

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self::check(RawTelemetry::default(), Path::new("/"), &mut Vec::new())
    }
}

impl TelemetryConfig {
    /// Checks the section; paths are relative to the directory.
    #[must_use]
    pub fn check(raw: RawTelemetry, directory: &Path, mistakes: &mut Vec<String>) -> Self {
        let otlp = raw.otlp.map(|text| text.trim_end_matches('/').to_owned());
        if let Some(problem) = otlp.as_deref().and_then(|text| address_problem(text).err()) {
            mistakes.push(format!("telemetry.otlp: {problem}"));
        }
        if !(0.0..=1.0).contains(&raw.sample) {
            mistakes.push(format!("telemetry.sample: {} does not lie between 0 and 1", raw.sample));
        }
        if !(1..=MOST_QUEUE).contains(&raw.queue) {
            let queue = raw.queue;
            mistakes.push(format!("telemetry.queue: {queue} does not lie between 1 and {MOST_QUEUE}"));
        }
        let roots = raw.roots.map(|path| directory.join(path));
        Self { otlp, roots, sample: raw.sample, queue: raw.queue }
    }
}

/// Whether this is a base address of OTLP over HTTP.
fn address_problem(text: &str) -> Result<(), String> {
    let like = "write it like http://127.0.0.1:4318";
    let uri: Uri = text.parse().map_err(|error| format!("{text:?}: {error}; {like}"))?;
    match (uri.scheme_str(), uri.host(), uri.query()) {
        (Some("http" | "https"), Some(host), None) if !host.is_empty() => {}
        _ => return Err(format!("{text:?} is no address of OTLP over HTTP; {like}")),
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("a password does not stand in an address; give OTEL_EXPORTER_OTLP_HEADERS".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<TelemetryConfig, Vec<String>> {
        let raw = toml::from_str(text).map_err(|error| vec![error.to_string()])?;
        let mut mistakes = Vec::new();
        let config = TelemetryConfig::check(raw, Path::new("/etc/chancery"), &mut mistakes);
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }

    #[test]
    fn nothing_is_exported_unless_it_is_asked_for() {
        let config = checked("").unwrap();
        assert_eq!((config.otlp, config.roots), (None, None));
        assert!((config.sample - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_collector_is_named_by_its_base_address() {
        let config =
            checked("otlp = \"https://otel.example:4318/\"\nroots = \"c.pem\"\nsample = 0.1").unwrap();
        assert_eq!(config.otlp.as_deref(), Some("https://otel.example:4318"));
        assert_eq!(config.roots.as_deref(), Some(Path::new("/etc/chancery/c.pem")));
    }

    #[test]
    fn every_mistake_is_said_with_its_field() {
        for (text, field) in [
            ("otlp = \"collector:4318\"", "telemetry.otlp"),
            ("otlp = \"ftp://collector\"", "telemetry.otlp"),
            ("otlp = \"http://\"", "telemetry.otlp"),
            ("otlp = \"http://me:secret@collector\"", "telemetry.otlp"),
            ("otlp = \"http://collector?x=1\"", "telemetry.otlp"),
            ("sample = 1.5", "telemetry.sample"),
            ("sample = -0.1", "telemetry.sample"),
            ("sample = nan", "telemetry.sample"),
            ("queue = 0", "telemetry.queue"),
            ("queue = 99999999", "telemetry.queue"),
            ("oltp = \"http://collector\"", "oltp"),
        ] {
            let mistakes = checked(text).unwrap_err();
            assert!(mistakes.len() == 1 && mistakes[0].contains(field), "{text}: {mistakes:?}");
        }
        let secret = checked("otlp = \"http://me:secret@collector\"").unwrap_err();
        assert!(!secret[0].contains("secret@"), "{secret:?}");
    }
}
