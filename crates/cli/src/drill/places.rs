//! Relying parties within this process: by the library, by lists, by OCSP, and by nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use chancery_types::{Clock as _, SystemClock, TrustDomain};
use chancery_verify::live::{
    Acceptor, Allowed, Authority, CredentialFiles, Credentials, Follower, Following, Judge, LogKey,
    RelyingPartyKind, Rules, Trust,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::peers::{Workload, is_good_by_ocsp};
use crate::status_port::StatusPort;

/// Bytes of a request.
const REQUEST: usize = 8 * 1024;

/// A relying party of this process.
#[derive(Debug)]
pub(crate) struct Place {
    address: SocketAddr,
    task: JoinHandle<()>,
    /// Followed for as long as this is there.
    follower: Option<Follower>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Place {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// With the library: the status feed decides, also about connections that are open.
    pub(crate) async fn live(files: CredentialFiles, server: &str, domain: &TrustDomain) -> Result<Self> {
        let credentials = Credentials::from_files(files).await?;
        let follower = Follower::start(Following {
            authority: Authority::new(server.parse()?, domain.clone(), &credentials),
            key: LogKey::Fetched,
            rules: Rules::default(),
            keep: None,
            instance: "library".into(),
            kind: RelyingPartyKind::Library,
        });
        follower.ready().await;
        let trust = Trust::default();
        trust.follow(domain, &credentials, follower.status())?;
        let acceptor =
            Acceptor::new(Judge::new(trust, Allowed::members_of(domain.clone())), &credentials, &[]);
        let mut place = Self::open(move |stream| {
            let acceptor = acceptor.clone();
            async move { answer(acceptor.accept(stream).await?).await }
        })
        .await?;
        place.follower = Some(follower);
        Ok(place)
    }

    /// Fetches the full list at this URL for every connection.
    pub(crate) async fn with_lists(workload: Arc<Workload>, url: String) -> Result<Self> {
        Self::open(move |stream| {
            let (workload, url) = (Arc::clone(&workload), url.clone());
            async move {
                let list = StatusPort::fetch(&url).await?;
                answer(workload.acceptor(Some(&list))?.accept(stream).await?).await
            }
        })
        .await
    }

    /// Asks by OCSP about every connection.
    pub(crate) async fn with_ocsp(workload: Arc<Workload>) -> Result<Self> {
        Self::open(move |stream| {
            let workload = Arc::clone(&workload);
            async move {
                let stream = workload.acceptor(None)?.accept(stream).await?;
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                ensure!(is_good_by_ocsp(chain, SystemClock.now()).await?, "revoked");
                answer(stream).await
            }
        })
        .await
    }

    /// Looks at the chain, and at nothing else.
    pub(crate) async fn careless(workload: Arc<Workload>) -> Result<Self> {
        Self::open(move |stream| {
            let workload = Arc::clone(&workload);
            async move { answer(workload.acceptor(None)?.accept(stream).await?).await }
        })
        .await
    }

    /// Speaks no TLS at all: what stands behind a proxy.
    pub(crate) async fn plain() -> Result<Self> {
        Self::open(answer).await
    }

    async fn open<F, A>(serve: F) -> Result<Self>
    where
        F: Fn(TcpStream) -> A + Send + 'static,
        A: Future<Output = Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Ok(Self { address, task, follower: None })
    }
}

/// Answers requests, each with 204, for as long as they come.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let mut request = Vec::with_capacity(256);
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            ensure!(request.len() < REQUEST, "a request without end");
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        request.clear();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    }
}
