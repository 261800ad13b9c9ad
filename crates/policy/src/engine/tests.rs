use super::*;
use crate::PolicyMistake;
use crate::test_support::{engine, engine_of, schema, shipped};

fn mistakes(text: &str) -> Vec<PolicyMistake> {
    Engine::new(&schema(), &[PolicySource::new("bad.cedar", text)]).map(|_| ()).unwrap_err().0
}

#[test]
fn the_shipped_policies_are_valid_and_every_action_but_none_has_a_permit() {
    let engine = engine();
    for action in Action::ALL {
        let policies = &engine.for_action(*action).policies;
        assert!(policies.iter().any(|policy| policy.effect == cedar_policy::Effect::Permit), "{action}");
    }
}

#[test]
fn nobody_needs_to_be_asked_about_what_is_permitted_without_condition_and_never_forbidden() {
    let shipped = engine();
    assert!(shipped.permits_everybody(Action::Enrol));
    assert!(!shipped.permits_everybody(Action::CertificateRenew), "it has a condition");
    assert!(!shipped.permits_everybody(Action::IdentityRead));
    let anybody = "@id(\"anybody\") permit (principal, action == Action::\"enrol\", resource);";
    let forbid =
        "@id(\"night\") forbid (principal, action == Action::\"enrol\", resource) when { context.now < 5 };";
    assert!(engine_of(anybody).permits_everybody(Action::Enrol));
    assert!(!engine_of(&format!("{anybody} {forbid}")).permits_everybody(Action::Enrol));
}

#[test]
fn reports_every_mistake_with_its_line() {
    let text = "@id(\"a\")\npermit (principal, action, resource)\nwhen { principal.nonsense };\n\n\
                @id(\"b\")\nforbid (principal, action == Action::\"no.such\", resource);\n\
                permit (principal, action, resource);\n";
    let found = mistakes(text);
    assert!(found.iter().any(|mistake| mistake.line == Some(3)), "{found:?}");
    assert!(found.iter().any(|mistake| mistake.line == Some(6)), "{found:?}");
    assert!(found.iter().any(|mistake| mistake.message.contains("@id")), "{found:?}");
    assert!(found.iter().all(|mistake| mistake.file == "bad.cedar"));
}

#[test]
fn reports_syntax_errors_with_their_line() {
    let found = mistakes("@id(\"a\")\npermit (principal, action, resource)\nwhen { 1 + };\n");
    assert_eq!(found[0].line, Some(3), "{found:?}");
}

#[test]
fn refuses_policies_that_might_fail_at_run_time_for_want_of_an_attribute() {
    let found = mistakes(
        "@id(\"a\") permit (principal is Identity, action == Action::\"issue_full\", resource) when { principal.owner == \"x\" };",
    );
    assert!(found[0].message.contains("owner"), "{found:?}");
}

#[test]
fn refuses_duplicate_ids_templates_and_unknown_annotations() {
    let same =
        "@id(\"a\") permit (principal, action, resource); @id(\"a\") forbid (principal, action, resource);";
    assert!(mistakes(same)[0].message.contains("used twice"));
    let template = "@id(\"a\") permit (principal == ?principal, action, resource);";
    assert!(mistakes(template)[0].message.contains("templates"));
    let unknown = "@id(\"a\") @mesage(\"x\") permit (principal, action, resource);";
    assert!(mistakes(unknown)[0].message.contains("mesage"));
    let lifetime = "@id(\"a\") @max_lifetime(\"soon\") permit (principal, action, resource);";
    assert!(mistakes(lifetime)[0].message.contains("soon"));
    let forbid = "@id(\"a\") @max_lifetime(\"1h\") forbid (principal, action, resource);";
    assert!(mistakes(forbid)[0].message.contains("forbid"));
}

