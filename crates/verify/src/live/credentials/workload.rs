//! Credentials from the SPIFFE Workload API: one call of gRPC, spoken by hand over HTTP/2.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use chancery_types::SpiffeId;
use chancery_x509::split_certificates;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::UnixStream;
use zeroize::Zeroize as _;

use super::{Bundles, CredentialError, Credentials, Slot};

/// The largest message that is read: a few identities, and the bundles of their friends.
const LARGEST_MESSAGE: usize = 4 << 20;
/// Certificates of one field that are read.
const MOST_CERTIFICATES: usize = 64;
/// How long to wait before the socket is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the first message may take.
const FIRST: Duration = Duration::from_secs(30);

/// All that the caller has (the standard's X509SVIDResponse).
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Svids {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Bytes>,
}

/// One identity (X509SVID).
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "bytes", tag = "2")]
    chain: Bytes,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(bytes = "bytes", tag = "4")]
    bundle: Bytes,
}

impl Drop for Svid {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Credentials {
    /// Credentials from an agent's socket, and what it sends later, for as long as they are held. Of several identities
    /// the one that is `wanted`, or the first. While the agent is away what is there stays.
    ///
    /// # Errors
    /// [`CredentialError`] when there are none now.
    pub async fn from_workload_api(socket: &Path, wanted: Option<SpiffeId>) -> Result<Self, CredentialError> {
        let credentials = Self::empty();
        let agent = Agent { socket: socket.to_owned(), wanted };
        let first = async {
            let mut stream = agent.open().await?;
            let message = agent.next(&mut stream).await?;
            agent.take(&message, &credentials)?;
            Ok::<_, CredentialError>(stream)
        };
        let late = |_| agent.failed(format!("nothing came for {FIRST:?}"));
        let stream = tokio::time::timeout(FIRST, first).await.map_err(late)??;
        let slot = Arc::downgrade(&credentials.0);
        credentials.keep_with(async move {
            let mut stream = Some(stream);
            loop {
                let Err(error) = agent.follow(stream.take(), &slot).await else { return };
                tracing::warn!(%error, "credentials stay as they are");
                tokio::time::sleep(AGAIN).await;
            }
        });
        Ok(credentials)
    }
}

struct Agent {
    socket: PathBuf,
    wanted: Option<SpiffeId>,
}

impl Agent {
    /// Takes messages in until the stream ends, which is an error, or nobody holds the credentials.
    async fn follow(&self, stream: Option<Stream>, slot: &Weak<Slot>) -> Result<(), CredentialError> {
        let mut stream = match stream {
            Some(stream) => stream,
            None => self.open().await?,
        };
        loop {
            let message = self.next(&mut stream).await?;
            let Some(slot) = slot.upgrade() else { return Ok(()) };
            if let Err(error) = self.take(&message, &Credentials(slot)) {
                tracing::warn!(%error, "what the agent sent is not used");
            }
        }
    }

    async fn open(&self) -> Result<Stream, CredentialError> {
        let failed = |error: &dyn std::fmt::Display| self.failed(error.to_string());
        let socket = UnixStream::connect(&self.socket).await.map_err(|error| failed(&error))?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        let (mut sender, connection) =
            builder.handshake(TokioIo::new(socket)).await.map_err(|error| failed(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the agent ended");
            }
        });
        // One message of no bytes, not compressed (gRPC over HTTP/2).
        let request = Request::post("http://localhost/SpiffeWorkloadAPI/FetchX509SVID")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("workload.spiffe.io", "true")
            .body(Full::new(Bytes::from_static(&[0; 5])))
            .map_err(|error| failed(&error))?;
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        if let Some(status) = response.headers().get("grpc-status") {
            return Err(self.failed(refusal(status.to_str().unwrap_or("?"), response.headers())));
        }
        Ok(Stream { response, read: BytesMut::new(), _sender: sender })
    }

    async fn next(&self, stream: &mut Stream) -> Result<Svids, CredentialError> {
        stream.next().await.map_err(|detail| self.failed(detail))
    }

    fn take(&self, message: &Svids, credentials: &Credentials) -> Result<(), CredentialError> {
        let is_wanted =
            |svid: &&Svid| self.wanted.as_ref().is_none_or(|wanted| wanted.as_str() == svid.spiffe_id);
        let svid = message.svids.iter().find(is_wanted).ok_or(CredentialError::Identity)?;
        let id: SpiffeId = svid.spiffe_id.parse().map_err(|_| CredentialError::Identity)?;
        let mut bundles = Bundles::new();
        for (name, roots) in &message.federated_bundles {
            let domain: SpiffeId = name.parse().map_err(|_| malformed("federated bundle", name))?;
            bundles.insert(domain.trust_domain(), certificates("federated bundle", roots)?);
        }
        bundles.insert(id.trust_domain(), certificates("trust bundle", &svid.bundle)?);
        let chain = certificates("certificate chain", &svid.chain)?;
        credentials.show(chain, PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.key.clone())))?;
        credentials.believe(bundles);
        Ok(())
    }

    fn failed(&self, detail: String) -> CredentialError {
        CredentialError::WorkloadApi { path: self.socket.display().to_string(), detail }
    }
}

/// Messages on their way.
struct Stream {
    response: Response<Incoming>,
    read: BytesMut,
    /// The connection ends with its last sender.
    _sender: http2::SendRequest<Full<Bytes>>,
}

impl Stream {
    async fn next(&mut self) -> Result<Svids, String> {
        loop {
            if let Some(message) = self.buffered()? {
                return Svids::decode(message).map_err(|error| error.to_string());
            }
            let frame = match self.response.body_mut().frame().await {
                Some(frame) => frame.map_err(|error| error.to_string())?,
                None => return Err("the agent has ended the stream".into()),
            };
            match frame.into_data() {
                Ok(data) => self.read.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let status = trailers.get("grpc-status").and_then(|status| status.to_str().ok());
                    return Err(refusal(status.unwrap_or("?"), &trailers));
                }
            }
        }
    }

    /// A message that is there whole: a byte for compression, four for the length, itself.
    fn buffered(&mut self) -> Result<Option<Bytes>, String> {
        let Some([compressed, length @ ..]) = self.read.first_chunk::<5>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if *compressed != 0 || length > LARGEST_MESSAGE {
            return Err(format!(
                "a message is compressed or has more than {LARGEST_MESSAGE} bytes: {length}"
            ));
        }
        if self.read.len() < 5 + length {
            return Ok(None);
        }
        self.read.advance(5);
        Ok(Some(self.read.split_to(length).freeze()))
    }
}

fn refusal(status: &str, headers: &http::HeaderMap) -> String {
    let message = headers.get("grpc-message").and_then(|message| message.to_str().ok()).unwrap_or_default();
    format!("it answers with gRPC status {status} {message:?}")
}

fn certificates(what: &'static str, der: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let split = split_certificates(der, MOST_CERTIFICATES);
    let split = split.map_err(|error| malformed(what, &error.to_string()))?;
    Ok(split.into_iter().map(CertificateDer::from).collect())
}

fn malformed(what: &'static str, detail: &str) -> CredentialError {
    CredentialError::Form { what, detail: detail.to_owned() }
}
