//! States in, Envoy's secrets out; pure.

use std::collections::BTreeSet;

use chancery_types::TrustDomain;
use data_encoding::{BASE64, HEXLOWER};
use prost::Message;
use prost_types::Any;
use ring::digest::{Context, SHA256};
use tonic::Status;

use crate::identities::{Bundle, X509State, X509Svid};
use crate::proto::envoy::config::core::v3::data_source::Specifier;
use crate::proto::envoy::config::core::v3::{DataSource, TypedExtensionConfig};
use crate::proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate, secret,
    spiffe_cert_validator_config,
};
use crate::proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

/// Which secrets are wanted; all of them if none is named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    pub(super) fn asked_for(request: &DiscoveryRequest) -> Result<Self, Status> {
        if !request.type_url.is_empty() && request.type_url != SECRET_TYPE {
            return Err(Status::invalid_argument(format!("only {SECRET_TYPE} is served here")));
        }
        if request.resource_names.len() > MOST_NAMES {
            return Err(Status::invalid_argument(format!(
                "{} resource names; at most {MOST_NAMES}",
                request.resource_names.len()
            )));
        }
        Ok(Self(request.resource_names.iter().cloned().collect()))
    }

    /// The first name that an offer lacks.
    pub(super) fn missing(&self, offer: &Offer) -> Option<&str> {
        let there: BTreeSet<&str> = offer.secrets.iter().map(|secret| secret.name.as_str()).collect();
        self.0.iter().map(String::as_str).find(|name| !there.contains(name))
    }
}

/// What a caller gets of what it asked for.
pub(super) struct Offer {
    secrets: Vec<Secret>,
    /// Follows from what the secrets are, so that a reconnecting Envoy finds the version that it knows.
    pub(super) version: String,
}

impl Offer {
    pub(super) fn of(state: &X509State, own: &TrustDomain, names: &Names) -> Self {
        let secrets: Vec<Secret> = if names.0.is_empty() {
            let svids = state.svids.iter().map(|svid| certificate(svid.spiffe_id.as_str(), svid));
            let bundles = state.bundles.iter();
            svids.chain(bundles.map(|one| validation(one.0.id().as_str(), [one]))).collect()
        } else {
            names.0.iter().filter_map(|name| named(name, state, own)).collect()
        };
        let version = version(&secrets);
        Self { secrets, version }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    pub(super) fn response(&self, nonce: String) -> DiscoveryResponse {
        let resources = self
            .secrets
            .iter()
            .map(|secret| Any { type_url: SECRET_TYPE.to_owned(), value: secret.encode_to_vec() });
        DiscoveryResponse {
            version_info: self.version.clone(),
            resources: resources.collect(),
            type_url: SECRET_TYPE.to_owned(),
            nonce,
        }
    }
}

fn named(name: &str, state: &X509State, own: &TrustDomain) -> Option<Secret> {
    match name {
        "default" => Some(certificate(name, state.svids.first()?)),
        "ROOTCA" => Some(validation(name, [state.bundles.get_key_value(own)?])),
        "ALL" if !state.bundles.is_empty() => Some(validation(name, &state.bundles)),
        _ => {
            let svid = state.svids.iter().find(|svid| svid.spiffe_id.as_str() == name);
            let bundle = || state.bundles.iter().find(|(domain, _)| domain.id().as_str() == name);
            svid.map(|svid| certificate(name, svid)).or_else(|| Some(validation(name, [bundle()?])))
        }
    }
}

fn certificate(name: &str, svid: &X509Svid) -> Secret {
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(pem("CERTIFICATE", &svid.chain))),
        private_key: Some(inline(pem("PRIVATE KEY", [svid.key.expose_secret()]))),
    };
    Secret { name: name.to_owned(), r#type: Some(secret::Type::TlsCertificate(certificate)) }
}

fn validation<'a>(
    name: &str,
    bundles: impl IntoIterator<Item = (&'a TrustDomain, &'a std::sync::Arc<Bundle>)>,
) -> Secret {
    let trust_domains =
        bundles.into_iter().map(|(domain, bundle)| spiffe_cert_validator_config::TrustDomain {
            name: domain.to_string(),
            trust_bundle: Some(inline(pem("CERTIFICATE", &bundle.x509_authorities))),
        });
    let config = SpiffeCertValidatorConfig { trust_domains: trust_domains.collect() };
    let typed_config = Any { type_url: VALIDATOR_TYPE.to_owned(), value: config.encode_to_vec() };
    let validator =
        TypedExtensionConfig { name: VALIDATOR_NAME.to_owned(), typed_config: Some(typed_config) };
    let context = CertificateValidationContext { custom_validator_config: Some(validator) };
    Secret { name: name.to_owned(), r#type: Some(secret::Type::ValidationContext(context)) }
}

/// A hash of everything but the keys, which change with their certificates.
fn version(secrets: &[Secret]) -> String {
    let mut context = Context::new(&SHA256);
    for secret in secrets {
        let mut public = secret.clone();
        if let Some(secret::Type::TlsCertificate(certificate)) = &mut public.r#type {
            certificate.private_key = None;
        }
        context.update(&public.encode_length_delimited_to_vec());
    }
    HEXLOWER.encode(&context.finish().as_ref()[..16])
}

fn pem<B: AsRef<[u8]>>(label: &str, blocks: impl IntoIterator<Item = B>) -> Vec<u8> {
    let mut text = String::new();
    for block in blocks {
        text.push_str(&format!("-----BEGIN {label}-----\n"));
        for line in block.as_ref().chunks(48) {
            BASE64.encode_append(line, &mut text);
            text.push('\n');
        }
        text.push_str(&format!("-----END {label}-----\n"));
    }
    text.into_bytes()
}

fn inline(bytes: Vec<u8>) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes)) }
}

const SECRET_TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const VALIDATOR_TYPE: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
const VALIDATOR_NAME: &str = "envoy.tls.cert_validator.spiffe";
const MOST_NAMES: usize = 1000;
