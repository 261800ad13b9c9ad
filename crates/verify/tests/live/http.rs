//! HTTP over guarded streams, by hyper on both ends.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use super::*;
use crate::running::Running;

/// Answers with a body that never ends.
async fn endless<B>(_request: Request<B>) -> Result<Response<StreamBody<Endless>>, Infallible> {
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    tokio::spawn(async move {
        while sender.send(Ok(Frame::data(Bytes::from_static(b"still here\n")))).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    Ok(Response::new(StreamBody::new(Endless(receiver))))
}

struct Endless(mpsc::Receiver<Result<Frame<Bytes>, Infallible>>);

impl futures_util::Stream for Endless {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_of_either_http_breaks_off_when_the_peer_is_revoked() {
    let running = Running::start().await;
    let place = &running.place;
    let db = running.enroll("db").await;
    let follower = follow(place, running.server.api_address(), &db, Rules::default()).await;
    for version in ["http/1.1", "h2"] {
        let web = match version {
            "h2" => running.enroll("new").await,
            _ => running.enroll("old").await,
        };
        let acceptor =
            Acceptor::new(judge(place, &db, follower.status()), &credentials(place, &db), &[version]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (server, client) = meet(&listener, &acceptor, &caller(place, &web, &[version])).await;
        let (server, client) = (server.unwrap(), client.unwrap());
        let serving = tokio::spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.serve_connection(TokioIo::new(server), service_fn(endless)).await
        });
        let request = Request::get("https://db.example.org/").body(Empty::<Bytes>::new()).unwrap();
        let mut response = if version == "h2" {
            let io = TokioIo::new(client);
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "still here\n");
        revoke(&running.admin(), serial(&web)).await;
        let broken = async {
            loop {
                match response.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error,
                    None => panic!("{version}: a body that was cut off looks whole"),
                }
            }
        };
        let error = tokio::time::timeout(PATIENCE, broken).await.unwrap();
        println!("{version}: {error}");
        let served = tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap_err();
        let said = format!("{served:?}").to_lowercase();
        assert!(said.contains("revoked"), "{version}: {said}");
    }
}
