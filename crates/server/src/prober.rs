//! Fetches every revocation list that a certificate may name, by the URL that stands there, as a relying party would:
//! what is published is worth nothing if it does not arrive.
//!
//! A list that cannot be fetched, is not signed by its issuer, is for other URLs, has used up half of its time, or
//! does not say what the board says is reported in the log, in the metrics and by readiness.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chancery_revoke::{CrlPublisher, Place, StatusBoard};
use chancery_types::{Clock, RevocationReason, Timestamp};
use chancery_x509::crl::{CrlView, MAX_CRL};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};

use crate::outbound::Connection;

/// Between two rounds.
const PERIOD: Duration = Duration::from_secs(60);
/// How long one list may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a list may say something else than the board: longer than caches may keep it and publishing takes.
const LAG: Duration = Duration::from_secs(45);

/// Looks at the published lists from outside.
pub struct Prober {
    crl: Arc<CrlPublisher>,
    board: Arc<StatusBoard>,
    clock: Arc<dyn Clock>,
    lag: Duration,
    found: Mutex<Option<Round>>,
}

/// What a round found.
#[derive(Debug, Clone)]
pub struct Round {
    /// When it ended.
    pub ended: Timestamp,
    /// Lists that arrived and are as they should be.
    pub good: usize,
    /// What is wrong, each with its URL.
    pub troubles: Vec<String>,
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Prober").field("found", &self.found).finish_non_exhaustive()
    }
}

/// What a list says of a certificate that the board does not, or the other way round.
type Difference = (Vec<u8>, RevocationReason);

impl Prober {
    /// A prober that has not looked yet.
    #[must_use]
    pub fn new(crl: Arc<CrlPublisher>, board: Arc<StatusBoard>, clock: Arc<dyn Clock>) -> Self {
        Self { crl, board, clock, lag: LAG, found: Mutex::new(None) }
    }

    /// The same with another patience for lists that say something else than the board.
    #[must_use]
    pub fn with_lag(self, lag: Duration) -> Self {
        Self { lag, ..self }
    }

    /// What the last round found; nothing before the first has ended.
    #[must_use]
    pub fn found(&self) -> Option<Round> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks again and again, until it is dropped.
    pub async fn run(&self) {
        let mut before = Vec::new();
        loop {
            tokio::time::sleep(PERIOD).await;
            let round = self.look().await;
            if round.troubles != before {
                for trouble in &round.troubles {
                    tracing::error!(%trouble, "A PUBLISHED REVOCATION LIST IS NOT AS RELYING PARTIES NEED IT");
                }
                if round.troubles.is_empty() {
                    tracing::info!("published revocation lists are as they should be again");
                }
            }
            before = round.troubles;
        }
    }

    /// Fetches every list once; one that differs is fetched again later.
    pub async fn look(&self) -> Round {
        let mut troubles = Vec::new();
        let mut doubtful = Vec::new();
        let mut good = 0;
        for (place, url) in self.targets() {
            match self.probe(&place, &url).await {
                Ok(differences) if differences.is_empty() => good += 1,
                Ok(differences) => doubtful.push((place, url, differences)),
                Err(trouble) => troubles.push(format!("{url}: {trouble}")),
            }
        }
        if !doubtful.is_empty() {
            tokio::time::sleep(self.lag).await;
        }
        for (place, url, before) in doubtful {
            match self.probe(&place, &url).await {
                Ok(now) if now.is_disjoint(&before) => good += 1,
                Ok(now) => {
                    let count = now.intersection(&before).count();
                    troubles.push(format!("{url}: it differs in {count} lines from what was revoked"));
                }
                Err(trouble) => troubles.push(format!("{url}: {trouble}")),
            }
        }
        let round = Round { ended: self.clock.now(), good, troubles };
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(round.clone());
        round
    }

    fn targets(&self) -> impl Iterator<Item = (Arc<Place>, String)> + use<> {
        let now = self.clock.now();
        let places =
            self.crl.places().filter(move |place| place.issuer().certificate.tbs().not_after() > now);
        places.flat_map(|place| {
            let urls = place.urls().to_vec();
            urls.into_iter().map(move |url| (Arc::clone(&place), url))
        })
    }

    /// What one list says differently, if it can be used at all.
    async fn probe(&self, place: &Place, url: &str) -> Result<BTreeSet<Difference>, String> {
        let fetched = tokio::time::timeout(PATIENCE, fetch(url)).await;
        let der = fetched.map_err(|_| format!("it did not arrive within {} s", PATIENCE.as_secs()))??;
        let list = CrlView::from_der(&der).map_err(|error| error.to_string())?;
        list.verify(place.issuer().certificate.tbs().spki_der()).map_err(|error| error.to_string())?;
        if !list.distribution_points().any(|point| point == url) {
            return Err("it is not for this URL".to_owned());
        }
        self.check_age(&list)?;
        Ok(self.differences(place, &list))
    }

    fn check_age(&self, list: &CrlView<'_>) -> Result<(), String> {
        let (made, now) = (list.this_update(), self.clock.now());
        let next = list.next_update().ok_or("it does not say when the next one is due")?;
        let half = made + next.since(made) / 2;
        match now > half {
            true => Err(format!(
                "it was made at {made} and runs out at {next}: more than half of its time is over"
            )),
            false => Ok(()),
        }
    }

    fn differences(&self, place: &Place, list: &CrlView<'_>) -> BTreeSet<Difference> {
        let board = self.board.read();
        // What has ended may be on the one and no more on the other.
        let now = self.clock.now();
        let wanted = board.of_issuer(place.epoch()).filter(|line| place.covers(line.serial));
        let wanted: BTreeSet<Difference> =
            wanted.map(|line| (line.serial.as_bytes().to_vec(), line.reason)).collect();
        let found: BTreeSet<Difference> =
            list.entries().map(|entry| (entry.serial.to_vec(), entry.reason)).collect();
        let ended = |serial: &[u8]| {
            let serial = chancery_types::SerialNumber::from_bytes(serial).ok();
            serial.is_some_and(|serial| board.get(serial).is_none_or(|line| line.not_after < now))
        };
        let missing = wanted.difference(&found).filter(|(serial, _)| !ended(serial));
        missing.chain(found.difference(&wanted)).cloned().collect()
    }
}

/// `GET`, as the simplest of clients does it.
async fn fetch(url: &str) -> Result<Bytes, String> {
    let failed = |error: &dyn std::fmt::Display| format!("it cannot be fetched: {error}");
    let uri: Uri = url.parse().map_err(|error| failed(&error))?;
    let (Some(host), Some(path)) = (uri.host(), uri.path_and_query()) else {
        return Err("it is no URL with a host and a path".to_owned());
    };
    let mut connection = Connection::open(&uri, None).await.map_err(|error| failed(&error))?;
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(path.as_str()).header(http::header::HOST, authority).body(Full::default());
    let request = request.map_err(|error| failed(&error))?;
    let response = connection.send(request).await.map_err(|error| failed(&error))?;
    if response.status() != StatusCode::OK {
        return Err(format!("it was answered with {}", response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_CRL).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| failed(&error))
}
