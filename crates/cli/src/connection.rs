//! From flags to a client: which server, trusted why, and as whom.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chancery_client::{Client, Endpoint, TlsIdentity, TrustAnchors};
use chancery_types::{Clock as _, Digest, SystemClock, Timestamp};
use chancery_x509::{Certificate, read_certificates};
use clap::Args;

use crate::failure::usage;
use crate::files;
use crate::flags::Globals;
use crate::place::Place;

/// Which server, and why it is trusted.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Reach {
    /// The server, as https://host:port; beside a configuration, the one that it describes.
    #[arg(long, env = "CHANCERY_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The roots to trust, PEM.
    #[arg(long, env = "CHANCERY_TRUST_BUNDLE", value_name = "FILE", conflicts_with = "fingerprint")]
    pub(crate) trust_bundle: Option<PathBuf>,
    /// The SHA-256 fingerprint of the root to trust: enough on first contact.
    #[arg(long, env = "CHANCERY_FINGERPRINT", value_name = "HEX")]
    pub(crate) fingerprint: Option<Digest>,
    /// The server's admin socket, on its own host: needs no certificate.
    #[arg(long, env = "CHANCERY_ADMIN_SOCKET", value_name = "PATH",
          conflicts_with_all = ["server", "trust_bundle", "fingerprint"])]
    pub(crate) admin_socket: Option<PathBuf>,
}

/// As whom an operator connects.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct OperatorIdentity {
    /// The operator's certificate, PEM.
    #[arg(long, env = "CHANCERY_CERT", value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// The operator's key, PEM.
    #[arg(long, env = "CHANCERY_KEY", value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

/// Both, for the commands of operators.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Connection {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) operator: OperatorIdentity,
}

/// A decided way to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    endpoint: Endpoint,
    trust: Trust,
    identity: Option<IdentityFiles>,
}

/// Why the server is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trust {
    /// It descends from one of these roots.
    Bundle(PathBuf),
    /// It descends from the root with this fingerprint.
    Fingerprint(Digest),
    /// The socket's permissions say so.
    Socket,
}

/// A client certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdentityFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Connection {
    /// A client for an operator's request.
    pub(crate) async fn open(&self, globals: &Globals) -> Result<Client> {
        let place = Place::find(globals.config.as_deref())?;
        self.open_beside(place.as_ref()).await
    }

    /// The same beside a configuration that was found already.
    pub(crate) async fn open_beside(&self, place: Option<&Place>) -> Result<Client> {
        let given = match (&self.operator.cert, &self.operator.key) {
            (Some(certificate), Some(key)) => {
                Some(IdentityFiles { certificate: certificate.clone(), key: key.clone() })
            }
            _ => None,
        };
        let own = place.map(|place| OwnIdentity::look(place, SystemClock.now()));
        Route::decide(&self.reach, Who::Operator(given), place, own)?.open().await
    }
}

impl Reach {
    /// A client that shows this certificate, or none.
    pub(crate) async fn open(
        &self,
        place: Option<&Place>,
        identity: Option<IdentityFiles>,
    ) -> Result<Client> {
        Route::decide(self, Who::Holder(identity), place, None)?.open().await
    }

    /// These flags, with a fingerprint that came by another way unless trust was given already.
    pub(crate) fn with_fingerprint(&self, fingerprint: Option<Digest>) -> Self {
        let mut reach = self.clone();
        if reach.trust_bundle.is_none() && reach.fingerprint.is_none() && reach.admin_socket.is_none() {
            reach.fingerprint = fingerprint;
        }
        reach
    }
}

/// Who asks.
#[derive(Debug, Clone)]
enum Who {
    /// An operator: with these files, or else with what lies beside the configuration.
    Operator(Option<IdentityFiles>),
    /// Whoever holds this certificate, or a stranger.
    Holder(Option<IdentityFiles>),
}

/// What an operator on the server's host can use without saying so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OwnIdentity {
    /// The first operator's certificate is there and has not ended.
    certificate: bool,
    /// The admin socket is there.
    socket: bool,
}

impl OwnIdentity {
    fn look(place: &Place, now: Timestamp) -> Self {
        Self {
            certificate: ends(&place.operator_certificate).is_some_and(|end| end > now)
                && std::fs::File::open(&place.operator_key).is_ok(),
            socket: place.admin_socket.exists(),
        }
    }
}

impl Route {
    fn decide(reach: &Reach, who: Who, place: Option<&Place>, own: Option<OwnIdentity>) -> Result<Self> {
        if let Some(socket) = &reach.admin_socket {
            return Self::socket(socket);
        }
        // The operator at hand is used for the server at hand and for no other.
        let here = reach.server.is_none().then_some(place).flatten();
        let identity = match who {
            Who::Holder(identity) | Who::Operator(identity @ Some(_)) => identity,
            Who::Operator(None) => match (here, own) {
                (Some(place), Some(OwnIdentity { certificate: true, .. })) => Some(IdentityFiles {
                    certificate: place.operator_certificate.clone(),
                    key: place.operator_key.clone(),
                }),
                (Some(place), Some(OwnIdentity { socket: true, .. })) => {
                    return Self::socket(&place.admin_socket);
                }
                _ => None,
            },
        };
        let Some(server) = reach.server.as_ref().or(place.map(|place| &place.server)) else {
            return Err(usage(
                "no server is known; say --server https://host:port (or set CHANCERY_SERVER), or run beside a \
                 chancery.toml",
            ));
        };
        let trust = match (&reach.trust_bundle, reach.fingerprint, place) {
            (Some(bundle), ..) => Trust::Bundle(bundle.clone()),
            (None, Some(fingerprint), _) => Trust::Fingerprint(fingerprint),
            (None, None, Some(place)) => Trust::Bundle(place.root_certificate.clone()),
            (None, None, None) => {
                return Err(usage(format!(
                    "nothing says how to recognise {server}; give --trust-bundle FILE with its roots, or \
                     --fingerprint HEX of its root"
                )));
            }
        };
        let endpoint: Endpoint = server.parse()?;
        let trust = if matches!(endpoint, Endpoint::Unix(_)) { Trust::Socket } else { trust };
        Ok(Self { endpoint, trust, identity })
    }

