//! The directory of an authority, and what `init` writes into it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chancery_keys::{KeyLocation, Protection, Signer, store};
use chancery_telemetry::RawTelemetry;
use chancery_types::{IssuerEpoch, KeyAlgorithm, Random, SecretString, SystemRandom, TrustDomain};
use chancery_x509::{DistinguishedName, Profile, RequestPurpose, RequestSpec, write_pem};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use zeroize::Zeroizing;

use super::{InitError, InitPlan};
use crate::config::{
    RawAttestation, RawConfig, RawKeys, RawLimits, RawListen, RawRevocation, RawRoot, RawRotation, RawSsf,
    RawStatus, RawStorage, ServerName,
};

/// The reference profiles, as ca-config/profiles has them.
const PROFILES: [(&str, &str); 8] = [
    ("workload.toml", include_str!("../../../../ca-config/profiles/workload.toml")),
    ("server.toml", include_str!("../../../../ca-config/profiles/server.toml")),
    ("client.toml", include_str!("../../../../ca-config/profiles/client.toml")),
    ("device.toml", include_str!("../../../../ca-config/profiles/device.toml")),
    ("node.toml", include_str!("../../../../ca-config/profiles/node.toml")),
    ("operator.toml", include_str!("../../../../ca-config/profiles/operator.toml")),
    ("ocsp.toml", include_str!("../../../../ca-config/profiles/ocsp.toml")),
    ("issuer.toml", include_str!("../../../../ca-config/profiles/issuer.toml")),
];

/// The reference policy, as ca-config/policy has it.
const POLICY: [(&str, &str); 3] = [
    ("schema.cedarschema", include_str!("../../../../ca-config/policy/schema.cedarschema")),
    ("default.cedar", include_str!("../../../../ca-config/policy/default.cedar")),
    ("operators.cedar", include_str!("../../../../ca-config/policy/operators.cedar")),
];

/// Where things are in an authority's directory.
#[derive(Debug, Clone)]
pub struct Layout(PathBuf);

impl Layout {
    /// The layout of this directory.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// `chancery.toml`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("chancery.toml")
    }

    /// The issuer's request, until its certificate arrives.
    #[must_use]
    pub fn issuer_request(&self) -> PathBuf {
        self.0.join("issuer.csr")
    }

    /// The root certificate, with whatever lies between it and the issuer after it.
    #[must_use]
    pub fn root_certificate(&self) -> PathBuf {
        self.0.join("certs/root.crt")
    }

    /// The first issuer's certificate.
    #[must_use]
    pub fn issuer_certificate(&self) -> PathBuf {
        self.0.join("certs/issuer-1.crt")
    }

    /// The first operator's certificate and key.
    #[must_use]
    pub fn operator(&self, name: &str) -> (PathBuf, PathBuf) {
        let directory = self.0.join("operators");
        (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")))
    }

    /// The issuer profile that was written.
    ///
    /// # Errors
    /// [`InitError`] when it is not there or wrong.
    pub fn issuer_profile(&self, trust_domain: &TrustDomain) -> Result<Profile, InitError> {
        let path = self.0.join("profiles/issuer.toml");
        let text = fs::read_to_string(&path).map_err(|error| InitError::file(&path, error))?;
        Profile::from_toml(&text, trust_domain).map_err(|error| InitError::file(&path, error))
    }
}

/// An authority that waits for its issuer's certificate.
#[derive(Debug)]
pub struct Prepared {
    /// Where it is.
    pub layout: Layout,
    /// The issuer's request, DER.
    pub csr: Vec<u8>,
}

/// Writes keys, configuration and the issuer's request.
///
/// # Errors
/// [`InitError::Exists`] when there is an authority already.
pub fn prepare(plan: &InitPlan, random: &dyn Random) -> Result<Prepared, InitError> {
    let layout = Layout::of(&plan.directory);
    if layout.config().exists() {
        return Err(InitError::Exists(plan.directory.clone()));
    }
    for name in ["", "profiles", "policy", "keys", "certs", "operators", "run", "secrets"] {
        let path = plan.directory.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|e| InitError::file(&path, e))?;
    }
    write_rules(plan)?;
    let (keys, csr) = make_keys(plan, random)?;
    let config = config_text(plan, keys)?;
    write_new(&layout.issuer_request(), write_pem("CERTIFICATE REQUEST", &csr).as_bytes(), 0o644)?;
    // The configuration comes last: with it the directory counts as an authority.
    write_new(&layout.config(), config.as_bytes(), 0o600)?;
    Ok(Prepared { layout, csr })
}

