//! Trying the kernel's network features before anything depends on them.
//!
//! Each is used for real, in the lab's own network namespace, as only that tells the truth: a
//! module may be loaded on first use, a configuration file may belong to another kernel. What is
//! missing is told by its kernel option, before the agents would stumble over it one by one.

use std::io;

use parfait_kernel::{Kernel, Socket};
use parfait_linux::{IfName, Item, Link, LinkKind, Object, Step, Vni, Vxlan};

use crate::underlay::network;
use crate::{Error, LabSpec, Routing};

/// Tries everything a lab needs.
pub(crate) fn features(socket: &mut Socket, spec: &LabSpec) -> Result<(), Error> {
    let name = IfName::new("probe").map_err(|e| network("name a link", e))?;
    let vxlan = LinkKind::Vxlan(Vxlan {
        vni: Vni::new(1).map_err(|e| network("try VXLAN", e))?,
        port: Vxlan::PORT,
        local: spec
            .gateways()
            .first()
            .map_or(std::net::Ipv4Addr::LOCALHOST.into(), ipnet::IpNet::addr),
        learning: false,
    });
    let bridge = ("a bridge", LinkKind::Bridge, "bridge", "CONFIG_BRIDGE");
    let veth = (
        "a veth pair",
        LinkKind::Veth {
            peer: IfName::new("probe-peer").ok(),
        },
        "veth",
        "CONFIG_VETH",
    );
    let vxlan = ("a VXLAN device", vxlan, "vxlan", "CONFIG_VXLAN");
    let mut kinds = vec![bridge, veth];
    if matches!(spec.routing, Routing::Auto | Routing::Vxlan) {
        kinds.push(vxlan);
    }
    for (what, kind, module, option) in kinds {
        let link = Link {
            up: false,
            ..Link::new(name.clone(), kind)
        };
        let made = socket.execute(&[Step::Create(Item::new(Object::from(link), None))]);
        if let Some(error) = made.err().and_then(|errors| errors.into_iter().next()) {
            let errno = error
                .errno()
                .map_or(libc::EOPNOTSUPP, rustix::io::Errno::raw_os_error);
            return Err(refused(
                &format!("make {what}"),
                errno,
                &error.to_string(),
                module,
                option,
            ));
        }
        socket
            .delete_link(&name)
            .map_err(|e| network("remove the probe", e))?;
    }
    nf_tables()
}

fn refused(what: &str, errno: i32, said: &str, module: &str, option: &str) -> Error {
    match errno {
        libc::EOPNOTSUPP
        | libc::EPROTONOSUPPORT
        | libc::ENOENT
        | libc::EINVAL
        | libc::EAFNOSUPPORT => missing(
            what,
            errno,
            &format!(
                "the kernel has no {module}: it was built without {option}, or its module is not installed"
            ),
            &format!(
                "as root: `modprobe {module}`; else a kernel with {option}=y (for VXLAN alone: `--routing direct`)"
            ),
        ),
        _ => missing(what, errno, said, "see the kernel's log (`dmesg`)"),
    }
}

/// An [`Error::Host`].
pub(crate) fn missing(what: &str, errno: i32, why: &str, remedy: &str) -> Error {
    Error::Host {
        what: what.to_owned(),
        source: io::Error::from_raw_os_error(errno),
        why: why.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// Asks nf_tables for its generation (`NFT_MSG_GETGEN`): the smallest question it answers.
fn nf_tables() -> Result<(), Error> {
    const NETLINK_NETFILTER: i32 = 12;
    const GETGEN: u16 = 10 << 8 | 16;
    let asked = || -> io::Result<()> {
        // SAFETY: plain socket calls on a descriptor that is closed at the end; the buffers outlive
        // the calls and their lengths are passed.
        unsafe {
            let fd = libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                NETLINK_NETFILTER,
            );
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd);
            let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
            // struct nlmsghdr { len, type, flags: REQUEST, seq, pid } and struct nfgenmsg.
            let mut question = [0_u8; 20];
            question[0..4].copy_from_slice(&20_u32.to_ne_bytes());
            question[4..6].copy_from_slice(&GETGEN.to_ne_bytes());
            question[6..8].copy_from_slice(&1_u16.to_ne_bytes());
            if libc::send(raw, question.as_ptr().cast(), question.len(), 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            let mut answer = [0_u8; 4096];
            let length = libc::recv(raw, answer.as_mut_ptr().cast(), answer.len(), 0);
            if length < 0 {
                return Err(io::Error::last_os_error());
            }
            refusal_in(&answer[..length.unsigned_abs()])
        }
    };
    asked().map_err(|error| {
        let errno = error.raw_os_error().unwrap_or(libc::EOPNOTSUPP);
        refused(
            "use nf_tables",
            errno,
            &error.to_string(),
            "nf_tables",
            "CONFIG_NF_TABLES",
        )
    })
}

/// The error in an `NLMSG_ERROR` answer.
fn refusal_in(answer: &[u8]) -> io::Result<()> {
    const NLMSG_ERROR: [u8; 2] = 2_u16.to_ne_bytes();
    match answer {
        [_, _, _, _, a, b, ..] if [*a, *b] == NLMSG_ERROR => {
            let code = answer
                .get(16..20)
                .and_then(|b| b.try_into().ok())
                .map_or(0, i32::from_ne_bytes);
            if code == 0 {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(-code))
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_feature_is_told_by_its_option() {
        let text = refused(
            "make a bridge",
            libc::EOPNOTSUPP,
            "",
            "bridge",
            "CONFIG_BRIDGE",
        )
        .to_string();
        assert!(
            text.contains("CONFIG_BRIDGE=y") && text.contains("modprobe bridge"),
            "{text}"
        );
        let text = refused(
            "make a bridge",
            libc::ENOMEM,
            "said",
            "bridge",
            "CONFIG_BRIDGE",
        )
        .to_string();
        assert!(text.contains("said"), "{text}");
    }

    #[test]
    fn a_refusal_is_read_from_the_answer() {
        let mut answer = [0; 36];
        answer[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        answer[16..20].copy_from_slice(&(-libc::EINVAL).to_ne_bytes());
        assert_eq!(
            refusal_in(&answer).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
        assert!(refusal_in(&[0; 36]).is_ok());
    }
}
