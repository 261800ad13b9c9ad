//! Writes the seeds that are made by our own crates: see `make-corpus`.

use std::error::Error;
use std::path::Path;

use chancery_entry::{
    Body, CrlPublished, Document, Entry, Hold, HoldTarget, IdentityRegistration, Issuance, Refusal,
    Revocation, TokenBinding, TokenCreation, TokenSpend,
};
use chancery_merkle::{
    Checkpoint, Ed25519NoteSigner, Frontier, MemoryHashes, NoteSigner as _, Receipt, RecordedKey, Tile,
    TileKind, inclusion_proof, leaf_hash, push_entry,
};
use chancery_types::{
    AssuranceLevel, Digest, EvidenceKind, Generation, IssuerEpoch, KeyAlgorithm, LineageId, RevocationReason,
    SerialNumber, SpiffeId, Timestamp, TokenId,
};
use chancery_x509::{CERTIFICATE_REQUEST, DistinguishedName, SubjectKey, write_pem};

fn main() -> Result<(), Box<dyn Error>> {
    notes()?;
    entries()?;
    enrolments()
}

fn write(target: &str, name: &str, bytes: impl AsRef<[u8]>) -> Result<(), Box<dyn Error>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&directory)?;
    Ok(std::fs::write(directory.join(name), bytes)?)
}

fn notes() -> Result<(), Box<dyn Error>> {
    let key = SubjectKey::generate(KeyAlgorithm::Ed25519)?;
    let public: [u8; 32] = key.public_key().key_bytes().try_into()?;
    let log = Ed25519NoteSigner::new("example.org/log", public, |text: &[u8]| key.sign(text))?;
    let witness = Ed25519NoteSigner::new("witness.example", public, |text: &[u8]| key.sign(text))?;
    let (mut tree, mut hashes) = (Frontier::new(), MemoryHashes::default());
    for number in 0..300_u32 {
        tree.append(leaf_hash(&number.to_be_bytes()), &mut |level, index, hash| {
            hashes.push(level, index, hash)
        });
    }
    let checkpoint = Checkpoint::new("example.org/log", tree.size(), tree.root())?;
    let note = checkpoint.sign(&[&log, &witness])?;
    let proof = inclusion_proof(42, tree.size(), &hashes)?;
    let mut bundle = Vec::new();
    for entry in [&b"one"[..], b"", &[7; 300]] {
        push_entry(&mut bundle, entry)?;
    }
    write("note", "checkpoint", checkpoint.text())?;
    write("note", "signed-checkpoint", note.to_string())?;
    write("note", "verifier-key", log.verifier().vkey())?;
    write("note", "verifier-keys", format!("{0}\n{0}\n", log.verifier()))?;
    let recorded = RecordedKey { key: log.verifier().clone(), vouched: Some(note.clone()) };
    write("note", "recorded-key", recorded.content())?;
    write("note", "bundle", bundle)?;
    for (name, kind, index, width) in
        [("tile-path", TileKind::Hashes(0), 1_234_567, 256), ("partial-tile-path", TileKind::Entries, 1, 44)]
    {
        let tile = Tile::new(kind, index, width).ok_or("no such tile")?;
        write("note", name, tile.to_string())?;
    }
    for (name, extra) in [("plain", None), ("extra", Some(vec![1, 2, 3]))] {
        let receipt = Receipt { extra, index: 42, proof: proof.clone(), checkpoint: note.clone() };
        write("receipt", name, receipt.to_string())?;
    }
    Ok(())
}

fn entries() -> Result<(), Box<dyn Error>> {
    let identity: SpiffeId = "spiffe://example.org/web".parse()?;
    let serial = SerialNumber::compose(IssuerEpoch(1), 7, [0xab; 8])?;
    let (digest, time, by) =
        (Digest::of(b"x"), Timestamp::from_millis(1_795_000_000_123), "operator:ada".to_owned());
    let document = || Document(r#"{"a":1}"#.to_owned());
    let token = TokenId::from_array([4; 16]);
    let bodies = [
        Body::Null,
        Body::from(Issuance {
            serial,
            identity: identity.clone(),
            lineage: LineageId::from_array([3; 16]),
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
            tbs: chancery_entry::Blob(vec![0x30, 1, 0]),
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
            serial,
            reason: RevocationReason::KeyCompromise,
            by: by.clone(),
            note: String::new(),
        }),
        Body::Hold(Hold {
            target: HoldTarget::Certificate(serial),
            cause: "lineage-fork".into(),
            by: by.clone(),
            note: String::new(),
        }),
        Body::CrlPublished(CrlPublished {
            epoch: IssuerEpoch(1),
            number: 9,
            this_update: time,
            next_update: time,
            entries: 3,
            hash: digest,
        }),
        Body::IdentityRegistered(IdentityRegistration { identity, document: document(), by: by.clone() }),
        Body::TokenCreated(TokenCreation {
            token,
            secret_hash: digest,
            binding: TokenBinding::Template { name: "host".into(), parameters: document() },
            key: None,
            expires: time,
            by,
        }),
        Body::TokenSpent(TokenSpend { token, serial }),
    ];
    for body in bodies {
        let name = body.kind();
        write("entry", name, Entry::new(time, body).encode()?)?;
    }
    Ok(())
}

fn enrolments() -> Result<(), Box<dyn Error>> {
    let key = SubjectKey::generate(KeyAlgorithm::P256)?;
    let der = key.request(&DistinguishedName::empty(), &["spiffe://example.org/web".parse()?])?;
    let pem = write_pem(CERTIFICATE_REQUEST, &der);
    let token = serde_json::json!({
        "csr": pem,
        "evidence": { "kind": "join-token", "token": "not a token" },
        "profile": "workload",
        "identity": "spiffe://example.org/web",
        "lifetime": "15m",
        "receipt": true,
    });
    let pop = serde_json::json!({
        "csr": pem,
        "evidence": { "kind": "x509-pop", "chain": ["MAA="], "nonce": "AAAA", "signature": "AAAA" },
    });
    let batch = serde_json::json!({ "items": [
        { "identity": "spiffe://example.org/web", "key": { "csr": pem } },
        { "identity": "spiffe://example.org/db", "key": { "public_key": "MAA=" }, "lifetime": "1h" },
    ] });
    serde_json::from_value::<chancery_api::EnrollRequest>(token.clone())?;
    serde_json::from_value::<chancery_api::EnrollRequest>(pop.clone())?;
    serde_json::from_value::<chancery_api::BatchEnrollRequest>(batch.clone())?;
    write("enroll_request", "join-token", token.to_string())?;
    write("enroll_request", "x509-pop", pop.to_string())?;
    write("enroll_request", "batch", batch.to_string())
}
