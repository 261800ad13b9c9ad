//! Identities that templates make of processes: told to nodes, registered when they are first issued to, and nobody
//! else's.

use chancery_api::{AgentEvent, AgentJwtRequest, ProblemCode, TemplateDocument};
use chancery_types::{Claims, IdentityState};

use crate::node::{Node, hold, register, spiffe, workload};
use crate::running::{Running, problem};

fn pods(name: &str, node: &str) -> TemplateDocument {
    serde_json::from_value(serde_json::json!({
        "name": name, "path": "/ns/{k8s.ns}/sa/{k8s.sa}", "owner": "ada", "environment": "prod",
        "selectors": {"k8s.cluster": "east"}, "parents": [spiffe(node)],
    }))
    .unwrap()
}

fn pod(namespace: &str, account: &str) -> Claims {
    let mut claims = Claims::new();
    claims.insert("k8s.cluster", "east");
    claims.insert("k8s.ns", namespace);
    claims.insert("k8s.sa", account);
    claims
}

#[tokio::test]
async fn a_process_becomes_what_a_template_makes_of_it_and_is_registered_once() {
    let running = Running::start().await;
    let (node, other) = (Node::enrol(&running, "node/a").await, Node::enrol(&running, "node/b").await);
    let mut stream = node.stream(None).await;
    stream.sync().await;
    running.admin().register_template(&pods("pods", "node/a")).await.unwrap();
    let AgentEvent::Template { template, .. } = stream.next().await else { panic!("a template") };
    let made = template.make(&spiffe("x").trust_domain(), &pod("shop", "web")).unwrap();
    assert_eq!(made.spiffe_id, spiffe("ns/shop/sa/web"));

    let svid = node.svid("ns/shop/sa/web", &pod("shop", "web")).await.unwrap();
    assert_eq!(svid.spiffe_id, made.spiffe_id);
    let view = running.admin().read_identity(&made.spiffe_id).await.unwrap();
    assert_eq!(view.state, IdentityState::Active);
    assert_eq!((view.identity.0.owner.as_str(), view.identity.0.environment.as_str()), ("ada", "prod"));
    assert_eq!(view.identity.0.selectors, made.selectors);
    let AgentEvent::Changed { identity, .. } = stream.next().await else { panic!("what was registered") };
    assert_eq!(*identity, made, "the authority says of it what the template said");
    node.svid("ns/shop/sa/web", &pod("shop", "web")).await.unwrap();

    let AgentEvent::Sync { templates, .. } = node.stream(None).await.next().await else { panic!("sync") };
    assert_eq!(templates, [*template]);
    let AgentEvent::Sync { templates, .. } = other.stream(None).await.next().await else { panic!("sync") };
    assert!(templates.is_empty());
    running.admin().remove_template("pods").await.unwrap();
    assert!(matches!(stream.next().await, AgentEvent::TemplateRemoved { name, .. } if name == "pods"));
    let refused = node.svid("ns/shop/sa/db", &pod("shop", "db")).await.unwrap_err();
    assert_eq!(refused, ProblemCode::NoMatchingIdentity);
    assert!(node.svid("ns/shop/sa/web", &pod("shop", "web")).await.is_ok(), "what it made stays");
    running.server.stop().await;
}

#[tokio::test]
async fn nobody_gets_a_name_that_his_claims_do_not_make() {
    let running = Running::start().await;
    let (node, other) = (Node::enrol(&running, "node/a").await, Node::enrol(&running, "node/b").await);
    running.admin().register_template(&pods("pods", "node/a")).await.unwrap();
    let mut missing = pod("shop", "web");
    missing.insert("k8s.sa", chancery_types::ClaimValue::List(Vec::new()));
    let mut elsewhere = pod("shop", "web");
    elsewhere.insert("k8s.cluster", "west");
    for claims in [missing, elsewhere, pod("shop", "db"), pod("shop/sa/web", ""), pod("..", "web")] {
        let refused = node.svid("ns/shop/sa/web", &claims).await.unwrap_err();
        assert_eq!(refused, ProblemCode::NoMatchingIdentity, "{claims:?}");
    }
    let refused = node.svid("ns/shop/sa/a/sa/b", &pod("shop", "a/sa/b")).await.unwrap_err();
    assert_eq!(refused, ProblemCode::NoMatchingIdentity);
    let refused = other.svid("ns/shop/sa/web", &pod("shop", "web")).await.unwrap_err();
    assert_eq!(refused, ProblemCode::NoMatchingIdentity, "the template is another node's");
    assert!(
        running.admin().read_identity(&spiffe("ns/shop/sa/web")).await.is_err(),
        "nothing was registered"
    );
    running.server.stop().await;
}

#[tokio::test]
async fn what_two_templates_would_make_is_made_by_neither() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    running.admin().register_template(&pods("one", "node/a")).await.unwrap();
    running.admin().register_template(&pods("two", "node/b")).await.unwrap();
    let refused = node.svid("ns/shop/sa/web", &pod("shop", "web")).await.unwrap_err();
    assert_eq!(refused, ProblemCode::NoMatchingIdentity);
    running.admin().remove_template("two").await.unwrap();
    assert!(node.svid("ns/shop/sa/web", &pod("shop", "web")).await.is_ok());
    running.server.stop().await;
}

#[tokio::test]
async fn what_is_registered_or_held_is_not_made_again() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    running.admin().register_template(&pods("pods", "node/a")).await.unwrap();
    register(&running, workload("ns/shop/sa/db", "node/a", "26")).await;
    let refused = node.svid("ns/shop/sa/db", &pod("shop", "db")).await.unwrap_err();
    assert_eq!(refused, ProblemCode::NoMatchingIdentity, "its own selectors count");
    node.svid("ns/shop/sa/web", &pod("shop", "web")).await.unwrap();
    hold(&running, "ns/shop/sa/web").await;
    let refused = node.svid("ns/shop/sa/web", &pod("shop", "web")).await.unwrap_err();
    assert_eq!(refused, ProblemCode::IdentityHeld);
    running.server.stop().await;
}

#[tokio::test]
async fn a_token_is_signed_for_what_a_template_makes_and_registers_it_too() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    running.admin().register_template(&pods("pods", "node/a")).await.unwrap();
    let request = AgentJwtRequest {
        identity: spiffe("ns/shop/sa/web"),
        audiences: vec!["db".into()],
        claims: pod("shop", "web"),
    };
    node.client.agent_jwt(&request).await.unwrap();
    assert!(running.admin().read_identity(&request.identity).await.is_ok());
    node.client.agent_jwt(&request).await.unwrap();
    let wrong = AgentJwtRequest { claims: pod("shop", "db"), ..request };
    let refused = node.client.agent_jwt(&wrong).await.unwrap_err();
    assert_eq!(problem(&refused), Some(ProblemCode::NoMatchingIdentity));
    running.server.stop().await;
}

#[tokio::test]
async fn refuses_a_template_that_nobody_could_ask_for_or_whose_name_agents_do_not_find_out() {
    let running = Running::start().await;
    let halved = TemplateDocument { parents: Vec::new(), ..pods("pods", "node/a") };
    let reserved = TemplateDocument { path: "/on/{node.id}".into(), ..pods("pods", "node/a") };
    for template in [halved, reserved] {
        let refused = running.admin().register_template(&template).await.unwrap_err();
        assert_eq!(problem(&refused), Some(ProblemCode::InvalidTemplate));
    }
    running.server.stop().await;
}
