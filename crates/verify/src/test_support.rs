//! A small authority in memory: keys, a log, certificates, revocation lists and exports of all that.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use chancery_api::{EXPORT_VERSION, ExportFooter, ExportHeader, ExportLine};
use chancery_entry::{
    Blob, Body, CrlDivision, CrlPublished, CrlShardPublished, Document, Entry, Genesis, Hold, HoldTarget,
    IdentityRegistration, Issuance, IssuerActivation, KeyChange, KeyPhase, KeyPurpose, ProfileChange,
    Release, Revocation, TokenBinding, TokenCreation, TokenSpend,
};
use chancery_merkle::{
    Checkpoint, Frontier, LogSigners, MemoryHashes, NoteKeyKind, NoteVerifier, Receipt, SignedNote,
    inclusion_proof, leaf_hash,
};
use chancery_types::{
    AssuranceLevel, CrlShard, Digest, EvidenceKind, Generation, IssuerEpoch, LineageId, RevocationReason,
    SerialNumber, SignatureAlgorithm, SpiffeId, SubjectName, Timestamp, TokenId, TrustDomain,
};
use chancery_x509::crl::{CrlSpec, RevokedCertificate};
use chancery_x509::{
    BasicConstraints, Certificate, CertificateSpec, DistinguishedName, KeyUsages, Profile, PublicKey,
    StatusUrls, Validity, assemble,
};
use data_encoding::BASE64;
use der::asn1::{OctetString, UtcTime};
use der::{Decode, Encode};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::CrlNumber;

mod log_keys;

pub(crate) use log_keys::{log_keys, log_signer, stated};

pub(crate) const ORIGIN: &str = "example.org/ledger";
pub(crate) const EPOCH: IssuerEpoch = IssuerEpoch(1);
/// What URLs of status begin with.
pub(crate) const BASE: &str = "http://ca.example.org";
/// 2026-11-21T00:00:00Z.
pub(crate) const START: i64 = 1_795_219_200_000;

/// One entry and, beside an issuance, the signature.
#[derive(Clone)]
pub(crate) struct Recorded {
    pub(crate) entry: Entry,
    pub(crate) signature: Option<Vec<u8>>,
}

pub(crate) struct Authority {
    pub(crate) log_signers: Arc<LogSigners>,
    root_key: EcdsaKeyPair,
    root: Certificate,
    pub(crate) issuer_key: EcdsaKeyPair,
    pub(crate) issuer: Certificate,
    profile: Profile,
    pub(crate) log: Vec<Recorded>,
    now: i64,
    counter: u64,
    crl_number: u64,
    pub(crate) shards: Option<u16>,
    pub(crate) crls: Vec<Vec<u8>>,
    lineages: BTreeMap<String, (LineageId, Generation)>,
}

impl Authority {
    /// A root, an active issuer, the workload profile, nobody enrolled.
    pub(crate) fn new() -> Self {
        let (root_key, issuer_key) = (ecdsa_key(), ecdsa_key());
        let root = authority_certificate("Example Root", &root_key, &root_key, None);
        let issuer = issuer_certificate(&root, &root_key, &issuer_key);
        let text = reference_profile("workload");
        let profile = Profile::from_toml(&text, &domain()).unwrap();
        let mut authority = Self {
            log_signers: LogSigners::new(ORIGIN, vec![log_signer(1)]),
            root_key,
            root: root.clone(),
            issuer_key,
            issuer,
            profile,
            log: Vec::new(),
            now: START,
            counter: 0,
            crl_number: 0,
            shards: None,
            crls: Vec::new(),
            lineages: BTreeMap::new(),
        };
        let verifier_key = authority.verifier().vkey();
        authority.record(Body::Genesis(Genesis {
            trust_domain: domain().id(),
            origin: ORIGIN.to_owned(),
            verifier_key,
            root: Blob(root.der().to_vec()),
        }));
        let certificate = Blob(authority.issuer.der().to_vec());
        authority.record(Body::IssuerActivated(IssuerActivation { epoch: EPOCH, certificate, by: by() }));
        authority.record(Body::ProfileChanged(ProfileChange {
            name: "workload".to_owned(),
            profile_hash: Digest::of(text.as_bytes()),
            text,
            by: by(),
        }));
        authority
    }

