//! What a network card does with packets inside tunnels: ethtool's `ioctl` (linux/ethtool.h), and the
//! counters of broken packets in /proc.
//!
//! Nothing here fails: what a driver does not say stays unknown. Of the calling thread's namespace.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use parfait_linux::{IfName, Offload};

/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// `ETHTOOL_GDRVINFO`, `ETHTOOL_GSTRINGS`, `ETHTOOL_GSSET_INFO`, `ETHTOOL_GFEATURES`, `ETH_SS_FEATURES`.
const DRIVER: u32 = 0x03;
const STRINGS: u32 = 0x1b;
const SET_INFO: u32 = 0x37;
const FEATURES: u32 = 0x3a;
const OF_FEATURES: u32 = 4;

/// `struct ethtool_drvinfo`, and where the driver's name stands in it; `ETH_GSTRING_LEN`.
const DRIVER_WORDS: usize = 196 / 4;
const NAME: usize = 32;

/// The feature that has gone wrong most often.
const TUNNEL_CHECKSUMS: &str = "tx-udp_tnl-csum-segmentation";

/// The facts about an interface.
#[must_use]
pub fn observe(link: &IfName) -> Offload {
    let asked = socket().map(|socket| (driver(&socket, link), feature(&socket, link)));
    let (driver, tunnel_checksums) = asked.unwrap_or_default();
    Offload {
        link: link.clone(),
        driver: driver.unwrap_or_default(),
        tunnel_checksums,
        checksum_errors: checksum_errors(),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
    }
}

fn socket() -> Option<OwnedFd> {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: the descriptor is new, and nobody else's.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One question; the answer is written over it.
fn ask(socket: &OwnedFd, link: &IfName, words: &mut [u32]) -> Option<()> {
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name has at most 15 bytes, so that a NUL is left.
    for (to, from) in request.ifr_name.iter_mut().zip(link.as_str().bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the request and the words are valid for the call; the words have the length that the
    // command in the first of them, and the count in it, says.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    (done >= 0).then_some(())
}

fn driver(socket: &OwnedFd, link: &IfName) -> Option<String> {
    let mut words = [0; DRIVER_WORDS];
    words[0] = DRIVER;
    ask(socket, link, &mut words)?;
    Some(text(&words[1..=NAME / 4]))
}

/// Whether [`TUNNEL_CHECKSUMS`] is active.
fn feature(socket: &OwnedFd, link: &IfName) -> Option<bool> {
    // cmd, reserved, the mask of sets (64 bits), and the size of the one that is asked for.
    let mut info = [SET_INFO, 0, 0, 0, 0];
    let mask = (1u64 << OF_FEATURES).to_ne_bytes();
    info[2] = u32::from_ne_bytes([mask[0], mask[1], mask[2], mask[3]]);
    info[3] = u32::from_ne_bytes([mask[4], mask[5], mask[6], mask[7]]);
    ask(socket, link, &mut info)?;
    let count = usize::try_from(info[4])
        .ok()
        .filter(|count| *count < 1024)?;
    let mut names = vec![0; 3 + count * NAME / 4];
    (names[0], names[1], names[2]) = (STRINGS, OF_FEATURES, info[4]);
    ask(socket, link, &mut names)?;
    let mut all = names[3..].chunks_exact(NAME / 4);
    let index = all.position(|name| text(name) == TUNNEL_CHECKSUMS)?;
    // For each 32 features: available, requested, active, never changed.
    let blocks = count.div_ceil(32);
    let mut features = vec![0; 2 + blocks * 4];
    (features[0], features[1]) = (FEATURES, u32::try_from(blocks).ok()?);
    ask(socket, link, &mut features)?;
    let active = features.get(2 + index / 32 * 4 + 2)?;
    Some(active >> (index % 32) & 1 == 1)
}

fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

fn checksum_errors() -> u64 {
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default()
    };
    let (v4, v6) = (read("snmp"), read("snmp6"));
    // Two lines: the names, and below each its number.
    let mut lines = v4.lines().filter(|line| line.starts_with("Udp:"));
    let pair = lines.next().zip(lines.next());
    let v4 = pair.and_then(|(names, numbers)| {
        let mut named = names.split_whitespace().zip(numbers.split_whitespace());
        named
            .find(|(name, _)| *name == "InCsumErrors")?
            .1
            .parse::<u64>()
            .ok()
    });
    let mut v6 = v6
        .lines()
        .filter_map(|line| line.strip_prefix("Udp6InCsumErrors"));
    let v6 = v6
        .next()
        .and_then(|number| number.trim().parse::<u64>().ok());
    v4.unwrap_or_default() + v6.unwrap_or_default()
}
