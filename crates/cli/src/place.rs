//! Whether this command runs beside an authority's configuration, and what follows from it.
//!
//! An operator on the server's own host types nothing: address, root, operator certificate and admin socket are
//! read from `chancery.toml`. Only what a client needs is read here; the authority checks the file as a whole.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chancery_types::{SpiffeId, TrustDomain};
use serde::Deserialize;

use crate::failure::usage;
use crate::files;

/// What a configuration file says to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file.
    pub(crate) file: PathBuf,
    /// The trust domain.
    pub(crate) trust_domain: TrustDomain,
    /// Where the API is reached from this host.
    pub(crate) server: String,
    /// The root certificates.
    pub(crate) root_certificate: PathBuf,
    /// The admin socket.
    pub(crate) admin_socket: PathBuf,
    /// The first operator's certificate.
    pub(crate) operator_certificate: PathBuf,
    /// The first operator's key.
    pub(crate) operator_key: PathBuf,
}

impl Place {
    /// The configuration that was named, or else the one that lies at hand; nothing when there is none.
    pub(crate) fn find(named: Option<&Path>) -> Result<Option<Self>> {
        match locate(named)? {
            Some(file) => Self::read(&file).map(Some),
            None => Ok(None),
        }
    }

    fn read(file: &Path) -> Result<Self> {
        let text = files::read_text(file, MAX_CONFIG)?;
        let raw: Raw = toml::from_str(&text).with_context(|| {
            format!("{} is not a configuration; `chancery check-config` says more", file.display())
        })?;
        let file = std::path::absolute(file)?;
        let directory = file.parent().unwrap_or(Path::new("/")).to_owned();
        Self::of(&raw, file, &directory)
    }

    fn of(raw: &Raw, file: PathBuf, directory: &Path) -> Result<Self> {
        let api: SocketAddr = raw.listen.api.parse().with_context(|| {
            format!("{}: listen.api {:?} is not address:port", file.display(), raw.listen.api)
        })?;
        Ok(Self {
            trust_domain: TrustDomain::parse(&raw.trust_domain)
                .with_context(|| format!("{}: trust_domain", file.display()))?,
            server: format!("https://{}:{}", bracketed(&reachable_name(&raw.names, api.ip())), api.port()),
            root_certificate: roots_beside(directory.join(&raw.root.certificate)),
            admin_socket: directory.join(&raw.listen.admin_socket),
            operator_certificate: directory.join("operators/admin.crt"),
            operator_key: directory.join("operators/admin.key"),
            file,
        })
    }
}

/// The bundle that the server keeps beside the root's certificate once there was another root; else that certificate.
pub(crate) fn roots_beside(root_certificate: PathBuf) -> PathBuf {
    let bundle = root_certificate.with_file_name("bundle.pem");
    if bundle.is_file() { bundle } else { root_certificate }
}

/// The configuration file: the one that was named, or the first that exists of those at hand.
pub(crate) fn locate(named: Option<&Path>) -> Result<Option<PathBuf>> {
    let Some(named) = named else {
        return Ok(AT_HAND.iter().map(PathBuf::from).find(|path| path.is_file()));
    };
    let file = if named.is_dir() { named.join("chancery.toml") } else { named.to_owned() };
    if file.is_file() {
        return Ok(Some(file));
    }
    Err(usage(format!(
        "{} does not exist; name the chancery.toml that `chancery init` wrote, or leave --config out",
        file.display()
    )))
}

/// The configuration file, for commands that cannot do without.
pub(crate) fn required(named: Option<&Path>) -> Result<PathBuf> {
    locate(named)?.ok_or_else(|| {
        usage(format!(
            "no configuration found ({}); run `chancery init`, or name the file with --config",
            AT_HAND.join(", ")
        ))
    })
}

/// A SPIFFE ID, or a path that is completed with the trust domain of the configuration at hand.
pub(crate) fn identity(text: &str, place: Option<&Place>) -> Result<SpiffeId> {
    if text.starts_with("spiffe:") {
        return SpiffeId::parse(text).with_context(|| format!("{text:?} is not a SPIFFE ID"));
    }
    let Some(place) = place else {
        return Err(usage(format!(
            "{text:?} is not a whole SPIFFE ID, and no configuration at hand names the trust domain; write \
             spiffe://TRUST-DOMAIN/{}",
            text.trim_start_matches('/')
        )));
    };
    place
        .trust_domain
        .member(&format!("/{}", text.trim_start_matches('/')))
        .with_context(|| format!("{text:?} is not a path of {}", place.trust_domain))
}