    /// Brings another root, for which the first one vouches or nobody does, and an issuer below it that signs from now on;
    /// returns where the root and the issuer are recorded.
    pub(crate) fn follow_root(&mut self, is_vouched_for: bool) -> (usize, usize) {
        let (key, issuer_key) = (ecdsa_key(), ecdsa_key());
        let root = authority_certificate("Example Root 2", &key, &key, None);
        let mut content = root.der().to_vec();
        if is_vouched_for {
            let voucher = authority_certificate("Example Root 2", &key, &self.root_key, Some(&self.root));
            content.extend_from_slice(voucher.der());
        }
        let issuer = issuer_certificate(&root, &key, &issuer_key);
        let at = self.record(Body::KeyChanged(KeyChange {
            purpose: KeyPurpose::Root,
            key: root.fingerprint(),
            content: Blob(content),
            phase: KeyPhase::Published,
            by: by(),
            note: String::new(),
        }));
        let activation =
            IssuerActivation { epoch: IssuerEpoch(2), certificate: Blob(issuer.der().to_vec()), by: by() };
        (at, self.record(Body::IssuerActivated(activation)))
    }

    /// Another issuer below the root, of which nothing is on record.
    pub(crate) fn next_issuer(&self) -> IssuerActivation {
        let issuer = issuer_certificate(&self.root, &self.root_key, &ecdsa_key());
        IssuerActivation { epoch: IssuerEpoch(2), certificate: Blob(issuer.der().to_vec()), by: by() }
    }

