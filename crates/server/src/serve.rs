//! Running an authority: doors open, credentials rotating, status published, until somebody says stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chancery_api::{HealthCheck, HealthState};
use chancery_revoke::{
    CrlPublisher, CrlRules, OcspResponder, ResponderCredential, SetPublisher, SetPublisherSpec, StatusBoard,
};
use chancery_types::{Clock, Random, RandomError, Timestamp};
use chancery_x509::Certificate;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::signal::unix::{SignalKind, signal};

use crate::agents::{Agents, StreamLimits};
use crate::authority::{Authority, AuthorityError, OnlineRoot, OpenError, Roots, ServerCredential};
use crate::callers::LedgerCallers;
use crate::changes::Changes;
use crate::config::Config;
use crate::connections::ConnectionLimits;
use crate::federation;
use crate::feed::{Feed, FeedLimits};
use crate::presence;
use crate::prober::Prober;
use crate::rate::Rate;
use crate::rotation::Rotation;
use crate::site::Site;
use crate::ssf::Transmitter;
use crate::standing::StandingCollector;
use crate::tidy::Tidier;
use crate::tiles::{TileKeeper, TileStore};
use crate::{
    AdminSocket, AdminSocketError, Chassis, Concurrency, Drained, Listener, ListenerLimits, OldestTls,
    RequestLimits, TlsError, TlsMaterial, TlsSlot, routes,
};

