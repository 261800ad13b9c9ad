//! `chancery contain`: hold first, watch it reach everybody, then decide.

use anyhow::Result;
use chancery_api::{ChangeStatus, HoldRequest, ReleaseRequest, RevokeRequest};
use chancery_types::{HumanDuration, RevocationReason};
use clap::{Args, ValueEnum};

use super::revoke::{KeylessConnection, pending, print};
use super::scope::Which;
use super::watch::{Before, watch};
use crate::ask;
use crate::flags::Globals;
use crate::place::Place;
use crate::terminal::Terminal;

/// Holds certificates, shows who enforces it, and then revokes or releases them.
///
/// A hold can be taken back, so it needs less thought than a revocation: contain first, find out, then decide. On a
/// terminal it asks at the end; elsewhere say --then, or leave them held.
#[derive(Debug, Args)]
pub(crate) struct Contain {
    #[command(flatten)]
    which: Which,
    /// Watch until every relying party that is known has confirmed, or for --timeout.
    #[arg(long)]
    watch: bool,
    /// How long to watch at most.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: HumanDuration,
    /// What to do at the end.
    #[arg(long, value_name = "WHAT")]
    then: Option<Then>,
    /// Why certificates are revoked at the end.
    #[arg(long, value_name = "REASON", default_value = "key-compromise")]
    reason: RevocationReason,
    /// Hold the identities too.
    #[arg(long)]
    block: bool,
    /// Meant, however much it is: where approval is needed, ask for it.
    #[arg(long)]
    yes_really: bool,
    /// A word of explanation, for the log.
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    connection: KeylessConnection,
}

/// What becomes of what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Then {
    /// It stays held.
    Keep,
    /// It is revoked, for good.
    Revoke,
    /// It is released.
    Release,
}

impl Contain {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let place = place.as_ref();
        let (selector, within) = (self.which.for_operators(place)?, self.which.within(place)?);
        let client = self.connection.operator(place).await?;
        let hold = HoldRequest {
            within: within.clone(),
            block: self.block,
            yes_really: self.yes_really,
            note: self.note.clone(),
            ..HoldRequest::new(selector.clone())
        };
        let before = if self.watch { Some(Before::look(&client).await?) } else { None };
        let held = client.hold(&hold).await?;
        print(terminal, &held, "held")?;
        pending(&held)?;
        let is_done = held.change.as_ref().is_none_or(|change| change.status == ChangeStatus::Ended);
        let watched = match before {
            Some(before) if is_done => watch(&client, terminal, before, &held, self.timeout.0).await,
            _ => Ok(()),
        };
        match self.decision()? {
            Then::Keep => {
                terminal
                    .note("they stay held; `chancery revoke` ends them, `chancery release` gives them back");
            }
            Then::Revoke => {
                let request = RevokeRequest {
                    within,
                    yes_really: self.yes_really,
                    note: self.note.clone(),
                    ..RevokeRequest::new(selector, self.reason)
                };
                let revoked = client.revoke(&request).await?;
                print(terminal, &revoked, "revoked")?;
                pending(&revoked)?;
            }
            Then::Release => {
                let request =
                    ReleaseRequest { within, note: self.note.clone(), ..ReleaseRequest::new(selector) };
                print(terminal, &client.release(&request).await?, "released")?;
            }
        }
        watched
    }

    fn decision(&self) -> Result<Then> {
        match self.then {
            Some(then) => Ok(then),
            None if ask::can_ask() => ask::ask("revoke, release or keep held?", "keep", |answer| {
                Then::from_str(answer, true).map_err(|_| "revoke, release or keep".to_owned())
            }),
            None => Ok(Then::Keep),
        }
    }
}
