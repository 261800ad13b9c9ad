//! The profile as it is written in TOML, and the checks that make it a [`Profile`].

use std::str::FromStr;
use std::time::Duration;

use chancery_types::{
    AssuranceLevel, Digest, DnsName, HumanDuration, KeyAlgorithm, Sensitivity, TrustDomain, UriName,
};
use serde::Deserialize;

use super::names::{DomainPattern, NameForm, NameRules, UriKind};
use super::problem::{Problem, ProfileError};
use super::{AuthorityRules, Lifetime, Profile, Purpose, StatusChoice, SubjectForm};
use crate::extension::BasicConstraints;
use crate::name_constraints::{NameConstraints, Subtree};
use crate::usage::{ExtendedKeyUsage, KeyUsage, KeyUsages};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    name: String,
    description: String,
    purpose: String,
    #[serde(default = "default_sensitivity")]
    sensitivity: String,
    #[serde(default = "yes")]
    require_owner: bool,
    #[serde(default = "default_assurance")]
    minimum_assurance: String,
    renewable: bool,
    subject: String,
    lifetime: RawLifetime,
    keys: RawKeys,
    #[serde(default)]
    names: RawNames,
    status: RawStatus,
    authority: Option<RawAuthority>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLifetime {
    default: String,
    max: String,
    min: String,
    #[serde(default = "default_backdate")]
    backdate: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKeys {
    algorithms: Vec<String>,
    usage: Vec<String>,
    #[serde(default)]
    extended_usage: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawNames {
    #[serde(default)]
    max: usize,
    #[serde(default)]
    required: Vec<String>,
    uri: Option<RawUri>,
    dns: Option<RawDns>,
    ip: Option<RawIp>,
    email: Option<RawEmail>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUri {
    kind: String,
    prefixes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDns {
    domains: Vec<String>,
    #[serde(default)]
    wildcard: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIp {
    networks: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEmail {
    domains: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStatus {
    description: String,
    #[serde(default)]
    crl_distribution_point: bool,
    #[serde(default)]
    ocsp: bool,
    #[serde(default)]
    ca_issuers: bool,
    #[serde(default)]
    no_rev_avail: bool,
    #[serde(default)]
    ocsp_nocheck: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuthority {
    path_length: u8,
    #[serde(default)]
    permitted: RawSubtrees,
    #[serde(default)]
    excluded: RawSubtrees,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawSubtrees {
    #[serde(default)]
    dns: Vec<String>,
    #[serde(default)]
    uri: Vec<String>,
    #[serde(default)]
    email: Vec<String>,
    #[serde(default)]
    ip: Vec<String>,
}

fn yes() -> bool {
    true
}

fn default_sensitivity() -> String {
    "medium".to_owned()
}

fn default_assurance() -> String {
    "AL0".to_owned()
}

fn default_backdate() -> String {
    "60s".to_owned()
}

/// Reads and checks; see [`Profile::from_toml`].
pub(super) fn read(text: &str, trust_domain: &TrustDomain) -> Result<Profile, ProfileError> {
    if text.len() > Profile::MAX_TEXT {
        let why = format!("{} bytes, at most {} are read", text.len(), Profile::MAX_TEXT);
        return Err(ProfileError::one("", why));
    }
    let raw: RawProfile = toml::from_str(text).map_err(|error| ProfileError::one("", error.to_string()))?;
    let mut check = Checker { problems: Vec::new(), trust_domain };
    let profile = check.profile(raw, text);
    check.sense(&profile);
    if check.problems.is_empty() { Ok(profile) } else { Err(ProfileError { problems: check.problems }) }
}

/// Collects mistakes while it converts: every conversion yields something usable, so that the next can go on.
struct Checker<'a> {
    problems: Vec<Problem>,
    trust_domain: &'a TrustDomain,
}

impl Checker<'_> {
    fn refuse(&mut self, field: &str, why: impl ToString) {
        self.problems.push(Problem { field: field.to_owned(), why: why.to_string() });
    }

    fn profile(&mut self, raw: RawProfile, text: &str) -> Profile {
        Profile {
            text: text.to_owned(),
            hash: Digest::of(text.as_bytes()),
            purpose: self.one("purpose", &raw.purpose).unwrap_or(Purpose::Workload),
            sensitivity: self.one("sensitivity", &raw.sensitivity).unwrap_or(Sensitivity::Medium),
            requires_owner: raw.require_owner,
            minimum_assurance: self.assurance(&raw.minimum_assurance),
            is_renewable: raw.renewable,
            subject: self.subject(&raw.subject),
            lifetime: self.lifetime(&raw.lifetime),
            key_algorithms: self.list("keys.algorithms", &raw.keys.algorithms),
            key_usages: self.list::<KeyUsage>("keys.usage", &raw.keys.usage).into_iter().collect(),
            extended_key_usages: self.list("keys.extended_usage", &raw.keys.extended_usage),
            names: self.names(&raw.names),
            status: self.status(raw.status),
            authority: raw.authority.map(|raw| self.authority(&raw)),
            name: self.name(raw.name),
            description: self.sentence("description", raw.description),
        }
    }

    fn one<T: FromStr<Err: ToString>>(&mut self, field: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error: T::Err| self.refuse(field, error)).ok()
    }

    fn list<T: FromStr<Err: ToString> + PartialEq>(&mut self, field: &str, texts: &[String]) -> Vec<T> {
        let mut values = Vec::new();
        for text in texts {
            match self.one(field, text) {
                Some(value) if values.contains(&value) => {
                    self.refuse(field, format!("{text:?} stands twice"))
                }
                value => values.extend(value),
            }
        }
        values
    }

    fn name(&mut self, name: String) -> String {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
            self.refuse("name", format!("{name:?} is not 1 to 64 characters of a-z, 0-9 and dash"));
        }
        name
    }

    fn sentence(&mut self, field: &str, text: String) -> String {
        if text.trim().is_empty() || text.chars().count() > 512 || text.chars().any(char::is_control) {
            self.refuse(field, "1 to 512 characters without control characters are needed");
        }
        text
    }

    fn assurance(&mut self, text: &str) -> AssuranceLevel {
        let number = text.strip_prefix("AL").and_then(|number| number.parse().ok());
        number.and_then(AssuranceLevel::from_number).unwrap_or_else(|| {
            self.refuse("minimum_assurance", format!("{text:?} is not AL0, AL1, AL2, AL3 or AL4"));
            AssuranceLevel::Measured
        })
    }

    fn subject(&mut self, text: &str) -> SubjectForm {
        match text {
            "empty" => SubjectForm::Empty,
            "common-name" => SubjectForm::CommonName,
            "given" => SubjectForm::Given,
            _ => {
                self.refuse("subject", format!("{text:?} is not one of empty, common-name, given"));
                SubjectForm::Empty
            }
        }
    }

    fn lifetime(&mut self, raw: &RawLifetime) -> Lifetime {
        let mut duration =
            |field: &str, text: &str| self.one::<HumanDuration>(field, text).map(|duration| duration.0);
        let default = duration("lifetime.default", &raw.default);
        let max = duration("lifetime.max", &raw.max);
        let min = duration("lifetime.min", &raw.min);
        let backdate = duration("lifetime.backdate", &raw.backdate);
        if let (Some(default), Some(max), Some(min)) = (default, max, min) {
            if min > default || default > max {
                self.refuse("lifetime", "min, default and max must not decrease in this order");
            }
            if min < SHORTEST_LIFETIME {
                let why = format!("{} is shorter than {}", raw.min, HumanDuration(SHORTEST_LIFETIME));
                self.refuse("lifetime.min", why);
            }
            if max > LONGEST_LIFETIME {
                let why = format!("{} is longer than {}", raw.max, HumanDuration(LONGEST_LIFETIME));
                self.refuse("lifetime.max", why);
            }
        }
        if backdate.is_some_and(|backdate| backdate > LONGEST_BACKDATE) {
            let why = format!("{} is more than {}", raw.backdate, HumanDuration(LONGEST_BACKDATE));
            self.refuse("lifetime.backdate", why);
        }
        Lifetime {
            default: default.unwrap_or_default(),
            max: max.unwrap_or_default(),
            min: min.unwrap_or_default(),
            backdate: backdate.unwrap_or_default(),
        }
    }

    fn names(&mut self, raw: &RawNames) -> NameRules {
        let required = raw
            .required
            .iter()
            .filter_map(|text| {
                let form = NameForm::ALL.into_iter().find(|(_, known)| known == text);
                if form.is_none() {
                    self.refuse("names.required", format!("{text:?} is not one of uri, dns, ip, email"));
                }
                form.map(|(form, _)| form)
            })
            .collect();
        let rules = NameRules {
            max: raw.max,
            required,
            uri: raw.uri.as_ref().map(|raw| self.uri(raw)),
            dns: raw.dns.as_ref().map(|raw| (self.domains("names.dns.domains", &raw.domains), raw.wildcard)),
            ip: raw.ip.as_ref().map(|raw| self.patterns("names.ip.networks", &raw.networks)),
            email: raw.email.as_ref().map(|raw| self.domains("names.email.domains", &raw.domains)),
        };
        if rules.is_empty() != (rules.max == 0) || rules.max > MOST_NAMES {
            let why = format!("must be 1 to {MOST_NAMES} when names are allowed and 0 when none are");
            self.refuse("names.max", why);
        }
        for form in rules.required.clone() {
            if !rules.allows_form(form) {
                self.refuse(
                    "names.required",
                    format!("{form} names are demanded but [names.{form}] is missing"),
                );
            }
        }
        rules
    }

    fn uri(&mut self, raw: &RawUri) -> (UriKind, Vec<String>) {
        let kind = match raw.kind.as_str() {
            "spiffe" => UriKind::Spiffe,
            "any" => UriKind::Any,
            other => {
                self.refuse("names.uri.kind", format!("{other:?} is not one of spiffe, any"));
                UriKind::Spiffe
            }
        };
        let prefixes = self.filled("names.uri.prefixes", &raw.prefixes);
        for prefix in &prefixes {
            let sample = format!("{prefix}{}", if prefix.ends_with('/') { "x" } else { "" });
            let is_uri = UriName::parse(&sample);
            let is_spiffe = is_uri.as_ref().is_ok_and(|uri| uri.spiffe_id().is_some());
            if is_uri.is_err() {
                self.refuse("names.uri.prefixes", format!("{prefix:?} is not the beginning of a URI"));
            } else if kind == UriKind::Spiffe && !is_spiffe {
                self.refuse("names.uri.prefixes", format!("{prefix:?} is not the beginning of a SPIFFE ID"));
            }
        }
        (kind, prefixes)
    }

    /// The texts of a list that must not be empty, with the trust domain filled in.
    fn filled(&mut self, field: &str, texts: &[String]) -> Vec<String> {
        if texts.is_empty() {
            self.refuse(field, "an empty list allows nothing; leave the table out instead");
        }
        self.expand(field, texts)
    }

    fn expand(&mut self, field: &str, texts: &[String]) -> Vec<String> {
        let filled: Vec<String> =
            texts.iter().map(|text| text.replace(TRUST_DOMAIN, self.trust_domain.as_str())).collect();
        for (index, text) in filled.iter().enumerate() {
            if text.contains(['{', '}']) {
                self.refuse(field, format!("{text:?}: the only placeholder is {TRUST_DOMAIN}"));
            }
            if filled[..index].contains(text) {
                self.refuse(field, format!("{text:?} stands twice"));
            }
        }
        filled
    }

    fn patterns<T: FromStr<Err: ToString> + PartialEq>(&mut self, field: &str, texts: &[String]) -> Vec<T> {
        let texts = self.filled(field, texts);
        texts.iter().filter_map(|text| self.one(field, text)).collect()
    }

    fn domains(&mut self, field: &str, texts: &[String]) -> Vec<DomainPattern> {
        let texts = self.filled(field, texts);
        let mut patterns = Vec::new();
        for text in &texts {
            if text == "*" {
                patterns.push(DomainPattern::Any);
            } else if let Some(domain) = self.domain(field, text) {
                patterns.push(DomainPattern::Within(domain));
            }
        }
        patterns
    }

    fn domain(&mut self, field: &str, text: &str) -> Option<DnsName> {
        let domain: DnsName = self.one(field, text)?;
        if domain.is_wildcard() {
            self.refuse(
                field,
                format!("{text:?}: write the domain without *., it covers all names below it"),
            );
        }
        Some(domain)
    }

    fn status(&mut self, raw: RawStatus) -> StatusChoice {
        StatusChoice {
            description: self.sentence("status.description", raw.description),
            crl_distribution_point: raw.crl_distribution_point,
            ocsp: raw.ocsp,
            ca_issuers: raw.ca_issuers,
            no_rev_avail: raw.no_rev_avail,
            ocsp_nocheck: raw.ocsp_nocheck,
        }
    }

    fn authority(&mut self, raw: &RawAuthority) -> AuthorityRules {
        AuthorityRules {
            basic_constraints: BasicConstraints { is_authority: true, path_length: Some(raw.path_length) },
            name_constraints: NameConstraints {
                permitted: self.subtrees("authority.permitted", &raw.permitted),
                excluded: self.subtrees("authority.excluded", &raw.excluded),
            },
        }
    }

    fn subtrees(&mut self, table: &str, raw: &RawSubtrees) -> Vec<Subtree> {
        let mut subtrees = Vec::new();
        let field = |form: &str| format!("{table}.{form}");
        for text in self.expand(&field("dns"), &raw.dns) {
            subtrees.extend(self.domain(&field("dns"), &text).map(|name| Subtree::Dns(name.to_string())));
        }
        for text in self.expand(&field("uri"), &raw.uri) {
            self.host(&field("uri"), &text);
            subtrees.push(Subtree::Uri(text));
        }
        for text in self.expand(&field("email"), &raw.email) {
            self.host(&field("email"), text.rsplit_once('@').map_or(&text, |(_, host)| host));
            subtrees.push(Subtree::Email(text));
        }
        for text in self.expand(&field("ip"), &raw.ip) {
            subtrees.extend(self.one(&field("ip"), &text).map(Subtree::Ip));
        }
        subtrees
    }

    /// A host, or with a leading dot the hosts below it.
    fn host(&mut self, field: &str, text: &str) {
        let host = text.strip_prefix('.').unwrap_or(text);
        self.domain(field, host);
    }

    /// What the fields must not say together.
    fn sense(&mut self, profile: &Profile) {
        self.key_sense(profile);
        self.subject_sense(profile);
        self.status_sense(profile);
        self.authority_sense(profile);
    }

    fn key_sense(&mut self, profile: &Profile) {
        if profile.key_algorithms.is_empty() {
            self.refuse("keys.algorithms", "at least one is needed");
        }
        if profile.key_usages.is_empty() {
            self.refuse("keys.usage", "at least one is needed (X509-SVID section 4.3)");
        }
        let only_rsa = profile.key_algorithms.iter().all(|algorithm| algorithm.is_rsa());
        let encipherment = [KeyUsage::KeyEncipherment, KeyUsage::DataEncipherment];
        if !only_rsa && encipherment.iter().any(|usage| profile.key_usages.contains(*usage)) {
            self.refuse(
                "keys.usage",
                "encipherment is for RSA keys alone; leave it out or allow only RSA keys",
            );
        }
        if profile.key_algorithms.contains(&KeyAlgorithm::Ed25519)
            && profile.key_usages.contains(KeyUsage::KeyAgreement)
        {
            self.refuse("keys.usage", "Ed25519 keys sign and do not agree on keys (RFC 8410 section 5)");
        }
        let agrees = profile.key_usages.contains(KeyUsage::KeyAgreement);
        let only = [KeyUsage::EncipherOnly, KeyUsage::DecipherOnly];
        if !agrees && only.iter().any(|usage| profile.key_usages.contains(*usage)) {
            self.refuse(
                "keys.usage",
                "encipher-only and decipher-only need key-agreement (RFC 5280 section 4.2.1.3)",
            );
        }
        let signs_ocsp = profile.extended_key_usages.contains(&ExtendedKeyUsage::OcspSigning);
        if signs_ocsp && profile.extended_key_usages.len() > 1 {
            self.refuse(
                "keys.extended_usage",
                "ocsp-signing stands alone: a responder's key has no other use",
            );
        }
        if signs_ocsp != (profile.purpose == Purpose::OcspResponder) {
            self.refuse(
                "keys.extended_usage",
                "ocsp-signing belongs to the purpose ocsp-responder, and to it alone",
            );
        }
        let needed: &[ExtendedKeyUsage] = match profile.purpose {
            Purpose::Workload => &[ExtendedKeyUsage::ServerAuth, ExtendedKeyUsage::ClientAuth],
            Purpose::Server => &[ExtendedKeyUsage::ServerAuth],
            Purpose::Client | Purpose::Operator => &[ExtendedKeyUsage::ClientAuth],
            Purpose::Device | Purpose::OcspResponder | Purpose::Issuer => &[],
        };
        for usage in needed.iter().filter(|usage| !profile.extended_key_usages.contains(*usage)) {
            self.refuse("keys.extended_usage", format!("the purpose {} needs {usage}", profile.purpose));
        }
        let has_purpose_of_its_own = profile.purpose == Purpose::Issuer;
        if profile.extended_key_usages.is_empty() && !has_purpose_of_its_own {
            self.refuse(
                "keys.extended_usage",
                "at least one is needed: without any a certificate is good for all",
            );
        }
    }

    fn subject_sense(&mut self, profile: &Profile) {
        let own = matches!(profile.purpose, Purpose::Issuer | Purpose::OcspResponder);
        if own != (profile.subject == SubjectForm::Given) {
            self.refuse("subject", "given is for the purposes issuer and ocsp-responder, and for them alone");
        }
        if profile.names.is_empty() && profile.subject != SubjectForm::Given {
            self.refuse("names", "without names there must be a subject: allow names of some form");
        }
        if profile.subject == SubjectForm::Empty && profile.names.required.is_empty() {
            self.refuse("names.required", "with an empty subject some form of name must be demanded");
        }
        let needs_spiffe = matches!(profile.purpose, Purpose::Workload | Purpose::Operator);
        let demands_spiffe = profile.names.uri_kind() == Some(UriKind::Spiffe)
            && profile.names.required.contains(&NameForm::Uri);
        if needs_spiffe && !demands_spiffe {
            let why = format!(
                "the purpose {} needs [names.uri] kind = \"spiffe\" and required = [\"uri\"]",
                profile.purpose
            );
            self.refuse("names.uri", why);
        }
    }

    fn status_sense(&mut self, profile: &Profile) {
        let status = &profile.status;
        let points = status.crl_distribution_point || status.ocsp;
        if status.no_rev_avail && points {
            self.refuse(
                "status.no_rev_avail",
                "excludes crl_distribution_point and ocsp (RFC 9608 section 2)",
            );
        }
        if status.no_rev_avail && profile.is_authority() {
            self.refuse("status.no_rev_avail", "is never for authorities (RFC 9608 section 2)");
        }
        let responder = profile.purpose == Purpose::OcspResponder;
        if status.ocsp_nocheck && !responder {
            self.refuse(
                "status.ocsp_nocheck",
                "is for the purpose ocsp-responder alone (RFC 6960 section 4.2.2.2.1)",
            );
        }
        if responder && status.ocsp {
            self.refuse(
                "status.ocsp",
                "a responder cannot answer for itself; use ocsp_nocheck and a short lifetime",
            );
        }
        if responder && status.ocsp_nocheck && profile.lifetime.max > LONGEST_NOCHECK {
            let why = format!(
                "a responder that cannot be revoked lives at most {}",
                HumanDuration(LONGEST_NOCHECK)
            );
            self.refuse("lifetime.max", why);
        }
        if status.no_rev_avail && profile.lifetime.max > LONGEST_UNREVOCABLE {
            let why = format!(
                "what cannot be revoked lives at most {} (CA/B BR 1.6.1, short-lived)",
                HumanDuration(LONGEST_UNREVOCABLE)
            );
            self.refuse("lifetime.max", why);
        }
    }

    fn authority_sense(&mut self, profile: &Profile) {
        if profile.is_authority() != (profile.purpose == Purpose::Issuer) {
            self.refuse("authority", "belongs to the purpose issuer, and to it alone");
        }
        let signs_certificates = profile.key_usages.contains(KeyUsage::KeyCertSign);
        if profile.is_authority() && profile.key_usages != KeyUsages::AUTHORITY {
            self.refuse("keys.usage", "an issuer has key-cert-sign and crl-sign, and nothing else");
        }
        if !profile.is_authority() && (signs_certificates || profile.key_usages.contains(KeyUsage::CrlSign)) {
            self.refuse("keys.usage", "key-cert-sign and crl-sign are for issuers alone");
        }
        if profile.is_authority() && profile.is_renewable {
            self.refuse("renewable", "issuers are rotated, not renewed");
        }
    }
}

/// What stands for the trust domain in patterns.
const TRUST_DOMAIN: &str = "{trust-domain}";
/// CA/B BR 7.1.2.7: a bound on names; far above what a workload has.
const MOST_NAMES: usize = 100;
const SHORTEST_LIFETIME: Duration = Duration::from_secs(60);
/// Ten years: nothing but a root lives longer.
const LONGEST_LIFETIME: Duration = Duration::from_secs(3660 * 86_400);
/// Clocks that are further off break TLS anyway.
const LONGEST_BACKDATE: Duration = Duration::from_secs(24 * 3600);
const LONGEST_NOCHECK: Duration = Duration::from_secs(7 * 86_400);
/// CA/B BR since 2026-03-15: a certificate of up to seven days need not be revocable.
const LONGEST_UNREVOCABLE: Duration = Duration::from_secs(7 * 86_400);
