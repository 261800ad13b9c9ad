//! One method for each operation.

use bytes::Bytes;
use chancery_api::{
    AddRootRequest, AgentJwtRequest, AgentJwtResponse, AgentStreamQuery, AgentSvidsRequest, AuditExportQuery,
    BatchEnrollRequest, BatchEnrollResponse, CaStatusResponse, CertificateDetail, CertificateQuery,
    CertificateView, ChangeQuery, ChangeResponse, ChangeStepRequest, ChangeView, ChangesResponse,
    CreateTokenRequest, CreateTokenResponse, DecisionView, EnrollRequest, EnrollResponse, HealthResponse,
    HoldRequest, IdentityDocument, IdentityQuery, IdentityStateRequest, IdentityView, IssuersResponse,
    JwksBundle, LogEntriesQuery, LogEntriesResponse, LogKeysResponse, LogProofResponse, NonceResponse,
    OpenIdConfiguration, Operation, OperatorRequest, Page, PageQuery, PolicyCheckRequest,
    PolicyCheckResponse, PolicyView, ReleaseRequest, RenewRequest, RenewalRequest, RenewalResponse,
    RevokeRequest, RollbackRequest, RotateRequest, RotationResponse, StatusAnswer, StatusQuestion,
    StatusResponse, TaintRequest, TemplateDocument, TemplateView, TokenQuery, TokenView,
};
use chancery_types::{IssuerEpoch, SerialNumber, SpiffeId, TokenId};

use crate::exchange::Call;
use crate::{AgentEvents, ByteStream, Client, ClientError, IdempotencyKey, Tagged};

/// Enrolment and renewal.
///
/// Every method fails with [`ClientError`]; what the server refuses is in [`ClientError::Problem`].
impl Client {
    /// Asks for the first certificate of a lineage. With the same key it may be repeated, also after a
    /// restart: the answer is the same certificate.
    pub async fn enroll(
        &self,
        request: &EnrollRequest,
        key: &IdempotencyKey,
    ) -> Result<EnrollResponse, ClientError> {
        self.call(Call::new(Operation::Enroll, &[]).json(request)?.idempotency_key(key)).await
    }

    /// Asks for certificates for many keys.
    pub async fn enroll_batch(
        &self,
        request: &BatchEnrollRequest,
        key: &IdempotencyKey,
    ) -> Result<BatchEnrollResponse, ClientError> {
        self.call(Call::new(Operation::EnrollBatch, &[]).json(request)?.idempotency_key(key)).await
    }

    /// Asks for a nonce to sign.
    pub async fn nonce(&self) -> Result<NonceResponse, ClientError> {
        self.call(Call::new(Operation::Nonce, &[]).repeatable()).await
    }

    /// Asks for the next certificate; the current one must be the connection's identity.
    pub async fn renew(
        &self,
        request: &RenewRequest,
        key: &IdempotencyKey,
    ) -> Result<EnrollResponse, ClientError> {
        self.call(Call::new(Operation::Renew, &[]).json(request)?.idempotency_key(key)).await
    }
}

/// For agents; the node's certificate must be the connection's identity.
impl Client {
    /// Follows what the node may serve, from the revision that was reached on.
    pub async fn agent_stream(&self, query: &AgentStreamQuery) -> Result<AgentEvents, ClientError> {
        let call = Call::new(Operation::AgentStream, &[]).query(query)?;
        self.call_stream(call).await.map(AgentEvents::new)
    }

    /// Asks for certificates for processes on the node. Each answer is one item's, in their order.
    pub async fn agent_svids(&self, request: &AgentSvidsRequest) -> Result<BatchEnrollResponse, ClientError> {
        self.call(Call::new(Operation::AgentSvids, &[]).json(request)?).await
    }

    /// Asks for a JWT-SVID for a process on the node. May be repeated: each is another token.
    pub async fn agent_jwt(&self, request: &AgentJwtRequest) -> Result<AgentJwtResponse, ClientError> {
        self.call(Call::new(Operation::AgentJwt, &[]).json(request)?.repeatable()).await
    }
}

