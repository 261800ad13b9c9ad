//! `[ssf]`: where security events may be pushed to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use http::uri::Authority;
use serde::{Deserialize, Serialize};

use super::federation::SYSTEM_ROOTS;
use crate::ssf::host_and_port;

/// `[ssf]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawSsf {
    /// Hosts that events may be pushed to, with a port where it is not 443.
    pub push_hosts: Vec<String>,
    /// PEM file with the roots that their certificates may be of; the system's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_roots: Option<String>,
}

impl RawSsf {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where security events may be pushed to, over https alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPushConfig {
    /// `host:port`, in lower case.
    pub hosts: BTreeSet<String>,
    /// PEM file with the roots that count.
    pub roots: PathBuf,
}

/// Checks the section.
pub(super) fn check(raw: RawSsf, directory: &Path, mistakes: &mut Vec<String>) -> Option<EventPushConfig> {
    if raw.push_hosts.is_empty() {
        if raw.push_roots.is_some() {
            mistakes.push("ssf.push_roots: name the hosts too, in ssf.push_hosts".into());
        }
        return None;
    }
    let mut hosts = BTreeSet::new();
    for text in &raw.push_hosts {
        match text.parse::<Authority>() {
            Ok(authority) if is_host(&authority) => drop(hosts.insert(host_and_port(&authority))),
            _ => mistakes
                .push(format!("ssf.push_hosts: {text:?} is not like receiver.example.org or 192.0.2.1:8443")),
        }
    }
    Some(EventPushConfig { hosts, roots: directory.join(raw.push_roots.as_deref().unwrap_or(SYSTEM_ROOTS)) })
}

fn is_host(authority: &Authority) -> bool {
    let text = authority.as_str();
    let has_port = text.strip_prefix(authority.host()).is_some_and(|rest| !rest.is_empty());
    !authority.host().is_empty()
        && !text.contains(['@', '*'])
        && (!has_port || authority.port_u16().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Option<EventPushConfig>, Vec<String>> {
        let mut mistakes = Vec::new();
        let found = check(toml::from_str(text).unwrap(), Path::new("/etc/chancery"), &mut mistakes);
        if mistakes.is_empty() { Ok(found) } else { Err(mistakes) }
    }

    #[test]
    fn hosts_are_named_one_by_one() {
        assert_eq!(checked("").unwrap(), None);
        let found =
            checked("push_hosts = [\"SIEM.example\", \"[2001:db8::1]:8443\"]\npush_roots = \"r.pem\"");
        let found = found.unwrap().unwrap();
        assert_eq!(Vec::from_iter(&found.hosts), ["[2001:db8::1]:8443", "siem.example:443"]);
        assert_eq!(found.roots, Path::new("/etc/chancery/r.pem"));
        for wrong in [
            "*.example",
            "https://x.example",
            "x.example/",
            "u@x.example",
            "",
            "x.example:",
            "x.example:99999",
        ] {
            assert!(checked(&format!("push_hosts = [{wrong:?}]")).is_err(), "{wrong}");
        }
        assert!(checked("push_roots = \"r.pem\"").is_err());
    }
}
