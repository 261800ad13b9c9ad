//! What the ledger counts, read when somebody asks for metrics.

use std::sync::Arc;

use chancery_ledger::{EmbeddedLedger, Ledger as _};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;

/// Entries and syncs of a ledger, since it was opened.
#[derive(Debug)]
pub(crate) struct LedgerCollector(pub(crate) Arc<EmbeddedLedger>);

impl Collector for LedgerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = [
            ("chancery_ledger_entries", "Durable entries of the ledger", self.0.head().size),
            (
                "chancery_ledger_syncs",
                "Times that the journal was synced to disk since the start",
                self.0.syncs(),
            ),
        ];
        for (name, help, count) in counts {
            let counter = ConstCounter::new(count);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}