/// Renewals before their time.
impl Client {
    /// Asks the agents to replace certificates. May be repeated: what was replaced meanwhile is replaced again.
    pub async fn ask_renewal(&self, request: &RenewalRequest) -> Result<RenewalResponse, ClientError> {
        self.call(Call::new(Operation::AskRenewal, &[]).json(request)?).await
    }
}

/// The authority's own issuers and keys.
impl Client {
    /// How they stand, and what will become of them.
    pub async fn ca_status(&self) -> Result<CaStatusResponse, ClientError> {
        self.call(Call::new(Operation::CaStatus, &[])).await
    }

    /// Asks for the next of a kind. May be repeated: the wish stands already.
    pub async fn ca_rotate(&self, request: &RotateRequest) -> Result<RotationResponse, ClientError> {
        self.call(Call::new(Operation::CaRotate, &[]).json(request)?.repeatable()).await
    }

    /// Undoes the last step of a rotation.
    pub async fn ca_rollback(&self, request: &RollbackRequest) -> Result<RotationResponse, ClientError> {
        self.call(Call::new(Operation::CaRollback, &[]).json(request)?).await
    }

    /// Brings a root.
    pub async fn ca_add_root(&self, request: &AddRootRequest) -> Result<RotationResponse, ClientError> {
        self.call(Call::new(Operation::CaAddRoot, &[]).json(request)?).await
    }

    /// Says that an issuer is not to be trusted. May be repeated.
    pub async fn ca_taint(&self, request: &TaintRequest) -> Result<RotationResponse, ClientError> {
        self.call(Call::new(Operation::CaTaint, &[]).json(request)?.repeatable()).await
    }
}

/// Tokens, identities, templates and operators.
impl Client {
    /// Makes a join token.
    pub async fn create_token(
        &self,
        request: &CreateTokenRequest,
    ) -> Result<CreateTokenResponse, ClientError> {
        self.call(Call::new(Operation::CreateToken, &[]).json(request)?).await
    }

    /// Lists join tokens.
    pub async fn list_tokens(&self, query: &TokenQuery) -> Result<Page<TokenView>, ClientError> {
        self.call(Call::new(Operation::ListTokens, &[]).query(query)?).await
    }

    /// Withdraws a join token.
    pub async fn revoke_token(&self, id: TokenId) -> Result<TokenView, ClientError> {
        self.call(Call::new(Operation::RevokeToken, &[&id.to_string()])).await
    }

    /// Registers an identity.
    pub async fn register_identity(&self, identity: &IdentityDocument) -> Result<IdentityView, ClientError> {
        self.call(Call::new(Operation::RegisterIdentity, &[]).json(identity)?).await
    }

    /// Lists identities.
    pub async fn list_identities(&self, query: &IdentityQuery) -> Result<Page<IdentityView>, ClientError> {
        self.call(Call::new(Operation::ListIdentities, &[]).query(query)?).await
    }

    /// Shows an identity.
    pub async fn read_identity(&self, id: &SpiffeId) -> Result<IdentityView, ClientError> {
        self.call(Call::new(Operation::ReadIdentity, &[id.as_str()])).await
    }

    /// Changes an identity that is at this version. May be repeated: a second time it is a conflict.
    pub async fn change_identity(
        &self,
        identity: &IdentityDocument,
        version: u64,
    ) -> Result<IdentityView, ClientError> {
        let id = identity.0.spiffe_id.as_str();
        self.call(Call::new(Operation::ChangeIdentity, &[id]).json(identity)?.if_match(version)).await
    }

    /// Retires an identity for ever and revokes its certificates.
    pub async fn retire_identity(
        &self,
        id: &SpiffeId,
        request: &IdentityStateRequest,
    ) -> Result<IdentityView, ClientError> {
        self.call(Call::new(Operation::RetireIdentity, &[id.as_str()]).json(request)?).await
    }

    /// Holds an identity.
    pub async fn hold_identity(
        &self,
        id: &SpiffeId,
        request: &IdentityStateRequest,
    ) -> Result<IdentityView, ClientError> {
        self.call(Call::new(Operation::HoldIdentity, &[id.as_str()]).json(request)?).await
    }