/// How long requests under way may take once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(20);
/// How often the authority's own certificates are looked at.
const CREDENTIAL_CHECK: Duration = Duration::from_secs(30);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The authority does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The authority's own certificates were not made.
    #[error("the server's own certificate was not issued: {0}")]
    Own(#[from] AuthorityError),
    /// TLS cannot be configured.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {error}; choose another address in [listen], or stop what uses it")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The admin socket cannot be made.
    #[error(transparent)]
    AdminSocket(#[from] AdminSocketError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The streams of security events cannot be read.
    #[error("{}: {_1}; it holds the streams of security events", _0.display())]
    EventStreams(std::path::PathBuf, std::io::Error),
    /// The place of full tiles cannot be used.
    #[error("{0}")]
    Tiles(String),
    /// The directory of lists cannot be made.
    #[error("{path}: {error}")]
    Directory {
        /// Which.
        path: String,
        /// Why not.
        error: std::io::Error,
    },
}

/// A server that accepts requests.
#[derive(Debug)]
pub struct Server {
    site: Site,
    tls: TlsSlot,
    api: SocketAddr,
    status: SocketAddr,
}

impl Server {
    /// Opens the authority, issues what the server needs, opens the doors.
    ///
    /// # Errors
    /// [`ServeError`], which says what to do.
    pub async fn start(
        config: Config,
        online_root: OnlineRoot,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, ServeError> {
        let authority =
            Arc::new(Authority::open(config, online_root, Arc::clone(&clock), Arc::clone(&random)).await?);
        let config = authority.config();
        let callers = Arc::new(LedgerCallers::new(Arc::clone(&authority)));
        let chassis =
            Arc::new(Chassis::new(request_limits(config), callers, Arc::clone(&clock), random.as_ref())?);
        let ocsp = responder(&authority).await?;
        let credential = authority.server_credential().await?;
        let shown = authority.roots();
        let tls = TlsSlot::new(material(&authority, &credential))?;
        let rules = CrlRules::new(config.crl_validity);
        let (board, entries) =
            StatusBoard::open(Arc::clone(authority.ledger()), Arc::clone(&clock), rules.keep())
                .await
                .map_err(AuthorityError::from)?;
        let crl = publisher(&authority, &board, rules).await?;
        crl.begin().await;
        let (agents, news) = Agents::load(Arc::clone(&authority), StreamLimits::default()).await?;
        let following = Arc::clone(&agents);
        let changes = Changes::start(Arc::clone(&authority), chassis.shutdown().clone()).await;
        let changes = changes.map_err(AuthorityError::from)?;
        let prober = Arc::new(Prober::new(Arc::clone(&crl), Arc::clone(&board), Arc::clone(&clock)));
        let ledger = Arc::clone(authority.ledger());
        let (feed, sources) =
            Feed::load(Arc::clone(&board), ledger, Arc::clone(&clock), FeedLimits::default())
                .await
                .map_err(AuthorityError::from)?;
        let rotation = Arc::new(Rotation::new(Arc::clone(&authority), Arc::clone(&crl), Arc::clone(&ocsp)));
        let events = authority.ledger().news();
        let ssf = Transmitter::load(Arc::clone(&authority), chassis.shutdown().clone())
            .map_err(|error| ServeError::EventStreams(authority.config().directory.join("ssf"), error))?;
        let site = Site {
            rotation: Arc::clone(&rotation),
            prober,
            authority: Arc::clone(&authority),
            board: Arc::clone(&board),
            set: exact_set(&authority, &board)?,
            ocsp,
            crl,
            changes,
            agents,
            feed: Arc::clone(&feed),
            ssf: Arc::clone(&ssf),
            tiles: tile_store(&authority).await?,
            tidier: tidier(&authority),
            chassis: Arc::clone(&chassis),
        };
        watch_health(&site);
        let standing = Box::new(StandingCollector {
            authority: Arc::clone(&authority),
            crl: Arc::clone(&site.crl),
            ocsp: Arc::clone(&site.ocsp),
            prober: Arc::clone(&site.prober),
            set: Arc::clone(&site.set),
            agents: Arc::clone(&site.agents),
            feed: Arc::clone(&feed),
            ssf: Arc::clone(&ssf),
            board: Arc::clone(&board),
            rotation: Arc::clone(&rotation),
            tidier: site.tidier.clone(),
            tiles: site.tiles.clone(),
        });
        chassis.metrics().register(|registry| registry.register_collector(standing));

        let limits = listener_limits(config);
        let metrics = chassis.metrics();
        let shutdown = chassis.shutdown();
        let bind = |address| move |error| ServeError::Bind { address, error };
        let api = Listener::bind(config.api, tls.clone(), limits).await.map_err(bind(config.api))?;
        let status = Listener::bind_plain(config.status, limits).await.map_err(bind(config.status))?;
        let admin = AdminSocket::bind(&config.admin_socket).await?;
        let addresses = (api.local_address(), status.local_address());
        let (Ok(api_address), Ok(status_address)) = addresses else {
            return Err(ServeError::Bind {
                address: config.api,
                error: std::io::Error::other("the operating system does not say where it listens"),
            });
        };
        let router = routes::all(&site);
        api.start(router.clone(), Arc::clone(metrics), shutdown);
        admin.start(router, Arc::clone(metrics), shutdown);
        status.start(routes::status(&site), Arc::clone(metrics), shutdown);
        let server = Self { site, tls, api: api_address, status: status_address };
        server.start_tasks(credential, shown);
        for domain in server.site.authority.config().federation.clone() {
            let stop = server.site.chassis.shutdown().clone();
            let directory = server.site.authority.config().directory.clone();
            let follow = federation::follow(domain, directory, Arc::clone(&server.site.agents));
            server.site.chassis.shutdown().spawn(async move {
                tokio::select! {
                    () = follow => {}
                    () = stop.begun() => {}
                }
            });
        }
        server.site.chassis.shutdown().spawn(ssf.run(events));
        let stop = server.site.chassis.shutdown().clone();
        server.site.chassis.shutdown().spawn(async move {
            tokio::select! {
                () = following.follow(news) => {}
                () = stop.begun() => {}
            }
        });
        let stop = server.site.chassis.shutdown().clone();
        server.site.chassis.shutdown().spawn(async move {
            tokio::select! {
                () = board.follow(entries) => {}
                () = stop.begun() => {}
            }
        });
        let stop = server.site.chassis.shutdown().clone();
        server.site.chassis.shutdown().spawn(async move {
            tokio::select! {
                () = feed.follow(sources) => {}
                () = stop.begun() => {}
            }
        });
        Ok(server)
    }

    /// Where the API listens.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// Where status is served over plain HTTP.
    #[must_use]
    pub fn status_address(&self) -> SocketAddr {
        self.status
    }

    /// What it serves.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Serves until SIGTERM or SIGINT; SIGHUP puts the rules on disk into force, all of them or none.
    ///
    /// # Errors
    /// When the operating system does not deliver signals.
    pub async fn run(&self) -> std::io::Result<Drained> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => match self.site.authority.reload_rules("SIGHUP").await {
                    Ok(()) => tracing::info!("profiles and policy were read again and are in force"),
                    Err(error) => {
                        tracing::error!(%error, "profiles and policy on disk are wrong; those in force stay");
                    }
                },
            }
        }
        tracing::info!("stopping: finishing what is under way");
        Ok(self.stop().await)
    }

    /// Stops: finishes what is under way, closes the ledger.
    pub async fn stop(&self) -> Drained {
        let drained = self.site.chassis.shutdown().finish(DRAIN).await;
        presence::end(&self.site.authority).await;
        let Site { crl, set, rotation, .. } = &self.site;
        tokio::join!(crl.give_up(), set.give_up(), rotation.give_up());
        self.site.authority.ledger().close();
        drained
    }

    fn start_tasks(&self, credential: ServerCredential, shown: Arc<Roots>) {
        let shutdown = self.site.chassis.shutdown().clone();
        shutdown.spawn({
            let (stop, rotation) = (shutdown.clone(), Arc::clone(&self.site.rotation));
            async move {
                tokio::select! {
                    () = rotation.run() => {}
                    () = stop.begun() => {}
                }
            }
        });
        shutdown.spawn({
            let (stop, authority) = (shutdown.clone(), Arc::clone(&self.site.authority));
            async move {
                tokio::select! {
                    () = presence::keep(authority) => {}
                    () = stop.begun() => {}
                }
            }
        });
        let (site, tls) = (self.site.clone(), self.tls.clone());
        shutdown.spawn({
            let stop = shutdown.clone();
            let site = site.clone();
            async move {
                tokio::select! {
                    () = rotate_credentials(&site, &tls, credential, shown) => {}
                    () = stop.begun() => {}
                }
            }
        });
        if let Some(tidier) = site.tidier.clone() {
            let stop = shutdown.clone();
            shutdown.spawn(async move {
                tokio::select! {
                    () = tidier.run() => {}
                    () = stop.begun() => tidier.give_up().await,
                }
            });
        }
        if let Some(store) = &site.tiles {
            let keeper = TileKeeper::new(Arc::clone(site.authority.ledger()), Arc::clone(store));
            let stop = shutdown.clone();
            shutdown.spawn(async move {
                tokio::select! {
                    () = keeper.run() => {}
                    () = stop.begun() => keeper.give_up().await,
                }
            });
        }
        shutdown.spawn({
            let (stop, set) = (shutdown.clone(), Arc::clone(&site.set));
            async move {
                tokio::select! {
                    () = set.run() => {}
                    () = stop.begun() => {}
                }
            }
        });
        shutdown.spawn({
            let stop = shutdown.clone();
            async move {
                tokio::select! {
                    () = async { tokio::join!(site.crl.run(), site.prober.run()); } => {}
                    () = stop.begun() => {}
                }
            }
        });
    }
}

