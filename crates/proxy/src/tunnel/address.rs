//! Places to listen at and to connect to: `host:port`, or `unix:/path`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use rustls_pki_types::ServerName;

/// A place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// TCP, by name or address.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A UNIX socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads one; paths are relative to this directory.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(directory.join(path.strip_prefix("//").unwrap_or(path))));
        }
        let wrong = || format!("{text:?} is neither host:port nor unix:/path");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        ServerName::try_from(host).map_err(|_| wrong())?;
        Ok(Self::Tcp { host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
    }

    /// Whether only this machine is there.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }

    /// The address to listen at; nothing for names, which change.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { host, port } => Some(SocketAddr::new(host.parse().ok()?, *port)),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts_addresses_and_sockets() {
        let here = Path::new("/etc/chancery");
        for (text, printed, local) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("[::1]:80", "[::1]:80", true),
            ("0.0.0.0:80", "0.0.0.0:80", false),
            ("db.example.org:5432", "db.example.org:5432", false),
            ("unix:/run/web.sock", "unix:/run/web.sock", true),
            ("unix:web.sock", "unix:/etc/chancery/web.sock", true),
        ] {
            let address = Address::parse(text, here).unwrap();
            assert_eq!((address.to_string().as_str(), address.is_local()), (printed, local), "{text}");
        }
        for text in ["", "80", "localhost", "a b:80", "127.0.0.1:99999", ":80"] {
            assert!(Address::parse(text, here).is_err(), "{text}");
        }
    }
}
