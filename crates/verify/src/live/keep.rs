//! What is known, on disk, so that a program that starts while the authority is away starts with it.
//!
//! Two files: the signed set as it was fetched, and beside it what the feed told after it. The set is written first,
//! each is replaced by a rename, and whatever the two say together is true also after a crash between them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chancery_merkle::LogKeys;
use chancery_status::{SignedSet, map_file, replace_file};
use chancery_types::{SerialNumber, Timestamp, TrustDomain};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::knowledge::{Knowledge, Told};

/// How often the files are written at most.
const PAUSE: Duration = Duration::from_secs(1);
/// The largest file of told events that is read.
const LARGEST_TOLD: u64 = 32 << 20;

/// What was kept.
pub(crate) struct Kept {
    pub(crate) knowledge: Knowledge,
    pub(crate) signed: SignedSet,
    pub(crate) keys: LogKeys,
    /// When that was all there was to know.
    pub(crate) fresh: Timestamp,
}

/// What lies beside the set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Beside {
    version: u32,
    trust_domain: TrustDomain,
    /// The log's keys, one a line.
    key: String,
    /// The configured keys from which these were believed, if any were configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinned: Option<String>,
    position: u64,
    fresh: Timestamp,
    told: HashMap<SerialNumber, Told>,
}

/// The version of the file.
const VERSION: u32 = 1;

/// Writes in a task of its own; what comes while it writes is written together.
#[derive(Debug)]
pub(crate) struct Keeper {
    sender: watch::Sender<Option<(SignedSet, Beside)>>,
    pinned: Option<LogKeys>,
}

impl Keeper {
    /// Keeps at this path, and beside it, what is believed from these keys on.
    pub(crate) fn start(path: PathBuf, pinned: Option<LogKeys>) -> Self {
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(write_what_comes(path, receiver));
        Self { sender, pinned }
    }

    pub(crate) fn keep(
        &self,
        knowledge: &Knowledge,
        signed: &SignedSet,
        keys: &LogKeys,
        trust_domain: &TrustDomain,
        fresh: Timestamp,
    ) {
        let beside = Beside {
            version: VERSION,
            trust_domain: trust_domain.clone(),
            key: keys.to_string(),
            pinned: self.pinned.as_ref().map(ToString::to_string),
            position: knowledge.position(),
            fresh,
            told: knowledge.told().clone(),
        };
        self.sender.send_replace(Some((signed.clone(), beside)));
    }
}

async fn write_what_comes(path: PathBuf, mut receiver: watch::Receiver<Option<(SignedSet, Beside)>>) {
    let mut written = None;
    while receiver.changed().await.is_ok() {
        let Some((signed, beside)) = receiver.borrow_and_update().clone() else { continue };
        let sequence = (signed.set().sequence(), signed.set().hash());
        let is_new = written != Some(sequence);
        let place = path.clone();
        let writing = tokio::task::spawn_blocking(move || {
            if is_new {
                replace_file(&place, &signed.to_bytes())?;
            }
            replace_file(&beside_of(&place), &serde_json::to_vec(&beside)?)
        });
        match writing.await {
            Ok(Ok(())) => written = Some(sequence),
            Ok(Err(error)) => {
                tracing::warn!(%error, path = %path.display(), "what is known of status was not kept")
            }
            Err(_) => return,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads what was kept for this trust domain; where keys are pinned, it must have been believed from those on. Nothing
/// when there is nothing, and a reason when it cannot be used.
pub(crate) fn load(
    path: &Path,
    trust_domain: &TrustDomain,
    pinned: Option<&LogKeys>,
) -> Result<Option<Kept>, String> {
    let beside = beside_of(path);
    if !path.exists() || !beside.exists() {
        return Ok(None);
    }
    let length = std::fs::metadata(&beside).map_err(|error| error.to_string())?.len();
    if length > LARGEST_TOLD {
        return Err(format!("{} has {length} bytes, at most {LARGEST_TOLD} are read", beside.display()));
    }
    let text = std::fs::read(&beside).map_err(|error| error.to_string())?;
    let kept: Beside = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if kept.version != VERSION || kept.trust_domain != *trust_domain {
        return Err(format!("it is of version {} and of {}", kept.version, kept.trust_domain));
    }
    let keys: LogKeys = kept.key.parse().map_err(|error: chancery_merkle::LogKeysError| error.to_string())?;
    if let Some(pinned) = pinned
        && keys != *pinned
        && kept.pinned != Some(pinned.to_string())
    {
        return Err("it is signed by other keys than the configured one".to_owned());
    }
    let bytes = map_file(path).map_err(|error| error.to_string())?;
    let signed = SignedSet::open(bytes, trust_domain, keys.as_slice()).map_err(|error| error.to_string())?;
    let knowledge = Knowledge::kept(signed.set().clone(), kept.position, kept.told);
    Ok(Some(Kept { knowledge, signed, keys, fresh: kept.fresh }))
}

fn beside_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".told");
    PathBuf::from(name)
}
