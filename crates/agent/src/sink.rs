//! File sinks: an identity as files, for programs that know nothing of SPIFFE.
//!
//! One [`Sink`] follows one identity: it writes the files of each new certificate ([`SinkConfig`] says which and
//! where), runs the hook that tells the program, looks whether the program serves it, and says how that went. What
//! was in place stays in place until the new files are whole and on disk. Each sink is a task of its own; none waits
//! for another, and whoever sends states waits for none.
//!
//! It trusts the states that it is sent to have been verified, the configuration, and nothing that lies on disk.

mod config;
mod der;
mod directory;
mod jks;
pub mod owner;
mod pipeline;
mod pkcs12;
mod render;
mod status;
#[cfg(test)]
pub(crate) mod tests;

pub use self::config::{FileSettings, OnWithdrawal, SinkConfig, SinkConfigError, SinkSettings};
pub use self::directory::DirectoryError;
pub use self::pipeline::Sink;
pub use self::render::RenderError;
pub use self::status::{Certificate, Phase, SinkStatus};
