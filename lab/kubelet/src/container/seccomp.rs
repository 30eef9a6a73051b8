//! The system calls that a container does not get.
//!
//! Most need a capability it does not have; the filter is the second lock, and for a few (making user
//! namespaces, `keyctl`, `io_uring`, vsock) the only one. It is a classic BPF program over `struct
//! seccomp_data`, as text:
//!
//! ```text
//!   arch is not ours        → ENOSYS      a 32-bit program would have other numbers
//!   nr in DENIED            → EPERM
//!   nr = clone3             → ENOSYS      its flags are in memory; libc falls back to clone
//!   clone, flags & NEW*     → EPERM
//!   socket, vsock or alg    → EAFNOSUPPORT
//!   ioctl, push a character → EPERM
//!   otherwise               → allow
//! ```
//!
//! The list is the part of Docker's default profile that matters here, turned round: it denies what is
//! known to be dangerous and lets new system calls pass. seccomp(2).

use super::StepError;

/// Mounts, namespaces, modules, clocks, tracing of the kernel, keys.
const DENIED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

const NEW_NAMESPACE: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

// struct seccomp_data { int nr; u32 arch; u64 instruction_pointer; u64 args[6]; }
const NR: u32 = 0;
const ARCH: u32 = 4;
/// The lower half of an argument (both architectures below are little-endian).
const fn arg(n: u32) -> u32 {
    16 + 8 * n
}

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const AUDIT_ARCH: Option<u32> = None;

/// Puts the filter over this process and all it starts. `no_new_privs` must be set.
pub fn install() -> Result<(), StepError> {
    let Some(arch) = AUDIT_ARCH else {
        return Ok(()); // Other architectures have the other locks only.
    };
    let mut program = filter(arch);
    let len = u16::try_from(program.len())
        .map_err(|_| StepError::new("install the system call filter", "it is too long"))?;
    let fprog = libc::sock_fprog {
        len,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies `len` instructions from `filter`, which lives through the call.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER as libc::c_ulong,
            &raw const fprog,
            0,
            0,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(StepError::at("install the system call filter")(
        std::io::Error::last_os_error(),
    ))
}

fn filter(arch: u32) -> Vec<libc::sock_filter> {
    let errno = |number: i32| libc::SECCOMP_RET_ERRNO | number as u32;
    let mut program = vec![load(ARCH)];
    program.extend(unless_equal(arch, errno(libc::ENOSYS)));
    program.push(load(NR));
    if cfg!(target_arch = "x86_64") {
        // The x32 numbers of the same architecture.
        program.push(jump(libc::BPF_JGE, 0x4000_0000, 0, 1));
        program.push(give(errno(libc::ENOSYS)));
    }
    for nr in DENIED {
        program.extend(if_equal(*nr as u32, errno(libc::EPERM)));
    }
    program.extend(if_equal(libc::SYS_clone3 as u32, errno(libc::ENOSYS)));
    let in_call = |nr: libc::c_long, mut body: Vec<libc::sock_filter>| {
        body.push(give(libc::SECCOMP_RET_ALLOW));
        let mut block = vec![jump(libc::BPF_JEQ, nr as u32, 0, body.len() as u8)];
        block.extend(body);
        block
    };
    program.extend(in_call(
        libc::SYS_clone,
        vec![
            load(arg(0)),
            jump(libc::BPF_JSET, NEW_NAMESPACE, 0, 1),
            give(errno(libc::EPERM)),
        ],
    ));
    let mut families = vec![load(arg(0))];
    for family in [libc::AF_VSOCK, libc::AF_ALG] {
        families.extend(if_equal(family as u32, errno(libc::EAFNOSUPPORT)));
    }
    program.extend(in_call(libc::SYS_socket, families));
    let mut requests = vec![load(arg(1))];
    for request in [libc::TIOCSTI as u32, TIOCLINUX] {
        requests.extend(if_equal(request, errno(libc::EPERM)));
    }
    program.extend(in_call(libc::SYS_ioctl, requests));
    program.push(give(libc::SECCOMP_RET_ALLOW));
    program
}

const TIOCLINUX: u32 = 0x541c;

fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn jump(test: u32, value: u32, yes: u8, no: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, yes, no, value)
}

fn give(answer: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, answer)
}

fn if_equal(value: u32, answer: u32) -> [libc::sock_filter; 2] {
    [jump(libc::BPF_JEQ, value, 0, 1), give(answer)]
}

fn unless_equal(value: u32, answer: u32) -> [libc::sock_filter; 2] {
    [jump(libc::BPF_JEQ, value, 1, 0), give(answer)]
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets the program as the kernel would.
    fn answer(program: &[libc::sock_filter], nr: i64, arch: u32, args: [u64; 2]) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&(nr as u32).to_le_bytes());
        data[4..8].copy_from_slice(&arch.to_le_bytes());
        data[16..24].copy_from_slice(&args[0].to_le_bytes());
        data[24..32].copy_from_slice(&args[1].to_le_bytes());
        let (mut pc, mut a) = (0usize, 0u32);
        loop {
            let i = program[pc];
            let (class, op) = (u32::from(i.code) & 7, u32::from(i.code) & 0xf0);
            pc += 1;
            if class == libc::BPF_LD {
                let at = i.k as usize;
                a = u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"));
            } else if class == libc::BPF_RET {
                return i.k;
            } else {
                let taken = match op {
                    libc::BPF_JEQ => a == i.k,
                    libc::BPF_JGE => a >= i.k,
                    _ => a & i.k != 0,
                };
                pc += usize::from(if taken { i.jt } else { i.jf });
            }
        }
    }

    #[test]
    fn the_filter_denies_what_it_should_and_no_more() {
        let arch = 0xc000_003e;
        let p = filter(arch);
        let errno = |n: i32| libc::SECCOMP_RET_ERRNO | n as u32;
        let allow = libc::SECCOMP_RET_ALLOW;
        let newuser = libc::CLONE_NEWUSER as u64;
        let table = [
            (libc::SYS_read, arch, [0, 0], allow),
            (libc::SYS_execve, arch, [0, 0], allow),
            (libc::SYS_mount, arch, [0, 0], errno(libc::EPERM)),
            (libc::SYS_unshare, arch, [0, 0], errno(libc::EPERM)),
            (libc::SYS_reboot, arch, [0, 0], errno(libc::EPERM)),
            (libc::SYS_clone, arch, [libc::SIGCHLD as u64, 0], allow),
            (libc::SYS_clone, arch, [newuser, 0], errno(libc::EPERM)),
            (libc::SYS_clone3, arch, [0, 0], errno(libc::ENOSYS)),
            (libc::SYS_socket, arch, [libc::AF_INET as u64, 0], allow),
            (
                libc::SYS_socket,
                arch,
                [libc::AF_VSOCK as u64, 0],
                errno(libc::EAFNOSUPPORT),
            ),
            (
                libc::SYS_ioctl,
                arch,
                [0, libc::TIOCSTI],
                errno(libc::EPERM),
            ),
            (libc::SYS_ioctl, arch, [0, libc::TIOCGWINSZ], allow),
            (libc::SYS_read, 0x4000_0003, [0, 0], errno(libc::ENOSYS)),
        ];
        for (nr, arch, args, expected) in table {
            assert_eq!(answer(&p, nr, arch, args), expected, "call {nr} {args:?}");
        }
    }
}
