//! How soon a change at the authority is one at a workload.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery_agent::identities::X509State;
use chancery_agent::workload_api::follow;
use chancery_api::IdentityStateRequest;
use chancery_types::{SerialNumber, SpiffeId};
use tokio::sync::watch;

use crate::authority::{Authority, uid};
use crate::percentiles;
use crate::program::{PATIENCE, conditions};
use crate::running::id;

const ROUNDS: usize = 100;

/// Each from the moment at which the operator's request is sent to the message on the workload's stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn from_a_change_to_the_workload() {
    let authority = Authority::new().await;
    let admin = authority.admin();
    let directory = authority.register_node(&admin, "node/a").await;
    authority.register(&admin, "web", "node/a", &uid()).await;
    let agent = authority.start_agent(&directory, "");
    let (sender, mut states) = watch::channel(Arc::default());
    let following = tokio::spawn(follow(directory.join("api.sock"), sender));
    until(&mut states, |state| !state.svids.is_empty()).await;
    println!("{}", conditions());

    let (mut created, mut revoked, mut replaced, mut retired) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("job/{round}");
        let begun = Instant::now();
        authority.register(&admin, &name, "node/a", &uid()).await;
        until(&mut states, |state| serial(state, &id(&name)).is_some()).await;
        created.push(begun.elapsed());

        let first = serial(&states.borrow(), &id(&name)).unwrap();
        let begun = Instant::now();
        authority.revoke(&admin, first).await;
        until(&mut states, |state| serial(state, &id(&name)) != Some(first)).await;
        revoked.push(begun.elapsed());
        until(&mut states, |state| serial(state, &id(&name)).is_some()).await;
        replaced.push(begun.elapsed());

        let begun = Instant::now();
        admin.retire_identity(&id(&name), &IdentityStateRequest::default()).await.unwrap();
        until(&mut states, |state| serial(state, &id(&name)).is_none()).await;
        retired.push(begun.elapsed());
    }
    println!("identity created to certificate usable: {}", percentiles(created.clone()));
    println!("certificate revoked to withdrawn:       {}", percentiles(revoked.clone()));
    println!("certificate revoked to replaced:        {}", percentiles(replaced));
    println!("identity retired to withdrawn:          {}", percentiles(retired.clone()));
    println!("{}", conditions());
    let slowest = [created, revoked, retired].concat().into_iter().max().unwrap();
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    following.abort();
    agent.stop().await;
}

fn serial(state: &X509State, id: &SpiffeId) -> Option<SerialNumber> {
    state.svids.iter().find(|svid| svid.spiffe_id == *id).map(|svid| svid.serial)
}

async fn until(states: &mut watch::Receiver<Arc<X509State>>, mut is_so: impl FnMut(&X509State) -> bool) {
    let waited = tokio::time::timeout(PATIENCE, states.wait_for(|state| is_so(state))).await;
    waited.expect("it comes in time").unwrap();
}
