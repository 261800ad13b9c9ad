//! Where a bucket's objects are on the network.

use http::{HeaderValue, Uri};

use crate::config::{BucketPlace, endpoint, region};

/// The address of a bucket.
#[derive(Debug)]
pub(super) struct Address {
    /// Scheme, host and port.
    pub(super) server: Uri,
    /// The same as a request names it.
    pub(super) host: HeaderValue,
    /// What every path begins with; ends with a slash.
    base: String,
    /// The region that signatures name.
    pub(super) region: String,
}

impl Address {
    /// What is configured, completed by the environment.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub(super) fn find(
        place: &BucketPlace,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let value = |name: &str| environment(name).filter(|value| !value.is_empty());
        let server = match (&place.endpoint, value("AWS_ENDPOINT_URL")) {
            (Some(server), _) => Some(server.clone()),
            (None, Some(text)) => Some(
                endpoint(&text, place.plain_http)
                    .map_err(|problem| format!("AWS_ENDPOINT_URL: {problem}"))?,
            ),
            (None, None) => None,
        };
        let named = place.region.clone().or_else(|| value("AWS_REGION"));
        // Stores other than Amazon's have one region, and this is what they call it unless told otherwise.
        let named = named.or_else(|| server.is_some().then(|| "us-east-1".to_owned()));
        let named =
            named.ok_or("the bucket's region is not known: set storage.tiles_region or AWS_REGION")?;
        region(&named).map_err(|problem| format!("AWS_REGION: {problem}"))?;
        let bucket = &place.name;
        // A name with dots cannot stand in Amazon's certificate for one label; there and elsewhere it stands in the path.
        let (server, in_path) = match server {
            Some(server) => (server, true),
            None => {
                let is_label = !bucket.contains('.');
                let label = if is_label { format!("{bucket}.") } else { String::new() };
                let text = format!("https://{label}s3.{named}.amazonaws.com");
                (text.parse().map_err(|error| format!("{text}: {error}"))?, !is_label)
            }
        };
        let host = server.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(host).map_err(|error| format!("{server}: {error}"))?;
        let mut base = "/".to_owned();
        for part in [if in_path { bucket } else { "" }, &place.prefix] {
            if !part.is_empty() {
                base += part;
                base.push('/');
            }
        }
        Ok(Self { server, host, base, region: named })
    }

    /// The path of an object.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    /// Whether it is reached over TLS.
    pub(super) fn is_https(&self) -> bool {
        self.server.scheme_str() == Some("https")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str, prefix: &str, endpoint: Option<&str>, region: Option<&str>) -> BucketPlace {
        BucketPlace {
            name: name.into(),
            prefix: prefix.into(),
            endpoint: endpoint.map(|text| text.parse().unwrap()),
            region: region.map(str::to_owned),
            credentials: None,
            roots: "roots.pem".into(),
            plain_http: false,
        }
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_bucket_stands_in_the_name_at_amazon_and_in_the_path_elsewhere() {
        let amazon = Address::find(&place("rolls", "prod/log", None, Some("eu-west-1")), nothing).unwrap();
        assert_eq!(amazon.host, "rolls.s3.eu-west-1.amazonaws.com");
        assert_eq!(amazon.path("tile/0/000"), "/prod/log/tile/0/000");
        assert!(amazon.is_https());
        let dotted = Address::find(&place("rolls.example", "", None, Some("eu-west-1")), nothing).unwrap();
        assert_eq!(
            (dotted.host.to_str().unwrap(), dotted.path("x").as_str()),
            ("s3.eu-west-1.amazonaws.com", "/rolls.example/x")
        );
        let own =
            Address::find(&place("rolls", "prod", Some("http://127.0.0.1:9000"), None), nothing).unwrap();
        assert_eq!((own.host.to_str().unwrap(), own.path("x").as_str()), ("127.0.0.1:9000", "/rolls/prod/x"));
        assert_eq!((own.region.as_str(), own.is_https()), ("us-east-1", false));
    }

    #[test]
    fn the_environment_completes_what_is_not_configured() {
        let environment = |name: &str| match name {
            "AWS_REGION" => Some("eu-central-1".to_owned()),
            "AWS_ENDPOINT_URL" => Some("https://store.example:8443".to_owned()),
            _ => None,
        };
        let found = Address::find(&place("rolls", "", None, None), environment).unwrap();
        assert_eq!(
            (found.host.to_str().unwrap(), found.region.as_str()),
            ("store.example:8443", "eu-central-1")
        );
        let configured = place("rolls", "", Some("https://other.example"), Some("eu-1"));
        let found = Address::find(&configured, environment).unwrap();
        assert_eq!((found.host.to_str().unwrap(), found.region.as_str()), ("other.example", "eu-1"));
        let missing = Address::find(&place("rolls", "", None, None), nothing).unwrap_err();
        assert!(missing.contains("storage.tiles_region"), "{missing}");
        let plain = |name: &str| (name == "AWS_ENDPOINT_URL").then(|| "http://store.example".to_owned());
        let refused = Address::find(&place("rolls", "", None, None), plain).unwrap_err();
        assert!(refused.starts_with("AWS_ENDPOINT_URL: "), "{refused}");
    }
}
