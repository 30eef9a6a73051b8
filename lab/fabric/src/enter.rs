//! Running something inside a lab, in the network of a node or a pod.
//!
//! The caller joins the lab's user, PID, mount and IPC namespaces and the target's network
//! namespace, then forks; the child gets a mount namespace of its own, in which the target's
//! `resolv.conf` and `hosts` lie over those in `/etc`. Only the network is the pod's: the files are
//! the host's, so that any tool of the host can look at the pod's network. Source: `setns(2)`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::state::{Condition, Record, StateRoot};
use crate::target::{Place, find};
use crate::{Error, LabName, Target};

/// Runs a program in the target's network, with our standard streams, and answers its exit code as
/// a shell would: 126 when it cannot be run, 127 when there is none, 128 and the signal's number
/// when a signal ended it.
///
/// Must be called in a process of one thread.
pub fn exec(
    root: &StateRoot,
    name: &LabName,
    target: &Target,
    argv: &[OsString],
) -> Result<u8, Error> {
    let Some((program, arguments)) = argv.split_first() else {
        return Ok(0);
    };
    run_in(root, name, target, || {
        let error = Command::new(program).args(arguments).exec();
        let missing = error.kind() == io::ErrorKind::NotFound || nowhere(program);
        let (code, why) = if missing {
            (
                127,
                "no such program on this host (pods see the host's programs here)".to_owned(),
            )
        } else {
            (126, error.to_string())
        };
        eprintln!("parfait: cannot run {}: {why}", program.to_string_lossy());
        code
    })
}

/// Whether no directory of `PATH` has the program. A directory that may not be searched makes exec
/// answer "permission denied" for a program that is in none.
fn nowhere(program: &OsStr) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = program.as_bytes().contains(&b'/');
    !named && !std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Runs a function in the target's network and answers what it answers.
///
/// Must be called in a process of one thread.
pub fn run_in(
    root: &StateRoot,
    name: &LabName,
    target: &Target,
    body: impl FnOnce() -> u8,
) -> Result<u8, Error> {
    let dir = root.lab(name);
    let Condition::Running(record) = dir.observe()? else {
        return Err(Error::NotRunning {
            name: name.clone(),
            running: running(root)?,
        });
    };
    let place = find(&dir, &record.spec, target)?;
    let cwd = std::env::current_dir().ok();
    let entered = join(&record, &place);
    entered.map_err(|(what, source)| Error::Enter {
        target: target.to_string(),
        what,
        source,
    })?;
    fork(target, || {
        if let Err((what, source)) = own_view(&place, cwd.as_deref()) {
            let error = Error::Enter {
                target: target.to_string(),
                what,
                source,
            };
            eprintln!("parfait: {error}");
            return 126;
        }
        body()
    })
}

type Step<T> = Result<T, (String, io::Error)>;

fn step<T, E: Into<io::Error>>(what: impl Into<String>, result: Result<T, E>) -> Step<T> {
    result.map_err(|error| (what.into(), error.into()))
}

fn running(root: &StateRoot) -> Result<Vec<LabName>, Error> {
    let mut names = root.names()?;
    names.retain(|name| matches!(root.lab(name).observe(), Ok(Condition::Running(_))));
    Ok(names)
}

fn join(record: &Record, place: &Place) -> Step<()> {
    let pid = record.init.pid;
    let open = |kind: &str| -> Step<OwnedFd> {
        let path = format!("/proc/{pid}/ns/{kind}");
        step(format!("open {path}"), File::open(&path).map(OwnedFd::from))
    };
    let user = if record.rootless {
        Some(open("user")?)
    } else {
        None
    };
    let rest = [
        (open("pid")?, LinkNameSpaceType::ProcessID),
        (open("mnt")?, LinkNameSpaceType::Mount),
        (open("ipc")?, LinkNameSpaceType::InterProcessCommunication),
    ];
    if !record.init.alive() {
        return Err((
            "find PID 1 of the lab".to_owned(),
            io::ErrorKind::NotFound.into(),
        ));
    }
    if let Some(user) = user {
        let joined = move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User));
        step("join the user namespace", joined)?;
    }
    for (fd, kind) in rest {
        step(
            format!("join the {kind:?} namespace"),
            move_into_link_name_space(fd.as_fd(), Some(kind)),
        )?;
    }
    // The path exists only in the lab's mount namespace, which is ours now.
    let what = format!("open {}", place.netns.display());
    let netns = step(what, File::open(&place.netns).map(OwnedFd::from))?;
    step(
        "join the network namespace",
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)),
    )?;
    // SAFETY: file descriptors stay shared with nobody else, as there is one thread.
    step("make a UTS namespace", unsafe {
        unshare_unsafe(UnshareFlags::NEWUTS)
    })?;
    step(
        "set the host name",
        rustix::system::sethostname(place.hostname.as_bytes()),
    )
}

