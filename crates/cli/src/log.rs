//! The log on standard error, and the traces beside it.

use std::io::IsTerminal as _;

use anyhow::Result;
use chancery_telemetry::TelemetryConfig;
use clap::ValueEnum;
use tracing::Subscriber;
use tracing_subscriber::layer::{Layered, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::flags::Globals;
use crate::telemetry::{self, Exporter, StepLayer};

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A log that was started. Traces are exported until it is dropped.
pub(crate) struct Log {
    choose: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
    exporter: Option<Exporter>,
}

/// Changes what is logged.
pub(crate) struct LogControl(Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>);

impl Log {
    /// What changes it, and what has to be kept for as long as the process works.
    pub(crate) fn into_parts(self) -> (LogControl, Option<Exporter>) {
        (LogControl(self.choose), self.exporter)
    }
}

impl LogControl {
    /// Logs this from now on, in the words of $CHANCERY_LOG.
    pub(crate) fn choose(&self, text: &str) -> Result<(), String> {
        self.0(EnvFilter::try_new(text).map_err(|error| error.to_string())?)
    }
}

/// Writes what happens to standard error, and sends traces where there is a collector.
///
/// # Errors
/// When traces cannot be exported as configured.
pub(crate) fn start_log(
    format: LogFormat,
    globals: &Globals,
    service: &'static str,
    traces: &TelemetryConfig,
) -> Result<Log> {
    let (choose, exporter) = match telemetry::start(service, traces)? {
        // The filter of the log is that of the process: what it does not want costs nothing.
        None => {
            let (filter, handle) = reload::Layer::new(filter(globals));
            tracing_subscriber::registry().with(filter).with(lines(format)).init();
            (choice(handle), None)
        }
        Some((steps, exporter)) => {
            let (filter, handle) = reload::Layer::new(filter(globals));
            let log = lines::<Layered<StepLayer, Registry>>(format).with_filter(filter);
            tracing_subscriber::registry().with(steps).with(log).init();
            (choice(handle), Some(exporter))
        }
    };
    Ok(Log { choose, exporter })
}

/// The log of a command that exports no traces.
pub(crate) fn start_plain_log(globals: &Globals) {
    tracing_subscriber::registry().with(filter(globals)).with(lines(LogFormat::Text)).init();
}

fn choice<S: 'static>(
    handle: reload::Handle<EnvFilter, S>,
) -> Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync> {
    Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
}

fn filter(globals: &Globals) -> EnvFilter {
    let default = match (globals.quiet, globals.verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "info,chancery_server=debug",
        (false, _) => "info,chancery_server=debug,chancery_client=debug",
    };
    EnvFilter::try_from_env("CHANCERY_LOG").unwrap_or_else(|_| EnvFilter::new(default))
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let log = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => Box::new(log),
        LogFormat::Json => Box::new(log.json()),
    }
}
