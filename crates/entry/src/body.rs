//! What an entry can say.

use chancery_types::{
    AssuranceLevel, CrlShard, Digest, EvidenceKind, Generation, IssuerEpoch, LineageId, RevocationReason,
    SerialNumber, SpiffeId, Timestamp, TokenId,
};
use serde::{Serialize, Serializer};

use crate::codec::{Blob, DecodeError, Field, Reader, Writer};

/// The version that every type has today.
pub(crate) const VERSION: u8 = 1;

/// A JSON text, kept to the letter because its bytes are what the log commits to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document(pub String);

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<serde_json::Value>(&self.0) {
            Ok(value) => value.serialize(serializer),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

impl Field for Document {
    fn write(&self, writer: &mut Writer) {
        self.0.write(writer);
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        String::read(reader, field).map(Self)
    }
}

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

/// What a hold is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldTarget {
    /// One certificate.
    Certificate(SerialNumber),
    /// An enrolment with all its living certificates.
    Lineage(LineageId),
}

impl Field for HoldTarget {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Certificate(serial) => {
                writer.u8(0);
                serial.write(writer);
            }
            Self::Lineage(lineage) => {
                writer.u8(1);
                lineage.write(writer);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        match reader.u8(field)? {
            0 => SerialNumber::read(reader, field).map(Self::Certificate),
            1 => LineageId::read(reader, field).map(Self::Lineage),
            other => {
                Err(DecodeError::Value { field, offset: 0, why: format!("{other} where 0 or 1 stands") })
            }
        }
    }
}

/// A step that a change takes. Numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Step {
    /// It runs, because it is small enough to need no approval.
    Begun = 0,
    /// It runs, because another operator has approved it.
    Approved = 1,
    /// It runs, because the local administrator has dispensed with approval.
    Overridden = 2,
    /// One of its waves is done.
    Wave = 3,
    /// It rests.
    Paused = 4,
    /// It runs on.
    Resumed = 5,
    /// It is given up; what it did stays.
    Withdrawn = 6,
    /// What it held is to be released.
    Undone = 7,
    /// There is nothing left to do.
    Ended = 8,
}

impl Step {
    const ALL: [Self; 9] = [
        Self::Begun,
        Self::Approved,
        Self::Overridden,
        Self::Wave,
        Self::Paused,
        Self::Resumed,
        Self::Withdrawn,
        Self::Undone,
        Self::Ended,
    ];
}

impl Field for Step {
    fn write(&self, writer: &mut Writer) {
        writer.u8(*self as u8);
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let number = reader.u8(field)?;
        Self::ALL.get(usize::from(number)).copied().ok_or_else(|| DecodeError::Value {
            field,
            offset: 0,
            why: format!("{number} where 0 to 8 stands"),
        })
    }
}

/// Enums that are written as the number of their variant.
macro_rules! numbered {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            const ALL: &[Self] = &[$(Self::$variant,)*];
        }

        impl Field for $name {
            fn write(&self, writer: &mut Writer) {
                writer.u8(*self as u8);
            }

            fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
                let number = reader.u8(field)?;
                Self::ALL.get(usize::from(number)).copied().ok_or_else(|| DecodeError::Value {
                    field,
                    offset: 0,
                    why: format!("{number} where 0 to {} stands", Self::ALL.len() - 1),
                })
            }
        }
    )*};
}

numbered! {
    /// What was done about an issuer that is not to be trusted.
    TaintStep {
        /// Somebody said so.
        Marked,
        /// Agents were asked to replace what it signed.
        Renewing,
        /// What was left of it was revoked.
        Distrusted,
    }

    /// What a root or a key is for.
    KeyPurpose {
        /// It signs JWT-SVIDs.
        Jwt,
        /// It signs issuers.
        Root,
        /// It signs the log's checkpoints, and what else is signed as the log.
        Log,
    }

    /// Where in its life a root or a key is.
    KeyPhase {
        /// In the bundle, and not used.
        Published,
        /// In use.
        Active,
        /// In the bundle for what it signed.
        Retired,
        /// Out of the bundle.
        Withdrawn,
    }

    /// What an operator wants of a rotation.
    Wanted {
        /// The next one, as soon as everybody could know it.
        Now,
        /// No other one.
        Pause,
        /// Whatever the rules say.
        Nothing,
    }
}

/// What a join token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenBinding {
    /// One registered identity.
    Identity(SpiffeId),
    /// A template, with the values of its placeholders as a JSON object.
    Template {
        /// The template's name.
        name: String,
        /// Values by placeholder.
        parameters: Document,
    },
}

impl Field for TokenBinding {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Identity(identity) => {
                writer.u8(0);
                identity.write(writer);
            }
            Self::Template { name, parameters } => {
                writer.u8(1);
                name.write(writer);
                parameters.write(writer);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        match reader.u8(field)? {
            0 => SpiffeId::read(reader, field).map(Self::Identity),
            1 => Ok(Self::Template {
                name: String::read(reader, field)?,
                parameters: Document::read(reader, field)?,
            }),
            other => {
                Err(DecodeError::Value { field, offset: 0, why: format!("{other} where 0 or 1 stands") })
            }
        }
    }
}

