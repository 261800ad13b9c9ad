//! A small authority in memory: keys, a log, certificates, revocation lists and exports of all that.

mod certificates;
mod export;
mod log_keys;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use chancery_entry::{
    Blob, Body, CrlDivision, CrlPublished, CrlShardPublished, Document, Entry, Genesis, Hold, HoldTarget,
    IdentityRegistration, Issuance, IssuerActivation, KeyChange, KeyPhase, KeyPurpose, ProfileChange,
    Release, Revocation, TokenBinding, TokenCreation, TokenSpend,
};
use chancery_merkle::LogSigners;
use chancery_types::{
    AssuranceLevel, CrlShard, Digest, EvidenceKind, Generation, IssuerEpoch, LineageId, RevocationReason,
    SerialNumber, SignatureAlgorithm, SpiffeId, SubjectName, Timestamp, TokenId, TrustDomain,
};
use chancery_x509::crl::{CrlSpec, RevokedCertificate};
use chancery_x509::{Certificate, Profile, PublicKey, StatusUrls, assemble};
use ring::signature::EcdsaKeyPair;

use certificates::{authority_certificate, issuer_certificate, reference_profile};
pub(crate) use certificates::{ecdsa_key, revocation_list, sign, spki};
pub(crate) use export::{seal, witness_key};
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

    /// The first entry of this kind.
    pub(crate) fn index_of(&self, is_wanted: fn(&Body) -> bool) -> usize {
        self.log.iter().position(|recorded| is_wanted(&recorded.entry.body)).unwrap()
    }

    pub(crate) fn clone_log(&self) -> Vec<Recorded> {
        self.log.clone()
    }

    pub(crate) fn time(&self, index: usize) -> Timestamp {
        self.log[index].entry.time
    }
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