    /// Releases an identity from hold.
    pub async fn release_identity(
        &self,
        id: &SpiffeId,
        request: &IdentityStateRequest,
    ) -> Result<IdentityView, ClientError> {
        self.call(Call::new(Operation::ReleaseIdentity, &[id.as_str()]).json(request)?).await
    }

    /// Registers a template.
    pub async fn register_template(&self, template: &TemplateDocument) -> Result<TemplateView, ClientError> {
        self.call(Call::new(Operation::RegisterTemplate, &[]).json(template)?).await
    }

    /// Lists templates.
    pub async fn list_templates(&self, query: &PageQuery) -> Result<Page<TemplateView>, ClientError> {
        self.call(Call::new(Operation::ListTemplates, &[]).query(query)?).await
    }

    /// Shows a template.
    pub async fn read_template(&self, name: &str) -> Result<TemplateView, ClientError> {
        self.call(Call::new(Operation::ReadTemplate, &[name])).await
    }

    /// Changes a template.
    pub async fn change_template(&self, template: &TemplateDocument) -> Result<TemplateView, ClientError> {
        self.call(Call::new(Operation::ChangeTemplate, &[&template.name]).json(template)?).await
    }

    /// Removes a template.
    pub async fn remove_template(&self, name: &str) -> Result<TemplateView, ClientError> {
        self.call(Call::new(Operation::RemoveTemplate, &[name])).await
    }

    /// Issues an operator's certificate.
    pub async fn create_operator(
        &self,
        request: &OperatorRequest,
        key: &IdempotencyKey,
    ) -> Result<EnrollResponse, ClientError> {
        self.call(Call::new(Operation::CreateOperator, &[]).json(request)?.idempotency_key(key)).await
    }
}

/// Certificates and their status.
impl Client {
    /// Searches certificates.
    pub async fn list_certificates(
        &self,
        query: &CertificateQuery,
    ) -> Result<Page<CertificateView>, ClientError> {
        self.call(Call::new(Operation::ListCertificates, &[]).query(query)?).await
    }

    /// Shows a certificate.
    pub async fn read_certificate(&self, serial: SerialNumber) -> Result<CertificateDetail, ClientError> {
        self.call(Call::new(Operation::ReadCertificate, &[&serial.to_string()])).await
    }

    /// Revokes certificates. May be repeated, for what is revoked stays revoked; but for what asks for approval.
    pub async fn revoke(&self, request: &RevokeRequest) -> Result<ChangeResponse, ClientError> {
        let call = Call::new(Operation::Revoke, &[]).json(request)?;
        self.call(if request.yes_really { call } else { call.repeatable() }).await
    }

    /// Lists changes to many certificates, the latest first.
    pub async fn list_changes(&self, query: &ChangeQuery) -> Result<ChangesResponse, ClientError> {
        self.call(Call::new(Operation::ListChanges, &[]).query(query)?).await
    }

    /// Shows a change to many certificates.
    pub async fn read_change(&self, change: u64) -> Result<ChangeView, ClientError> {
        self.call(Call::new(Operation::ReadChange, &[&change.to_string()])).await
    }

    /// Approves a change that somebody else has asked for.
    pub async fn approve_change(
        &self,
        change: u64,
        request: &ChangeStepRequest,
    ) -> Result<ChangeView, ClientError> {
        self.step_change(Operation::ApproveChange, change, request).await
    }

    /// Gives a change up.
    pub async fn withdraw_change(
        &self,
        change: u64,
        request: &ChangeStepRequest,
    ) -> Result<ChangeView, ClientError> {
        self.step_change(Operation::WithdrawChange, change, request).await
    }

    /// Lets a change rest.
    pub async fn pause_change(
        &self,
        change: u64,
        request: &ChangeStepRequest,
    ) -> Result<ChangeView, ClientError> {
        self.step_change(Operation::PauseChange, change, request).await
    }

    /// Lets a change run on.
    pub async fn resume_change(
        &self,
        change: u64,
        request: &ChangeStepRequest,
    ) -> Result<ChangeView, ClientError> {
        self.step_change(Operation::ResumeChange, change, request).await
    }

