//! Two workloads that speak to each other: mutual TLS with the certificates that they were issued.
//!
//! Nothing here knows the authority but by what any relying party has: the trust bundle, and the revocation list
//! that the peer's certificate names, fetched anew for every connection.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chancery_types::{SpiffeId, Timestamp};
use chancery_x509::ocsp::{CertIdHash, CertificateStatus, IssuerHashes, OcspRequest, OcspResponse};
use chancery_x509::{Certificate, PRIVATE_KEY, read_certificates, read_pem_one};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::files::{self, MAX_PEM};
use crate::status_port::StatusPort;

/// The name under which the accepting side is reached.
const HOST: &str = "localhost";
/// How long an exchange may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A workload with what `chancery enroll --out` wrote for it.
pub(crate) struct Workload {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    certificate: Certificate,
}

impl fmt::Debug for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Workload").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// What two peers saw of each other.
#[derive(Debug)]
pub(crate) struct Meeting {
    /// Whom the accepting side saw.
    pub(crate) caller: SpiffeId,
    /// Whom the calling side saw.
    pub(crate) callee: SpiffeId,
    /// What came back.
    pub(crate) echo: String,
}

impl Workload {
    /// Reads `tls.crt`, `tls.key` and `ca.crt`.
    pub(crate) fn load(directory: &Path) -> Result<Self> {
        let certificates = |name: &str| -> Result<Vec<Vec<u8>>> {
            let path = directory.join(name);
            read_certificates(&files::read(&path, MAX_PEM)?, 16).with_context(|| path.display().to_string())
        };
        let chain = certificates("tls.crt")?;
        let certificate = Certificate::from_der(chain.first().context("tls.crt holds no certificate")?)?;
        let mut roots = RootCertStore::empty();
        for root in certificates("ca.crt")? {
            roots.add(CertificateDer::from(root)).context("ca.crt")?;
        }
        let pem = files::read_secret(&directory.join("tls.key"), MAX_PEM)?;
        let key = read_pem_one(&pem, &[PRIVATE_KEY]).context("tls.key")?.der.to_vec();
        Ok(Self {
            chain: chain.into_iter().map(CertificateDer::from).collect(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)),
            roots: Arc::new(roots),
            certificate,
        })
    }

    /// Its certificate.
    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The revocation list that its certificate names.
    pub(crate) async fn revocation_list(&self) -> Result<Vec<u8>> {
        let tbs = self.certificate.tbs();
        let url = tbs.crl_urls().next().context("the certificate names no revocation list")?;
        StatusPort::fetch(url).await
    }

    /// TLS for members of the trust domain; with a list, for those that are not on it.
    pub(crate) fn acceptor(&self, list: Option<&[u8]>) -> Result<TlsAcceptor> {
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider());
        if let Some(list) = list {
            verifier = verifier
                .with_crls([CertificateRevocationListDer::from(list.to_vec())])
                .only_check_end_entity_revocation()
                .enforce_revocation_expiration();
        }
        let verifier = verifier.build()?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// TLS to members of the trust domain; with a list, to those that are not on it.
    pub(crate) fn connector(&self, list: Option<&[u8]>) -> Result<TlsConnector> {
        let mut verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), provider());
        if let Some(list) = list {
            verifier = verifier
                .with_crls([CertificateRevocationListDer::from(list.to_vec())])
                .only_check_end_entity_revocation()
                .enforce_revocation_expiration();
        }
        let verifier = verifier.build()?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Whether the OCSP responder that a verified chain names says that its certificate is good.
pub(crate) async fn is_good_by_ocsp(chain: &[CertificateDer<'_>], now: Timestamp) -> Result<bool> {
    let [certificate, issuer, ..] = chain else { bail!("the peer shows no issuer") };
    let (certificate, issuer) = (Certificate::from_der(certificate)?, Certificate::from_der(issuer)?);
    let tbs = certificate.tbs();
    let url = tbs.ocsp_urls().next().context("the certificate names no OCSP responder")?;
    let request = OcspRequest::to_der(&IssuerHashes::of(&issuer), CertIdHash::Sha256, &[tbs.serial()], None);
    let answer = StatusPort::ask_ocsp(url, &request).await?;
    let OcspResponse::Basic(answer) = OcspResponse::from_der(&answer)? else {
        bail!("the OCSP responder does not answer");
    };
    Ok(answer.verified_status(&issuer, tbs.serial(), None, now)? == CertificateStatus::Good)
}

/// `caller` connects to `callee` over a real socket and gets its own words back. Each side fetches the other's
/// revocation list first. The outer error is a fault of the demonstration; the inner one is the accepting side's
/// refusal, in its own words.
pub(crate) async fn meet(caller: &Workload, callee: &Workload) -> Result<Result<Meeting, String>> {
    let acceptor = callee.acceptor(Some(&caller.revocation_list().await?))?;
    let connector = caller.connector(Some(&callee.revocation_list().await?))?;
    let listener = TcpListener::bind((HOST, 0)).await?;
    let address = listener.local_addr()?;
    let accepting = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
        let mut stream = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
        let caller = peer(stream.get_ref().1.peer_certificates())?;
        let mut words = [0; 64];
        let length = stream.read(&mut words).await.map_err(|error| error.to_string())?;
        stream.write_all(&words[..length]).await.map_err(|error| error.to_string())?;
        stream.shutdown().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(caller)
    });
    let calling = async {
        let name = ServerName::try_from(HOST).context("a name of a server")?;
        let mut stream = connector.connect(name, TcpStream::connect(address).await?).await?;
        let callee = peer(stream.get_ref().1.peer_certificates()).map_err(anyhow::Error::msg)?;
        stream.write_all(WORDS.as_bytes()).await?;
        let mut echo = String::new();
        stream.read_to_string(&mut echo).await?;
        anyhow::Ok((callee, echo))
    };
    let called = tokio::time::timeout(PATIENCE, calling).await.context("the exchange took too long")?;
    match (accepting.await?, called) {
        (Ok(caller), Ok((callee, echo))) => Ok(Ok(Meeting { caller, callee, echo })),
        (Err(refusal), _) => Ok(Err(refusal)),
        (Ok(_), Err(error)) => Err(error.context("the exchange broke")),
    }
}

/// Whom a verified chain names.
fn peer(chain: Option<&[CertificateDer<'_>]>) -> Result<SpiffeId, String> {
    let first = chain.and_then(<[_]>::first).ok_or("the peer showed no certificate")?;
    let certificate = Certificate::from_der(first).map_err(|error| error.to_string())?;
    certificate.tbs().spiffe_id().ok_or_else(|| "the peer's certificate names no SPIFFE ID".to_owned())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What the calling side says.
const WORDS: &str = "hello, who are you?";
