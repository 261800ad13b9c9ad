//! What tests, benches and examples propose: entries as the road makes them, from small numbers.

#![allow(dead_code, reason = "each includer uses its part")]

use std::sync::Arc;
use std::time::Duration;

use chancery_entry::{
    Blob, Body, ChangeProposal, ChangeStep, CrlDivision, CrlPublished, CrlShardPublished, Document, Entry,
    Genesis, Hold, HoldTarget, IdentityChange, IdentityRegistration, Issuance, IssuerActivation,
    IssuerRetirement, IssuerTaint, KeyChange, KeyPhase, KeyPurpose, OperatorAction, PolicyChange,
    ProfileChange, Release, Revocation, RotationWish, StatusSetPublished, Step, TaintStep,
    TemplateRegistration, TemplateRemoval, Tidy, TokenBinding, TokenCreation, TokenRevocation, TokenSpend,
    Wanted,
};
use chancery_ledger::{Precondition, Proposal};
use chancery_merkle::{Ed25519NoteSigner, LogSigners, NoteKeyKind, NoteVerifier};
use chancery_types::{
    AssuranceLevel, CrlShard, Digest, EvidenceKind, Generation, Identity, IssuerEpoch, LineageId,
    RevocationReason, SerialNumber, SpiffeId, Timestamp, TokenId,
};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// The origin of every log made here.
pub(crate) const ORIGIN: &str = "example.org/log";
/// The issuer of every certificate made here.
pub(crate) const ISSUER: IssuerEpoch = IssuerEpoch(1);

/// The checkpoint key of every log made here.
pub(crate) fn signer() -> Arc<LogSigners> {
    signer_of(ORIGIN, 7)
}

/// Another checkpoint key, or one of another log.
pub(crate) fn signer_of(origin: &str, seed: u8) -> Arc<LogSigners> {
    let (key, public) = key(seed);
    let sign = move |message: &[u8]| Ok::<_, std::io::Error>(key.sign(message).as_ref().to_vec());
    LogSigners::of(Ed25519NoteSigner::new(origin, public, sign).expect("the origin is a key name"))
}

/// What verifies the checkpoints of every log made here.
pub(crate) fn verifier() -> NoteVerifier {
    NoteVerifier::new(ORIGIN, NoteKeyKind::Ed25519, key(7).1).expect("the origin is a key name")
}

fn key(seed: u8) -> (Ed25519KeyPair, [u8; 32]) {
    let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("any 32 bytes are a seed");
    let public = key.public_key().as_ref().try_into().expect("Ed25519 keys have 32 bytes");
    (key, public)
}

/// The first entry of every log made here.
pub(crate) fn genesis() -> Proposal {
    let body = Body::Genesis(Genesis {
        trust_domain: "spiffe://example.org".parse().expect("a SPIFFE ID"),
        origin: ORIGIN.into(),
        verifier_key: verifier().vkey(),
        root: Blob(vec![0x30; 400]),
    });
    propose(vec![Precondition::Empty], now(), vec![body])
}

/// A proposal of these facts at one time.
pub(crate) fn propose(requires: Vec<Precondition>, time: Timestamp, bodies: Vec<Body>) -> Proposal {
    let entries = bodies.into_iter().map(|body| Entry::new(time, body)).collect();
    Proposal::new(requires, entries).expect("the entries are short")
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_seconds(1_795_000_000)
}

/// The n-th identity.
pub(crate) fn identity(number: u64) -> SpiffeId {
    format!("spiffe://example.org/ns/shop/sa/web-{number}").parse().expect("a SPIFFE ID")
}

/// Registers the n-th identity, which must be unused.
pub(crate) fn registration(number: u64) -> Proposal {
    let id = identity(number);
    let document = Identity::new(id.clone(), "ada@example.org");
    let body = Body::IdentityRegistered(identity_document(&document));
    propose(vec![Precondition::IdentityUnused(id)], now(), vec![body])
}

pub(crate) fn identity_document(document: &Identity) -> IdentityRegistration {
    IdentityRegistration {
        identity: document.spiffe_id.clone(),
        document: Document(serde_json::to_string(document).expect("identities become JSON")),
        by: BY.into(),
    }
}

/// Activates [`ISSUER`].
pub(crate) fn issuer() -> Proposal {
    propose(vec![Precondition::IssuerUnused(ISSUER)], now(), vec![activation(ISSUER)])
}

pub(crate) fn activation(epoch: IssuerEpoch) -> Body {
    Body::IssuerActivated(IssuerActivation { epoch, certificate: Blob(vec![0x30; 500]), by: BY.into() })
}

