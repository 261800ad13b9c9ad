//! What an agent and the authority say to each other: the stream of what a node may serve, certificates and tokens
//! for the workloads on it, and the OpenID documents that let others verify those tokens.

use chancery_types::{
    Claims, HumanDuration, KeyAlgorithm, SecretString, Selectors, SerialNumber, SpiffeId, Timestamp,
    TrustDomain,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::enroll::expose_on_the_wire;
use crate::identity::{alternatives_schema, selectors_schema};
use crate::{CertificateDer, JwksBundle, PublicKeyDer, RenewalScope};

/// Where to go on with the stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AgentStreamQuery {
    /// The revision of the last event that was taken in; absent for everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// One line of the stream. The revision is the size of the log at which the statement was true; revisions never go
/// back within a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AgentEvent {
    /// Everything: what is not in it is not this node's. Comes first, unless `after` could be resumed exactly.
    Sync {
        /// The size of the log.
        revision: u64,
        /// Every identity that this node may serve.
        identities: Vec<AgentIdentity>,
        /// Every template that this node may serve.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        templates: Vec<AgentTemplate>,
        /// What verifies the members of the trust domain.
        bundle: BundleView,
        /// What verifies the members of other trust domains: of all that the authority deals with.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        federated: Vec<BundleView>,
        /// Over which to spread the renewals that follow, because others are told the same.
        #[serde(default, skip_serializing_if = "is_zero")]
        spread_milliseconds: u64,
    },
    /// An identity is new, or no longer what it was.
    Changed {
        /// The size of the log.
        revision: u64,
        /// What it is now.
        identity: Box<AgentIdentity>,
        /// Over which to spread the renewals that follow, because other nodes serve it too.
        #[serde(default, skip_serializing_if = "is_zero")]
        spread_milliseconds: u64,
    },
    /// An identity is retired, held, or no longer this node's: what was issued to it is to be served no more.
    Removed {
        /// The size of the log.
        revision: u64,
        /// Which one.
        #[schema(value_type = String, example = "spiffe://example.org/web")]
        spiffe_id: SpiffeId,
    },
    /// A template is new, or no longer what it was.
    Template {
        /// The size of the log.
        revision: u64,
        /// What it is now.
        template: Box<AgentTemplate>,
    },
    /// A template is removed, or no longer this node's. What was made of it and registered stays.
    TemplateRemoved {
        /// The size of the log.
        revision: u64,
        /// Which one.
        name: String,
    },
    /// Certificates that were issued through this node, or its own, are revoked or held.
    Revoked {
        /// The size of the log.
        revision: u64,
        /// Which ones.
        #[schema(value_type = Vec<String>)]
        serials: Vec<SerialNumber>,
    },
    /// The bundle has changed, or that of another trust domain.
    Bundle {
        /// The size of the log.
        revision: u64,
        /// What it is now.
        bundle: BundleView,
    },
    /// Certificates that are to be renewed before their time. Told again after every [`Self::Sync`]: it means what the
    /// log had before a position, so who has followed it has nothing left to do.
    Renew {
        /// The size of the log.
        revision: u64,
        /// Whose.
        scope: RenewalScope,
        /// Those that the log has before this position.
        recorded_before: u64,
        /// By when.
        #[schema(value_type = String, format = DateTime)]
        until: Timestamp,
    },
    /// Nothing has happened, and the stream lives.
    Heartbeat {
        /// The size of the log.
        revision: u64,
    },
}

impl AgentEvent {
    /// What `event` can be.
    pub const NAMES: [&str; 9] = [
        "sync",
        "changed",
        "removed",
        "template",
        "template_removed",
        "revoked",
        "bundle",
        "renew",
        "heartbeat",
    ];

