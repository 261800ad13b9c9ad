//! Every operation of the interface, as one list: what the server routes, what clients call, what policy is
//! asked about, and what the OpenAPI description describes are all derived from it.

use std::fmt;

/// The methods that are used (RFC 9110 section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Does.
    Post,
    /// Replaces.
    Put,
    /// Changes a part (RFC 5789).
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// As it stands in a request line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Who an operation is for. Policy is asked in every case; this says what a caller must show to be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    /// Anybody who can reach the server.
    Anybody,
    /// Whoever brings evidence in the request.
    Evidence,
    /// The holder of a certificate of ours that is in force, on the connection.
    Holder,
    /// An operator: a certificate of the operator profile, or the admin socket.
    Operator,
}

/// A variable part of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathParameter {
    /// Its name.
    pub name: &'static str,
    /// Whether it takes the rest of the path, slashes included.
    pub rest: bool,
}

macro_rules! operations {
    ($($variant:ident, $id:literal, $method:ident, $path:literal, $audience:ident, $summary:literal;)*) => {
        /// Every operation of the interface.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Operation {
            $(#[doc = $summary] $variant,)*
        }

        impl Operation {
            /// All of them, in the order of the description.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable name: in the description, in metrics and in logs.
            #[must_use]
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)* }
            }

            /// The method.
            #[must_use]
            pub fn method(self) -> Method {
                match self { $(Self::$variant => Method::$method,)* }
            }

            /// The path, with `{name}` for one segment and `{*name}` for the rest.
            #[must_use]
            pub fn path(self) -> &'static str {
                match self { $(Self::$variant => $path,)* }
            }

            /// Who it is for.
            #[must_use]
            pub fn audience(self) -> Audience {
                match self { $(Self::$variant => Audience::$audience,)* }
            }

            /// What it does, in a sentence.
            #[must_use]
            pub fn summary(self) -> &'static str {
                match self { $(Self::$variant => $summary,)* }
            }
        }
    };
}

