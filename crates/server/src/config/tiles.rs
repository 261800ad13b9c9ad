//! `storage.tiles`: where full tiles of the log are kept, and how an object store that holds them is reached.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use http::Uri;

use super::RawStorage;
use super::federation::SYSTEM_ROOTS;

/// Where full tiles of the log are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TilePlace {
    /// A directory.
    Directory(PathBuf),
    /// A bucket of an object store.
    Bucket(Box<BucketPlace>),
}

/// A bucket of an object store with the interface of Amazon S3, and what is said of it beside its name. What is not said
/// comes from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketPlace {
    /// The bucket.
    pub name: String,
    /// What the names of all objects begin with, without a slash at either end; may be empty.
    pub prefix: String,
    /// The store's address; else `AWS_ENDPOINT_URL`, else Amazon's own.
    pub endpoint: Option<Uri>,
    /// Its region; else `AWS_REGION`.
    pub region: Option<String>,
    /// The file with the credentials; else they are in the environment.
    pub credentials: Option<PathBuf>,
    /// PEM file with the roots of its certificate.
    pub roots: PathBuf,
    /// Whether it may be spoken to in the clear across a network.
    pub plain_http: bool,
}

impl TilePlace {
    /// Reads what the section says of tiles.
    pub(super) fn check(raw: &RawStorage, directory: &Path, mistakes: &mut Vec<String>) -> Option<Self> {
        let text = raw.tiles.as_deref();
        let Some(bucket) = text.and_then(|text| text.strip_prefix("s3://")) else {
            let more = [&raw.tiles_endpoint, &raw.tiles_region, &raw.tiles_credentials, &raw.tiles_roots];
            if raw.tiles_plain_http || more.iter().any(|one| one.is_some()) {
                let what = "tiles_endpoint and its like speak of an object store: write storage.tiles = \"s3://BUCKET/PREFIX\"";
                mistakes.push(format!("storage.tiles: {what}"));
            }
            if let Some(text) = text.filter(|text| text.contains("://")) {
                mistakes
                    .push(format!("storage.tiles: {text:?} is neither a directory nor s3://BUCKET/PREFIX"));
            }
            return text.map(|text| Self::Directory(directory.join(text)));
        };
        let (name, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
        let prefix = prefix.trim_end_matches('/');
        if bucket.contains('@') {
            mistakes.push(format!("storage.tiles: {NO_SECRET}"));
        } else if !is_bucket(name) {
            let rule = "3 to 63 lower case letters, digits, dots and hyphens";
            mistakes.push(format!("storage.tiles: {name:?} is no name of a bucket: {rule}"));
        }
        if !bucket.contains('@') && !is_prefix(prefix) {
            let rule = "at most 512 letters, digits, and . _ - between single slashes";
            mistakes.push(format!("storage.tiles: {prefix:?} is no prefix for names of tiles: {rule}"));
        }
        let endpoint = raw.tiles_endpoint.as_deref().and_then(|text| {
            let checked = endpoint(text, raw.tiles_plain_http);
            checked.map_err(|problem| mistakes.push(format!("storage.tiles_endpoint: {problem}"))).ok()
        });
        if let Some(problem) = raw.tiles_region.as_deref().and_then(|text| region(text).err()) {
            mistakes.push(format!("storage.tiles_region: {problem}"));
        }
        Some(Self::Bucket(Box::new(BucketPlace {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
            endpoint,
            region: raw.tiles_region.clone(),
            credentials: raw.tiles_credentials.as_ref().map(|file| directory.join(file)),
            roots: directory.join(raw.tiles_roots.as_deref().unwrap_or(SYSTEM_ROOTS)),
            plain_http: raw.tiles_plain_http,
        })))
    }

    /// The directory, if it is one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(directory) => Some(directory),
            Self::Bucket(_) => None,
        }
    }

    /// The file with an object store's credentials, if there is one.
    #[must_use]
    pub fn credentials(&self) -> Option<&Path> {
        match self {
            Self::Directory(_) => None,
            Self::Bucket(bucket) => bucket.credentials.as_deref(),
        }
    }
}

impl fmt::Display for TilePlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => write!(formatter, "{}", directory.display()),
            Self::Bucket(bucket) if bucket.prefix.is_empty() => write!(formatter, "s3://{}", bucket.name),
            Self::Bucket(bucket) => write!(formatter, "s3://{}/{}", bucket.name, bucket.prefix),
        }
    }
}

/// The address of an object store: `https://HOST[:PORT]`, or `http://` where that stays on this machine or is permitted.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn endpoint(text: &str, plain_http: bool) -> Result<Uri, String> {
    let like = "write it like https://s3.example.org";
    if text.contains('@') {
        return Err(NO_SECRET.into());
    }
    let uri: Uri = text.parse().map_err(|error| format!("{text:?}: {error}; {like}"))?;
    let host = uri.host().filter(|host| !host.is_empty());
    let (Some(host), "" | "/", None) = (host, uri.path(), uri.query()) else {
        return Err(format!("{text:?} is no address of an object store; {like}"));
    };
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if plain_http || is_here(host) => Ok(uri),
        Some("http") => Err(format!(
            "{text:?} crosses a network in the clear, where whoever is on the way reads and alters tiles; write https://, or \
             tiles_plain_http = true"
        )),
        _ => Err(format!("{text:?} is no address of an object store; {like}")),
    }
}

