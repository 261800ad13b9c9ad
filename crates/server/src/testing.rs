//! What the tests of this crate share: an authority, a log, and documents that are kept equal to the code.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chancery_client::{Client, ClientBuilder, Endpoint, RetryPolicy, TlsIdentity, TrustAnchors};
use chancery_entry::{Blob, Body, Document, Entry, Issuance, TokenBinding, TokenCreation};
use chancery_ledger::{EmbeddedLedger, Ledger, Options, Outcome, Proposal};
use chancery_merkle::{Ed25519NoteSigner, LogSigners, NoteSigner as _, NoteVerifier};
use chancery_types::{
    AssuranceLevel, Digest, EvidenceKind, FixedRandom, Generation, IssuerEpoch, LineageId, SerialNumber,
    Timestamp, TokenId,
};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::{OldestTls, TlsMaterial};

/// A root that signs certificates for a server and its clients.
pub(crate) struct Authority {
    root: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self { root, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn material(&self) -> TlsMaterial {
        let (chain, key) = self.server();
        TlsMaterial { chain, key, client_roots: vec![self.root.der().clone()], oldest: OldestTls::Tls13 }
    }

    pub(crate) fn server(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        self.leaf(SanType::DnsName("localhost".try_into().unwrap()), ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(crate) fn client(&self, id: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        self.leaf(SanType::URI(Ia5String::try_from(id).unwrap()), ExtendedKeyUsagePurpose::ClientAuth)
    }

    pub(crate) fn client_identity(&self, id: &str) -> TlsIdentity {
        let (chain, key) = self.client(id);
        TlsIdentity::from_der(chain, key)
    }

    pub(crate) fn root_der(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    /// A client that trusts this authority, sends everything once, and has no certificate.
    pub(crate) fn client_of(&self, port: u16) -> ClientBuilder {
        Client::builder(Endpoint::Https { host: "localhost".into(), port })
            .trust(TrustAnchors::from_certificates([self.root_der()]).unwrap())
            .retry(RetryPolicy::never())
    }

    fn leaf(
        &self,
        name: SanType,
        usage: ExtendedKeyUsagePurpose,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new([]).unwrap();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

/// When the first entry of a [`TestLog`] was made; each later one a second after the one before.
pub(crate) fn log_start() -> Timestamp {
    Timestamp::from_seconds(1_795_000_000)
}

/// The serial number of a certificate of a [`TestLog`].
pub(crate) fn serial(counter: u64) -> SerialNumber {
    SerialNumber::compose(IssuerEpoch(1), counter, [7; 8]).unwrap()
}

/// A ledger in a directory of its own.
pub(crate) struct TestLog {
    pub(crate) ledger: Arc<EmbeddedLedger>,
    pub(crate) verifier: NoteVerifier,
    _directory: tempfile::TempDir,
}

impl TestLog {
    pub(crate) fn new() -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
        let sign = move |message: &[u8]| Ok::<_, std::io::Error>(key.sign(message).as_ref().to_vec());
        let signer = Ed25519NoteSigner::new("example.org/chancery-log", public, sign).unwrap();
        let verifier = signer.verifier().clone();
        let directory = tempfile::tempdir().unwrap();
        let random = FixedRandom::dangerous_seeded(1);
        let ledger =
            EmbeddedLedger::create(directory.path(), LogSigners::of(signer), Options::default(), &random)
                .unwrap();
        Self { ledger: Arc::new(ledger), verifier, _directory: directory }
    }

    /// Records so many certificates of an hour, a minute apart, with serial numbers that count from zero.
    pub(crate) async fn add_certificates(&self, count: u64) {
        let proposals = (0..count).map(|counter| {
            let begins = log_start() + Duration::from_secs(60 * counter);
            let issuance = Issuance {
                serial: serial(counter),
                identity: "spiffe://example.org/web".parse().unwrap(),
                lineage: LineageId::from_array(u128::from(counter).to_be_bytes()),
                generation: Generation(0),
                not_before: begins,
                not_after: begins + Duration::from_hours(1),
                key: Digest::of(&counter.to_be_bytes()),
                profile: "workload".into(),
                profile_hash: Digest::of(b"profile"),
                requester: "test".into(),
                evidence: EvidenceKind::JoinToken,
                assurance: AssuranceLevel::SharedSecret,
                evidence_hash: Digest::of(b"evidence"),
                decision: Document("{}".into()),
                idempotency: None,
                tbs: Blob(vec![0x30]),
            };
            Proposal::new(vec![], vec![Entry::new(begins, issuance)]).unwrap()
        });
        self.ledger.commit(proposals.collect()).await.unwrap();
    }

    /// Records this many tokens, the one at index 7 for `spiffe://example.org/web-7`.
    pub(crate) async fn add_tokens(&self, count: u64) {
        let start = self.ledger.head().size;
        let proposals = (start..start + count).map(|index| {
            let now = log_start() + Duration::from_secs(index);
            let created = TokenCreation {
                token: TokenId::from_array((1 << 64 | u128::from(index)).to_be_bytes()),
                secret_hash: Digest::of(&index.to_be_bytes()),
                binding: TokenBinding::Identity(format!("spiffe://example.org/web-{index}").parse().unwrap()),
                key: None,
                expires: now + Duration::from_secs(60),
                by: "test".into(),
            };
            Proposal::new(vec![], vec![Entry::new(now, Body::TokenCreated(created))]).unwrap()
        });
        let outcomes = self.ledger.commit(proposals.collect()).await.unwrap();
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })));
    }
}

/// Fails when a committed document is not what the code says; with `CHANCERY_REWRITE=1` it is rewritten.
pub(crate) fn compare_or_rewrite(path: &Path, expected: &str) {
    if std::env::var_os("CHANCERY_REWRITE").is_some() {
        std::fs::write(path, expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == expected,
        "{} is not up to date; run the tests once with CHANCERY_REWRITE=1 and commit the change",
        path.display()
    );
}
