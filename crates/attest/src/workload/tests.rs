use std::collections::HashMap;
use std::time::Duration;

use chancery_types::{
    ClaimValue, Identity, LineageId, RevocationReason, Selectors, SerialNumber, SpiffeId, Timestamp,
};

use super::*;
use crate::test_support::{
    Certificates, block_on, certificate_with, context, good_standing, now, request_key, serial,
};
use crate::{CertificateRecords, RecordsError, TokenEvidence};

/// A node, an identity that names it as parent, and a process that is one.
struct Fixture {
    certificate: Vec<u8>,
    standing: CertificateStanding,
    identity: Identity,
    node_claims: Claims,
    claims: Claims,
    wanted: SpiffeId,
}

struct Records(Certificates, Identity, Claims);

#[async_trait]
impl CertificateRecords for Records {
    async fn certificate(&self, serial: SerialNumber) -> Result<Option<CertificateStanding>, RecordsError> {
        self.0.certificate(serial).await
    }
}

#[async_trait]
impl NodeRecords for Records {
    async fn identity(&self, id: &SpiffeId) -> Result<Option<Arc<Identity>>, RecordsError> {
        Ok((*id == self.1.spiffe_id).then(|| Arc::new(self.1.clone())))
    }

    async fn made_by_template(
        &self,
        _id: &SpiffeId,
        _claims: &Claims,
        _now: Timestamp,
    ) -> Result<Option<Identity>, RecordsError> {
        Ok(None)
    }

    async fn enrolment_claims(&self, _lineage: LineageId) -> Result<Claims, RecordsError> {
        Ok(self.2.clone())
    }
}

fn id(name: &str) -> SpiffeId {
    format!("spiffe://example.org/{name}").parse().unwrap()
}

fn fixture() -> Fixture {
    let (certificate, key) = certificate_with(serial(9).as_bytes());
    let mut standing = good_standing(serial(9), key);
    standing.identity = id("node/a");
    standing.profile = NODE_PROFILE.to_owned();
    let mut identity = Identity::new(id("web"), "ada");
    identity.parents = vec![id("node/a")];
    identity.selectors = [("unix.uid", "1000")].into();
    let mut claims = Claims::new();
    claims.insert("unix.uid", "1000");
    claims.insert("unix.gid", ClaimValue::Number(100));
    Fixture { certificate, standing, identity, node_claims: Claims::new(), claims, wanted: id("web") }
}

fn verify(fixture: Fixture) -> Result<Attested, AttestError> {
    let certificates = Certificates(Some(HashMap::from([(serial(9), fixture.standing)])));
    let records = Records(certificates, fixture.identity, fixture.node_claims);
    let (node, identity, claims) = (fixture.certificate, fixture.wanted, fixture.claims);
    let evidence = Evidence::Workload(WorkloadEvidence { node, identity, claims });
    block_on(WorkloadVerifier::new(Arc::new(records)).verify(evidence, &context()))
}

fn refusal(fixture: Fixture) -> WorkloadError {
    match verify(fixture) {
        Err(AttestError::Workload(error)) => error,
        other => panic!("expected a refusal of the workload, got {other:?}"),
    }
}

#[test]
fn believes_a_node_about_a_process_whose_identity_names_it() {
    let attested = verify(fixture()).unwrap();
    assert_eq!(attested.kind(), EvidenceKind::Workload);
    assert_eq!(attested.identity_hint(), Some(&id("web")));
    assert_eq!(attested.bound_key(), Some(request_key()));
    assert!(attested.is_repeatable() && attested.lineage().is_none() && attested.spends().is_none());
    assert!(attested.claims().holds("node.id", "spiffe://example.org/node/a"));
    assert!(attested.claims().holds("node.enrolled_by", "x509-pop"));
    assert!(attested.claims().holds("unix.gid", "100"));
}

#[test]
fn is_worth_what_the_node_was_and_never_more_than_al2() {
    for (node, workload) in [
        (AssuranceLevel::SharedSecret, AssuranceLevel::SharedSecret),
        (AssuranceLevel::Repeatable, AssuranceLevel::Repeatable),
        (AssuranceLevel::Measured, AssuranceLevel::Repeatable),
    ] {
        let mut fixture = fixture();
        fixture.standing.lineage.assurance = node;
        assert_eq!(verify(fixture).unwrap().assurance(), workload);
    }
}

#[test]
fn the_hash_is_over_the_claims_as_well() {
    let one = fixture();
    let (certificate, standing) = (one.certificate, one.standing);
    let hash = |gid| {
        let mut fixture =
            Fixture { certificate: certificate.clone(), standing: standing.clone(), ..fixture() };
        fixture.claims.insert("unix.gid", ClaimValue::Number(gid));
        verify(fixture).unwrap().evidence_hash()
    };
    assert_eq!(hash(100), hash(100));
    assert_ne!(hash(100), hash(101));
}

