use chancery_types::{
    AssuranceLevel, CrlShard, Digest, EvidenceKind, Generation, IssuerEpoch, LineageId, RevocationReason,
    SerialNumber, Timestamp, TokenId,
};
use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

fn serial() -> SerialNumber {
    SerialNumber::compose(IssuerEpoch(1), 7, [0xab; 8]).unwrap()
}

fn by() -> String {
    "operator:ada".to_owned()
}

/// One of each kind, with every optional field present somewhere and absent elsewhere.
fn one_of_each() -> Vec<Entry> {
    let id: chancery_types::SpiffeId = "spiffe://example.org/web".parse().unwrap();
    let lineage = LineageId::from_array([3; 16]);
    let token = TokenId::from_array([4; 16]);
    let digest = Digest::of(b"x");
    let note = || "note".to_owned();
    let document = || Document(r#"{"a":1}"#.to_owned());
    let registration = || IdentityRegistration { identity: id.clone(), document: document(), by: by() };
    let change = || IdentityChange { identity: id.clone(), by: by(), note: note() };
    let time = Timestamp::from_millis(1_795_000_000_123);
    let bodies = vec![
        Body::Null,
        Body::Genesis(Genesis {
            trust_domain: id.trust_domain().id(),
            origin: "example.org/log".into(),
            verifier_key: "example.org/log+00000000+AA==".into(),
            root: Blob(vec![0x30, 0]),
        }),
        Body::from(Issuance {
            serial: serial(),
            identity: id.clone(),
            lineage,
            generation: Generation(2),
            not_before: time,
            not_after: time,
            key: digest,
            profile: "workload".into(),
            profile_hash: digest,
            requester: "10.0.0.1".into(),
            evidence: EvidenceKind::JoinToken,
            assurance: AssuranceLevel::SharedSecret,
            evidence_hash: digest,
            decision: document(),
            idempotency: Some(digest),
            tbs: Blob(vec![0x30, 1, 0]),
        }),
        Body::Refusal(Refusal {
            identity: None,
            requester: "10.0.0.1".into(),
            evidence: EvidenceKind::X509Pop,
            evidence_hash: digest,
            code: "no-owner".into(),
            decision: document(),
        }),
        Body::Revocation(Revocation {
            serial: serial(),
            reason: RevocationReason::KeyCompromise,
            by: by(),
            note: note(),
        }),
        Body::Hold(Hold {
            target: HoldTarget::Lineage(lineage),
            cause: "lineage-fork".into(),
            by: by(),
            note: note(),
        }),
        Body::Release(Release { target: HoldTarget::Certificate(serial()), by: by(), note: note() }),
        Body::CrlPublished(CrlPublished {
            epoch: IssuerEpoch(1),
            number: 9,
            this_update: time,
            next_update: time,
            entries: 3,
            hash: digest,
        }),
        Body::CrlDivided(CrlDivision {
            epoch: IssuerEpoch(1),
            shards: 16,
            base: "http://ca.example.org".into(),
        }),
        Body::CrlShardPublished(CrlShardPublished {
            epoch: IssuerEpoch(1),
            shard: CrlShard::new(3, 16).unwrap(),
            number: 9,
            this_update: time,
            next_update: time,
            entries: 3,
            hash: digest,
        }),
        Body::StatusSetPublished(StatusSetPublished {
            sequence: 8,
            made: time,
            entries: 3,
            hash: digest,
            previous: Some(digest),
        }),
        Body::IdentityRegistered(registration()),
        Body::IdentityChanged(registration()),
        Body::IdentityHeld(change()),
        Body::IdentityReleased(change()),
        Body::IdentityRetired(change()),
        Body::TemplateRegistered(TemplateRegistration {
            name: "host".into(),
            document: document(),
            by: by(),
        }),
        Body::TemplateRemoved(TemplateRemoval { name: "host".into(), by: by() }),
        Body::TokenCreated(TokenCreation {
            token,
            secret_hash: digest,
            binding: TokenBinding::Template { name: "host".into(), parameters: document() },
            key: None,
            expires: time,
            by: by(),
        }),
        Body::TokenSpent(TokenSpend { token, serial: serial() }),
        Body::TokenRevoked(TokenRevocation { token, by: by() }),
        Body::IssuerActivated(IssuerActivation {
            epoch: IssuerEpoch(1),
            certificate: Blob(vec![0x30, 0]),
            by: by(),
        }),
        Body::IssuerRetired(IssuerRetirement { epoch: IssuerEpoch(1), by: by(), note: note() }),
        Body::PolicyChanged(PolicyChange {
            policy_hash: digest,
            name: "default.cedar".into(),
            text: "permit(principal, action, resource);".into(),
            by: by(),
        }),
        Body::ProfileChanged(ProfileChange {
            name: "workload".into(),
            profile_hash: digest,
            text: "name = \"workload\"".into(),
            by: by(),
        }),
        Body::OperatorAction(OperatorAction {
            by: by(),
            action: "audit.export".into(),
            resource: "log".into(),
            decision: document(),
        }),
        Body::ChangeProposed(ChangeProposal {
            request: document(),
            radius: document(),
            expires: time,
            by: by(),
            note: note(),
        }),
        Body::ChangeStepped(ChangeStep {
            change: 7,
            step: Step::Approved,
            by: by(),
            details: document(),
            note: note(),
        }),
        Body::Ceremony(Ceremony { transcript: "root made".into(), by: by() }),
        Body::IssuerPrepared(IssuerActivation {
            epoch: IssuerEpoch(2),
            certificate: Blob(vec![0x30, 0]),
            by: by(),
        }),
        Body::IssuerTainted(IssuerTaint {
            epoch: IssuerEpoch(1),
            step: TaintStep::Renewing,
            until: time,
            by: by(),
            note: note(),
        }),
        Body::IssuerWithdrawn(IssuerRetirement { epoch: IssuerEpoch(1), by: by(), note: note() }),
        Body::KeyChanged(KeyChange {
            purpose: KeyPurpose::Root,
            key: digest,
            content: Blob(vec![0x30, 0]),
            phase: KeyPhase::Retired,
            by: by(),
            note: note(),
        }),
        Body::RotationWished(RotationWish {
            subject: "issuer".into(),
            wish: Wanted::Pause,
            by: by(),
            note: note(),
        }),
        Body::Tidied(Tidy { ended_before: time, serials: vec![serial(), serial()] }),
    ];
    bodies.into_iter().map(|body| Entry { time, body }).collect()
}

#[test]
fn every_kind_decodes_to_itself_and_has_a_number_of_its_own() {
    let mut numbers = Vec::new();
    for entry in one_of_each() {
        let bytes = entry.encode().unwrap();
        let back = Entry::decode(&bytes).unwrap();
        assert_eq!(back, entry);
        assert_eq!(back.encode().unwrap(), bytes);
        numbers.push(entry.body.type_number());
    }
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
}

/// Golden vectors: these bytes are in logs already written and may never change.
#[test]
fn bytes_are_what_they_always_were() {
    let golden = include_str!("../tests/golden.txt");
    let written: Vec<String> = one_of_each()
        .iter()
        .map(|entry| format!("{} {}", entry.body.kind(), HEXLOWER.encode(&entry.encode().unwrap())))
        .collect();
    if std::env::var_os("CHANCERY_REWRITE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden.txt");
        std::fs::write(path, written.join("\n") + "\n").unwrap();
        return;
    }
    let expected: Vec<&str> = golden.lines().collect();
    assert_eq!(written, expected);
}

