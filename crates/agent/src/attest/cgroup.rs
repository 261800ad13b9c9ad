//! Where a process stands in the cgroup hierarchy, and what that says of it. Pure: paths in, facts out.
//!
//! Anybody to whom a part of the hierarchy was delegated (a user's own service manager, a container) can make
//! groups below it with any name. So only what stands at its proper place is believed: the first group that is
//! not a slice was made by the service manager of the machine; what is below it says nothing.

/// What a cgroup path says of the processes in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Placement {
    /// The unit of the machine's service manager.
    pub(super) unit: Option<String>,
    /// The slice that the unit is in.
    pub(super) slice: Option<String>,
    /// The container.
    pub(super) container: Option<Container>,
    /// The UID of the pod that the container belongs to.
    pub(super) pod: Option<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    /// 64 hexadecimal digits.
    pub(super) id: String,
    /// Who runs it, if the path tells.
    pub(super) runtime: Option<Runtime>,
}

/// Who runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runtime {
    Docker,
    Podman,
    Containerd,
    CriO,
}

impl Runtime {
    /// As claims spell it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
        }
    }
}

impl Placement {
    /// Reads the path of a cgroup of version 2, as `/proc/PID/cgroup` shows it to us. It begins with `/..` for
    /// groups outside the part of the hierarchy that we see.
    pub(super) fn of(path: &str) -> Self {
        let Some(path) = path.strip_prefix('/') else { return Self::default() };
        if path.is_empty() || path.len() > MAX_PATH {
            return Self::default();
        }
        let groups: Vec<&str> = path.split('/').collect();
        let above = groups.iter().take_while(|group| **group == "..").count();
        let groups = &groups[above..];
        if groups.iter().any(|group| group.is_empty() || matches!(*group, "." | "..")) {
            return Self::default();
        }
        match above {
            0 => Self::in_full(groups),
            // The groups above ours are not ours to make things in, nor are their children; but whose they are is
            // not to be seen from here. A pod's names are whole without them, a unit's are not.
            _ => Self::of_pod_beside_us(groups),
        }
    }

    /// Whether this is somebody's login: a terminal, a remote shell.
    pub(super) fn is_login_session(&self) -> bool {
        let is_session = |unit: &str| unit.starts_with("session-") && unit.ends_with(".scope");
        self.unit.as_deref().is_some_and(is_session)
            && self.slice.as_deref().is_some_and(|slice| slice.starts_with("user-"))
    }

    fn in_full(groups: &[&str]) -> Self {
        let slices = slices(groups);
        if !is_nested(&groups[..slices]) {
            return Self::default();
        }
        let slice = groups[..slices].last().copied();
        let Some(unit) = groups.get(slices).copied().map(unescaped).filter(|name| is_unit(name)) else {
            return Self::of_plain_groups(groups);
        };
        let container = of_scope(unit).or_else(|| of_containerd_without_its_driver(slice, unit, groups));
        Self {
            unit: Some(unit.to_owned()),
            slice: Some(slice.unwrap_or("-.slice").to_owned()),
            pod: container.as_ref().and_then(|_| pod_of(slice, unit, groups)),
            container,
        }
    }

    fn of_pod_beside_us(groups: &[&str]) -> Self {
        let slices = slices(groups);
        let slice = groups[..slices].last().copied();
        let container = groups.get(slices).copied().and_then(of_scope);
        match (container, slice) {
            (Some(container), Some(slice)) if is_nested_below_the_first(&groups[..slices]) => {
                Self { pod: pod_of_slice(slice), container: Some(container), ..Self::default() }
            }
            // A container of our own pod.
            (Some(container), None) => Self { container: Some(container), ..Self::default() },
            _ => Self::of_pod_groups(groups),
        }
    }

    /// Groups that runtimes make without systemd, at the root of the hierarchy.
    fn of_plain_groups(groups: &[&str]) -> Self {
        let found = match groups {
            ["docker", id, ..] => container(id, Some(Runtime::Docker)),
            ["libpod_parent", name, ..] => {
                name.strip_prefix("libpod-").and_then(|id| container(id, Some(Runtime::Podman)))
            }
            ["kubelet", rest @ ..] if rest.first() == Some(&"kubepods") => return Self::of_pod_groups(rest),
            ["kubepods", ..] => return Self::of_pod_groups(groups),
            _ => None,
        };
        Self { container: found, ..Self::default() }
    }

