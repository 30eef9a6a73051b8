//! [`announce`]: tells a segment that an address is here now, so that neighbours which know it elsewhere learn at once.
//!
//! ```text
//!   IPv4   gratuitous ARP: "who has 192.168.77.200? tell 192.168.77.200", to everybody (RFC 5227 section 3)
//!   IPv6   unsolicited Neighbor Advertisement with the override flag, to ff02::1      (RFC 4861 section 7.2.6)
//! ```
//!
//! Asked neighbours the kernel answers itself; only this it never says by itself when an address is added.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

use parfait_linux::{IfName, Mac};
use rustix::io::Errno;

use crate::error::errno_of;
use crate::{Error, Socket};

/// `ETH_P_ARP` and `ETH_P_IPV6` of linux/if_ether.h.
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

const EVERYBODY: [u8; 6] = [0xff; 6];

/// The Ethernet address of the group of all nodes (RFC 2464 section 7).
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Tells the segment of a link that these addresses are behind it. In the calling thread's network namespace.
///
/// # Errors
/// If there is no such link, or a frame cannot be sent.
pub fn announce(link: &IfName, addresses: &[IpAddr]) -> Result<(), Error> {
    let what = |address: &IpAddr| format!("announce {address} on {link}");
    let Some(first) = addresses.first() else {
        return Ok(());
    };
    let found = Socket::open()?.link(link)?;
    let mac = found
        .and_then(|link| link.mac)
        .ok_or_else(|| Error::NoSuchLink {
            step: what(first),
            link: link.to_string(),
        })?;
    for address in addresses {
        send(link, &frame(mac, *address)).map_err(|errno| Error::Exchange {
            operation: what(address),
            errno,
        })?;
    }
    Ok(())
}

fn send(link: &IfName, frame: &[u8]) -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let index = netdevice::name_to_index(&socket, link.as_str())?;
    // SAFETY: a sockaddr_ll is plain numbers, for which zero is a value.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    to.sll_protocol = u16::from_ne_bytes([frame[12], frame[13]]);
    to.sll_ifindex = index.cast_signed();
    let length = u32::try_from(size_of_val(&to)).unwrap_or_default();
    // SAFETY: frame and address are readable for the lengths given, during the call; the descriptor is open.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            length,
        )
    };
    match sent {
        0.. => Ok(()),
        _ => Err(errno_of(&std::io::Error::last_os_error())),
    }
}

/// The whole frame.
fn frame(mac: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(mac.bytes(), address),
        IpAddr::V6(address) => advertisement(mac.bytes(), address),
    }
}

/// Ethernet (14 bytes) and ARP (28 bytes, RFC 826).
fn arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(EVERYBODY, mac, ARP);
    // Ethernet, IPv4, their lengths, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// Ethernet, IPv6 (40 bytes) and the advertisement (32 bytes) with the option of the target's Ethernet address.
fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    // Router, since nodes forward: a receiver would else forget that its gateway is one. Override.
    let mut message = vec![136, 0, 0, 0, 0b1010_0000, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac);
    let sum = checksum(address, all_nodes, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(ALL_NODES, mac, IPV6);
    // Neighbours take nothing that could have come through a router: the hop limit is 255.
    frame.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(address.octets());
    frame.extend(all_nodes.octets());
    frame.extend(message);
    frame
}

fn ethernet(to: [u8; 6], from: [u8; 6], protocol: u16) -> Vec<u8> {
    [&to[..], &from, &protocol.to_be_bytes()].concat()
}

/// Of the pseudo header and the message (RFC 8200 section 8.1).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or_default();
    let pseudo = [
        &from.octets()[..],
        &to.octets(),
        &length.to_be_bytes(),
        &[0, 0, 0, 58],
    ]
    .concat();
    let words = pseudo.chunks(2).chain(message.chunks(2));
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or_default()
}
