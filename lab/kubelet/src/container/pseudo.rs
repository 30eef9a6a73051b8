//! `/proc`, `/dev` and `/sys` of a container.
//!
//! - `/proc` is mounted anew in the container's PID namespace, so it shows the container's processes only. The
//!   switches of the machine in it are read-only, its memory and keys are masked (the lists are runc's).
//! - `/dev` is a small tmpfs with the eight harmless devices, bound from the host, a `pts` of its own and `shm`.
//! - `/sys` is sysfs, read-only, of the pod's network namespace; where the kernel does not allow that (it does
//!   not in most user namespaces) it is empty.

use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::mount::MountFlags;

use super::{StepError, mounts};

const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

const PROC_MASKED: &[&str] = &[
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
    "kmsg",
    "kallsyms",
    "kpagecount",
    "kpageflags",
    "kpagecgroup",
    "vmallocinfo",
    "slabinfo",
];

const PROC_READ_ONLY: &[&str] = &[
    "bus",
    "fs",
    "irq",
    "sys",
    "sysrq-trigger",
    "dynamic_debug",
    "mtrr",
];

const SYS_MASKED: &[&str] = &[
    "firmware",
    "kernel/security",
    "kernel/debug",
    "kernel/tracing",
    "fs/cgroup",
    "fs/fuse",
    "fs/pstore",
    "devices/virtual/powercap",
    "power",
    "hypervisor",
];

const NO_CODE: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Mounts all three below `root`. The host's `/dev` must still be reachable. The new one is left writable, for the
/// caller to make places in it and to seal.
pub fn mount(root: &Path, pids: u32, notes: &mut Vec<String>) -> Result<(), StepError> {
    mount_proc(&root.join("proc"), pids, notes)?;
    mount_dev(&root.join("dev"))?;
    mount_sys(&root.join("sys"))
}

fn mount_proc(proc: &Path, pids: u32, notes: &mut Vec<String>) -> Result<(), StepError> {
    mounts::filesystem("proc", proc, NO_CODE, "")?;
    // Linux 6.14: kernel.pid_max is a limit of the PID namespace, so this bounds the number of processes
    // even where no cgroup can be used. It cannot be below 301.
    if std::fs::write(proc.join("sys/kernel/pid_max"), pids.max(301).to_string()).is_err() {
        notes.push("kernel.pid_max of the container could not be set (Linux 6.14 can)".to_owned());
    }
    for name in PROC_MASKED {
        mounts::mask(&proc.join(name))?;
    }
    for name in PROC_READ_ONLY {
        mounts::freeze(&proc.join(name))?;
    }
    Ok(())
}

fn mount_dev(dev: &Path) -> Result<(), StepError> {
    mounts::tmpfs(dev, 64 << 10, 0o755)?;
    let make = |name: &str| StepError::at(format!("make /dev/{name}"));
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        if source.exists() {
            let target = dev.join(name);
            std::fs::write(&target, "").map_err(make(name))?;
            mounts::device(&source, &target)?;
        }
    }
    for name in ["pts", "shm"] {
        std::fs::create_dir(dev.join(name)).map_err(make(name))?;
    }
    mounts::tmpfs(&dev.join("shm"), 64 << 20, 0o1777)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = "newinstance,ptmxmode=0666,mode=0620";
    // A program without terminals does without them; so does the container.
    let _ = mounts::filesystem("devpts", &dev.join("pts"), flags, options);
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(name)).map_err(make(name))?;
    }
    Ok(())
}

fn mount_sys(sys: &Path) -> Result<(), StepError> {
    if mounts::filesystem("sysfs", sys, NO_CODE | MountFlags::RDONLY, "").is_err() {
        mounts::tmpfs(sys, 4096, 0o555)?;
        return mounts::seal(sys, true, false);
    }
    SYS_MASKED
        .iter()
        .try_for_each(|name| mounts::mask(&sys.join(name)))
}