    /// `kubepods/burstable/podUID/ID`, or its end.
    fn of_pod_groups(groups: &[&str]) -> Self {
        let groups = groups.strip_prefix(&["kubepods"]).unwrap_or(groups);
        let groups = match groups {
            ["besteffort" | "burstable" | "guaranteed", rest @ ..] => rest,
            _ => groups,
        };
        let [pod, name, ..] = groups else { return Self::default() };
        let Some(pod) = pod.strip_prefix("pod").and_then(pod_uid) else { return Self::default() };
        let container = match name.strip_prefix("crio-") {
            Some(id) => container(id, Some(Runtime::CriO)),
            None => container(name, None),
        };
        Self { pod: container.as_ref().map(|_| pod), container, ..Self::default() }
    }
}

/// The path in the hierarchy of version 2 out of `/proc/PID/cgroup`.
pub(super) fn unified(file: &str) -> Option<&str> {
    file.lines().find_map(|line| line.strip_prefix("0::"))
}

fn slices(groups: &[&str]) -> usize {
    groups.iter().take_while(|group| is_slice(group)).count()
}

fn is_slice(group: &str) -> bool {
    group.ends_with(".slice") && is_unit(group)
}

/// systemd.slice(5): the name of a slice is its whole path, `a-b.slice` lies in `a.slice`.
fn is_nested(slices: &[&str]) -> bool {
    slices.first().is_none_or(|first| !first.contains('-')) && is_nested_below_the_first(slices)
}

fn is_nested_below_the_first(slices: &[&str]) -> bool {
    slices.windows(2).all(|pair| match pair {
        [outer, inner] => inner.rsplit_once('-').map(|(parent, _)| parent) == outer.strip_suffix(".slice"),
        _ => true,
    })
}

/// systemd.unit(5): what a unit may be called.
fn is_unit(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    name.len() <= 255
        && name.bytes().all(fits)
        && name.rsplit_once('.').is_some_and(|(stem, kind)| {
            !stem.is_empty() && matches!(kind, "service" | "scope" | "slice" | "socket" | "mount" | "swap")
        })
}

/// systemd puts an underscore before names that would collide with files of the kernel.
fn unescaped(group: &str) -> &str {
    group.strip_prefix('_').unwrap_or(group)
}

/// `docker-ID.scope` and its like.
fn of_scope(unit: &str) -> Option<Container> {
    let name = unit.strip_suffix(".scope")?;
    SCOPES.iter().find_map(|(prefix, runtime)| container(name.strip_prefix(prefix)?, Some(*runtime)))
}

/// A kubelet that speaks systemd with a containerd that does not: the three parts of the name that the kubelet
/// meant for systemd become one group, below containerd's own.
fn of_containerd_without_its_driver(slice: Option<&str>, unit: &str, groups: &[&str]) -> Option<Container> {
    let (_, id) = containerd_group(slice, unit, groups)?;
    container(id, Some(Runtime::Containerd))
}

fn containerd_group<'a>(slice: Option<&str>, unit: &str, groups: &[&'a str]) -> Option<(&'a str, &'a str)> {
    if slice != Some("system.slice") || unit != "containerd.service" {
        return None;
    }
    groups.get(2)?.split_once(":cri-containerd:")
}

fn pod_of(slice: Option<&str>, unit: &str, groups: &[&str]) -> Option<String> {
    match containerd_group(slice, unit, groups) {
        Some((pod, _)) => pod_of_slice(pod),
        None => slice.and_then(pod_of_slice),
    }
}

/// `kubepods-burstable-podUID.slice`, or the same below another root: `kubelet-kubepods-podUID.slice`.
fn pod_of_slice(slice: &str) -> Option<String> {
    let (parent, uid) = slice.strip_suffix(".slice")?.rsplit_once("-pod")?;
    let parent = parent.strip_suffix("-besteffort").or(parent.strip_suffix("-burstable")).unwrap_or(parent);
    let of_kubelet = parent == "kubepods" || parent.ends_with("-kubepods");
    of_kubelet.then(|| pod_uid(&uid.replace('_', "-"))).flatten()
}

/// A UUID, or the hash that the kubelet gives to the pods of its own directory.
fn pod_uid(text: &str) -> Option<String> {
    let digits = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_hash = text.len() == 32 && digits(text);
    let is_uuid = text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.split('-').all(digits);
    (is_hash || is_uuid).then(|| text.to_owned())
}

fn container(id: &str, runtime: Option<Runtime>) -> Option<Container> {
    let fits = id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    fits.then(|| Container { id: id.to_owned(), runtime })
}

const SCOPES: [(&str, Runtime); 5] = [
    ("docker-", Runtime::Docker),
    ("libpod-", Runtime::Podman),
    ("cri-containerd-", Runtime::Containerd),
    ("nerdctl-", Runtime::Containerd),
    ("crio-", Runtime::CriO),
];

const MAX_PATH: usize = 4096;

#[cfg(test)]
mod tests;
