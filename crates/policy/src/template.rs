//! Templates: identities that come into being when somebody enrols, in a shape that was fixed beforehand.

use std::collections::BTreeMap;

use chancery_attest::is_workload_claim;
use chancery_types::{
    AssuranceLevel, Claims, HumanDuration, Identity, IdentityError, Selectors, Sensitivity, SpiffeId,
    SpiffeIdError, Timestamp, TrustDomain,
};
use serde::{Deserialize, Serialize};

/// Longest value of a parameter, in bytes.
const MAX_VALUE: usize = 128;

/// A template. Its JSON form is the document that operators register and the ledger keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityTemplate {
    /// Its name.
    pub name: String,
    /// The path of the SPIFFE IDs that it makes; `{name}` stands for a parameter and fills one whole segment or
    /// a part of one.
    pub path: String,
    /// For parameters that may not be just anything: the values allowed, with a final `*` for any rest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Vec<String>>,
    /// Who answers for what it makes. No owner, no issuance.
    #[serde(default)]
    pub owner: String,
    /// The owner's team.
    #[serde(default)]
    pub team: String,
    /// What it is for, in a sentence.
    #[serde(default)]
    pub purpose: String,
    /// `prod`, `staging`, ...
    #[serde(default)]
    pub environment: String,
    /// How bad abuse is.
    #[serde(default)]
    pub sensitivity: Sensitivity,
    /// Profiles that what it makes may use, the default first; empty: `workload` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// A lifetime of certificates shorter than the profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<HumanDuration>,
    /// The least assurance of evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_assurance: Option<AssuranceLevel>,
    /// How long an identity made from it lives; for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_lifetime: Option<HumanDuration>,
    /// Claims that a process must fulfil to become one of its identities: all. A template with these is for
    /// processes: its parameters are claims, such as `{k8s.ns}`, and no token is made for it.
    #[serde(default, skip_serializing_if = "Selectors::is_empty")]
    pub selectors: Selectors,
    /// For processes: nodes whose agents may ask for what it makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<SpiffeId>,
    /// For processes: claims that make any node that fulfils them such a parent.
    #[serde(default, skip_serializing_if = "Selectors::is_empty")]
    pub node_selectors: Selectors,
}

/// Why a template makes no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The path has an opening brace without a closing one, or the other way round, or an empty name.
    #[error("template {template}: the path {path:?} has a brace without its partner or an empty name")]
    Braces {
        /// The template.
        template: String,
        /// Its path.
        path: String,
    },
    /// A parameter of the path has no value.
    #[error("template {template} needs a value for {parameter}")]
    Missing {
        /// The template.
        template: String,
        /// The parameter.
        parameter: String,
    },
    /// A value is given for something that is no parameter.
    #[error("template {template} has no parameter {parameter}")]
    Unknown {
        /// The template.
        template: String,
        /// What was given.
        parameter: String,
    },
    /// A value is not one of those allowed, or cannot stand in a path.
    #[error("template {template} does not allow {value:?} for {parameter}{}", allowed_text(.allowed))]
    Value {
        /// The template.
        template: String,
        /// The parameter.
        parameter: String,
        /// The beginning of its value.
        value: String,
        /// What is allowed; empty: anything that can stand in one segment of a path.
        allowed: Vec<String>,
    },
    /// Selectors without nodes, or the other way round: nobody could ask for what it makes.
    #[error("template {0} has selectors or nodes, but not both; what it makes of processes needs both")]
    Halved(String),
    /// A template for processes has a parameter that no agent finds out.
    #[error("template {template}: {parameter} is not a claim that agents make of processes, such as k8s.ns")]
    NotAClaim {
        /// The template.
        template: String,
        /// The parameter.
        parameter: String,
    },
    /// A template for tokens was given claims, or one for processes parameters.
    #[error("template {0} makes its identities of processes where it has selectors, else of tokens")]
    Purpose(String),
    /// What comes out is not a SPIFFE ID.
    #[error("template {template}: {error}")]
    SpiffeId {
        /// The template.
        template: String,
        /// What is wrong.
        error: SpiffeIdError,
    },
    /// What comes out is not an identity.
    #[error("template {template}: {error}")]
    Identity {
        /// The template.
        template: String,
        /// What is wrong.
        error: IdentityError,
    },
}