operations! {
    Enroll, "enroll", Post, "/v1/enroll", Evidence, "Issues the first certificate of a lineage.";
    EnrollBatch, "enroll-batch", Post, "/v1/enroll/batch", Holder,
        "Issues certificates for many keys that the caller vouches for.";
    Nonce, "nonce", Post, "/v1/nonce", Anybody, "Gives a nonce for a proof of possession.";
    Renew, "renew", Post, "/v1/renew", Holder, "Issues the next certificate of the caller's lineage.";

    AgentStream, "agent-stream", Get, "/v1/agent/stream", Holder,
        "Follows what a node may serve: one JSON event a line, for as long as the caller listens.";
    AgentSvids, "agent-svids", Post, "/v1/agent/svids", Holder,
        "Issues certificates for processes on the caller's node.";
    AgentJwt, "agent-jwt", Post, "/v1/agent/jwt", Holder, "Signs a JWT-SVID for a process on the caller's node.";

    CreateToken, "create-token", Post, "/v1/tokens", Operator, "Makes a join token.";
    ListTokens, "list-tokens", Get, "/v1/tokens", Operator, "Lists join tokens, without their secrets.";
    RevokeToken, "revoke-token", Delete, "/v1/tokens/{id}", Operator, "Withdraws a join token.";

    RegisterIdentity, "register-identity", Post, "/v1/identities", Operator, "Registers an identity.";
    ListIdentities, "list-identities", Get, "/v1/identities", Operator, "Lists identities.";
    ReadIdentity, "read-identity", Get, "/v1/identities/{id}", Operator,
        "Shows an identity; its SPIFFE ID stands percent-encoded in the path.";
    ChangeIdentity, "change-identity", Put, "/v1/identities/{id}", Operator,
        "Changes an identity; If-Match names the version that is changed.";
    RetireIdentity, "retire-identity", Post, "/v1/identities/{id}/retire", Operator,
        "Retires an identity for ever and revokes its certificates.";
    HoldIdentity, "hold-identity", Post, "/v1/identities/{id}/hold", Operator,
        "Holds an identity: it cannot enrol or renew until it is released.";
    ReleaseIdentity, "release-identity", Post, "/v1/identities/{id}/release", Operator,
        "Releases an identity from hold.";

    RegisterTemplate, "register-template", Post, "/v1/templates", Operator, "Registers a template.";
    ListTemplates, "list-templates", Get, "/v1/templates", Operator, "Lists templates.";
    ReadTemplate, "read-template", Get, "/v1/templates/{name}", Operator, "Shows a template.";
    ChangeTemplate, "change-template", Put, "/v1/templates/{name}", Operator, "Changes a template.";
    RemoveTemplate, "remove-template", Delete, "/v1/templates/{name}", Operator,
        "Removes a template; identities made from it stay.";

    ListCertificates, "list-certificates", Get, "/v1/certificates", Operator, "Searches certificates.";
    ReadCertificate, "read-certificate", Get, "/v1/certificates/{serial}", Operator, "Shows a certificate.";
    Revoke, "revoke", Post, "/v1/revoke", Evidence,
        "Revokes certificates: for operators, and for whoever proves to hold the key.";
    Hold, "hold", Post, "/v1/hold", Operator, "Holds certificates.";
    Release, "release", Post, "/v1/release", Operator, "Releases held certificates.";
    ListChanges, "list-changes", Get, "/v1/changes", Operator,
        "Lists changes to many certificates: those that wait for approval, run or rest.";
    ReadChange, "read-change", Get, "/v1/changes/{number}", Operator, "Shows a change to many certificates.";
    ApproveChange, "approve-change", Post, "/v1/changes/{number}/approve", Operator,
        "Approves a change that somebody else has asked for, and sets it going.";
    WithdrawChange, "withdraw-change", Post, "/v1/changes/{number}/withdraw", Operator,
        "Gives a change up; what it did stays.";
    PauseChange, "pause-change", Post, "/v1/changes/{number}/pause", Operator, "Lets a change rest.";
    ResumeChange, "resume-change", Post, "/v1/changes/{number}/resume", Operator, "Lets a change run on.";
    UndoChange, "undo-change", Post, "/v1/changes/{number}/undo", Operator, "Releases what a change has held.";
    AskRenewal, "ask-renewal", Post, "/v1/renewals", Operator,
        "Asks the agents to replace certificates before their time.";
    CaStatus, "ca-status", Get, "/v1/ca/status", Operator,
        "Shows how the authority's own issuers and keys stand, and what will become of them.";
    CaRotate, "ca-rotate", Post, "/v1/ca/rotate", Operator, "Asks for the next issuer or key.";
    CaRollback, "ca-rollback", Post, "/v1/ca/rollback", Operator,
        "Undoes the last step of a rotation, and lets it rest.";
    CaAddRoot, "ca-add-root", Post, "/v1/ca/roots", Operator,
        "Brings a root that is to follow those that are trusted, one of which has to vouch for it.";
    CaTaint, "ca-taint", Post, "/v1/ca/taint", Operator, "Says that an issuer is not to be trusted.";
    StatusOfMany, "status-of-many", Post, "/v1/status", Anybody, "Says which of many certificates are not good.";
    Status, "status", Get, "/v1/status/{serial}", Anybody, "Says what a certificate is worth now.";
    StatusSet, "status-set", Get, "/v1/status/set", Anybody,
        "The signed exact set of certificates that are not good (docs/formats/status-set.md).";
    StatusDelta, "status-delta", Get, "/v1/status/set/{from}", Anybody,
        "What brings a holder of the exact set of this sequence to the current one; 204 when that is the current one.";
    StatusFeed, "status-feed", Get, "/v1/status/feed", Holder,
        "Follows what stops being good and what is good again, as server-sent events.";
    PollStatusFeed, "poll-status-feed", Get, "/v1/status/feed/poll", Holder,
        "The same events by long poll: what was missed, or what happens while the request waits.";
    FollowStatus, "follow-status", Post, "/chancery.status.v1.StatusFeed/Follow", Holder,
        "The same events as a gRPC stream; crates/server/proto has the definition.";
    Acknowledge, "acknowledge", Post, "/v1/status/acknowledgements", Holder,
        "Registers a relying party, or confirms how far it has enforced.";
    ListRelyingParties, "list-relying-parties", Get, "/v1/relying-parties", Operator,
        "Lists relying parties and what they have confirmed.";
    SsfConfiguration, "ssf-configuration", Get, "/.well-known/ssf-configuration", Anybody,
        "What a receiver of security events has to know (OpenID Shared Signals Framework 1.0, section 7).";
    CreateStream, "create-stream", Post, "/v1/ssf/stream", Holder,
        "Makes a stream of security events for the caller (SSF 8.1.1).";
    ReadStream, "read-stream", Get, "/v1/ssf/stream", Holder,
        "Shows a stream of the caller, or lists all of them where none is named.";
    UpdateStream, "update-stream", Patch, "/v1/ssf/stream", Holder, "Changes what the body names of a stream.";
    ReplaceStream, "replace-stream", Put, "/v1/ssf/stream", Holder, "Replaces all that the caller chose of a stream.";
    DeleteStream, "delete-stream", Delete, "/v1/ssf/stream", Holder, "Removes a stream of the caller.";
    ReadStreamStatus, "read-stream-status", Get, "/v1/ssf/status", Holder, "Whether a stream runs (SSF 8.1.2).";
    SetStreamStatus, "set-stream-status", Post, "/v1/ssf/status", Holder, "Enables, pauses or disables a stream.";
    VerifyStream, "verify-stream", Post, "/v1/ssf/verify", Holder,
        "Asks for an event that shows that a stream works (SSF 8.1.4).";
    PollStream, "poll-stream", Post, "/v1/ssf/streams/{id}/poll", Holder,
        "Hands out security event tokens and takes acknowledgements (RFC 8936).";
    ListEventStreams, "list-event-streams", Get, "/v1/event-streams", Operator,
        "Lists every stream of security events, and how far each has come.";
    Why, "why", Get, "/v1/why/{serial}", Operator, "Shows the decision behind a certificate.";

    Bundle, "bundle", Get, "/v1/bundle", Anybody, "The roots, as PEM.";
    BundleJson, "bundle-json", Get, "/v1/bundle.json", Anybody, "The SPIFFE trust bundle.";
    OpenIdConfiguration, "openid-configuration", Get, "/.well-known/openid-configuration", Anybody,
        "Where to find what verifies JWT-SVIDs (OpenID Connect Discovery 1.0).";
    JwtKeys, "jwt-keys", Get, "/keys", Anybody, "The keys that verify JWT-SVIDs, as a JWK set.";
    Issuers, "issuers", Get, "/v1/ca/issuers", Anybody, "Every issuer that may still be met.";
    IssuerCertificate, "issuer-certificate", Get, "/ca/{file}", Anybody,
        "An issuer's certificate as DER: `1.der` for epoch 1 (the target of AIA).";
    CrlDer, "crl-der", Get, "/crl/full.der", Anybody, "The full CRL, as DER.";
    CrlPem, "crl-pem", Get, "/crl/full.pem", Anybody, "The full CRL, as PEM.";
    IssuerCrl, "issuer-crl", Get, "/crl/{file}", Anybody,
        "The full CRL of one issuer, as DER: `1.crl` for epoch 1; `root.crl`, `root-2.crl`: those of roots, where \
         somebody made them; `roots.pem`: these, and `chain.pem`: all of them, as PEM.";
    ShardCrl, "shard-crl", Get, "/crl/{epoch}/{shards}/{file}", Anybody,
        "The CRL of one part of an issuer's certificates, as DER: the target of CRLDP.";
    OcspGet, "ocsp-get", Get, "/ocsp/{*request}", Anybody, "Answers an OCSP request in the path (RFC 6960 A.1).";
    OcspPost, "ocsp-post", Post, "/ocsp", Anybody, "Answers an OCSP request in the body (RFC 6960 A.1).";

    LogCheckpoint, "log-checkpoint", Get, "/v1/log/checkpoint", Anybody,
        "The latest signed checkpoint (C2SP tlog-checkpoint).";
    LogTile, "log-tile", Get, "/v1/log/tile/{*tile}", Operator,
        "A tile of hashes or of entries (C2SP tlog-tiles).";
    LogEntries, "log-entries", Get, "/v1/log/entries", Operator, "Entries of the log, readable.";
    LogProof, "log-proof", Get, "/v1/log/proof/{serial}", Holder,
        "The proof that a certificate is in the log.";
    LogKey, "log-key", Get, "/v1/log/vkey", Anybody, "The key that verifies checkpoints (C2SP signed-note).";
    LogKeys, "log-keys", Get, "/v1/log/keys", Anybody,
        "Every key that has verified checkpoints, does or will, and how each vouches for the next.";
    ExportAudit, "export-audit", Get, "/v1/audit/export", Operator, "Exports the log for an auditor.";

    ReadPolicy, "read-policy", Get, "/v1/policy", Operator, "The policy and the profiles in force.";
    CheckPolicy, "check-policy", Post, "/v1/policy/check", Operator, "Asks what policy would decide.";
    CreateOperator, "create-operator", Post, "/v1/operators", Operator, "Issues an operator's certificate.";

    Healthz, "healthz", Get, "/v1/healthz", Anybody, "Whether the server lives.";
    Readyz, "readyz", Get, "/v1/readyz", Anybody, "Whether the server can issue.";
    Metrics, "metrics", Get, "/metrics", Operator, "Metrics, as Prometheus reads them.";
    OpenApi, "openapi", Get, "/v1/openapi.json", Anybody, "This description.";
}

