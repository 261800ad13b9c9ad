//! What the machine knows about numbers and names: users, groups, and the run of a unit.

use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

/// The name of a user, if the machine has one for it. May ask a directory on the network, and block.
pub(super) fn user_name(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name).filter(|name| is_name(name))
}

/// The name of a group. As [`user_name`].
pub(super) fn group_name(gid: u32) -> Option<String> {
    Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name).filter(|name| is_name(name))
}

/// The invocation id of a unit: another one every time the unit is started. The service manager publishes it as the
/// target of a link; the variable that it also gives to the process is the process's to change.
pub(super) fn invocation_id(units: &Path, unit: &str) -> Option<String> {
    let target = std::fs::read_link(units.join(format!("invocation:{unit}"))).ok()?;
    let id = target.to_str()?;
    let fits = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    fits.then(|| id.to_owned())
}

fn is_name(name: &str) -> bool {
    (1..=256).contains(&name.len()) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_root_and_nobody_it_has_not_heard_of() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(group_name(0).as_deref(), Some("root"));
        assert_eq!(user_name(4_000_000_001), None);
        assert_eq!(group_name(4_000_000_001), None);
    }

    #[test]
    fn takes_an_invocation_id_and_nothing_else_for_one() {
        let units = tempfile::tempdir().unwrap();
        let link = |unit: &str, target: &str| {
            std::os::unix::fs::symlink(target, units.path().join(format!("invocation:{unit}"))).unwrap();
        };
        let id = "0123456789abcdef0123456789abcdef";
        link("a.service", id);
        link("b.service", "../../etc/passwd");
        link("c.service", &id.to_uppercase());
        std::fs::write(units.path().join("invocation:d.service"), id).unwrap();
        assert_eq!(invocation_id(units.path(), "a.service").as_deref(), Some(id));
        for unit in ["b.service", "c.service", "d.service", "e.service"] {
            assert_eq!(invocation_id(units.path(), unit), None, "{unit}");
        }
    }
}
