//! What the limits of the capability `bandwidth` are as token buckets, one for each way.
//!
//! ```text
//!   pod eth0 ══[tbf: egress]══▶ pf… node          both shape what their own end sends
//!   pod eth0 ◀══[tbf: ingress]══ pf… node
//! ```
//!
//! The pod's own packets are shaped where they start, so that its sockets feel it and wait instead of losing packets. Who
//! has `NET_ADMIN` in the pod can take that bucket away; CHECK tells.
//!
//! A burst that nobody chose is not taken at its word: runtimes that know only the annotation
//! `kubernetes.io/ingress-bandwidth` send the largest number instead, and with half a gigabyte at once a limit of 10 Mbit/s
//! would not be felt for minutes. Then it is a tenth of a second's worth.

use parfait_linux::{Mtu, Tbf};

use crate::error::{Code, Error};
use crate::record::Bandwidth;

/// What containerd, CRI-O and the kubelet before them send for want of an opinion, in bits.
const NOBODYS: [u64; 2] = [i32::MAX as u64, u32::MAX as u64];

/// A burst must hold the largest packet that sockets hand down at once, or each is cut into pieces first.
const LARGEST_PACKET: u64 = 68 << 10;

/// Packets wait no longer than this, as with the reference plugin.
const WAIT_MILLISECONDS: u64 = 25;

/// What the node's end sends to the pod.
#[must_use]
pub fn ingress(limits: Option<Bandwidth>) -> Option<Tbf> {
    limits.and_then(|limits| bucket(limits.ingress_rate, limits.ingress_burst))
}

/// What the pod's end sends.
pub(crate) fn egress(limits: Option<Bandwidth>) -> Option<Tbf> {
    limits.and_then(|limits| bucket(limits.egress_rate, limits.egress_burst))
}

/// A bucket that cannot hold one packet would never send it.
///
/// # Errors
/// Names the smallest burst that will do.
pub(crate) fn refuse_too_small(limits: Option<Bandwidth>, mtu: Mtu) -> Result<(), Error> {
    const ETHERNET_HEADER: u32 = 14;
    let packet = mtu.bytes() + ETHERNET_HEADER;
    for (way, bucket) in [("ingress", ingress(limits)), ("egress", egress(limits))] {
        if bucket.is_some_and(|bucket| bucket.burst < packet) {
            let message = format!("runtimeConfig.bandwidth: {way}Burst has no room for one packet");
            return Err(Error::new(Code::InvalidConfig, message).advise(format!(
                "With this node's MTU it must be at least {} bits.",
                packet * 8
            )));
        }
    }
    Ok(())
}

/// Rate in bits a second, burst in bits.
fn bucket(rate: u64, burst: u64) -> Option<Tbf> {
    let rate = rate / 8;
    if rate == 0 {
        return None;
    }
    let burst = if NOBODYS.contains(&burst) {
        (rate / 10).max(2 * LARGEST_PACKET)
    } else {
        burst / 8
    };
    let whole = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    let waiting = u128::from(rate) * u128::from(WAIT_MILLISECONDS) / 1000;
    let waiting = u64::try_from(waiting).unwrap_or(u64::MAX);
    Some(Tbf {
        rate,
        burst: whole(burst),
        limit: whole(burst.saturating_add(waiting).max(LARGEST_PACKET)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_buckets_of_bytes() {
        let limits = Bandwidth {
            ingress_rate: 8_000_000,
            ingress_burst: 8_000_000,
            egress_rate: 0,
            egress_burst: 0,
        };
        let bucket = ingress(Some(limits)).unwrap();
        assert_eq!(
            bucket.to_string(),
            "tbf rate 8000000bit burst 1000000b limit 1025000b"
        );
        assert_eq!(egress(Some(limits)), None);
        assert_eq!(ingress(None), None);
    }

    #[test]
    fn a_burst_that_nobody_chose_is_a_tenth_of_a_second() {
        for nobodys in NOBODYS {
            assert_eq!(bucket(100_000_000, nobodys).unwrap().burst, 1_250_000);
            assert_eq!(bucket(1_000_000, nobodys).unwrap().burst, 139_264);
        }
        assert_eq!(bucket(u64::MAX, u64::MAX / 2).unwrap().limit, u32::MAX);
        assert_eq!(bucket(7, 8), None);
    }

    #[test]
    fn a_bucket_too_small_for_a_packet_is_refused() {
        let with = |burst| {
            let limits = Bandwidth {
                egress_rate: 8000,
                egress_burst: burst,
                ..Bandwidth::default()
            };
            refuse_too_small(Some(limits), Mtu::new(1450).unwrap())
        };
        assert!(with(11_712).is_ok());
        let error = with(11_704).unwrap_err().to_string();
        assert!(
            error.contains("egressBurst") && error.contains("11712 bits"),
            "{error}"
        );
    }
}
