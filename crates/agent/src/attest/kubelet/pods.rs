//! What is used of the kubelet's list of pods (Kubernetes API, `v1/PodList`).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

#[derive(Debug, Deserialize)]
pub(super) struct Pods {
    #[serde(default, deserialize_with = "or_none")]
    items: Vec<Pod>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    #[serde(default, deserialize_with = "or_none")]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default)]
    pub(super) service_account_name: String,
    #[serde(default)]
    pub(super) node_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    #[serde(deserialize_with = "or_none")]
    container_statuses: Vec<Running>,
    #[serde(deserialize_with = "or_none")]
    init_container_statuses: Vec<Running>,
    #[serde(deserialize_with = "or_none")]
    ephemeral_container_statuses: Vec<Running>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Running {
    pub(super) name: String,
    #[serde(default)]
    pub(super) image: String,
    #[serde(default, rename = "imageID")]
    pub(super) image_id: String,
    #[serde(default, rename = "containerID")]
    container_id: String,
}

impl Pods {
    /// The pod that runs this container. If the cgroup said which pod that is, it must be that one.
    pub(super) fn find(&self, pod: Option<&str>, container: &str) -> Option<(&Pod, &Running)> {
        self.items.iter().filter(|found| pod.is_none_or(|uid| found.metadata.uid == uid)).find_map(|found| {
            let status = &found.status;
            let mut running = status
                .container_statuses
                .iter()
                .chain(&status.init_container_statuses)
                .chain(&status.ephemeral_container_statuses);
            // `containerd://ID`
            let is_it = |id: &str| id.split_once("://").is_some_and(|(_, id)| id == container);
            Some((found, running.find(|running| is_it(&running.container_id))?))
        })
    }
}

/// Go writes an empty list or map as null.
fn or_none<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
