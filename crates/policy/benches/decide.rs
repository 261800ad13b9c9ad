//! What a decision costs: the budget for a certificate is 15 microseconds, a quarter of one P-256 verification.

//!
//! Measured in processor time of the thread, not by the clock on the wall: the number is that of the decision
//! even while the machine is busy with something else.

#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use chancery_attest::{
    AttestContext, Attested, Evidence, JoinToken, JoinTokenVerifier, RecordsError, TokenBinding,
    TokenEvidence, TokenRecord, TokenRecords, TokenState, Verifier,
};
use chancery_policy::{
    Action, CallerFacts, Engine, IssueContext, IssueRequest, OperatorRequest, PolicySource, Requested,
    RequestedKey, ResourceFacts,
};
use chancery_types::{
    Digest, FixedRandom, Identity, IdentityState, KeyAlgorithm, Role, Timestamp, TokenId, TrustDomain,
};
use chancery_x509::Profile;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};

const NOW: i64 = 1_795_262_400;

const WORKLOAD: &str = r#"
name = "workload"
description = "For the benchmark."
purpose = "workload"
renewable = true
subject = "empty"
[lifetime]
default = "1h"
max = "24h"
min = "5m"
[keys]
algorithms = ["p256"]
usage = ["digital-signature"]
extended_usage = ["server-auth", "client-auth"]
[names]
max = 10
required = ["uri"]
[names.uri]
kind = "spiffe"
prefixes = ["spiffe://{trust-domain}/"]
[status]
description = "None."
"#;

struct OneToken(TokenRecord);

#[async_trait]
impl TokenRecords for OneToken {
    async fn token(&self, _: TokenId) -> Result<Option<TokenRecord>, RecordsError> {
        Ok(Some(self.0.clone()))
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

struct Fixture {
    engine: Engine,
    identity: Arc<Identity>,
    profile: Arc<Profile>,
    token: JoinToken,
    verifier: JoinTokenVerifier,
}

impl Fixture {
    fn new() -> Self {
        let schema =
            PolicySource::new("schema", include_str!("../../../ca-config/policy/schema.cedarschema"));
        let policies = [
            PolicySource::new("default", include_str!("../../../ca-config/policy/default.cedar")),
            PolicySource::new("operators", include_str!("../../../ca-config/policy/operators.cedar")),
        ];
        let mut identity =
            Identity::new("spiffe://example.org/ns/prod/sa/web".parse().unwrap(), "ada@example.org");
        identity.team = "platform".to_owned();
        identity.environment = "prod".to_owned();
        let token =
            JoinToken::generate(Timestamp::default(), &FixedRandom::dangerous_seeded(1), None).unwrap();
        let record = TokenRecord {
            id: token.id(),
            hash: token.hash(),
            binding: TokenBinding::Identity(identity.spiffe_id.clone()),
            key: None,
            expires: Timestamp::MAX,
            state: TokenState::Unspent,
        };
        let trust_domain = TrustDomain::parse("example.org").unwrap();
        Self {
            engine: Engine::new(&schema, &policies).unwrap(),
            identity: Arc::new(identity),
            profile: Arc::new(Profile::from_toml(WORKLOAD, &trust_domain).unwrap()),
            verifier: JoinTokenVerifier::new(Arc::new(OneToken(record))),
            token,
        }
    }

    fn attested(&self) -> Attested {
        let context = AttestContext {
            now: Timestamp::from_seconds(NOW),
            request_key: Digest::default(),
            server_name: "example.org",
        };
        let evidence = Evidence::JoinToken(TokenEvidence { token: self.token.to_text() });
        block_on(self.verifier.verify(evidence, &context)).unwrap()
    }

    fn request(&self, state: IdentityState) -> IssueRequest<'static> {
        IssueRequest {
            attested: self.attested(),
            identity: Arc::clone(&self.identity),
            identity_state: state,
            template: None,
            profile: Arc::clone(&self.profile),
            requested: Requested {
                names: Vec::new(),
                lifetime: None,
                key: RequestedKey { algorithm: KeyAlgorithm::P256, fingerprint: Digest::default() },
                audiences: Vec::new(),
            },
            context: IssueContext::at(Timestamp::from_seconds(NOW)),
            alternatives: &[],
        }
    }
}

/// Processor time of the calling thread.
struct ProcessorTime;

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn decide(criterion: &mut Criterion<ProcessorTime>) {
    let fixture = Fixture::new();
    criterion.bench_function("issue, granted", |bencher| {
        bencher.iter_batched(
            || fixture.request(IdentityState::Active),
            |request| fixture.engine.decide_issue(black_box(request)),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("issue, granted, with the receipt as JSON", |bencher| {
        bencher.iter_batched(
            || fixture.request(IdentityState::Active),
            |request| match fixture.engine.decide_issue(black_box(request)) {
                chancery_policy::Decision::Approved(approved) => approved.receipt().to_json(),
                chancery_policy::Decision::Refused(refused) => panic!("{:?}", refused.refusal),
            },
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("issue, refused, with the smallest change", |bencher| {
        bencher.iter_batched(
            || fixture.request(IdentityState::Held),
            |request| fixture.engine.decide_issue(black_box(request)),
            BatchSize::SmallInput,
        );
    });
    let caller = CallerFacts::mtls(&fixture.identity.spiffe_id, Some(Role::Operator));
    let resource = ResourceFacts::of("identity", fixture.identity.spiffe_id.as_str(), &fixture.identity);
    let call = OperatorRequest::new(caller, Action::TokenCreate, resource, Timestamp::from_seconds(NOW));
    criterion.bench_function("call, permitted", |bencher| {
        bencher.iter(|| fixture.engine.decide_operator(black_box(call.clone())));
    });
}

fn on_processor_time() -> Criterion<ProcessorTime> {
    Criterion::default().with_measurement(ProcessorTime)
}

criterion_group! {
    name = benches;
    config = on_processor_time();
    targets = decide
}
criterion_main!(benches);