    /// Releases what a change has held.
    pub async fn undo_change(
        &self,
        change: u64,
        request: &ChangeStepRequest,
    ) -> Result<ChangeView, ClientError> {
        self.step_change(Operation::UndoChange, change, request).await
    }

    async fn step_change(
        &self,
        operation: Operation,
        change: u64,
        request: &ChangeStepRequest,
    ) -> Result<ChangeView, ClientError> {
        self.call(Call::new(operation, &[&change.to_string()]).json(request)?).await
    }

    /// Holds certificates.
    pub async fn hold(&self, request: &HoldRequest) -> Result<ChangeResponse, ClientError> {
        self.call(Call::new(Operation::Hold, &[]).json(request)?).await
    }

    /// Releases held certificates.
    pub async fn release(&self, request: &ReleaseRequest) -> Result<ChangeResponse, ClientError> {
        self.call(Call::new(Operation::Release, &[]).json(request)?).await
    }

    /// Says what a certificate is worth now.
    pub async fn status(&self, serial: SerialNumber) -> Result<StatusResponse, ClientError> {
        self.call(Call::new(Operation::Status, &[&serial.to_string()])).await
    }

    /// Says which of many certificates are not good; at most [`limits::STATUS_SERIALS`](chancery_api::limits).
    pub async fn status_of_many(&self, question: &StatusQuestion) -> Result<StatusAnswer, ClientError> {
        self.call(Call::new(Operation::StatusOfMany, &[]).json(question)?.repeatable()).await
    }

    /// The exact set of certificates that are not good, signed. The caller verifies it.
    pub async fn status_set(&self) -> Result<Bytes, ClientError> {
        self.call_bytes(Call::new(Operation::StatusSet, &[])).await
    }

    /// What brings a holder of the exact set of this sequence to the current one; nothing when that is the current
    /// one.
    pub async fn status_delta(&self, from: u64) -> Result<Option<Bytes>, ClientError> {
        let delta = self.call_bytes(Call::new(Operation::StatusDelta, &[&from.to_string()])).await?;
        Ok(Some(delta).filter(|delta| !delta.is_empty()))
    }

    /// Shows the decision behind a certificate.
    pub async fn why(&self, serial: SerialNumber) -> Result<DecisionView, ClientError> {
        self.call(Call::new(Operation::Why, &[&serial.to_string()])).await
    }

    /// Asks the OCSP responder; request and response are DER (RFC 6960).
    pub async fn ocsp(&self, request: Vec<u8>) -> Result<Bytes, ClientError> {
        let call = Call::new(Operation::OcspPost, &[]).bytes("application/ocsp-request", request);
        self.call_bytes(call.repeatable()).await
    }

    /// The full CRL, as DER.
    pub async fn crl(&self) -> Result<Bytes, ClientError> {
        self.call_bytes(Call::new(Operation::CrlDer, &[])).await
    }

    /// The full CRL of one issuer, as DER; nothing while it is still the one with this tag.
    pub async fn issuer_crl(
        &self,
        epoch: IssuerEpoch,
        known: Option<&str>,
    ) -> Result<Option<Tagged>, ClientError> {
        self.crl_file(&format!("{epoch}.crl"), known).await
    }

    /// The CRLs of the roots, as PEM; nothing while they are still those with this tag. Not found where none was made.
    pub async fn root_crls(&self, known: Option<&str>) -> Result<Option<Tagged>, ClientError> {
        self.crl_file("roots.pem", known).await
    }

    async fn crl_file(&self, file: &str, known: Option<&str>) -> Result<Option<Tagged>, ClientError> {
        let call = Call::new(Operation::IssuerCrl, &[file]);
        self.call_if_changed(known.into_iter().fold(call, Call::if_none_match)).await
    }
}

/// Trust, log, policy, health.
impl Client {
    /// The roots, as PEM.
    pub async fn bundle(&self) -> Result<Bytes, ClientError> {
        self.call_bytes(Call::new(Operation::Bundle, &[])).await
    }

