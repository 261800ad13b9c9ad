//! Files, their directory and the road from a state to a served certificate.

mod directory;
mod formats;
mod pipeline;
pub(crate) mod service;
mod services;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chancery_types::{
    Clock, IssuerEpoch, SecretBytes, SerialNumber, SpiffeId, SystemClock, SystemRandom, Timestamp,
    TrustDomain,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::*;
use crate::identities::{Bundle, X509State, X509Svid};

/// An authority with one identity.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root: Vec<u8>,
    counter: std::sync::atomic::AtomicU64,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "the authority of these tests");
        let root = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), root, counter: std::sync::atomic::AtomicU64::new(1) }
    }

    /// A state with a new certificate that lives this long from now.
    pub(crate) fn issue(&self, life: Duration) -> Arc<X509State> {
        let counter = self.counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let serial = SerialNumber::compose(IssuerEpoch(1), counter, [7; 8]).unwrap();
        let key = KeyPair::generate().unwrap();
        let now = SystemClock.now();
        let (not_before, not_after) =
            ((now - Duration::from_secs(60)).whole_second(), (now + life).whole_second());
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://example.org/web".try_into().unwrap()));
        params.serial_number = Some(serial.as_bytes().to_vec().into());
        params.not_before = calendar(not_before);
        params.not_after = calendar(not_after);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, "web");
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        let svid = X509Svid {
            spiffe_id: SpiffeId::parse("spiffe://example.org/web").unwrap(),
            serial,
            chain: vec![leaf],
            key: SecretBytes::new(key.serialize_der()),
            hint: String::new(),
            not_before,
            not_after,
            federates_with: Vec::new(),
        };
        let bundle =
            Bundle { x509_authorities: vec![self.root.clone()], jwt_keys: b"{\"keys\":[]}".to_vec() };
        let domain = TrustDomain::parse("example.org").unwrap();
        Arc::new(X509State {
            svids: vec![Arc::new(svid)],
            bundles: BTreeMap::from([(domain, Arc::new(bundle))]),
            crls: Vec::new(),
        })
    }
}

fn calendar(moment: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(moment.seconds()).unwrap()
}

/// Settings as an operator writes them, in JSON instead of TOML.
fn settings(directory: &Path, more: serde_json::Value) -> SinkSettings {
    let mut settings = serde_json::json!({ "name": "web", "directory": directory });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(settings).unwrap()
}

pub(crate) fn configure(directory: &Path, more: serde_json::Value) -> SinkConfig {
    SinkConfig::try_from(settings(directory, more)).unwrap()
}

/// A directory of one's own: what is above it in `/tmp` is shared, and sticky.
pub(crate) fn place() -> (tempfile::TempDir, std::path::PathBuf) {
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let directory = home.path().join("tls");
    (home, directory)
}

/// Runs a judge; what it printed, or `None` with a loud word if it is not on this machine.
fn judge(program: &str, arguments: &[&str]) -> Option<String> {
    match std::process::Command::new(program).args(arguments).output() {
        Ok(output) => {
            let text = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(output.status.success(), "{program} {arguments:?}: {text}");
            Some(text)
        }
        Err(error) => {
            println!("SKIPPED a judgement: {program} is not installed ({error})");
            None
        }
    }
}

pub(crate) fn open(config: SinkConfig) -> Sink {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match Sink::open(config.clone(), Arc::new(SystemClock), Arc::new(SystemRandom)) {
            Ok(sink) => return sink,
            // A child that was forked and has not begun its program yet holds every descriptor, the lock among them.
            Err(DirectoryError::Locked(_)) if std::time::Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) fn svid(state: &X509State) -> &X509Svid {
    &state.svids[0]
}

/// Waits until the status is as wanted; a test that waits in vain says what it was instead.
async fn until(
    status: &mut tokio::sync::watch::Receiver<SinkStatus>,
    wanted: impl FnMut(&SinkStatus) -> bool,
) -> SinkStatus {
    let last = status.clone();
    match tokio::time::timeout(Duration::from_secs(60), status.wait_for(wanted)).await {
        Ok(found) => found.unwrap().clone(),
        Err(_) => panic!("never came to be so: {:#?}", *last.borrow()),
    }
}

#[test]
fn every_mistake_of_a_sink_is_explained_at_once() {
    let more = serde_json::json!({
        "directory_mode": "0777",
        "owner": "nobody-of-this-name",
        "files": [
            { "name": "../tls.key", "content": "key" },
            { "name": "world.key", "content": "key", "mode": "0644" },
            { "name": "store.p12", "content": "pkcs12" },
            { "name": "x", "content": "cert" },
        ],
        "hook": { "command": ["reload"] },
        "probe": { "address": "localhost" },
    });
    let error = SinkConfig::try_from(settings(Path::new("relative"), more)).unwrap_err().to_string();
    for part in [
        "not an absolute path without ..",
        "0700 to 0755",
        "write its number",
        "\"../tls.key\" is not one plain name",
        "mode 0644 of world.key, which holds a key: give 0600, 0640, or less",
        "store.p12 needs password_file",
        "content \"cert\" of x is none of chain",
        "hook: command \"reload\" is not an absolute path",
        "probe: address \"localhost\" is not HOST:PORT",
    ] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
}

#[test]
fn example_of_the_documentation_is_a_sink() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SINKS.md")).unwrap();
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    // The group may not exist here.
    let example: toml::Table = toml::from_str(&example.replace("www-data", "33")).unwrap();
    let sinks: Vec<SinkSettings> = example["sinks"].clone().try_into().unwrap();
    let config = SinkConfig::try_from(sinks[0].clone()).unwrap();
    assert_eq!((config.name(), config.directory()), ("nginx", Path::new("/etc/nginx/tls")));
}

#[test]
fn documentation_lists_every_phase() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SINKS.md")).unwrap();
    for phase in [
        Phase::Waiting,
        Phase::Applying,
        Phase::Current,
        Phase::NotWritten,
        Phase::HookFailed,
        Phase::IssuedNotServing,
        Phase::RolledBack,
        Phase::Withdrawn,
    ] {
        let name = serde_json::to_value(phase).unwrap();
        assert!(page.contains(&format!("| `{}` |", name.as_str().unwrap())), "{phase:?}");
    }
}