fn write_rules(plan: &InitPlan) -> Result<(), InitError> {
    for (name, text) in PROFILES {
        let text = admit_server_names(text, &plan.names);
        write_new(&plan.directory.join("profiles").join(name), text.as_bytes(), 0o600)?;
    }
    for (name, text) in POLICY {
        write_new(&plan.directory.join("policy").join(name), text.as_bytes(), 0o600)?;
    }
    Ok(())
}

/// Lets profiles that name the trust domain's DNS names also take the server's own, where it lies outside.
fn admit_server_names(text: &str, names: &[ServerName]) -> String {
    let own: String = names
        .iter()
        .filter_map(|name| match name {
            ServerName::Dns(name) if name.as_str() != "localhost" => Some(format!(", \"{name}\"")),
            ServerName::Dns(_) | ServerName::Ip(_) => None,
        })
        .collect();
    let networks: String = names
        .iter()
        .filter_map(|name| match name {
            ServerName::Ip(address @ std::net::IpAddr::V4(_)) => Some(format!(", \"{address}/32\"")),
            ServerName::Ip(address @ std::net::IpAddr::V6(_)) => Some(format!(", \"{address}/128\"")),
            ServerName::Dns(_) => None,
        })
        .collect();
    text.replace(
        "[\"{trust-domain}\", \"localhost\"]",
        &format!("[\"{{trust-domain}}\", \"localhost\"{own}]"),
    )
    .replace("\"fc00::/7\", \"::1/128\"]", &format!("\"fc00::/7\", \"::1/128\"{networks}]"))
}

/// Makes the keys of issuer, ledger and JWTs; returns where they are and the issuer's request.
fn make_keys(plan: &InitPlan, random: &dyn Random) -> Result<(RawKeys, Vec<u8>), InitError> {
    let passphrase = generated_passphrase(random)?;
    let passphrase_file = plan.directory.join("secrets/keys.passphrase");
    write_new(&passphrase_file, format!("{}\n", passphrase.expose_secret()).as_bytes(), 0o600)?;
    let protection = Protection::Passphrase(passphrase);
    let generate = |purpose: &'static str, text: &str, algorithm: KeyAlgorithm| {
        let location = located(&plan.directory, text)?;
        store::generate(&location, algorithm, &protection).map_err(|error| InitError::Key { purpose, error })
    };
    let issuer_place = match &plan.token {
        Some(token) if !token.contains("pin-source=") => {
            // A PIN is tried a few times and then the token locks: nothing is sent that is not one.
            let why = "name the file that holds the PIN: add pin-source=file:/path after the question mark";
            return Err(InitError::file(Path::new(token), why));
        }
        Some(token) => object_of(token, "chancery-issuer-1")?,
        None => "keys/issuer-1.key".to_owned(),
    };
    let keys = RawKeys {
        former_issuers: Vec::new(),
        issuer: issuer_place,
        ledger: "keys/ledger.key".into(),
        jwt: "keys/jwt.key".into(),
        passphrase_file: Some("secrets/keys.passphrase".into()),
    };
    let issuer = generate("issuer", &keys.issuer, plan.algorithm)?;
    generate("ledger", &keys.ledger, KeyAlgorithm::Ed25519)?;
    generate("jwt", &keys.jwt, KeyAlgorithm::P256)?;
    let csr = issuer_request(&plan.trust_domain, IssuerEpoch(1), issuer.as_ref())?;
    Ok((keys, csr))
}

/// The request for an issuer's certificate, DER.
pub(crate) fn issuer_request(
    trust_domain: &TrustDomain,
    epoch: IssuerEpoch,
    issuer: &dyn Signer,
) -> Result<Vec<u8>, InitError> {
    let subject = DistinguishedName::common_name(&clipped(&format!("{trust_domain} Issuer {epoch}")))
        .map_err(|error| InitError::certificate("the issuer's name", error))?;
    let names = [trust_domain.id().into()];
    let spec = RequestSpec {
        public_key: issuer.public_key(),
        signature_algorithm: issuer.algorithm(),
        subject: &subject,
        names: &names,
        purpose: RequestPurpose::Issuer,
    };
    spec.build(|message| issuer.sign(message))
        .map_err(|error| InitError::certificate("the issuer's request", error))
}

