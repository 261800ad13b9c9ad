//! PKCS#11 modules: loaded once per process and never unloaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use super::error::TokenError;

/// A module that is loaded and initialised.
#[derive(Debug, Clone)]
pub(super) struct Module {
    path: PathBuf,
    context: Pkcs11,
    process: u32,
}

impl Module {
    /// Loads the module at this path, or gives the one that is loaded. `C_Initialize` counts for the process, so
    /// there is one `Module` for a path, and since others in the process may use it, nothing finalises it.
    pub(super) fn load(path: Option<&Path>) -> Result<Self, TokenError> {
        let Some(path) = path else { return Err(TokenError::NoModule { present: well_known() }) };
        let Ok(canonical) = path.canonicalize() else {
            return Err(TokenError::ModuleNotFound { path: path.to_owned(), present: well_known() });
        };
        let key = (std::process::id(), canonical);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get(&key) {
            return Ok(module.clone());
        }
        let unusable =
            |error: Error| TokenError::ModuleUnusable { path: path.to_owned(), reason: error.to_string() };
        let context = Pkcs11::new(path).map_err(unusable)?;
        let module = Self { path: path.to_owned(), context, process: key.0 };
        module.initialize().map_err(unusable)?;
        loaded.insert(key, module.clone());
        Ok(module)
    }

    /// Initialises it, again if something in the process finalised it.
    pub(super) fn initialize(&self) -> Result<(), Error> {
        match self.context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
            other => other,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// Whether this process is a child forked since.
    pub(super) fn is_foreign(&self) -> bool {
        self.process != std::process::id()
    }
}

/// By process too: a forked child finds its parent's entries and must not use them.
static LOADED: Mutex<BTreeMap<(u32, PathBuf), Module>> = Mutex::new(BTreeMap::new());

fn well_known() -> Vec<PathBuf> {
    WELL_KNOWN.iter().map(PathBuf::from).filter(|path| path.exists()).collect()
}

/// Where Debian, Fedora and the vendors put theirs; only ever shown to the operator.
const WELL_KNOWN: [&str; 12] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib64/opensc-pkcs11.so",
    "/usr/lib/x86_64-linux-gnu/libykcs11.so",
    "/usr/lib64/libykcs11.so",
    "/usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1",
    "/opt/cloudhsm/lib/libcloudhsm_pkcs11.so",
    "/opt/nfast/toolkits/pkcs11/libcknfast.so",
    "/usr/safenet/lunaclient/lib/libCryptoki2_64.so",
];
