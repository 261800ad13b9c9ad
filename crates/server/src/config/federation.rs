//! `[federation."other.example"]`: other trust domains whose members ours deal with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chancery_types::{SpiffeId, TrustDomain};
use http::Uri;
use serde::{Deserialize, Serialize};

use super::keep;

/// `[federation."other.example"]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawFederation {
    /// Its SPIFFE bundle endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// PEM file with the public roots that the endpoint's certificate may be of; the system's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<String>,
    /// The SPIFFE ID that the endpoint must show, in place of a public certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_spiffe_id: Option<String>,
    /// A SPIFFE bundle, JSON: all there is without `url`; with `endpoint_spiffe_id` what verifies the first fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
}

/// Where the bundle of another trust domain comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederationConfig {
    /// Whose.
    pub trust_domain: TrustDomain,
    /// From where.
    pub source: BundleSource,
}

/// Where a bundle comes from (SPIFFE Federation, section 5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleSource {
    /// A file that an operator keeps up to date.
    File(PathBuf),
    /// An endpoint with a public certificate.
    Web {
        /// Its address.
        url: Uri,
        /// PEM file with the roots that count.
        roots: PathBuf,
    },
    /// An endpoint with an SVID of the same trust domain.
    Spiffe {
        /// Its address.
        url: Uri,
        /// Whose SVID.
        endpoint: SpiffeId,
        /// The bundle that verifies the first fetch.
        first: PathBuf,
    },
}

/// Where Debian and its like keep the public roots.
pub(super) const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Checks the section.
pub(super) fn check(
    raw: BTreeMap<String, RawFederation>,
    own: Option<&TrustDomain>,
    directory: &Path,
    mistakes: &mut Vec<String>,
) -> Vec<FederationConfig> {
    let mut checked = Vec::with_capacity(raw.len());
    for (name, one) in raw {
        let field = format!("federation.{name:?}");
        let Some(trust_domain) = keep(mistakes, &field, TrustDomain::parse(&name)) else { continue };
        if own == Some(&trust_domain) {
            mistakes.push(format!("{field}: is our own trust domain"));
        }
        if let Some(source) = keep(mistakes, &field, source(&trust_domain, one, directory)) {
            checked.push(FederationConfig { trust_domain, source });
        }
    }
    checked
}

fn source(domain: &TrustDomain, raw: RawFederation, directory: &Path) -> Result<BundleSource, String> {
    let RawFederation { url, roots, endpoint_spiffe_id, bundle } = raw;
    let Some(url) = url else {
        return match (bundle, roots, endpoint_spiffe_id) {
            (Some(file), None, None) => Ok(BundleSource::File(directory.join(file))),
            _ => Err("give the url of its bundle endpoint, or bundle alone, a file".into()),
        };
    };
    let url = address(&url)?;
    match (endpoint_spiffe_id, roots, bundle) {
        (None, roots, None) => {
            let roots = directory.join(roots.as_deref().unwrap_or(SYSTEM_ROOTS));
            Ok(BundleSource::Web { url, roots })
        }
        (Some(endpoint), None, Some(first)) => {
            let endpoint = SpiffeId::parse(&endpoint).map_err(|error| error.to_string())?;
            if endpoint.trust_domain() != *domain {
                return Err(format!(
                    "{endpoint} is of another trust domain, whose bundle would have to verify it"
                ));
            }
            Ok(BundleSource::Spiffe { url, endpoint, first: directory.join(first) })
        }
        (None, _, Some(_)) => Err("bundle goes with endpoint_spiffe_id, or without url".into()),
        (Some(_), _, None) => Err("endpoint_spiffe_id needs bundle, which verifies the first fetch".into()),
        (Some(_), Some(_), _) => Err("roots are for endpoints with a public certificate".into()),
    }
}

fn address(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    let has_user = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if url.scheme_str() != Some("https") || url.host().is_none() || has_user {
        return Err(format!("{text:?} is not like https://other.example/bundle.json"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Vec<FederationConfig>, Vec<String>> {
        let raw = toml::from_str(text).unwrap();
        let mut mistakes = Vec::new();
        let own = TrustDomain::parse("example.org").unwrap();
        let found = check(raw, Some(&own), Path::new("/etc/chancery"), &mut mistakes);
        if mistakes.is_empty() { Ok(found) } else { Err(mistakes) }
    }

    #[test]
    fn the_profile_follows_from_what_is_given() {
        let found = checked(
            "[\"a.example\"]\nbundle = \"a.json\"\n[\"b.example\"]\nurl = \"https://b.example/bundle\"\n\
             [\"c.example\"]\nurl = \"https://c.example:8443/\"\nbundle = \"c.json\"\n\
             endpoint_spiffe_id = \"spiffe://c.example/server\"\n",
        )
        .unwrap();
        assert_eq!(found[0].source, BundleSource::File("/etc/chancery/a.json".into()));
        assert!(
            matches!(&found[1].source, BundleSource::Web { roots, .. } if roots == Path::new(SYSTEM_ROOTS))
        );
        assert!(matches!(&found[2].source, BundleSource::Spiffe { first, .. } if first.ends_with("c.json")));
    }

    #[test]
    fn what_would_verify_nothing_is_refused() {
        for wrong in [
            "[\"example.org\"]\nbundle = \"a.json\"",
            "[\"A B\"]\nbundle = \"a.json\"",
            "[\"a.example\"]",
            "[\"a.example\"]\nurl = \"http://a.example\"",
            "[\"a.example\"]\nurl = \"https://u:p@a.example\"",
            "[\"a.example\"]\nurl = \"https://a.example\"\nbundle = \"a.json\"",
            "[\"a.example\"]\nurl = \"https://a.example\"\nendpoint_spiffe_id = \"spiffe://a.example/x\"",
            "[\"a.example\"]\nurl = \"https://a.example\"\nbundle = \"a.json\"\n\
             endpoint_spiffe_id = \"spiffe://b.example/x\"",
        ] {
            let mistakes = checked(wrong).unwrap_err();
            assert!(mistakes.iter().all(|mistake| mistake.starts_with("federation.")), "{mistakes:?}");
        }
    }
}