/// The place of a key in a token: the token's URI with the key's label, unless it has one.
fn object_of(token: &str, label: &str) -> Result<String, InitError> {
    match token.parse::<KeyLocation>() {
        Ok(KeyLocation::Pkcs11(mut uri)) => {
            uri.object.get_or_insert_with(|| label.to_owned());
            Ok(KeyLocation::Pkcs11(uri).to_string())
        }
        Ok(KeyLocation::File(path)) => {
            Err(InitError::file(&path, "this is a file, not a token; write pkcs11:..."))
        }
        Err(error) => Err(InitError::file(Path::new(token), error)),
    }
}

/// A key's place; a file's path is relative to the authority's directory.
pub(super) fn located(directory: &Path, text: &str) -> Result<KeyLocation, InitError> {
    match text.parse::<KeyLocation>() {
        Ok(KeyLocation::File(path)) => Ok(KeyLocation::File(directory.join(path))),
        Ok(token) => Ok(token),
        Err(error) => Err(InitError::file(Path::new(text), error)),
    }
}

/// X.520 ub-common-name: at most 64 characters.
pub(super) fn clipped(name: &str) -> String {
    name.chars().take(64).collect()
}

/// A passphrase of 192 random bits.
///
/// # Errors
/// When there is no randomness.
pub fn generated_passphrase(random: &dyn Random) -> Result<SecretString, InitError> {
    let mut bytes = Zeroizing::new([0_u8; 24]);
    random.fill(bytes.as_mut())?;
    Ok(SecretString::new(BASE64URL_NOPAD.encode(bytes.as_ref())))
}

fn config_text(plan: &InitPlan, keys: RawKeys) -> Result<String, InitError> {
    let raw = RawConfig {
        federation: std::collections::BTreeMap::new(),
        ssf: RawSsf::default(),
        telemetry: RawTelemetry::default(),
        trust_domain: plan.trust_domain.to_string(),
        names: plan.names.iter().map(|name| name.to_string().trim_matches(['[', ']']).to_owned()).collect(),
        listen: RawListen {
            api: plan.api.to_string(),
            status: plan.status.to_string(),
            url: plan.url.clone(),
            ..RawListen::default()
        },
        root: RawRoot {
            certificate: "certs/root.crt".into(),
            key: plan.root_key.as_ref().map(ToString::to_string),
        },
        keys,
        storage: storage(plan),
        status: RawStatus { url: plan.status_url.clone(), ..RawStatus::default() },
        revocation: RawRevocation::default(),
        attestation: RawAttestation::default(),
        rotation: RawRotation::default(),
        limits: RawLimits::default(),
    };
    let body = toml::to_string(&raw).map_err(|error| InitError::certificate("the configuration", error))?;
    Ok(format!(
        "# Chancery's configuration. Paths are relative to this file; every setting is described in\n\
         # docs/OPERATING.md. `chancery check-config` says what is wrong with it.\n\n{body}"
    ))
}

fn storage(plan: &InitPlan) -> RawStorage {
    let storage = RawStorage::default();
    match plan.database.clone() {
        None => storage,
        Some((ledger, postgres)) => RawStorage { ledger, postgres: Some(postgres), ..storage },
    }
}

/// Writes a file that must not exist, durably and whole.
pub(super) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), InitError> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|error| InitError::file(path, error))
}

/// Replaces a file, durably and whole, also while other servers that share the directory do the same.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), InitError> {
    let mut own = [0; 8];
    SystemRandom.fill(&mut own)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", HEXLOWER.encode(&own)));
    let replaced = write_new(&temporary, bytes, mode)
        .and_then(|()| std::fs::rename(&temporary, path).map_err(|error| InitError::file(path, error)));
    if replaced.is_err() {
        // Nobody else has this name; what cannot be removed is in nobody's way.
        let _ = std::fs::remove_file(&temporary);
    }
    replaced?;
    let directory = path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all());
    directory.map_err(|error| InitError::file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_share_a_directory_replace_one_whole_file_by_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bundle.pem");
        let text = |number: usize| vec![b'0' + u8::try_from(number).unwrap(); 4096 * (1 + number)];
        replace(&path, &text(9), 0o644).unwrap();
        std::thread::scope(|scope| {
            for number in 0..4 {
                let path = &path;
                scope.spawn(move || (0..50).for_each(|_| replace(path, &text(number), 0o644).unwrap()));
            }
            for _ in 0..200 {
                let found = fs::read(&path).unwrap();
                assert_eq!(found, text(usize::from(found[0] - b'0')), "whole");
            }
        });
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing is left beside it");
    }
}
