//! Keys for backups.

use std::path::Path;
use std::process::{Command, Stdio};

/// An identity file and its recipient, by `age-keygen`; nothing, loudly, where it is not installed.
pub(crate) fn age_key(directory: &Path, name: &str) -> Option<String> {
    let path = directory.join(name);
    let made = Command::new("age-keygen").arg("-o").arg(&path).stderr(Stdio::null()).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("SKIPPED: age is not installed");
        return None;
    }
    let file = std::fs::read_to_string(&path).unwrap();
    Some(file.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned())
}
