//! Everything that a decision about a certificate is made from. Kept in the receipt, so that the decision can
//! be explained and made again.

use std::net::IpAddr;
use std::sync::Arc;

use chancery_attest::{Attested, RenewedFrom, Subject};
use chancery_types::{
    AssuranceLevel, ClaimValue, Claims, Digest, EvidenceKind, HumanDuration, Identity, IdentityState,
    KeyAlgorithm, Sensitivity, SubjectName, Timestamp,
};
use chancery_x509::Profile;
use serde::{Deserialize, Serialize};

use crate::IdentityTemplate;

/// The inputs of one decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueInputs {
    /// The registered identity.
    pub identity: Arc<Identity>,
    /// How it stands.
    pub identity_state: IdentityState,
    /// The template that the evidence names, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Arc<IdentityTemplate>>,
    /// What was proved.
    pub evidence: EvidenceFacts,
    /// For renewals: what is continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<RenewalFacts>,
    /// What the profile allows, as far as it is decided here.
    pub profile: ProfileFacts,
    /// What is asked for.
    pub requested: Requested,
    /// What that comes to under the profile's rules for names.
    pub names: NameFacts,
    /// The circumstances.
    pub context: IssueContext,
}

/// What a verifier vouched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceFacts {
    /// The kind of evidence.
    pub kind: EvidenceKind,
    /// Whom it speaks for.
    pub subject: Subject,
    /// The proven facts.
    pub claims: Claims,
    /// How much it is worth.
    pub assurance: AssuranceLevel,
    /// Whether it can be shown again.
    pub repeatable: bool,
    /// The only key that it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_key: Option<Digest>,
    /// SHA-256 over it.
    pub hash: Digest,
}

impl EvidenceFacts {
    pub(crate) fn of(attested: &Attested) -> Self {
        Self {
            kind: attested.kind(),
            subject: attested.subject().clone(),
            claims: attested.claims().clone(),
            assurance: attested.assurance(),
            repeatable: attested.is_repeatable(),
            bound_key: attested.bound_key(),
            hash: attested.evidence_hash(),
        }
    }
}

/// Which certificate a renewal continues, and how its lineage began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalFacts {
    /// Lineage, generation and serial of the presented certificate.
    #[serde(flatten)]
    pub from: RenewedFrom,
    /// The kind of evidence at its beginning.
    pub enrolled_by: EvidenceKind,
    /// When it began.
    pub enrolled_at: Timestamp,
}

impl RenewalFacts {
    /// From the lineage and the claims `renewal.*`, which the renewal verifier always sets.
    pub(crate) fn of(attested: &Attested) -> Option<Self> {
        let from = attested.lineage()?;
        let claims = attested.claims();
        let enrolled_by = match claims.value("renewal.enrolled_by") {
            Some(ClaimValue::Text(text)) => text.parse().unwrap_or(EvidenceKind::JoinToken),
            _ => EvidenceKind::JoinToken,
        };
        let enrolled_at = match claims.value("renewal.enrolled_at") {
            Some(ClaimValue::Number(seconds)) => Timestamp::from_seconds(*seconds),
            _ => Timestamp::default(),
        };
        Some(Self { from, enrolled_by, enrolled_at })
    }
}

/// What a profile allows, as far as it is decided here; the rest is checked when the certificate is prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileFacts {
    /// Its name.
    pub name: String,
    /// SHA-256 of its text.
    pub hash: Digest,
    /// What such a certificate is for: `workload`, `server`, ...
    pub purpose: String,
    /// How bad abuse of such a certificate is.
    pub sensitivity: Sensitivity,
    /// Whether an identity without an owner is refused.
    pub requires_owner: bool,
    /// The least assurance that evidence must reach.
    pub minimum_assurance: AssuranceLevel,
    /// Whether the certificate itself is evidence for the next one.
    pub renewable: bool,
    /// The lifetime that it gives when none is asked for.
    pub default_lifetime: HumanDuration,
    /// The longest that it gives.
    pub max_lifetime: HumanDuration,
    /// The shortest that it gives.
    pub min_lifetime: HumanDuration,
    /// The key algorithms that it allows.
    pub key_algorithms: Vec<KeyAlgorithm>,
}

impl ProfileFacts {
    /// The facts of a profile.
    #[must_use]
    pub fn of(profile: &Profile) -> Self {
        let lifetime = profile.lifetime();
        Self {
            name: profile.name().to_owned(),
            hash: profile.hash(),
            purpose: profile.purpose().as_str().to_owned(),
            sensitivity: profile.sensitivity(),
            requires_owner: profile.requires_owner(),
            minimum_assurance: profile.minimum_assurance(),
            renewable: profile.is_renewable(),
            default_lifetime: HumanDuration(lifetime.default),
            max_lifetime: HumanDuration(lifetime.max),
            min_lifetime: HumanDuration(lifetime.min),
            key_algorithms: profile.key_algorithms().to_vec(),
        }
    }
}

/// The names that would be certified.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NameFacts {
    /// They, the SPIFFE ID first.
    pub wanted: Vec<SubjectName>,
    /// Names of the identity that the profile does not take, left out because nobody asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<SubjectName>,
    /// What the profile has against the wanted ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<String>,
}

impl NameFacts {
    /// Without a wish: every name of the identity that the profile takes. With one: those names, and the SPIFFE
    /// ID where the profile takes it, because a certificate without it could not be traced to its identity.
    pub(crate) fn choose(identity: &Identity, requested: &[SubjectName], profile: &Profile) -> Self {
        let rules = profile.names();
        let (wanted, left_out) = if requested.is_empty() {
            identity.subject_names().into_iter().partition(|name| rules.refusal(name).is_none())
        } else {
            (with_spiffe_id(identity, requested, profile), Vec::new())
        };
        let refusals = rules.refusals(&wanted).iter().map(ToString::to_string).collect();
        Self { wanted, left_out, refusals }
    }
}

fn with_spiffe_id(identity: &Identity, requested: &[SubjectName], profile: &Profile) -> Vec<SubjectName> {
    let spiffe_id = SubjectName::from(identity.spiffe_id.clone());
    let mut wanted = Vec::with_capacity(requested.len() + 1);
    if requested.contains(&spiffe_id) || profile.names().refusal(&spiffe_id).is_none() {
        wanted.push(spiffe_id);
    }
    for name in requested {
        if !wanted.contains(name) {
            wanted.push(name.clone());
        }
    }
    wanted
}

/// What the requester asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// Names; empty: all that the identity has and the profile takes. They can only narrow the identity's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<SubjectName>,
    /// The lifetime; `None`: the profile's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<HumanDuration>,
    /// The key; for a JWT-SVID the authority's own, which signs it.
    pub key: RequestedKey,
    /// Who is to accept it, for a JWT-SVID; none for a certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
}

/// The key that a certificate is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedKey {
    /// What it is.
    pub algorithm: KeyAlgorithm,
    /// SHA-256 of its SubjectPublicKeyInfo (DER).
    pub fingerprint: Digest,
}

/// The circumstances of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueContext {
    /// The moment of the decision.
    pub now: Timestamp,
    /// Where it came from, if over a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkFacts>,
    /// The identity's own history, if it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryFacts>,
}

impl IssueContext {
    /// This moment, and nothing else known.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { now, network: None, history: None }
    }
}

/// Where a request came from. Location is no proof: policies can only narrow by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// The peer's address.
    pub address: IpAddr,
    /// The configured zone that the address lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// What the identity has been given lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryFacts {
    /// Certificates in the last hour.
    pub issued_last_hour: u32,
    /// Certificates that are in force.
    pub live: u32,
}