/// Replaces the server's and the responder's certificates at half of their lives. A failure is tried again;
/// what is in use stays.
async fn rotate_credentials(site: &Site, tls: &TlsSlot, mut server: ServerCredential, mut shown: Arc<Roots>) {
    loop {
        site.rotation.server_has(server.not_before, server.not_after);
        tokio::select! {
            () = tokio::time::sleep(CREDENTIAL_CHECK) => {}
            () = site.rotation.succession() => {}
        }
        let now = site.authority.clock().now();
        let active = site.authority.workflow().issuer().epoch();
        let roots = site.authority.roots();
        if !Arc::ptr_eq(&shown, &roots) {
            match tls.replace(material(&site.authority, &server)) {
                Ok(()) => shown = roots,
                Err(error) => tracing::error!(%error, "the server's TLS does not follow the roots"),
            }
        }
        if server.is_due(now) || server.issuer != active {
            match site.authority.server_credential().await {
                Ok(credential) => match tls.replace(material(&site.authority, &credential)) {
                    Ok(()) => {
                        tracing::info!(not_after = %credential.not_after, "the server has a new certificate");
                        server = credential;
                    }
                    Err(error) => tracing::error!(%error, "the server's new certificate cannot be used"),
                },
                Err(error) => tracing::error!(%error, "the server's certificate was not renewed"),
            }
        }
        let is_due =
            |credential: Arc<ResponderCredential>| credential.certificate.is_none() || credential.is_due(now);
        if site.ocsp.credential(active).is_none_or(is_due) {
            match site.authority.responder_credential().await {
                Ok(credential) => site.ocsp.use_credential(active, credential),
                Err(error) => tracing::error!(%error, "the OCSP responder's certificate was not renewed"),
            }
        }
    }
}

