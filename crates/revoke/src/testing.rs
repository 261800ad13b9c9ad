//! A ledger on a real disk, an issuer with a real key, and certificates on record, for the tests of this crate.

use std::sync::Arc;
use std::time::Duration;

use chancery_entry::{Blob, Body, CrlDivision, Document, Entry, Issuance, IssuerActivation, Revocation};
use chancery_keys::{EphemeralSigner, Signer};
use chancery_ledger::{EmbeddedLedger, Ledger, Options, Outcome, Precondition, Proposal};
use chancery_merkle::{Ed25519NoteSigner, LogSigners};
use chancery_types::{
    AssuranceLevel, Clock as _, Digest, EvidenceKind, Generation, IssuerEpoch, KeyAlgorithm, LineageId,
    ManualClock, RevocationReason, SerialNumber, SystemRandom, Timestamp,
};
use chancery_x509::{
    BasicConstraints, Certificate, CertificateSpec, DistinguishedName, KeyUsages, Validity, assemble,
};

use chancery_revoke::{CrlPublisher, CrlRules, StatusBoard, StatusIssuer};

pub(crate) const BASE: &str = "http://ca.example.org";
pub(crate) const EPOCH: IssuerEpoch = IssuerEpoch(1);
pub(crate) const SHARDS: u16 = 4;

/// Now, by the clock of every test.
pub(crate) fn start() -> Timestamp {
    Timestamp::from_seconds(1_795_219_200)
}

pub(crate) struct World {
    pub(crate) ledger: Arc<EmbeddedLedger>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) issuer: Certificate,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) place: tempfile::TempDir,
    pub(crate) board: Arc<StatusBoard>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let options = Options { segment_bytes: 1 << 20, ..Options::default() };
        Self::inside(tempfile::tempdir().unwrap(), options).await
    }

    pub(crate) async fn inside(place: tempfile::TempDir, options: Options) -> Self {
        let key = EphemeralSigner::generate(KeyAlgorithm::Ed25519).unwrap();
        let public: [u8; 32] = key.public_key().key_bytes().try_into().unwrap();
        let note = Ed25519NoteSigner::new("example.org/log", public, move |message: &[u8]| key.sign(message));
        let ledger = EmbeddedLedger::create(
            &place.path().join("ledger"),
            LogSigners::of(note.unwrap()),
            options,
            &SystemRandom,
        );
        let (ledger, clock) = (Arc::new(ledger.unwrap()), Arc::new(ManualClock::at(start())));
        let signer = EphemeralSigner::generate(KeyAlgorithm::P256).unwrap();
        let issuer = issuer(signer.as_ref());
        let (board, news) = StatusBoard::open(ledger.clone(), clock.clone(), rules().keep()).await.unwrap();
        let following = Arc::clone(&board);
        tokio::spawn(async move { following.follow(news).await });
        let world = Self { ledger, clock, issuer, signer, place, board };
        let certificate = Blob(world.issuer.der().to_vec());
        world
            .record(Body::IssuerActivated(IssuerActivation { epoch: EPOCH, certificate, by: "t".into() }))
            .await;
        let division = CrlDivision { epoch: EPOCH, shards: SHARDS, base: BASE.into() };
        world.record(Body::CrlDivided(division)).await;
        world
    }

    pub(crate) async fn record(&self, body: impl Into<Body>) {
        let entry = Entry::new(self.clock.now(), body);
        let outcomes = self.ledger.commit(vec![Proposal::new(vec![], vec![entry]).unwrap()]).await.unwrap();
        assert!(matches!(outcomes[0], Outcome::Accepted { .. }));
    }

    /// Puts a certificate on record that is valid for an hour.
    pub(crate) async fn issue(&self, counter: u64) -> SerialNumber {
        let issuance = self.issuance(counter);
        let serial = issuance.serial;
        self.record(issuance).await;
        serial
    }

    pub(crate) fn issuance(&self, counter: u64) -> Issuance {
        let serial = SerialNumber::compose(EPOCH, counter, [7; 8]).unwrap();
        let now = self.clock.now();
        Issuance {
            serial,
            identity: "spiffe://example.org/web".parse().unwrap(),
            lineage: LineageId::from_array(u128::from(counter + 1).to_be_bytes()),
            generation: Generation(0),
            not_before: now,
            not_after: now + Duration::from_secs(3600),
            key: Digest::of(&counter.to_be_bytes()),
            profile: "workload".into(),
            profile_hash: Digest::of(b"profile"),
            requester: "test".into(),
            evidence: EvidenceKind::JoinToken,
            assurance: AssuranceLevel::SharedSecret,
            evidence_hash: Digest::of(b"evidence"),
            decision: Document("{}".into()),
            idempotency: None,
            tbs: Blob(vec![0x30; 600]),
        }
    }

    pub(crate) async fn revoke(&self, serial: SerialNumber, reason: RevocationReason) {
        let body = Body::Revocation(Revocation { serial, reason, by: "t".into(), note: String::new() });
        let requires = vec![Precondition::Revocable { serial, reason }];
        let entry = Entry::new(self.clock.now(), body);
        let outcomes = self.ledger.commit(vec![Proposal::new(requires, vec![entry]).unwrap()]).await.unwrap();
        assert!(matches!(outcomes[0], Outcome::Accepted { .. }));
    }

    /// A publisher over what the ledger says, as a process that has just started has it.
    pub(crate) async fn publisher(&self) -> Arc<CrlPublisher> {
        self.publisher_by(CrlRules { gather: Duration::from_millis(1), ..rules() }).await
    }

    pub(crate) async fn publisher_by(&self, rules: CrlRules) -> Arc<CrlPublisher> {
        let issuer = StatusIssuer {
            epoch: EPOCH,
            certificate: self.issuer.clone(),
            signer: Some(Arc::clone(&self.signer)),
            divisions: self.ledger_divisions().await,
        };
        Arc::new(CrlPublisher::new(
            self.ledger.clone(),
            self.clock.clone(),
            Arc::clone(&self.board),
            rules,
            vec![issuer],
            &self.place.path().join("crl"),
        ))
    }

    async fn ledger_divisions(&self) -> Vec<chancery_ledger::CrlDivisionRecord> {
        use chancery_ledger::ReadModel as _;
        self.ledger.crl_divisions(EPOCH).await.unwrap()
    }
}

/// Lists that are good for a day.
pub(crate) fn rules() -> CrlRules {
    CrlRules::new(Duration::from_secs(86_400))
}

fn issuer(key: &dyn Signer) -> Certificate {
    let name = DistinguishedName::common_name("Example Issuer 1").unwrap();
    let tbs = CertificateSpec {
        serial: &[1],
        signature_algorithm: key.algorithm(),
        issuer: name.der(),
        validity: Validity {
            not_before: start() - Duration::from_secs(86_400),
            not_after: start() + Duration::from_secs(90 * 86_400),
        },
        subject: name.clone(),
        public_key: key.public_key(),
        authority_key_id: None,
        names: &[],
        key_usages: KeyUsages::AUTHORITY,
        extended_key_usages: &[],
        authority: Some(BasicConstraints { is_authority: true, path_length: Some(0) }),
        name_constraints: None,
        crl_url: None,
        ocsp_url: None,
        ca_issuers_url: None,
        no_rev_avail: false,
        ocsp_nocheck: false,
    }
    .to_tbs_der();
    Certificate::from_der(&assemble(&tbs, key.algorithm(), &key.sign(&tbs).unwrap())).unwrap()
}

/// Waits until something holds that other tasks bring about.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}: waited in vain");
}
