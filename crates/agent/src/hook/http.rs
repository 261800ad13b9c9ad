//! A request to a port of this machine.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{HookOutcome, OUTPUT_LIMIT, Occasion, printable, timed_out};

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) address: SocketAddr,
    pub(super) path: String,
}

impl Request {
    /// Posts the occasion as JSON; any 2xx is an end as it should be.
    pub(super) async fn send(&self, occasion: &Occasion, limit: Duration) -> HookOutcome {
        match timeout(limit, self.exchange(occasion)).await {
            Err(_) => timed_out(limit, String::new()),
            Ok(Err(why)) => {
                HookOutcome::NotStarted { why: format!("http://{}{}: {why}", self.address, self.path) }
            }
            Ok(Ok((status, output))) if status.is_success() => HookOutcome::Done { output },
            Ok(Ok((status, output))) => HookOutcome::Failed { how: format!("answered {status}"), output },
        }
    }

    async fn exchange(&self, occasion: &Occasion) -> Result<(hyper::StatusCode, String), String> {
        let body = serde_json::to_vec(occasion).expect("an occasion is plain data");
        let request = hyper::Request::post(self.path.as_str())
            .header(hyper::header::HOST, self.address.to_string())
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), OUTPUT_LIMIT).collect().await;
            let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            Ok((status, printable(&body)))
        };
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // The connection ends with the answer that it carried, or without one.
            _ = connection => exchange.await,
        }
    }
}
