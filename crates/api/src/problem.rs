//! Problem documents (RFC 9457): what went wrong, whose fault it is, and what to do next.
//!
//! The code is the stable part: programs branch on it, `docs/ERRORS.md` lists it. HTTP statuses are chosen by
//! the server alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type of a problem document (RFC 9457 section 3).
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// A problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem: `urn:chancery:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem, for people. Does not change from occurrence to occurrence.
    pub title: String,
    /// The HTTP status that the server sent with this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The stable code; `docs/ERRORS.md` lists all of them. A newer server may send one that is not listed.
    pub code: String,
    /// What went wrong this time. For people; may change between versions.
    pub detail: String,
    /// Names this request in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Seconds after which the same request may succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// What is wrong with which part of the request, when that can be said; all of it at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
}

/// What is wrong with one part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldProblem {
    /// The part, as a JSON pointer into the body (RFC 6901), a query parameter's name, or a lint's id.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:chancery:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: None,
            code: code.as_str().to_owned(),
            detail: detail.into(),
            request_id: None,
            retry_after: None,
            errors: Vec::new(),
        }
    }

    /// The kind of problem; nothing for a code that this version does not know.
    #[must_use]
    pub fn known_code(&self) -> Option<ProblemCode> {
        self.code.parse().ok()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.detail, self.code)?;
        for error in &self.errors {
            write!(formatter, "; {}: {}", error.pointer, error.detail)?;
        }
        if let Some(code) = self.known_code() {
            write!(formatter, "; {}", code.advice())?;
        }
        if let Some(request_id) = &self.request_id {
            write!(formatter, " [request {request_id}]")?;
        }
        Ok(())
    }
}

/// A text is not a problem code that this version knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a problem code of this version; upgrade the client, or read docs/ERRORS.md")]
pub struct UnknownProblemCode(String);

macro_rules! problem_codes {
    ($($variant:ident, $text:literal, $title:literal, $advice:literal;)*) => {
        /// Every kind of problem that the server reports.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ProblemCode {
            $(#[doc = $title] $variant,)*
        }

        impl ProblemCode {
            /// All of them, in the order of `docs/ERRORS.md`.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The kind of problem, for people.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What the caller should do next, in one line.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }
        }
    };
}

