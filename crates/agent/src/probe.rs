//! Looks at what a service really serves: connects as a client does and reads the certificate that comes.
//!
//! It verifies no chain, because the question is not whether the service is to be believed but whether it serves one
//! known certificate, byte for byte. It does check that the service has the key of what it serves. It sends
//! nothing but a handshake.

mod settings;
#[cfg(test)]
mod tests;
mod tls;

use std::time::Duration;

use chancery_types::Timestamp;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use x509_cert::der::Decode;

pub use self::settings::{OnFailure, Probe, ProbeSettings, StartTls};

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// The certificate that was expected.
    Serving,
    /// Another one: issued, not serving.
    ServingAnother {
        /// Its serial number, hexadecimal.
        serial: String,
        /// When it ends, if that can be read.
        not_after: Option<Timestamp>,
    },
    /// None: no connection, no TLS, or a key that does not belong to the certificate.
    NotServing {
        /// What went wrong.
        why: String,
    },
}

impl Probe {
    /// Looks once.
    pub async fn look(&self, expected: &[u8]) -> ProbeOutcome {
        let seen = match timeout(self.timeout, self.handshake()).await {
            Ok(seen) => seen,
            Err(_) => Err(format!("no handshake within {:?}", self.timeout)),
        };
        match seen {
            Ok(leaf) if leaf == expected => ProbeOutcome::Serving,
            Ok(leaf) => another(&leaf),
            Err(why) => ProbeOutcome::NotServing { why: format!("{}: {why}", self.address) },
        }
    }

    /// Looks until it sees what is expected, or until its patience is over: most services take a moment to reload.
    pub async fn wait_for(&self, expected: &[u8]) -> ProbeOutcome {
        let mut pause = FIRST_PAUSE;
        let watch = async {
            loop {
                if self.look(expected).await == ProbeOutcome::Serving {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        };
        match timeout(self.patience, watch).await {
            Ok(()) => ProbeOutcome::Serving,
            Err(_) => self.look(expected).await,
        }
    }

    /// The leaf certificate of a handshake.
    async fn handshake(&self) -> Result<Vec<u8>, String> {
        let mut stream = TcpStream::connect(&self.address).await.map_err(|error| error.to_string())?;
        match self.starttls {
            None => {}
            Some(StartTls::Postgres) => ask_postgres(&mut stream).await?,
        }
        tls::served_leaf(stream, self.server_name.clone(), &self.alpn).await
    }
}

/// `SSLRequest` of PostgreSQL's protocol, and its answer of one byte.
async fn ask_postgres(stream: &mut TcpStream) -> Result<(), String> {
    let error = |error: std::io::Error| error.to_string();
    let mut request = [0; 8];
    request[..4].copy_from_slice(&8_u32.to_be_bytes());
    request[4..].copy_from_slice(&80_877_103_u32.to_be_bytes());
    stream.write_all(&request).await.map_err(error)?;
    match stream.read_u8().await.map_err(error)? {
        b'S' => Ok(()),
        b'N' => Err("PostgreSQL does not offer TLS: is ssl on?".to_owned()),
        _ => Err("this is not PostgreSQL".to_owned()),
    }
}

fn another(leaf: &[u8]) -> ProbeOutcome {
    match x509_cert::Certificate::from_der(leaf) {
        Ok(certificate) => {
            let certificate = certificate.tbs_certificate();
            let not_after = certificate.validity().not_after.to_unix_duration();
            ProbeOutcome::ServingAnother {
                serial: data_encoding::HEXLOWER.encode(certificate.serial_number().as_bytes()),
                not_after: i64::try_from(not_after.as_secs()).ok().map(Timestamp::from_seconds),
            }
        }
        Err(error) => ProbeOutcome::NotServing { why: format!("what it serves is no certificate: {error}") },
    }
}

/// The pause after the first look; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