    /// The SPIFFE trust bundle.
    pub async fn bundle_json(&self) -> Result<JwksBundle, ClientError> {
        self.call(Call::new(Operation::BundleJson, &[])).await
    }

    /// Every issuer that may still be met.
    pub async fn issuers(&self) -> Result<IssuersResponse, ClientError> {
        self.call(Call::new(Operation::Issuers, &[])).await
    }

    /// Where to find what verifies JWT-SVIDs.
    pub async fn openid_configuration(&self) -> Result<OpenIdConfiguration, ClientError> {
        self.call(Call::new(Operation::OpenIdConfiguration, &[])).await
    }

    /// The keys that verify JWT-SVIDs.
    pub async fn jwt_keys(&self) -> Result<JwksBundle, ClientError> {
        self.call(Call::new(Operation::JwtKeys, &[])).await
    }

    /// An issuer's certificate, as DER.
    pub async fn issuer_certificate(&self, epoch: IssuerEpoch) -> Result<Bytes, ClientError> {
        self.call_bytes(Call::new(Operation::IssuerCertificate, &[&format!("{epoch}.der")])).await
    }

    /// The latest signed checkpoint.
    pub async fn log_checkpoint(&self) -> Result<Bytes, ClientError> {
        self.call_bytes(Call::new(Operation::LogCheckpoint, &[])).await
    }

    /// A tile: the part of its path after `tile/`, such as `0/x001/234` (C2SP tlog-tiles).
    pub async fn log_tile(&self, tile: &str) -> Result<Bytes, ClientError> {
        self.call_bytes(Call::new(Operation::LogTile, &[tile])).await
    }

    /// Entries of the log, readable.
    pub async fn log_entries(&self, query: &LogEntriesQuery) -> Result<LogEntriesResponse, ClientError> {
        self.call(Call::new(Operation::LogEntries, &[]).query(query)?).await
    }

    /// The proof that a certificate is in the log.
    pub async fn log_proof(&self, serial: SerialNumber) -> Result<LogProofResponse, ClientError> {
        self.call(Call::new(Operation::LogProof, &[&serial.to_string()])).await
    }

    /// The key that verifies checkpoints, as a line of text.
    pub async fn log_key(&self) -> Result<Bytes, ClientError> {
        self.call_bytes(Call::new(Operation::LogKey, &[])).await
    }

    /// Every key of the log, and how each vouches for the next.
    pub async fn log_keys(&self) -> Result<LogKeysResponse, ClientError> {
        self.call(Call::new(Operation::LogKeys, &[])).await
    }

    /// Exports the log.
    pub async fn export_audit(&self, query: &AuditExportQuery) -> Result<ByteStream, ClientError> {
        self.call_stream(Call::new(Operation::ExportAudit, &[]).query(query)?).await
    }

    /// The policy and the profiles in force.
    pub async fn read_policy(&self) -> Result<PolicyView, ClientError> {
        self.call(Call::new(Operation::ReadPolicy, &[])).await
    }

    /// Asks what policy would decide.
    pub async fn check_policy(
        &self,
        request: &PolicyCheckRequest,
    ) -> Result<PolicyCheckResponse, ClientError> {
        self.call(Call::new(Operation::CheckPolicy, &[]).json(request)?.repeatable()).await
    }

    /// Whether the server lives.
    pub async fn healthz(&self) -> Result<HealthResponse, ClientError> {
        self.call(Call::new(Operation::Healthz, &[])).await
    }

    /// Whether the server can issue. What is missing comes as [`ClientError::Problem`].
    pub async fn readyz(&self) -> Result<HealthResponse, ClientError> {
        self.call(Call::new(Operation::Readyz, &[])).await
    }

    /// Metrics, as Prometheus reads them.
    pub async fn metrics(&self) -> Result<Bytes, ClientError> {
        self.call_bytes(Call::new(Operation::Metrics, &[])).await
    }

    /// Any reading operation, as it comes: for what is too large to hold.
    pub async fn stream(&self, operation: Operation, parameters: &[&str]) -> Result<ByteStream, ClientError> {
        self.call_stream(Call::new(operation, parameters)).await
    }
}
