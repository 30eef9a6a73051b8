//! What the host does not let everybody read: keys, tokens, logs, mail.
//!
//! In a lab run by root the containers' user 0 is the host's, and may read what belongs to it: Wi-Fi passwords,
//! certificates' keys, a database's credentials. No list of names is complete; the modes that the host gave its files
//! are. Whatever is not readable by all is not shown.
//!
//! It looks as deep as such files lie on ordinary machines, so that a container does not wait for a walk of the whole disk:
//! all of `/etc`, three levels of the others, nothing of `/usr`, which is the distribution's. A container that runs as
//! another user could not read the rest either.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The distribution's programs and their data, of which nothing is secret.
const PUBLIC: &[&str] = &[
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
];

/// Levels looked at below a first-level directory.
const DEPTH: usize = 3;

/// The files and directories below `top` which not everybody may read, without what is in those directories. What other
/// filesystems hold that are mounted below is looked at only if it is `shown`: an overlay does not show it, and a
/// server of files that does not answer would hold up every container.
pub fn below(top: &Path, shown: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(meta) = std::fs::symlink_metadata(top) else {
        return found;
    };
    if PUBLIC.iter().any(|p| top == Path::new(p)) {
        return found;
    }
    let depth = if top == Path::new("/etc") { 16 } else { DEPTH };
    look(top, depth, (!shown).then_some(meta.dev()), &mut found);
    found
}

fn look(dir: &Path, depth: usize, device: Option<u64>, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // Of a link the target counts, which is another entry: these are the link's own.
        let Ok(meta) = entry.metadata() else { continue };
        let mode = meta.permissions().mode();
        let path = entry.path();
        if meta.is_dir() && mode & 0o005 == 0o005 {
            if depth > 1 && device.is_none_or(|device| device == meta.dev()) {
                look(&path, depth - 1, device, found);
            }
        } else if meta.is_dir() || (meta.is_file() && mode & 0o004 == 0) {
            found.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_not_everybody_may_read_is_private() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let make = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
            std::fs::write(&path, "x").expect("write");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        };
        make("public/file", 0o644);
        make("public/key", 0o640);
        make("public/a/key", 0o600);
        make("public/a/b/too-deep", 0o600);
        make("closed/file", 0o644);
        let closed = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(dir.path().join("closed"), closed).expect("chmod");
        let mut found = below(dir.path(), false);
        found.sort();
        let expected = ["closed", "public/a/key", "public/key"].map(|name| dir.path().join(name));
        assert_eq!(found, expected);
        assert_eq!(below(Path::new("/usr"), false), Vec::<PathBuf>::new());
    }
}
