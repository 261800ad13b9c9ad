//! Everything that is asked about processes, and the limits on asking.

use std::io;
use std::sync::Arc;

use chancery_types::{ClaimValue, Claims, Clock, Digest, SystemClock};

use super::cgroup::{Container, Placement, Runtime, unified};
use super::config::{AttestorConfig, Hashing};
use super::engine::Engine;
use super::executable::Content;
use super::hash_cache::HashCache;
use super::host;
use super::kubelet::Kubelet;
use super::pinned::{Pinned, Snapshot};
use super::shares::{Party, Shares};
use super::watch::Watch;
use crate::workload::{AttestationError, Depth, EXECUTABLE_HASH};

/// Shared by all processes of an attestor.
#[derive(Debug)]
pub(super) struct Sources {
    config: AttestorConfig,
    hashes: HashCache,
    attesting: Shares,
    hashing: Shares,
    engines: Vec<Engine>,
    kubelet: Option<Kubelet>,
    pub(super) watch: Arc<Watch>,
}

impl Sources {
    pub(super) fn new(config: AttestorConfig) -> Self {
        let docker = config.docker.as_ref().map(|docker| Engine::new(Runtime::Docker, docker));
        let podman = config.podman.as_ref().map(|podman| Engine::new(Runtime::Podman, podman));
        Self {
            hashes: HashCache::new(config.hash_cache),
            attesting: Shares::new(config.concurrent, config.concurrent_per_party),
            hashing: Shares::new(HASHING, HASHING_PER_PARTY),
            engines: docker.into_iter().chain(podman).collect(),
            kubelet: config.kubelet.clone().map(Kubelet::new),
            watch: Arc::default(),
            config,
        }
    }

    /// What is known of a process that is what this snapshot says.
    pub(super) async fn claims(
        self: &Arc<Self>,
        process: &Arc<Pinned>,
        snapshot: &Snapshot,
        depth: Depth,
    ) -> Result<Claims, AttestationError> {
        if snapshot.credentials.groups.len() > MAX_GROUPS {
            return Err(AttestationError::Unknown(format!(
                "it is in {} groups; more than {MAX_GROUPS} are not looked up",
                snapshot.credentials.groups.len()
            )));
        }
        let placement = unified(&snapshot.cgroup).map(Placement::of).unwrap_or_default();
        let party = match &placement.container {
            Some(container) => Party::Container(container.id.clone()),
            None => Party::User(snapshot.credentials.uid()),
        };
        let mut claims = Claims::new();
        self.of_machine(process, snapshot, &placement, &party, &mut claims, self.hash_limit(depth)).await?;
        of_placement(&placement, &mut claims);
        if let Some(container) = &placement.container {
            self.of_container(container, &party, &mut claims).await?;
            self.of_pod(container, placement.pod.as_deref(), &mut claims).await?;
        }
        Ok(claims)
    }

    /// What the kernel, the name service, the file system and systemd say; the hash of executables up to a size.
    async fn of_machine(
        self: &Arc<Self>,
        process: &Arc<Pinned>,
        snapshot: &Snapshot,
        placement: &Placement,
        party: &Party,
        claims: &mut Claims,
        hash_limit: u64,
    ) -> Result<(), AttestationError> {
        // The share goes along into the thread: a file system that never answers costs its own party.
        let share = self.attesting.take(party).await;
        let (sources, process) = (Arc::clone(self), Arc::clone(process));
        let (snapshot, placement) = (snapshot.clone(), placement.clone());
        let (found, content) = self
            .in_time(move || {
                let _share = share;
                sources.ask_machine(&process, &snapshot, &placement, hash_limit)
            })
            .await?;
        append(claims, &found);
        if let Some(digest) = self.hash(content, party).await? {
            claims.insert(EXECUTABLE_HASH, digest.to_string());
        }
        Ok(())
    }

    /// The largest executable that is hashed; 0: none.
    fn hash_limit(&self, depth: Depth) -> u64 {
        let hashes = depth == Depth::Content || self.config.hash == Hashing::Always;
        if hashes { self.config.hash_limit } else { 0 }
    }

