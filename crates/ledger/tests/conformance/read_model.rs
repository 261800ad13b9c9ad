//! What can be asked of the ledger's current state.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chancery_entry::{Body, Document, HoldTarget, PolicyChange, ProfileChange, TemplateRegistration};
use chancery_ledger::{
    CertificateQuery, CertificateRecord, CertificateState, IdentityQuery, IssuerState, Ledger, Outcome,
    PageRequest, Proposal, Standing, StateFilter,
};
use chancery_types::{
    AssuranceLevel, CrlShard, EvidenceKind, Generation, Identity, IdentityState, IssuerEpoch, LineageId,
    RevocationReason, SerialNumber,
};

use super::{Harness, accept};
use crate::workload::{self, ISSUER, identity, issuance, lineage, now, propose, serial, token};

async fn all(ledger: &dyn Ledger, query: &CertificateQuery, limit: usize) -> Vec<CertificateRecord> {
    let mut page = PageRequest::first(limit);
    let mut found = Vec::new();
    loop {
        let next = ledger.certificates(query, &page).await.unwrap();
        assert!(next.items.len() <= limit);
        found.extend(next.items);
        match next.next {
            Some(after) => page.after = Some(after),
            None => return found,
        }
    }
}

/// An issuer, and so many certificates of identities 0 to 4 in turn, in calls of a hundred.
async fn populated(harness: &dyn Harness, certificates: u64) -> Arc<dyn Ledger> {
    let ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    for number in 0..5 {
        accept(&*ledger, workload::registration(number)).await;
    }
    let proposals: Vec<Proposal> = (0..certificates)
        .map(|counter| {
            let mut issuance = issuance(counter, identity(counter % 5));
            issuance.key = workload::digest("key", counter % 7);
            issuance.not_after = now() + Duration::from_secs(1000 + counter * 31 % 500);
            workload::enrolment(issuance)
        })
        .collect();
    for call in proposals.chunks(100) {
        ledger.commit(call.to_vec()).await.unwrap();
    }
    ledger
}

