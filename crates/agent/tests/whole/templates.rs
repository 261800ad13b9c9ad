//! What a template makes of the processes of a machine, from the operator's words to the certificate.

use chancery_api::TemplateDocument;
use chancery_types::IdentityState;

use crate::place::{PATIENCE, World, names, uid, wait};
use crate::running::id;

/// `/user/UID` for every process of this machine.
fn users() -> TemplateDocument {
    serde_json::from_value(serde_json::json!({
        "name": "users", "path": "/user/{unix.uid}", "owner": "ada",
        "selectors": {"unix.uid": uid()}, "parents": [id("node/a")],
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_becomes_what_a_template_makes_of_it_on_an_agent_that_runs() {
    let world = World::new().await;
    let _serving = world.serve("").await.unwrap();
    let mut states = world.follow();
    let admin = world.admin();
    admin.register_template(&users()).await.unwrap();
    let made = format!("user/{}", uid());
    let state = wait(&mut states, PATIENCE, |state| !state.svids.is_empty()).await;
    assert_eq!(names(&state), [made.as_str()]);
    let view = admin.read_identity(&id(&made)).await.unwrap();
    assert_eq!((view.state, view.identity.0.owner.as_str()), (IdentityState::Active, "ada"));

    // What was made is an identity like any other: it outlives the template, and can be taken away.
    admin.remove_template("users").await.unwrap();
    let serial = state.svids[0].serial;
    world.revoke(serial).await;
    let state =
        wait(&mut states, PATIENCE, |state| state.svids.first().is_some_and(|svid| svid.serial != serial))
            .await;
    assert_eq!(names(&state), [made.as_str()]);
    admin.hold_identity(&id(&made), &Default::default()).await.unwrap();
    wait(&mut states, PATIENCE, |state| state.svids.is_empty()).await;
}
