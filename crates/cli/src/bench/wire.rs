//! Load on a server over real sockets: TLS connections to its API, plain ones to its status port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chancery_api::{
    BatchEnrollRequest, BatchItem, BatchResult, CsrDer, EnrollRequest, EnrollResponse, Evidence, KeyMaterial,
    PublicKeyDer, RenewRequest,
};
use chancery_client::{Client, Endpoint, HttpVersion, RetryPolicy, TlsIdentity, TrustAnchors};
use chancery_types::SecretString;
use chancery_x509::ocsp::{CertIdHash, IssuerHashes, OcspRequest};
use chancery_x509::{Certificate, read_certificates};
use data_encoding::BASE64URL_NOPAD;

use super::load::{Load, drive};
use super::supply::{Intent, Subject};
use crate::files::{self, MAX_PEM};
use crate::loopback::{Door, ServerProcess};
use crate::status_port::StatusPort;

/// Certificates in one batch.
pub(crate) const BATCH: usize = 100;

/// A server from outside.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    endpoint: Endpoint,
    anchors: TrustAnchors,
    admin: Endpoint,
    status: String,
    operator: TlsIdentity,
    issuer: Arc<IssuerHashes>,
}

/// Whoever was enrolled: the credential for its next connection.
#[derive(Debug, Clone)]
pub(crate) struct Enrolled {
    /// Its certificate and key.
    pub(crate) identity: TlsIdentity,
    /// Its serial number, as a certificate has it.
    pub(crate) serial: Vec<u8>,
}

/// How a key is proved in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// By a certificate request.
    Request,
    /// By the word of the caller.
    Vouched,
}

impl Wire {
    /// Serves the authority in this directory by a process of its own; and the way to it.
    pub(crate) async fn serve(
        directory: &Path,
        (api, status): (SocketAddr, SocketAddr),
    ) -> Result<(ServerProcess, Self)> {
        let arguments = ["serve", "--quiet", "--config", "chancery.toml"];
        let (log, doors) = (directory.join("serve.log"), [Door::Tcp(api), Door::Tcp(status)]);
        let server = ServerProcess::start(directory, &arguments, &log, &doors).await?;
        Ok((server, Self::new(directory, api, status)?))
    }

    /// To a server whose authority lives in this directory.
    fn new(directory: &Path, api: SocketAddr, status: SocketAddr) -> Result<Self> {
        let read = |name: &str| files::read(&directory.join(name), MAX_PEM);
        let issuers = read_certificates(&read("certs/issuer-1.crt")?, 1)?;
        let issuer = Certificate::from_der(issuers.first().context("there is no issuer")?)?;
        Ok(Self {
            endpoint: format!("https://{api}").parse()?,
            anchors: TrustAnchors::from_pem(&read("certs/root.crt")?)?,
            admin: Endpoint::Unix(directory.join("run/admin.sock")),
            status: status.to_string(),
            operator: TlsIdentity::from_pem(&read("operators/admin.crt")?, &read("operators/admin.key")?)?,
            issuer: Arc::new(IssuerHashes::of(&issuer)),
        })
    }

    /// A client with connections of its own; every request is sent once.
    pub(crate) fn client(&self, identity: Option<&TlsIdentity>) -> Result<Client> {
        let mut builder = Client::builder(self.endpoint.clone())
            .trust(self.anchors.clone())
            .http_version(HttpVersion::Http1)
            .retry(RetryPolicy::never());
        if let Some(identity) = identity {
            builder = builder.identity(identity.clone());
        }
        Ok(builder.build()?)
    }

    /// A client that listens over one connection of its own.
    pub(crate) fn listener(&self, identity: &TlsIdentity) -> Result<Client> {
        let builder = Client::builder(self.endpoint.clone())
            .trust(self.anchors.clone())
            .identity(identity.clone())
            .connect_timeout(Duration::from_secs(60))
            .request_timeout(Duration::from_secs(60));
        Ok(builder.build()?)
    }