pub(crate) async fn certificates_are_found_by_everything_that_names_them(harness: &dyn Harness) {
    let ledger = populated(harness, 300).await;
    for counter in (0..300).step_by(9) {
        accept(&*ledger, workload::revoke(serial(counter), RevocationReason::Superseded, now())).await;
    }
    for counter in (1..300).step_by(9) {
        accept(&*ledger, workload::hold(HoldTarget::Certificate(serial(counter)), now())).await;
    }
    let mut document = Identity::new(identity(2), "grace@example.org");
    document.team = "shop".into();
    accept(
        &*ledger,
        propose(vec![], now(), vec![Body::IdentityChanged(workload::identity_document(&document))]),
    )
    .await;
    let everything = all(&*ledger, &CertificateQuery::default(), 1000).await;
    assert_eq!(everything.len(), 300);
    let none = CertificateQuery::default();
    let time = |seconds| Some(now() + Duration::from_secs(seconds));
    let queries = [
        CertificateQuery { identity: Some(identity(3)), ..none.clone() },
        CertificateQuery { identity: Some(identity(77)), ..none.clone() },
        CertificateQuery { key: Some(workload::digest("key", 4)), ..none.clone() },
        CertificateQuery {
            key: Some(workload::digest("key", 4)),
            identity: Some(identity(1)),
            ..none.clone()
        },
        CertificateQuery { lineage: Some(lineage(17)), ..none.clone() },
        CertificateQuery { lineage: Some(lineage(17)), state: Some(StateFilter::Held), ..none.clone() },
        CertificateQuery { lineage: Some(lineage(17)), owner: Some("nobody".into()), ..none.clone() },
        CertificateQuery { lineage: Some(LineageId::from_array([9; 16])), ..none.clone() },
        CertificateQuery { owner: Some("grace@example.org".into()), ..none.clone() },
        CertificateQuery { owner: Some("nobody".into()), ..none.clone() },
        CertificateQuery { state: Some(StateFilter::Good), ..none.clone() },
        CertificateQuery { state: Some(StateFilter::Held), ..none.clone() },
        CertificateQuery { state: Some(StateFilter::Revoked), ..none.clone() },
        CertificateQuery { state: Some(StateFilter::Held), expires_before: time(1200), ..none.clone() },
        CertificateQuery { expires_before: time(1100), ..none.clone() },
        CertificateQuery { expires_after: time(1400), ..none.clone() },
        CertificateQuery { expires_after: time(1100), expires_before: time(1200), ..none.clone() },
        CertificateQuery { expires_after: time(1200), expires_before: time(1100), ..none.clone() },
        CertificateQuery { expires_after: time(1100), identity: Some(identity(0)), ..none.clone() },
    ];
    let matches = |query: &CertificateQuery, record: &CertificateRecord| {
        let state = match record.state {
            CertificateState::Good => StateFilter::Good,
            CertificateState::Held { .. } => StateFilter::Held,
            CertificateState::Revoked { .. } => StateFilter::Revoked,
        };
        let owner = if record.identity == identity(2) { "grace@example.org" } else { "ada@example.org" };
        query.identity.as_ref().is_none_or(|id| *id == record.identity)
            && query.lineage.is_none_or(|lineage| lineage == record.lineage)
            && query.key.is_none_or(|key| key == record.key)
            && query.owner.as_ref().is_none_or(|wanted| wanted == owner)
            && query.state.is_none_or(|wanted| wanted == state)
            && query.expires_before.is_none_or(|time| record.not_after < time)
            && query.expires_after.is_none_or(|time| record.not_after >= time)
    };
    let mut ledger = ledger;
    for _ in 0..2 {
        for query in &queries {
            let expected: BTreeSet<SerialNumber> = everything
                .iter()
                .filter(|record| matches(query, record))
                .map(|record| record.serial)
                .collect();
            let found = all(&*ledger, query, 1000).await;
            assert_eq!(found.len(), expected.len(), "{query:?}");
            assert_eq!(
                found.iter().map(|record| record.serial).collect::<BTreeSet<_>>(),
                expected,
                "{query:?}"
            );
        }
        ledger = harness.reopen(ledger).await;
    }
    let record = ledger.certificate(serial(0)).await.unwrap().unwrap();
    assert_eq!((record.serial, record.generation, record.identity), (serial(0), Generation(0), identity(0)));
    assert_eq!(record.state, CertificateState::Revoked { at: now(), reason: RevocationReason::Superseded });
    assert_eq!(ledger.certificate(serial(300)).await.unwrap(), None);
    assert_eq!(ledger.last_counter(ISSUER).await.unwrap(), Some(299));
    assert_eq!(ledger.last_counter(IssuerEpoch(2)).await.unwrap(), None);
    assert_eq!(ledger.last_counter(IssuerEpoch(0)).await.unwrap(), None);
}

pub(crate) async fn pages_give_each_result_once_and_in_order(harness: &dyn Harness) {
    let ledger = populated(harness, 120).await;
    let ledger = harness.reopen(ledger).await;
    for counter in 120..150 {
        accept(&*ledger, workload::enrolment(issuance(counter, identity(1)))).await;
    }
    for query in [
        CertificateQuery::default(),
        CertificateQuery { identity: Some(identity(1)), ..Default::default() },
        CertificateQuery { key: Some(workload::digest("key", 1)), ..Default::default() },
    ] {
        let whole: Vec<SerialNumber> =
            all(&*ledger, &query, 1000).await.iter().map(|record| record.serial).collect();
        assert!(whole.is_sorted(), "{query:?}");
        for limit in [1, 2, 3, 7, 149, 150, 151] {
            let paged: Vec<SerialNumber> =
                all(&*ledger, &query, limit).await.iter().map(|record| record.serial).collect();
            assert_eq!(paged, whole, "{query:?} by {limit}");
        }
        let nothing = ledger.certificates(&query, &PageRequest::first(0)).await.unwrap();
        assert!(nothing.items.is_empty());
    }
    // What another table's page ended with leads nowhere, and does no harm.
    let stray = PageRequest { limit: 5, after: Some(vec![0xff; 40]) };
    assert!(ledger.certificates(&CertificateQuery::default(), &stray).await.unwrap().items.is_empty());
    let query = CertificateQuery { expires_after: Some(now()), ..Default::default() };
    let times: Vec<_> = all(&*ledger, &query, 11).await.iter().map(|record| record.not_after).collect();
    assert!(times.is_sorted() && times.len() == 150);
}

