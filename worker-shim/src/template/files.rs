//! Stage 6 of 8: which files a template was made of, so that one that was replaced on disk is noticed.
//!
//! In: a command.  Out: something to compare: the files that it names, each with device, inode, size and time of change.
//! Always: a process that is copied runs what a process that is started at this moment would run, as far as the command names it. What
//! the program loads besides (modules, libraries, models) is not looked at.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// See above. A word that names no file is none: it may become one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files(Vec<Option<Identity>>);

#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    changed_at: (i64, i64),
}

impl Files {
    /// As they are now.
    pub fn of(command: &[String]) -> Self {
        let identity = |file: Metadata| {
            let changed_at = (file.mtime(), file.mtime_nsec());
            Identity { device: file.dev(), inode: file.ino(), size: file.size(), changed_at }
        };
        let files = command.iter().map(|word| std::fs::metadata(word).ok().filter(Metadata::is_file));
        Self(files.map(|file| file.map(identity)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_written_or_removed_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.py");
        let command = ["python3", path.to_str().unwrap(), "--serve"].map(String::from);
        let mut seen = vec![Files::of(&command)];
        std::fs::write(&path, "one").unwrap();
        seen.push(Files::of(&command));
        assert_eq!(Files::of(&command), seen[1], "the same as long as nothing happens");
        std::fs::write(&path, "two or more").unwrap();
        seen.push(Files::of(&command));
        let aside = dir.path().join("aside");
        std::fs::write(&aside, "two or more").unwrap();
        std::fs::rename(&aside, &path).unwrap();
        seen.push(Files::of(&command));
        for (index, one) in seen.iter().enumerate() {
            assert!(seen[index + 1..].iter().all(|other| other != one), "{index}");
        }
    }
}