#[test]
fn refuses_a_certificate_that_is_not_a_nodes() {
    let mut fixture = fixture();
    fixture.standing.profile = "workload".to_owned();
    assert!(matches!(refusal(fixture), WorkloadError::NotANode { .. }));
}

#[test]
fn refuses_a_node_that_is_revoked_held_expired_or_banned() {
    let edits: [fn(&mut Fixture); 5] = [
        |f| f.standing.state = CertificateState::Held,
        |f| f.standing.state = CertificateState::Revoked { reason: RevocationReason::KeyCompromise },
        |f| f.standing.not_after = now() - Duration::from_secs(1),
        |f| f.standing.identity_state = IdentityState::Held,
        |f| f.standing.identity_state = IdentityState::Retired,
    ];
    for edit in edits {
        let mut fixture = fixture();
        edit(&mut fixture);
        assert!(matches!(refusal(fixture), WorkloadError::NotGood { .. }));
    }
}

#[test]
fn refuses_an_unknown_certificate_and_one_with_another_key() {
    let mut unknown = fixture();
    unknown.certificate = certificate_with(serial(10).as_bytes()).0;
    assert!(matches!(refusal(unknown), WorkloadError::Foreign { .. }));
    let mut copied = fixture();
    copied.certificate = certificate_with(serial(9).as_bytes()).0;
    assert!(matches!(refusal(copied), WorkloadError::Foreign { .. }));
    let mut noise = fixture();
    noise.certificate = vec![1, 2, 3];
    assert!(matches!(refusal(noise), WorkloadError::Foreign { .. }));
}

#[test]
fn refuses_another_nodes_identity_and_does_not_say_whether_it_exists() {
    let mut others = fixture();
    others.identity.parents = vec![id("node/b")];
    assert!(matches!(refusal(others), WorkloadError::NotServed { .. }));
    let mut nobodys = fixture();
    nobodys.identity.parents.clear();
    assert!(matches!(refusal(nobodys), WorkloadError::NotServed { .. }));
    let mut missing = fixture();
    missing.wanted = id("missing");
    assert!(matches!(refusal(missing), WorkloadError::NotServed { .. }));
}

#[test]
fn node_selectors_hold_for_what_the_node_proved_and_not_for_what_it_says() {
    let mut selected = fixture();
    selected.identity.parents.clear();
    selected.identity.node_selectors = [("x509.ca", "racks")].into();
    selected.node_claims.insert("x509.ca", "racks");
    verify(selected).unwrap();
    let mut claimed = fixture();
    claimed.identity.parents.clear();
    claimed.identity.node_selectors = [("rack.row", "7")].into();
    claimed.claims.insert("rack.row", "7");
    assert!(matches!(refusal(claimed), WorkloadError::NotServed { .. }));
}

#[test]
fn refuses_a_process_that_is_not_what_the_selectors_ask_for() {
    let mut wrong = fixture();
    wrong.claims.insert("unix.uid", "0");
    assert!(matches!(refusal(wrong), WorkloadError::Selectors { .. }));
    let mut nothing = fixture();
    nothing.identity.selectors = Selectors::new();
    assert!(matches!(refusal(nothing), WorkloadError::Selectors { .. }));
    let mut alternative = fixture();
    alternative.claims.insert("unix.uid", "0");
    alternative.identity.alternatives = vec![[("unix.gid", "100")].into()];
    verify(alternative).unwrap();
}

#[test]
fn refuses_claims_that_only_this_authority_makes() {
    for name in
        ["x509.cn", "token.id", "node.id", "operator.role", "renewal.identity", "uid", "a b.c", "unix."]
    {
        let mut fixture = fixture();
        fixture.claims.insert(name, "1");
        assert_eq!(refusal(fixture), WorkloadError::Claim(name.to_owned()));
    }
}

#[test]
fn refuses_more_claims_than_a_process_has() {
    let mut many = fixture();
    for number in 0..300 {
        many.claims.insert(format!("unix.x{number}"), "1");
    }
    assert!(matches!(refusal(many), WorkloadError::TooMuch { count: 302, .. }));
    let mut long = fixture();
    long.claims.insert("unix.path", "x".repeat(40_000));
    assert!(matches!(refusal(long), WorkloadError::TooMuch { .. }));
}

#[test]
fn a_verifier_takes_no_other_evidence_and_reports_broken_records() {
    let Fixture { certificate, identity, claims, .. } = fixture();
    let records = Records(Certificates(None), identity, Claims::new());
    let verifier = WorkloadVerifier::new(Arc::new(records));
    let token = Evidence::JoinToken(TokenEvidence { token: chancery_types::SecretString::new("t".into()) });
    let wrong = block_on(verifier.verify(token, &context()));
    assert!(matches!(wrong, Err(AttestError::WrongKind { .. })));
    let evidence = Evidence::Workload(WorkloadEvidence { node: certificate, identity: id("web"), claims });
    assert!(matches!(block_on(verifier.verify(evidence, &context())), Err(AttestError::Records(_))));
}