/// A search must not keep a thread busy for long, and must come to an end all the same.
pub(crate) async fn a_search_that_matches_little_goes_on_in_pages(harness: &dyn Harness) {
    let ledger = populated(harness, 25_000).await;
    let query = CertificateQuery { owner: Some("nobody".into()), ..Default::default() };
    let first = ledger.certificates(&query, &PageRequest::first(10)).await.unwrap();
    assert!(first.items.is_empty());
    assert!(first.next.is_some(), "25,000 certificates were looked at for one page");
    assert!(all(&*ledger, &query, 10).await.is_empty());
}

pub(crate) async fn identities_are_found_by_their_documents(harness: &dyn Harness) {
    let ledger = harness.create().await;
    for number in 0..40 {
        let mut document = Identity::new(identity(number), if number % 2 == 0 { "ada" } else { "grace" });
        document.team = format!("team-{}", number % 3);
        document.environment = format!("environment-{}", number % 5);
        if number % 4 == 0 {
            document.selectors.add("oidc.sub", "repo");
        }
        if number == 1 {
            document.alternatives = vec![[("oidc.sub", "fork")].into()];
        }
        if number % 8 == 0 {
            document.profiles = vec!["node".into()];
        } else if number % 10 == 9 {
            document.parents = vec![identity(0)];
        }
        let body = Body::IdentityRegistered(workload::identity_document(&document));
        accept(&*ledger, propose(vec![], now(), vec![body])).await;
    }
    let later = now() + Duration::from_secs(5);
    let held = Body::IdentityHeld(workload::identity_change(identity(7)));
    accept(&*ledger, propose(vec![], later, vec![held])).await;
    let find = async |query: IdentityQuery| {
        let page = ledger.identities(&query, &PageRequest::first(100)).await.unwrap();
        assert!(page.next.is_none());
        page.items.len()
    };
    let none = IdentityQuery::default();
    assert_eq!(find(none.clone()).await, 40);
    assert_eq!(find(IdentityQuery { owner: Some("ada".into()), ..none.clone() }).await, 20);
    assert_eq!(find(IdentityQuery { team: Some("team-0".into()), ..none.clone() }).await, 14);
    assert_eq!(find(IdentityQuery { environment: Some("environment-4".into()), ..none.clone() }).await, 8);
    assert_eq!(find(IdentityQuery { state: Some(IdentityState::Held), ..none.clone() }).await, 1);
    assert_eq!(find(IdentityQuery { with_selectors: true, ..none.clone() }).await, 11);
    assert_eq!(find(IdentityQuery { profile: Some("node".into()), ..none.clone() }).await, 5);
    assert_eq!(find(IdentityQuery { profile: Some("workload".into()), ..none.clone() }).await, 35);
    assert_eq!(find(IdentityQuery { for_nodes: true, ..none.clone() }).await, 4);
    let prefix = Some("spiffe://example.org/ns/shop/sa/web-3".into());
    assert_eq!(find(IdentityQuery { prefix, ..none.clone() }).await, 11);
    let prefix = Some("spiffe://example.com".into());
    assert_eq!(find(IdentityQuery { prefix, ..none.clone() }).await, 0);
    let ledger = harness.reopen(ledger).await;
    let record = ledger.identity(&identity(7)).await.unwrap().unwrap();
    assert_eq!(
        (record.state, record.index, record.registered, record.changed),
        (IdentityState::Held, 7, now(), later)
    );
    let mut page = PageRequest::first(9);
    let mut names = Vec::new();
    loop {
        let found = ledger.identities(&none, &page).await.unwrap();
        names.extend(found.items.into_iter().map(|record| record.identity.spiffe_id.to_string()));
        match found.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    assert!(names.is_sorted() && names.len() == 40);
}

pub(crate) async fn templates_tokens_issuers_profiles_and_policies_are_found(harness: &dyn Harness) {
    let ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    let template = |name: &str, owner: &str| {
        let document = Document(format!(r#"{{"owner":"{owner}"}}"#));
        Body::TemplateRegistered(TemplateRegistration { name: name.into(), document, by: "ada".into() })
    };
    let policy = |set, name: &str| {
        let policy_hash = workload::digest("policy", set);
        let text = "permit(principal, action, resource);".to_owned();
        Body::PolicyChanged(PolicyChange { policy_hash, name: name.into(), text, by: "ada".into() })
    };
    let profile = Body::ProfileChanged(ProfileChange {
        name: "workload".into(),
        profile_hash: workload::digest("profile", 1),
        text: "[profile]".into(),
        by: "ada".into(),
    });
    let bodies = vec![
        template("pod", "ada"),
        template("job", "ada"),
        template("pod", "grace"),
        policy(1, "b"),
        policy(1, "a"),
        policy(2, "a"),
        profile,
    ];
    accept(&*ledger, propose(vec![], now(), bodies)).await;
    for number in 0..25 {
        accept(&*ledger, token(number).1).await;
    }
    let ledger = harness.reopen(ledger).await;
    let templates = ledger.templates().await.unwrap();
    assert_eq!(templates.iter().map(|template| template.name.as_str()).collect::<Vec<_>>(), ["job", "pod"]);
    assert_eq!((templates[1].index, &templates[1].document["owner"]), (3, &"grace".into()));
    assert_eq!(ledger.template("pod").await.unwrap().unwrap(), templates[1]);
    assert_eq!(ledger.template("po").await.unwrap(), None);
    assert_eq!(ledger.policy(workload::digest("policy", 1)).await.unwrap(), [5, 4]);
    assert_eq!(ledger.policy(workload::digest("policy", 3)).await.unwrap(), [0_u64; 0]);
    assert_eq!(ledger.profile(workload::digest("profile", 1)).await.unwrap(), Some(7));
    assert_eq!(ledger.profile(workload::digest("profile", 2)).await.unwrap(), None);
    let issuers = ledger.issuers().await.unwrap();
    assert_eq!((issuers.len(), issuers[0].state, issuers[0].index), (1, IssuerState::Active, 0));
    assert_eq!(issuers[0].certificate, [0x30; 500]);
    let first = ledger.tokens(&PageRequest::first(20)).await.unwrap();
    assert_eq!(first.items.len(), 20);
    let rest = ledger.tokens(&PageRequest { limit: 20, after: first.next }).await.unwrap();
    assert_eq!(rest.items.len(), 5);
    let record = ledger.token(token(3).0).await.unwrap().unwrap();
    assert_eq!(record.identity, Some(identity(3)));
    assert_eq!(record.expires, now() + Duration::from_secs(3600));
}

pub(crate) async fn a_lineage_shows_its_living_certificates(harness: &dyn Harness) {
    let ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    accept(&*ledger, workload::registration(1)).await;
    let at = |minutes: u64| now() + Duration::from_secs(60 * minutes);
    let mut latest = issuance(0, identity(1));
    latest.assurance = AssuranceLevel::HardwareKey;
    accept(&*ledger, workload::enrolment(latest.clone())).await;
    // An hour of life each, a renewal every ten minutes: six earlier ones live beside the latest.
    for counter in 1..40 {
        latest = workload::renewal(counter, &latest);
        (latest.not_before, latest.not_after) = (at(10 * counter), at(10 * counter + 61));
        latest.assurance = AssuranceLevel::SharedSecret;
        accept(&*ledger, workload::renewing(latest.clone())).await;
    }
    let ledger = harness.rebuild(harness.reopen(ledger).await).await;
    let record = ledger.lineage(lineage(0)).await.unwrap().unwrap();
    assert_eq!(record.generation, Generation(39));
    assert_eq!(
        record.enrolled_with,
        AssuranceLevel::HardwareKey,
        "renewals prove no more than the enrolment"
    );
    assert_eq!((record.enrolled_by, record.enrolled_at), (EvidenceKind::JoinToken, now()));
    assert_eq!(record.latest, serial(39));
    assert_eq!(record.held_since, None);
    let query = CertificateQuery { lineage: Some(lineage(0)), ..Default::default() };
    assert_eq!(all(&*ledger, &query, 9).await.len(), 40, "the search finds the expired ones too");
    assert_eq!(ledger.lineage(lineage(1)).await.unwrap(), None);
    accept(&*ledger, workload::hold(HoldTarget::Lineage(lineage(0)), at(391))).await;
    for counter in 0..40 {
        let state = ledger.certificate(serial(counter)).await.unwrap().unwrap().state;
        let expected = match counter {
            33.. => CertificateState::Held { since: at(391) },
            _ => CertificateState::Good,
        };
        assert_eq!(state, expected, "{counter}: a hold reaches what had not expired at the latest renewal");
    }
}

pub(crate) async fn a_lineage_holds_and_releases_what_it_held_itself(harness: &dyn Harness) {
    let ledger = harness.create().await;
    accept(&*ledger, workload::issuer()).await;
    accept(&*ledger, workload::registration(1)).await;
    let mut latest = issuance(0, identity(1));
    accept(&*ledger, workload::enrolment(latest.clone())).await;
    for counter in 1..4 {
        latest = workload::renewal(counter, &latest);
        accept(&*ledger, workload::renewing(latest.clone())).await;
    }
    let at = |seconds| now() + Duration::from_secs(seconds);
    let target = HoldTarget::Lineage(lineage(0));
    accept(&*ledger, workload::hold(HoldTarget::Certificate(serial(1)), at(10))).await;
    accept(&*ledger, workload::revoke(serial(2), RevocationReason::Superseded, at(11))).await;
    accept(&*ledger, workload::hold(target.clone(), at(20))).await;
    assert_eq!(ledger.lineage(lineage(0)).await.unwrap().unwrap().held_since, Some(at(20)));
    let states = async |ledger: &dyn Ledger| {
        let mut states = Vec::new();
        for counter in 0..4 {
            states.push(ledger.certificate(serial(counter)).await.unwrap().unwrap().state);
        }
        states
    };
    let held = |seconds| CertificateState::Held { since: at(seconds) };
    let revoked = CertificateState::Revoked { at: at(11), reason: RevocationReason::Superseded };
    assert_eq!(states(&*ledger).await, [held(20), held(10), revoked, held(20)]);
    assert_eq!(ledger.revoked(ISSUER, now()).await.unwrap().len(), 4);
    accept(&*ledger, workload::release(target.clone(), at(30))).await;
    let ledger = harness.rebuild(harness.reopen(ledger).await).await;
    assert_eq!(states(&*ledger).await, [CertificateState::Good, held(10), revoked, CertificateState::Good]);
    assert_eq!(ledger.lineage(lineage(0)).await.unwrap().unwrap().held_since, None);
    let renewal = workload::renewal(9, &latest);
    accept(&*ledger, workload::renewing(renewal)).await;
}

pub(crate) async fn revocations_stand_on_the_list_until_they_expire(harness: &dyn Harness) {
    let ledger = populated(harness, 20).await;
    let other = IssuerEpoch(2);
    accept(&*ledger, propose(vec![], now(), vec![workload::activation(other)])).await;
    let mut of_other = issuance(500, identity(1));
    of_other.serial = SerialNumber::compose(other, 0, [1; 8]).unwrap();
    accept(&*ledger, workload::enrolment(of_other.clone())).await;
    let at = |seconds| now() + Duration::from_secs(seconds);
    accept(&*ledger, workload::revoke(serial(3), RevocationReason::Unspecified, at(1))).await;
    accept(&*ledger, workload::revoke(serial(3), RevocationReason::KeyCompromise, at(2))).await;
    accept(&*ledger, workload::revoke(serial(9), RevocationReason::CessationOfOperation, at(3))).await;
    accept(&*ledger, workload::hold(HoldTarget::Certificate(serial(5)), at(4))).await;
    accept(&*ledger, workload::hold(HoldTarget::Certificate(serial(6)), at(4))).await;
    accept(&*ledger, workload::release(HoldTarget::Certificate(serial(6)), at(5))).await;
    accept(&*ledger, workload::hold(HoldTarget::Certificate(serial(7)), at(4))).await;
    accept(&*ledger, workload::revoke(serial(7), RevocationReason::PrivilegeWithdrawn, at(6))).await;
    accept(&*ledger, workload::revoke(of_other.serial, RevocationReason::Superseded, at(7))).await;
    let ledger = harness.reopen(ledger).await;
    let list = ledger.revoked(ISSUER, now()).await.unwrap();
    let lines: Vec<_> = list.iter().map(|line| (line.serial, line.reason, line.at)).collect();
    let expected = [
        (serial(3), RevocationReason::KeyCompromise, at(1)),
        (serial(5), RevocationReason::CertificateHold, at(4)),
        (serial(7), RevocationReason::PrivilegeWithdrawn, at(6)),
        (serial(9), RevocationReason::CessationOfOperation, at(3)),
    ];
    assert_eq!(lines, expected);
    let ends: Vec<_> = list.iter().map(|line| line.not_after).collect();
    let last = *ends.iter().max().unwrap();
    assert_eq!(ledger.revoked(ISSUER, last).await.unwrap().len(), 1, "notAfter belongs to the validity");
    assert!(ledger.revoked(ISSUER, last + Duration::from_millis(1)).await.unwrap().is_empty());
    assert_eq!(ledger.revoked(other, now()).await.unwrap().len(), 1);
    assert_eq!(ledger.last_crl(ISSUER, None).await.unwrap(), None);
    accept(&*ledger, workload::crl(ISSUER, None, 4)).await;
    accept(&*ledger, workload::crl(ISSUER, Some(4), 9)).await;
    assert_eq!(ledger.last_crl(ISSUER, None).await.unwrap().unwrap().number, 9);
    assert_eq!(ledger.last_crl(other, None).await.unwrap(), None);
    let shard = CrlShard::new(3, 16).unwrap();
    assert_eq!(ledger.last_crl(ISSUER, Some(shard)).await.unwrap(), None);
    accept(&*ledger, workload::shard_crl(ISSUER, 3, None, 2)).await;
    assert_eq!(ledger.last_crl(ISSUER, Some(shard)).await.unwrap().unwrap().number, 2);
    assert_eq!(ledger.last_crl(ISSUER, None).await.unwrap().unwrap().number, 9);
    for shards in [16, 4, 16] {
        accept(&*ledger, workload::division(ISSUER, shards)).await;
    }
    let divisions = ledger.crl_divisions(ISSUER).await.unwrap();
    assert_eq!(divisions.iter().map(|division| division.shards).collect::<Vec<_>>(), [4, 16]);
    assert_eq!(divisions[0].base, "http://ca.example.org");
    assert!(ledger.crl_divisions(other).await.unwrap().is_empty());
    assert_eq!(ledger.last_status_set().await.unwrap(), None);
    accept(&*ledger, workload::status_set(None, 4)).await;
    accept(&*ledger, workload::status_set(Some(workload::digest("set", 4)), 9)).await;
    assert_eq!(ledger.last_status_set().await.unwrap().unwrap().sequence, 9);
    let [older, other] = [(9, 9), (4, 10)]
        .map(|(previous, sequence)| workload::status_set(Some(workload::digest("set", previous)), sequence));
    for refused in ledger.commit(vec![older, other]).await.unwrap() {
        let Outcome::Refused(conflict) = refused else { panic!("{refused:?}") };
        assert_eq!(conflict.standing, Standing::Number(9));
    }
}