    /// The size of the log at which it was true.
    #[must_use]
    pub fn revision(&self) -> u64 {
        match self {
            Self::Sync { revision, .. }
            | Self::Changed { revision, .. }
            | Self::Removed { revision, .. }
            | Self::Template { revision, .. }
            | Self::TemplateRemoved { revision, .. }
            | Self::Revoked { revision, .. }
            | Self::Bundle { revision, .. }
            | Self::Renew { revision, .. }
            | Self::Heartbeat { revision } => *revision,
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An identity, as far as the agent that serves it has to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentIdentity {
    /// Its name.
    #[schema(value_type = String, example = "spiffe://example.org/web")]
    pub spiffe_id: SpiffeId,
    /// Claims that a process must fulfil to be it: all of them. Empty: only an alternative serves.
    #[serde(default, skip_serializing_if = "Selectors::is_empty")]
    #[schema(schema_with = selectors_schema)]
    pub selectors: Selectors,
    /// Sets of claims of which each serves as well as `selectors`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = alternatives_schema)]
    pub alternatives: Vec<Selectors>,
    /// How programs with several identities tell them apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Other trust domains whose members it deals with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub federates_with: Vec<TrustDomain>,
    /// The profile that its certificates are issued under.
    pub profile: String,
    /// The kind of key to make for it.
    #[schema(value_type = String, example = "p256")]
    pub key_algorithm: KeyAlgorithm,
    /// How long its certificates live, as far as that is known before they are issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1h")]
    pub lifetime: Option<HumanDuration>,
    /// DNS names that its certificates carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
}

impl AgentIdentity {
    /// Whether a process of which these claims were found is it.
    #[must_use]
    pub fn matches(&self, claims: &Claims) -> bool {
        std::iter::once(&self.selectors).chain(&self.alternatives).any(|set| set.fulfilled_by(claims))
    }
}

/// A template for processes, as far as the agent has to know it: an agent asks for what it makes as for any other
/// identity, and the authority registers it when it first issues to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentTemplate {
    /// Its name.
    pub name: String,
    /// The path of the SPIFFE IDs that it makes; `{k8s.ns}` stands for the text of that claim.
    #[schema(example = "/ns/{k8s.ns}/sa/{k8s.sa}")]
    pub path: String,
    /// Claims that a process must fulfil: all of them.
    #[schema(schema_with = selectors_schema)]
    pub selectors: Selectors,
    /// The profile that certificates are issued under.
    pub profile: String,
    /// The kind of key to make.
    #[schema(value_type = String, example = "p256")]
    pub key_algorithm: KeyAlgorithm,
    /// How long certificates live, as far as that is known before they are issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1h")]
    pub lifetime: Option<HumanDuration>,
}

impl AgentTemplate {
    /// What a process with these claims would be; nothing if they do not fulfil the selectors, or if one that the
    /// name needs is missing, has several texts, or cannot stand in a path.
    #[must_use]
    pub fn make(&self, trust_domain: &TrustDomain, claims: &Claims) -> Option<AgentIdentity> {
        if !self.selectors.fulfilled_by(claims) {
            return None;
        }
        let mut selectors = self.selectors.clone();
        let (mut path, mut rest) = (String::new(), self.path.as_str());
        while let Some((before, after)) = rest.split_once('{') {
            let (claim, after) = after.split_once('}')?;
            let texts = claims.value(claim)?.texts();
            let [text] = texts.as_slice() else { return None };
            if text.is_empty() || text.contains(['/', '{', '}']) {
                return None;
            }
            selectors.add(claim, text);
            path.extend([before, text.as_str()]);
            rest = after;
        }
        path.push_str(rest);
        Some(AgentIdentity {
            spiffe_id: trust_domain.member(&path).ok()?,
            selectors,
            alternatives: Vec::new(),
            hint: None,
            federates_with: Vec::new(),
            profile: self.profile.clone(),
            key_algorithm: self.key_algorithm,
            lifetime: self.lifetime,
            dns_names: Vec::new(),
        })
    }
}

/// What it takes to verify the members of a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BundleView {
    /// Whose.
    #[schema(value_type = String, example = "example.org")]
    pub trust_domain: TrustDomain,
    /// The roots, as base64 of their DER.
    pub x509_authorities: Vec<CertificateDer>,
    /// The keys of JWT-SVIDs.
    pub jwt_keys: JwksBundle,
    /// Rises whenever the bundle changes.
    pub sequence: u64,
    /// Seconds after which to look again.
    pub refresh_hint_seconds: u64,
}

/// Asks for certificates for workloads on the caller's node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentSvidsRequest {
    /// At most 1000; each succeeds or fails by itself.
    #[schema(max_items = 1000)]
    pub items: Vec<AgentSvidItem>,
}

/// One certificate for one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentSvidItem {
    /// Who it is for; one that the stream gave this node.
    #[schema(value_type = String, example = "spiffe://example.org/web")]
    pub identity: SpiffeId,
    /// The key, which the agent has made.
    pub key: PublicKeyDer,
    /// What the agent found out about the process.
    #[schema(value_type = Object, example = json!({"unix.uid": "1000"}))]
    pub claims: Claims,
}

/// Asks for a JWT-SVID for a workload on the caller's node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentJwtRequest {
    /// Who it is for; one that the stream gave this node.
    #[schema(value_type = String, example = "spiffe://example.org/web")]
    pub identity: SpiffeId,
    /// Who is to accept it: one at least.
    #[schema(min_items = 1, max_items = 16)]
    pub audiences: Vec<String>,
    /// What the agent found out about the process.
    #[schema(value_type = Object, example = json!({"unix.uid": "1000"}))]
    pub claims: Claims,
}

/// A JWT-SVID.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentJwtResponse {
    /// The token, JWS compact form. Whoever has it passes for the workload.
    #[serde(serialize_with = "expose_on_the_wire")]
    #[schema(value_type = String)]
    pub token: SecretString,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
}