/// 32 bytes that belong to this number and purpose.
pub(crate) fn digest(purpose: &str, number: u64) -> Digest {
    Digest::of(format!("{purpose} {number}").as_bytes())
}

/// The serial of the n-th certificate.
pub(crate) fn serial(counter: u64) -> SerialNumber {
    let mut random = [0; 8];
    random.copy_from_slice(&digest("serial", counter).as_bytes()[..8]);
    SerialNumber::compose(ISSUER, counter, random).expect("48 bits are enough")
}

/// The lineage that the n-th certificate begins: lineages sort by the time of their beginning.
pub(crate) fn lineage(counter: u64) -> LineageId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&now().millis().to_be_bytes()[2..]);
    bytes[2..6].copy_from_slice(&u32::try_from(counter).expect("not so many").to_be_bytes());
    bytes[6..].copy_from_slice(&digest("lineage", counter).as_bytes()[..10]);
    LineageId::from_array(bytes)
}

/// The n-th certificate as an enrolment of this identity, about 1.1 KiB as an entry.
pub(crate) fn issuance(counter: u64, identity: SpiffeId) -> Issuance {
    let begins = now() + Duration::from_millis(counter);
    let mut tbs = vec![0x5a; 620];
    tbs[..32].copy_from_slice(digest("key", counter).as_bytes());
    Issuance {
        serial: serial(counter),
        identity,
        lineage: lineage(counter),
        generation: Generation(0),
        not_before: begins,
        not_after: begins + Duration::from_secs(3600),
        key: digest("key", counter),
        profile: "workload".into(),
        profile_hash: digest("profile", 0),
        requester: "192.0.2.7".into(),
        evidence: EvidenceKind::JoinToken,
        assurance: AssuranceLevel::SharedSecret,
        evidence_hash: digest("evidence", counter),
        decision: Document(DECISION.into()),
        idempotency: None,
        tbs: Blob(tbs),
    }
}

/// What an enrolment requires and records.
pub(crate) fn enrolment(issuance: Issuance) -> Proposal {
    let mut requires = vec![
        Precondition::SerialUnused(issuance.serial),
        Precondition::LineageUnused(issuance.lineage),
        Precondition::IdentityActive(issuance.identity.clone()),
        Precondition::IssuerActive(issuance.serial.epoch()),
    ];
    requires.extend(issuance.idempotency.map(Precondition::IdempotencyUnused));
    propose(requires, issuance.not_before, vec![issuance.into()])
}

/// A renewal of a certificate, as the n-th certificate.
pub(crate) fn renewal(counter: u64, before: &Issuance) -> Issuance {
    Issuance {
        lineage: before.lineage,
        generation: before.generation.next(),
        evidence: EvidenceKind::Renewal,
        ..issuance(counter, before.identity.clone())
    }
}

/// What a renewal requires and records.
pub(crate) fn renewing(issuance: Issuance) -> Proposal {
    let before = Generation(issuance.generation.0 - 1);
    let requires = vec![
        Precondition::SerialUnused(issuance.serial),
        Precondition::LineageAt { lineage: issuance.lineage, generation: before },
        Precondition::IdentityActive(issuance.identity.clone()),
        Precondition::IssuerActive(issuance.serial.epoch()),
    ];
    propose(requires, issuance.not_before, vec![issuance.into()])
}

/// The n-th join token, good for an hour.
pub(crate) fn token(number: u64) -> (TokenId, Proposal) {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest("token", number).as_bytes()[..16]);
    let token = TokenId::from_array(bytes);
    let body = Body::TokenCreated(TokenCreation {
        token,
        secret_hash: digest("secret", number),
        binding: TokenBinding::Identity(identity(number)),
        key: None,
        expires: now() + Duration::from_secs(3600),
        by: BY.into(),
    });
    (token, propose(vec![], now(), vec![body]))
}

/// Spends a token on a certificate, if it can be spent at this time.
pub(crate) fn spend(token: TokenId, counter: u64, at: Timestamp) -> Proposal {
    let body = Body::TokenSpent(TokenSpend { token, serial: serial(counter) });
    propose(vec![Precondition::TokenUsable { token, now: at }], at, vec![body])
}

pub(crate) fn revoke_token(token: TokenId) -> Proposal {
    let body = Body::TokenRevoked(TokenRevocation { token, by: BY.into() });
    propose(vec![Precondition::TokenOpen(token)], now(), vec![body])
}

