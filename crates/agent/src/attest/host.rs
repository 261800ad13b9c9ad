//! What the machine knows about numbers and names: users, groups, and the run of a unit.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

/// The name of a user, if the machine has one for it. May ask a directory on the network, and block.
pub(super) fn user_name(uid: u32) -> io::Result<Option<String>> {
    name(User::from_uid(Uid::from_raw(uid)).map(|user| user.map(|user| user.name)))
}

/// The name of a group. As [`user_name`].
pub(super) fn group_name(gid: u32) -> io::Result<Option<String>> {
    name(Group::from_gid(Gid::from_raw(gid)).map(|group| group.map(|group| group.name)))
}

/// The invocation id of a unit: another one every time the unit is started. The service manager publishes it as the
/// target of a link; the variable that it also gives to the process is the process's to change.
pub(super) fn invocation_id(units: &Path, unit: &str) -> io::Result<Option<String>> {
    let target = match std::fs::read_link(units.join(format!("invocation:{unit}"))) {
        Ok(target) => target,
        // Nothing there, or something that is not a link.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let fits = |id: &&str| id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    Ok(target.to_str().filter(fits).map(str::to_owned))
}

fn name(found: nix::Result<Option<String>>) -> io::Result<Option<String>> {
    let is_name = |name: &String| (1..=256).contains(&name.len()) && !name.chars().any(char::is_control);
    match found {
        Ok(name) => Ok(name.filter(is_name)),
        // getpwuid_r(3): some name services say so when there is no such entry.
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_root_and_nobody_it_has_not_heard_of() {
        assert_eq!(user_name(0).unwrap().as_deref(), Some("root"));
        assert_eq!(group_name(0).unwrap().as_deref(), Some("root"));
        assert_eq!(user_name(4_000_000_001).unwrap(), None);
        assert_eq!(group_name(4_000_000_001).unwrap(), None);
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
        assert_eq!(invocation_id(units.path(), "a.service").unwrap().as_deref(), Some(id));
        for unit in ["b.service", "c.service", "d.service", "e.service"] {
            assert_eq!(invocation_id(units.path(), unit).unwrap(), None, "{unit}");
        }
    }
}