/// The name of the server that works from this host: the address that it listens on, a local name when it
/// listens locally, or else the first.
fn reachable_name(names: &[String], listens: IpAddr) -> String {
    let local = |name: &&String| {
        *name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    names
        .iter()
        .find(|name| name.parse::<IpAddr>() == Ok(listens))
        .or_else(|| names.iter().find(local).filter(|_| listens.is_loopback() || listens.is_unspecified()))
        .or_else(|| names.first())
        .cloned()
        .unwrap_or_else(|| listens.to_string())
}

fn bracketed(name: &str) -> String {
    if name.contains(':') { format!("[{name}]") } else { name.to_owned() }
}

/// The parts of the file that a client needs.
#[derive(Debug, Deserialize)]
struct Raw {
    trust_domain: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    listen: RawListen,
    root: RawRoot,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct RawListen {
    api: String,
    admin_socket: PathBuf,
}

impl Default for RawListen {
    fn default() -> Self {
        Self { api: "127.0.0.1:8443".into(), admin_socket: "run/admin.sock".into() }
    }
}

#[derive(Debug, Deserialize)]
struct RawRoot {
    certificate: PathBuf,
}

/// Where a configuration is looked for when none is named.
const AT_HAND: [&str; 3] = ["chancery.toml", "chancery/chancery.toml", "/etc/chancery/chancery.toml"];
/// Bytes of a configuration that are read.
const MAX_CONFIG: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(names: &str, api: &str) -> Place {
        let text = format!(
            "trust_domain = \"example.org\"\nnames = {names}\n[listen]\napi = \"{api}\"\n[root]\n\
             certificate = \"certs/root.crt\"\n[keys]\nissuer = \"file:x\"\n"
        );
        let raw: Raw = toml::from_str(&text).unwrap();
        Place::of(&raw, "/etc/chancery/chancery.toml".into(), Path::new("/etc/chancery")).unwrap()
    }

    #[test]
    fn everything_is_relative_to_the_file() {
        let place = place(r#"["ca.example.org"]"#, "192.0.2.1:9443");
        assert_eq!(place.server, "https://ca.example.org:9443");
        assert_eq!(place.root_certificate, Path::new("/etc/chancery/certs/root.crt"));
        assert_eq!(place.operator_key, Path::new("/etc/chancery/operators/admin.key"));
        assert_eq!(place.admin_socket, Path::new("/etc/chancery/run/admin.sock"));
    }

    #[test]
    fn the_server_is_called_by_a_name_that_works_from_here() {
        for (names, api, server) in [
            (r#"["ca.example.org", "127.0.0.1"]"#, "127.0.0.1:1", "https://127.0.0.1:1"),
            (r#"["ca.example.org", "localhost"]"#, "127.0.0.1:1", "https://localhost:1"),
            (r#"["ca.example.org", "localhost"]"#, "0.0.0.0:1", "https://localhost:1"),
            (r#"["ca.example.org", "localhost"]"#, "192.0.2.1:1", "https://ca.example.org:1"),
            (r#"["ca.example.org", "192.0.2.1"]"#, "192.0.2.1:1", "https://192.0.2.1:1"),
            (r#"["::1"]"#, "[::1]:1", "https://[::1]:1"),
            (r#"["ca.example.org"]"#, "127.0.0.1:1", "https://ca.example.org:1"),
        ] {
            assert_eq!(place(names, api).server, server, "{names} {api}");
        }
    }

    #[test]
    fn a_path_is_completed_and_never_guessed() {
        let place = place(r#"["x"]"#, "127.0.0.1:1");
        for text in ["web", "/web", "spiffe://example.org/web"] {
            assert_eq!(identity(text, Some(&place)).unwrap().as_str(), "spiffe://example.org/web");
        }
        let refused = identity("web", None).unwrap_err().to_string();
        assert!(refused.contains("spiffe://TRUST-DOMAIN/web"), "{refused}");
        assert!(identity("a b", Some(&place)).is_err());
    }

    #[test]
    fn a_named_configuration_must_exist() {
        let directory = tempfile::tempdir().unwrap();
        let refused = locate(Some(directory.path())).unwrap_err().to_string();
        assert!(refused.contains("chancery.toml does not exist"), "{refused}");
        std::fs::write(directory.path().join("chancery.toml"), "").unwrap();
        assert_eq!(locate(Some(directory.path())).unwrap(), Some(directory.path().join("chancery.toml")));
    }
}
