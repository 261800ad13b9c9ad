//! The shipped policies, a profile, and evidence that a real verifier accepted, for the tests of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use chancery_attest::{
    AttestContext, Attested, CertificateRecords, CertificateStanding, CertificateState, Evidence, JoinToken,
    JoinTokenVerifier, LineageStanding, OperatorChannel, OperatorEvidence, OperatorVerifier, RecordsError,
    RenewalEvidence, RenewalVerifier, SameKey, TokenBinding, TokenEvidence, TokenRecord, TokenRecords,
    TokenState, Verifier,
};
use chancery_types::{
    AssuranceLevel, Digest, EvidenceKind, FixedRandom, Generation, Identity, IdentityState, IssuerEpoch,
    KeyAlgorithm, LineageId, SerialNumber, Timestamp, TokenId, TrustDomain,
};
use chancery_x509::Profile;

use crate::{Engine, IssueContext, IssueRequest, PolicySource, Requested, RequestedKey};

pub(crate) const SCHEMA: &str = include_str!("../../../ca-config/policy/schema.cedarschema");
pub(crate) const DEFAULT: &str = include_str!("../../../ca-config/policy/default.cedar");
pub(crate) const OPERATORS: &str = include_str!("../../../ca-config/policy/operators.cedar");

pub(crate) fn schema() -> PolicySource {
    PolicySource::new("schema.cedarschema", SCHEMA)
}

pub(crate) fn shipped() -> Vec<PolicySource> {
    vec![PolicySource::new("default.cedar", DEFAULT), PolicySource::new("operators.cedar", OPERATORS)]
}

/// The shipped policies, prepared once for all tests.
pub(crate) fn engine() -> &'static Engine {
    static SHIPPED: LazyLock<Engine> =
        LazyLock::new(|| Engine::new(&schema(), &shipped()).unwrap_or_else(|errors| panic!("{errors}")));
    &SHIPPED
}

/// An engine of these policies alone.
pub(crate) fn engine_of(policies: &str) -> Engine {
    Engine::new(&schema(), &[PolicySource::new("test.cedar", policies)])
        .unwrap_or_else(|errors| panic!("{errors}"))
}

/// 2026-11-21T12:00:00Z.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_seconds(1_795_262_400)
}

pub(crate) fn key() -> Digest {
    Digest::of(b"the request's key")
}

pub(crate) fn web() -> Identity {
    let mut identity =
        Identity::new("spiffe://example.org/web".parse().expect("a SPIFFE ID"), "ada@example.org");
    identity.dns_names = vec!["web.example.org".parse().expect("a name")];
    identity.profiles = vec!["workload".to_owned(), "server".to_owned()];
    identity
}

/// A profile of this name that takes SPIFFE IDs and, if told, DNS names below example.org.
pub(crate) fn profile(name: &str, purpose: &str, dns: bool) -> Arc<Profile> {
    let dns = if dns { "[names.dns]\ndomains = [\"example.org\"]\nwildcard = true\n" } else { "" };
    let extended = if purpose == "operator" { "" } else { "\"server-auth\", " };
    let text = format!(
        r#"
name = "{name}"
description = "For tests."
purpose = "{purpose}"
renewable = true
subject = "empty"
[lifetime]
default = "1h"
max = "24h"
min = "5m"
[keys]
algorithms = ["p256", "ed25519"]
usage = ["digital-signature"]
extended_usage = [{extended}"client-auth"]
[names]
max = 10
required = ["uri"]
[names.uri]
kind = "spiffe"
prefixes = ["spiffe://{{trust-domain}}/"]
{dns}
[status]
description = "None."
"#
    );
    let trust_domain = TrustDomain::parse("example.org").expect("a trust domain");
    Arc::new(Profile::from_toml(&text, &trust_domain).unwrap_or_else(|error| panic!("{error}")))
}

pub(crate) fn requested() -> Requested {
    Requested {
        names: Vec::new(),
        lifetime: None,
        key: RequestedKey { algorithm: KeyAlgorithm::P256, fingerprint: key() },
        audiences: Vec::new(),
    }
}

