//! Where a server is: an address on the network, or a socket in the file system.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use rustls_pki_types::ServerName;

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// TLS over TCP.
    Https {
        /// A DNS name or an IP address; the server's certificate must have it.
        host: String,
        /// The port.
        port: u16,
    },
    /// A UNIX socket without TLS: the admin socket, protected by its permissions.
    Unix(PathBuf),
}

/// A text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a server address: {problem}; write https://host:port or unix:/path/to/admin.sock")]
pub struct EndpointError {
    given: String,
    problem: &'static str,
}

impl Endpoint {
    /// What to send as the HTTP authority.
    #[must_use]
    pub fn authority(&self) -> String {
        match self {
            Self::Https { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Https { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    /// The scheme that a request's URI carries.
    #[must_use]
    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Self::Https { .. } => "https",
            Self::Unix(_) => "http",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Https { .. } => write!(formatter, "https://{}", self.authority()),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |problem| EndpointError { given: text.chars().take(200).collect(), problem };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(error("the socket's path is not absolute"))
            };
        }
        if text.starts_with("http://") {
            return Err(error("plain HTTP is never spoken to a certificate authority"));
        }
        let rest = text.strip_prefix("https://").ok_or_else(|| error("there is no https://"))?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = split_port(authority).ok_or_else(|| error("the port is not a number"))?;
        if ServerName::try_from(host).is_err() {
            return Err(error("the host is neither a DNS name nor an IP address"));
        }
        Ok(Self::Https { host: host.to_owned(), port })
    }
}

fn split_port(authority: &str) -> Option<(&str, u16)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None if rest.is_empty() => Some((host, HTTPS_PORT)),
            None => None,
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((authority, HTTPS_PORT)),
    }
}

const HTTPS_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts_addresses_and_sockets() {
        for (text, printed) in [
            ("https://ca.example.org", "https://ca.example.org:443"),
            ("https://127.0.0.1:8443/", "https://127.0.0.1:8443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("https://[::1]", "https://[::1]:443"),
            ("unix:/run/chancery/admin.sock", "unix:/run/chancery/admin.sock"),
            ("unix:///run/admin.sock", "unix:/run/admin.sock"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn refuses_plain_http_paths_and_nonsense() {
        for text in [
            "http://ca.example.org",
            "ca.example.org",
            "https://ca.example.org/v1",
            "https://user@ca.example.org",
            "https://ca.example.org:port",
            "https://[::1]x",
            "https://",
            "unix:relative.sock",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