pub(crate) fn revoke(serial: SerialNumber, reason: RevocationReason, at: Timestamp) -> Proposal {
    let body = Body::Revocation(Revocation { serial, reason, by: BY.into(), note: String::new() });
    propose(vec![Precondition::Revocable { serial, reason }], at, vec![body])
}

pub(crate) fn hold(target: HoldTarget, at: Timestamp) -> Proposal {
    let body = Body::Hold(Hold {
        target: target.clone(),
        cause: "operator".into(),
        by: BY.into(),
        note: String::new(),
    });
    propose(vec![Precondition::Holdable(target)], at, vec![body])
}

pub(crate) fn release(target: HoldTarget, at: Timestamp) -> Proposal {
    let body = Body::Release(Release { target: target.clone(), by: BY.into(), note: String::new() });
    propose(vec![Precondition::Releasable(target)], at, vec![body])
}

pub(crate) fn identity_change(identity: SpiffeId) -> IdentityChange {
    IdentityChange { identity, by: BY.into(), note: String::new() }
}

pub(crate) fn crl(epoch: IssuerEpoch, previous: Option<u64>, number: u64) -> Proposal {
    let body = Body::CrlPublished(CrlPublished {
        epoch,
        number,
        this_update: now(),
        next_update: now() + Duration::from_secs(3600),
        entries: number % 7,
        hash: digest("crl", number),
    });
    propose(vec![Precondition::CrlFollows { epoch, shard: None, previous, number }], now(), vec![body])
}

/// The same for one of sixteen parts.
pub(crate) fn shard_crl(epoch: IssuerEpoch, shard: u16, previous: Option<u64>, number: u64) -> Proposal {
    let shard = CrlShard::new(shard, 16).unwrap();
    let body = Body::CrlShardPublished(CrlShardPublished {
        epoch,
        shard,
        number,
        this_update: now(),
        next_update: now() + Duration::from_secs(3600),
        entries: number % 7,
        hash: digest("crl", number),
    });
    propose(vec![Precondition::CrlFollows { epoch, shard: Some(shard), previous, number }], now(), vec![body])
}

pub(crate) fn division(epoch: IssuerEpoch, shards: u16) -> Proposal {
    let base = "http://ca.example.org".to_owned();
    propose(vec![], now(), vec![Body::CrlDivided(CrlDivision { epoch, shards, base })])
}

pub(crate) fn status_set(previous: Option<Digest>, sequence: u64) -> Proposal {
    let body = Body::StatusSetPublished(StatusSetPublished {
        sequence,
        made: now(),
        entries: sequence % 5,
        hash: digest("set", sequence),
        previous,
    });
    propose(vec![Precondition::StatusSetFollows { previous, sequence }], now(), vec![body])
}

/// Proposals of every kind over few names, so that they meet each other; many of them are refused.
///
/// The same seed gives the same proposals, whatever becomes of them.
#[derive(Debug, Clone)]
pub(crate) struct Mix {
    state: u64,
    counter: u64,
    issued: Vec<Issuance>,
}