#[test]
fn every_truncation_is_refused_and_so_is_every_extra_byte() {
    for entry in one_of_each() {
        let mut bytes = entry.encode().unwrap();
        for end in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..end]).is_err(), "{} cut to {end}", entry.body.kind());
        }
        bytes.push(0);
        assert!(matches!(Entry::decode(&bytes), Err(DecodeError::Trailing { extra: 1, .. })));
    }
}

#[test]
fn refuses_unknown_types_versions_and_values() {
    let mut bytes = Entry::new(Timestamp::from_millis(1), Body::Null).encode().unwrap();
    bytes[2] = 2;
    assert!(matches!(Entry::decode(&bytes), Err(DecodeError::Version { version: 2, .. })));
    bytes[2] = 1;
    bytes[1] = 200;
    assert_eq!(Entry::decode(&bytes), Err(DecodeError::Type(200)));
}

#[test]
fn refuses_to_write_what_a_bundle_cannot_carry() {
    let entry = Entry::new(
        Timestamp::from_millis(1),
        Body::Ceremony(Ceremony { transcript: "x".repeat(65_530), by: by() }),
    );
    assert!(matches!(entry.encode(), Err(TooLong { kind: "ceremony", .. })));
    let entry = Entry::new(
        Timestamp::from_millis(1),
        Body::Ceremony(Ceremony { transcript: "x".repeat(70_000), by: by() }),
    );
    assert_eq!(entry.encode().unwrap_err().length, 70_000);
}

#[test]
fn shows_documents_as_json_and_bytes_as_base64() {
    let issuance = &one_of_each()[2];
    let view = serde_json::to_value(issuance).unwrap();
    assert_eq!(view["kind"], "issuance");
    assert_eq!(view["body"]["decision"]["a"], 1);
    assert_eq!(view["body"]["tbs"], "MAEA");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(entry.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn flipped_bytes_decode_to_something_else_or_not_at_all(which in 0_usize..34, at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let entry = &one_of_each()[which];
        let mut bytes = entry.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(other) = Entry::decode(&bytes) {
            prop_assert_ne!(&other, entry);
            prop_assert_eq!(other.encode().unwrap(), bytes);
        }
    }
}
