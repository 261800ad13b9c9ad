//! The directory in which a demonstration happens.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::failure::usage;

/// Where a demonstration happens.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// Where it happens: a directory that does not exist yet. A temporary one if absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Keep the directory, to look around in it.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// The bytes that the directory's path may have: that of a UNIX socket has 107 at most (`sun_path` without its final
/// zero), and none below the directory is longer than the one that becomes the authority's admin socket.
const LONGEST: usize = 107 - "/chancery/run/admin.4194304.new".len();

/// A directory that goes away unless it is kept.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Where {
    /// Makes the directory.
    ///
    /// # Errors
    /// When it exists already, or its path is too long for sockets.
    pub(crate) fn make(&self, name: &str) -> Result<Scratch> {
        let path = match &self.dir {
            Some(path) => std::path::absolute(path)?,
            None => std::env::temp_dir().join(format!("chancery-{name}-{}", std::process::id())),
        };
        if path.exists() {
            return Err(usage(format!(
                "{} exists already; {name} makes and removes a directory of its own, choose another --dir",
                path.display()
            )));
        }
        if path.as_os_str().len() > LONGEST {
            return Err(usage(format!(
                "{} is too long for sockets in it; choose a shorter --dir",
                path.display()
            )));
        }
        // For nobody else, whatever the umask: an agent takes no directory where others could put a socket of theirs.
        let mut private = std::fs::DirBuilder::new();
        private
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch { path, keep: self.keep })
    }
}

impl Scratch {
    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed is found by its name.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_exists_is_never_touched() {
        let directory = tempfile::tempdir().unwrap();
        let here = Where { dir: Some(directory.path().to_owned()), keep: false };
        assert!(here.make("test").unwrap_err().to_string().contains("exists already"));
        let within = Where { dir: Some(directory.path().join("new")), keep: false };
        drop(within.make("test").unwrap());
        assert!(directory.path().exists() && !directory.path().join("new").exists());
        let kept = Where { dir: Some(directory.path().join("kept")), keep: true };
        drop(kept.make("test").unwrap());
        assert!(directory.path().join("kept").exists());
    }

    #[test]
    fn a_directory_too_deep_for_sockets_is_refused_before_anything_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(100));
        let error = Where { dir: Some(deep.clone()), keep: false }.make("test").unwrap_err();
        assert!(error.to_string().contains("shorter --dir"));
        assert!(!deep.exists());
    }
}