/// Who joined a PID namespace is not in it, only its children are.
fn fork(target: &Target, child: impl FnOnce() -> u8) -> Result<u8, Error> {
    // SAFETY: this process has one thread, so that the child is a whole copy of it.
    match unsafe { libc::fork() } {
        -1 => Err(Error::Enter {
            target: target.to_string(),
            what: "fork".to_owned(),
            source: io::Error::last_os_error(),
        }),
        0 => {
            // When we are killed, the child must not stay behind in the lab.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
            std::process::exit(i32::from(child()))
        }
        pid => Ok(wait(pid)),
    }
}

/// Waits; what the terminal sends (Ctrl-C) is the child's to answer.
fn wait(pid: i32) -> u8 {
    // SAFETY: ignoring a signal installs no handler.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGQUIT, libc::SIG_IGN);
    }
    let mut status = 0;
    loop {
        // SAFETY: waitpid writes one int.
        let done = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if done == pid {
            break;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return 126;
        }
    }
    let code = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn own_view(place: &Place, cwd: Option<&Path>) -> Step<()> {
    // SAFETY: file descriptors stay shared with nobody else, as there is one thread.
    step("make a mount namespace", unsafe {
        unshare_unsafe(UnshareFlags::NEWNS)
    })?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step("make mounts private", mount_change("/", private))?;
    let files = ["resolv.conf", "hosts"];
    let ours: Vec<_> = files
        .into_iter()
        .filter(|file| place.dir.join(file).is_file())
        .collect();
    // `/etc/resolv.conf` is often a link, and the file it leads to may be missing here.
    let whole = |file: &&str| fs::metadata(Path::new("/etc").join(file)).is_ok_and(|m| m.is_file());
    if !ours.iter().all(whole) {
        overlay_etc(&ours)?;
    }
    for file in ours {
        let over = step(
            format!("find /etc/{file}"),
            fs::canonicalize(Path::new("/etc").join(file)),
        )?;
        let what = format!("mount {file} over {}", over.display());
        step(what, mount_bind(place.dir.join(file), &over))?;
    }
    // The lab's mounts differ from the host's in few places, so that this usually is the same one.
    if cwd.is_none_or(|dir| std::env::set_current_dir(dir).is_err()) {
        step("change to /", std::env::set_current_dir("/"))?;
    }
    Ok(())
}

/// Lays an empty writable layer over `/etc`, in which the files can be made.
fn overlay_etc(files: &[&str]) -> Step<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    // Any directory serves to hold it, as this mount namespace is ours alone: /mnt may be missing.
    let layer = ["/mnt", "/media", "/srv", "/tmp"]
        .map(PathBuf::from)
        .into_iter()
        .find(|p| p.is_dir())
        .unwrap_or_else(|| PathBuf::from("/tmp"));
    step(
        "mount a tmpfs",
        mount("tmpfs", &layer, "tmpfs", flags, Some(c"mode=0755,size=64k")),
    )?;
    for dir in ["upper", "work"] {
        step("make a layer for /etc", fs::create_dir(layer.join(dir)))?;
    }
    let options = format!(
        "lowerdir=/etc,upperdir={0}/upper,workdir={0}/work",
        layer.display()
    );
    let options =
        std::ffi::CString::new(options).map_err(|e| ("overlay /etc".to_owned(), e.into()))?;
    step(
        "overlay /etc",
        mount(
            "overlay",
            "/etc",
            "overlay",
            flags,
            Some(options.as_c_str()),
        ),
    )?;
    step(
        "uncover the layer",
        rustix::mount::unmount(&layer, rustix::mount::UnmountFlags::DETACH),
    )?;
    for file in files {
        let path = Path::new("/etc").join(file);
        if !fs::metadata(&path).is_ok_and(|m| m.is_file()) {
            // A link that leads nowhere: replaced by a file to mount over.
            let _ = fs::remove_file(&path);
            step(format!("make {}", path.display()), fs::write(&path, b""))?;
        }
    }
    Ok(())
}