    /// Blocks.
    fn ask_machine(
        &self,
        process: &Pinned,
        snapshot: &Snapshot,
        placement: &Placement,
        hash_limit: u64,
    ) -> io::Result<(Claims, Option<Content>)> {
        let mut claims = Claims::new();
        let credentials = &snapshot.credentials;
        claims.insert("unix.uid", ClaimValue::Number(credentials.uid().into()));
        claims.insert("unix.gid", ClaimValue::Number(credentials.gid().into()));
        let groups = credentials.groups.iter().map(ToString::to_string).collect();
        insert_list(&mut claims, "unix.supplementary_gid", groups);
        insert(&mut claims, "unix.user", host::user_name(credentials.uid())?);
        insert(&mut claims, "unix.group", host::group_name(credentials.gid())?);
        let groups: io::Result<Vec<_>> =
            credentials.groups.iter().filter_map(|gid| host::group_name(*gid).transpose()).collect();
        insert_list(&mut claims, "unix.supplementary_group", groups?);
        let interactive = snapshot.stat.terminal != 0 || placement.is_login_session();
        claims.insert("unix.interactive", ClaimValue::Flag(interactive));
        let name = process.directory().executable_name()?;
        insert(&mut claims, "unix.path", process.executable().path(&name, &self.config.host_root)?);
        if let Some(unit) = &placement.unit {
            let invocation = host::invocation_id(&self.config.systemd_units, unit)?;
            insert(&mut claims, "systemd.invocation_id", invocation);
        }
        let content = match hash_limit {
            0 => None,
            limit => process.executable().content(limit)?,
        };
        Ok((claims, content))
    }

    async fn hash(
        self: &Arc<Self>,
        content: Option<Content>,
        party: &Party,
    ) -> Result<Option<Digest>, AttestationError> {
        let Some(content) = content else { return Ok(None) };
        let version = content.version();
        if let Some(digest) = self.hashes.find(&version) {
            return Ok(Some(digest));
        }
        let share = self.hashing.take(party).await;
        // Whoever had the share before may have read the same file.
        if let Some(digest) = self.hashes.find(&version) {
            return Ok(Some(digest));
        }
        let sources = Arc::clone(self);
        self.in_time(move || {
            let _share = share;
            let digest = content.hash()?;
            // The machine's own clock: it is compared with what the kernel wrote to the file.
            sources.hashes.keep(version, digest, SystemClock.now());
            Ok(Some(digest))
        })
        .await
    }

    async fn of_container(
        &self,
        container: &Container,
        party: &Party,
        claims: &mut Claims,
    ) -> Result<(), AttestationError> {
        let Some(engine) = self.engines.iter().find(|engine| container.runtime == Some(engine.runtime()))
        else {
            return Ok(());
        };
        let _share = self.attesting.take(party).await;
        let found = engine.describe(&container.id).await.map_err(|error| {
            AttestationError::Unknown(format!(
                "{} does not describe its container: {error}",
                engine.runtime().as_str()
            ))
        })?;
        append(claims, &found);
        Ok(())
    }

    /// Without a share: it waits for the kubelet, which is asked by one at a time.
    async fn of_pod(
        &self,
        container: &Container,
        pod: Option<&str>,
        claims: &mut Claims,
    ) -> Result<(), AttestationError> {
        let Some(kubelet) = &self.kubelet else { return Ok(()) };
        // Where pods are run by Docker, Docker also runs containers that are in none.
        if pod.is_none() && matches!(container.runtime, Some(Runtime::Docker | Runtime::Podman)) {
            return Ok(());
        }
        let found = kubelet.describe(pod, &container.id).await.map_err(|error| {
            AttestationError::Unknown(format!("the kubelet does not describe its container: {error}"))
        })?;
        append(claims, &found);
        Ok(())
    }

    /// Work that may block, for as long as the configuration has patience.
    async fn in_time<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, AttestationError> {
        let failed = |detail: String| AttestationError::Unknown(detail);
        match tokio::time::timeout(self.config.timeout, tokio::task::spawn_blocking(work)).await {
            Ok(Ok(Ok(found))) => Ok(found),
            Ok(Ok(Err(error))) => Err(failed(format!("finding out about it failed: {error}"))),
            Ok(Err(error)) => Err(failed(format!("finding out about it was broken off: {error}"))),
            Err(_) => Err(failed(format!("finding out about it took more than {:?}", self.config.timeout))),
        }
    }
}

fn of_placement(placement: &Placement, claims: &mut Claims) {
    insert(claims, "systemd.unit", placement.unit.clone());
    insert(claims, "systemd.slice", placement.slice.clone());
    insert(claims, "k8s.pod_uid", placement.pod.clone());
    if let Some(container) = &placement.container {
        claims.insert("container.id", container.id.as_str());
        insert(claims, "container.runtime", container.runtime.map(|runtime| runtime.as_str().to_owned()));
    }
}

fn insert(claims: &mut Claims, name: &str, text: Option<String>) {
    if let Some(text) = text {
        claims.insert(name, text);
    }
}

fn insert_list(claims: &mut Claims, name: &str, texts: Vec<String>) {
    if !texts.is_empty() {
        claims.insert(name, ClaimValue::List(texts));
    }
}

fn append(claims: &mut Claims, found: &Claims) {
    for (name, value) in found.iter() {
        claims.insert(name, value.clone());
    }
}

/// Reading is bound by the disk and hashing by the processor: more at once make it no faster.
const HASHING: usize = 4;
const HASHING_PER_PARTY: usize = 1;

const MAX_GROUPS: usize = 1024;
