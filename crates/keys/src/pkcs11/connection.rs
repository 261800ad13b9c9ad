//! One login to one token, shared by all its keys: a bounded pool of sessions that is rebuilt when it is lost.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use chancery_types::SecretString;
use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, SessionState};
use cryptoki::slot::Limit;

use super::error::{TokenError, is_lost_session, is_temporary};
use super::object::KeySelector;
use super::token::{self, FoundToken};
use crate::envelope::Protection;
use crate::secret_file::read_secret;
use crate::signer::SignError;
use crate::uri::Pkcs11Uri;

/// A token that this process is logged in to.
pub(super) struct Connection {
    uri: Pkcs11Uri,
    label: String,
    serial: String,
    pin: Option<SecretString>,
    limit: usize,
    pool: Mutex<Pool>,
    returned: Condvar,
}

/// The sessions of the current login. All idle ones belong to it; one that is lent may be older.
struct Pool {
    token: FoundToken,
    generation: u64,
    idle: Vec<Session>,
    open: usize,
    /// Set when the token refused the PIN after it had accepted it once: somebody changed it, and trying it
    /// again would lock the token.
    pin_refused: bool,
}

/// Why an operation on a session did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The module said so.
    Module(Error),
    /// It was answered, and the answer cannot be used.
    Refused(String),
}

/// Why no session did the work.
#[derive(Debug)]
pub(super) enum ConnectionError {
    Busy { token: String, waited: Duration },
    Forked { token: String },
    Unavailable { token: String, reason: String },
    Refused { token: String, reason: String },
}

impl Connection {
    /// Logs in to the token that the URI means, or joins the login that this process has. The PIN comes from the
    /// URI's `pin-source`; without one, the passphrase is the PIN.
    pub(super) fn open(uri: &Pkcs11Uri, protection: &Protection) -> Result<Arc<Self>, TokenError> {
        let token = token::find(uri)?;
        let pin = match (&uri.pin_source, protection) {
            (Some(path), _) => Some(read_secret(path)?),
            (None, Protection::Passphrase(passphrase)) => Some(passphrase.clone()),
            (None, Protection::Plain) => None,
        };
        // Held while logging in, so that one of two openers logs in and the other joins.
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| connection.strong_count() > 0);
        if let Some(connection) =
            open.iter().filter_map(Weak::upgrade).find(|connection| connection.serves(&token))
        {
            return connection.join(pin.as_ref());
        }
        let connection = Arc::new(Self::login(uri, token, pin)?);
        open.push(Arc::downgrade(&connection));
        Ok(connection)
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn token(&self) -> FoundToken {
        self.lock().token.clone()
    }

    /// A session in which objects can be made, outside the pool.
    pub(super) fn read_write_session(&self) -> Result<Session, TokenError> {
        let token = self.token();
        let session = token
            .module
            .context()
            .open_rw_session(token.slot)
            .map_err(TokenError::failed("open a session for writing"))?;
        token::login(&session, &token, self.pin.as_ref())?;
        Ok(session)
    }

    /// Runs the work in a session of its own. If the session turns out to be lost, the login is renewed and the
    /// work run again, a few times at most. The second argument of the work numbers the login: object handles of an earlier one
    /// mean nothing.
    pub(super) fn with_session<T>(
        &self,
        work: impl Fn(&Session, u64) -> Result<T, Failure>,
    ) -> Result<T, ConnectionError> {
        let mut losses = 0;
        loop {
            let (session, generation) = self.take()?;
            match work(&session, generation) {
                Ok(value) => {
                    self.put_back(session, generation);
                    return Ok(value);
                }
                Err(Failure::Module(error)) if is_lost_session(&error) => {
                    self.discard(session, generation);
                    losses += 1;
                    if losses > MAX_RENEWALS {
                        return Err(self.unavailable(error));
                    }
                }
                Err(failure) => {
                    self.put_back(session, generation);
                    return Err(match failure {
                        Failure::Module(error) if is_temporary(&error) => self.unavailable(error),
                        Failure::Module(error) => self.refused(error),
                        Failure::Refused(reason) => self.refused(reason),
                    });
                }
            }
        }
    }

    /// Fails as a lost session does if this session is not logged in and should be.
    pub(super) fn check_login(&self, session: &Session) -> Result<(), Failure> {
        let state = session.get_session_info().map_err(Failure::Module)?.session_state();
        let public = matches!(state, SessionState::RoPublic | SessionState::RwPublic);
        if public && self.lock().token.info.login_required() {
            return Err(Failure::Module(Error::Pkcs11(RvError::UserNotLoggedIn, Function::GetSessionInfo)));
        }
        Ok(())
    }

    fn login(uri: &Pkcs11Uri, token: FoundToken, pin: Option<SecretString>) -> Result<Self, TokenError> {
        let session = token
            .module
            .context()
            .open_ro_session(token.slot)
            .map_err(TokenError::failed("open a session"))?;
        token::login(&session, &token, pin.as_ref())?;
        let limit = match token.info.max_session_count() {
            Limit::Max(most) => usize::try_from(most).unwrap_or(MAX_SESSIONS).clamp(1, MAX_SESSIONS),
            Limit::Unavailable | Limit::Infinite => MAX_SESSIONS,
        };
        Ok(Self {
            uri: uri.clone(),
            label: token.info.label().to_owned(),
            serial: token.info.serial_number().to_owned(),
            pin,
            limit,
            pool: Mutex::new(Pool { token, generation: 0, idle: vec![session], open: 1, pin_refused: false }),
            returned: Condvar::new(),
        })
    }