    pub(crate) fn len(&self) -> usize {
        self.log.len()
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    pub(crate) fn wait(&mut self, seconds: i64) {
        self.now += seconds * 1000;
    }

    /// Appends an entry a second after the last; returns its index.
    pub(crate) fn record(&mut self, body: impl Into<Body>) -> usize {
        self.wait(1);
        self.record_now(body)
    }

    pub(crate) fn record_now(&mut self, body: impl Into<Body>) -> usize {
        self.log.push(Recorded { entry: Entry::new(self.now(), body), signature: None });
        self.log.len() - 1
    }

    /// Registers an identity, makes a token for it, spends it; returns the index of the issuance.
    pub(crate) fn enroll(&mut self, name: &str) -> usize {
        let identity = identity(name);
        self.record(Body::IdentityRegistered(IdentityRegistration {
            identity: identity.clone(),
            document: Document(format!(r#"{{"spiffe_id":"{identity}","owner":"ada"}}"#)),
            by: by(),
        }));
        let token = TokenId::from_array(*Digest::of(name.as_bytes()).as_bytes().first_chunk().unwrap());
        let expires = Timestamp::from_millis(self.now + 3_600_000);
        self.record(Body::TokenCreated(TokenCreation {
            token,
            secret_hash: Digest::of(b"secret"),
            binding: TokenBinding::Identity(identity.clone()),
            key: None,
            expires,
            by: by(),
        }));
        let lineage = LineageId::from_array(*Digest::of(token.as_bytes()).as_bytes().first_chunk().unwrap());
        self.lineages.insert(name.to_owned(), (lineage, Generation(0)));
        let index = self.issue(&identity, lineage, Generation(0), EvidenceKind::JoinToken);
        let serial = self.serial(index);
        self.record(Body::TokenSpent(TokenSpend { token, serial }));
        index
    }

    /// Renews; returns the index of the issuance.
    pub(crate) fn renew(&mut self, name: &str) -> usize {
        let (lineage, generation) = self.lineages[name];
        let generation = generation.next();
        self.lineages.insert(name.to_owned(), (lineage, generation));
        self.issue(&identity(name), lineage, generation, EvidenceKind::Renewal)
    }

    pub(crate) fn lineage(&self, name: &str) -> LineageId {
        self.lineages[name].0
    }

    pub(crate) fn issue(
        &mut self,
        identity: &SpiffeId,
        lineage: LineageId,
        generation: Generation,
        evidence: EvidenceKind,
    ) -> usize {
        self.counter += 1;
        self.wait(1);
        let random = *Digest::of(&self.counter.to_be_bytes()).as_bytes().first_chunk().unwrap();
        let serial = SerialNumber::compose(EPOCH, self.counter, random).unwrap();
        let public_key = PublicKey::from_spki_der(&spki(&ecdsa_key())).unwrap();
        let issuer_life = self.issuer.tbs();
        let validity = self.profile.validity(
            self.now(),
            self.profile.lifetime().default,
            issuer_life.not_before(),
            issuer_life.not_after(),
        );
        let names = [SubjectName::from_str(identity.as_str()).unwrap()];
        let list = match self.shards {
            Some(shards) => CrlShard::containing(serial, shards).url(BASE, EPOCH),
            None => format!("{BASE}/crl"),
        };
        let particulars = chancery_x509::Issuance {
            serial: serial.as_bytes(),
            issuer: &self.issuer,
            signature_algorithm: SignatureAlgorithm::EcdsaSha256,
            validity,
            public_key: &public_key,
            names: &names,
            subject: None,
            urls: StatusUrls {
                crl: Some(&list),
                ocsp: Some("http://ca.example.org/ocsp"),
                ca_issuers: Some("http://ca.example.org/issuer"),
            },
        };
        let tbs = self.profile.specify(&particulars).unwrap().to_tbs_der();
        let signature = sign(&self.issuer_key, &tbs);
        let index = self.record_now(Issuance {
            serial,
            identity: identity.clone(),
            lineage,
            generation,
            not_before: validity.not_before,
            not_after: validity.not_after,
            key: Digest::of(public_key.spki_der()),
            profile: "workload".to_owned(),
            profile_hash: self.profile.hash(),
            requester: "10.0.0.1".to_owned(),
            evidence,
            assurance: AssuranceLevel::SharedSecret,
            evidence_hash: Digest::of(b"evidence"),
            decision: Document(r#"{"outcome":"grant"}"#.to_owned()),
            idempotency: None,
            tbs: Blob(tbs),
        });
        self.log[index].signature = Some(signature);
        index
    }

    pub(crate) fn issuance(&mut self, index: usize) -> &mut Issuance {
        match &mut self.log[index].entry.body {
            Body::Issuance(issuance) => issuance,
            other => panic!("entry {index} is {}", other.kind()),
        }
    }

    /// Replaces the TBS of an issuance and signs it anew.
    pub(crate) fn resign(&mut self, index: usize, tbs: Vec<u8>) {
        self.log[index].signature = Some(sign(&self.issuer_key, &tbs));
        self.issuance(index).tbs = Blob(tbs);
    }

    pub(crate) fn serial(&self, index: usize) -> SerialNumber {
        match &self.log[index].entry.body {
            Body::Issuance(issuance) => issuance.serial,
            other => panic!("entry {index} is {}", other.kind()),
        }
    }

    /// Indexes of all issuances.
    pub(crate) fn issuances(&self) -> Vec<usize> {
        let is_issuance = |index: &usize| matches!(self.log[*index].entry.body, Body::Issuance(_));
        (0..self.log.len()).filter(is_issuance).collect()
    }

    pub(crate) fn revoke(&mut self, index: usize, reason: RevocationReason) -> usize {
        let serial = self.serial(index);
        self.record(Body::Revocation(Revocation { serial, reason, by: by(), note: String::new() }))
    }

    pub(crate) fn hold(&mut self, target: HoldTarget) -> usize {
        self.record(Body::Hold(Hold { target, cause: "operator".into(), by: by(), note: String::new() }))
    }

    pub(crate) fn release(&mut self, target: HoldTarget) -> usize {
        self.record(Body::Release(Release { target, by: by(), note: String::new() }))
    }

    /// Makes a list with these lines, five minutes later, and records it.
    pub(crate) fn publish(&mut self, lines: &[(SerialNumber, Timestamp, RevocationReason)]) -> usize {
        self.publish_with(lines, |number, this_update, issuer| {
            revocation_list(issuer, number, this_update, lines)
        })
    }

    /// The same with a list of the caller's making: the bytes to sign, by number, thisUpdate and issuer.
    pub(crate) fn publish_with(
        &mut self,
        lines: &[(SerialNumber, Timestamp, RevocationReason)],
        make: impl FnOnce(u64, Timestamp, &Certificate) -> Vec<u8>,
    ) -> usize {
        self.wait(300);
        self.crl_number += 1;
        let tbs = make(self.crl_number, self.now(), &self.issuer);
        let der = self.signed(&tbs);
        let index = self.record(Body::CrlPublished(CrlPublished {
            epoch: EPOCH,
            number: self.crl_number,
            this_update: self.now(),
            next_update: Timestamp::from_millis(self.now + 86_400_000),
            entries: lines.len() as u64,
            hash: Digest::of(&der),
        }));
        self.crls = vec![der];
        index
    }

    /// From here on certificates name one of so many lists.
    pub(crate) fn divide(&mut self, shards: u16) -> usize {
        self.shards = Some(shards);
        self.record(Body::CrlDivided(CrlDivision { epoch: EPOCH, shards, base: BASE.into() }))
    }

    /// Makes the list of one part, records it, and adds it to those that are exported.
    pub(crate) fn publish_part(
        &mut self,
        shard: CrlShard,
        lines: &[(SerialNumber, Timestamp, RevocationReason)],
    ) -> usize {
        self.crl_number += 1;
        let line = |(serial, revoked_at, reason): &(SerialNumber, Timestamp, RevocationReason)| {
            (*serial.as_bytes(), *revoked_at, *reason)
        };
        let copies: Vec<_> = lines.iter().map(line).collect();
        let entries = copies.iter().map(|(serial, revoked_at, reason)| RevokedCertificate {
            serial,
            revoked_at: *revoked_at,
            reason: *reason,
        });
        let spec = CrlSpec {
            issuer: &self.issuer,
            signature_algorithm: SignatureAlgorithm::EcdsaSha256,
            number: self.crl_number,
            this_update: self.now(),
            next_update: self.now(),
            distribution_points: &[shard.url(BASE, EPOCH)],
        };
        let der = self.signed(&spec.to_tbs_der(entries.collect()).unwrap());
        let index = self.record(Body::CrlShardPublished(CrlShardPublished {
            epoch: EPOCH,
            shard,
            number: self.crl_number,
            this_update: self.now(),
            next_update: self.now(),
            entries: lines.len() as u64,
            hash: Digest::of(&der),
        }));
        self.crls.push(der);
        index
    }

    /// A list or certificate of these bytes, signed by the issuer.
    pub(crate) fn signed(&self, tbs: &[u8]) -> Vec<u8> {
        assemble(tbs, SignatureAlgorithm::EcdsaSha256, &sign(&self.issuer_key, tbs))
    }

    /// The list line that a revocation entry asks for.
    pub(crate) fn line(&self, revocation: usize) -> (SerialNumber, Timestamp, RevocationReason) {
        match &self.log[revocation].entry {
            Entry { time, body: Body::Revocation(revocation) } => {
                (revocation.serial, *time, revocation.reason)
            }
            other => panic!("entry {revocation} is {}", other.body.kind()),
        }
    }

    pub(crate) fn leaf(&self, index: usize) -> Vec<u8> {
        self.log[index].entry.encode().unwrap()
    }

    pub(crate) fn certificate(&self, index: usize) -> Vec<u8> {
        let Body::Issuance(issuance) = &self.log[index].entry.body else { panic!("not an issuance") };
        let signature = self.log[index].signature.as_ref().unwrap();
        assemble(&issuance.tbs.0, SignatureAlgorithm::EcdsaSha256, signature)
    }

    pub(crate) fn verifier(&self) -> NoteVerifier {
        log_signer(1).verifier().clone()
    }

    fn grown(&self, size: usize) -> (Frontier, MemoryHashes) {
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

    /// The first entry of this kind.
    pub(crate) fn index_of(&self, is_wanted: fn(&Body) -> bool) -> usize {
        self.log.iter().position(|recorded| is_wanted(&recorded.entry.body)).unwrap()
    }

    pub(crate) fn clone_log(&self) -> Vec<Recorded> {
        self.log.clone()
    }

    /// An export of another log under this authority's header and checkpoint.
    pub(crate) fn export_of(&self, log: &[Recorded]) -> String {
        seal(&self.header(), &lines_of(log))
    }

    pub(crate) fn export(&self) -> String {
        seal(&self.header(), &self.lines())
    }

    pub(crate) fn time(&self, index: usize) -> Timestamp {
        self.log[index].entry.time
    }
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

pub(crate) fn identity(name: &str) -> SpiffeId {
    domain().member(&format!("/{name}")).unwrap()
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

pub(crate) fn by() -> String {
    "operator:ada".to_owned()
}

pub(crate) fn witness_key() -> (Ed25519KeyPair, NoteVerifier) {
    let key = Ed25519KeyPair::from_seed_unchecked(&[2; 32]).unwrap();
    let public = key.public_key().as_ref().try_into().unwrap();
    let verifier = NoteVerifier::new("witness.example", NoteKeyKind::CosignatureV1, public).unwrap();
    (key, verifier)
}

pub(crate) fn ecdsa_key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).unwrap()
}

pub(crate) fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}

/// RFC 5480: the SubjectPublicKeyInfo of a P-256 key up to the point.
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

pub(crate) fn spki(key: &EcdsaKeyPair) -> Vec<u8> {
    [P256_SPKI, key.public_key().as_ref()].concat()
}

fn reference_profile(name: &str) -> String {
    let path = format!("{}/../../ca-config/profiles/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// A root, or the certificate by which `issuer`, whose key is `signer`, vouches for it.
fn authority_certificate(
    name: &str,
    key: &EcdsaKeyPair,
    signer: &EcdsaKeyPair,
    issuer: Option<&Certificate>,
) -> Certificate {
    let public_key = PublicKey::from_spki_der(&spki(key)).unwrap();
    let subject = DistinguishedName::common_name(name).unwrap();
    let above = issuer.map(Certificate::tbs);
    let name = above.map_or(subject.der(), |issuer| issuer.subject_der()).to_vec();
    let names = [domain().id().into()];
    let start = Timestamp::from_millis(START - 86_400_000);
    let tbs = CertificateSpec {
        serial: &[1],
        signature_algorithm: SignatureAlgorithm::EcdsaSha256,
        issuer: &name,
        validity: Validity {
            not_before: start,
            not_after: Timestamp::from_millis(START + 3650 * 86_400_000),
        },
        subject,
        public_key: &public_key,
        authority_key_id: above.and_then(|issuer| issuer.subject_key_id()),
        names: &names,
        key_usages: KeyUsages::AUTHORITY,
        extended_key_usages: &[],
        authority: Some(BasicConstraints { is_authority: true, path_length: None }),
        name_constraints: None,
        crl_url: None,
        ocsp_url: None,
        ca_issuers_url: None,
        no_rev_avail: false,
        ocsp_nocheck: false,
    }
    .to_tbs_der();
    Certificate::from_der(&assemble(&tbs, SignatureAlgorithm::EcdsaSha256, &sign(signer, &tbs))).unwrap()
}

fn issuer_certificate(root: &Certificate, root_key: &EcdsaKeyPair, key: &EcdsaKeyPair) -> Certificate {
    let profile = Profile::from_toml(&reference_profile("issuer"), &domain()).unwrap();
    let public_key = PublicKey::from_spki_der(&spki(key)).unwrap();
    let now = Timestamp::from_millis(START);
    let lifetime = profile.lifetime().default;
    let validity = profile.validity(now, lifetime, root.tbs().not_before(), root.tbs().not_after());
    let subject = DistinguishedName::common_name("Example Issuer 1").unwrap();
    let particulars = chancery_x509::Issuance {
        serial: &[2],
        issuer: root,
        signature_algorithm: SignatureAlgorithm::EcdsaSha256,
        validity,
        public_key: &public_key,
        names: &[SubjectName::from_str("spiffe://example.org").unwrap()],
        subject: Some(&subject),
        urls: StatusUrls::default(),
    };
    let tbs = profile.specify(&particulars).unwrap().to_tbs_der();
    Certificate::from_der(&assemble(&tbs, SignatureAlgorithm::EcdsaSha256, &sign(root_key, &tbs))).unwrap()
}

/// The bytes to sign of a full revocation list, built with other code than the authority's own.
pub(crate) fn revocation_list(
    issuer: &Certificate,
    number: u64,
    this_update: Timestamp,
    lines: &[(SerialNumber, Timestamp, RevocationReason)],
) -> Vec<u8> {
    let time = |moment: Timestamp| {
        let since = std::time::Duration::from_secs(u64::try_from(moment.seconds()).unwrap());
        x509_cert::time::Time::UtcTime(UtcTime::from_unix_duration(since).unwrap())
    };
    let extension = |extn_id, value: Vec<u8>| Extension {
        extn_id,
        critical: false,
        extn_value: OctetString::new(value).unwrap(),
    };
    let line = |(serial, date, reason): &(SerialNumber, Timestamp, RevocationReason)| RevokedCert {
        serial_number: x509_cert::serial_number::SerialNumber::new(serial.as_bytes()).unwrap(),
        revocation_date: time(*date),
        crl_entry_extensions: (*reason != RevocationReason::Unspecified).then(|| {
            vec![extension(const_oid::db::rfc5280::ID_CE_CRL_REASONS, vec![0x0a, 1, reason.code()])]
        }),
    };
    let number = CrlNumber(der::asn1::Uint::new(&number.to_be_bytes()[7..]).unwrap());
    let algorithm = SignatureAlgorithm::EcdsaSha256;
    let tbs: TbsCertList = TbsCertList {
        version: x509_cert::Version::V2,
        signature: Decode::from_der(algorithm.algorithm_identifier()).unwrap(),
        issuer: Decode::from_der(issuer.tbs().subject_der()).unwrap(),
        this_update: time(this_update),
        next_update: Some(time(Timestamp::from_millis(this_update.millis() + 86_400_000))),
        revoked_certificates: (!lines.is_empty()).then(|| lines.iter().map(line).collect()),
        crl_extensions: Some(vec![extension(
            const_oid::db::rfc5280::ID_CE_CRL_NUMBER,
            number.to_der().unwrap(),
        )]),
    };
    tbs.to_der().unwrap()
}