impl IdentityTemplate {
    /// Checks the template itself: that its path has well-formed placeholders, that restricted parameters occur in
    /// it, and that one for processes can be asked for and has claims for parameters.
    ///
    /// # Errors
    /// [`TemplateError::Braces`], [`TemplateError::Unknown`], [`TemplateError::Halved`] or
    /// [`TemplateError::NotAClaim`].
    pub fn check(&self) -> Result<(), TemplateError> {
        let names = self.placeholders()?;
        if self.is_for_processes() == (self.parents.is_empty() && self.node_selectors.is_empty()) {
            return Err(TemplateError::Halved(self.name.clone()));
        }
        if self.is_for_processes()
            && let Some(parameter) = names.iter().find(|name| !is_workload_claim(name))
        {
            let parameter = parameter.chars().take(80).collect();
            return Err(TemplateError::NotAClaim { template: self.name.clone(), parameter });
        }
        match self.parameters.keys().find(|name| !names.contains(&name.as_str())) {
            Some(parameter) => Err(self.unknown(parameter)),
            None => Ok(()),
        }
    }

    /// Whether processes become its identities, rather than holders of tokens.
    #[must_use]
    pub fn is_for_processes(&self) -> bool {
        !self.selectors.is_empty()
    }

    /// Whether the agent of this node may ask for what it makes.
    #[must_use]
    pub fn is_served_by(&self, node: &SpiffeId, claims: &Claims) -> bool {
        self.is_for_processes() && (self.parents.contains(node) || self.node_selectors.fulfilled_by(claims))
    }

    /// The identity that it makes of a process with these claims, at this moment; none if they do not fulfil its
    /// selectors. What is made has selectors of its own: the template's, and every claim that its name has.
    ///
    /// # Errors
    /// [`TemplateError`] when a claim is missing, has several texts, or cannot stand in a path.
    pub fn expand_claims(
        &self,
        trust_domain: &TrustDomain,
        claims: &Claims,
        now: Timestamp,
    ) -> Result<Option<Identity>, TemplateError> {
        if !self.selectors.fulfilled_by(claims) {
            return Ok(None);
        }
        self.check()?;
        let names = self.placeholders()?.into_iter();
        let of_claim = |name: &str| match claims.value(name)?.texts().as_slice() {
            [only] => Some((name.to_owned(), only.clone())),
            // None of several is the one.
            _ => None,
        };
        let parameters: BTreeMap<String, String> = names.filter_map(of_claim).collect();
        let mut selectors = self.selectors.clone();
        for (claim, text) in &parameters {
            selectors.add(claim, text);
        }
        let (parents, node_selectors) = (self.parents.clone(), self.node_selectors.clone());
        let made = self.make(trust_domain, &parameters, now)?;
        let identity = Identity { selectors, parents, node_selectors, ..made };
        identity.check().map_err(|error| TemplateError::Identity { template: self.name.clone(), error })?;
        Ok(Some(identity))
    }

    /// The identity that it makes of these parameters, at this moment.
    ///
    /// # Errors
    /// [`TemplateError`] when a parameter is missing, unknown or not allowed, or the template is for processes.
    pub fn expand(
        &self,
        trust_domain: &TrustDomain,
        parameters: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<Identity, TemplateError> {
        if self.is_for_processes() {
            return Err(TemplateError::Purpose(self.name.clone()));
        }
        self.make(trust_domain, parameters, now)
    }

    fn make(
        &self,
        trust_domain: &TrustDomain,
        parameters: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<Identity, TemplateError> {
        let names = self.placeholders()?;
        if let Some(parameter) = parameters.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(self.unknown(parameter));
        }
        let mut path = self.path.clone();
        for parameter in names {
            let value = parameters.get(parameter).ok_or_else(|| TemplateError::Missing {
                template: self.name.clone(),
                parameter: parameter.to_owned(),
            })?;
            self.check_value(parameter, value)?;
            path = path.replace(&format!("{{{parameter}}}"), value);
        }
        let spiffe_id = trust_domain
            .member(&path)
            .map_err(|error| TemplateError::SpiffeId { template: self.name.clone(), error })?;
        let identity = Identity {
            team: self.team.clone(),
            purpose: self.purpose.clone(),
            environment: self.environment.clone(),
            sensitivity: self.sensitivity,
            expires: self.identity_lifetime.map(|lifetime| now + lifetime.0),
            profiles: self.profiles.clone(),
            max_lifetime: self.max_lifetime,
            minimum_assurance: self.minimum_assurance,
            ..Identity::new(spiffe_id, &self.owner)
        };
        identity.check().map_err(|error| TemplateError::Identity { template: self.name.clone(), error })?;
        Ok(identity)
    }

    fn placeholders(&self) -> Result<Vec<&str>, TemplateError> {
        let braces = || TemplateError::Braces { template: self.name.clone(), path: self.path.clone() };
        let mut names = Vec::new();
        let mut rest = self.path.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(braces)?;
            if before.contains('}') || name.is_empty() || name.contains('{') {
                return Err(braces());
            }
            if !names.contains(&name) {
                names.push(name);
            }
            rest = after;
        }
        if rest.contains('}') { Err(braces()) } else { Ok(names) }
    }