async fn responder(authority: &Authority) -> Result<Arc<OcspResponder>, ServeError> {
    let ocsp = OcspResponder::new(
        Arc::clone(authority.ledger()),
        Arc::clone(authority.clock()),
        authority.config().ocsp_validity,
    );
    let active = authority.workflow().issuer().epoch();
    for issuer in authority.status_issuers().await? {
        ocsp.add_issuer(issuer.epoch, &issuer.certificate);
        // Only one that still issues can delegate.
        if let Some(signer) = issuer.signer.filter(|_| issuer.epoch != active) {
            ocsp.use_credential(issuer.epoch, ResponderCredential::of_issuer(&issuer.certificate, signer));
        }
    }
    ocsp.use_credential(active, authority.responder_credential().await?);
    Ok(Arc::new(ocsp))
}

async fn publisher(
    authority: &Authority,
    board: &Arc<StatusBoard>,
    rules: CrlRules,
) -> Result<Arc<CrlPublisher>, ServeError> {
    let directory = authority.config().directory.join("crl");
    std::fs::create_dir_all(&directory)
        .map_err(|error| ServeError::Directory { path: directory.display().to_string(), error })?;
    Ok(Arc::new(CrlPublisher::new(
        Arc::clone(authority.ledger()),
        Arc::clone(authority.clock()),
        Arc::clone(board),
        rules,
        authority.status_issuers().await?,
        &directory,
    )))
}

fn exact_set(authority: &Authority, board: &Arc<StatusBoard>) -> Result<Arc<SetPublisher>, ServeError> {
    let directory = authority.config().directory.join("status");
    std::fs::create_dir_all(&directory)
        .map_err(|error| ServeError::Directory { path: directory.display().to_string(), error })?;
    Ok(Arc::new(SetPublisher::new(SetPublisherSpec {
        board: Arc::clone(board),
        ledger: Arc::clone(authority.ledger()),
        clock: Arc::clone(authority.clock()),
        trust_domain: authority.config().trust_domain.clone(),
        signers: Arc::clone(authority.log_signers()),
        file: directory.join("exact.set"),
        refresh: authority.config().set_refresh,
    })))
}

fn tidier(authority: &Authority) -> Option<Arc<Tidier>> {
    let (ledger, clock) = (Arc::clone(authority.ledger()), Arc::clone(authority.clock()));
    let settle = authority.config().rotation.rules.settle;
    let after = authority.config().tidy_after?;
    Some(Arc::new(Tidier::new(ledger, clock, after, settle)))
}

async fn tile_store(authority: &Authority) -> Result<Option<Arc<TileStore>>, ServeError> {
    let Some(place) = &authority.config().tiles else { return Ok(None) };
    let (clock, random) = (Arc::clone(authority.clock()), Arc::clone(authority.random()));
    let opened = TileStore::open(place, authority.ledger().as_ref(), clock, random).await;
    let store = opened.map_err(|error| ServeError::Tiles(error.to_string()))?;
    Ok(Some(Arc::new(store)))
}

