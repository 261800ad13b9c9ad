use super::*;
use crate::test_support::{engine, engine_of, now, web};

fn ask(caller: CallerFacts, action: Action, resource: ResourceFacts) -> OperatorDecision {
    engine().decide_operator(OperatorRequest::new(caller, action, resource, now()))
}

fn with_role(role: Role) -> CallerFacts {
    CallerFacts::mtls(&"spiffe://example.org/operators/ada".parse().unwrap(), Some(role))
}

fn workload() -> CallerFacts {
    CallerFacts::mtls(&"spiffe://example.org/web".parse().unwrap(), None)
}

fn denial(decision: OperatorDecision) -> Denial {
    match decision {
        OperatorDecision::Denied(denial) => *denial,
        OperatorDecision::Permitted(receipt) => panic!("permitted by {:?}", receipt.policies),
    }
}

/// Which of the actions a caller may, with nothing special about the resource.
fn permitted(caller: &CallerFacts) -> Vec<Action> {
    let engine = engine();
    let all = Action::ALL.iter().copied().filter(|action| !action.is_issue());
    let ask = |action: &Action| {
        let request = OperatorRequest::new(caller.clone(), *action, ResourceFacts::the("thing"), now());
        engine.decide_operator(request).is_permitted()
    };
    all.filter(ask).collect()
}

/// What a node's agent asks for.
const NODES: [Action; 3] = [Action::NodeStream, Action::NodeEnrol, Action::NodeJwt];

const PUBLIC: [Action; 6] = [
    Action::Enrol,
    Action::NonceCreate,
    Action::BundleRead,
    Action::StatusRead,
    Action::HealthRead,
    Action::LogCheckpoint,
];

#[test]
fn strangers_and_workloads_get_what_is_public_and_their_own() {
    assert_eq!(permitted(&CallerFacts::anonymous()), PUBLIC);
    let mut own = PUBLIC.to_vec();
    own.extend([Action::CertificateRenew, Action::LogProof, Action::StatusFollow]);
    assert_eq!(permitted(&workload()), own);
}

#[test]
fn each_role_may_what_it_is_for_and_no_more() {
    let may = |role: Role, action: Action| permitted(&with_role(role)).contains(&action);
    let table = [
        (Action::IdentityRead, [true, true, true, true]),
        (Action::CertificateRead, [true, true, true, true]),
        (Action::LogRead, [true, true, true, false]),
        (Action::AuditExport, [true, true, true, false]),
        (Action::TokenCreate, [true, true, false, false]),
        (Action::CertificateRevoke, [true, true, false, false]),
        (Action::IdentityRegister, [true, true, false, false]),
        (Action::PolicyChange, [true, false, false, false]),
        (Action::ProfileChange, [true, false, false, false]),
        (Action::OperatorCreate, [true, false, false, false]),
        (Action::CaChange, [true, false, false, false]),
    ];
    for (action, expected) in table {
        assert_eq!(Role::ALL.map(|role| may(role, action)), expected, "{action}");
    }
}

#[test]
fn the_local_administrator_may_everything_but_pose_as_a_node() {
    let everything = Action::ALL.iter().filter(|action| !action.is_issue());
    let but_nodes: Vec<Action> = everything.copied().filter(|action| !NODES.contains(action)).collect();
    assert_eq!(permitted(&CallerFacts::local_admin(0)), but_nodes);
}

#[test]
fn a_node_may_what_its_workloads_need_and_what_every_holder_may() {
    let mut expected = PUBLIC.to_vec();
    expected.extend([Action::CertificateRenew, Action::LogProof, Action::StatusFollow]);
    expected.extend(NODES);
    assert_eq!(permitted(&workload().under("node")), expected);
    assert!(permitted(&workload().under("workload")).iter().all(|action| !NODES.contains(action)));
}

#[test]
fn a_role_without_proof_is_worth_nothing() {
    let mut caller = with_role(Role::Admin);
    caller.factor = Factor::None;
    let denial = denial(ask(caller, Action::TokenCreate, ResourceFacts::the("token")));
    assert_eq!(denial.receipt.policies, ["roles-need-a-factor"]);
    assert_eq!(denial.smallest_change.as_deref(), Some("use a client certificate of this authority"));
}

