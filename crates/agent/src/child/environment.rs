//! Where a child finds its identity.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Variables that are added to a child's environment.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The socket of the Workload API, as a SPIFFE endpoint (`unix:///run/chancery/agent.sock`).
    pub endpoint: Option<String>,
    /// The directory of a sink with its default files.
    pub directory: Option<PathBuf>,
}

impl Environment {
    /// Names and values: `SPIFFE_ENDPOINT_SOCKET`, and for the files `CHANCERY_DIRECTORY`, `CHANCERY_CERT_FILE`,
    /// `CHANCERY_KEY_FILE` and `CHANCERY_BUNDLE_FILE`.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let endpoint = self.endpoint.as_ref().map(|endpoint| ("SPIFFE_ENDPOINT_SOCKET", endpoint.into()));
        let files = self.directory.as_deref().map(|directory| {
            let file = |name: &str| Path::new(directory).join(name).into_os_string();
            [
                ("CHANCERY_DIRECTORY", directory.as_os_str().to_owned()),
                ("CHANCERY_CERT_FILE", file("tls.crt")),
                ("CHANCERY_KEY_FILE", file("tls.key")),
                ("CHANCERY_BUNDLE_FILE", file("bundle.crt")),
            ]
        });
        endpoint.into_iter().chain(files.into_iter().flatten()).collect()
    }
}
