//! `chancery fetch`: what the agent gives this process, for scripts.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chancery_agent::config::DEFAULT_SOCKET;
use chancery_agent::proto::workload::{JwtsvidRequest, X509svid, X509svidRequest};
use chancery_agent::workload_api::client;
use chancery_types::Digest;
use chancery_x509::{CERTIFICATE, PRIVATE_KEY, split_certificates, write_pem, write_secret_pem};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::failure::usage;
use crate::files::{self, PUBLIC, SECRET};
use crate::terminal::Terminal;

/// Asks the agent of this machine for what it gives this process.
#[derive(Debug, Subcommand)]
pub(crate) enum Fetch {
    /// Certificates: print what they are, or write them into a directory.
    X509(X509),
    /// Tokens for an audience: printed, one a line.
    Jwt(Jwt),
}

#[derive(Debug, Args)]
struct Socket {
    /// The Workload API, as a path or unix:/path.
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET", value_name = "SOCKET", default_value = DEFAULT_SOCKET)]
    socket: String,
}

#[derive(Debug, Args)]
pub(crate) struct X509 {
    #[command(flatten)]
    socket: Socket,
    /// Write tls.crt, tls.key and ca.crt of the default identity here; further identities get a number: tls.1.crt.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Stay, and print whatever replaces it, until the agent withdraws it; with --json a line each time. Files that are
    /// kept fresh are what `chancery run --files` and file sinks are for: they never show a torn pair.
    #[arg(long, conflicts_with = "write")]
    watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Jwt {
    #[command(flatten)]
    socket: Socket,
    /// Whom the token is for; repeatable.
    #[arg(long, value_name = "AUDIENCE", required = true)]
    audience: Vec<String>,
    /// Of this identity alone.
    #[arg(long, value_name = "ID", default_value = "")]
    identity: String,
}

impl Fetch {
    pub(crate) async fn run(&self, terminal: &Terminal) -> Result<()> {
        match self {
            Self::X509(x509) => x509.run(terminal).await,
            Self::Jwt(jwt) => jwt.run(terminal).await,
        }
    }
}

impl Socket {
    async fn connect(&self) -> Result<client::Client> {
        Ok(client::connect(&socket_path(&self.socket)?).await?)
    }
}

/// The socket that an endpoint address names (SPIFFE Workload Endpoint section 4), or a plain path.
pub(crate) fn socket_path(text: &str) -> Result<PathBuf> {
    let path = text.strip_prefix("unix:").unwrap_or(text);
    let path = Path::new(path.strip_prefix("//").unwrap_or(path));
    if !path.is_absolute() {
        return Err(usage(format!("{text:?} is not the absolute path of a socket")));
    }
    Ok(path.to_owned())
}

impl X509 {
    async fn run(&self, terminal: &Terminal) -> Result<()> {
        let mut client = self.socket.connect().await?;
        let answer = client.fetch_x509svid(X509svidRequest {}).await.map_err(refused)?;
        let mut stream = answer.into_inner();
        loop {
            let next = stream.message().await.map_err(refused)?;
            self.show(&next.context("the agent ended the stream")?.svids, terminal)?;
            if !self.watch {
                return Ok(());
            }
        }
    }

    fn show(&self, svids: &[X509svid], terminal: &Terminal) -> Result<()> {
        if let Some(directory) = &self.write {
            write(directory, svids)?;
        }
        let identities: Vec<Identity> = svids.iter().map(Identity::of).collect::<Result<_>>()?;
        if self.watch && terminal.is_json() {
            return terminal.text(&serde_json::to_string(&identities)?);
        }
        terminal.data(&identities, || {
            let header = ["IDENTITY", "SERIAL", "VALID UNTIL", "HINT"];
            terminal.table(&header, identities.iter().map(Identity::row))
        })
    }
}

/// What is printed of a certificate: nothing secret.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) spiffe_id: String,
    pub(crate) serial: String,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub(crate) key_fingerprint: Digest,
    not_after: String,
    hint: String,
}

impl Identity {
    fn of(svid: &X509svid) -> Result<Self> {
        let leaf = chain(&svid.x509_svid)?.into_iter().next().context("the agent sent no certificate")?;
        let leaf = chancery_x509::Certificate::from_der(&leaf)?;
        let serial = leaf.serial_number().map(|serial| serial.to_string()).unwrap_or_default();
        Ok(Self {
            spiffe_id: svid.spiffe_id.clone(),
            serial,
            key_fingerprint: Digest::of(leaf.tbs().spki_der()),
            not_after: leaf.tbs().not_after().to_string(),
            hint: svid.hint.clone(),
        })
    }

    fn row(&self) -> Vec<String> {
        vec![self.spiffe_id.clone(), self.serial.clone(), self.not_after.clone(), self.hint.clone()]
    }
}

impl Jwt {
    async fn run(&self, terminal: &Terminal) -> Result<()> {
        let mut client = self.socket.connect().await?;
        let request = JwtsvidRequest { audience: self.audience.clone(), spiffe_id: self.identity.clone() };
        let svids = client.fetch_jwtsvid(request).await.map_err(refused)?.into_inner().svids;
        let tokens: Vec<serde_json::Value> = svids
            .iter()
            .map(|svid| {
                serde_json::json!({ "spiffe_id": svid.spiffe_id, "token": svid.svid, "hint": svid.hint })
            })
            .collect();
        terminal.data(&tokens, || svids.iter().map(|svid| format!("{}\n", svid.svid)).collect())
    }
}

/// What went wrong, with what can be done.
fn refused(status: tonic::Status) -> anyhow::Error {
    let advice = match status.code() {
        tonic::Code::PermissionDenied => {
            "; no identity that this node may serve has selectors which this process fulfils: \
             `chancery identity show` has them"
        }
        tonic::Code::Unavailable => "; `chancery agent status` says how the agent stands",
        _ => "",
    };
    anyhow::anyhow!("the agent refused ({:?}): {}{advice}", status.code(), status.message())
}

fn write(directory: &Path, svids: &[X509svid]) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for (number, svid) in svids.iter().enumerate() {
        let name = |stem: &str, ending: &str| match number {
            0 => directory.join(format!("{stem}.{ending}")),
            _ => directory.join(format!("{stem}.{number}.{ending}")),
        };
        let pem = |der: &[u8]| -> Result<String> {
            Ok(chain(der)?.iter().map(|der| write_pem(CERTIFICATE, der)).collect())
        };
        let key: Zeroizing<String> = write_secret_pem(PRIVATE_KEY, &svid.x509_svid_key);
        files::replace(&name("tls", "key"), key.as_bytes(), SECRET)?;
        files::replace(&name("tls", "crt"), pem(&svid.x509_svid)?.as_bytes(), PUBLIC)?;
        files::replace(&name("ca", "crt"), pem(&svid.bundle)?.as_bytes(), PUBLIC)?;
    }
    Ok(())
}

/// Certificates that were written one behind the other.
fn chain(der: &[u8]) -> Result<Vec<Vec<u8>>> {
    split_certificates(der, 64).context("the agent's answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_as_a_path_or_as_spiffe_writes_it() {
        for text in ["/run/a.sock", "unix:/run/a.sock", "unix:///run/a.sock"] {
            assert_eq!(socket_path(text).unwrap(), Path::new("/run/a.sock"), "{text}");
        }
        for text in ["a.sock", "tcp://127.0.0.1:80", "unix:a.sock"] {
            assert!(socket_path(text).unwrap_err().to_string().contains("absolute path"), "{text}");
        }
    }
}