#[test]
fn operators_do_not_touch_those_who_administer() {
    let mut admin = web();
    admin.role = Some(Role::Admin);
    let resource = || ResourceFacts::of("identity", admin.spiffe_id.as_str(), &admin);
    let denial = denial(ask(with_role(Role::Operator), Action::IdentityChange, resource()));
    assert_eq!(denial.receipt.policies, ["operators-are-admins-business"]);
    assert_eq!(denial.smallest_change.as_deref(), Some("ask an admin, or be one"));
    assert!(ask(with_role(Role::Admin), Action::IdentityChange, resource()).is_permitted());
}

#[test]
fn many_at_once_need_an_approval() {
    let mut request = OperatorRequest::new(
        with_role(Role::Admin),
        Action::CertificateRevoke,
        ResourceFacts::the("certificate"),
        now(),
    );
    request.affected = Some(1000);
    assert!(engine().decide_operator(request.clone()).is_permitted());
    request.affected = Some(1001);
    let denial = denial(engine().decide_operator(request.clone()));
    assert_eq!(denial.smallest_change.as_deref(), Some("name an approval"));
    request.approval = Some("CHG-1".to_owned());
    assert!(engine().decide_operator(request).is_permitted());
}

#[test]
fn issue_actions_are_not_decided_here() {
    let denial = denial(ask(with_role(Role::Admin), Action::IssueFull, ResourceFacts::the("profile")));
    assert_eq!(denial.code, RefusalCode::PolicyError);
    assert!(denial.alarm);
}

#[test]
fn an_error_in_a_policy_denies_and_alarms() {
    let broken = engine_of(
        "@id(\"all\") permit (principal, action, resource);\n\
         @id(\"overflows\") permit (principal is Caller, action, resource) when { context.now * 9223372036854775807 > 0 };",
    );
    let request =
        OperatorRequest::new(CallerFacts::local_admin(0), Action::HealthRead, ResourceFacts::the("x"), now());
    let denial = denial(broken.decide_operator(request));
    assert!(denial.alarm);
    assert_eq!(denial.code, RefusalCode::PolicyError);
}

#[test]
fn receipts_name_caller_action_policies_and_their_version() {
    let decision = ask(with_role(Role::Viewer), Action::CertificateRead, ResourceFacts::the("certificate"));
    let OperatorDecision::Permitted(receipt) = decision else { panic!("denied") };
    let json = receipt.to_json();
    for part in
        ["viewers-look", "operators/ada", "certificate.read", &receipt.policy_hash.to_string(), "viewer"]
    {
        assert!(json.contains(part), "{part}: {json}");
    }
    assert_eq!(serde_json::from_str::<OperatorReceipt>(&json).unwrap(), *receipt);
}

#[test]
fn what_is_built_conforms_to_the_schema() {
    let engine = engine();
    let mut identity = web();
    identity.role = Some(Role::Viewer);
    identity.team = "platform".to_owned();
    identity.environment = "prod".to_owned();
    let network = NetworkFacts { address: "2001:db8::1".parse().unwrap(), zone: Some("dc1".to_owned()) };
    let rich = ResourceFacts::of("identity", identity.spiffe_id.as_str(), &identity);
    for (caller, resource, extra) in [
        (CallerFacts::anonymous(), ResourceFacts::the("bundle"), false),
        (workload().under("node"), ResourceFacts::the("node"), false),
        (with_role(Role::Admin), rich, true),
    ] {
        let vocabulary = &engine.vocabulary;
        let (principal, target) = (vocabulary.caller(&caller), vocabulary.resource(&resource));
        let ids = (principal.uid().clone(), target.uid().clone());
        let (approval, affected) = (extra.then_some("CHG-1"), extra.then_some(7));
        let context = vocabulary.call_context(now(), approval, affected, extra.then_some(&network)).unwrap();
        let entities = entities_of([Arc::new(principal), Arc::new(target)]).unwrap();
        for action in Action::ALL.iter().filter(|action| !action.is_issue()) {
            crate::engine::check_conformity(engine, *action, (&ids.0, &ids.1), &context, &entities);
        }
    }
}
