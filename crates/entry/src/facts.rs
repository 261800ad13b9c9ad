//! The facts themselves: what each kind of entry holds.

use chancery_types::{
    AssuranceLevel, CrlShard, Digest, EvidenceKind, Generation, IssuerEpoch, LineageId, RevocationReason,
    SerialNumber, SpiffeId, Timestamp, TokenId,
};
use serde::Serialize;

use crate::codec::{Blob, DecodeError, Field, Reader, Writer};
use crate::values::{Document, HoldTarget, KeyPhase, KeyPurpose, Step, TaintStep, TokenBinding, Wanted};

/// Structs whose encoding is their fields in order.
macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Field for $name {
            fn write(&self, writer: &mut Writer) {
                $(self.$field.write(writer);)*
            }

            fn read(reader: &mut Reader<'_>, _field: &'static str) -> Result<Self, DecodeError> {
                Ok(Self { $($field: <$type>::read(reader, stringify!($field))?,)* })
            }
        }
    )*};
}

facts! {
    /// The first entry of every log: what it is the log of.
    Genesis {
        /// The trust domain, by the SPIFFE ID without a path.
        trust_domain: SpiffeId,
        /// The log's origin line.
        origin: String,
        /// The checkpoint key as a C2SP vkey.
        verifier_key: String,
        /// The root certificate, DER.
        root: Blob,
    }

    /// A certificate was promised: durable before the issuing key is touched.
    Issuance {
        /// The serial; its epoch names the issuer.
        serial: SerialNumber,
        /// Whom it names.
        identity: SpiffeId,
        /// The enrolment that it descends from.
        lineage: LineageId,
        /// Its place in the lineage; 0 is the enrolment itself.
        generation: Generation,
        /// notBefore of the TBS.
        not_before: Timestamp,
        /// notAfter of the TBS.
        not_after: Timestamp,
        /// SHA-256 of the subject's public key (SPKI DER).
        key: Digest,
        /// The profile's name.
        profile: String,
        /// SHA-256 of the profile's text: names a [`ProfileChange`].
        profile_hash: Digest,
        /// Who asked, as the door saw it.
        requester: String,
        /// The kind of evidence.
        evidence: EvidenceKind,
        /// What the evidence is worth.
        assurance: AssuranceLevel,
        /// SHA-256 over the evidence as the verifier saw it.
        evidence_hash: Digest,
        /// The decision's receipt, JSON.
        decision: Document,
        /// Hash of the caller and its idempotency key, where it gave one.
        idempotency: Option<Digest>,
        /// The exact TBSCertificate, DER.
        tbs: Blob,
    }

    /// A certificate is revoked, for good.
    Revocation {
        /// Which.
        serial: SerialNumber,
        /// Why (RFC 5280 section 5.3.1).
        reason: RevocationReason,
        /// Who said so.
        by: String,
        /// A word of explanation; may be empty.
        note: String,
    }

    /// A certificate, or a whole lineage with what it may yet issue, is held: not valid now, may come back.
    Hold {
        /// Which.
        target: HoldTarget,
        /// A stable word: `operator`, `lineage-fork`.
        cause: String,
        /// Who said so.
        by: String,
        /// A word of explanation; may be empty.
        note: String,
    }

    /// A hold ends.
    Release {
        /// Which.
        target: HoldTarget,
        /// Who said so.
        by: String,
        /// A word of explanation; may be empty.
        note: String,
    }

    /// Certificates that ended long ago leave what searches find. The log keeps them; what is left of each still says
    /// where, and how it stood.
    Tidy {
        /// When all of them had ended; not after the entry's own time.
        ended_before: Timestamp,
        /// Which.
        serials: Vec<SerialNumber>,
    }

    /// An identity is registered, or its document replaced.
    IdentityRegistration {
        /// Its key.
        identity: SpiffeId,
        /// The whole document, JSON.
        document: Document,
        /// Who said so.
        by: String,
    }

    /// An identity is held, released or retired.
    IdentityChange {
        /// Its key.
        identity: SpiffeId,
        /// Who said so.
        by: String,
        /// A word of explanation; may be empty.
        note: String,
    }

    /// A template for identities is registered or replaced.
    TemplateRegistration {
        /// Its name.
        name: String,
        /// The identity document with `{claim}` placeholders, JSON.
        document: Document,
        /// Who said so.
        by: String,
    }

    /// A template is removed.
    TemplateRemoval {
        /// Its name.
        name: String,
        /// Who said so.
        by: String,
    }

    /// A join token exists. The secret itself is never recorded.
    TokenCreation {
        /// Its public half.
        token: TokenId,
        /// Domain-separated SHA-256 of the secret half.
        secret_hash: Digest,
        /// What it is good for.
        binding: TokenBinding,
        /// SHA-256 of the only public key that may use it.
        key: Option<Digest>,
        /// When it ends.
        expires: Timestamp,
        /// Who made it.
        by: String,
    }

    /// A join token is spent; committed together with the issuance that spends it.
    TokenSpend {
        /// Which.
        token: TokenId,
        /// The certificate that it bought.
        serial: SerialNumber,
    }

    /// A join token is withdrawn before use.
    TokenRevocation {
        /// Which.
        token: TokenId,
        /// Who said so.
        by: String,
    }

    /// From here on this issuer signs.
    IssuerActivation {
        /// Its epoch: the second and third byte of the serials it signs.
        epoch: IssuerEpoch,
        /// Its certificate, DER.
        certificate: Blob,
        /// Who said so.
        by: String,
    }

    /// This issuer signs no more certificates.
    IssuerRetirement {
        /// Its epoch.
        epoch: IssuerEpoch,
        /// Who said so.
        by: String,
        /// A word of explanation; may be empty.
        note: String,
    }

    /// An issuer is not to be trusted, or something was done about it.
    IssuerTaint {
        /// Its epoch.
        epoch: IssuerEpoch,
        /// What was done.
        step: TaintStep,
        /// By when agents replace what it signed; the moment itself for the other steps.
        until: Timestamp,
        /// Who said so.
        by: String,
        /// A word of explanation; may be empty.
        note: String,
    }

    /// A root, or a key of the authority that has no certificate, enters a phase of its life.
    KeyChange {
        /// What it is for.
        purpose: KeyPurpose,
        /// SHA-256 of a root's certificate, or of a key's SubjectPublicKeyInfo.
        key: Digest,
        /// Of a root its certificate, and after it those by which other roots vouch for it; of a key its
        /// SubjectPublicKeyInfo. DER. Of a key of the log, from its activation on, there follows the text of the
        /// checkpoint by which the key before it signed the log up to the entry that published this one.
        content: Blob,
        /// The phase.
        phase: KeyPhase,
        /// Who said so.
        by: String,
        /// A word of explanation; may be empty.
        note: String,
    }

    /// What an operator wants of the rotation of something.
    RotationWish {
        /// Of what: `issuer`, `root`, `jwt`, `log`.
        subject: String,
        /// What.
        wish: Wanted,
        /// Who wants it.
        by: String,
        /// A word of explanation; may be empty.
        note: String,
    }

    /// A revocation list was published.
    CrlPublished {
        /// The issuer.
        epoch: IssuerEpoch,
        /// Its number: rises strictly.
        number: u64,
        /// thisUpdate.
        this_update: Timestamp,
        /// nextUpdate.
        next_update: Timestamp,
        /// Entries in it.
        entries: u64,
        /// SHA-256 of the whole list, DER.
        hash: Digest,
    }

    /// From here on certificates of this issuer name lists divided like this, below this base. All are published
    /// as long as such certificates may be met.
    CrlDivision {
        /// The issuer.
        epoch: IssuerEpoch,
        /// How many lists there are.
        shards: u16,
        /// What their URLs begin with.
        base: String,
    }

    /// The revocation list of one part of an issuer's certificates was published.
    CrlShardPublished {
        /// The issuer.
        epoch: IssuerEpoch,
        /// Which of its lists.
        shard: CrlShard,
        /// Its number: rises strictly, for each list by itself.
        number: u64,
        /// thisUpdate.
        this_update: Timestamp,
        /// nextUpdate.
        next_update: Timestamp,
        /// Entries in it.
        entries: u64,
        /// SHA-256 of the whole list, DER.
        hash: Digest,
    }

    /// A version of the exact set was made.
    StatusSetPublished {
        /// Where in the log it is right: a size of the log, not above the index of this entry. Rises strictly.
        sequence: u64,
        /// When it was made.
        made: Timestamp,
        /// Certificates in it.
        entries: u64,
        /// SHA-256 of it, without its signature.
        hash: Digest,
        /// SHA-256 of the version recorded before; nothing for the first.
        previous: Option<Digest>,
    }

    /// A file of the policy in force from here on.
    PolicyChange {
        /// SHA-256 over the whole policy set, as receipts name it.
        policy_hash: Digest,
        /// The file's name.
        name: String,
        /// Its text.
        text: String,
        /// Who said so.
        by: String,
    }

    /// A profile in force from here on.
    ProfileChange {
        /// Its name.
        name: String,
        /// SHA-256 of the text.
        profile_hash: Digest,
        /// Its TOML text.
        text: String,
        /// Who said so.
        by: String,
    }

    /// An operator did, or was refused, something that leaves no other entry.
    OperatorAction {
        /// Who.
        by: String,
        /// The policy action.
        action: String,
        /// On what.
        resource: String,
        /// The decision's receipt, JSON.
        decision: Document,
    }

    /// Proven evidence was refused by policy.
    Refusal {
        /// Whom it was for, where that was known.
        identity: Option<SpiffeId>,
        /// Who asked, as the door saw it.
        requester: String,
        /// The kind of evidence.
        evidence: EvidenceKind,
        /// SHA-256 over the evidence.
        evidence_hash: Digest,
        /// The stable reason code.
        code: String,
        /// The decision's receipt, JSON.
        decision: Document,
    }

    /// An operator asks for a change to many certificates. Its number is the index of this entry.
    ChangeProposal {
        /// What is to be done, and to which certificates, JSON.
        request: Document,
        /// What that would touch, and the limits in force, JSON.
        radius: Document,
        /// Nobody can approve it after this moment.
        expires: Timestamp,
        /// Who asked.
        by: String,
        /// A word of explanation; may be empty.
        note: String,
    }

    /// A change goes a step on.
    ChangeStep {
        /// The number of the change.
        change: u64,
        /// The step.
        step: Step,
        /// Who took it.
        by: String,
        /// What is known of it, JSON.
        details: Document,
        /// A word of explanation; may be empty.
        note: String,
    }

    /// The transcript of a ceremony.
    Ceremony {
        /// What was done, in lines.
        transcript: String,
        /// Who did it.
        by: String,
    }
}
