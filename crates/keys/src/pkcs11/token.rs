//! Finding the one token that a URI means, and logging in to it.

use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

use chancery_types::SecretString;

use super::error::TokenError;
use super::module::Module;
use crate::uri::Pkcs11Uri;

/// A token in its slot, as it was when it was looked for.
#[derive(Debug, Clone)]
pub(super) struct FoundToken {
    pub(super) module: Module,
    pub(super) slot: Slot,
    pub(super) info: TokenInfo,
}

impl FoundToken {
    pub(super) fn session_without_login(&self) -> Result<Session, TokenError> {
        self.module.context().open_ro_session(self.slot).map_err(TokenError::failed("open a session"))
    }
}

/// The one initialised token that matches every attribute of the URI.
pub(super) fn find(uri: &Pkcs11Uri) -> Result<FoundToken, TokenError> {
    let module = Module::load(uri.module_path.as_deref())?;
    let context = module.context();
    let slots = match context.get_slots_with_token() {
        Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => {
            module.initialize().map_err(TokenError::failed("initialise its module again"))?;
            context.get_slots_with_token()
        }
        other => other,
    }
    .map_err(TokenError::failed("list the slots"))?;
    let mut tokens = Vec::new();
    for slot in slots {
        let info = context.get_token_info(slot).map_err(TokenError::failed("describe itself"))?;
        if info.token_initialized() {
            tokens.push((slot, info));
        }
    }
    let names = |tokens: &[(Slot, TokenInfo)]| tokens.iter().map(|(_, info)| name(info)).collect::<Vec<_>>();
    let present = names(&tokens);
    tokens.retain(|(slot, info)| matches(uri, *slot, info));
    let ambiguous = names(&tokens);
    match <[_; 1]>::try_from(tokens) {
        Ok([(slot, info)]) => Ok(FoundToken { module, slot, info }),
        Err(none) if none.is_empty() => {
            Err(TokenError::TokenNotFound { wanted: wanted(uri), module: module.path().to_owned(), present })
        }
        Err(_) => Err(TokenError::TokenAmbiguous { wanted: wanted(uri), present: ambiguous }),
    }
}

/// Logs the process in. Without a PIN the token must need none, or have its own way to ask for it.
pub(super) fn login(
    session: &Session,
    token: &FoundToken,
    pin: Option<&SecretString>,
) -> Result<(), TokenError> {
    let label = || token.info.label().to_owned();
    if !token.info.login_required() {
        return Ok(());
    }
    let pin = match pin {
        Some(pin) => Some(AuthPin::new(pin.expose_secret().into())),
        None if token.info.protected_authentication_path() => None,
        None => return Err(TokenError::PinNeeded { token: label() }),
    };
    match session.login(UserType::User, pin.as_ref()) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
            Err(TokenError::WrongPin { token: label(), warning: tries_left(token) })
        }
        Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(TokenError::PinLocked { token: label() }),
        Err(cause) => Err(TokenError::Failed { action: "log in", cause }),
    }
}

/// What the token says about itself after a wrong PIN; many say nothing.
fn tries_left(token: &FoundToken) -> &'static str {
    match token.module.context().get_token_info(token.slot) {
        Ok(info) if info.user_pin_locked() => "; it is locked now",
        Ok(info) if info.user_pin_final_try() => "; one try is left",
        Ok(info) if info.user_pin_count_low() => "; few tries are left",
        _ => "",
    }
}

fn matches(uri: &Pkcs11Uri, slot: Slot, info: &TokenInfo) -> bool {
    let same = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
    same(&uri.token, info.label())
        && same(&uri.serial, info.serial_number())
        && same(&uri.manufacturer, info.manufacturer_id())
        && same(&uri.model, info.model())
        && uri.slot_id.is_none_or(|wanted| wanted == slot.id())
}

fn name(info: &TokenInfo) -> String {
    format!("{:?} (serial {})", info.label(), info.serial_number())
}

fn wanted(uri: &Pkcs11Uri) -> String {
    Pkcs11Uri { object: None, id: None, ..uri.clone() }.key_name()
}
