//! The decision about one certificate.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use chancery_client::{Client, ClientError};
use chancery_types::{Clock, SpiffeId, SystemClock};
use chancery_verify::live::{Judge, Refusal, Side};
use chancery_x509::{MAX_CERTIFICATE, read_certificates};
use rustls_pki_types::{CertificateDer, UnixTime};

/// Decides. Clones are one and the same.
#[derive(Clone)]
pub struct Decider {
    judge: Judge,
    /// Of the authority: proxies pass on a client's certificate without its issuers.
    issuers: Arc<ArcSwap<Vec<CertificateDer<'static>>>>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed(SpiffeId),
    /// It may not.
    Denied(String),
    /// That is not known at the moment, and the rules are strict.
    Unknown(String),
}

impl Decider {
    pub(crate) fn new(judge: Judge) -> Self {
        Self { judge, issuers: Arc::default() }
    }

    /// Decides about the holder of a certificate: URL-encoded PEM, as Envoy and nginx write it.
    #[must_use]
    pub fn decide(&self, escaped: &str) -> Verdict {
        if escaped.is_empty() {
            return Verdict::Denied(Refusal::NoCertificate.to_string());
        }
        let Some(mut chain) =
            unescape(escaped).and_then(|pem| read_certificates(&pem, MOST_CERTIFICATES).ok())
        else {
            return Verdict::Denied("the certificate is not URL-encoded PEM".to_owned());
        };
        let mut chain: Vec<CertificateDer<'_>> = chain.drain(..).map(CertificateDer::from).collect();
        // What Envoy passes on beyond the certificate itself is the client's word like any other.
        chain.extend(self.issuers.load().iter().cloned());
        let seconds = u64::try_from(SystemClock.now().seconds()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        match self.judge.judge(&chain, Side::Client, now) {
            Ok(judged) => Verdict::Allowed(judged.peer.id),
            Err(refusal @ Refusal::Unknown(_)) => Verdict::Unknown(refusal.to_string()),
            Err(refusal) => Verdict::Denied(refusal.to_string()),
        }
    }

    /// Learns the issuers, at first and from time to time. Their signatures are looked at with each certificate.
    pub(crate) async fn follow_issuers(self, client: impl Fn() -> Result<Client, ClientError>) {
        loop {
            let answer = match client() {
                Ok(client) => client.issuers().await,
                Err(error) => Err(error),
            };
            let pause = match answer {
                Ok(answer) => {
                    let pem: String =
                        answer.issuers.iter().map(|issuer| issuer.certificate.as_str()).collect();
                    match read_certificates(pem.as_bytes(), MOST_ISSUERS) {
                        Ok(issuers) => {
                            self.issuers
                                .store(Arc::new(issuers.into_iter().map(CertificateDer::from).collect()));
                        }
                        Err(error) => tracing::error!(%error, "the authority's issuers cannot be read"),
                    }
                    LOOK_AGAIN
                }
                Err(error) => {
                    tracing::warn!(%error, "the authority's issuers are not known any better");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// Percent-decoding (RFC 3986 section 2.1). A plus sign is itself: base64 has it.
fn unescape(text: &str) -> Option<Vec<u8>> {
    if text.len() > LONGEST {
        return None;
    }
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    Some(plain)
}

/// Certificates of one client that are read.
const MOST_CERTIFICATES: usize = 4;
/// Issuers that are known at once.
const MOST_ISSUERS: usize = 5;
/// Characters of an escaped certificate: base64, every one of them escaped.
const LONGEST: usize = MAX_CERTIFICATE * 4;
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unescapes_what_envoy_and_nginx_escape() {
        assert_eq!(unescape("-----BEGIN%20C-----%0Aa%2B+%2f").unwrap(), b"-----BEGIN C-----\na++/");
        for wrong in ["%", "%2", "%zz", "%+1"] {
            assert!(unescape(wrong).is_none_or(|plain| plain == b"\x01"), "{wrong}");
        }
    }
}
