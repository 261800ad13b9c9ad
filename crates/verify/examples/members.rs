//! A service on axum that only members of its trust domain reach, that knows who they are, and that loses whoever is
//! revoked in the middle of an answer.
//!
//! ```text
//! members https://ca.example.org:8443 example.org 127.0.0.1:9443 /run/chancery/agent.sock
//! curl --no-buffer --cert me.crt --key me.key --cacert bundle.crt --insecure https://127.0.0.1:9443/clock
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::routing::get;
use axum::serve::{IncomingStream, Listener};
use chancery_types::{Clock as _, SystemClock, TrustDomain};
use chancery_verify::live::{
    Acceptor, Allowed, Authority, Credentials, Follower, Following, Guarded, Judge, LogKey, Peer,
    RelyingPartyKind, Rules, Trust,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

type Stream = Guarded<TlsStream<TcpStream>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [authority, domain, address, socket] = arguments.as_slice() else {
        return Err(
            "give the authority's URL, the trust domain, an address to listen at, and the agent's socket"
                .into(),
        );
    };
    let domain: TrustDomain = domain.parse()?;
    let credentials = Credentials::from_workload_api(Path::new(socket), None).await?;
    let follower = Follower::start(Following {
        authority: Authority::new(authority.parse()?, domain.clone(), &credentials),
        key: LogKey::Fetched,
        rules: Rules::default(),
        keep: None,
        instance: format!("members-{}", std::process::id()),
        kind: RelyingPartyKind::Library,
    });
    let trust = Trust::default();
    trust.follow(&domain, &credentials, follower.status())?;
    let judge = Judge::new(trust, Allowed::members_of(domain));
    let acceptor = Acceptor::new(judge, &credentials, &["h2", "http/1.1"]);

    let members = Members::listen(TcpListener::bind(address).await?, acceptor);
    let router = Router::new().route("/", get(greet)).route("/clock", get(clock));
    let service = router.into_make_service_with_connect_info::<Member>();
    axum::serve(members, service).await?;
    Ok(())
}

async fn greet(ConnectInfo(Member(peer)): ConnectInfo<Member>) -> String {
    format!("you are {}, until {}\n", peer.id, peer.not_after)
}

/// Tells the time every second, for as long as the peer is good.
async fn clock(ConnectInfo(Member(peer)): ConnectInfo<Member>) -> Body {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    tokio::spawn(async move {
        while sender.send(Ok(format!("{}\n", SystemClock.now()).into())).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        println!("{} hears the time no more", peer.id);
    });
    let lines = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|line| (line, receiver))
    });
    Body::from_stream(lines)
}

/// Who is at the other end of a connection.
#[derive(Clone)]
struct Member(Peer);

impl Connected<IncomingStream<'_, Members>> for Member {
    fn connect_info(stream: IncomingStream<'_, Members>) -> Self {
        Self(stream.io().peer().clone())
    }
}

/// Connections whose peers were let in.
struct Members {
    tcp: std::net::SocketAddr,
    admitted: mpsc::Receiver<Stream>,
}

impl Members {
    /// Accepts in a task of its own, and shakes hands in one for each: who is slow holds nobody up.
    fn listen(listener: TcpListener, acceptor: Acceptor) -> Self {
        let tcp = listener.local_addr().expect("it is bound");
        let (sender, admitted) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let Ok((stream, address)) = listener.accept().await else { continue };
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    match acceptor.accept(stream).await {
                        Ok(stream) => {
                            println!("{address} is {}", stream.peer().id);
                            let _ = sender.send(stream).await;
                        }
                        Err(error) => println!("{address} stays out: {error}"),
                    }
                });
            }
        });
        Self { tcp, admitted }
    }
}

impl Listener for Members {
    type Io = Stream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.admitted.recv().await {
            Some(stream) => (stream, self.tcp),
            // The task that sends lives as long as the process.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.tcp)
    }
}
