//! Everything that the authority signs, judged by programs that it did not write: OpenSSL, GnuTLS,
//! rustls-webpki and pkilint.
//!
//! Each test makes an authority with keys of one kind, has it issue a certificate of every profile and for every
//! kind of subject key, revokes one, and shows the lot to every judge. A judge that is not installed is
//! missed loudly.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

mod bench;
mod exhibits;
#[path = "../running/mod.rs"]
mod running;

use chancery_types::KeyAlgorithm;

use crate::exhibits::Exhibits;

async fn everything_stands_with_keys_of(algorithm: KeyAlgorithm) {
    let exhibits = Exhibits::of(algorithm).await;
    tokio::task::block_in_place(|| {
        bench::openssl_verifies(&exhibits);
        bench::openssl_takes_each_part_for_its_own(&exhibits);
        bench::openssl_reads_ocsp(&exhibits);
        bench::gnutls_verifies(&exhibits);
        bench::webpki_verifies(&exhibits);
        bench::pkilint_finds_no_error(&exhibits);
    });
    exhibits.running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_stands_with_p256() {
    everything_stands_with_keys_of(KeyAlgorithm::P256).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_stands_with_p384() {
    everything_stands_with_keys_of(KeyAlgorithm::P384).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_stands_with_ed25519() {
    everything_stands_with_keys_of(KeyAlgorithm::Ed25519).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_stands_with_rsa3072() {
    everything_stands_with_keys_of(KeyAlgorithm::Rsa3072).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_stands_with_rsa2048() {
    everything_stands_with_keys_of(KeyAlgorithm::Rsa2048).await;
}
