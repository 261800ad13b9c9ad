//! Owners of files: numbers, or names that stand in `/etc/passwd` and `/etc/group`.

use std::fs;

/// Whose the files are; `None` leaves it to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ownership {
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

/// Names to numbers. Directory services are not asked: their absence must not keep an agent from starting.
///
/// # Errors
/// What to write instead.
pub fn resolve(owner: Option<&str>, group: Option<&str>) -> Result<Ownership, String> {
    Ok(Ownership {
        uid: owner.map(|name| number(name, "/etc/passwd", "owner")).transpose()?,
        gid: group.map(|name| number(name, "/etc/group", "group")).transpose()?,
    })
}

fn number(name: &str, list: &str, what: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = fs::read_to_string(list).map_err(|error| format!("cannot read {list}: {error}"))?;
    let entry = text.lines().find(|line| line.split(':').next() == Some(name));
    entry.and_then(|line| line.split(':').nth(2)?.parse().ok()).ok_or_else(|| {
        format!("{what} {name:?} is not in {list}; write its number if it comes from elsewhere")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_local_names_are_known_and_others_explained() {
        let root = Ownership { uid: Some(0), gid: Some(7) };
        assert_eq!(resolve(Some("root"), Some("7")), Ok(root));
        let error = resolve(Some("nobody-of-this-name"), None).unwrap_err();
        assert!(error.contains("write its number"), "{error}");
    }
}
