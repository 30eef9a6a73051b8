//! Packets whose UDP checksum is wrong, as a card makes them that miscalculates.

/// Whole IPv4 packets from the loopback to itself, UDP to the tunnel's port, through a raw socket.
pub fn send(count: usize) {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW) };
    assert!(fd >= 0);
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([127, 0, 0, 1, 127, 0, 0, 1]);
    packet.extend([
        0x9c, 0x40, 0x12, 0xb5, 0, 12, 0xde, 0xad, b'o', b'o', b'p', b's',
    ]);
    // SAFETY: all zeroes is a valid sockaddr_in.
    let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    to.sin_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap();
    to.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    for _ in 0..count {
        // SAFETY: packet and address are valid for their lengths.
        let sent = unsafe {
            libc::sendto(
                fd,
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to) as libc::socklen_t,
            )
        };
        assert!(sent > 0, "{}", std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor is ours.
    unsafe { libc::close(fd) };
}
