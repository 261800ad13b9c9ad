//! Ports for servers that tests kill and start again.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

/// A port that nothing listens on, below those that outgoing connections are given (32768 and above): a server that is killed
/// and started again finds it free.
pub(crate) fn free_port() -> u16 {
    loop {
        let random = BuildHasher::hash_one(&RandomState::new(), ());
        let port = 10_000 + u16::try_from(random % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
