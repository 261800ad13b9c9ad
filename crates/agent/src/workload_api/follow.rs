//! Following the Workload API from its other end: the state of this process, now and at every change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chancery_types::{SecretBytes, SpiffeId};
use chancery_x509::{Certificate, split_certificates};
use tokio::sync::watch;
use tonic::Code;

use super::client;
use crate::identities::{Bundle, Bundles, X509State, X509Svid};
use crate::proto::workload::{X509svid, X509svidRequest, X509svidResponse};

/// Certificates of a chain or a bundle that are read.
const MOST: usize = 64;
/// How long until an agent that went away is looked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows the agent behind this socket for as long as somebody listens to `states`. Without an agent the last state
/// stays; without a right to any identity it is empty.
pub async fn follow(socket: PathBuf, states: watch::Sender<Arc<X509State>>) {
    loop {
        tokio::select! {
            () = states.closed() => return,
            () = listen(&socket, &states) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn listen(socket: &std::path::Path, states: &watch::Sender<Arc<X509State>>) {
    let mut client = match client::connect(socket).await {
        Ok(client) => client,
        Err(error) => return tracing::warn!(%error, "no agent; what there is stays"),
    };
    let status = match client.fetch_x509svid(X509svidRequest {}).await {
        Ok(answer) => {
            let mut messages = answer.into_inner();
            loop {
                match messages.message().await {
                    Ok(Some(message)) => match state(&message) {
                        Some(state) => drop(states.send_replace(Arc::new(state))),
                        None => tracing::error!("the agent's answer cannot be read; what there is stays"),
                    },
                    Ok(None) => return,
                    Err(status) => break status,
                }
            }
        }
        Err(status) => status,
    };
    if status.code() == Code::PermissionDenied {
        states.send_if_modified(|state| {
            let had = !state.svids.is_empty();
            if had {
                *state = Arc::default();
            }
            had
        });
    }
    tracing::warn!(code = ?status.code(), message = status.message(), "the agent has ended the stream");
}

fn state(message: &X509svidResponse) -> Option<X509State> {
    let mut bundles = Bundles::new();
    let mut svids = Vec::with_capacity(message.svids.len());
    for svid in &message.svids {
        let own = self::svid(svid)?;
        bundles.insert(own.spiffe_id.trust_domain(), Arc::new(bundle(&svid.bundle)?));
        svids.push(Arc::new(own));
    }
    for (domain, authorities) in &message.federated_bundles {
        // The key is the trust domain's SPIFFE ID, or its name.
        let name = domain.strip_prefix("spiffe://").unwrap_or(domain);
        bundles.insert(name.parse().ok()?, Arc::new(bundle(authorities)?));
    }
    Some(X509State { svids, bundles, crls: message.crl.clone() })
}

fn svid(svid: &X509svid) -> Option<X509Svid> {
    let chain = split_certificates(&svid.x509_svid, MOST).ok()?;
    let leaf = Certificate::from_der(chain.first()?).ok()?;
    Some(X509Svid {
        spiffe_id: svid.spiffe_id.parse::<SpiffeId>().ok()?,
        serial: leaf.serial_number()?,
        not_before: leaf.tbs().not_before(),
        not_after: leaf.tbs().not_after(),
        chain,
        key: SecretBytes::new(svid.x509_svid_key.clone()),
        hint: svid.hint.clone(),
        federates_with: Vec::new(),
    })
}

fn bundle(authorities: &[u8]) -> Option<Bundle> {
    Some(Bundle { x509_authorities: split_certificates(authorities, MOST).ok()?, jwt_keys: Vec::new() })
}