/// Where to find what verifies our tokens (OpenID Connect Discovery 1.0, section 3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenIdConfiguration {
    /// What stands in `iss`.
    pub issuer: String,
    /// Where the keys are.
    pub jwks_uri: String,
    /// Required by the standard; nobody is sent there.
    pub authorization_endpoint: String,
    /// `id_token` alone.
    pub response_types_supported: Vec<String>,
    /// `public`: everybody sees the same subject.
    pub subject_types_supported: Vec<String>,
    /// How tokens are signed.
    pub id_token_signing_alg_values_supported: Vec<String>,
    /// The claims in every token.
    pub claims_supported: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_reads_back_and_says_its_revision() {
        let lines = [
            r#"{"event":"sync","revision":7,"identities":[],"bundle":{"trust_domain":"example.org","x509_authorities":["AQID"],"jwt_keys":{"keys":[]},"sequence":3,"refresh_hint_seconds":300}}"#,
            r#"{"event":"changed","revision":7,"identity":{"spiffe_id":"spiffe://example.org/web","selectors":{"unix.uid":"1000"},"profile":"workload","key_algorithm":"p256","lifetime":"1h"}}"#,
            r#"{"event":"removed","revision":7,"spiffe_id":"spiffe://example.org/web"}"#,
            r#"{"event":"template","revision":7,"template":{"name":"pods","path":"/ns/{k8s.ns}","selectors":{"k8s.cluster":"east"},"profile":"workload","key_algorithm":"p256"}}"#,
            r#"{"event":"template_removed","revision":7,"name":"pods"}"#,
            r#"{"event":"revoked","revision":7,"serials":[]}"#,
            r#"{"event":"renew","revision":7,"scope":"all","recorded_before":5,"until":"2027-01-15T08:00:00Z"}"#,
            r#"{"event":"renew","revision":7,"scope":{"issuer":2},"recorded_before":5,"until":"2027-01-15T08:00:00Z"}"#,
            r#"{"event":"heartbeat","revision":7}"#,
        ];
        for line in lines {
            let event: AgentEvent = serde_json::from_str(line).unwrap();
            assert_eq!(event.revision(), 7);
            assert_eq!(serde_json::to_string(&event).unwrap(), line);
        }
    }

    #[test]
    fn an_event_of_a_newer_server_may_say_more() {
        let line = r#"{"event":"heartbeat","revision":7,"load":"low"}"#;
        assert_eq!(serde_json::from_str::<AgentEvent>(line).unwrap(), AgentEvent::Heartbeat { revision: 7 });
    }

    #[test]
    fn refuses_requests_that_say_more_than_is_understood() {
        let item =
            r#"{"items":[{"identity":"spiffe://example.org/web","key":"AQID","claims":{},"dns":"x"}]}"#;
        assert!(serde_json::from_str::<AgentSvidsRequest>(item).is_err());
        let jwt = r#"{"identity":"spiffe://example.org/web","audiences":[],"claims":{},"lifetime":"1y"}"#;
        assert!(serde_json::from_str::<AgentJwtRequest>(jwt).is_err());
    }

    #[test]
    fn an_identity_is_matched_by_its_selectors_or_an_alternative_and_never_by_nothing() {
        let mut identity: AgentIdentity = serde_json::from_str(
            r#"{"spiffe_id":"spiffe://example.org/web","profile":"workload","key_algorithm":"p256"}"#,
        )
        .unwrap();
        let mut claims = Claims::new();
        claims.insert("unix.uid", "1000");
        claims.insert("unix.gid", "100");
        assert!(!identity.matches(&claims));
        identity.selectors = Selectors::from([("unix.uid", "1001")]);
        assert!(!identity.matches(&claims));
        identity.alternatives = vec![Selectors::from([("unix.gid", "100")])];
        assert!(identity.matches(&claims));
    }

    #[test]
    fn a_template_makes_an_identity_of_whole_claims_alone() {
        let template: AgentTemplate = serde_json::from_str(
            r#"{"name":"pods","path":"/ns/{k8s.ns}/sa/{k8s.sa}","selectors":{"k8s.cluster":"east"},
                "profile":"workload","key_algorithm":"p256"}"#,
        )
        .unwrap();
        let domain = TrustDomain::parse("example.org").unwrap();
        let make = |claims| template.make(&domain, &serde_json::from_value(claims).unwrap());
        let claims = serde_json::json!({"k8s.cluster": "east", "k8s.ns": "shop", "k8s.sa": "web"});
        let made = make(claims.clone()).unwrap();
        assert_eq!(made.spiffe_id.path(), "/ns/shop/sa/web");
        assert!(made.matches(&serde_json::from_value(claims.clone()).unwrap()));
        for wrong in ["a/b", "..", "", "{k8s.ns}"] {
            let mut claims = claims.clone();
            claims["k8s.sa"] = wrong.into();
            assert_eq!(make(claims), None, "{wrong}");
        }
        assert_eq!(make(serde_json::json!({"k8s.cluster": "east", "k8s.ns": "shop"})), None);
        assert_eq!(make(serde_json::json!({"k8s.ns": "shop", "k8s.sa": "web"})), None);
    }

    #[test]
    fn a_token_does_not_reach_a_log() {
        let response: AgentJwtResponse =
            serde_json::from_str(r#"{"token":"a.b.c","expires":"2026-01-01T00:00:00Z"}"#).unwrap();
        assert!(!format!("{response:?}").contains("a.b.c"));
        assert!(serde_json::to_string(&response).unwrap().contains("a.b.c"));
    }
}
