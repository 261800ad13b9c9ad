use super::*;
use crate::test_support::engine;

fn run(text: &str) -> Vec<CaseResult> {
    engine().run_tests(text).unwrap()
}

#[test]
fn the_shipped_cases_pass_and_together_they_let_every_shipped_policy_decide() {
    let files = [
        include_str!("../../../../ca-config/policy/tests/issue.toml"),
        include_str!("../../../../ca-config/policy/tests/operators.toml"),
    ];
    let results: Vec<CaseResult> = files.into_iter().flat_map(run).collect();
    for result in &results {
        assert!(result.passed(), "{}: {:?}", result.name, result.failures);
    }
    let decided: std::collections::BTreeSet<&String> =
        results.iter().flat_map(|result| &result.policies).collect();
    let engine = engine();
    for action in Action::ALL {
        for policy in engine.policies_for(*action) {
            assert!(decided.contains(&policy), "no shipped case lets policy {policy} decide");
        }
    }
}

#[test]
fn a_failed_expectation_says_what_came_instead() {
    let results = run("[[case]]\nname = \"wrong\"\nissue = {}\n\
         expect = { outcome = \"deny\", code = \"no-owner\", lifetime = \"2h\", policies = [\"nobody\"] }\n");
    let failures = results[0].failures.join("\n");
    assert!(!results[0].passed());
    for part in [
        "expected deny, got grant",
        "lifetime of 2h, got 1h",
        "code no-owner, got none",
        "policy nobody to decide, got [issue-full]",
    ] {
        assert!(failures.contains(part), "{part} in {failures}");
    }
}

#[test]
fn a_denial_shows_its_reason() {
    let results =
        run("[[case]]\nname = \"no owner\"\nissue.identity.owner = \"\"\nexpect = { outcome = \"grant\" }\n");
    assert!(results[0].failures[0].contains("has no owner"), "{:?}", results[0].failures);
}

#[test]
fn refuses_files_that_are_not_cases() {
    let engine = engine();
    let form = |text: &str| matches!(engine.run_tests(text), Err(CaseFileError::Form(_)));
    assert!(form("not toml"));
    assert!(form("[[case]]\nname = \"x\"\n"));
    assert!(form("[[case]]\nname = \"x\"\nexpect.outcome = \"grant\"\nissue.unknown = 1\n"));
    assert!(form("[[case]]\nname = \"x\"\nexpect.outcome = \"grant\"\nissue.identity.spiffe_id = \"x\"\n"));
    assert!(form("[[case]]\nname = \"x\"\nexpect.outcome = \"grant\"\ncall.action = \"no.such\"\n"));
    let neither = "[[case]]\nname = \"x\"\nexpect.outcome = \"grant\"\n";
    assert_eq!(engine.run_tests(neither), Err(CaseFileError::Subject("x".to_owned())));
    let both = "[[case]]\nname = \"x\"\nissue = {}\ncall.action = \"enrol\"\nexpect.outcome = \"grant\"\n";
    assert_eq!(engine.run_tests(both), Err(CaseFileError::Subject("x".to_owned())));
    let large = " ".repeat(1024 * 1024 + 1);
    assert!(matches!(engine.run_tests(&large), Err(CaseFileError::Size { .. })));
}