fn material(authority: &Authority, credential: &ServerCredential) -> TlsMaterial {
    let key = PrivatePkcs8KeyDer::from(credential.key.pkcs8_der().to_vec());
    let roots = authority.roots();
    let mut chain: Vec<CertificateDer<'static>> =
        credential.chain.iter().cloned().map(CertificateDer::from).collect();
    if let Some(Ok(issuer)) = credential.chain.last().map(|der| Certificate::from_der(der)) {
        chain.extend(roots.above(&issuer).iter().map(|one| CertificateDer::from(one.der().to_vec())));
    }
    TlsMaterial {
        chain,
        key: PrivateKeyDer::Pkcs8(key),
        client_roots: roots.bundle().map(|root| CertificateDer::from(root.der().to_vec())).collect(),
        oldest: if authority.config().tls12 { OldestTls::Tls12 } else { OldestTls::Tls13 },
    }
}

fn watch_health(site: &Site) {
    let authority = Arc::clone(&site.authority);
    site.chassis.health().register(move || match authority.ledger().trouble() {
        None => check("ledger", HealthState::Ok, None),
        Some(error) => check("ledger", HealthState::Failed, Some(error.to_string())),
    });
    let (crl, clock) = (Arc::clone(&site.crl), Arc::clone(site.authority.clock()));
    let prober = Arc::clone(&site.prober);
    site.chassis.health().register(move || {
        let troubles = prober.found().map(|round| round.troubles).unwrap_or_default();
        match troubles.first() {
            None => check("crl-prober", HealthState::Ok, None),
            Some(first) => {
                let more = troubles.len() - 1;
                check("crl-prober", HealthState::Degraded, Some(format!("{first} (and {more} more)")))
            }
        }
    });
    site.chassis.health().register(move || match stale(&crl, clock.now()) {
        None => check("crl", HealthState::Ok, None),
        Some(detail) => check("crl", HealthState::Degraded, Some(detail)),
    });
    let (set, clock) = (Arc::clone(&site.set), Arc::clone(site.authority.clock()));
    site.chassis.health().register(move || match set.current() {
        Some(_) if !set.is_stale(clock.now()) => check("status-set", HealthState::Ok, None),
        Some(current) => {
            let text = format!("the exact set was made at {}, and no newer one since", current.set().made());
            check("status-set", HealthState::Degraded, Some(text))
        }
        None => check("status-set", HealthState::Degraded, Some("no exact set was published yet".into())),
    });
}

/// The first list that relying parties may soon do without, and why.
fn stale(crl: &CrlPublisher, now: Timestamp) -> Option<String> {
    crl.places().find_map(|place| {
        let file = place.file().display();
        if let Some(trouble) = place.trouble() {
            return Some(format!("{file} is not published anew: {trouble}"));
        }
        let Some(list) = place.current() else { return Some(format!("{file} was not published yet")) };
        let is_late = list.made + crl.rules().validity / 2 < now;
        is_late.then(|| format!("{file} was published at {} and runs out at {}", list.made, list.next_update))
    })
}

fn check(name: &str, state: HealthState, detail: Option<String>) -> HealthCheck {
    HealthCheck { name: name.to_owned(), state, detail: detail.unwrap_or_default() }
}

fn request_limits(config: &Config) -> RequestLimits {
    let rate = Rate {
        per_second: f64::from(config.limits.requests_per_second),
        burst: f64::from(config.limits.burst),
    };
    let defaults = RequestLimits::default();
    let writes = Concurrency { running: config.limits.concurrent_requests, ..defaults.writes };
    RequestLimits { address_rate: Some(rate), identity_rate: Some(rate), writes, ..defaults }
}

fn listener_limits(config: &Config) -> ListenerLimits {
    ListenerLimits {
        connections: ConnectionLimits {
            total: config.limits.connections,
            per_address: config.limits.connections_per_address,
        },
        ..ListenerLimits::default()
    }
}