    fn serves(&self, token: &FoundToken) -> bool {
        let pool = self.lock();
        !pool.token.module.is_foreign()
            && pool.token.module.path() == token.module.path()
            && self.serial == token.info.serial_number()
            && self.label == token.info.label()
    }

    /// The token would say "already logged in" to any PIN, so it is compared here.
    fn join(self: Arc<Self>, pin: Option<&SecretString>) -> Result<Arc<Self>, TokenError> {
        match (pin, &self.pin) {
            (Some(given), Some(known)) if given.expose_secret() != known.expose_secret() => {
                Err(TokenError::OtherPin { token: self.label.clone() })
            }
            (None, Some(_)) => Err(TokenError::PinNeeded { token: self.label.clone() }),
            _ => Ok(self),
        }
    }

    /// An idle session, a new one, or the first that comes back.
    fn take(&self) -> Result<(Session, u64), ConnectionError> {
        let start = Instant::now();
        let mut pool = self.lock();
        if pool.token.module.is_foreign() {
            return Err(ConnectionError::Forked { token: self.label.clone() });
        }
        loop {
            if let Some(session) = pool.idle.pop() {
                return Ok((session, pool.generation));
            }
            if pool.open < self.limit {
                match self.add_session(&mut pool) {
                    Ok(session) => return Ok((session, pool.generation)),
                    // The token has fewer sessions than it says; make do with those that are lent.
                    Err(ConnectionError::Busy { .. }) if pool.open > 0 => {}
                    Err(error) => return Err(error),
                }
            }
            let waited = start.elapsed();
            if waited >= MAX_WAIT {
                return Err(ConnectionError::Busy { token: self.label.clone(), waited });
            }
            pool =
                self.returned.wait_timeout(pool, MAX_WAIT - waited).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Opens a session and logs in. The slot is looked for again after a loss: a token that was pulled out may
    /// come back in another.
    fn add_session(&self, pool: &mut Pool) -> Result<Session, ConnectionError> {
        if pool.pin_refused {
            return Err(self.refused(
                "it refused the PIN and is not asked again, so as not to lock it; restart with the right one",
            ));
        }
        if pool.open == 0 {
            pool.token = token::find(&self.uri).map_err(|error| self.unavailable(error))?;
        }
        let session =
            pool.token.module.context().open_ro_session(pool.token.slot).map_err(|error| match error {
                Error::Pkcs11(RvError::SessionCount, _) => {
                    ConnectionError::Busy { token: self.label.clone(), waited: Duration::ZERO }
                }
                other => self.unavailable(other),
            })?;
        match token::login(&session, &pool.token, self.pin.as_ref()) {
            Ok(()) => {}
            Err(error @ (TokenError::WrongPin { .. } | TokenError::PinLocked { .. })) => {
                pool.pin_refused = true;
                return Err(self.refused(error));
            }
            Err(error) => return Err(self.unavailable(error)),
        }
        pool.open += 1;
        Ok(session)
    }

    fn put_back(&self, session: Session, generation: u64) {
        let mut pool = self.lock();
        if pool.generation == generation {
            pool.idle.push(session);
        } else {
            drop(session);
        }
        drop(pool);
        self.returned.notify_one();
    }

    /// Drops a lost session, and with the first loss of a login all idle ones, which are lost with it.
    fn discard(&self, session: Session, generation: u64) {
        let mut pool = self.lock();
        drop(session);
        if pool.generation == generation {
            pool.generation += 1;
            pool.idle.clear();
            // Those that are lent count no more; they are dropped when they come back.
            pool.open = 0;
        }
        drop(pool);
        self.returned.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self, reason: impl ToString) -> ConnectionError {
        ConnectionError::Unavailable { token: self.label.clone(), reason: reason.to_string() }
    }

    fn refused(&self, reason: impl ToString) -> ConnectionError {
        ConnectionError::Refused { token: self.label.clone(), reason: reason.to_string() }
    }
}

impl ConnectionError {
    pub(super) fn into_sign_error(self, key: &KeySelector) -> SignError {
        match self {
            Self::Busy { token, waited } => SignError::Busy { token, waited },
            Self::Forked { token } => SignError::Forked { token },
            Self::Unavailable { token, reason } => SignError::Unavailable { token, reason },
            Self::Refused { token, reason } => SignError::Refused { token, key: key.to_string(), reason },
        }
    }
}

impl From<ConnectionError> for TokenError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Busy { token, waited } => {
                Self::Unavailable { token, reason: format!("no session came free within {waited:?}") }
            }
            ConnectionError::Forked { token } => {
                Self::Unavailable { token, reason: "opened before this process was forked".to_owned() }
            }
            ConnectionError::Unavailable { token, reason } | ConnectionError::Refused { token, reason } => {
                Self::Unavailable { token, reason }
            }
        }
    }
}

/// The logins of this process.
static OPEN: Mutex<Vec<Weak<Connection>>> = Mutex::new(Vec::new());

/// As many as a network HSM profits from; a smart card works through them one after the other.
const MAX_SESSIONS: usize = 8;
/// A second loss in a row happens when several threads find out about the first; a fourth means trouble.
const MAX_RENEWALS: u32 = 3;
/// Longer than the slowest card takes for a signature, times the sessions before it.
const MAX_WAIT: Duration = Duration::from_secs(10);