impl Operation {
    /// The variable parts of the path, in order.
    #[must_use]
    pub fn parameters(self) -> Vec<PathParameter> {
        self.path()
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| match name.strip_prefix('*') {
                Some(name) => PathParameter { name, rest: true },
                None => PathParameter { name, rest: false },
            })
            .collect()
    }

    /// The path with its variable parts filled in, in order, percent-encoded (RFC 3986 section 2.1).
    ///
    /// # Panics
    /// When the number of values is not the number of [`Self::parameters`]: a mistake in the program.
    #[must_use]
    pub fn fill(self, values: &[&str]) -> String {
        let mut values = values.iter();
        let segments: Vec<String> = self
            .path()
            .split('/')
            .map(|segment| {
                if !segment.starts_with('{') {
                    return segment.to_owned();
                }
                let value = values.next().expect("one value for each parameter of the path");
                encode(value, segment.starts_with("{*"))
            })
            .collect();
        assert!(values.next().is_none(), "more values than {} has parameters", self.path());
        segments.join("/")
    }
}

/// Encodes everything but unreserved characters (RFC 3986 section 2.3), for one segment or one query value.
#[must_use]
pub fn percent_encode(value: &str) -> String {
    encode(value, false)
}

fn encode(value: &str, keep_slashes: bool) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            b'/' if keep_slashes => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_and_routes_are_unique() {
        let ids: BTreeSet<_> = Operation::ALL.iter().map(|operation| operation.id()).collect();
        let routes: BTreeSet<_> =
            Operation::ALL.iter().map(|operation| (operation.method(), operation.path())).collect();
        assert_eq!(ids.len(), Operation::ALL.len());
        assert_eq!(routes.len(), Operation::ALL.len());
    }

    #[test]
    fn values_in_a_path_cannot_leave_their_segment() {
        assert_eq!(
            Operation::ReadIdentity.fill(&["spiffe://example.org/web"]),
            "/v1/identities/spiffe%3A%2F%2Fexample.org%2Fweb"
        );
        assert_eq!(Operation::Status.fill(&["a?b#c%"]), "/v1/status/a%3Fb%23c%25");
        assert_eq!(Operation::LogTile.fill(&["0/x001/234.p/5"]), "/v1/log/tile/0/x001/234.p/5");
        assert_eq!(Operation::Enroll.fill(&[]), "/v1/enroll");
    }

    #[test]
    fn parameters_are_read_from_the_path() {
        assert_eq!(Operation::LogTile.parameters(), [PathParameter { name: "tile", rest: true }]);
        assert_eq!(Operation::HoldIdentity.parameters(), [PathParameter { name: "id", rest: false }]);
        assert!(Operation::Enroll.parameters().is_empty());
    }

    #[test]
    #[should_panic(expected = "more values")]
    fn a_value_without_a_place_is_a_mistake() {
        let _ = Operation::Enroll.fill(&["x"]);
    }
}