problem_codes! {
    MalformedRequest, "malformed-request", "The request cannot be read.",
        "correct the parts named in errors; docs/openapi.json describes every request";
    UnsupportedMediaType, "unsupported-media-type", "The body is not of the expected media type.",
        "send the body as application/json, or as application/ocsp-request to the OCSP responder";
    InvalidCsr, "invalid-csr", "The certificate request is damaged or its signature does not verify.",
        "make the request anew with the key that it is for, and send PEM or base64 of the DER";
    KeyRefused, "key-refused", "The public key is weak, known to be compromised, or already somebody else's.",
        "generate a new key of a type that the profile allows";
    UnknownProfile, "unknown-profile", "There is no such profile.",
        "ask for a profile that the identity lists; `chancery profile list` shows them";
    OutsideProfile, "outside-profile", "The profile does not allow what was asked for.",
        "ask for less, or have the profile or the identity changed";
    ExtensionRefused, "extension-refused", "The request asks for a critical extension that is not issued.",
        "leave the extension out of the request, or do not mark it critical";
    LintFailed, "lint-failed", "The certificate would break a rule, so it was not signed.",
        "read errors for the lints and their sources, and correct the identity or the profile";
    InvalidIdentity, "invalid-identity", "The identity document cannot be registered.",
        "correct the parts named in errors";
    InvalidTemplate, "invalid-template", "The template or its parameters do not make an identity.",
        "correct the parts named in errors";
    TooManyItems, "too-many-items", "A list in the request is too long.",
        "split the request; the detail names the limit";
    IdempotencyKeyInvalid, "idempotency-key-invalid", "The Idempotency-Key header is missing or not usable.",
        "send 1 to 128 visible ASCII characters, chosen at random for each new request";
    IdempotencyKeyReused, "idempotency-key-reused", "The idempotency key was used for another request.",
        "choose a new key for a new request; repeat the first request byte for byte to have its answer";
    IdempotencyInProgress, "idempotency-in-progress", "The first request with this idempotency key still runs.",
        "wait for retry_after and repeat the request";
    CertificateRequired, "certificate-required", "This operation needs a client certificate.",
        "connect with the certificate that this authority issued to you";
    CertificateNotAccepted, "certificate-not-accepted", "The client certificate is not accepted.",
        "enrol again: the certificate has expired, was revoked or held, or is of another authority";
    NotPermitted, "not-permitted", "Your role does not permit this operation.",
        "ask an operator with a role that permits it; `chancery policy check` explains";
    EvidenceRefused, "evidence-refused", "The evidence does not prove anything.",
        "get new evidence: a new join token, or a proof with a new nonce";
    EvidenceExpired, "evidence-expired", "The evidence was good once and is too old now.",
        "get new evidence: a new join token, or a proof with a new nonce";
    TokenSpent, "token-spent", "The join token was used before.",
        "ask for a new token; if you did not use this one, somebody else did: report it";
    NonceUnknown, "nonce-unknown", "The nonce is not one of ours, was used before, or has expired.",
        "ask for a nonce and answer it within two minutes";
    NoMatchingIdentity, "no-matching-identity", "No registered identity matches what was proved.",
        "have the identity registered, or name it when the evidence matches several";
    AmbiguousIdentity, "ambiguous-identity", "Several registered identities match what was proved.",
        "name the one you want in the field identity";
    IdentityHeld, "identity-held", "The identity is on hold.",
        "wait until an operator releases it";
    IdentityRetired, "identity-retired", "The identity is retired.",
        "register a new identity under another name; retired names do not come back";
    PolicyDenied, "policy-denied", "Policy does not permit this.",
        "the detail names the smallest change that would permit it";
    LineageForked, "lineage-forked", "Two holders renewed from one certificate, so both are on hold.",
        "find out which copy is genuine, revoke the lineage, and enrol again";
    CertificateRevoked, "certificate-revoked", "The certificate is revoked or on hold, so it cannot be renewed.",
        "enrol again with fresh evidence, if the identity is still permitted";
    RootRefused, "root-refused", "The root cannot follow those that are trusted.",
        "make it with `chancery root rotate` where a root that is trusted is at hand, and send the file that it wrote";
    KeyProofRefused, "key-proof-refused", "The proof does not show that you hold the key.",
        "sign a new nonce with the key that is to be revoked";
    NotFound, "not-found", "There is no such thing here.",
        "check the path and the identifier";
    MethodNotAllowed, "method-not-allowed", "The path exists, but not for this method.",
        "use a method that the Allow header names";
    AlreadyExists, "already-exists", "Something with this name exists.",
        "change the existing one, or choose another name";
    VersionConflict, "version-conflict", "It was changed in the meantime.",
        "read it again and repeat the change on the new version";
    ApprovalNeeded, "approval-needed", "So much may be changed only with a second operator's approval.",
        "select less, or repeat the request with yes_really and have another operator approve it";
    SameOperator, "same-operator", "Whoever asked for a change cannot approve it.",
        "have another operator approve it, with a certificate of their own";
    ScopeGrown, "scope-grown", "More would be changed now than was asked for.",
        "look at it again with a dry run, withdraw the change, and ask for a new one";
    NotInThisState, "not-in-this-state", "The thing is not in a state that this operation starts from.",
        "read its state; the detail names the states that would do";
    RequestTimeout, "request-timeout", "The request did not arrive, or was not answered, in time.",
        "repeat the request; with its idempotency key it is not done twice";
    BodyTooLarge, "body-too-large", "The body is too large.",
        "send less at once; the detail names the limit";
    RateLimited, "rate-limited", "Too many requests from you.",
        "wait for retry_after, or spread the requests or use a batch";
    Overloaded, "overloaded", "The server has more to do than it can.",
        "wait for retry_after and repeat the request";
    ShuttingDown, "shutting-down", "The server is stopping.",
        "repeat the request: another server, or this one once it is back, will answer";
    NotReady, "not-ready", "The server cannot issue yet.",
        "operators: see /v1/readyz for what is missing; others: wait for retry_after";
    LedgerUnavailable, "ledger-unavailable", "The ledger takes no entries, so nothing can be issued or changed.",
        "operators: see docs/OPERATING.md, the disk may be full; others: wait for retry_after";
    KeyUnavailable, "key-unavailable", "A signing key cannot be used.",
        "operators: check the key store; others: repeat with the same idempotency key after retry_after";
    Internal, "internal", "The server failed.",
        "report the request_id to the operators; the cause is in the server's log under it";
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for ProblemCode {
    type Err = UnknownProblemCode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| UnknownProblemCode(text.chars().take(60).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_kebab_case_unique_and_read_back() {
        for (position, code) in ProblemCode::ALL.iter().enumerate() {
            assert!(code.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
            assert_eq!(code.as_str().parse::<ProblemCode>().unwrap(), *code);
            assert_eq!(ProblemCode::ALL.iter().position(|other| other == code), Some(position));
            assert!(code.title().ends_with('.') && !code.advice().ends_with('.'));
        }
    }

    #[test]
    fn a_problem_of_a_newer_server_is_read() {
        let text = r#"{"type":"urn:x","title":"T","code":"from-the-future","detail":"d","extra":[1]}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(problem.known_code(), None);
        assert_eq!(problem.to_string(), "d (from-the-future)");
        assert!("from-the-future".parse::<ProblemCode>().is_err());
    }

    #[test]
    fn a_problem_prints_everything_that_helps() {
        let mut problem = Problem::new(ProblemCode::MalformedRequest, "two fields are wrong");
        problem.request_id = Some("r1".into());
        problem.errors = vec![FieldProblem { pointer: "/csr".into(), detail: "empty".into() }];
        let text = problem.to_string();
        for part in ["two fields are wrong", "malformed-request", "/csr: empty", "docs/openapi.json", "r1"] {
            assert!(text.contains(part), "{text}");
        }
        let wire = serde_json::to_value(&problem).unwrap();
        assert_eq!(wire["type"], "urn:chancery:problem:malformed-request");
        assert_eq!(serde_json::from_value::<Problem>(wire).unwrap(), problem);
    }
}