impl Mix {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, counter: 0, issued: Vec::new() }
    }

    /// A number below this (SplitMix64, Steele, Lea, Flood 2014).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }

    /// Clocks differ between proposers and step back: so does time here.
    fn time(&mut self) -> Timestamp {
        now() + Duration::from_secs(self.below(20_000))
    }

    fn identity(&mut self) -> SpiffeId {
        identity(self.below(6))
    }

    fn issuer(&mut self) -> IssuerEpoch {
        IssuerEpoch(1 + u16::try_from(self.below(3)).expect("below 3"))
    }

    fn issuance(&mut self) -> Option<Issuance> {
        let place = self.below(self.issued.len() as u64 + 1);
        self.issued.get(usize::try_from(place).expect("a place in memory")).cloned()
    }

    fn target(&mut self) -> HoldTarget {
        let Some(issuance) = self.issuance() else { return HoldTarget::Certificate(serial(99_999)) };
        match self.below(2) {
            0 => HoldTarget::Certificate(issuance.serial),
            _ => HoldTarget::Lineage(issuance.lineage),
        }
    }

    fn reason(&mut self) -> RevocationReason {
        [RevocationReason::Superseded, RevocationReason::KeyCompromise][usize::from(self.below(2) == 0)]
    }

    fn name(&mut self) -> String {
        format!("name-{}", self.below(3))
    }

    /// A new certificate: an enrolment, or a renewal of some earlier one.
    fn enrol_or_renew(&mut self) -> Proposal {
        self.counter += 1;
        let at = self.time();
        let before = if self.below(2) == 0 { self.issuance() } else { None };
        let epoch = self.issuer();
        let mut issuance = match &before {
            Some(before) => renewal(self.counter, before),
            None => issuance(self.counter, self.identity()),
        };
        issuance.serial = SerialNumber::compose(epoch, self.counter, [9; 8]).expect("48 bits are enough");
        issuance.not_before = at;
        issuance.not_after = at + Duration::from_secs(self.below(10_000));
        issuance.key = digest("key", self.below(10));
        if self.below(4) == 0 && before.is_none() {
            issuance.evidence = EvidenceKind::Workload;
            issuance.requester = identity(self.below(3)).to_string();
        }
        if self.below(3) == 0 {
            issuance.idempotency = Some(digest("idempotency", self.below(40)));
        }
        self.issued.push(issuance.clone());
        match before {
            Some(_) => renewing(issuance),
            None => enrolment(issuance),
        }
    }

    pub(crate) fn proposal(&mut self) -> Proposal {
        let (at, id, name, epoch) = (self.time(), self.identity(), self.name(), self.issuer());
        match self.below(27) {
            0 => registration(self.below(6)),
            1 => {
                let mut document = Identity::new(id.clone(), &format!("owner-{}", self.below(3)));
                document.team = self.name();
                let body = Body::IdentityChanged(identity_document(&document));
                propose(vec![Precondition::IdentityRegistered(id)], at, vec![body])
            }
            2 => {
                let body = Body::IdentityHeld(identity_change(id.clone()));
                propose(vec![Precondition::IdentityActive(id)], at, vec![body])
            }
            3 => {
                let body = Body::IdentityReleased(identity_change(id.clone()));
                propose(vec![Precondition::IdentityHeld(id)], at, vec![body])
            }
            4 if self.below(8) == 0 => {
                let body = Body::IdentityRetired(identity_change(id.clone()));
                propose(vec![Precondition::IdentityRegistered(id)], at, vec![body])
            }
            5 => token(self.below(30)).1,
            6 => spend(token(self.below(30)).0, self.counter, at),
            7 => revoke_token(token(self.below(30)).0),
            8 => {
                let serial = self.issuance().map_or(serial(99_999), |issuance| issuance.serial);
                revoke(serial, self.reason(), at)
            }
            9 => hold(self.target(), at),
            10 | 11 => release(self.target(), at),
            12 if self.below(3) == 0 => {
                let previous = self.below(5);
                status_set(previous.checked_sub(1).map(|last| digest("set", last)), self.below(5))
            }
            12 => match self.below(3) {
                0 => crl(epoch, None, self.below(50)),
                1 => shard_crl(epoch, 3, None, self.below(50)),
                _ => division(epoch, 16),
            },
            13 => propose(vec![Precondition::IssuerUnused(epoch)], at, vec![activation(epoch)]),
            14 if self.below(20) == 0 => {
                let retirement = IssuerRetirement { epoch, by: BY.into(), note: String::new() };
                propose(vec![Precondition::IssuerActive(epoch)], at, vec![Body::IssuerRetired(retirement)])
            }
            15 => {
                let document = Document(format!(r#"{{"owner":"{}"}}"#, self.below(9)));
                let template = TemplateRegistration { name, document, by: BY.into() };
                propose(vec![], at, vec![Body::TemplateRegistered(template)])
            }
            16 => {
                let removal = TemplateRemoval { name: name.clone(), by: BY.into() };
                propose(vec![Precondition::TemplateExists(name)], at, vec![Body::TemplateRemoved(removal)])
            }
            17 => {
                let (policy_hash, text) = (digest("policy", self.below(3)), "permit(...)".to_owned());
                let policy = PolicyChange { policy_hash, name: name.clone(), text, by: BY.into() };
                let (profile_hash, text) = (digest("profile", self.below(3)), "[profile]".to_owned());
                let profile = ProfileChange { name, profile_hash, text, by: BY.into() };
                propose(vec![], at, vec![Body::PolicyChanged(policy), Body::ProfileChanged(profile)])
            }
            18 => {
                let action = OperatorAction {
                    by: BY.into(),
                    action: "read".into(),
                    resource: name,
                    decision: Document("{}".into()),
                };
                propose(vec![], at, vec![Body::OperatorAction(action), Body::Null])
            }
            19 => self.change(at),
            20 => self.rotation(at),
            21 => self.tidy(at),
            _ => self.enrol_or_renew(),
        }
    }

    /// Something of the life of an issuer, a root or a key, or a wish about it. Some name issuers that nobody knows.
    fn rotation(&mut self, at: Timestamp) -> Proposal {
        let (epoch, by, note) = (self.issuer(), BY.to_owned(), String::new());
        let number = self.below(3);
        let retirement = IssuerRetirement { epoch, by: by.clone(), note: note.clone() };
        let body = match self.below(6) {
            0 => {
                let certificate = Blob(vec![0x30; 500]);
                Body::IssuerPrepared(IssuerActivation { epoch, certificate, by })
            }
            1 => {
                let steps = [TaintStep::Marked, TaintStep::Renewing, TaintStep::Distrusted];
                let step = steps[usize::try_from(number).expect("below 3")];
                Body::IssuerTainted(IssuerTaint { epoch, step, until: at, by, note })
            }
            2 if self.below(6) == 0 => Body::IssuerWithdrawn(retirement),
            3 => {
                let phases = [KeyPhase::Published, KeyPhase::Active, KeyPhase::Retired, KeyPhase::Withdrawn];
                let phase = phases[usize::try_from(self.below(4)).expect("below 4")];
                let purpose = if self.below(2) == 0 { KeyPurpose::Jwt } else { KeyPurpose::Root };
                let (key, content) = (digest("key", number), Blob(vec![0x30; 90]));
                let index = (self.below(2) == 0).then(|| self.below(300));
                let requires = match self.below(3) {
                    0 => vec![Precondition::KeyAt { purpose, key, index }],
                    _ => vec![],
                };
                let body = Body::KeyChanged(KeyChange { purpose, key, content, phase, by, note });
                return propose(requires, at, vec![body]);
            }
            _ => {
                let wishes = [Wanted::Now, Wanted::Pause, Wanted::Nothing];
                let wish = wishes[usize::try_from(number).expect("below 3")];
                Body::RotationWished(RotationWish { subject: format!("subject-{number}"), wish, by, note })
            }
        };
        let index = (self.below(2) == 0).then(|| self.below(300));
        let requires = match self.below(3) {
            0 => vec![Precondition::IssuerAt { epoch, index }],
            _ => vec![],
        };
        propose(requires, at, vec![body])
    }

    /// Tidies some away, whether they have ended or not, by clocks that differ.
    fn tidy(&mut self, at: Timestamp) -> Proposal {
        let serials =
            (0..self.below(12)).filter_map(|_| self.issuance()).map(|issued| issued.serial).collect();
        let ended_before = self.time();
        propose(vec![], at, vec![Body::Tidied(Tidy { ended_before, serials })])
    }

    /// A change to certificates, a step of one, or something that it does. Every number may be one of a change.
    fn change(&mut self, at: Timestamp) -> Proposal {
        let number = self.below(200);
        match self.below(3) {
            0 => {
                let proposal = ChangeProposal {
                    request: Document(r#"{"action":"hold"}"#.into()),
                    radius: Document("{}".into()),
                    expires: at + Duration::from_secs(3600),
                    by: BY.into(),
                    note: String::new(),
                };
                let begun = self.step(self.counter, Step::Begun);
                propose(vec![], at, vec![Body::ChangeProposed(proposal), begun])
            }
            1 => {
                let steps =
                    [Step::Approved, Step::Wave, Step::Paused, Step::Resumed, Step::Undone, Step::Ended];
                let step = steps[usize::try_from(self.below(6)).expect("below 6")];
                let requires = match self.below(2) {
                    0 => vec![Precondition::ChangeAt { change: number, steps: 1 }],
                    _ => vec![],
                };
                propose(requires, at, vec![self.step(number, step)])
            }
            _ => {
                let target = self.target();
                let (cause, by) = ("operator".into(), chancery_ledger::change_name(number));
                let hold = Hold { target: target.clone(), cause, by, note: String::new() };
                propose(vec![Precondition::Holdable(target)], at, vec![Body::Hold(hold)])
            }
        }
    }

    fn step(&self, change: u64, step: Step) -> Body {
        let details = Document(r#"{"changed":3}"#.into());
        Body::ChangeStepped(ChangeStep { change, step, by: BY.into(), details, note: String::new() })
    }
}

pub(crate) const BY: &str = "operator ada";
const DECISION: &str = r#"{"outcome":"grant","policy":"4f6c1c5e0d7f4d5c8f1e2a3b4c5d6e7f","determining":["workloads-may-enrol","business-hours"],"inputs":{"assurance":"AL0","evidence":"join-token","environment":"production","network":"192.0.2.0/24","sensitivity":"medium","lifetime":"1h"}}"#;
