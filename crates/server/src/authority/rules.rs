//! The rules in force: policy and profiles, loaded together, swapped together, recorded in the ledger.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chancery_entry::{Body, Entry, PolicyChange, ProfileChange};
use chancery_ledger::{Ledger, Proposal};
use chancery_policy::{Engine, PolicySource};
use chancery_types::{Timestamp, TrustDomain};
use chancery_x509::{Profile, Profiles};

use super::AuthorityError;

/// Largest rules file, in bytes: what fits into a ledger entry with room to spare.
const MAX_FILE: u64 = 60_000;
/// The file that holds the policy schema.
const SCHEMA: &str = "schema.cedarschema";

/// A policy engine and the profiles that it speaks of.
#[derive(Debug)]
pub struct Rules {
    engine: Engine,
    profiles: BTreeMap<String, Arc<Profile>>,
    sources: Vec<PolicySource>,
}

/// Why rules were not loaded; the ones in force stay.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A file or directory cannot be read.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        why: String,
    },
    /// A profile is wrong.
    #[error(transparent)]
    Profiles(#[from] chancery_x509::ProfilesError),
    /// The policy is wrong.
    #[error(transparent)]
    Policy(#[from] chancery_policy::PolicyErrors),
}

impl Rules {
    /// Reads both directories; every mistake in either is an error.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn load(profiles: &Path, policy: &Path, trust_domain: &TrustDomain) -> Result<Self, RulesError> {
        let texts = read_directory(profiles, "toml")?;
        let pairs = texts.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let profiles = Profiles::from_texts(pairs, trust_domain)?;
        let schema_path = policy.join(SCHEMA);
        let schema = PolicySource { name: SCHEMA.to_owned(), text: read_file(&schema_path)? };
        let policies: Vec<PolicySource> = read_directory(policy, "cedar")?
            .into_iter()
            .map(|(name, text)| PolicySource { name, text })
            .collect();
        let engine = Engine::new(&schema, &policies)?;
        let profiles =
            profiles.iter().map(|profile| (profile.name().to_owned(), Arc::new(profile.clone()))).collect();
        let mut sources = vec![schema];
        sources.extend(policies);
        Ok(Self { engine, profiles, sources })
    }

    /// The policy engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The policy's files, the schema first.
    #[must_use]
    pub fn sources(&self) -> &[PolicySource] {
        &self.sources
    }

    /// A profile by its name.
    ///
    /// # Errors
    /// [`AuthorityError::NotFound`].
    pub fn profile(&self, name: &str) -> Result<&Arc<Profile>, AuthorityError> {
        self.profiles.get(name).ok_or_else(|| AuthorityError::not_found("profile", name))
    }

    /// All profiles, by name.
    pub fn profiles(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.profiles.values()
    }

    /// Records what is not on record yet, so that every decision's hashes lead to texts.
    pub(crate) async fn record(
        &self,
        ledger: &dyn Ledger,
        by: &str,
        now: Timestamp,
    ) -> Result<(), AuthorityError> {
        let mut entries = Vec::new();
        if ledger.policy(self.engine.policy_hash()).await?.len() < self.sources.len() {
            entries.extend(self.sources.iter().map(|source| {
                Body::PolicyChanged(PolicyChange {
                    policy_hash: self.engine.policy_hash(),
                    name: source.name.clone(),
                    text: source.text.clone(),
                    by: by.to_owned(),
                })
            }));
        }
        for profile in self.profiles.values() {
            if ledger.profile(profile.hash()).await?.is_none() {
                entries.push(Body::ProfileChanged(ProfileChange {
                    name: profile.name().to_owned(),
                    profile_hash: profile.hash(),
                    text: profile.text().to_owned(),
                    by: by.to_owned(),
                }));
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        let entries = entries.into_iter().map(|body| Entry::new(now, body)).collect();
        ledger.commit(vec![Proposal::new(Vec::new(), entries)?]).await?;
        Ok(())
    }
}

fn read_directory(directory: &Path, extension: &str) -> Result<Vec<(String, String)>, RulesError> {
    let failed = |error: std::io::Error| RulesError::File {
        path: directory.display().to_string(),
        why: error.to_string(),
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|found| found == extension) && path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, read_file(&path)?));
        }
    }
    files.sort();
    if files.is_empty() {
        let why = format!("there is no .{extension} file in it");
        return Err(RulesError::File { path: directory.display().to_string(), why });
    }
    Ok(files)
}

fn read_file(path: &Path) -> Result<String, RulesError> {
    let failed = |why: String| RulesError::File { path: path.display().to_string(), why };
    let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > MAX_FILE {
        return Err(failed(format!("has {length} bytes, at most {MAX_FILE} are read; split it")));
    }
    std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))
}
