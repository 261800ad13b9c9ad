//! What an entry can say: one of the facts, by its number.

use serde::Serialize;

use crate::codec::{DecodeError, Field, Reader, Writer};
use crate::facts::{
    Ceremony, ChangeProposal, ChangeStep, CrlDivision, CrlPublished, CrlShardPublished, Genesis, Hold,
    IdentityChange, IdentityRegistration, Issuance, IssuerActivation, IssuerRetirement, IssuerTaint,
    KeyChange, OperatorAction, PolicyChange, ProfileChange, Refusal, Release, Revocation, RotationWish,
    StatusSetPublished, TemplateRegistration, TemplateRemoval, Tidy, TokenCreation, TokenRevocation,
    TokenSpend,
};

/// The version that every type has today.
pub(crate) const VERSION: u8 = 1;

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

impl From<Issuance> for Body {
    fn from(issuance: Issuance) -> Self {
        Self::Issuance(Box::new(issuance))
    }
}
