//! The ceiling of OCSP over HTTP: axum and nothing else, which answers everybody with the same bytes. It runs in this
//! process, beside the clients.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::status_port::StatusPort;

/// A server that ends when it is dropped.
pub(crate) struct Bare {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Bare {
    /// Answers with these bytes.
    pub(crate) async fn serve(answer: Vec<u8>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let answer = Bytes::from(answer);
        let router = Router::new()
            .fallback(move || async move { ([(CONTENT_TYPE, "application/ocsp-response")], answer) });
        // It ends with the task alone.
        let serving = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self { address, serving })
    }

    /// So many open connections.
    pub(crate) async fn ports(&self, count: usize) -> Result<Vec<StatusPort>> {
        let mut ports = Vec::with_capacity(count);
        for _ in 0..count {
            ports.push(StatusPort::connect(&self.address.to_string()).await?);
        }
        Ok(ports)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
