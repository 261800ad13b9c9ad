//! Every action that policy is asked about, under its stable name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Something that policy permits or not. The text form is the name in policies, receipts and logs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            /// Every action, in the order of the declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The text form.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

actions! {
    /// A certificate with everything that was asked for, within all ceilings.
    IssueFull = "issue_full",
    /// A short certificate in its place.
    IssueReduced = "issue_reduced",
    /// The next certificate of a lineage, before the two above are asked.
    Renew = "renew",
    /// A JWT-SVID for these audiences.
    IssueJwt = "issue_jwt",

    /// To bring evidence and ask for a certificate. What the evidence is worth is asked afterwards.
    Enrol = "enrol",
    /// To fetch a nonce for a proof of possession.
    NonceCreate = "nonce.create",
    /// To fetch roots and issuers.
    BundleRead = "bundle.read",
    /// To ask for the status of a certificate, by OCSP or CRL.
    StatusRead = "status.read",
    /// To ask whether the server is well.
    HealthRead = "health.read",
    /// To fetch the latest checkpoint and the key that verifies it.
    LogCheckpoint = "log.checkpoint",

    /// To present the current certificate and ask for the next. What policy thinks of it is asked afterwards.
    CertificateRenew = "certificate.renew",
    /// To vouch for many keys at once.
    CertificateEnrolBatch = "certificate.enrol_batch",
    /// To fetch the proof that a certificate is in the log.
    LogProof = "log.proof",

    /// To follow how certificates come to stand, and to confirm what is enforced.
    StatusFollow = "status.follow",

    /// To follow what a node may serve.
    NodeStream = "node.stream",
    /// To ask for certificates for processes on a node. What policy thinks of each is asked afterwards.
    NodeEnrol = "node.enrol",
    /// To ask for a JWT-SVID for a process on a node. What policy thinks of it is asked afterwards.
    NodeJwt = "node.jwt",

    /// To see identities.
    IdentityRead = "identity.read",
    /// To see templates.
    TemplateRead = "template.read",
    /// To see join tokens, without their secrets.
    TokenList = "token.list",
    /// To search and see certificates.
    CertificateRead = "certificate.read",
    /// To see the decision behind a certificate.
    DecisionRead = "decision.read",
    /// To see who enforces status, and how far.
    RelyingPartyRead = "relying_party.read",
    /// To see issuers and their state.
    CaRead = "ca.read",
    /// To read entries and tiles of the log.
    LogRead = "log.read",
    /// To export the log.
    AuditExport = "audit.export",
    /// To see the policies in force.
    PolicyRead = "policy.read",
    /// To ask what policy would decide.
    PolicyCheck = "policy.check",
    /// To see profiles.
    ProfileRead = "profile.read",
    /// To read metrics.
    MetricsRead = "metrics.read",

    /// To register an identity.
    IdentityRegister = "identity.register",
    /// To change one.
    IdentityChange = "identity.change",
    /// To retire one for ever.
    IdentityRetire = "identity.retire",
    /// To hold one.
    IdentityHold = "identity.hold",
    /// To release one.
    IdentityRelease = "identity.release",
    /// To register, change or remove a template.
    TemplateChange = "template.change",
    /// To make a join token.
    TokenCreate = "token.create",
    /// To withdraw one.
    TokenRevoke = "token.revoke",
    /// To vouch for an identity and have a certificate made for it.
    CertificateRequest = "certificate.request",
    /// To ask for certificates to be renewed before their time.
    CertificateAskRenewal = "certificate.ask_renewal",
    /// To revoke certificates.
    CertificateRevoke = "certificate.revoke",
    /// To hold certificates.
    CertificateHold = "certificate.hold",
    /// To release held certificates.
    CertificateRelease = "certificate.release",

    /// To put other policies in force.
    PolicyChange = "policy.change",
    /// To put other profiles in force.
    ProfileChange = "profile.change",
    /// To make an operator.
    OperatorCreate = "operator.create",
    /// To change the authority's own keys and issuers.
    CaChange = "ca.change",
    /// To have the server read its configuration again.
    ServerReload = "server.reload",
}

impl Action {
    /// Whether it is asked about a certificate or a token to be issued, with an identity as principal; all others are asked
    /// about a caller.
    #[must_use]
    pub fn is_issue(self) -> bool {
        matches!(self, Self::IssueFull | Self::IssueReduced | Self::Renew | Self::IssueJwt)
    }
}

/// A text is not an action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an action; the policy schema lists them all")]
pub struct UnknownAction(String);

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| UnknownAction(text.chars().take(60).collect()))
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_round_trip() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse::<Action>().unwrap(), *action);
        }
        assert!("issue".parse::<Action>().is_err());
    }
}