/// An unremarkable request with this evidence.
pub(crate) fn request(attested: Attested) -> IssueRequest<'static> {
    IssueRequest {
        attested,
        identity: Arc::new(web()),
        identity_state: IdentityState::Active,
        template: None,
        profile: profile("workload", "workload", false),
        requested: requested(),
        context: IssueContext::at(now()),
        alternatives: &[],
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

fn attest(verifier: &dyn Verifier, evidence: Evidence) -> Attested {
    let context = AttestContext { now: now(), request_key: key(), server_name: "example.org" };
    block_on(verifier.verify(evidence, &context)).unwrap_or_else(|error| panic!("{error}"))
}

/// A join token for the identity that [`web`] registers.
pub(crate) fn by_token() -> Attested {
    by_token_for(TokenBinding::Identity(web().spiffe_id))
}

pub(crate) fn by_token_for(binding: TokenBinding) -> Attested {
    let token = JoinToken::generate(Timestamp::default(), &FixedRandom::dangerous_seeded(1), None)
        .expect("fixed bytes");
    let record = TokenRecord {
        id: token.id(),
        hash: token.hash(),
        binding,
        key: None,
        expires: Timestamp::MAX,
        state: TokenState::Unspent,
    };
    let verifier = JoinTokenVerifier::new(Arc::new(OneToken(record)));
    attest(&verifier, Evidence::JoinToken(TokenEvidence { token: token.to_text() }))
}

/// The authority itself asks for this identity: AL2 and repeatable.
pub(crate) fn by_authority(identity: &Identity) -> Attested {
    by_operator(identity, OperatorChannel::Authority { key: key() })
}

/// A local administrator asks for this identity: AL1.
pub(crate) fn by_local_admin(identity: &Identity) -> Attested {
    by_operator(identity, OperatorChannel::LocalSocket { uid: 0 })
}

fn by_operator(identity: &Identity, channel: OperatorChannel) -> Attested {
    let verifier = OperatorVerifier::new(Arc::new(OneCertificate(None)), BTreeSet::from([0]));
    let identity = identity.spiffe_id.clone();
    attest(&verifier, Evidence::Operator(OperatorEvidence { channel, identity, approval: None }))
}

/// A renewal of a lineage that began this many days ago, with a join token or by the authority.
pub(crate) fn by_renewal(days: u64, repeatable: bool) -> Attested {
    let serial = SerialNumber::compose(IssuerEpoch(1), 1, [7; 8]).expect("below the limit");
    let key_pair = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
    parameters.serial_number = Some(rcgen::SerialNumber::from_slice(serial.as_bytes()));
    let certificate = parameters.self_signed(&key_pair).expect("a certificate").der().to_vec();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key_pair);
    let level = if repeatable { AssuranceLevel::Repeatable } else { AssuranceLevel::SharedSecret };
    let standing = CertificateStanding {
        state: CertificateState::Good,
        identity: web().spiffe_id,
        identity_state: IdentityState::Active,
        role: None,
        key: Digest::of(&spki),
        profile: "workload".to_owned(),
        not_after: Timestamp::MAX,
        lineage: LineageStanding {
            lineage: LineageId::from_array([1; 16]),
            generation: Generation(3),
            current: Generation(3),
            current_serial: serial,
            current_key: Digest::of(&spki),
            enrolled_by: if repeatable { EvidenceKind::X509Pop } else { EvidenceKind::JoinToken },
            assurance: level,
            repeatable,
            enrolled_at: now() - std::time::Duration::from_secs(days * 86_400),
        },
    };
    let verifier = RenewalVerifier::new(Arc::new(OneCertificate(Some(standing))), SameKey::Refused);
    attest(&verifier, Evidence::Renewal(RenewalEvidence { certificate }))
}

struct OneToken(TokenRecord);

#[async_trait]
impl TokenRecords for OneToken {
    async fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, RecordsError> {
        Ok((id == self.0.id).then(|| self.0.clone()))
    }
}

struct OneCertificate(Option<CertificateStanding>);

#[async_trait]
impl CertificateRecords for OneCertificate {
    async fn certificate(&self, _: SerialNumber) -> Result<Option<CertificateStanding>, RecordsError> {
        Ok(self.0.clone())
    }
}

pub(crate) fn parameters(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
