//! Mounts, as thin as possible: one system call each, with an error that says what was mounted where.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags};

use super::StepError;

/// `mount -t tmpfs -o nosuid,nodev,size=…,mode=…`.
pub fn tmpfs(target: &Path, bytes: u64, mode: u32) -> Result<(), StepError> {
    let inodes = (bytes / 1024).clamp(64, 65_536);
    let data = format!("size={bytes},nr_inodes={inodes},mode={mode:o}");
    filesystem(
        "tmpfs",
        target,
        MountFlags::NOSUID | MountFlags::NODEV,
        &data,
    )
}

/// Mounts a new filesystem.
pub fn filesystem(
    kind: &str,
    target: &Path,
    flags: MountFlags,
    data: &str,
) -> Result<(), StepError> {
    let step = || format!("mount {kind} on {}", target.display());
    let data =
        CString::new(data).map_err(|_| StepError::new(step(), "NUL byte in mount options"))?;
    rustix::mount::mount(kind, target, kind, flags, data.as_c_str()).map_err(StepError::at(step()))
}

/// `mount --rbind SOURCE TARGET`.
pub fn bind(source: &Path, target: &Path) -> Result<(), StepError> {
    rustix::mount::mount_bind_recursive(source, target).map_err(StepError::at(format!(
        "bind {} on {}",
        source.display(),
        target.display()
    )))
}

/// No mount or unmount in this namespace reaches another one, and none of another one comes here.
pub fn make_all_private() -> Result<(), StepError> {
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(StepError::at("make every mount private"))
}

/// Makes the mount at `target` read-only, without set-user-ID and devices.
pub fn seal(target: &Path, read_only: bool, recursive: bool) -> Result<(), StepError> {
    let mut set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    if read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    restrict(target, set, recursive)
}

/// Shows one of the host's devices. It can be read and written, but its file stays the host's: on a mount that is not
/// read-only, user 0 of a container could change the mode and the times of the host's own `/dev/null`.
pub fn device(source: &Path, target: &Path) -> Result<(), StepError> {
    bind(source, target)?;
    let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_RDONLY;
    restrict(target, set, false)
}

/// Sets attributes of a mount. Unlike a remount this keeps the flags that a user namespace has locked.
/// mount_setattr(2), Linux 5.12.
fn restrict(target: &Path, set: u64, recursive: bool) -> Result<(), StepError> {
    let step = || format!("restrict the mount on {}", target.display());
    let path = CString::new(target.as_os_str().as_bytes())
        .map_err(|_| StepError::new(step(), "NUL byte in path"))?;
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated string and the structure lives through the call, which
    // reads exactly the size it is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(StepError::at(step())(std::io::Error::last_os_error()))
}

/// Covers what is at `target`, if anything is: a directory by an empty one, a file by `/dev/null`.
pub fn mask(target: &Path) -> Result<(), StepError> {
    match cover(target)? {
        true => seal(target, true, false),
        false => Ok(()),
    }
}

/// As [`mask`], but a directory's cover, for which it says `true`, can be written until it is sealed.
pub fn cover(target: &Path) -> Result<bool, StepError> {
    match std::fs::symlink_metadata(target) {
        Ok(meta) if meta.is_dir() => tmpfs(target, 4096, 0o555).map(|()| true),
        Ok(meta) if meta.is_file() => device(Path::new("/dev/null"), target).map(|()| false),
        _ => Ok(false),
    }
}

/// Makes what is at `target`, if anything is, read-only.
pub fn freeze(target: &Path) -> Result<(), StepError> {
    if !target.exists() {
        return Ok(());
    }
    bind(target, target)?;
    seal(target, true, true)
}