/// The enum over all facts: variant, type number, kind in JSON and metrics, payload.
macro_rules! bodies {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $kind:literal, $payload:ty;)*) => {
        /// The fact that an entry records. Type numbers are for ever; gaps are room for kin.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(tag = "kind", content = "body")]
        pub enum Body {
            /// Nothing: an index that had to be used up.
            #[serde(rename = "null")]
            Null,
            $($(#[$doc])* #[serde(rename = $kind)] $variant($payload),)*
        }

        impl Body {
            /// The type number that stands first in the entry's bytes.
            #[must_use]
            pub fn type_number(&self) -> u16 {
                match self {
                    Self::Null => 0,
                    $(Self::$variant(_) => $number,)*
                }
            }

            /// The kind's name, as JSON views and metrics show it.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    Self::Null => "null",
                    $(Self::$variant(_) => $kind,)*
                }
            }

            pub(crate) fn write(&self, writer: &mut Writer) {
                match self {
                    Self::Null => {}
                    $(Self::$variant(payload) => payload.write(writer),)*
                }
            }

            pub(crate) fn read(type_number: u16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                match type_number {
                    0 => Ok(Self::Null),
                    $($number => <$payload>::read(reader, $kind).map(Self::$variant),)*
                    other => Err(DecodeError::Type(other)),
                }
            }
        }
    };
}

bodies! {
    /// The log begins.
    Genesis = 1, "genesis", Genesis;
    /// A certificate is promised.
    Issuance = 16, "issuance", Box<Issuance>;
    /// Evidence was refused.
    Refusal = 17, "refusal", Refusal;
    /// Certificates that ended long ago are tidied away.
    Tidied = 18, "tidied", Tidy;
    /// A certificate is revoked.
    Revocation = 32, "revocation", Revocation;
    /// A certificate or lineage is held.
    Hold = 33, "hold", Hold;
    /// A hold ends.
    Release = 34, "release", Release;
    /// A revocation list was published.
    CrlPublished = 35, "crl-published", CrlPublished;
    /// Certificates name lists divided anew.
    CrlDivided = 36, "crl-divided", CrlDivision;
    /// One of the lists of an issuer was published.
    CrlShardPublished = 37, "crl-shard-published", CrlShardPublished;
    /// A version of the exact set was made.
    StatusSetPublished = 40, "status-set-published", StatusSetPublished;
    /// An identity is registered.
    IdentityRegistered = 48, "identity-registered", IdentityRegistration;
    /// An identity's document is replaced.
    IdentityChanged = 49, "identity-changed", IdentityRegistration;
    /// An identity is held: no enrolment, no renewal.
    IdentityHeld = 50, "identity-held", IdentityChange;
    /// An identity is active again.
    IdentityReleased = 51, "identity-released", IdentityChange;
    /// An identity is retired; its name is never used again.
    IdentityRetired = 52, "identity-retired", IdentityChange;
    /// A template is registered or replaced.
    TemplateRegistered = 53, "template-registered", TemplateRegistration;
    /// A template is removed.
    TemplateRemoved = 54, "template-removed", TemplateRemoval;
    /// A join token exists.
    TokenCreated = 64, "token-created", TokenCreation;
    /// A join token is spent.
    TokenSpent = 65, "token-spent", TokenSpend;
    /// A join token is withdrawn.
    TokenRevoked = 66, "token-revoked", TokenRevocation;
    /// An issuer signs from here on.
    IssuerActivated = 80, "issuer-activated", IssuerActivation;
    /// An issuer signs no more.
    IssuerRetired = 81, "issuer-retired", IssuerRetirement;
    /// An issuer is published, to sign later.
    IssuerPrepared = 82, "issuer-prepared", IssuerActivation;
    /// An issuer is not to be trusted.
    IssuerTainted = 83, "issuer-tainted", IssuerTaint;
    /// Nothing of an issuer is published any more.
    IssuerWithdrawn = 84, "issuer-withdrawn", IssuerRetirement;
    /// A root or a key enters a phase of its life.
    KeyChanged = 88, "key-changed", KeyChange;
    /// An operator wants something of a rotation.
    RotationWished = 89, "rotation-wished", RotationWish;
    /// A policy file comes into force.
    PolicyChanged = 96, "policy-changed", PolicyChange;
    /// A profile comes into force.
    ProfileChanged = 97, "profile-changed", ProfileChange;
    /// An operator acted.
    OperatorAction = 112, "operator-action", OperatorAction;
    /// A ceremony was held.
    Ceremony = 113, "ceremony", Ceremony;
    /// A change to many certificates is asked for.
    ChangeProposed = 114, "change-proposed", ChangeProposal;
    /// A change goes a step on.
    ChangeStepped = 115, "change-stepped", ChangeStep;
}

impl<T: Field> Field for Box<T> {
    fn write(&self, writer: &mut Writer) {
        self.as_ref().write(writer);
    }

    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        T::read(reader, field).map(Box::new)
    }
}

impl From<Issuance> for Body {
    fn from(issuance: Issuance) -> Self {
        Self::Issuance(Box::new(issuance))
    }
}
