//! Envoy's side: the xDS protocol and what Envoy makes of the secrets.

use std::collections::BTreeMap;

use chancery_agent::proto::envoy::config::core::v3::DataSource;
use chancery_agent::proto::envoy::config::core::v3::data_source::Specifier;
use chancery_agent::proto::envoy::extensions::transport_sockets::tls::v3::{
    Secret, SpiffeCertValidatorConfig, secret,
};
use chancery_agent::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse,
};
use chancery_agent::proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use chancery_agent::proto::google::rpc;
use chancery_agent::workload::AttestationError;
use chancery_agent::workload_api::client::Connection;
use futures_util::stream;
use prost::Message;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::world::{Authority, World};

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

type Client = SecretDiscoveryServiceClient<Connection>;

async fn client(world: &World) -> Client {
    SecretDiscoveryServiceClient::new(Connection::open(&world.path()).await.unwrap())
}

fn subscribe(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: SECRET.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn acknowledge(response: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        ..subscribe(names)
    }
}

/// One stream of an Envoy.
struct Envoy {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Envoy {
    async fn connect(world: &World) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(8);
        let receiver = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<_>| {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let responses = client(world).await.stream_secrets(receiver).await?;
        Ok(Self { requests, responses: responses.into_inner() })
    }

    async fn ask(&mut self, request: DiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> DiscoveryResponse {
        self.responses.message().await.unwrap().unwrap()
    }
}

fn secrets(response: &DiscoveryResponse) -> BTreeMap<String, secret::Type> {
    assert_eq!(response.type_url, SECRET);
    let decode = |any: &prost_types::Any| {
        assert_eq!(any.type_url, SECRET);
        let secret = Secret::decode(any.value.as_slice()).unwrap();
        (secret.name, secret.r#type.unwrap())
    };
    response.resources.iter().map(decode).collect()
}

fn text(source: Option<&DataSource>) -> String {
    let Some(Specifier::InlineBytes(bytes)) = source.unwrap().specifier.clone() else { panic!("not inline") };
    String::from_utf8(bytes).unwrap()
}

/// Trust domains that a validation context knows, and their certificates.
fn validator(secret: &secret::Type) -> BTreeMap<String, String> {
    let secret::Type::ValidationContext(context) = secret else { panic!("not a validation context") };
    let extension = context.custom_validator_config.as_ref().unwrap();
    assert_eq!(extension.name, "envoy.tls.cert_validator.spiffe");
    let config = extension.typed_config.as_ref().unwrap();
    assert_eq!(
        config.type_url,
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
    );
    let config = SpiffeCertValidatorConfig::decode(config.value.as_slice()).unwrap();
    config.trust_domains.into_iter().map(|one| (one.name, text(one.trust_bundle.as_ref()))).collect()
}

/// The chain of a certificate and its key, as DER.
fn pair(secret: &secret::Type) -> (Vec<Vec<u8>>, Vec<u8>) {
    let secret::Type::TlsCertificate(certificate) = secret else { panic!("not a certificate") };
    let key = PrivatePkcs8KeyDer::from_pem_slice(text(certificate.private_key.as_ref()).as_bytes()).unwrap();
    (certificates(&text(certificate.certificate_chain.as_ref())), key.secret_pkcs8_der().to_vec())
}

fn certificates(pem: &str) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|one| one.unwrap().to_vec()).collect()
}

#[tokio::test]
async fn serves_the_names_that_envoy_configurations_use() {
    let world = World::open().await;
    let partner = Authority::new("partner.example");
    let (web, admin) = (world.authority.svid("/web", ""), world.authority.svid("/admin", ""));
    world.give(vec![web.clone(), admin.clone()], &[&partner]);
    let names =
        ["default", "ROOTCA", "ALL", "spiffe://example.org/admin", "spiffe://partner.example", "nonsense"];
    let mut envoy = Envoy::connect(&world).await.unwrap();
    envoy.ask(subscribe(&names)).await;
    let found = secrets(&envoy.next().await);
    assert_eq!(found.len(), 5, "what does not exist is left out");
    assert_eq!(pair(&found["default"]), (web.chain.clone(), web.key.expose_secret().to_vec()));
    assert_eq!(pair(&found["spiffe://example.org/admin"]).0, admin.chain);
    let domains = |name: &str| validator(&found[name]).into_keys().collect::<Vec<_>>();
    assert_eq!(domains("ROOTCA"), ["example.org"]);
    assert_eq!(domains("ALL"), ["example.org", "partner.example"]);
    assert_eq!(domains("spiffe://partner.example"), ["partner.example"]);
    let root = certificates(&validator(&found["ROOTCA"])["example.org"]);
    assert_eq!(root, world.authority.bundle().x509_authorities);
}

#[tokio::test]
async fn serves_everything_when_no_name_is_given() {
    let world = World::open().await;
    world.entitle();
    let answer = client(&world).await.fetch_secrets(subscribe(&[])).await.unwrap().into_inner();
    let names: Vec<String> = secrets(&answer).into_keys().collect();
    assert_eq!(names, ["spiffe://example.org", "spiffe://example.org/web"]);
}

#[tokio::test]
async fn fetches_once_or_says_what_is_missing() {
    let world = World::open().await;
    let svid = world.entitle();
    let mut client = client(&world).await;
    let answer = client.fetch_secrets(subscribe(&["default"])).await.unwrap().into_inner();
    assert_eq!(pair(&secrets(&answer)["default"]).0, svid.chain);
    let missing = client.fetch_secrets(subscribe(&["default", "other"])).await.unwrap_err();
    assert_eq!((missing.code(), missing.message().contains("other")), (Code::NotFound, true));
    let wrong = DiscoveryRequest { type_url: "other".to_owned(), ..subscribe(&[]) };
    assert_eq!(client.fetch_secrets(wrong).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_acknowledgement_is_not_answered_and_a_change_is() {
    let world = World::open().await;
    world.entitle();
    let mut envoy = Envoy::connect(&world).await.unwrap();
    envoy.ask(subscribe(&["default"])).await;
    let first = envoy.next().await;
    envoy.ask(acknowledge(&first, &["default"])).await;
    let rotated = world.entitle();
    let second = envoy.next().await;
    assert_ne!((&second.nonce, &second.version_info), (&first.nonce, &first.version_info));
    assert_eq!(pair(&secrets(&second)["default"]).0, rotated.chain);
}

#[tokio::test]
async fn a_refusal_is_counted_and_not_answered_until_something_changes() {
    let world = World::open().await;
    world.entitle();
    let mut envoy = Envoy::connect(&world).await.unwrap();
    envoy.ask(subscribe(&["default"])).await;
    let first = envoy.next().await;
    let refusal = DiscoveryRequest {
        version_info: String::new(),
        error_detail: Some(rpc::Status { code: 13, message: "no".to_owned() }),
        ..acknowledge(&first, &["default"])
    };
    envoy.ask(refusal).await;
    // The next answer belongs to the next question: nothing came for the refusal.
    envoy.ask(acknowledge(&first, &["ROOTCA"])).await;
    let second = envoy.next().await;
    assert_eq!(secrets(&second).into_keys().collect::<Vec<_>>(), ["ROOTCA"]);
    assert!(world.metrics().contains("chancery_agent_sds_rejected_total 1"));
}

#[tokio::test]
async fn other_names_are_answered_at_once_and_a_stale_nonce_is_not() {
    let world = World::open().await;
    world.entitle();
    let mut envoy = Envoy::connect(&world).await.unwrap();
    envoy.ask(subscribe(&["default"])).await;
    let first = envoy.next().await;
    envoy.ask(acknowledge(&first, &["default", "ROOTCA"])).await;
    let second = envoy.next().await;
    assert_eq!(secrets(&second).len(), 2);
    // Answers the first response, which the second has overtaken.
    envoy.ask(acknowledge(&first, &["ALL"])).await;
    envoy.ask(acknowledge(&second, &["ROOTCA"])).await;
    assert_eq!(secrets(&envoy.next().await).into_keys().collect::<Vec<_>>(), ["ROOTCA"]);
}

#[tokio::test]
async fn a_reconnecting_envoy_gets_its_secrets_with_the_version_that_it_knows() {
    let world = World::open().await;
    world.entitle();
    let mut envoy = Envoy::connect(&world).await.unwrap();
    envoy.ask(subscribe(&["default"])).await;
    let first = envoy.next().await;
    // It may even carry over the nonce of the stream before.
    for request in [subscribe(&["default"]), acknowledge(&first, &["default"])] {
        let mut envoy = Envoy::connect(&world).await.unwrap();
        envoy.ask(request).await;
        assert_eq!(envoy.next().await.version_info, first.version_info);
    }
}

#[tokio::test]
async fn a_secret_that_does_not_exist_yet_comes_when_it_does() {
    let world = World::open().await;
    world.entitle();
    let mut envoy = Envoy::connect(&world).await.unwrap();
    envoy.ask(subscribe(&["spiffe://example.org/late"])).await;
    let late = world.authority.svid("/late", "");
    world.give(vec![world.authority.svid("/web", ""), late.clone()], &[]);
    assert_eq!(pair(&secrets(&envoy.next().await)["spiffe://example.org/late"]).0, late.chain);
}

#[tokio::test]
async fn nobody_gets_secrets_without_an_identity_or_keeps_them_when_it_is_lost() {
    let world = World::open().await;
    assert_eq!(Envoy::connect(&world).await.err().unwrap().code(), Code::PermissionDenied);
    let fetched = client(&world).await.fetch_secrets(subscribe(&["ROOTCA"])).await.unwrap_err();
    assert_eq!(fetched.code(), Code::PermissionDenied);
    world.entitle();
    let mut envoy = Envoy::connect(&world).await.unwrap();
    envoy.ask(subscribe(&["default"])).await;
    envoy.next().await;
    world.withdraw();
    assert_eq!(envoy.responses.message().await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_envoy_that_becomes_another_program_loses_its_stream() {
    let world = World::open().await;
    world.entitle();
    let mut envoy = Envoy::connect(&world).await.unwrap();
    envoy.ask(subscribe(&["default"])).await;
    envoy.next().await;
    world.kernel.fate.send_replace(Some(AttestationError::Changed));
    assert_eq!(envoy.responses.message().await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn the_incremental_variant_is_unimplemented() {
    let world = World::open().await;
    world.entitle();
    let requests = stream::iter([DeltaDiscoveryRequest {}]);
    let status = client(&world).await.delta_secrets(requests).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}