    /// A client on the admin socket.
    pub(crate) fn admin(&self) -> Result<Client> {
        Ok(Client::builder(self.admin.clone()).build()?)
    }

    /// Clients whose connections are open, all with this certificate or with none.
    pub(crate) async fn connected(
        &self,
        count: usize,
        identity: Option<&TlsIdentity>,
    ) -> Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            let client = self.client(identity)?;
            client.healthz().await?;
            clients.push(client);
        }
        Ok(clients)
    }

    /// Enrols over connections that stay open.
    pub(crate) async fn enroll(
        &self,
        clients: usize,
        identity: Option<&TlsIdentity>,
        intents: Vec<Intent>,
        limit: Duration,
    ) -> Result<Prepared<Client, Intent>> {
        Ok(Prepared { workers: self.connected(clients, identity).await?, items: intents, limit })
    }

    /// Enrols each intent on a client of its own, for later renewals.
    pub(crate) async fn enroll_all(&self, intents: Vec<Intent>) -> Result<Vec<Enrolled>> {
        let client = self.client(None)?;
        let mut enrolled = Vec::with_capacity(intents.len());
        for intent in intents {
            let response = enroll(&client, &intent.subject, intent.token).await?;
            enrolled.push(credential(&response, &intent.subject)?);
        }
        Ok(enrolled)
    }

    /// Open connections, each with a certificate that is to be renewed over it.
    pub(crate) async fn connect_all(&self, enrolled: &[Enrolled]) -> Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(enrolled.len());
        for one in enrolled {
            let client = self.client(Some(&one.identity))?;
            client.healthz().await?;
            clients.push(client);
        }
        Ok(clients)
    }

    /// Batches, as an attested agent sends them.
    pub(crate) fn batch(
        &self,
        proof: Proof,
        next: &mut dyn FnMut() -> (chancery_types::SpiffeId, Arc<Subject>),
    ) -> BatchEnrollRequest {
        let item = |(identity, subject): (_, Arc<Subject>)| BatchItem {
            identity,
            key: match proof {
                Proof::Request => KeyMaterial::Csr(CsrDer::from_der(subject.csr.clone())),
                Proof::Vouched => KeyMaterial::PublicKey(PublicKeyDer::from_der(
                    subject.key.public_key().spki_der().to_vec(),
                )),
            },
            profile: None,
            lifetime: None,
            receipt: false,
        };
        BatchEnrollRequest { items: (0..BATCH).map(|_| item(next())).collect() }
    }

    /// Clients with the operator's certificate.
    pub(crate) async fn operators(&self, count: usize) -> Result<Vec<Client>> {
        self.connected(count, Some(&self.operator)).await
    }

    /// Connections to the status port.
    pub(crate) async fn status_ports(&self, count: usize) -> Result<Vec<StatusPort>> {
        let mut ports = Vec::with_capacity(count);
        for _ in 0..count {
            ports.push(StatusPort::connect(&self.status).await?);
        }
        Ok(ports)
    }

    /// The OCSP request about one certificate.
    pub(crate) fn ocsp_request(&self, serial: &[u8]) -> Vec<u8> {
        OcspRequest::to_der(&self.issuer, CertIdHash::Sha1, &[serial], None)
    }
}

/// Everything that a load needs, before the clock starts.
#[derive(Debug)]
pub(crate) struct Prepared<S, T> {
    pub(crate) workers: Vec<S>,
    pub(crate) items: Vec<T>,
    pub(crate) limit: Duration,
}

impl Prepared<Client, Intent> {
    /// Enrols.
    pub(crate) async fn run(self) -> Result<Load> {
        drive(self.workers, self.items, self.limit, |client, intent: Intent| async move {
            enroll(&client, &intent.subject, intent.token).await?;
            Ok((client, 1))
        })
        .await
    }
}