#[test]
fn refuses_a_schema_that_misses_actions_or_invents_them() {
    let mut source = schema();
    source.text =
        source.text.replace("\"nonce.create\", ", "").replace("\"token.revoke\"", "\"token.revokes\"");
    let errors = Engine::new(&source, &[]).map(|_| ()).unwrap_err();
    let text = errors.to_string();
    assert!(text.contains("action nonce.create is missing"), "{text}");
    assert!(text.contains("action token.revoke is missing"), "{text}");
    assert!(text.contains("\"token.revokes\" is never asked"), "{text}");
}

#[test]
fn refuses_a_schema_that_does_not_parse() {
    let errors = Engine::new(&PolicySource::new("s", "entity A;\nentity {"), &[]).map(|_| ()).unwrap_err();
    assert_eq!(errors.0[0].line, Some(2), "{errors}");
}

#[test]
fn the_hash_covers_every_text_but_not_the_order_of_files() {
    let (first, mut sources) = (engine().policy_hash(), shipped());
    sources.reverse();
    assert_eq!(Engine::new(&schema(), &sources).unwrap().policy_hash(), first);
    sources[0].text.push('\n');
    assert_ne!(Engine::new(&schema(), &sources).unwrap().policy_hash(), first);
    sources[0].text.pop();
    sources[0].name.push('x');
    assert_ne!(Engine::new(&schema(), &sources).unwrap().policy_hash(), first);
}

#[test]
fn only_policies_whose_scope_admits_an_action_are_asked_about_it() {
    let engine = engine_of(
        "@id(\"all\") permit (principal, action, resource);\n\
         @id(\"group\") forbid (principal, action in Action::\"issue\", resource);\n\
         @id(\"list\") forbid (principal, action in [Action::\"token.create\", Action::\"renew\"], resource);\n\
         @id(\"one\") forbid (principal, action == Action::\"token.list\", resource);",
    );
    assert_eq!(engine.policies_for(Action::IssueFull), ["all", "group"]);
    assert_eq!(engine.policies_for(Action::Renew), ["all", "group", "list"]);
    assert_eq!(engine.policies_for(Action::TokenCreate), ["all", "list"]);
    assert_eq!(engine.policies_for(Action::TokenList), ["all", "one"]);
    assert_eq!(engine.policies_for(Action::HealthRead), ["all"]);
}

/// Every verdict of every test passes through here.
pub(super) fn compare_with_cedar(
    verdict: &Verdict,
    request: Request,
    policies: &cedar_policy::PolicySet,
    entities: &Entities,
) {
    let authorizer = cedar_policy_core::authorizer::Authorizer::new();
    let response = authorizer.is_authorized(request, policies.as_ref(), entities);
    let mut reasons: Vec<String> = response.diagnostics.reason.iter().map(ToString::to_string).collect();
    reasons.sort_unstable();
    assert_eq!(verdict.policies, reasons, "the same policies decide");
    assert_eq!(verdict.errors.len(), response.diagnostics.errors.len(), "the same policies fail");
    let allowed = response.decision == cedar_policy_core::authorizer::Decision::Allow;
    assert_eq!(verdict.permitted, allowed && response.diagnostics.errors.is_empty());
}

/// Panics unless Cedar finds that the request and its entities conform to the schema.
pub(crate) fn check_conformity(
    engine: &Engine,
    action: Action,
    (principal, resource): (&EntityUID, &EntityUID),
    context: &Context,
    entities: &Entities,
) {
    let (principal, resource) = (principal.clone(), resource.clone());
    let uid = engine.vocabulary.action(action);
    cedar_policy::Request::new(
        principal.into(),
        uid.into(),
        resource.into(),
        context.clone().into(),
        Some(engine.schema()),
    )
    .unwrap_or_else(|error| panic!("{action}: {error}"));
    let entities = cedar_policy::Entities::from(entities.clone());
    cedar_policy::Entities::from_entities(entities, Some(engine.schema()))
        .unwrap_or_else(|error| panic!("{action}: {error}"));
}