    fn socket(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)?;
        Ok(Self { endpoint: Endpoint::Unix(path), trust: Trust::Socket, identity: None })
    }

    async fn open(self) -> Result<Client> {
        let mut builder = Client::builder(self.endpoint);
        builder = match self.trust {
            Trust::Socket => builder,
            Trust::Fingerprint(fingerprint) => builder.trust_fingerprint(fingerprint).await?,
            Trust::Bundle(path) => {
                let pem = files::read(&path, files::MAX_PEM)?;
                let anchors = TrustAnchors::from_pem(&pem).with_context(|| path.display().to_string())?;
                builder.trust(anchors)
            }
        };
        if let Some(identity) = &self.identity {
            builder = builder.identity(identity.load()?);
        }
        Ok(builder.build()?)
    }
}

impl IdentityFiles {
    /// Reads both.
    pub(crate) fn load(&self) -> Result<TlsIdentity> {
        let certificate = files::read(&self.certificate, files::MAX_PEM)?;
        let key = files::read_secret(&self.key, files::MAX_PEM)?;
        TlsIdentity::from_pem(&certificate, &key)
            .with_context(|| format!("{} and {}", self.certificate.display(), self.key.display()))
    }
}

/// When the first certificate in a file ends.
fn ends(path: &Path) -> Option<Timestamp> {
    let pem = files::read(path, files::MAX_PEM).ok()?;
    let certificates = read_certificates(&pem, 8).ok()?;
    Certificate::from_der(certificates.first()?).ok().map(|certificate| certificate.tbs().not_after())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            file: "/etc/chancery/chancery.toml".into(),
            trust_domain: "example.org".parse().unwrap(),
            server: "https://localhost:8443".into(),
            root_certificate: "/etc/chancery/certs/root.crt".into(),
            admin_socket: "/etc/chancery/run/admin.sock".into(),
            operator_certificate: "/etc/chancery/operators/admin.crt".into(),
            operator_key: "/etc/chancery/operators/admin.key".into(),
        }
    }

    fn own(certificate: bool, socket: bool) -> Option<OwnIdentity> {
        Some(OwnIdentity { certificate, socket })
    }

    fn reach(server: Option<&str>) -> Reach {
        Reach { server: server.map(str::to_owned), ..Reach::default() }
    }

    #[test]
    fn beside_a_configuration_nothing_has_to_be_said() {
        let route =
            Route::decide(&reach(None), Who::Operator(None), Some(&place()), own(true, true)).unwrap();
        assert_eq!(route.endpoint.to_string(), "https://localhost:8443");
        assert_eq!(route.trust, Trust::Bundle("/etc/chancery/certs/root.crt".into()));
        assert_eq!(route.identity.unwrap().certificate, Path::new("/etc/chancery/operators/admin.crt"));
    }

    #[test]
    fn the_socket_stands_in_for_an_operator_certificate_that_has_ended() {
        let route =
            Route::decide(&reach(None), Who::Operator(None), Some(&place()), own(false, true)).unwrap();
        assert_eq!(route.endpoint.to_string(), "unix:/etc/chancery/run/admin.sock");
        assert_eq!((route.trust, route.identity), (Trust::Socket, None));
    }

    #[test]
    fn the_operator_at_hand_is_not_shown_to_another_server() {
        let route = Route::decide(
            &reach(Some("https://other.example:1")),
            Who::Operator(None),
            Some(&place()),
            own(true, true),
        );
        assert_eq!(route.unwrap().identity, None);
    }

    #[test]
    fn a_workload_never_shows_the_operators_certificate() {
        let route = Route::decide(&reach(None), Who::Holder(None), Some(&place()), own(true, true)).unwrap();
        assert_eq!(route.identity, None);
    }

    #[test]
    fn without_server_or_trust_says_what_to_give() {
        let error =
            |reach: &Reach| Route::decide(reach, Who::Operator(None), None, None).unwrap_err().to_string();
        assert!(error(&reach(None)).contains("--server"));
        let text = error(&reach(Some("https://ca.example.org")));
        assert!(text.contains("--trust-bundle") && text.contains("--fingerprint"), "{text}");
        let pinned = Reach { fingerprint: Some(Digest::default()), ..reach(Some("http://ca.example.org")) };
        assert!(error(&pinned).contains("plain HTTP"));
    }

    #[test]
    fn a_tokens_fingerprint_yields_to_trust_that_was_given() {
        let found = Some(Digest::of(b"token"));
        assert_eq!(reach(None).with_fingerprint(found).fingerprint, found);
        let given = Reach { trust_bundle: Some("roots.pem".into()), ..reach(None) };
        assert_eq!(given.with_fingerprint(found).fingerprint, None);
        let told = Reach { fingerprint: Some(Digest::of(b"told")), ..reach(None) };
        assert_eq!(told.with_fingerprint(found).fingerprint, Some(Digest::of(b"told")));
    }
}
