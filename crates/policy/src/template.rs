//! Templates: identities that come into being when somebody enrols, in a shape that was fixed beforehand.

use std::collections::BTreeMap;

use chancery_types::{
    AssuranceLevel, HumanDuration, Identity, IdentityError, Sensitivity, SpiffeIdError, Timestamp,
    TrustDomain,
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
    /// Checks the template itself: that its path has well-formed placeholders, and that restricted parameters
    /// occur in it.
    ///
    /// # Errors
    /// [`TemplateError::Braces`] or [`TemplateError::Unknown`].
    pub fn check(&self) -> Result<(), TemplateError> {
        let names = self.placeholders()?;
        match self.parameters.keys().find(|name| !names.contains(&name.as_str())) {
            Some(parameter) => Err(self.unknown(parameter)),
            None => Ok(()),
        }
    }

    /// The identity that it makes of these parameters, at this moment.
    ///
    /// # Errors
    /// [`TemplateError`] when a parameter is missing, unknown or not allowed.
    pub fn expand(
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
