use chancery_attest::TokenBinding;
use chancery_types::{
    AssuranceLevel, Digest, IdentityState, KeyAlgorithm, Role, Selectors, Sensitivity, SubjectName,
};

use super::*;
use crate::test_support::{
    by_authority, by_local_admin, by_renewal, by_token, by_token_for, engine, engine_of, key, now,
    parameters, profile, request, web,
};
use crate::{HistoryFacts, NetworkFacts, Outcome, Replay, replay};

fn approved(decision: Decision) -> Approved {
    match decision {
        Decision::Approved(approved) => *approved,
        Decision::Refused(refused) => panic!("refused: {:?}", refused.refusal),
    }
}

fn refused(decision: Decision) -> Refused {
    match decision {
        Decision::Refused(refused) => *refused,
        Decision::Approved(approved) => panic!("approved: {approved:?}"),
    }
}

/// The inputs that a request comes to, for decisions about evidence that no verifier in reach produces.
fn gather(request: &IssueRequest<'_>) -> IssueInputs {
    IssueInputs {
        names: NameFacts::choose(&request.identity, &request.requested.names, &request.profile),
        identity: Arc::clone(&request.identity),
        identity_state: request.identity_state,
        template: request.template.clone(),
        evidence: EvidenceFacts::of(&request.attested),
        renewal: RenewalFacts::of(&request.attested),
        profile: ProfileFacts::of(&request.profile),
        requested: request.requested.clone(),
        context: request.context.clone(),
    }
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

fn name(text: &str) -> SubjectName {
    text.parse().unwrap()
}

#[test]
fn grants_an_unremarkable_request_in_full() {
    let approved = approved(engine().decide_issue(request(by_token())));
    assert_eq!(approved.lifetime(), hours(1));
    assert_eq!(approved.names(), [name("uri:spiffe://example.org/web")]);
    assert_eq!(approved.key().fingerprint, key());
    assert_eq!(approved.receipt().outcome, Outcome::Grant);
    assert_eq!(approved.receipt().policies, ["issue-full"]);
    assert_eq!(approved.receipt().inputs.names.left_out, [name("dns:web.example.org")]);
    assert!(approved.reductions().is_empty());
    assert!(approved.attested().spends().is_some());
}

/// One input is changed in a request that is granted in full; the outcome changes, and the receipt holds the
/// changed input.
#[test]
fn every_input_alone_changes_the_decision_and_stands_in_the_receipt() {
    type Flip = fn(&mut IssueRequest<'static>);
    let table: [(&str, Flip, RefusalCode, &str); 16] = [
        (
            "held",
            |r| r.identity_state = IdentityState::Held,
            RefusalCode::IdentityHeld,
            r#""identity_state":"held""#,
        ),
        (
            "retired",
            |r| r.identity_state = IdentityState::Retired,
            RefusalCode::IdentityRetired,
            r#""identity_state":"retired""#,
        ),
        (
            "expired",
            |r| Arc::make_mut(&mut r.identity).expires = Some(now()),
            RefusalCode::IdentityExpired,
            r#""expires":"2026-11-21T12:00:00Z""#,
        ),
        (
            "ends too soon",
            |r| Arc::make_mut(&mut r.identity).expires = Some(now() + Duration::from_secs(299)),
            RefusalCode::IdentityExpired,
            r#""expires":"2026-11-21T12:04:59Z""#,
        ),
        (
            "no owner",
            |r| Arc::make_mut(&mut r.identity).owner = "  ".to_owned(),
            RefusalCode::NoOwner,
            r#""owner":"  ""#,
        ),
        (
            "another identity",
            |r| Arc::make_mut(&mut r.identity).spiffe_id = "spiffe://example.org/db".parse().unwrap(),
            RefusalCode::EvidenceOfAnother,
            r#""spiffe_id":"spiffe://example.org/db""#,
        ),
        (
            "evidence for another key",
            |r| {
                r.attested = by_local_admin(&web());
                r.requested.key.fingerprint = Digest::of(b"other");
            },
            RefusalCode::KeyNotBound,
            r#""bound_key":""#,
        ),
        (
            "assurance",
            |r| Arc::make_mut(&mut r.identity).minimum_assurance = Some(AssuranceLevel::FirstUse),
            RefusalCode::AssuranceTooLow,
            r#""minimum_assurance":"AL1""#,
        ),
        (
            "profile",
            |r| r.profile = profile("device", "device", false),
            RefusalCode::ProfileNotAllowed,
            r#""name":"device""#,
        ),
        (
            "a name that is not the identity's",
            |r| {
                r.profile = profile("server", "server", true);
                r.requested.names = vec![name("dns:bank.example.org")];
            },
            RefusalCode::NameNotOwned,
            r#""dns:bank.example.org""#,
        ),
        (
            "a name that the profile does not take",
            |r| r.requested.names = vec![name("dns:web.example.org")],
            RefusalCode::NameNotInProfile,
            r#""refusals":["dns:web.example.org"#,
        ),
        (
            "key, by the profile",
            |r| r.requested.key.algorithm = KeyAlgorithm::Rsa2048,
            RefusalCode::KeyNotAllowed,
            r#""algorithm":"rsa2048""#,
        ),
        (
            "key, by the identity",
            |r| Arc::make_mut(&mut r.identity).key_algorithms = vec![KeyAlgorithm::Ed25519],
            RefusalCode::KeyNotAllowed,
            r#""key_algorithms":["ed25519"]"#,
        ),
        (
            "too short a lifetime",
            |r| r.requested.lifetime = Some(HumanDuration(Duration::from_secs(299))),
            RefusalCode::LifetimeTooShort,
            r#""lifetime":"4m 59s""#,
        ),
        (
            "sensitivity, by policy",
            |r| Arc::make_mut(&mut r.identity).sensitivity = Sensitivity::Critical,
            RefusalCode::PolicyDenied,
            r#""sensitivity":"critical""#,
        ),
        (
            "a role, by policy",
            |r| Arc::make_mut(&mut r.identity).role = Some(Role::Viewer),
            RefusalCode::PolicyDenied,
            r#""role":"viewer""#,
        ),
    ];
    let engine = engine();
    for (what, flip, code, in_receipt) in table {
        let mut request = request(by_token());
        flip(&mut request);
        let refused = refused(engine.decide_issue(request));
        assert_eq!(refused.refusal.code, code, "{what}: {:?}", refused.refusal);
        assert_eq!(refused.receipt.outcome, Outcome::Deny, "{what}");
        assert_eq!(refused.receipt.refusal.as_ref(), Some(&refused.refusal), "{what}");
        let json = refused.receipt.to_json();
        assert!(json.contains(in_receipt), "{what}: {json}");
        assert_eq!(replay(&refused.receipt, engine), Replay::Same, "{what}");
    }
}

#[test]
fn the_lifetime_is_the_least_of_wish_profile_identity_and_its_end() {
    type Flip = fn(&mut IssueRequest<'static>);
    let table: [(Flip, Duration, Option<&str>); 7] = [
        (|_| {}, hours(1), None),
        (
            |r| r.requested.lifetime = Some(HumanDuration(Duration::from_secs(600))),
            Duration::from_secs(600),
            None,
        ),
        (
            |r| r.requested.lifetime = Some(HumanDuration(Duration::from_millis(600_999))),
            Duration::from_secs(600),
            None,
        ),
        (
            |r| r.requested.lifetime = Some(HumanDuration(Duration::from_secs(1 << 40))),
            hours(24),
            Some("the profile's maximum"),
        ),
        (
            |r| {
                Arc::make_mut(&mut r.identity).max_lifetime = Some(HumanDuration(Duration::from_secs(1200)));
                r.requested.lifetime = Some(HumanDuration(Duration::from_secs(1201)));
            },
            Duration::from_secs(1200),
            Some("the identity's maximum"),
        ),
        (
            |r| {
                Arc::make_mut(&mut r.identity).expires = Some(now() + Duration::from_millis(900_500));
                r.requested.lifetime = Some(HumanDuration(Duration::from_secs(3600)));
            },
            Duration::from_secs(900),
            Some("the identity's end"),
        ),
        // Nobody asked for more, so nothing was reduced.
        (
            |r| Arc::make_mut(&mut r.identity).max_lifetime = Some(HumanDuration(Duration::from_secs(1200))),
            Duration::from_secs(1200),
            None,
        ),
    ];
    for (flip, lifetime, because) in table {
        let mut request = request(by_token());
        flip(&mut request);
        let approved = approved(engine().decide_issue(request));
        assert_eq!(approved.lifetime(), lifetime);
        assert_eq!(approved.reductions().first().map(|reduction| reduction.because.as_str()), because);
        let expected = if because.is_some() { Outcome::Reduce } else { Outcome::Grant };
        assert_eq!(approved.receipt().outcome, expected);
    }
}

#[test]
fn names_can_only_narrow_and_the_spiffe_id_stays() {
    let mut all = request(by_token());
    all.profile = profile("server", "server", true);
    let names = approved(engine().decide_issue(all)).names().to_vec();
    assert_eq!(names, [name("uri:spiffe://example.org/web"), name("dns:web.example.org")]);

    let mut one = request(by_token());
    one.profile = profile("server", "server", true);
    one.requested.names = vec![name("dns:web.example.org"), name("dns:web.example.org")];
    let names = approved(engine().decide_issue(one)).names().to_vec();
    assert_eq!(names, [name("uri:spiffe://example.org/web"), name("dns:web.example.org")]);

    let mut other_id = request(by_token());
    other_id.requested.names = vec![name("uri:spiffe://example.org/admin")];
    assert_eq!(refused(engine().decide_issue(other_id)).refusal.code, RefusalCode::NameNotOwned);
}

#[test]
fn a_wildcard_needs_a_strong_proof() {
    let wildcard = |attested| {
        let mut request = request(attested);
        request.profile = profile("server", "server", true);
        Arc::make_mut(&mut request.identity).dns_names = vec!["*.web.example.org".parse().unwrap()];
        engine().decide_issue(request)
    };
    let refused = refused(wildcard(by_token()));
    assert_eq!(refused.receipt.policies, ["wildcard-needs-proof"]);
    assert_eq!(refused.refusal.smallest_change.as_deref(), Some("leave out dns:*.web.example.org"));
    approved(wildcard(by_authority(&web())));
    approved(wildcard(by_local_admin(&web())));
}

#[test]
fn high_sensitivity_is_reduced_without_strong_proof_and_full_with_it() {
    let high = |attested| {
        let mut request = request(attested);
        Arc::make_mut(&mut request.identity).sensitivity = Sensitivity::High;
        approved(engine().decide_issue(request))
    };
    let weak = high(by_token());
    assert_eq!(weak.lifetime(), Duration::from_secs(900));
    assert_eq!(weak.receipt().outcome, Outcome::Reduce);
    assert_eq!(weak.receipt().policies, ["issue-reduced-high"]);
    let reduction = &weak.reductions()[0];
    assert_eq!((reduction.asked.as_str(), reduction.granted.as_str()), ("1h", "15m"));
    assert!(reduction.because.contains("issue-reduced-high: a high sensitivity needs assurance AL2"));
    let strong = high(by_authority(&web()));
    assert_eq!(strong.lifetime(), hours(1));
    assert_eq!(strong.receipt().policies, ["issue-full-high"]);
}

#[test]
fn renewals_are_decided_anew_and_only_so_long() {
    let approved = approved(engine().decide_issue(request(by_renewal(89, false))));
    assert_eq!(approved.receipt().policies, ["issue-full", "renew"]);
    assert_eq!(approved.receipt().inputs.renewal.as_ref().unwrap().from.generation.0, 3);
    assert!(approved.attested().lineage().is_some());
    let late = refused(engine().decide_issue(request(by_renewal(91, false))));
    assert_eq!(late.receipt.policies, ["renew-only-so-long"]);
    assert_eq!(late.refusal.smallest_change.as_deref(), Some("enrol again instead of renewing"));
    let repeatable = engine().decide_issue(request(by_renewal(91, true)));
    assert!(matches!(repeatable, Decision::Approved(_)));
}

#[test]
fn a_renewal_comes_out_shorter_after_a_narrower_policy() {
    let narrower = engine_of(
        "@id(\"renew\") permit (principal, action == Action::\"renew\", resource);\n\
         @id(\"short\") @max_lifetime(\"10m\") permit (principal, action == Action::\"issue_full\", resource);",
    );
    let before = approved(engine().decide_issue(request(by_renewal(1, false))));
    let after = approved(narrower.decide_issue(request(by_renewal(1, false))));
    assert_eq!(before.lifetime(), hours(1));
    assert_eq!(after.lifetime(), Duration::from_secs(600));
    assert_eq!(after.reductions()[0].because, "policy short");
}

#[test]
fn no_policy_permits_nothing() {
    let refused = refused(engine_of("").decide_issue(request(by_token())));
    assert_eq!(refused.refusal.code, RefusalCode::PolicyDenied);
    assert_eq!(refused.refusal.reason, "no policy permits it");
    assert_eq!(refused.refusal.smallest_change, None);
}

#[test]
fn no_policy_widens_what_code_refuses() {
    let permissive = engine_of("@id(\"all\") @max_lifetime(\"365d\") permit (principal, action, resource);");
    let mut held = request(by_token());
    held.identity_state = IdentityState::Held;
    assert_eq!(refused(permissive.decide_issue(held)).refusal.code, RefusalCode::IdentityHeld);
    let mut long = request(by_token());
    long.requested.lifetime = Some(HumanDuration(hours(1000)));
    assert_eq!(approved(permissive.decide_issue(long)).lifetime(), hours(24));
}

#[test]
fn a_policy_limit_below_the_profiles_minimum_refuses() {
    let tight = engine_of("@id(\"tight\") @max_lifetime(\"1m\") permit (principal, action, resource);");
    let refused = refused(tight.decide_issue(request(by_token())));
    assert!(refused.refusal.reason.contains("at most 1m"), "{}", refused.refusal.reason);
}

#[test]
fn an_error_in_a_policy_denies_and_alarms_whatever_else_permits() {
    let broken = engine_of(
        "@id(\"all\") permit (principal, action, resource);\n\
         @id(\"overflows\") permit (principal is Identity, action == Action::\"issue_full\", resource)\n\
         when { context.now * 9223372036854775807 > 0 };",
    );
    let refused = refused(broken.decide_issue(request(by_token())));
    assert_eq!(refused.refusal.code, RefusalCode::PolicyError);
    assert!(refused.refusal.alarm);
    assert!(refused.refusal.reason.contains("overflows"), "{}", refused.refusal.reason);
    assert_eq!(refused.refusal.smallest_change, None);
}

#[test]
fn claims_reach_an_identity_by_its_selectors_alone() {
    let inputs = |selector: &str, wanted: Option<&str>| {
        let mut request = request(by_token());
        Arc::make_mut(&mut request.identity).selectors.add("x509.subject.cn", selector);
        let mut inputs = gather(&request);
        inputs.evidence.subject =
            chancery_attest::Subject::ByClaims { wanted: wanted.map(|id| id.parse().unwrap()) };
        inputs.evidence.claims.insert("x509.subject.cn", "node7");
        inputs
    };
    let engine = engine();
    assert!(engine.rule(&inputs("node7", None)).result.is_ok());
    assert!(engine.rule(&inputs("node7", Some("spiffe://example.org/web"))).result.is_ok());
    for bad in [inputs("node8", None), inputs("node7", Some("spiffe://example.org/db"))] {
        assert_eq!(engine.rule(&bad).result.unwrap_err().code, RefusalCode::EvidenceOfAnother);
    }
    let mut without_selectors = inputs("node7", None);
    Arc::make_mut(&mut without_selectors.identity).selectors = Selectors::new();
    assert_eq!(engine.rule(&without_selectors).result.unwrap_err().code, RefusalCode::EvidenceOfAnother);
}

#[test]
fn a_template_token_is_evidence_of_what_the_template_makes_and_of_nothing_else() {
    let template: IdentityTemplate =
        serde_json::from_str(r#"{"name":"ci","path":"/ci/{job}","owner":"ada","identity_lifetime":"1d"}"#)
            .unwrap();
    let attested = || {
        let parameters = parameters(&[("job", "build")]);
        by_token_for(TokenBinding::Template { name: "ci".to_owned(), parameters })
    };
    let decide = |change: fn(&mut IssueRequest<'static>)| {
        let domain = "example.org".parse().unwrap();
        let mut request = request(attested());
        let made = template.expand(&domain, &parameters(&[("job", "build")]), now()).unwrap();
        request.identity = Arc::new(made);
        request.template = Some(Arc::new(template.clone()));
        request.context.now = now() + hours(2);
        change(&mut request);
        engine().decide_issue(request)
    };
    approved(decide(|_| {}));
    let spoils: [fn(&mut IssueRequest<'static>); 4] = [
        |r| r.template = None,
        |r| Arc::make_mut(r.template.as_mut().unwrap()).name = "other".to_owned(),
        |r| Arc::make_mut(&mut r.identity).dns_names = vec!["bank.example.org".parse().unwrap()],
        |r| Arc::make_mut(&mut r.identity).spiffe_id = "spiffe://example.org/ci/deploy".parse().unwrap(),
    ];
    for spoil in spoils {
        assert_eq!(refused(decide(spoil)).refusal.code, RefusalCode::EvidenceOfAnother);
    }
}

#[test]
fn operator_certificates_come_from_admins_and_for_operators() {
    let operator = |role: Option<Role>, attested: fn(&Identity) -> Attested| {
        let mut request = request(by_token());
        let identity = Arc::make_mut(&mut request.identity);
        identity.role = role;
        identity.profiles = vec!["operator".to_owned()];
        request.attested = attested(identity);
        request.profile = profile("operator", "operator", false);
        engine().decide_issue(request)
    };
    approved(operator(Some(Role::Admin), by_local_admin));
    let no_role = refused(operator(None, by_local_admin));
    assert_eq!(no_role.receipt.policies, ["operator-profile-is-for-operators"]);
    let by_token = refused(operator(Some(Role::Admin), |_| by_token()));
    assert_eq!(by_token.receipt.policies, ["operator-certificates-by-admins"]);
}

#[test]
fn profiles_of_the_authority_are_for_the_authority() {
    let responder = |attested: Attested| {
        let mut inputs = gather(&request(attested));
        inputs.profile.purpose = "ocsp-responder".to_owned();
        engine().rule(&inputs).result.map(|_| ()).map_err(|refusal| refusal.code)
    };
    assert_eq!(responder(by_authority(&web())), Ok(()));
    assert_eq!(responder(by_token()), Err(RefusalCode::ProfileNotAllowed));
}

#[test]
fn a_profile_that_is_not_renewable_is_not_renewed() {
    let mut inputs = gather(&request(by_renewal(1, true)));
    inputs.profile.renewable = false;
    assert_eq!(engine().rule(&inputs).result.unwrap_err().code, RefusalCode::NotRenewable);
}

#[test]
fn suggests_the_smallest_change_and_it_works() {
    type Flip = fn(&mut IssueRequest<'static>);
    let table: [(Flip, Option<&str>); 11] = [
        (
            |r| Arc::make_mut(&mut r.identity).owner = String::new(),
            Some("have an operator set an owner for spiffe://example.org/web"),
        ),
        (
            |r| r.identity_state = IdentityState::Held,
            Some("have an operator release spiffe://example.org/web"),
        ),
        (|r| r.identity_state = IdentityState::Retired, None),
        (
            |r| Arc::make_mut(&mut r.identity).minimum_assurance = Some(AssuranceLevel::Repeatable),
            Some("show evidence of assurance AL2 or more"),
        ),
        (
            |r| Arc::make_mut(&mut r.identity).sensitivity = Sensitivity::Critical,
            Some("show evidence of assurance AL2 or more"),
        ),
        (|r| r.requested.lifetime = Some(HumanDuration(Duration::from_secs(1))), Some("ask for 5m")),
        (|r| r.requested.key.algorithm = KeyAlgorithm::Rsa4096, Some("use a p256 key")),
        (|r| r.requested.names = vec![name("dns:bank.example.org")], Some("leave out dns:bank.example.org")),
        (
            |r| r.profile = profile("device", "device", false),
            Some("have an operator allow profile device for spiffe://example.org/web"),
        ),
        (
            |r| Arc::make_mut(&mut r.identity).review_by = Some(now() - hours(24 * 8)),
            Some("have spiffe://example.org/web reviewed and its review_by set anew"),
        ),
        (
            |r| {
                r.identity_state = IdentityState::Held;
                r.requested.key.algorithm = KeyAlgorithm::Rsa4096;
            },
            Some("use a p256 key, and have an operator release spiffe://example.org/web"),
        ),
    ];
    for (flip, expected) in table {
        let mut request = request(by_token());
        flip(&mut request);
        let refused = refused(engine().decide_issue(request));
        assert_eq!(refused.refusal.smallest_change.as_deref(), expected, "{:?}", refused.refusal);
    }
}

#[test]
fn suggests_another_profile_of_the_identity() {
    let server = [profile("server", "server", true)];
    let mut request = request(by_token());
    request.requested.names = vec![name("dns:web.example.org")];
    request.profile = profile("workload", "workload", false);
    Arc::make_mut(&mut request.identity).dns_names = vec!["web.example.org".parse().unwrap()];
    let request = IssueRequest { alternatives: &server, ..request };
    let refused = refused(engine().decide_issue(request));
    // Leaving the name out is smaller still; asking for the profile that takes it would do as well.
    assert_eq!(refused.refusal.smallest_change.as_deref(), Some("leave out dns:web.example.org"));
    let mut device = crate::test_support::request(by_token());
    device.profile = profile("device", "device", false);
    let device = IssueRequest { alternatives: &server, ..device };
    let refused = self::refused(engine().decide_issue(device));
    assert_eq!(refused.refusal.smallest_change.as_deref(), Some("ask for profile server"));
}

#[test]
fn a_receipt_survives_json_and_replays() {
    let mut full = request(by_renewal(1, true));
    full.context.network =
        Some(NetworkFacts { address: "10.1.2.3".parse().unwrap(), zone: Some("dc1".to_owned()) });
    full.context.history = Some(HistoryFacts { issued_last_hour: 2, live: 1 });
    let engine = engine();
    let receipt = approved(engine.decide_issue(full)).receipt().clone();
    let read = DecisionReceipt::from_json(&receipt.to_json()).unwrap();
    assert_eq!(read, receipt);
    assert_eq!(read.hash(), receipt.hash());
    assert_eq!(replay(&read, engine), Replay::Same);
    assert!(
        DecisionReceipt::from_json(&receipt.to_json().replace("\"version\":1", "\"version\":2")).is_err()
    );
}

#[test]
fn a_replay_notices_altered_receipts_and_changed_policies() {
    let engine = engine();
    let receipt = approved(engine.decide_issue(request(by_token()))).receipt().clone();
    let mut altered = receipt.clone();
    altered.granted.as_mut().unwrap().lifetime = HumanDuration(hours(24));
    assert!(matches!(replay(&altered, engine), Replay::Different { same_policies: true, .. }));
    let mut altered = receipt.clone();
    altered.inputs.identity_state = IdentityState::Retired;
    assert!(matches!(replay(&altered, engine), Replay::Different { now: Outcome::Deny, .. }));
    let same_by_another = engine_of("@id(\"issue-full\") permit (principal, action, resource);");
    assert!(matches!(replay(&receipt, &same_by_another), Replay::SameUnderOtherPolicies { .. }));
    assert!(matches!(replay(&receipt, &engine_of("")), Replay::Different { same_policies: false, .. }));
}

/// The engine does not have Cedar check every request against the schema, because this test proves that what it
/// builds conforms, with every optional fact present and with every one absent.
#[test]
fn what_is_built_conforms_to_the_schema() {
    let engine = engine();
    let mut sparse = web();
    sparse.owner = String::new();
    let mut full = web();
    full.team = "platform".to_owned();
    full.purpose = "serves".to_owned();
    full.environment = "prod".to_owned();
    full.review_by = Some(now());
    full.expires = Some(now() + hours(48));
    full.role = Some(Role::Admin);
    full.minimum_assurance = Some(AssuranceLevel::FirstUse);
    for (identity, attested, circumstances) in [
        (sparse, by_token(), false),
        (full.clone(), by_renewal(1, true), true),
        (full, by_local_admin(&web()), true),
    ] {
        let mut request = request(attested);
        request.identity = Arc::new(identity);
        if circumstances {
            request.context.network = Some(NetworkFacts {
                address: "::ffff:10.1.2.3".parse().unwrap(),
                zone: Some("dc1".to_owned()),
            });
            request.context.history = Some(HistoryFacts { issued_last_hour: 2, live: 1 });
            request.template = Some(Arc::new(serde_json::from_str(r#"{"name":"ci","path":"/x"}"#).unwrap()));
        }
        let inputs = gather(&request);
        let ceiling = Ceiling { lifetime: hours(1), reductions: Vec::new() };
        let question = Question::new(engine, &inputs, &ceiling).unwrap();
        let mut actions = vec![Action::IssueFull, Action::IssueReduced];
        actions.extend(inputs.renewal.is_some().then_some(Action::Renew));
        for action in actions {
            crate::engine::check_conformity(
                engine,
                action,
                (&question.principal, &question.resource),
                &question.context,
                &question.entities,
            );
        }
    }
}

#[test]
fn policies_see_the_network_in_its_canonical_form() {
    let engine = engine_of(
        "@id(\"inside\") permit (principal is Identity, action == Action::\"issue_full\", resource)\n\
         when { context has network && context.network.address.isInRange(ip(\"10.0.0.0/8\")) };",
    );
    let from = |address: &str| {
        let mut request = request(by_token());
        request.context.network = Some(NetworkFacts { address: address.parse().unwrap(), zone: None });
        matches!(engine.decide_issue(request), Decision::Approved(_))
    };
    assert!(from("10.1.2.3"));
    assert!(from("::ffff:10.1.2.3"));
    assert!(!from("192.0.2.1"));
    assert!(matches!(engine.decide_issue(request(by_token())), Decision::Refused(_)));
}

#[test]
fn a_supposition_comes_out_as_the_request_would() {
    for state in [IdentityState::Active, IdentityState::Held] {
        let mut request = request(by_token());
        request.identity_state = state;
        let inputs = gather(&request);
        let supposed = engine().consider(Supposition {
            identity: inputs.identity,
            identity_state: inputs.identity_state,
            template: None,
            evidence: inputs.evidence,
            renewal: None,
            profile: Arc::clone(&request.profile),
            requested: inputs.requested,
            context: inputs.context,
            alternatives: &[],
        });
        let decided = match engine().decide_issue(request) {
            Decision::Approved(approved) => approved.receipt().clone(),
            Decision::Refused(refused) => refused.receipt,
        };
        assert_eq!(supposed, decided);
    }
}
