//! A node that is enrolled, and what a test does with one.

use std::collections::BTreeMap;
use std::time::Duration;

use chancery_api::{
    AgentEvent, AgentStreamQuery, AgentSvidItem, AgentSvidsRequest, BatchResult, CreateTokenRequest,
    EnrollResponse, IdentityDocument, IdentityStateRequest, ProblemCode, PublicKeyDer,
};
use chancery_client::{AgentEvents, Client};
use chancery_types::{ClaimValue, Claims, Identity, SpiffeId};

use crate::running::{Held, Running, id};

/// How soon a change has to be there; it takes milliseconds where nothing else runs.
const SOON: Duration = Duration::from_secs(1);

pub(crate) struct Node {
    pub(crate) held: Held,
    pub(crate) client: Client,
}

impl Node {
    /// Registers a node and enrols it with a join token.
    pub(crate) async fn enrol(running: &Running, name: &str) -> Self {
        running.admin().register_identity(&IdentityDocument(node_identity(name))).await.unwrap();
        Self::of(running, running.enroll_again(name).await)
    }

    pub(crate) fn of(running: &Running, held: Held) -> Self {
        let client = running.client(Some(held.identity()));
        Self { held, client }
    }

    pub(crate) async fn stream(&self, after: Option<u64>) -> Stream {
        Stream(self.client.agent_stream(&AgentStreamQuery { after }).await.unwrap())
    }

    /// Asks for one certificate.
    pub(crate) async fn svid(&self, name: &str, claims: &Claims) -> Result<EnrollResponse, ProblemCode> {
        let items = vec![item(name, claims)];
        let answer = self.client.agent_svids(&AgentSvidsRequest { items }).await.unwrap();
        let [result] = answer.results.try_into().unwrap();
        outcome(result)
    }
}

pub(crate) struct Stream(AgentEvents);

impl Stream {
    /// The next event that is no heartbeat; it must come soon.
    pub(crate) async fn next(&mut self) -> AgentEvent {
        self.next_or_end().await.expect("the stream goes on")
    }

    /// The next event that is no heartbeat, or the end.
    pub(crate) async fn next_or_end(&mut self) -> Option<AgentEvent> {
        let next = async {
            loop {
                match self.0.next().await.unwrap() {
                    Some(AgentEvent::Heartbeat { .. }) => {}
                    other => return other,
                }
            }
        };
        tokio::time::timeout(SOON, next).await.expect("it is told within a second")
    }

    /// Whatever comes next, heartbeats too.
    pub(crate) async fn any(&mut self) -> AgentEvent {
        self.0.next().await.unwrap().unwrap()
    }

    /// The names in the `sync` that comes first, and its revision.
    pub(crate) async fn sync(&mut self) -> (Vec<String>, u64) {
        match self.next().await {
            AgentEvent::Sync { revision, identities, .. } => {
                let names = identities.iter().map(|one| one.spiffe_id.path().to_owned());
                (names.collect(), revision)
            }
            other => panic!("expected everything, got {other:?}"),
        }
    }
}

pub(crate) fn node_identity(name: &str) -> Identity {
    let mut identity = Identity::new(id(name), "ada");
    identity.profiles = vec!["node".into()];
    identity
}

/// A workload that runs as this user on this node.
pub(crate) fn workload(name: &str, node: &str, uid: &str) -> Identity {
    let mut identity = Identity::new(id(name), "ada");
    identity.parents = vec![id(node)];
    identity.selectors = [("unix.uid", uid)].into();
    identity
}

pub(crate) async fn register(running: &Running, identity: Identity) {
    running.admin().register_identity(&IdentityDocument(identity)).await.unwrap();
}

pub(crate) async fn hold(running: &Running, name: &str) {
    running.admin().hold_identity(&id(name), &IdentityStateRequest::default()).await.unwrap();
}

pub(crate) fn process(uid: &str) -> Claims {
    let mut claims = Claims::new();
    claims.insert("unix.uid", uid);
    claims.insert("unix.supplementary_gid", ClaimValue::List(vec!["4".into(), "27".into()]));
    claims
}

pub(crate) fn item(name: &str, claims: &Claims) -> AgentSvidItem {
    let key = crate::running::new_key();
    let key = PublicKeyDer::from_der(key.public_key().spki_der().to_vec());
    AgentSvidItem { identity: id(name), key, claims: claims.clone() }
}

pub(crate) fn outcome(result: BatchResult) -> Result<EnrollResponse, ProblemCode> {
    match result {
        BatchResult::Issued(response) => Ok(*response),
        BatchResult::Refused(problem) => Err(problem.known_code().unwrap()),
    }
}

/// A join token for a template with these parameters.
pub(crate) fn token_for_template(name: &str, parameters: &[(&str, &str)]) -> CreateTokenRequest {
    let parameters: BTreeMap<_, _> = parameters.iter().copied().collect();
    serde_json::from_value(serde_json::json!({ "template": name, "parameters": parameters })).unwrap()
}

pub(crate) fn spiffe(name: &str) -> SpiffeId {
    id(name)
}