/// Enrols, each time on a new connection with a full handshake.
pub(crate) async fn enroll_afresh(
    wire: &Wire,
    identities: Vec<TlsIdentity>,
    intents: Vec<Intent>,
    limit: Duration,
) -> Result<Load> {
    let workers = identities.into_iter().map(|identity| (wire.clone(), identity)).collect();
    drive(workers, intents, limit, |(wire, identity): (Wire, TlsIdentity), intent: Intent| async move {
        enroll(&wire.client(Some(&identity))?, &intent.subject, intent.token).await?;
        Ok(((wire, identity), 1))
    })
    .await
}

/// Renews each certificate once over its own open connection.
pub(crate) async fn renew_open(
    workers: usize,
    connections: Vec<(Client, Arc<Subject>)>,
    limit: Duration,
) -> Result<Load> {
    drive(vec![(); workers], connections, limit, |(), (client, subject)| async move {
        renew(&client, &subject).await?;
        Ok(((), 1))
    })
    .await
}

/// Renews again and again, each time with the certificate that the renewal before gave, on a new connection.
pub(crate) async fn renew_afresh(
    wire: &Wire,
    enrolled: Vec<Enrolled>,
    subjects: Vec<Arc<Subject>>,
    limit: Duration,
) -> Result<Load> {
    let workers = enrolled.into_iter().map(|one| (wire.clone(), one)).collect();
    drive(workers, subjects, limit, |(wire, one): (Wire, Enrolled), subject: Arc<Subject>| async move {
        let response = renew(&wire.client(Some(&one.identity))?, &subject).await?;
        Ok(((wire, credential(&response, &subject)?), 1))
    })
    .await
}

/// Sends batches; counts certificates.
pub(crate) async fn enroll_batches(
    clients: Vec<Client>,
    batches: Vec<BatchEnrollRequest>,
    limit: Duration,
) -> Result<Load> {
    drive(clients, batches, limit, |client, batch: BatchEnrollRequest| async move {
        let response = client.enroll_batch(&batch, &client.new_idempotency_key()?).await?;
        for result in &response.results {
            if let BatchResult::Refused(problem) = result {
                anyhow::bail!("an item of a batch was refused: {}", problem.detail);
            }
        }
        Ok((client, response.results.len() as u64))
    })
    .await
}

/// Asks the OCSP responder, by `GET` or by `POST`.
pub(crate) async fn ask_status(
    ports: Vec<StatusPort>,
    requests: Vec<Vec<u8>>,
    by_get: bool,
    limit: Duration,
) -> Result<Load> {
    drive(ports, requests, limit, move |mut port, request: Vec<u8>| async move {
        let answer = if by_get {
            port.get(&format!("/ocsp/{}", BASE64URL_NOPAD.encode(&request))).await?
        } else {
            port.post_ocsp("/ocsp", &request).await?
        };
        // An unsuccessful answer has five bytes (RFC 6960 section 4.2.1).
        ensure!(answer.len() > 5, "the responder answered with an error");
        Ok((port, 1))
    })
    .await
}

async fn enroll(client: &Client, subject: &Subject, token: SecretString) -> Result<EnrollResponse> {
    let request = EnrollRequest {
        csr: CsrDer::from_der(subject.csr.clone()),
        evidence: Evidence::JoinToken { token },
        profile: None,
        identity: None,
        lifetime: None,
        receipt: false,
    };
    Ok(client.enroll(&request, &client.new_idempotency_key()?).await?)
}

async fn renew(client: &Client, subject: &Subject) -> Result<EnrollResponse> {
    let request = RenewRequest { csr: CsrDer::from_der(subject.csr.clone()), lifetime: None, receipt: false };
    Ok(client.renew(&request, &client.new_idempotency_key()?).await?)
}

fn credential(response: &EnrollResponse, subject: &Subject) -> Result<Enrolled> {
    let chain = format!("{}{}", response.certificate, response.chain);
    let identity = TlsIdentity::from_pem(chain.as_bytes(), subject.key.to_pkcs8_pem().as_bytes())?;
    Ok(Enrolled { identity, serial: response.serial.as_bytes().to_vec() })
}
