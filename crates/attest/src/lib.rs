//! Evidence in, proven claims out: the only place that can say Attested.