/// The name of a region, which becomes part of a host name and of signatures.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn region(text: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match (1..=32).contains(&text.len()) && text.bytes().all(fits) {
        true => Ok(()),
        false => Err(format!("{text:?} is no region; write it like eu-central-1")),
    }
}

/// Whether a host is this machine by its name or address alone.
fn is_here(host: &str) -> bool {
    let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// As Amazon S3 has it.
fn is_bucket(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().copied().all(fits)
        && is_edge(bytes.first())
        && is_edge(bytes.last())
        && !name.contains("..")
}

const NO_SECRET: &str = "credentials do not stand in an address; name a file in storage.tiles_credentials";

/// Characters that stand in a path as they are, whoever normalises it on the way.
fn is_prefix(prefix: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_segment =
        |segment: &str| !segment.is_empty() && ![".", ".."].contains(&segment) && segment.bytes().all(fits);
    prefix.is_empty() || prefix.len() <= 512 && prefix.split('/').all(is_segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Option<TilePlace>, Vec<String>> {
        let raw: RawStorage = toml::from_str(text).unwrap();
        let mut mistakes = Vec::new();
        let place = TilePlace::check(&raw, Path::new("/etc/chancery"), &mut mistakes);
        if mistakes.is_empty() { Ok(place) } else { Err(mistakes) }
    }

    fn bucket(text: &str) -> BucketPlace {
        match check(text).unwrap() {
            Some(TilePlace::Bucket(bucket)) => *bucket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tiles_lie_nowhere_in_a_directory_or_in_a_bucket() {
        assert_eq!(check("").unwrap(), None);
        let directory = check("tiles = 'tiles'").unwrap().unwrap();
        assert_eq!(directory.directory(), Some(Path::new("/etc/chancery/tiles")));
        let plain = bucket("tiles = 's3://roll-of.example'");
        assert_eq!((plain.name.as_str(), plain.prefix.as_str()), ("roll-of.example", ""));
        assert_eq!(plain.roots, Path::new(SYSTEM_ROOTS));
        let full = bucket(
            "tiles = 's3://rolls/prod/ca_1.log/'\ntiles_endpoint = 'https://s3.internal:9000'\ntiles_region = 'eu-1'\n\
             tiles_credentials = 's3'\ntiles_roots = 'certs/s3.pem'",
        );
        assert_eq!(full.prefix, "prod/ca_1.log");
        assert_eq!(full.endpoint.as_ref().unwrap().host(), Some("s3.internal"));
        assert_eq!(full.credentials.as_deref(), Some(Path::new("/etc/chancery/s3")));
        assert_eq!(full.roots, Path::new("/etc/chancery/certs/s3.pem"));
        assert_eq!(TilePlace::Bucket(Box::new(full)).to_string(), "s3://rolls/prod/ca_1.log");
    }

    #[test]
    fn nothing_crosses_a_network_in_the_clear_unless_it_is_said() {
        for here in ["http://127.0.0.1:9000", "http://localhost:9000/", "http://[::1]:9000"] {
            endpoint(here, false).unwrap();
        }
        for away in ["http://minio:9000", "http://10.0.0.1", "http://localhost.example.org"] {
            assert!(endpoint(away, false).unwrap_err().contains("tiles_plain_http"), "{away}");
            endpoint(away, true).unwrap();
        }
    }

    #[test]
    fn every_mistake_is_said_with_its_field() {
        let long = format!("tiles = 's3://rolls/{}'", "x".repeat(513));
        for (text, field) in [
            ("tiles = 's3://'", "storage.tiles"),
            ("tiles = 's3://Rolls'", "storage.tiles"),
            ("tiles = 's3://-rolls'", "storage.tiles"),
            ("tiles = 's3://ro..lls'", "storage.tiles"),
            ("tiles = 's3://rolls/../other'", "storage.tiles"),
            ("tiles = 's3://rolls/a//b'", "storage.tiles"),
            ("tiles = 's3://rolls/a b'", "storage.tiles"),
            ("tiles = 's3://rolls/a?b'", "storage.tiles"),
            (&long, "storage.tiles"),
            ("tiles = 'gs://rolls'", "storage.tiles"),
            ("tiles = 'tiles'\ntiles_region = 'eu-1'", "storage.tiles"),
            ("tiles_plain_http = true", "storage.tiles"),
            ("tiles = 's3://rolls'\ntiles_endpoint = 'minio:9000'", "storage.tiles_endpoint"),
            (
                "tiles = 's3://rolls'\ntiles_endpoint = 'https://s3.example.org/path'",
                "storage.tiles_endpoint",
            ),
            ("tiles = 's3://rolls'\ntiles_endpoint = 'ftp://s3.example.org'", "storage.tiles_endpoint"),
            ("tiles = 's3://rolls'\ntiles_region = 'eu/1'", "storage.tiles_region"),
            ("tiles = 's3://rolls'\ntiles_region = ''", "storage.tiles_region"),
        ] {
            let mistakes = check(text).unwrap_err();
            assert!(
                mistakes.len() == 1 && mistakes[0].starts_with(&format!("{field}: ")),
                "{text}: {mistakes:?}"
            );
        }
        for text in [
            "tiles = 's3://rolls'\ntiles_endpoint = 'https://me:hidden@s3.example.org'",
            "tiles = 's3://rolls'\ntiles_endpoint = 'https://me:hidden away@s3.example.org'",
            "tiles = 's3://me:hidden@rolls/x'",
        ] {
            let secret = check(text).unwrap_err().concat();
            assert!(secret.contains("tiles_credentials") && !secret.contains("hidden"), "{secret}");
        }
    }
}
