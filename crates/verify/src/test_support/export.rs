//! What a log publishes of itself: checkpoints, receipts, exports.

use chancery_api::{EXPORT_VERSION, ExportFooter, ExportHeader, ExportLine};
use chancery_merkle::{
    Checkpoint, Frontier, MemoryHashes, NoteKeyKind, NoteVerifier, Receipt, SignedNote, inclusion_proof,
    leaf_hash,
};
use chancery_types::Digest;
use data_encoding::BASE64;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::{Authority, ORIGIN, Recorded, domain, log_signer};

impl Authority {
    pub(crate) fn verifier(&self) -> NoteVerifier {
        log_signer(1).verifier().clone()
    }

    pub(super) fn grown(&self, size: usize) -> (Frontier, MemoryHashes) {
        let (mut frontier, mut hashes) = (Frontier::new(), MemoryHashes::default());
        for index in 0..size {
            let leaf = leaf_hash(&self.leaf(index));
            frontier.append(leaf, &mut |level, at, hash| hashes.push(level, at, hash));
        }
        (frontier, hashes)
    }

    /// The signed checkpoint of the first `size` entries.
    pub(crate) fn checkpoint(&self, size: usize) -> SignedNote {
        let checkpoint = Checkpoint::new(ORIGIN, size as u64, self.grown(size).0.root()).unwrap();
        self.log_signers.sign(&checkpoint.text()).unwrap()
    }

    pub(crate) fn receipt(&self, index: usize) -> String {
        let size = self.log.len();
        let proof = inclusion_proof(index as u64, size as u64, &self.grown(size).1).unwrap();
        Receipt { extra: None, index: index as u64, proof, checkpoint: self.checkpoint(size) }.to_string()
    }

    pub(crate) fn witnessed_receipt(&self, index: usize) -> String {
        let mut receipt: Receipt = self.receipt(index).parse().unwrap();
        let (key, verifier) = witness_key();
        let seconds = 1_795_219_300_u64;
        let message = format!("cosignature/v1\ntime {seconds}\n{}", receipt.checkpoint.text());
        let signature =
            [verifier.key_id().as_slice(), &seconds.to_be_bytes(), key.sign(message.as_bytes()).as_ref()]
                .concat();
        let line = format!("\u{2014} {} {}\n", verifier.name(), BASE64.encode(&signature));
        receipt.checkpoint.add_signatures(&line).unwrap();
        receipt.to_string()
    }

    pub(crate) fn header(&self) -> ExportHeader {
        ExportHeader {
            chancery_export: EXPORT_VERSION,
            origin: ORIGIN.to_owned(),
            vkey: self.log_signers.in_force()[0].verifier().vkey(),
            trust_domain: Some(domain().as_str().to_owned()),
            size: self.log.len() as u64,
            checkpoint: self.checkpoint(self.log.len()).to_string(),
            issuers: vec![BASE64.encode(self.issuer.der())],
            crls: self.crls.iter().map(|der| BASE64.encode(der)).collect(),
            created: Some(self.now()),
            selection: None,
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        lines_of(&self.log)
    }

    /// An export of another log under this authority's header and checkpoint.
    pub(crate) fn export_of(&self, log: &[Recorded]) -> String {
        seal(&self.header(), &lines_of(log))
    }

    pub(crate) fn export(&self) -> String {
        seal(&self.header(), &self.lines())
    }
}

pub(crate) fn witness_key() -> (Ed25519KeyPair, NoteVerifier) {
    let key = Ed25519KeyPair::from_seed_unchecked(&[2; 32]).unwrap();
    let public = key.public_key().as_ref().try_into().unwrap();
    let verifier = NoteVerifier::new("witness.example", NoteKeyKind::CosignatureV1, public).unwrap();
    (key, verifier)
}

fn lines_of(log: &[Recorded]) -> Vec<String> {
    let line = |(index, recorded): (usize, &Recorded)| {
        let leaf = recorded.entry.encode().unwrap();
        let signature = recorded.signature.as_ref().map(|signature| BASE64.encode(signature));
        let line = ExportLine {
            index: index as u64,
            leaf: &BASE64.encode(&leaf),
            hash: leaf_hash(&leaf),
            view: &recorded.entry,
            signature: signature.as_deref(),
        };
        serde_json::to_string(&line).unwrap()
    };
    log.iter().enumerate().map(line).collect()
}

/// The text of an export of these lines.
pub(crate) fn seal(header: &ExportHeader, lines: &[String]) -> String {
    let mut text = serde_json::to_string(header).unwrap() + "\n";
    for line in lines {
        text += line;
        text += "\n";
    }
    let footer = ExportFooter {
        chancery_export_end: EXPORT_VERSION,
        entries: lines.len() as u64,
        sha256: Digest::of(text.as_bytes()).to_string(),
    };
    text + &serde_json::to_string(&footer).unwrap() + "\n"
}