    fn check_value(&self, parameter: &str, value: &str) -> Result<(), TemplateError> {
        let allowed = self.parameters.get(parameter);
        let in_segment = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let fits = !value.is_empty() && value.len() <= MAX_VALUE && value.bytes().all(in_segment);
        if fits && allowed.is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, value))) {
            return Ok(());
        }
        Err(TemplateError::Value {
            template: self.name.clone(),
            parameter: parameter.to_owned(),
            value: value.chars().take(80).collect(),
            allowed: allowed.cloned().unwrap_or_default(),
        })
    }

    fn unknown(&self, parameter: &str) -> TemplateError {
        TemplateError::Unknown {
            template: self.name.clone(),
            parameter: parameter.chars().take(80).collect(),
        }
    }
}

fn matches(pattern: &str, value: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => value.starts_with(beginning),
        None => value == pattern,
    }
}

fn allowed_text(allowed: &[String]) -> String {
    if allowed.is_empty() {
        return "; it must fit into one segment of a path".to_owned();
    }
    format!("; it allows {}", allowed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> IdentityTemplate {
        serde_json::from_str(
            r#"{"name":"ci","path":"/ci/{repo}/job-{job}","owner":"ada@example.org",
                "parameters":{"repo":["web","api-*"]},"identity_lifetime":"1d","environment":"ci"}"#,
        )
        .unwrap()
    }

    fn expand(parameters: &[(&str, &str)]) -> Result<Identity, TemplateError> {
        let parameters = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let trust_domain = TrustDomain::parse("example.org").unwrap();
        template().expand(&trust_domain, &parameters, Timestamp::from_seconds(1000))
    }

    #[test]
    fn fills_parameters_into_the_path_and_copies_the_rest() {
        let identity = expand(&[("repo", "api-x"), ("job", "build")]).unwrap();
        assert_eq!(identity.spiffe_id.as_str(), "spiffe://example.org/ci/api-x/job-build");
        assert_eq!(identity.owner, "ada@example.org");
        assert_eq!(identity.environment, "ci");
        assert_eq!(identity.expires, Some(Timestamp::from_seconds(1000 + 86_400)));
    }

    fn pods() -> IdentityTemplate {
        serde_json::from_str(
            r#"{"name":"pods","path":"/ns/{k8s.ns}/sa/{k8s.sa}","owner":"ada","selectors":{"k8s.cluster":"east"},
                "parents":["spiffe://example.org/node/a"],"parameters":{"k8s.ns":["shop-*"]}}"#,
        )
        .unwrap()
    }

    fn expand_pod(claims: serde_json::Value) -> Result<Option<Identity>, TemplateError> {
        let claims = serde_json::from_value(claims).unwrap();
        pods().expand_claims(&TrustDomain::parse("example.org").unwrap(), &claims, Timestamp::default())
    }

    #[test]
    fn makes_of_a_process_what_only_such_a_process_is() {
        let claims = serde_json::json!({"k8s.cluster": "east", "k8s.ns": "shop-1", "k8s.sa": ["web"]});
        let identity = expand_pod(claims).unwrap().unwrap();
        assert_eq!(identity.spiffe_id.as_str(), "spiffe://example.org/ns/shop-1/sa/web");
        let all = [("k8s.cluster", "east"), ("k8s.ns", "shop-1"), ("k8s.sa", "web")];
        assert_eq!(identity.selectors, all.into());
        assert_eq!(identity.parents, pods().parents);
        let elsewhere = serde_json::json!({"k8s.cluster": "west", "k8s.ns": "shop-1", "k8s.sa": "web"});
        assert_eq!(expand_pod(elsewhere), Ok(None));
    }

    #[test]
    fn refuses_claims_that_are_missing_several_or_no_segment_of_a_path() {
        for (account, is_missing) in [
            (serde_json::json!(null), true),
            (serde_json::json!([]), true),
            (serde_json::json!(["web", "db"]), true),
            (serde_json::json!("web/../admin"), false),
            (serde_json::json!("a/b"), false),
            (serde_json::json!(""), false),
            (serde_json::json!("%2e%2e"), false),
            (serde_json::json!("{k8s.ns}"), false),
        ] {
            let mut claims = serde_json::json!({"k8s.cluster": "east", "k8s.ns": "shop-1"});
            if !account.is_null() {
                claims["k8s.sa"] = account.clone();
            }
            match expand_pod(claims) {
                Err(TemplateError::Missing { .. }) => assert!(is_missing, "{account}"),
                Err(TemplateError::Value { .. }) => assert!(!is_missing, "{account}"),
                other => panic!("{account}: {other:?}"),
            }
        }
        for account in ["..", "."] {
            let claims = serde_json::json!({"k8s.cluster": "east", "k8s.ns": "shop-1", "k8s.sa": account});
            assert!(matches!(expand_pod(claims), Err(TemplateError::SpiffeId { .. })), "{account}");
        }
        let claims = serde_json::json!({"k8s.cluster": "east", "k8s.ns": "kube-system", "k8s.sa": "web"});
        assert!(matches!(expand_pod(claims), Err(TemplateError::Value { .. })));
    }

    #[test]
    fn a_template_for_processes_takes_only_what_agents_claim_and_no_tokens() {
        assert_eq!(pods().check(), Ok(()));
        for parameter in ["node.id", "token.id", "x509.cn", "ns"] {
            let path = format!("/ns/{{k8s.ns}}/{{{parameter}}}");
            let other = IdentityTemplate { path, ..pods() };
            assert!(matches!(other.check(), Err(TemplateError::NotAClaim { .. })), "{parameter}");
        }
        let nobodys = IdentityTemplate { parents: Vec::new(), ..pods() };
        assert!(matches!(nobodys.check(), Err(TemplateError::Halved(_))));
        let everybodys = IdentityTemplate { selectors: Selectors::new(), ..pods() };
        assert!(matches!(everybodys.check(), Err(TemplateError::Halved(_))));
        let domain = TrustDomain::parse("example.org").unwrap();
        let by_token = pods().expand(&domain, &BTreeMap::new(), Timestamp::default());
        assert!(matches!(by_token, Err(TemplateError::Purpose(_))));
        let of_tokens = template().expand_claims(&domain, &Claims::new(), Timestamp::default());
        assert_eq!(of_tokens, Ok(None));
    }

    #[test]
    fn refuses_missing_unknown_and_forbidden_parameters() {
        assert!(matches!(expand(&[("repo", "web")]), Err(TemplateError::Missing { .. })));
        assert!(matches!(
            expand(&[("repo", "web"), ("job", "x"), ("more", "y")]),
            Err(TemplateError::Unknown { .. })
        ));
        for value in ["other", "webb", "", "api-x/../../admin", "{job}", "api-é"] {
            assert!(
                matches!(expand(&[("repo", value), ("job", "x")]), Err(TemplateError::Value { .. })),
                "{value}"
            );
        }
        assert!(matches!(
            expand(&[("repo", "web"), ("job", &"x".repeat(129))]),
            Err(TemplateError::Value { .. })
        ));
    }

    #[test]
    fn refuses_paths_with_broken_braces_or_dots() {
        for path in ["/a/{b", "/a/b}", "/{}/x", "/{a{b}}", "/}{"] {
            let broken =
                IdentityTemplate { path: path.to_owned(), parameters: BTreeMap::new(), ..template() };
            assert!(matches!(broken.check(), Err(TemplateError::Braces { .. })), "{path}");
        }
        let unused = IdentityTemplate { path: "/a/{job}".to_owned(), ..template() };
        assert!(matches!(unused.check(), Err(TemplateError::Unknown { .. })));
        let dots =
            IdentityTemplate { path: "/ci/{repo}".to_owned(), parameters: BTreeMap::new(), ..template() };
        let parameters = BTreeMap::from([("repo".to_owned(), "..".to_owned())]);
        let trust_domain = TrustDomain::parse("example.org").unwrap();
        let result = dots.expand(&trust_domain, &parameters, Timestamp::default());
        assert!(matches!(result, Err(TemplateError::SpiffeId { .. })));
    }
}
